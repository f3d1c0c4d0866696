from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.associations import column_store
from sae_genomics.associations.column_store import ColumnStore


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(1, 100), st.sampled_from([0, 200, 1 << 22]))
def test_columns_come_back_as_rows_went_in(tmp_path_factory, seed, n_rows, n_columns, least_numbers):
    rng = np.random.default_rng(seed)
    matrix = sparse.random(n_rows, n_columns, 0.3, random_state=rng, dtype=np.float32).tocsr()
    folder = tmp_path_factory.mktemp("store")
    with (
        patch.object(column_store, "_LEAST_NUMBERS", least_numbers),
        ColumnStore(n_rows, n_columns, folder) as store,
    ):
        for rows in np.array_split(rng.permutation(n_rows), 3):
            part = matrix[rows].tocoo()
            store.add(rows[part.row], part.col, part.data)
        for _ in range(2):  # it can be read again
            parts = list(store.columns())
            assert [first for first, _ in parts] == list(range(0, n_columns, store.width))
            back = sparse.hstack([part for _, part in parts]).toarray()
            np.testing.assert_array_equal(back, matrix.toarray())
        assert list(folder.iterdir()) == []  # no file with a name is left, whatever happens
