"""Which terms of known biology several runs find: read from their results alone."""
