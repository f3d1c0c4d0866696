"""Stage extract: items through the model once, and its activations to files."""
