"""Stored activations for what comes after: chosen rows, training batches, held-out rows."""
