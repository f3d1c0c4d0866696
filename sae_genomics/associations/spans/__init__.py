"""Features against spans: annotated stretches of items, such as domains of proteins.

Read in this order: `halves` (which items choose, which score), `segments` (spans as rows of a block), `counts` (what one pass adds up),
`scores` (precision, recall, F1, p), `sequence_scores` (baselines without a model), `accumulate` (the accumulator and its tables).
"""
