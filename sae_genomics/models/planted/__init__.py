"""A toy model whose features, concepts and causal genes are known, because they were planted: docs/planted.md."""
