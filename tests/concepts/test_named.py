"""Concepts from labels, spans, gene sets and files, what is counted for each, and how they are split."""

import json

import numpy as np
import pandas as pd
import pytest

from sae_genomics.associations.triples import TokenBlock
from sae_genomics.concepts.concept import Concept, Spans
from sae_genomics.concepts.examples import read_examples
from sae_genomics.concepts.named import (
    LEAST_HELDOUT_GENES,
    OTHERS_PER_GENE,
    expression_bins,
    frequent_labels,
    gene_set_concepts,
    group_numbers,
    label_concepts,
    matched_units,
    span_concepts,
    split_units,
    with_split,
)
from sae_genomics.concepts.rows import collect
from sae_genomics.concepts.sampling import EvenUnits, choose, even_tokens
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.data.units import Units
from sae_genomics.errors import UserError
from sae_genomics.validation.gene_sets import Collection, GeneSet
from tests.concepts.made_up import named_of


def frame(n, groups=None, heldout=None):
    return pd.DataFrame(
        {
            "heldout": np.arange(n) % 4 == 0 if heldout is None else heldout,
            "group": pd.Series([None] * n if groups is None else groups, dtype=object),
        }
    )


def test_items_without_a_label_count_for_nothing():
    labels = pd.Series(["b", "a", None, "b", "a", "c"] * 4)
    concepts, left_out = frequent_labels(labels, ConceptsConfig(min_items=5), "type: ")
    assert [each.id for each in concepts] == ["label:type: a", "label:type: b"]
    np.testing.assert_array_equal(concepts[0].items[:2], [1, 4])
    np.testing.assert_array_equal(concepts[0].others[:3], [0, 3, 5])
    np.testing.assert_array_equal(concepts[0].item_truth(24)[:6], [0, 1, -1, 0, 1, 0])
    assert left_out[0].why == "4 items with it and 16 that tell it from; concepts.min_items is 5"
    concepts, left_out = frequent_labels(labels, ConceptsConfig(min_items=4, max_concepts=2))
    assert [each.name for each in concepts] == ["a", "b"]
    assert [each.name for each in label_concepts(labels)] == ["a", "b", "c"]
    assert left_out[0].why == "4 items with it; others have more (concepts.max_concepts = 2)"


def test_overlapping_spans_become_one():
    spans = Spans.of([1, 0, 0, 0], [2, 8, 0, 3], [4, 9, 5, 6])
    np.testing.assert_array_equal(spans.item, [0, 0, 1])
    np.testing.assert_array_equal(spans.start, [0, 8, 2])
    np.testing.assert_array_equal(spans.stop, [6, 9, 4])
    item, residue = np.repeat([0, 1, 2], 10), np.tile(np.arange(10), 3)
    inside = spans.contain(item, residue)
    np.testing.assert_array_equal(np.flatnonzero(inside), [0, 1, 2, 3, 4, 5, 8, 12, 13])


def test_items_that_were_perhaps_never_annotated_cannot_tell():
    table = pd.DataFrame(
        {"item_index": [0, 2], "start": [1, 0], "stop": [3, 2], "concept": ["A", "B"], "name": ["a", "b"]}
    )
    a, _ = span_concepts(table)
    np.testing.assert_array_equal(a.items, [0])
    np.testing.assert_array_equal(a.others, [2])  # it carries B, so somebody looked; item 1 carries nothing
    # each item: a special token, then four residues, the third of item 0 without a unit
    unit = np.tile([-1, 0, 1, 2, 3], 3).astype(np.int32)
    unit[3] = -1
    truth = a.token_truth(np.repeat([0, 1, 2], 5), np.tile(np.arange(5), 3), unit)
    np.testing.assert_array_equal(truth, [-1, 0, 1, -1, 0, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0])


def test_examples_may_say_which_residues_lack_it():
    concept = Concept(
        "examples:x", "examples", "x", "token", np.array([0]), np.array([1]),
        spans=Spans.of([0], [0], [2]), other_spans=Spans.of([1], [1], [3]),
    )  # fmt: skip
    item, position = np.repeat([0, 1], 4), np.tile(np.arange(1, 5), 2)
    truth = concept.token_truth(item, position, np.zeros(8, np.int64))
    np.testing.assert_array_equal(truth, [1, 1, -1, -1, -1, 0, 0, -1])


