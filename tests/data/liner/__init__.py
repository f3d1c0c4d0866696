"""A model family of its own, outside the package: a small network that reads lines. docs/models.md points here."""
