from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.cell_sums import FeatureTotals

from .conftest import blocks


@settings(deadline=None, max_examples=60)
@given(st.lists(blocks(), min_size=1, max_size=3), st.sampled_from([40, 2000]))
def test_cells_and_totals_are_those_of_a_loop(batches, d_sae):
    totals = FeatureTotals(d_sae)
    n_active, heldout_active = np.zeros(d_sae, int), np.zeros(d_sae, int)
    n_cells, activation, maximum = np.zeros(d_sae, int), np.zeros(d_sae), np.zeros(d_sae)
    for block, triples, _, _ in batches:
        rows = totals.add(block, triples)
        assert len(rows.ptr) == block.n_items + 1
        for cell in range(block.n_items):
            tokens = range(block.item_ptr[cell], block.item_ptr[cell + 1])
            seen = defaultdict(list)
            for token in tokens:
                if block.unit[token] < 0:
                    continue
                for i in np.flatnonzero(triples.token == token):
                    seen[int(triples.feature[i])].append(float(triples.activation[i]))
            part = slice(rows.ptr[cell], rows.ptr[cell + 1])
            assert rows.feature[part].tolist() == sorted(seen)
            n_tokens = sum(block.unit[token] >= 0 for token in tokens)
            for feature, largest, mean in zip(rows.feature[part], rows.maximum[part], rows.mean[part], strict=True):
                values = seen[int(feature)]
                assert largest == np.float32(max(values))
                np.testing.assert_allclose(mean, sum(values) / n_tokens, rtol=1e-6)
                n_active[feature] += len(values)
                heldout_active[feature] += len(values) * block.heldout[cell]
                n_cells[feature] += 1
                activation[feature] += sum(values)
                maximum[feature] = max(maximum[feature], max(values))
    np.testing.assert_array_equal(totals.sums.n_active, n_active)
    np.testing.assert_array_equal(totals.sums.heldout_active, heldout_active)
    np.testing.assert_array_equal(totals.sums.n_items, n_cells)
    np.testing.assert_allclose(totals.sums.activation, activation, rtol=1e-12)
    np.testing.assert_array_equal(totals.sums.maximum, maximum.astype(np.float32))
    counts = [(block.unit >= 0, np.repeat(block.heldout, np.diff(block.item_ptr))) for block, *_ in batches]
    assert totals.tokens == sum(int(counted.sum()) for counted, _ in counts)
    assert totals.heldout_tokens == sum(int((counted & held).sum()) for counted, held in counts)
