"""SAE Genomics: sparse autoencoders for single-cell foundation models, from an h5ad file to a report."""

__version__ = "0.1.0"
