"""Features against known biology: over-representation of their top genes, beside baselines and two nulls of each.

`gene_sets` reads collections, `databases` lists where they come from, `background` says which genes could have been listed,
`enrichment` tests, `nulls` repeats the test with gene names shuffled, `task` is the stage.
"""
