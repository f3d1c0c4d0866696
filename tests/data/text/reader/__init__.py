"""A small model family that reads text, with a tokeniser of its own folder: what `data.kind: text` asks of a family."""