def test_gene_sets_are_chosen_by_size_and_matched_by_expression(rng):
    n = 300
    units = Units(np.arange(n, dtype=np.int32), np.array([f"E{i}" for i in range(n)], object),
                  np.array([f"g{i}" for i in range(n)], object), rng.gamma(1, 100, n))  # fmt: skip
    heldout = split_units(n, 0)
    assert heldout.sum() == 100
    sets = [GeneSet(f"S{size}", "", tuple(f"G{i}" for i in rng.permutation(n)[:size])) for size in (30, 50, 5, 40)]
    concepts, left_out = gene_set_concepts(
        [Collection("c", tuple(sets))], units, heldout, ConceptsConfig(gene_sets=2), 0
    )
    assert [each.name for each in concepts] == ["S50", "S40"]
    assert {each.name: each.why.split(";")[0] for each in left_out}["S30"] == "30 genes of the data"
    assert "concepts.min_genes is 10" in {each.name: each.why for each in left_out}["S5"]
    bins = expression_bins(units.counts)
    for each in concepts:
        assert not np.isin(each.units, each.other_units).any()
        assert min(heldout[each.units].sum(), (~heldout[each.units]).sum()) >= LEAST_HELDOUT_GENES
        for stratum in range(20):
            members = (bins[each.units] * 2 + heldout[each.units] == stratum).sum()
            others = (bins[each.other_units] * 2 + heldout[each.other_units] == stratum).sum()
            assert others <= OTHERS_PER_GENE * members
            if not members:
                assert not others
    truth = concepts[0].token_truth(np.zeros(n, int), np.zeros(n, int), np.arange(n))
    assert (truth == 1).sum() == 50
    assert (truth == 0).sum() == len(concepts[0].other_units)
    few = matched_units(np.arange(280), bins, heldout, rng)
    assert len(few) == 20  # no more than there are


def test_groups_stay_whole_unless_there_are_too_few():
    groups = [f"d{i % 8}" for i in range(80)]
    heldout = np.array([int(g[1:]) < 4 for g in groups])
    yes = np.array([int(g[1:]) % 2 == 0 for g in groups])
    wide = Concept("label:wide", "label", "wide", "item", np.flatnonzero(yes), np.flatnonzero(~yes))
    one = np.array([g == "d5" for g in groups])
    narrow = Concept("label:narrow", "label", "narrow", "item", np.flatnonzero(one), np.flatnonzero(~one))
    named = with_split([wide, narrow], [], frame(80, groups, heldout), np.zeros(3, bool), 0)
    assert [each.split_by for each in named] == ["group", "item"]
    np.testing.assert_array_equal(named.heldout_of(named[0]), heldout)
    own = named.heldout_of(named[1])
    assert own.mean() == 0.25
    assert own[one].any()
    np.testing.assert_array_equal(named.groups_of(named[1]), np.arange(80))
    plain = with_split([wide], [], frame(80), np.zeros(3, bool), 0)
    np.testing.assert_array_equal(plain.heldout_of(plain[0]), np.arange(80) % 4 == 0)
    np.testing.assert_array_equal(group_numbers(pd.Series(["a", None, "a", None])), [0, 1, 0, 2])


