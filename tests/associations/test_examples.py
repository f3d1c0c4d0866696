"""The strongest row of each item and feature."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.cell_sums import FeatureTotals
from sae_genomics.associations.examples import strongest_rows
from sae_genomics.associations.triples import Triples

from .conftest import blocks


@settings(deadline=None, max_examples=60)
@given(blocks(), st.booleans(), st.sampled_from([0.0, 1.0, 1e9]), st.booleans())
def test_strongest_rows_are_those_of_a_loop(batch, coarse, least, backwards):
    block, triples, _, d_sae = batch
    if coarse:  # many ties
        triples = Triples(triples.token, triples.feature, np.ceil(triples.activation).clip(max=3).astype(np.float32))
    if backwards:  # the features of a token stand in any order
        order = np.lexsort((-triples.feature, triples.token))
        triples = Triples(triples.token, triples.feature[order], triples.activation[order])
    bar = np.where(np.arange(d_sae) % 3 == 0, 0, least).astype(np.float32)
    found = strongest_rows(block, triples, FeatureTotals(d_sae).add(block, triples), bar)
    expected = {}
    for token, feature, activation in zip(triples.token, triples.feature, triples.activation, strict=True):
        if block.unit[token] >= 0 and activation > bar[feature]:
            item = int(np.searchsorted(block.item_ptr, token, side="right")) - 1
            if activation > expected.get((item, int(feature)), (0, 0))[0]:
                expected[item, int(feature)] = (float(activation), int(token))
    pairs = zip(found.item.tolist(), found.feature.tolist(), strict=True)
    values = zip(found.maximum.tolist(), found.position.tolist(), strict=True)
    assert dict(zip(pairs, values, strict=True)) == expected
    assert len(found) == len(expected)
