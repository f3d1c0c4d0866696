"""The enrichment test of the stage validate for any list of genes, without a run."""
