"""Folders and tokenizers of language models: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import SequenceItems, TextItems
from sae_genomics.models import check_model, describe, load_model, reads, text_tokeniser
from sae_genomics.models.huggingface.folder import read_folder
from sae_genomics.models.huggingface.model import load_folder
from tests.models.text_checkpoints import TEXTS, close, config_of, make, make_tokeniser


def asked(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(family="huggingface", path=folder, **more)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ["gemma3", "llama", "llama3 rope", "gpt2", "gpt_neox"])
def test_a_folder_says_what_it_is_and_fits_its_weights(tmp_path: Path, name: str) -> None:
    network = make(tmp_path, name)
    info = describe(asked(tmp_path))
    text = network.config.get_text_config()
    assert (info.n_layers, info.d_model, info.n_heads, info.max_length) == (
        text.num_hidden_layers, text.hidden_size, text.num_attention_heads, text.max_position_embeddings,
    )  # fmt: skip
    assert info.n_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert info.hooks == ("resid_post", "mlp_out", "attn_out")
    assert reads(asked(tmp_path)) == "text"
    check_model(asked(tmp_path))


def test_what_config_json_leaves_out_has_the_default_of_its_class(tmp_path: Path) -> None:
    make(tmp_path, "gpt2")
    values = json.loads((tmp_path / "config.json").read_text())
    values.pop("n_positions")
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_folder(tmp_path).numbers["max_position_embeddings"] == 1024


def test_identity_is_that_of_weights_config_and_tokenizer(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    before = describe(asked(tmp_path)).identity
    assert describe(asked(tmp_path)).identity == before
    make_tokeniser("bytes").save_pretrained(tmp_path)
    assert describe(asked(tmp_path)).identity != before


def test_a_tokenizer_that_is_a_list_of_pieces_alone_is_read_and_part_of_the_identity(tmp_path: Path) -> None:
    make(tmp_path, "gpt2", tokeniser="")
    change(tmp_path / "config.json", tokenizer_class="BertTokenizer")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncell\n##s\n")
    ids, _ = text_tokeniser(asked(tmp_path)).encode(["the cells"])
    assert ids.tolist() == AutoTokenizer.from_pretrained(tmp_path)("the cells")["input_ids"] == [2, 5, 6, 7, 3]
    before = describe(asked(tmp_path)).identity
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncell\nthe\n##s\n")
    assert describe(asked(tmp_path)).identity != before


def test_sharded_weights_and_a_checkpoint_of_the_base_model(tmp_path: Path) -> None:
    make(tmp_path / "one", "gpt2")
    network = make(tmp_path / "sharded", "gpt2", max_shard_size="60KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    network.transformer.save_pretrained(tmp_path / "base")
    make_tokeniser("bos").save_pretrained(tmp_path / "base")
    items = TextItems(np.arange(2), TEXTS[:2], np.arange(300, dtype=np.int32))
    found = []
    for folder in ("one", "sharded", "base"):
        check_model(asked(tmp_path / folder))
        model = load_folder(tmp_path / folder)
        assert not model.why_no_loss, "its head is tied"
        tokens = model.tokenise(items, 0)
        found.append(model.forward_layers(tokens, [1], "resid_post")[1])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama"])
def test_masks_and_angles_that_were_once_saved_are_not_missed(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    part = {
        "gpt2": "transformer.h.1.attn",
        "gpt_neox": "gpt_neox.layers.1.attention",
        "llama": "model.layers.1.self_attn",
    }[name]
    old = {f"{part}.rotary_emb.inv_freq": torch.ones(4)}
    if name != "llama":
        old |= {f"{part}.bias": torch.ones(1, 1, 8, 8), f"{part}.masked_bias": torch.tensor(-1e4)}
    save_file({**tensors, **old}, path, {"format": "pt"})
    check_model(asked(tmp_path))
    save_file({**tensors, f"{part}.bios": torch.ones(3)}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"bios has no place"):
        check_model(asked(tmp_path))


def test_a_checkpoint_without_its_head_has_no_loss(tmp_path: Path) -> None:
    network = make(tmp_path, "llama")
    network.model.save_pretrained(tmp_path)
    check_model(asked(tmp_path))
    model = load_folder(tmp_path)
    assert "no head" in model.why_no_loss
    tokens = model.tokenise(TextItems(np.arange(1), TEXTS[:1], np.arange(300, dtype=np.int32)), 0)
    with pytest.raises(UserError, match="AutoModelForCausalLM"):
        model.masked_loss(tokens, np.ones(len(tokens), bool), "resid_post")
    assert model.resume(model.pause(tokens, 0, "resid_post")).token is None


def spoil_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, folder / "model.safetensors", {"format": "pt"})


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "only pickled": (only_pickled, "AutoModelForCausalLM as M"),
    "truncated": (truncate, "truncated"),
    "another shape": (spoil_shape, r"up_proj.weight has shape \[79, 48\], its config says \[80, 48\]"),
    "no tensor": (drop_tensor, "no tensor model.layers.1.mlp.up_proj.weight"),
    "one layer fewer": (lambda f: change(f / "config.json", num_hidden_layers=2), "model.layers.2.* has no place"),
    "one layer more": (lambda f: change(f / "config.json", num_hidden_layers=4), "no tensor model.layers.3"),
    "unknown type": (lambda f: change(f / "config.json", model_type="opt"), "set model.hook_modules"),
    "own code": (
        lambda f: change(f / "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"}), "never run",
    ),
    "an encoder": (lambda f: change(f / "config.json", use_bidirectional_attention=True), "causal"),
    "rope of the batch": (
        lambda f: change(f / "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "rope_type",
    ),
    "heads that do not fit": (lambda f: change(f / "config.json", num_attention_heads=7), "not understood by transformers .*multiple"),
    "a text for a number": (lambda f: change(f / "config.json", num_key_value_heads="two"), "num_key_value_heads"),
    "unknown activation": (lambda f: change(f / "config.json", hidden_act="none"), "KeyError: 'none'"),
    "quantised": (lambda f: change(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "no numbers": (lambda f: change(f / "config.json", hidden_size="48"), "hidden_size"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    make(tmp_path, "llama")
    spoil, message = BROKEN[name]
    spoil(tmp_path)

    def look() -> None:
        describe(asked(tmp_path))
        check_model(asked(tmp_path))

    with pytest.raises(UserError, match=message) as refused:
        look()
    assert "\n" not in str(refused.value)


def test_hooks_that_the_config_names(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    for modules, message in (
        ({"resid": "model.layers.{i}"}, "not a hook"),
        ({"resid_post": "model.layers"}, r"\{i\} in place"),
    ):
        with pytest.raises(UserError, match=message):
            describe(asked(tmp_path, hook_modules=modules))
    with pytest.raises(UserError, match=r"no module model\.layers\.0\.mpl"):
        check_model(asked(tmp_path, hook_modules={"mlp_out": "model.layers.{i}.mpl"}))
    with pytest.raises(UserError, match=r"no module model\.layers\.0\.mpl"):
        load_model(asked(tmp_path, hook_modules={"mlp_out": "model.layers.{i}.mpl"}))
    with pytest.raises(UserError, match=r"gives \[2, 80\] numbers"):
        load_model(asked(tmp_path, hook_modules={"mlp_out": "model.layers.{i}.mlp.up_proj"}))
    model = load_model(asked(tmp_path, hook_modules={"mlp_out": "model.layers.{i}.mlp.down_proj"}))
    plain = load_model(asked(tmp_path))
    tokens = model.tokenise(TextItems(np.arange(1), TEXTS[:1], np.arange(300, dtype=np.int32)), 0)
    assert close(
        model.forward_layers(tokens, [1], "mlp_out")[1].numpy(), plain.forward_layers(tokens, [1], "mlp_out")[1].numpy()
    )


def test_other_families_keys_and_items_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    for more in ({"backend": "reference"}, {"drug_key": "drug"}):
        with pytest.raises(UserError, match="leave it out"):
            describe(asked(tmp_path, **more))
    for family in ("tx1", "esm2", "geneformer", "scgpt"):
        model = ModelConfig(family=family, hook_modules={"resid_post": "model.layers.{i}"})
        with pytest.raises(UserError, match=f"hook_modules is for model.family huggingface, not for {family}; leave"):
            describe(model)
    with pytest.raises(UserError, match=r"leave model\.hook_modules out"):
        describe(ModelConfig(family="planted", hook_modules={"resid_post": "model.layers.{i}"}))
    with pytest.raises(UserError, match=r"set data\.kind to text"):
        load_folder(tmp_path).tokenise(SequenceItems(np.arange(1), ["MK"]), 0)
    with pytest.raises(UserError, match="no bundled model"):
        describe(ModelConfig(family="huggingface"))
    with pytest.raises(UserError, match="OWNER/NAME"):
        describe(ModelConfig(family="huggingface", name="gemma"))


def test_a_repository_that_is_not_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scripts/download_model.py me/mine --cache"):
        describe(ModelConfig(family="huggingface", name="me/mine"), tmp_path)
    known = describe(ModelConfig(family="huggingface", name="google/gemma-3-4b-it"), tmp_path)
    assert (known.n_layers, known.d_model) == (34, 2560)


@pytest.mark.parametrize("kind", ["bos", "bytes"])
def test_pieces_are_the_tokenizers_own(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "llama", tokeniser=kind)
    own = AutoTokenizer.from_pretrained(tmp_path)
    tokeniser = text_tokeniser(asked(tmp_path))
    texts = [*TEXTS, "", "unseen Ω letters \u00a0 and\ttabs"]
    expected = own(texts)["input_ids"]
    for most in (None, 9, 1000):
        limit = 160 if most is None else min(most, 160)
        ids, ptr = tokeniser.encode(texts, most)
        assert ids.dtype == np.int32
        assert ptr.dtype == np.int64
        assert [ids[a:b].tolist() for a, b in pairwise(ptr)] == [row[:limit] for row in expected]
    assert tokeniser.most_tokens == 160
    assert tokeniser.vocab_size == 300
    assert set(own.all_special_ids) <= tokeniser.special_ids


def test_tokens_of_documents(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    model = load_folder(tmp_path)
    ids, _ = text_tokeniser(asked(tmp_path)).encode(TEXTS[:2], 8)
    units = np.unique(ids[ids > 3])[1:].astype(np.int32)  # one piece has no unit
    tokens = model.tokenise(TextItems(np.array([5, 9]), TEXTS[:2], units, 8), 0)
    assert tokens.item.tolist() == [5] * 8 + [9] * 8
    assert tokens.position.tolist() == [*range(8)] * 2
    assert tokens.special.tolist() == ([True] + [False] * 7) * 2
    assert (tokens.weight == 1).all()
    has_unit = np.isin(tokens.token, units)
    assert (units[tokens.unit[has_unit]] == tokens.token[has_unit]).all()
    assert (tokens.unit[~has_unit] == -1).all()
    assert len(model.tokenise(TextItems(np.arange(0), [], units), 0)) == 0


def test_pieces_are_spelt_for_readers(tmp_path: Path) -> None:
    make(tmp_path / "bos", "llama")
    marked = text_tokeniser(asked(tmp_path / "bos"))
    own = AutoTokenizer.from_pretrained(tmp_path / "bos").get_vocab()
    assert marked.spell([own["<bos>"], own["<0x0A>"], own["▁c"]]) == ["<bos>", "<0x0A>", " c"]
    make(tmp_path / "bytes", "gpt2", tokeniser="bytes")
    lettered = text_tokeniser(asked(tmp_path / "bytes"))
    own = AutoTokenizer.from_pretrained(tmp_path / "bytes").get_vocab()
    assert lettered.spell([own["Ċ"], own["Ġ"], own["Ã"]]) == ["\\n", " ", "<0xC3>"]
    for tokeniser in (marked, lettered):
        every = tokeniser.spell(np.arange(tokeniser.vocab_size))
        assert len(set(every)) == len(every)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    make(tmp_path, "llama", vocab_size=30)
    with pytest.raises(UserError, match="vocabulary has 30 rows"):
        text_tokeniser(asked(tmp_path)).encode(TEXTS)
    for path in tmp_path.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        text_tokeniser(asked(tmp_path))


def test_config_of_the_tests_is_what_its_name_says() -> None:
    assert set(config_of("gemma3").text_config.layer_types) == {"sliding_attention", "full_attention"}
    assert set(config_of("qwen2").layer_types) == {"sliding_attention", "full_attention"}
    assert set(config_of("gemma2").layer_types) == {"sliding_attention", "full_attention"}
