"""ESM2, protein language models (Lin et al. 2023, Science 379:1123): from 8 million to 15 billion parameters."""
