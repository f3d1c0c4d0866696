"""Geneformer (Theodoris et al. 2023, Nature 618:616): BERT over a cell's genes, ranked by how far each is above its usual level."""
