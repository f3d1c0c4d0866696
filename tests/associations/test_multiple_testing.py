import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from sae_genomics.associations.multiple_testing import benjamini_hochberg

p_values = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.5, 1.0, 1e-300])), min_size=1, max_size=40)


@settings(deadline=None)
@given(p_values, st.integers(0, 30))
def test_q_values_are_scipys_and_tests_with_p_1_need_not_be_listed(values, n_unlisted):
    p = np.array(values)
    expected = false_discovery_control(np.concatenate([p, np.ones(n_unlisted)]))[: len(p)]
    np.testing.assert_allclose(benjamini_hochberg(p, len(p) + n_unlisted), expected, rtol=1e-12)


@settings(deadline=None)
@given(p_values)
def test_tests_that_were_not_made_do_not_count(values):
    p = np.array(values)
    with_gaps = np.full(2 * len(p), np.nan)
    with_gaps[::2] = p
    q = benjamini_hochberg(with_gaps)
    np.testing.assert_allclose(q[::2], false_discovery_control(p), rtol=1e-12)
    assert np.isnan(q[1::2]).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=20), st.integers(0, 10))
def test_tests_of_one_kind_can_be_counted_instead_of_listed(kinds, n_unlisted):
    p, counts = np.array([p for p, _ in kinds]), np.array([count for _, count in kinds])
    listed = np.repeat(p, counts)
    expected = benjamini_hochberg(listed, len(listed) + n_unlisted)
    found = benjamini_hochberg(p, len(listed) + n_unlisted, counts)
    np.testing.assert_allclose(np.repeat(found, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(
        np.repeat(benjamini_hochberg(p, counts=counts), counts), benjamini_hochberg(listed), rtol=1e-12
    )
