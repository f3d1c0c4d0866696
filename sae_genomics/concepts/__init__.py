"""Concepts: what people have a name for, as directions in a layer's activations, beside what chance and composition give."""
