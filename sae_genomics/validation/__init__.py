"""Features against known biology: their top genes and gene sets, beside baselines and two nulls of each.

`gene_sets` reads collections, `databases` lists where they come from, `background` says which genes could have been listed,
`gene_lists` cuts the lists, `enrichment_tests` lists the tests, `nulls` repeats the test with gene names shuffled, `task` is the stage.
"""
