"""ESM2 against transformers' own hooks, on random checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EsmForMaskedLM

from sae_genomics.models.esm2.model import Esm2, load_folder
from tests.models.esm2_checkpoints import EOS, MASK, VOCAB, close, make, proteins, read, seen_by_hooks

HOOKS = ("resid_post", "mlp_out", "attn_out")
SHAPES: dict[str, dict[str, Any]] = {
    "as published": {},
    "absolute positions": {"position_embedding_type": "absolute"},
    "no token dropout": {"token_dropout": False},
    "norm after embeddings": {"emb_layer_norm_before": True, "position_embedding_type": "absolute"},
    "own output weights": {"tie_word_embeddings": False},
    "wide heads": {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
    "narrow heads": {"hidden_size": 32, "num_attention_heads": 8},
    "odd half": {"hidden_size": 40, "num_attention_heads": 4},
}
LENGTHS = [7, 90, 1, 33, 128, 12]


def loaded(folder: Path, **settings: Any) -> tuple[Esm2, EsmForMaskedLM]:
    make(folder, **settings)
    theirs = EsmForMaskedLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return load_folder(folder), theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_every_hook_and_layer_is_what_transformers_hooks_see(tmp_path: Path, shape: str) -> None:
    ours, theirs = loaded(tmp_path, **{"max_position_embeddings": 140, **SHAPES[shape]})
    items = proteins(1, LENGTHS)
    tokens = ours.tokenise(items, seed=0)
    assert tokens.n_items == len(LENGTHS)
    expected = seen_by_hooks(theirs, [read(sequence) for sequence in items.sequences])
    for hook in HOOKS:
        found = ours.forward_layers(tokens, list(range(ours.info.n_layers)), hook)
        for layer, x in found.items():
            assert close(x.numpy(), np.concatenate(expected[hook, layer])), (hook, layer)


def test_the_last_layer_is_before_the_final_norm(tmp_path: Path) -> None:
    ours, theirs = loaded(tmp_path)
    items = proteins(2, [40])
    last = ours.forward_layers(ours.tokenise(items, 0), [2], "resid_post")[2].numpy()
    with torch.inference_mode():
        states = theirs(torch.tensor([read(items.sequences[0])]), output_hidden_states=True).hidden_states
        normed = theirs.esm.encoder.emb_layer_norm_after(torch.from_numpy(last)).numpy()
    assert close(normed, states[-1][0].numpy())
    layer_1 = ours.forward_layers(ours.tokenise(items, 0), [1], "resid_post")[1].numpy()
    assert close(layer_1, states[2][0].numpy())


@pytest.mark.parametrize("shape", ["as published", "absolute positions", "no token dropout"])
def test_the_masked_loss_is_transformers_cross_entropy(tmp_path: Path, shape: str) -> None:
    ours, theirs = loaded(tmp_path, **SHAPES[shape])
    items = proteins(3, [60, 9, 120])
    tokens = ours.tokenise(items, 0)
    hidden = ~tokens.special & (np.random.default_rng(0).random(len(tokens)) < 0.3)
    hidden[tokens.item_ptr[1] : tokens.item_ptr[2]] = False  # nothing of the second is hidden
    found = ours.masked_loss(tokens, hidden, "resid_post")
    assert found.dtype == np.float64
    assert not found[~hidden].any()
    expected = []
    for first, last in zip(tokens.item_ptr[:-1], tokens.item_ptr[1:], strict=True):
        token = torch.from_numpy(tokens.token[first:last]).long()
        seen = torch.where(torch.from_numpy(hidden[first:last]), MASK, token)
        with torch.inference_mode():
            scores = theirs(seen[None], attention_mask=torch.ones_like(seen)[None]).logits[0]
        expected.append(torch.nn.functional.cross_entropy(scores.double(), token, reduction="none").numpy())
    theirs_loss = np.where(hidden, np.concatenate(expected), 0)
    assert np.abs(found - theirs_loss).max() < 1e-5 * theirs_loss.max()


def test_a_masked_sequence_alone_and_in_a_padded_batch_gives_the_same(tmp_path: Path) -> None:
    """Token dropout scales by the share of masked tokens of the sequence alone."""
    ours, theirs = loaded(tmp_path)
    items = proteins(4, [30, 100, 4])
    tokens = ours.tokenise(items, 0)
    hidden = ~tokens.special & (tokens.position % 4 == 2) & (tokens.item == items.rows[0])
    caught: list[np.ndarray] = []

    def catch(x: torch.Tensor) -> torch.Tensor:
        caught.append(x.numpy().copy())
        return x

    together = ours.masked_loss(tokens, hidden, "resid_post", {1: catch})
    first = tokens.take([0])
    alone = ours.masked_loss(first, hidden[: len(first)], "resid_post", {1: catch})
    assert close(together[: len(first)], alone)
    assert close(caught[0][: len(first)], caught[1])
    rows = [read(sequence) for sequence in items.sequences]
    rows[0] = [MASK if is_hidden else token for token, is_hidden in zip(rows[0], hidden[: len(first)], strict=True)]
    assert close(caught[1], seen_by_hooks(theirs, rows)["resid_post", 1][0])


@pytest.mark.parametrize("hook", HOOKS)
def test_an_intervention_edits_the_activations_at_the_hook(tmp_path: Path, hook: str) -> None:
    ours, theirs = loaded(tmp_path)
    items = proteins(5, [50])
    tokens = ours.tokenise(items, 0)
    hidden = ~tokens.special & (tokens.position % 5 == 0)
    shift = torch.linspace(-1, 1, ours.info.d_model)
    found = ours.masked_loss(tokens, hidden, hook, {1: lambda x: x * 0.5 + shift})
    block = theirs.esm.encoder.layer[1]
    module = {"resid_post": block, "mlp_out": block.output.dense, "attn_out": block.attention.output.dense}[hook]
    handle = module.register_forward_hook(lambda module, given, output: output * 0.5 + shift)
    token = torch.from_numpy(tokens.token).long()
    with torch.inference_mode():
        scores = theirs(torch.where(torch.from_numpy(hidden), MASK, token)[None]).logits[0]
    handle.remove()
    expected = torch.nn.functional.cross_entropy(scores.double(), token, reduction="none").numpy()
    assert np.abs(found[hidden] - expected[hidden]).max() < 1e-5 * expected.max()
    assert np.abs(found - ours.masked_loss(tokens, hidden, hook)).max() > 1e-3


def test_long_proteins_are_read_in_windows(tmp_path: Path) -> None:
    ours, theirs = loaded(tmp_path)
    items = proteins(6, [300, 20, 127])
    tokens = ours.tokenise(items, 0)
    most = 130 - 1 - 1 - 2
    assert tokens.lengths.max() == most + 2
    rows = []
    for sequence in items.sequences:
        starts = range(0, max(len(sequence) - 16, 1), most - 16) if len(sequence) > most else [0]
        rows += [read(sequence[start : start + most]) for start in starts]
    assert [len(row) for row in rows] == tokens.lengths.tolist()
    expected = seen_by_hooks(theirs, rows)
    for layer, x in ours.forward_layers(tokens, [0, 2], "resid_post").items():
        assert close(x.numpy(), np.concatenate(expected["resid_post", layer]))
    assert tokens.stored is not None
    kept = tokens.take(np.arange(tokens.n_items)).position[tokens.stored & ~tokens.special]
    assert kept.tolist() == [p for length in (300, 20, 127) for p in range(1, length + 1)]
    special = np.flatnonzero(tokens.stored & tokens.special)
    assert tokens.position[special].tolist() == [0, 301, 0, 21, 0, 128]
    assert [VOCAB[token] for token in tokens.token[special]] == ["<cls>", "<eos>"] * 3


def test_order_and_company_make_no_difference(tmp_path: Path) -> None:
    ours, _ = loaded(tmp_path)
    ours.piece_tokens = 150  # several pieces per batch
    tokens = ours.tokenise(proteins(7, [5, 80, 33, 126, 2, 64, 64]), 0)
    together = ours.forward_layers(tokens, [1, 2], "mlp_out")
    generator = np.random.default_rng(0)
    for _ in range(4):
        order = generator.permutation(tokens.n_items)[: generator.integers(1, tokens.n_items)]
        found = ours.forward_layers(tokens.take(order), [1, 2], "mlp_out")
        rows = np.concatenate([np.arange(tokens.item_ptr[s], tokens.item_ptr[s + 1]) for s in order])
        for layer, x in found.items():
            assert close(x.numpy(), together[layer].numpy()[rows])
    assert ours.padding_share == 0


def test_padded_attention_is_the_same_and_counted(tmp_path: Path) -> None:
    """What an accelerator computes, here on the CPU."""
    from sae_genomics.models.sequences import Sequences

    ours, _ = loaded(tmp_path)
    tokens = ours.tokenise(proteins(8, [30, 28, 25]), 0)
    expected = ours.forward_layers(tokens, [2], "resid_post")[2]
    for module in ours.network.modules():
        for kernel in ("onednn", "compiled"):
            if hasattr(module, kernel):
                setattr(module, kernel, False)
    sequences = Sequences(tokens.item_ptr, torch.device("cpu"), padded=True)
    found = ours.network(torch.from_numpy(tokens.token).long(), sequences, 3, lambda hook, layer, x: x)
    assert close(found.detach().numpy(), expected.numpy())
    assert (sequences.computed, len(tokens)) == (3 * 32, 89)


def test_a_pass_stops_after_the_deepest_layer(tmp_path: Path) -> None:
    ours, _ = loaded(tmp_path)
    called = []
    for number, block in enumerate(ours.network.blocks):
        block.register_forward_hook(lambda *given, number=number: called.append(number))
    tokens = ours.tokenise(proteins(9, [5]), 0)
    assert list(ours.forward_layers(tokens, [0, 1], "resid_post")) == [0, 1]
    assert called == [0, 1]


def test_what_was_returned_is_not_written_to_again(tmp_path: Path) -> None:
    ours, _ = loaded(tmp_path)
    tokens = ours.tokenise(proteins(10, [20]), 0)
    for hook in HOOKS:
        every = ours.forward_layers(tokens, [0, 1, 2], hook)
        assert close(every[0].numpy(), ours.forward_layers(tokens, [0], hook)[0].numpy())


def test_bfloat16_stays_near(tmp_path: Path) -> None:
    make(tmp_path)
    tokens = load_folder(tmp_path).tokenise(proteins(11, [50, 100]), 0)
    exact = load_folder(tmp_path).forward_layers(tokens, [2], "resid_post")[2]
    half = load_folder(tmp_path, dtype="bfloat16").forward_layers(tokens, [2], "resid_post")[2]
    assert half.dtype == torch.bfloat16
    error = (half.float() - exact).norm() / exact.norm()
    assert 0 < float(error) < 0.03


def test_tokens_are_what_the_tokeniser_of_the_model_gives(tmp_path: Path) -> None:
    from transformers import EsmTokenizer

    ours, _ = loaded(tmp_path)
    items = proteins(12, [60, 3])
    theirs = EsmTokenizer(str(tmp_path / "vocab.txt"))
    tokens = ours.tokenise(items, 0)
    for number, sequence in enumerate(items.sequences):
        rows = slice(tokens.item_ptr[number], tokens.item_ptr[number + 1])
        assert tokens.token[rows].tolist() == theirs(sequence)["input_ids"]
    assert tokens.token[-1] == EOS
    assert math.isclose(float(tokens.weight.sum()), len(tokens))