def test_tokens_are_taken_evenly(rng):
    item = np.repeat(np.arange(4), [100, 3, 7, 50])
    row = np.arange(1000, 1160)
    taken = even_tokens(row, item, 8)
    counts = np.bincount(item[taken - 1000], minlength=4)
    np.testing.assert_array_equal(counts, [8, 3, 7, 8])
    gaps = np.diff(taken[item[taken - 1000] == 0])
    assert gaps.min() >= 12
    assert gaps.max() <= 13
    unit = rng.integers(5, size=1000)
    totals = np.bincount(unit, minlength=5)
    even = EvenUnits(totals, 20)
    taken = np.concatenate([even.take(np.arange(i, i + 250), unit[i : i + 250]) for i in range(0, 1000, 250)])
    np.testing.assert_array_equal(np.bincount(unit[taken], minlength=5), 20)
    assert (np.bincount(taken // 250) > 15).all()  # from every block


def test_the_pass_keeps_means_and_windows(rng):
    lengths = np.array([4, 6, 5])
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    unit = rng.integers(0, 3, 15).astype(np.int32)
    unit[ptr[:-1]] = -1
    x = rng.normal(size=(15, 2)).astype(np.float32)
    position = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    weight = rng.integers(1, 9, 15).astype(np.float32)
    blocks = [
        (TokenBlock(unit[:4], weight[:4], ptr[:2], np.zeros(1, bool), 0, position[:4]), x[:4]),
        (TokenBlock(unit[4:], weight[4:], ptr[1:] - 4, np.zeros(2, bool), 1, position[4:]), x[4:]),
    ]
    label = Concept("label:a", "label", "a", "item", np.array([0, 2]), np.array([1]))
    span = Concept("span:s", "span", "s", "token", np.array([1]), np.array([2]), spans=Spans.of([1], [1], [3]))
    named = named_of([label, span], frame(3), 3)
    settings = ConceptsConfig(span_items=4, tokens_per_item=4)
    sample = choose(named, np.array([0, 1, 0]), np.zeros(3, np.int64), settings, 0)
    items, tokens = collect(blocks, sample, named, 2)
    np.testing.assert_array_equal(items.item, [0, 1, 2])
    np.testing.assert_allclose(items.x[1], x[5:10].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(items.depth[2], weight[11:].sum())
    np.testing.assert_allclose(
        items.unit_weights.toarray()[0], np.bincount(unit[1:4], weight[1:4], minlength=3), rtol=1e-6
    )
    assert tokens.for_spans.all()
    assert set(tokens.item) == {1, 2}
    assert (np.bincount(tokens.item)[1:] == 4).all()
    row = 4 + int(tokens.position[0])  # of item 1
    np.testing.assert_allclose(tokens.x[0], x[row])
    np.testing.assert_allclose(tokens.window[0], np.bincount(unit[5:10], minlength=3) / 5, rtol=1e-6)


def test_many_concepts_share_their_items(rng):
    n = 2000
    concepts = [
        Concept(f"span:{i}", "span", str(i), "token", (a := np.sort(rng.permutation(n)[:300])), np.setdiff1d(np.arange(n), a),
                spans=Spans.of(a, np.zeros(300, int), np.full(300, 5)))
        for i in range(10)
    ]  # fmt: skip
    named = named_of(concepts, frame(n))
    labels, none = np.full(n, -1), np.zeros(20, np.int64)
    whole = choose(named, labels, none, ConceptsConfig(), 0)
    assert all(4 * 50 < len(items) <= 4 * 64 for items in whole.span_items.values())
    tight = ConceptsConfig(max_tokens=8000)
    sample = choose(named, labels, none, tight, 0)
    assert sample.token_items.sum() * tight.tokens_per_item <= tight.max_tokens
    for concept in named:
        own = sample.span_items[concept.id]
        assert sample.token_items[own].all()
        assert np.isin(own, concept.items).sum() == len(own) // 2  # as many with it as without


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "item_id\tlabel\ni1\tmaybe\n", "line 2: label is 'maybe'; write positive or negative"),
        ("a.tsv", "item_id\tlabel\tstart\tend\ni1\tpositive\t3\t\n", "line 2: start without end"),
        ("a.tsv", "item_id\tlabel\tstart\tend\ni1\tpositive\t9\t3\n", "line 2: a span from 9 to 3"),
        ("a.tsv", "item_id\tlabel\tstart\tend\ni1\tpositive\t0\t3\n", "line 2: a span from 0 to 3; residues count from 1"),
        ("a.tsv", "item_id\tlabel\tstart\tend\n\ni1\tpositive\tx\t3\n", "line 3: start is 'x'; write a whole number"),
        ("a.tsv", "item_id\tlabel\n\tpositive\n", "line 2: no item_id"),
        ("a.tsv", "item_id\tconcept\ni1\tc\n", "line 1: no column label"),
        ("a.tsv", "item_id\tlabel\ni1\tnegative\n", "line 2: the concept 'a' has no positive example"),
        ("a.jsonl", '{"item_id": "i1", "label": "positive"}\n{"item_id"\n', "line 2: not valid JSON"),
        ("a.jsonl", "[1]\n", "line 1: a JSONL line is one object"),
        ("a.csv", "item_id,label\n", "takes .tsv and .jsonl files"),
    ],
)  # fmt: skip
def test_bad_examples_are_one_line(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_examples(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_both_formats_say_the_same(tmp_path):
    rows = [("i1", "positive", "zinc", 3, 9), ("i2", "negative", "zinc", None, None)]
    table, lines = tmp_path / "a.tsv", tmp_path / "a.jsonl"
    table.write_text(
        "item_id\tlabel\tconcept\tstart\tend\n"
        + "".join("\t".join("" if each is None else str(each) for each in row) + "\n" for row in rows)
    )
    keys = ("item_id", "label", "concept", "start", "end")
    lines.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    one, other = read_examples(table), read_examples(lines)
    assert [(e.item_id, e.positive, e.concept, e.start, e.stop) for e in one] == [
        ("i1", True, "zinc", 2, 9), ("i2", False, "zinc", None, None),
    ]  # fmt: skip
    assert [e.start for e in one] == [e.start for e in other]
    assert [e.line for e in one] == [2, 3]
    assert [e.line for e in other] == [1, 2]
