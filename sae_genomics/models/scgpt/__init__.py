"""scGPT, a transformer over genes and binned counts (Cui et al. 2024, Nature Methods 21:1470)."""
