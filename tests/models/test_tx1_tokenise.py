"""Tokenisation against a plain implementation of one cell, and against what the reference collated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sae_genomics.kernels import compiled
from sae_genomics.models.tx1_tokenise import TokeniserSettings, tokenise
from sae_genomics.tokens import Tokens

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
CLS, PAD, DRUG = 1000, 1001, 1002


def make_settings(**changes):
    return TokeniserSettings(**{"cls_token_id": CLS, "pad_token_id": PAD, "drug_token_id": DRUG, **changes})


def one_cell_bins(row: np.ndarray, num_bins: int, right: bool) -> np.ndarray:
    """The rule of the design, one cell at a time, in torch's own functions."""
    if len(row) == 0:
        return row
    values = torch.as_tensor(row)
    edges = torch.quantile(values, torch.linspace(0, 1, num_bins - 1))
    return (torch.bucketize(values, edges, right=right) + (0 if right else 1)).numpy().astype(np.float32)


def splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def sampled(genes: list[int], row: int, seed: int, raw: int, limit: int, how: TokeniserSettings) -> list[int]:
    """Places of the genes that stay: the first `raw`, and of the others those with the smallest random numbers."""
    if len(genes) <= limit or not how.sampling:
        return list(range(len(genes)))[:limit]
    number = [
        0 if i < raw else max(splitmix(splitmix(splitmix(seed) ^ row) ^ gene) >> 33, 1) for i, gene in enumerate(genes)
    ]
    return sorted(sorted(range(len(genes)), key=lambda i: (number[i], i))[:limit])


def plain(dense, gene_ids, rows, how, drugs=None, seed=0):
    """Cell by cell."""
    cells = []
    for i, row in enumerate(dense):
        present = np.flatnonzero((row > 0) & (gene_ids >= 0))
        special = [CLS] if drugs is None else [CLS, DRUG]
        raw = max(how.keep_first_n_tokens - len(special), 0)
        count = row[present].astype(np.float32)
        value = np.concatenate([count[:raw], one_cell_bins(count[raw:], how.num_bins, how.right_binning)])
        genes = gene_ids[present]
        stay = sampled(genes.tolist(), int(rows[i]), seed, raw, how.max_length - len(special), how)
        genes = np.concatenate([special, genes[stay]])
        cells.append(
            (
                np.full(len(genes), rows[i]),
                genes,
                np.pad(count[stay], (len(special), 0)),
                np.concatenate([[-2.0] * len(special), value[stay]]),
            )
        )
    return [np.concatenate(column) for column in zip(*cells, strict=True)]


integer_counts = st.lists(st.integers(0, 4) | st.integers(0, 3000), min_size=0, max_size=70)
huge_counts = st.lists(st.integers(0, 2**30), min_size=0, max_size=70)
real_counts = st.lists(st.just(0.0) | st.floats(2**-10, 1e4, width=32), min_size=0, max_size=70)
constant_counts = st.tuples(st.integers(1, 5), st.integers(0, 70)).map(lambda pair: [pair[0]] * pair[1])
one_gene = st.tuples(st.integers(0, 69), st.integers(1, 9)).map(lambda pair: [0] * pair[0] + [pair[1]])


def stored(dense, data, index, shuffled, explicit_zeros):
    """A csr matrix of the given types; perhaps with columns in no order, perhaps with zeros that are stored."""
    counts = csr_matrix(np.ones_like(dense) if explicit_zeros else dense, dtype=data)
    if explicit_zeros:
        counts.data[:] = dense.ravel()
    indices, values = counts.indices.copy(), counts.data.copy()
    if shuffled:
        generator = np.random.default_rng(0)
        for start, stop in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            order = start + generator.permutation(stop - start)
            indices[start:stop], values[start:stop] = counts.indices[order], counts.data[order]
    result = csr_matrix(dense.shape, dtype=data)
    result.data, result.indices, result.indptr = values, indices.astype(index), counts.indptr.astype(index)
    return result


