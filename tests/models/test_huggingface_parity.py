"""Language models on packed rows against transformers' own hooks, one unpadded sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_genomics.items import TextItems
from sae_genomics.models.base import HOOKS
from sae_genomics.models.huggingface import attention
from sae_genomics.models.huggingface.model import HuggingFace, load_folder
from sae_genomics.models.huggingface.packed import PackedDecoder
from sae_genomics.models.sequences import Sequences
from sae_genomics.tokens import Tokens
from tests.models.text_checkpoints import ARCHITECTURES, TEXTS, close, make, seen_by_hooks

ALL_UNITS = np.arange(300, dtype=np.int32)
Made = tuple[Any, HuggingFace, Tokens, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    known: dict[str, Made] = {}

    def make_once(name: str) -> Made:
        if name not in known:
            folder = tmp_path_factory.mktemp("text")
            network = make(folder, name, tokeniser="bytes" if "gpt" in name or "qwen" in name else "bos")
            model = load_folder(folder)
            known[name] = network, model, model.tokenise(TextItems(np.arange(len(TEXTS)), TEXTS, ALL_UNITS), 0), folder
        return known[name]

    return make_once


def theirs(network: Any, name: str, tokens: Tokens) -> dict[tuple[str, int], np.ndarray]:
    """Their hooks on one document at a time, rows joined."""
    bounds = zip(tokens.item_ptr[:-1].tolist(), tokens.item_ptr[1:].tolist(), strict=True)
    parts = [seen_by_hooks(network, name, tokens.token[start:stop].tolist()) for start, stop in bounds]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_hook_and_layer_is_that_of_transformers(made, name: str) -> None:
    network, model, tokens, _ = made(name)
    assert tokens.lengths.max() > 150, "longer than every window"
    expected = theirs(network, name, tokens)
    layers = list(range(model.info.n_layers))
    for hook in HOOKS:
        found = model.forward_layers(tokens, layers, hook)
        assert sorted(found) == layers
        for layer in layers:
            assert close(found[layer], expected[hook, layer]), (hook, layer)


@pytest.mark.parametrize("name", ["gemma2", "gpt_neox", "qwen2"])
def test_what_the_hooks_give_is_what_is_added_to_the_stream(made, name: str) -> None:
    _, model, tokens, _ = made(name)
    found = {hook: model.forward_layers(tokens, [0, 1], hook) for hook in HOOKS}
    total = found["resid_post"][0] + found["attn_out"][1] + found["mlp_out"][1]
    assert close(total, found["resid_post"][1])


@pytest.mark.parametrize("name", ["gemma3", "gemma2", "mistral", "gpt2", "gpt_neox"])
def test_neighbours_order_pieces_and_threads_make_no_difference(made, name: str) -> None:
    _, model, tokens, _ = made(name)
    layers = list(range(model.info.n_layers))
    together = model.forward_layers(tokens, layers, "resid_post")
    order = [3, 0, 4, 2, 1, 0]
    taken = tokens.take(order)
    rows = torch.from_numpy(tokens.rows_of(order))
    pieces, model.piece_tokens = model.piece_tokens, 20
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: model.forward_layers(taken, layers, "resid_post"), range(4)))
    finally:
        model.piece_tokens = pieces
    for one in found:
        for layer in layers:
            assert close(one[layer], together[layer][rows])


@pytest.mark.parametrize("name", ["gemma3_text", "gemma2", "llama", "qwen2"])
def test_the_padding_that_an_accelerator_computes_makes_no_difference(made, name: str) -> None:
    from sae_genomics.models.editing import kept_at
    from sae_genomics.models.huggingface.current import Pass

    _, model, tokens, _ = made(name)
    expected = model.forward_layers(tokens, [0, 2], "attn_out")
    found, listen = kept_at("attn_out", [0, 2])
    sequences = Sequences(tokens.item_ptr, model.device, padded=True)
    assert sequences.computed > len(tokens)
    with torch.inference_mode():
        model.network(model.on_device(tokens.token), Pass(sequences, True, listen, last=2))
    for layer in (0, 2):
        assert close(found[layer], expected[layer])


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_long_texts_are_attended_in_blocks(made, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, tokens, _ = made(name)
    expected = model.forward_layers(tokens, [2], "resid_post")[2]
    monkeypatch.setattr(attention, "_BLOCK", 16)
    assert close(model.forward_layers(tokens, [2], "resid_post")[2], expected)


def test_no_layer_behind_the_deepest_wanted_one_and_no_head_is_computed(made) -> None:
    _, model, tokens, _ = made("llama")
    called: list[str] = []
    network = model.network.network
    watched = {f"layer {n}": block.mlp for n, block in enumerate(network.model.layers)} | {"head": network.lm_head}
    handles = [
        module.register_forward_hook(lambda *given, name=name: called.append(name)) for name, module in watched.items()
    ]
    model.forward_layers(tokens, [0, 1], "resid_post")
    for handle in handles:
        handle.remove()
    assert called == ["layer 0", "layer 1"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_is_the_cross_entropy_of_the_next_token(made, name: str) -> None:
    network, model, tokens, _ = made(name)
    every = np.ones(len(tokens), bool)
    found = model.masked_loss(tokens, every, "resid_post")
    expected = np.zeros(len(tokens))
    for start, stop in zip(tokens.item_ptr[:-1].tolist(), tokens.item_ptr[1:].tolist(), strict=True):
        ids = torch.from_numpy(tokens.token[start:stop]).long()
        with torch.inference_mode():
            logits = network(input_ids=ids[None]).logits[0]
        each = torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:], reduction="none")
        expected[start + 1 : stop] = each.numpy()
    assert close(found, expected)
    some = np.random.default_rng(0).random(len(tokens)) < 0.3
    assert close(model.masked_loss(tokens, some, "resid_post"), np.where(some, expected, 0))
    assert (model.predicted(tokens) == (tokens.position > 0)).all()


def test_logits_are_computed_in_chunks(made, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, tokens, _ = made("gemma2")
    every = np.ones(len(tokens), bool)
    expected = model.masked_loss(tokens, every, "resid_post")
    monkeypatch.setattr("sae_genomics.models.huggingface.model._CHUNK_BYTES", 4 * 300 * 7)
    assert close(model.masked_loss(tokens, every, "resid_post"), expected)


@pytest.mark.parametrize("hook", HOOKS)
def test_interventions_change_the_loss_as_in_transformers(made, hook: str) -> None:
    network, model, tokens, _ = made("gpt_neox")
    one = tokens.take([2])
    block = network.gpt_neox.layers[1]
    module = {"resid_post": block, "mlp_out": block.mlp, "attn_out": block.attention}[hook]

    def halve(module: Any, given: Any, output: Any) -> Any:
        return (output[0] * 0.5, *output[1:]) if isinstance(output, tuple) else output * 0.5

    handle = module.register_forward_hook(halve)
    ids = torch.from_numpy(one.token).long()
    with torch.inference_mode():
        logits = network(input_ids=ids[None]).logits[0]
    handle.remove()
    expected = torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:], reduction="none").numpy()
    found = model.masked_loss(one, np.ones(len(one), bool), hook, {1: lambda x: x * 0.5})
    assert close(found[1:], expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gemma3", "llama", "gpt2"])
def test_sixteen_bits_follow_transformers_in_the_same_dtype(made, name: str, dtype: str) -> None:
    exact, _, tokens, folder = made(name)
    model = load_folder(folder, dtype=dtype)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    peer, best = theirs(network, name, tokens), theirs(exact, name, tokens)
    last = model.info.n_layers - 1
    found = model.forward_layers(tokens, [last], "resid_post")[last]
    assert found.dtype == getattr(torch, dtype)
    want = best["resid_post", last]

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean((x - want) ** 2)))

    assert error(found.float().numpy()) <= 1.5 * error(peer["resid_post", last])


def test_untrained_weights_are_those_that_transformers_begins_with(made, tmp_path: Path) -> None:
    _, _, tokens, folder = made("llama")
    from sae_genomics.models.huggingface.folder import read_folder

    read = read_folder(folder)
    one, again, other = (
        HuggingFace(read, read.describe("x"), torch.device("cpu"), torch.float32, untrained_seed=seed)
        for seed in (3, 3, 4)
    )
    x, y, z = (model.forward_layers(tokens, [2], "resid_post")[2] for model in (one, again, other))
    assert torch.equal(x, y)
    assert not close(x, z)
    weights = one.network.network.model.layers[0].mlp.up_proj.weight
    assert float(weights.std()) == pytest.approx(0.02, rel=0.1), "initializer_range of its config"


def test_an_architecture_that_is_not_in_the_table(tmp_path: Path) -> None:
    """Its hooks come from the config, and its batches are padded behind."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    network = OPTForCausalLM(
        OPTConfig(
            vocab_size=300, hidden_size=48, num_hidden_layers=3, ffn_dim=64, num_attention_heads=4, max_position_embeddings=170,
            word_embed_proj_dim=48, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        )
    ).eval()  # fmt: skip
    network.save_pretrained(tmp_path)
    from tests.models.text_checkpoints import make_tokeniser

    make_tokeniser("bos").save_pretrained(tmp_path)
    block = "model.decoder.layers.{i}"
    model = load_folder(
        tmp_path, hook_modules={"resid_post": block, "attn_out": f"{block}.self_attn", "mlp_out": f"{block}.fc2"}
    )
    assert model.piece_tokens is None
    tokens = model.tokenise(TextItems(np.arange(5), TEXTS, ALL_UNITS), 0)
    for sequence in range(5):
        ids = torch.from_numpy(tokens.take([sequence]).token).long()
        with torch.inference_mode():
            states = network(input_ids=ids[None], output_hidden_states=True).hidden_states
        rows = torch.from_numpy(tokens.rows_of([sequence]))
        found = model.forward_layers(tokens, [0, 1], "resid_post")
        assert close(found[0][rows], states[1][0])
        assert close(found[1][rows], states[2][0])
    for hook in HOOKS:
        paused = model.pause(tokens, 1, hook)
        edited = model.resume(paused, paused.activations * 0.5)
        loss = model.masked_loss(tokens, np.ones(len(tokens), bool), hook, {1: lambda x: x * 0.5})
        target = torch.from_numpy(tokens.token).long()
        each = torch.nn.functional.cross_entropy(edited.token.double(), target, reduction="none").numpy()
        assert close(each * model.predicted(tokens), loss)


def test_outside_of_a_pass_the_modules_belong_to_nobody(made) -> None:
    _, model, _, _ = made("llama")
    assert isinstance(model.network, PackedDecoder)
    with pytest.raises(RuntimeError, match="outside"):
        model.network.network(input_ids=torch.zeros(1, 3, dtype=torch.int64))
