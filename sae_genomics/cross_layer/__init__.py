"""Features over layers: which persist, appear, vanish; which fire together; what leads to what."""
