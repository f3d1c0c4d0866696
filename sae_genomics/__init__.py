"""SAE Genomics: sparse autoencoders for foundation models of cells and proteins, from an h5ad or FASTA file to a report."""

import os

__version__ = "0.1.0"

# Two kinds of threads share the cores: torch's, and those of compiled kernels. Awake while they wait, as is their habit,
# torch's take the time of the others: extraction is 7 % slower. This is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
