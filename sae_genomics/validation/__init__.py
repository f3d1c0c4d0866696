"""Features against known biology: over-representation of their top genes, beside what two nulls give.

`gene_sets` reads collections, `databases` lists where they come from, `enrichment` tests, `nulls` repeats the test on
shuffled genes and raw neurons, `task` is the stage.
"""