@settings(max_examples=400, deadline=None)
@given(
    cells=st.lists(
        integer_counts | huge_counts | real_counts | constant_counts | one_gene | st.just([]), min_size=1, max_size=20
    ),
    num_bins=st.sampled_from([2, 3, 10, 51, 64, 65, 66, 500]),
    right=st.booleans(),
    keep_first=st.sampled_from([1, 2, 4]),
    with_drugs=st.booleans(),
    max_length=st.sampled_from([4, 20, 100]),
    sampling=st.booleans(),
    unmatched=st.booleans(),
    data=st.sampled_from([np.float32, np.float64, np.int32, np.int64]),
    index=st.sampled_from([np.int32, np.int64]),
    shuffled=st.booleans(),
    explicit_zeros=st.booleans(),
    seed=st.sampled_from([0, 3, 2**63]),
)
def test_equals_one_cell_at_a_time(
    cells, num_bins, right, keep_first, with_drugs, max_length, sampling, unmatched, data, index, shuffled,
    explicit_zeros, seed,
):  # fmt: skip
    width = 70
    dense = np.zeros((len(cells), width), dtype=np.float32)
    for i, cell in enumerate(cells):
        dense[i, : len(cell)] = cell
    dense = dense.astype(data).astype(np.float32)
    gene_ids = np.random.default_rng(0).permutation(width).astype(np.int32)
    if unmatched:
        gene_ids[::3] = -1
    rows = np.arange(len(cells)) * 3 + 5
    drugs = np.arange(len(cells)) if with_drugs else None
    how = make_settings(
        num_bins=num_bins,
        right_binning=right,
        keep_first_n_tokens=max(keep_first, 2 if with_drugs else 1),
        max_length=max_length,
        sampling=sampling,
    )
    counts = stored(dense, data, index, shuffled, explicit_zeros)
    tokens = tokenise(counts, gene_ids, rows, settings=how, seed=seed, drugs=drugs)
    cell, gene, expression, value = plain(dense, gene_ids, rows, how, drugs, seed)
    np.testing.assert_array_equal(tokens.item, cell)
    np.testing.assert_array_equal(tokens.token, gene)
    np.testing.assert_array_equal(tokens.weight, expression)
    np.testing.assert_array_equal(tokens.per_token["value"], value.astype(np.float32))
    assert tokens.lengths.tolist() == [(cell == row).sum() for row in rows]
    n_special = 2 if with_drugs else 1
    position = np.concatenate([np.arange(length) for length in tokens.lengths])
    np.testing.assert_array_equal(tokens.position, position)
    np.testing.assert_array_equal(tokens.special, position < n_special)
    column = np.full(1003, -1)
    column[gene_ids[gene_ids >= 0]] = np.flatnonzero(gene_ids >= 0)
    np.testing.assert_array_equal(tokens.unit, column[gene])
    dtypes = {name: getattr(tokens, name).dtype for name in ("item", "token", "unit", "position", "special")}
    assert dtypes == {"item": np.int64, "token": np.int32, "unit": np.int32, "position": np.int32, "special": bool}
    assert (tokens.weight.dtype, tokens.per_token["value"].dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("scale", ["counts", "deep counts", "reals"])
def test_equals_one_cell_at_a_time_on_many_realistic_cells(scale):
    rng = np.random.default_rng(0)
    dense = np.zeros((200, 3000), dtype=np.float32)
    for i in range(len(dense)):
        n = int(rng.integers(0, 2000))
        columns = rng.choice(3000, n, replace=False)
        counts = 1 + rng.negative_binomial(0.4, 0.01 if scale == "deep counts" else 0.3, n)
        dense[i, columns] = np.log1p(counts / counts.sum() * 1e4) if scale == "reals" else counts
    gene_ids = np.arange(3000, dtype=np.int32)
    how = make_settings(max_length=4000)
    tokens = tokenise(csr_matrix(dense), gene_ids, np.arange(200), settings=how, seed=0)
    _, gene, _, value = plain(dense, gene_ids, np.arange(200), how)
    np.testing.assert_array_equal(tokens.token, gene)
    np.testing.assert_array_equal(tokens.per_token["value"], value.astype(np.float32))


def random_counts(n_cells, n_genes, density, seed=0):
    rng = np.random.default_rng(seed)
    return csr_matrix((rng.random((n_cells, n_genes)) < density) * rng.integers(1, 9, (n_cells, n_genes))).astype(
        np.float32
    )


def test_sampling_depends_on_seed_and_row_alone():
    counts = random_counts(30, 400, 0.5)
    gene_ids, rows = np.arange(400, dtype=np.int32), np.arange(30) + 100
    how = make_settings(max_length=64)
    together = tokenise(counts, gene_ids, rows, settings=how, seed=3)
    assert (together.lengths == 64).all()
    for i in (0, 7, 29):
        alone = tokenise(counts[[i]], gene_ids, rows[[i]], settings=how, seed=3)
        expected = together.take([i])
        np.testing.assert_array_equal(alone.token, expected.token)
        np.testing.assert_array_equal(alone.per_token["value"], expected.per_token["value"])
        assert (np.diff(alone.token[1:]) > 0).all(), "genes stay in column order"
    # leaving a gene out of the columns does not change which of two others is preferred
    other_seed = tokenise(counts, gene_ids, rows, settings=how, seed=4)
    other_row = tokenise(counts, gene_ids, rows + 1, settings=how, seed=3)
    assert (together.token != other_seed.token).any()
    assert (together.token != other_row.token).any()


def test_sampled_genes_keep_the_bins_of_the_whole_cell():
    counts = random_counts(5, 400, 0.6)
    gene_ids, rows = np.arange(400, dtype=np.int32), np.arange(5)
    whole = tokenise(counts, gene_ids, rows, settings=make_settings(max_length=500), seed=0)
    part = tokenise(counts, gene_ids, rows, settings=make_settings(max_length=50), seed=0)
    lookup = {(c, g): v for c, g, v in zip(whole.item, whole.token, whole.per_token["value"], strict=True)}
    assert all(lookup[c, g] == v for c, g, v in zip(part.item, part.token, part.per_token["value"], strict=True))


def test_sampling_is_uniform():
    counts = csr_matrix(np.ones((4000, 50), dtype=np.float32))
    tokens = tokenise(
        counts, np.arange(50, dtype=np.int32), np.arange(4000), settings=make_settings(max_length=11), seed=0
    )
    times = np.bincount(tokens.token[tokens.token != CLS], minlength=50)
    expected = 4000 * 10 / 50
    assert ((times - expected) ** 2 / (expected * 0.8)).sum() < 90  # chi-squared, 49 degrees of freedom: p < 0.0004


def test_sampling_keeps_the_first_tokens_that_the_reference_keeps():
    counts = random_counts(20, 200, 0.9)
    how = make_settings(max_length=20, keep_first_n_tokens=3)
    tokens = tokenise(counts, np.arange(200, dtype=np.int32), np.arange(20), settings=how, seed=0)
    first_two = np.array([counts[i].indices[:2] for i in range(20)])
    np.testing.assert_array_equal(tokens.token.reshape(20, 20)[:, 1:3], first_two)
    np.testing.assert_array_equal(
        tokens.per_token["value"].reshape(20, 20)[:, 1:3], tokens.weight.reshape(20, 20)[:, 1:3]
    )


def test_truncation_when_sampling_is_off():
    counts = random_counts(4, 200, 0.9)
    how = make_settings(max_length=20, sampling=False)
    tokens = tokenise(counts, np.arange(200, dtype=np.int32), np.arange(4), settings=how, seed=0)
    np.testing.assert_array_equal(tokens.token.reshape(4, 20)[2, 1:], counts[2].indices[:19])


def test_unmatched_columns_and_stored_zeros_become_no_tokens():
    counts = csr_matrix(np.array([[3, 1, 2, 7], [0, 5, 0, 1]], dtype=np.float32))
    counts.data[2] = 0
    gene_ids = np.array([4, -1, 5, 6], dtype=np.int32)
    tokens = tokenise(counts, gene_ids, np.array([8, 9]), settings=make_settings(), seed=0)
    np.testing.assert_array_equal(tokens.token, [CLS, 4, 6, CLS, 6])
    np.testing.assert_array_equal(tokens.weight, [0, 3, 7, 0, 1])
    np.testing.assert_array_equal(tokens.item, [8, 8, 8, 9, 9])


def test_unsorted_columns_are_read_in_column_order():
    counts = csr_matrix((np.array([5.0, 1.0], np.float32), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    tokens = tokenise(counts, np.arange(3, dtype=np.int32), np.array([0]), settings=make_settings(), seed=0)
    np.testing.assert_array_equal(tokens.token, [CLS, 0, 2])


def test_threads_make_no_difference(monkeypatch):
    counts, rows = random_counts(90, 300, 0.5), np.arange(90)
    ends = []
    for threads in (1, 3):
        monkeypatch.setattr(compiled, "cpu_threads", lambda threads=threads: threads)
        how = make_settings(max_length=140)
        ends.append(tokenise(counts, np.arange(300, dtype=np.int32), rows, settings=how, seed=0))
    for name in ("item", "token", "unit", "position", "weight", "special", "item_ptr"):
        np.testing.assert_array_equal(getattr(ends[0], name), getattr(ends[1], name))


@pytest.mark.parametrize("column", [3, -1])
def test_columns_that_are_not_there(column):
    counts = csr_matrix(np.ones((1, 3), dtype=np.float32))
    counts.indices[2] = column
    with pytest.raises(IndexError, match="outside the 3"):
        tokenise(counts, np.arange(3), np.array([0]), settings=make_settings(), seed=0)


def test_arrays_that_do_not_fit_one_another():
    counts = random_counts(2, 5, 0.5)
    with pytest.raises(ValueError, match="1 rows and 5 gene ids"):
        tokenise(counts, np.arange(5), np.array([0]), settings=make_settings(), seed=0)
    with pytest.raises(ValueError, match="2 rows and 4 gene ids"):
        tokenise(counts, np.arange(4), np.array([0, 1]), settings=make_settings(), seed=0)


def test_no_cells():
    tokens = tokenise(
        csr_matrix((0, 7), dtype=np.float32),
        np.arange(7, dtype=np.int32),
        np.empty(0, int),
        settings=make_settings(),
        seed=0,
    )
    assert len(tokens) == 0
    assert tokens.n_items == 0
    assert tokens.take([]).n_items == 0


@pytest.mark.parametrize("keep_first", [1, 3])
def test_log_transform(keep_first):
    dense = random_counts(6, 90, 0.4).toarray()
    dense[2] = 0
    gene_ids = np.where(np.arange(90) % 4, np.arange(90), -1)
    how = make_settings(do_binning=False, log_transform=True, target_sum=1e4, keep_first_n_tokens=keep_first)
    tokens = tokenise(csr_matrix(dense), gene_ids, np.arange(6), settings=how, seed=0)
    for i in range(6):
        row = dense[i][(dense[i] > 0) & (gene_ids >= 0)]
        part = slice(tokens.item_ptr[i] + 1, tokens.item_ptr[i + 1])
        raw, later = row[: keep_first - 1], row[keep_first - 1 :]
        expected = np.concatenate([raw, np.log1p(later / (later.sum() + 1e-9) * 1e4)])
        np.testing.assert_allclose(tokens.per_token["value"][part], expected, rtol=1e-6)
        np.testing.assert_array_equal(tokens.weight[part], row)


def test_raw_values():
    counts = random_counts(6, 90, 0.4)
    how = make_settings(do_binning=False)
    tokens = tokenise(counts, np.arange(90, dtype=np.int32), np.arange(6), settings=how, seed=0)
    is_gene = tokens.token != CLS
    np.testing.assert_array_equal(tokens.per_token["value"][is_gene], tokens.weight[is_gene])


@given(st.lists(st.integers(0, 9), max_size=12))
@settings(max_examples=50, deadline=None)
def test_take(order):
    counts = random_counts(10, 40, 0.3)
    tokens = tokenise(
        counts, np.arange(40, dtype=np.int32), np.arange(10), settings=make_settings(), seed=0, drugs=np.arange(10)
    )
    taken = tokens.take(order)
    assert isinstance(taken, Tokens)
    assert taken.n_items == len(order)
    for place, cell in enumerate(order):
        here, there = slice(*taken.item_ptr[place : place + 2]), slice(*tokens.item_ptr[cell : cell + 2])
        for name in ("item", "token", "unit", "position", "weight", "special"):
            np.testing.assert_array_equal(getattr(taken, name)[here], getattr(tokens, name)[there])
        np.testing.assert_array_equal(taken.per_token["value"][here], tokens.per_token["value"][there])
        assert taken.per_item["drug"][place] == tokens.per_item["drug"][cell]


def test_concatenate_undoes_cutting():
    tokens = tokenise(
        random_counts(9, 40, 0.3), np.arange(40, dtype=np.int32), np.arange(9), settings=make_settings(), seed=0
    )
    again = Tokens.concatenate([tokens.take(range(4)), tokens.take(range(4, 9))])
    for name in ("item", "token", "unit", "position", "weight", "special", "item_ptr"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tokens, name))


def fixture_settings(folder: Path) -> TokeniserSettings:
    import yaml

    collator = yaml.safe_load((folder / "collator_config.yml").read_text())
    vocab = json.loads((folder / "vocab.json").read_text())
    return TokeniserSettings(
        cls_token_id=vocab["<cls>"],
        pad_token_id=vocab["<pad>"],
        drug_token_id=vocab.get("<drug>"),
        max_length=collator["max_length"],
        keep_first_n_tokens=collator.get("keep_first_n_tokens", 1),
    )


@pytest.mark.parametrize("name", ["relu_70m_style", "gelu_chem_3b_style", "glu_post_norm"])
@pytest.mark.parametrize("case", ["no_drug", "with_drug"])
def test_equals_what_the_reference_collated(name, case):
    folder = FIXTURES / name
    expected = np.load(folder / "expected.npz")
    if f"{case}/gene" not in expected:
        pytest.skip("this checkpoint has no chemical encoder")
    how = fixture_settings(folder)
    drugs = expected["with_drug/drug_ids"] if case == "with_drug" else None
    counts = csr_matrix(expected["counts"])
    tokens = tokenise(counts, expected["gene_ids"], np.arange(6), settings=how, seed=0, drugs=drugs)
    for i in range(6):
        gene, value, raw = (expected[f"{case}/{array}"][i] for array in ("gene", "expr", "expr_raw"))
        real = gene != how.pad_token_id
        part = slice(*tokens.item_ptr[i : i + 2])
        if tokens.lengths[i] != real.sum():
            assert (case, i) == ("with_drug", 2), "the one cell from which the reference drops a gene at random"
            continue
        np.testing.assert_array_equal(tokens.token[part], gene[real])
        np.testing.assert_array_equal(tokens.per_token["value"][part], value[real])
        usual = ~tokens.special[part]
        np.testing.assert_array_equal(tokens.weight[part][usual], raw[real][usual])
