import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from sae_genomics.associations.multiple_testing import benjamini_hochberg

p_values = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.5, 1.0, 1e-300])), min_size=1, max_size=40)


@given(p_values, st.integers(0, 30))
def test_q_values_are_scipys_and_tests_with_p_1_need_not_be_listed(values, n_unlisted):
    p = np.array(values)
    expected = false_discovery_control(np.concatenate([p, np.ones(n_unlisted)]))[: len(p)]
    np.testing.assert_allclose(benjamini_hochberg(p, len(p) + n_unlisted), expected, rtol=1e-12)


@given(p_values)
def test_tests_that_were_not_made_do_not_count(values):
    p = np.array(values)
    with_gaps = np.full(2 * len(p), np.nan)
    with_gaps[::2] = p
    q = benjamini_hochberg(with_gaps)
    np.testing.assert_allclose(q[::2], false_discovery_control(p), rtol=1e-12)
    assert np.isnan(q[1::2]).all()
