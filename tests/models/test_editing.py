"""Stopping a model at a hook and going on from it, against its own full forward pass with the same edit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sae_genomics.errors import UserError
from sae_genomics.items import TextItems
from sae_genomics.models.base import HOOKS, FoundationModel
from sae_genomics.models.editing import Predictions
from sae_genomics.models.esm2 import model as esm2
from sae_genomics.models.geneformer import model as geneformer
from sae_genomics.models.geneformer.reference import ReferenceGeneformer
from sae_genomics.models.huggingface import model as huggingface
from sae_genomics.models.tx1 import load_folder
from sae_genomics.models.tx1_reference import ReferenceTx1
from sae_genomics.tokens import Tokens
from tests.models import geneformer_checkpoints
from tests.models.esm2_checkpoints import make, proteins
from tests.models.test_scgpt_parity import CASES as SCGPT
from tests.models.test_scgpt_parity import load as load_scgpt
from tests.models.test_tx1_parity import FIXTURES, collated
from tests.models.text_checkpoints import TEXTS
from tests.models.text_checkpoints import make as make_text

Loaded = tuple[FoundationModel, Tokens]
Edit = Callable[[torch.Tensor], torch.Tensor]
TX1 = ("relu_70m_style", "gelu_chem_3b_style", "glu_post_norm", "hidden tokens unseen")
ESM2: dict[str, dict[str, Any]] = {
    "rotary": {},
    "absolute positions": {"position_embedding_type": "absolute"},
    "heads for the kernel": {"hidden_size": 64, "num_attention_heads": 2},
}
TEXT = ("gemma2", "gemma3", "llama", "gpt2", "gpt_neox", "gpt_neox sequential")
GENEFORMER: dict[str, dict[str, Any]] = {
    "ranked genes": {},
    "ranked genes, no <cls>": {"series": "V1"},
    "ranked genes, heads for the kernel": {"hidden_size": 64, "num_attention_heads": 2},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Loaded]:
    """A small model of a name, in a dtype, with sequences of several lengths."""
    folders: dict[str, Path] = {}

    def load(name: str, dtype: str = "float32") -> Loaded:
        if name in ESM2:
            if name not in folders:
                folders[name] = tmp_path_factory.mktemp("esm2")
                make(folders[name], **ESM2[name])
            protein_model = esm2.load_folder(folders[name], dtype=dtype)
            return protein_model, protein_model.tokenise(proteins(1, [7, 90, 1, 33, 128, 12]), 0)
        if name in TEXT:
            if name not in folders:
                folders[name] = tmp_path_factory.mktemp("text")
                make_text(folders[name], name)
            text_model = huggingface.load_folder(folders[name], dtype=dtype)
            items = TextItems(np.arange(len(TEXTS)), TEXTS, np.arange(300, dtype=np.int32))
            return text_model, text_model.tokenise(items, 0)
        if name in GENEFORMER:
            if name not in folders:
                folders[name] = tmp_path_factory.mktemp("geneformer")
                geneformer_checkpoints.make(folders[name], **GENEFORMER[name])
            cell_model = geneformer.load_folder(folders[name], dtype=dtype)
            items = geneformer_checkpoints.cells(GENEFORMER[name].get("series", "V2"), [7, 60, 1, 33, 38, 12])
            return cell_model, cell_model.tokenise(items, 0)
        if name in SCGPT:
            return load_scgpt(name, dtype)[:2]
        folder = FIXTURES / (name if (FIXTURES / name).exists() else "relu_70m_style")
        drug = name == "gelu_chem_3b_style"
        model = load_folder(folder, with_drugs=drug, dtype=dtype)
        if folder.name != name:
            model.network.config = dataclasses.replace(model.network.config, mask_generated=True)
        expected = np.load(folder / "expected.npz")
        tokens, _ = collated(expected, "with_drug" if drug else "no_drug", model.tokeniser.pad_token_id)
        return model, tokens

    return load


def some_hidden(tokens: Tokens) -> np.ndarray:
    return ~tokens.special & (np.random.default_rng(0).random(len(tokens)) < 0.3)


def full(model: FoundationModel, tokens: Tokens, hidden: np.ndarray | None, hook: str, change: dict[int, Edit]) -> Any:
    """What a full pass predicts. tx1 and scgpt: all their outputs; others: their losses at hidden tokens."""
    if model.info.family == "tx1":
        found = model.outputs(tokens, masked=hidden, hook=hook, interventions=change)  # type: ignore[attr-defined]
        return [found.expr_preds, found.mvc_output, found.cell_emb]
    if model.info.family == "scgpt":
        found = model.outputs(tokens, masked=hidden, hook=hook, interventions=change)  # type: ignore[attr-defined]
        return [part for part in (found.predicted, found.from_cell, found.cell_emb) if part is not None]
    assert hidden is not None
    return [torch.from_numpy(model.masked_loss(tokens, hidden, hook, change)[hidden & model.predicted(tokens)])]


def same(model: FoundationModel, tokens: Tokens, hidden: np.ndarray | None, found: Predictions) -> list[torch.Tensor]:
    """The same of what `resume` gave."""
    assert found.token is not None
    assert found.embedding is not None
    if model.info.family == "tx1":
        assert found.from_item is not None
        return [found.token, found.from_item, found.embedding]
    if model.info.family == "scgpt":
        return [part for part in (found.token, found.from_item, found.embedding) if part is not None]
    assert hidden is not None
    at = torch.from_numpy(hidden)
    if model.predicts_next:  # a first token is predicted from nothing, and has no loss
        at = at & torch.from_numpy(model.predicted(tokens))
    target = torch.from_numpy(tokens.token).long()[at]
    return [torch.nn.functional.cross_entropy(found.token[at].double(), target, reduction="none")]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", [*TX1, *ESM2, *TEXT, *GENEFORMER, *SCGPT])
def test_going_on_from_an_edit_is_a_full_pass_with_that_edit(loaded, name: str, hook: str) -> None:
    model, tokens = loaded(name)
    shift = torch.linspace(-1, 1, model.info.d_model)

    def edit(x: torch.Tensor) -> torch.Tensor:
        return x * 0.5 + shift

    last = model.info.n_layers - 1
    for layer in sorted({0, last // 2, last}):
        for hidden in (some_hidden(tokens), np.zeros(len(tokens), bool), None):
            if hidden is None and model.outcome == "distribution":
                continue  # of which only the loss at hidden tokens can be asked for
            paused = model.pause(tokens, layer, hook, hidden)
            before = paused.activations.clone()
            if hidden is None or not hidden.any():
                assert_close([before], [model.forward_layers(tokens, [layer], hook)[layer]])
            found = model.resume(paused, edit(paused.activations))
            expected = full(model, tokens, hidden, hook, {layer: edit})
            unchanged = full(model, tokens, hidden, hook, {})
            if len(expected[0]):
                assert_close(same(model, tokens, hidden, found), expected)
                assert_close(same(model, tokens, hidden, model.resume(paused)), unchanged)
                assert float((expected[0] - unchanged[0]).abs().max()) > 1e-3
            assert torch.equal(paused.activations, before)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", ["glu_post_norm", "rotary", "gemma3", "gpt_neox", "ranked genes", *SCGPT])
def test_later_layers_are_those_of_a_full_pass(loaded, name: str, hook: str) -> None:
    model, tokens = loaded(name)
    later = list(range(1, model.info.n_layers))
    expected = model.forward_layers(tokens, later, hook)
    paused = model.pause(tokens, 0, hook)
    found = model.resume(paused, layers=later, predict=False)
    assert (found.token, found.from_item, found.embedding) == (None, None, None)
    assert sorted(found.layers) == later
    for layer in later:
        assert float((found.layers[layer] - expected[layer]).abs().max()) <= 1e-5 * float(expected[layer].abs().max())
    both = model.resume(paused, layers=later[:1])
    assert both.token is not None
    assert list(both.layers) == later[:1]
    with pytest.raises(ValueError, match="after layer 0"):
        model.resume(paused, layers=[0])


def test_a_pass_stops_after_the_deepest_layer(loaded) -> None:
    model, tokens = loaded("rotary")
    paused = model.pause(tokens, 0, "attn_out")
    called: list[int] = []
    for number, block in enumerate(model.network.blocks):
        block.register_forward_hook(lambda *given, number=number: called.append(number))
    model.resume(paused, layers=[1], predict=False)
    assert called == [1]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", [*TX1, *ESM2, *TEXT, *GENEFORMER, *SCGPT])
def test_sequences_taken_twice_are_the_same_as_alone(loaded, name: str, hook: str) -> None:
    """The batch axis of many edits: copies of one item that are edited each in its own way."""
    model, tokens = loaded(name)
    hidden = some_hidden(tokens)
    paused = model.pause(tokens, 1, hook, hidden)
    order = [2, 0, 2, 1, 2]
    taken = paused.take(order)
    copy = np.repeat(np.arange(len(order)), taken.batch.lengths)
    edited = taken.activations + torch.from_numpy(copy).float()[:, None] * 0.25
    together = model.resume(taken, edited)
    for number, sequence in enumerate(order):
        one = paused.take([sequence])
        alone = model.resume(one, one.activations + 0.25 * number)
        rows = torch.from_numpy(copy == number)
        assert_close(
            [together.token[rows], together.embedding[number]],
            [alone.token, alone.embedding[0]],
        )
        if alone.from_item is not None:
            assert_close([together.from_item[rows]], [alone.from_item])


@pytest.mark.parametrize(
    "name", ["relu_70m_style", "heads for the kernel", "llama", "ranked genes, heads for the kernel", "flash_layout"]
)
def test_a_zero_edit_changes_no_bit(loaded, name: str) -> None:
    model, tokens = loaded(name)
    paused = model.pause(tokens, 1, "resid_post")
    nothing, zero = model.resume(paused), model.resume(paused, paused.activations + torch.zeros(1))
    assert torch.equal(nothing.token, zero.token)
    assert torch.equal(nothing.embedding, zero.embedding)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "name",
    [
        "gelu_chem_3b_style",
        "glu_post_norm",
        "rotary",
        "absolute positions",
        "gpt2",
        "gpt_neox",
        "ranked genes",
        *SCGPT,
    ],
)
def test_gradients_are_differences(loaded, name: str, hook: str) -> None:
    model, tokens = loaded(name, "float64")
    paused = model.pause(tokens, 0, hook, some_hidden(tokens))
    generator = torch.Generator().manual_seed(0)

    def draw(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64)

    clean = model.resume(paused, layers=[1])
    parts = [part for part in (clean.token, clean.from_item, clean.embedding, clean.layers[1]) if part is not None]
    weights = [draw(part) for part in parts]

    def total(x: torch.Tensor) -> torch.Tensor:
        found = model.resume(paused, x, layers=[1])
        parts = [part for part in (found.token, found.from_item, found.embedding, found.layers[1]) if part is not None]
        return sum(((part * weight).sum() for part, weight in zip(parts, weights, strict=True)), torch.zeros(()))

    x = paused.activations.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(total(x), [x])
    # rotary angles are applied in float32 whatever the dtype; and so are the norms of Gemma and Llama, which are left out here
    direction, step, tolerance = draw(x), *((1e-3, 1e-4) if name in ("rotary", "gpt_neox") else (1e-5, 1e-6))
    with torch.no_grad():
        difference = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=tolerance)


@pytest.mark.parametrize(
    "name", ["relu_70m_style", "heads for the kernel", "llama", "ranked genes, heads for the kernel", "flash_layout"]
)
def test_gradients_pass_where_kernels_compute(loaded, name: str) -> None:
    """In float32 kernels compute what has no gradient, and step aside for what has one."""
    model, tokens = loaded(name)
    exact, _ = loaded(name, "float64")
    gradients = []
    for each in (model, exact):
        paused = each.pause(tokens, 1, "resid_post")
        x = paused.activations.clone().requires_grad_()
        with torch.enable_grad():
            plain = each.resume(paused, x).token
        assert float((plain - each.resume(paused).token).abs().max()) <= 1e-5 * float(plain.abs().max())
        gradients.append(torch.autograd.grad((plain * plain).sum(), [x])[0])
    assert_close(gradients[:1], gradients[1:])


def test_a_checkpoint_without_its_head_still_has_embeddings(tmp_path: Path) -> None:
    make(tmp_path, head=False)
    model = esm2.load_folder(tmp_path)
    tokens = model.tokenise(proteins(2, [5, 60]), 0)
    found = model.resume(model.pause(tokens, 1, "resid_post"))
    assert found.token is None
    last = model.network.final_norm(model.forward_layers(tokens, [2], "resid_post")[2])
    residues = [last[1:6].mean(0), last[8:68].mean(0)]
    assert_close([found.embedding], [torch.stack(residues)])


def test_outcomes_and_refusals(loaded) -> None:
    assert loaded("glu_post_norm")[0].outcome == "value"
    assert loaded("rotary")[0].outcome == "distribution"
    assert loaded("ranked genes")[0].outcome == "distribution"
    with pytest.raises(UserError, match="to native"):
        ReferenceGeneformer.pause(SimpleNamespace(), *loaded("ranked genes")[1:], 0, "resid_post")  # type: ignore[arg-type]
    assert loaded("flash_layout")[0].outcome == "value"
    assert ReferenceTx1.outcome == ""
    with pytest.raises(UserError, match="to native"):
        ReferenceTx1.pause(SimpleNamespace(), *loaded("glu_post_norm")[1:], 0, "resid_post")  # type: ignore[arg-type]
    model, tokens = loaded("glu_post_norm")
    model.network.config = dataclasses.replace(model.network.config, decoder_outputs=3)
    with pytest.raises(UserError, match="several numbers"):
        model.pause(tokens, 0, "resid_post")
