import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_genomics.data.cells.genes import match_genes, strip_versions, sum_by_gene
from sae_genomics.errors import UserError

VOCABULARY = {f"ENSG{i:011d}": 3 * i + 5 for i in range(30)}
KNOWN = list(VOCABULARY)


@settings(max_examples=80, deadline=None)
@given(
    picks=st.lists(st.tuples(st.integers(0, 44), st.sampled_from(["", ".1", ".17", "_PAR"])), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_matching_and_summing_against_pandas(picks, seed):
    names = [f"ENSG{i:011d}{suffix}" for i, suffix in picks]
    counts = np.random.default_rng(seed).poisson(1.0, (7, len(names)))
    plain = pd.Series(names).str.replace(r"\.\d+$", "", regex=True)
    expected = pd.DataFrame(counts.T).groupby(plain.map(VOCABULARY).to_numpy()).sum().sort_index().T
    if expected.shape[1] == 0:
        with pytest.raises(UserError, match="no genes matched"):
            match_genes(pd.DataFrame(index=names), VOCABULARY, None, None, "file")
        return
    match = match_genes(pd.DataFrame(index=names), VOCABULARY, None, None, "file")
    np.testing.assert_array_equal(match.tokens, expected.columns)
    given_counts = sparse.csr_matrix(counts)
    summed = sum_by_gene(given_counts, match.gene_index, len(match.tokens))
    np.testing.assert_array_equal(given_counts.toarray(), counts)
    np.testing.assert_array_equal(summed.toarray(), expected.to_numpy())
    assert summed.has_canonical_format
    assert summed.dtype == np.float32
    assert (summed.data > 0).all()
    assert match.n_matched == plain.isin(KNOWN).sum()
    np.testing.assert_array_equal(
        match.token[match.gene_index >= 0], match.tokens[match.gene_index[match.gene_index >= 0]]
    )
    assert ((match.token < 0) == (match.gene_index < 0)).all()


def test_only_ensembl_ids_lose_a_version():
    names = [
        "ENSG00000141510.17",
        "ENSMUSG00000059552.14",
        "AC012345.1",
        "RP11-34P13.7",
        "ENSG00000182378.14_PAR_Y",
        "HLA-A",
        "ENSG00000141510",
    ]
    assert list(strip_versions(np.array(names, dtype=object))) == [
        "ENSG00000141510", "ENSMUSG00000059552", "AC012345.1", "RP11-34P13.7", "ENSG00000182378", "HLA-A", "ENSG00000141510",
    ]  # fmt: skip


def test_a_name_the_model_knows_with_its_version_stays():
    vocabulary = {"ENSG00000141510.17": 4, "AC012345.1": 5}
    match = match_genes(pd.DataFrame(index=["ENSG00000141510.17", "AC012345.1"]), vocabulary, None, None, "file")
    assert list(match.token) == [4, 5]
    assert match.names[0] == "ENSG00000141510.17"


def test_the_column_asked_for():
    var = pd.DataFrame({"ids": pd.Categorical(KNOWN[:5])}, index=list("abcde"))
    match = match_genes(var, VOCABULARY, "ids", None, "file")
    assert match.n_matched == 5
    assert list(match.symbols) == list("abcde")
    with pytest.raises(UserError, match=r"data.gene_key: file has no var column 'id'; there are: ids"):
        match_genes(var, VOCABULARY, "id", None, "file")
    with pytest.raises(UserError, match=r"data.symbol_key: file has no var column 'names'"):
        match_genes(var, VOCABULARY, "ids", "names", "file")


def test_a_far_better_column_is_taken_and_said():
    var = pd.DataFrame({"gene_ids": KNOWN[:10], "n": range(10)}, index=[f"S{i}" for i in range(10)])
    match = match_genes(var, VOCABULARY, None, None, "file")
    assert (match.gene_key, match.n_matched) == ("gene_ids", 10)
    assert any("gene_ids" in note and "10 of 10" in note for note in match.notes)
    assert list(match.symbols) == list(var.index)


def test_the_index_stays_when_it_matches_well_enough():
    var = pd.DataFrame({"gene_ids": KNOWN[:10]}, index=[*KNOWN[:3], *"abcdefg"])
    match = match_genes(var, VOCABULARY, None, None, "file")
    assert (match.gene_key, match.n_matched) == (None, 3)
    assert any("10 instead of 3" in note for note in match.notes)


def test_nothing_matches():
    var = pd.DataFrame({"kind": ["x"] * 4}, index=["TP53", "CD3E", "MS4A1", "NKG7"])
    with pytest.raises(UserError) as error:
        match_genes(var, VOCABULARY, None, None, "cells.h5ad")
    for words in ("no genes matched", "cells.h5ad", "TP53, CD3E", "ENSG00000000000", "data.gene_key"):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"set data.gene_key: ids, which matches 4"):
        match_genes(var.assign(ids=KNOWN[:4]), VOCABULARY, "kind", None, "cells.h5ad")
    with pytest.raises(UserError, match=r"set data.gene_key: null \(the index\)"):
        match_genes(pd.DataFrame({"kind": ["x"] * 4}, index=KNOWN[:4]), VOCABULARY, "kind", None, "cells.h5ad")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"feature_name": ["A", "B", "C"]}, ["A", "B", "C"]),
        ({"Gene_Symbol": ["A", "B", ""]}, ["A", "B", KNOWN[2]]),
        ({"gene_name": KNOWN[3:6]}, KNOWN[:3]),
        ({}, KNOWN[:3]),
    ],
)
def test_symbols_are_found(columns, expected):
    var = pd.DataFrame(columns, index=KNOWN[:3])
    assert list(match_genes(var, VOCABULARY, None, None, "file").symbols) == expected


def test_missing_symbols_show_the_id():
    var = pd.DataFrame({"name": ["A", None, np.nan]}, index=KNOWN[:3])
    assert list(match_genes(var, VOCABULARY, None, "name", "file").symbols) == ["A", KNOWN[1], KNOWN[2]]


def test_symbols_come_from_the_model_where_the_input_has_none() -> None:
    ids = ["ENSG00000000003.14", "ENSG00000000005", "ENSG00000000419"]
    vocabulary = {"ENSG00000000003": 5, "ENSG00000000005": 6, "TSPAN6": 5}
    known = {"ENSG00000000003": "TSPAN6", "ENSG00000000005": "TNMD"}
    found = match_genes(pd.DataFrame(index=ids), vocabulary, None, None, "cells.h5ad", known)
    assert found.symbols.tolist() == ["TSPAN6", "TNMD", "ENSG00000000419"]
    assert found.names.tolist() == ["ENSG00000000003", "ENSG00000000005", "ENSG00000000419"]
    assert any("the model's own table of names" in note for note in found.notes)
    own = pd.DataFrame({"gene_symbol": ["a", "b", "c"]}, index=ids)
    assert match_genes(own, vocabulary, None, None, "cells.h5ad", known).symbols.tolist() == ["a", "b", "c"]
    by_symbol = match_genes(pd.DataFrame(index=["TSPAN6", "x"]), vocabulary, None, None, "cells.h5ad", known)
    assert (by_symbol.symbols.tolist(), by_symbol.notes) == (["TSPAN6", "x"], ())
