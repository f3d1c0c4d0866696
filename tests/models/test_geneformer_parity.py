"""Geneformer against transformers' own hooks, and its tokens against its own rule, on random checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from transformers import BertForMaskedLM

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import CountItems, SequenceItems
from sae_genomics.models import load_model
from sae_genomics.models.geneformer.model import Geneformer, load_folder
from sae_genomics.models.sequences import Sequences
from tests.models.esm2_checkpoints import close
from tests.models.geneformer_checkpoints import CLS, EOS, MASK, PAD, cells, genes, make, medians_of, read, seen_by_hooks

HOOKS = ("resid_post", "mlp_out", "attn_out")
LENGTHS = [5, 60, 1, 33, 38, 12]
SHAPES: dict[str, dict[str, Any]] = {
    "V2": {},
    "V1": {"series": "V1"},
    "gelu": {"hidden_act": "gelu"},
    "own output weights": {"tie_word_embeddings": False},
    "wide heads": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
    "narrow heads": {"hidden_size": 32, "num_attention_heads": 8},
    "one kind of sentence": {"type_vocab_size": 1},
}


def loaded(folder: Path, **settings: Any) -> tuple[Geneformer, BertForMaskedLM]:
    make(folder, **settings)
    theirs = BertForMaskedLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return load_folder(folder), theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_every_hook_and_layer_is_what_transformers_hooks_see(tmp_path: Path, shape: str) -> None:
    ours, theirs = loaded(tmp_path, **SHAPES[shape])
    series = SHAPES[shape].get("series", "V2")
    items = cells(series, LENGTHS)
    tokens = ours.tokenise(items, seed=0)
    rows = read(items, series, 40)
    assert [len(row) for row in rows] == tokens.lengths.tolist()
    assert max(tokens.lengths) == 40
    assert tokens.token.tolist() == [token for row in rows for token in row]
    expected = seen_by_hooks(theirs, rows)
    plain = load_model(ModelConfig(family="geneformer", path=tmp_path, device="cpu", backend="reference"))
    for hook in HOOKS:
        found = ours.forward_layers(tokens, list(range(ours.info.n_layers)), hook)
        reference = plain.forward_layers(tokens, [1], hook)
        assert close(reference[1].numpy(), np.concatenate(expected[hook, 1]))
        for layer, x in found.items():
            assert close(x.numpy(), np.concatenate(expected[hook, layer])), (hook, layer)


def test_the_loss_is_transformers_own(tmp_path: Path) -> None:
    ours, theirs = loaded(tmp_path)
    ours.scores_at_once = 7
    tokens = ours.tokenise(cells("V2", LENGTHS), 0)
    hidden = ~tokens.special & (np.random.default_rng(1).random(len(tokens)) < 0.3)
    found = ours.masked_loss(tokens, hidden, "resid_post")
    plain = load_model(ModelConfig(family="geneformer", path=tmp_path, device="cpu", backend="reference"))
    assert np.allclose(found, plain.masked_loss(tokens, hidden, "resid_post"), rtol=1e-5, atol=1e-6)
    for number in range(tokens.n_items):
        part = slice(tokens.item_ptr[number], tokens.item_ptr[number + 1])
        token, where = torch.from_numpy(tokens.token[part]).long(), torch.from_numpy(hidden[part])
        with torch.inference_mode():
            scores = theirs(torch.where(where, MASK, token)[None]).logits[0]
        expected = torch.nn.functional.cross_entropy(scores, token, reduction="none") * where
        assert np.allclose(found[part], expected.numpy(), rtol=1e-5, atol=1e-6)

    def halved(x: torch.Tensor) -> torch.Tensor:
        return x * 0.5

    for hook in HOOKS:
        changed = ours.masked_loss(tokens, hidden, hook, {1: halved})
        assert np.allclose(changed, plain.masked_loss(tokens, hidden, hook, {1: halved}), rtol=1e-5, atol=1e-6)
        assert not np.allclose(changed, found, rtol=1e-3)


def test_order_and_company_make_no_difference(tmp_path: Path) -> None:
    ours, _ = loaded(tmp_path)
    ours.piece_tokens = 60  # several pieces per batch
    tokens = ours.tokenise(cells("V2", [5, 30, 33, 60, 2, 24, 24]), 0)
    together = ours.forward_layers(tokens, [1, 2], "mlp_out")
    generator = np.random.default_rng(0)
    for _ in range(4):
        order = generator.permutation(tokens.n_items)[: generator.integers(1, tokens.n_items)]
        found = ours.forward_layers(tokens.take(order), [1, 2], "mlp_out")
        for layer, x in found.items():
            assert close(x.numpy(), together[layer].numpy()[tokens.rows_of(order)])
    assert ours.padding_share == 0


def test_padded_attention_is_the_same(tmp_path: Path) -> None:
    """What an accelerator computes, here on the CPU."""
    ours, _ = loaded(tmp_path)
    tokens = ours.tokenise(cells("V2", [30, 28, 25]), 0)
    expected = ours.forward_layers(tokens, [2], "resid_post")[2]
    for module in ours.network.modules():
        for kernel in ("onednn", "compiled"):
            if hasattr(module, kernel):
                setattr(module, kernel, False)
    sequences = Sequences(tokens.item_ptr, torch.device("cpu"), padded=True)
    found = ours.network(torch.from_numpy(tokens.token).long(), sequences, 3, lambda hook, layer, x: x)
    assert close(found.detach().numpy(), expected.numpy())


def test_bfloat16_stays_near(tmp_path: Path) -> None:
    make(tmp_path)
    tokens = load_folder(tmp_path).tokenise(cells("V2", [30, 38]), 0)
    exact = load_folder(tmp_path).forward_layers(tokens, [2], "resid_post")[2]
    half = load_folder(tmp_path, dtype="bfloat16").forward_layers(tokens, [2], "resid_post")[2]
    assert half.dtype == torch.bfloat16
    assert 0 < float((half.float() - exact).norm() / exact.norm()) < 0.03


# --- tokens ---


def test_special_tokens_positions_and_units(tmp_path: Path) -> None:
    make(tmp_path)
    items = cells("V2", [3, 0, 60])
    tokens = load_folder(tmp_path).tokenise(items, 0)
    assert tokens.lengths.tolist() == [5, 2, 40]
    assert tokens.token[tokens.special].tolist() == [CLS, EOS] * 3
    assert tokens.position.tolist() == [*range(5), 0, 1, *range(40)]
    assert tokens.item.tolist() == [5] * 5 + [8] * 2 + [11] * 40
    assert (tokens.unit[tokens.special] == -1).all()
    usual = ~tokens.special
    assert (items.token[tokens.unit[usual]] == tokens.token[usual]).all()
    row = (tokens.item[usual] - 5) // 3
    assert (tokens.weight[usual] == np.asarray(items.counts[row, tokens.unit[usual]]).ravel()).all()


def test_totals_decide_nothing_but_rounding_and_equal_values_stand_by_token(tmp_path: Path) -> None:
    make(tmp_path, "V1")
    model = load_folder(tmp_path)
    items = cells("V1", [20, 40])
    without = model.tokenise(dataclasses.replace(items, totals=None), 0)
    assert without.token.tolist() == model.tokenise(items, 0).token.tolist()
    model._tokeniser.medians[:] = 1.0
    ones = csr_matrix(np.array([[1, 2, 1, 2, 1]], np.float32))
    found = model.tokenise(CountItems(np.arange(1), ones, np.array([9, 30, 4, 12, 5], np.int32)), 0)
    assert found.token.tolist() == [12, 30, 4, 5, 9]


def test_values_are_computed_in_float64_and_in_the_rules_order(tmp_path: Path) -> None:
    """Nearly equal values: in float32 they would be equal."""
    make(tmp_path, "V1")
    model = load_folder(tmp_path)
    generator = np.random.default_rng(5)
    model._tokeniser.medians[:] = 1 + generator.integers(0, 6, 62) * 1e-12
    counts = csr_matrix(np.ones((1, 60), np.float32))
    ids = np.arange(2, 62, dtype=np.int32)
    found = model.tokenise(CountItems(np.arange(1), counts, ids, totals=np.array([7919.0])), 0)
    value = np.float64(1) / 7919.0 * 10_000 / model._tokeniser.medians[2:]
    assert found.token.tolist() == ids[np.argsort(-value, kind="stable")][:40].tolist()
    assert len(set(value)) == 6


def test_genes_without_a_median_and_unknown_ones_are_left_out(tmp_path: Path) -> None:
    import pickle

    make(tmp_path)
    medians = medians_of()
    del medians[genes()[4]]
    (tmp_path / "gene_median_dictionary.pkl").write_bytes(pickle.dumps(medians | {"ENSG99999999999": 3.0}))
    model = load_folder(tmp_path)
    left_out = model.folder.dictionaries.tokens[genes()[4]]
    assert genes()[4] not in model.folder.vocab
    assert "SYM4" not in model.folder.vocab
    items = cells("V2", [30])
    items = dataclasses.replace(items, counts=csr_matrix(np.ones((1, 60), np.float32)), token=items.token.copy())
    items.token[7] = -1
    found = model.tokenise(items, 0)
    assert left_out not in found.token
    assert 7 not in found.unit
    assert len(found) == 40


def test_many_cells_rank_as_one_by_one(tmp_path: Path) -> None:
    make(tmp_path, "V1")
    model = load_folder(tmp_path)
    generator = np.random.default_rng(2)
    counts = csr_matrix(generator.poisson(0.4, (70_000, 60)).astype(np.float32))
    items = CountItems(np.arange(70_000), counts, np.arange(2, 62, dtype=np.int32))
    tokens = model.tokenise(items, 0)
    for number in (0, 1, 65_535, 65_536, 69_999):
        alone = model.tokenise(CountItems(items.rows[[number]], counts[[number]], items.token), 0)
        assert tokens.take([number]).token.tolist() == alone.token.tolist()


def test_proteins_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=r"set data\.kind to cells"):
        load_folder(tmp_path).tokenise(SequenceItems(np.arange(1), ["MK"]), 0)


def test_a_cell_without_genes_in_a_model_without_special_tokens(tmp_path: Path) -> None:
    make(tmp_path, "V1")
    model = load_folder(tmp_path)
    tokens = model.tokenise(cells("V1", [0, 4, 0, 3, 0]), 0)
    assert tokens.lengths.tolist() == [1, 4, 1, 3, 1]
    assert tokens.special.tolist() == [True, *[False] * 4, True, *[False] * 3, True]
    assert tokens.token[tokens.special].tolist() == [PAD] * 3
    assert model.forward_layers(tokens, [2], "resid_post")[2].shape == (10, 48)
    found = model.resume(model.pause(tokens, 1, "resid_post"))
    assert found.embedding is not None
    assert found.embedding[[0, 2, 4]].abs().max() == 0
