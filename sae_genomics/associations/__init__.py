"""Features against genes, cells and cell types: one pass over a layer's activations, then exact statistics.

Read in this order: `task` (the stage), `stream` (activations in), `gene_sums` and `cell_matrix` (what the pass
accumulates), `gene_ranking` and `cell_types` (the tables made of it), `mann_whitney` (the test). The sums are kernels, see `kernels/`.
"""
