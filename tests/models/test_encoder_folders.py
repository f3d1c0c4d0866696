"""Folders of encoders as save_pretrained leaves them: what holds for ESM2 and for Geneformer alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import Items
from sae_genomics.models import check_model, describe, load_model, untrained_model
from sae_genomics.models.esm2 import model as esm2
from sae_genomics.models.geneformer import model as geneformer
from tests.models import esm2_checkpoints, geneformer_checkpoints
from tests.models.esm2_checkpoints import close
from tests.models.folder_faults import (
    WEIGHTS,
    Fault,
    another_shape,
    as_torch_file,
    cut_short,
    edit,
    remove,
    rewritten,
    without_tensor,
)

CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Encoder:
    """A family, and its small checkpoints of three layers of 48."""

    family: str
    make: Callable[..., Any]
    load_folder: Callable[[Path], Any]
    items: Callable[[list[int]], Items]
    """Of so many tokens each, special ones not counted."""
    prefix: str
    """Of the encoder's tensors."""
    head_class: str
    files: int
    """In its folder."""
    vocabulary: int
    as_older_versions: Callable[[Weights], Weights]
    """The weights under the names that older versions of transformers gave them."""

    def config(self, folder: Path) -> ModelConfig:
        return ModelConfig(family=self.family, path=folder, device="cpu")


def inv_freq_per_layer(weights: Weights) -> Weights:
    (old,) = [name for name in weights if name.endswith("inv_freq")]
    inv_freq = weights.pop(old)
    names = [f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq" for layer in range(3)]
    return weights | {name: inv_freq.clone() for name in names}


def position_ids(weights: Weights) -> Weights:
    bias = weights["cls.predictions.bias"].clone()
    more = {"bert.embeddings.position_ids": torch.arange(40)[None], "cls.predictions.decoder.bias": bias}
    return weights | more


ENCODERS = {
    "esm2": Encoder(
        "esm2", esm2_checkpoints.make, esm2.load_folder, lambda lengths: esm2_checkpoints.proteins(1, lengths), "esm",
        "EsmForMaskedLM", 3, 33, inv_freq_per_layer,
    ),
    "geneformer": Encoder(
        "geneformer", geneformer_checkpoints.make, geneformer.load_folder,
        lambda lengths: geneformer_checkpoints.cells("V2", lengths), "bert", "BertForMaskedLM", 5, 64, position_ids,
    ),
}  # fmt: skip


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return ENCODERS[request.param]


def test_a_change_of_any_file_is_another_model(tmp_path: Path, encoder: Encoder) -> None:
    encoder.make(tmp_path / "one")
    seen = {describe(encoder.config(tmp_path / "one")).identity}
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == encoder.files
    for name in names:
        copy = tmp_path / name
        shutil.copytree(tmp_path / "one", copy)
        assert describe(encoder.config(copy)).identity in seen, "where it stands makes no difference"
        content = bytearray((copy / name).read_bytes())
        if name == WEIGHTS:
            content[-4] ^= 1
        else:
            content += b"\n"
        (copy / name).write_bytes(content)
        seen.add(describe(encoder.config(copy)).identity)
    assert len(seen) == 1 + len(names)


def other_norm_names(weights: Weights) -> Weights:
    """LayerNorm.weight is LayerNorm.gamma in published files."""
    pairs = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
    if not any("LayerNorm.weight" in name for name in weights):
        pairs = [(new, old) for old, new in pairs]
    for old, new in pairs:
        weights = {name.replace(old, new): x for name, x in weights.items()}
    return weights


@pytest.mark.parametrize("layout", ["sharded", "no prefix", "published names", "older versions"])
def test_other_layouts_of_the_same_weights(tmp_path: Path, encoder: Encoder, layout: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    encoder.make(one, seed=3)
    if layout == "sharded":
        encoder.make(other, seed=3, max_shard_size="20KB")
        assert len(list(other.glob("*.safetensors"))) > 3
        assert not (other / WEIGHTS).exists()
    elif layout == "no prefix":
        encoder.make(other, seed=3, head=False)
    else:
        shutil.copytree(one, other)
        rewritten(other_norm_names if layout == "published names" else encoder.as_older_versions)(other)
        assert set(load_file(one / WEIGHTS)) != set(load_file(other / WEIGHTS))
    check_model(encoder.config(other))
    ours, theirs = encoder.load_folder(other), encoder.load_folder(one)
    tokens = ours.tokenise(encoder.items([30, 60]), 0)
    for layer, x in ours.forward_layers(tokens, [0, 2], "resid_post").items():
        assert close(x.numpy(), theirs.forward_layers(tokens, [layer], "resid_post")[layer].numpy())
    assert bool(ours.why_no_loss) == (layout == "no prefix")


FAULTS: list[tuple[str, Callable[[Encoder], Fault], str]] = [
    ("no config", lambda _: remove("config.json"), "no config.json"),
    ("no weights", lambda _: remove(WEIGHTS), "no model.safetensors"),
    ("a torch file", lambda _: as_torch_file, "fix it with: python -c .*{head_class} as M"),
    ("cut short", lambda _: cut_short, "is truncated"),
    ("a shape", lambda it: another_shape(f"{it.prefix}.encoder.layer.1.output.dense.weight", 48, 95),
     r"{prefix}.encoder.layer.1.output.dense.weight has shape \[48, 95\]"),
    ("a tensor less", lambda it: without_tensor(f"{it.prefix}.encoder.layer.2.attention.self.key.bias"),
     "no tensor {prefix}.encoder.layer.2.attention.self.key.bias"),
    ("a layer more", lambda _: edit(num_hidden_layers=2), r"{prefix}\.encoder\.layer\.2\..* has no place"),
    ("a layer less", lambda _: edit(num_hidden_layers=4), "no tensor {prefix}.encoder.layer.3"),
    ("a width", lambda _: edit(hidden_size=50), "not a multiple"),
    ("a model", lambda _: edit(model_type="roberta"), "model.family {family}"),
    ("a text", lambda _: edit(num_attention_heads="4"), "num_attention_heads"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "says"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_a_damaged_folder_is_one_line(
    tmp_path: Path, encoder: Encoder, fault: Callable[[Encoder], Fault], says: str
) -> None:
    folder = tmp_path / "folder"
    encoder.make(folder)
    fault(encoder)(folder)
    for name in ("prefix", "head_class", "family"):
        says = says.replace(f"{{{name}}}", getattr(encoder, name))
    refused(encoder.config(folder), says)


def refused(config: ModelConfig, says: str) -> None:
    """Both by the check of a plan and when it is loaded, in one line."""
    with pytest.raises(UserError, match=says) as caught:
        check_model(config)
    assert str(caught.value).count("\n") == 0
    with pytest.raises(UserError, match=says):
        load_model(config)


def test_an_untrained_model_has_the_weights_that_training_begins_with(tmp_path: Path, encoder: Encoder) -> None:
    encoder.make(tmp_path)
    config = encoder.config(tmp_path)
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    made = untrained_model(config, CPU, seed=1)
    assert torch.equal(torch.rand(1), expected_next), "the random numbers of the caller are not used up"
    again, other = (untrained_model(config, CPU, seed=seed).network.state_dict() for seed in (1, 2))
    trained, mine = load_model(config).network.state_dict(), made.network.state_dict()
    assert {name: x.shape for name, x in mine.items()} == {name: x.shape for name, x in trained.items()}
    matrices = [name for name, x in mine.items() if x.ndim == 2]
    assert len(matrices) > 10
    for name in matrices:
        assert torch.equal(mine[name], again[name])
        assert not torch.equal(mine[name], other[name])
        assert not torch.equal(mine[name], trained[name])
        assert float(mine[name].std()) == pytest.approx(0.02, rel=0.2), "initializer_range"
    tokens = made.tokenise(encoder.items([20]), 0)
    hidden = ~tokens.special
    loss = made.masked_loss(tokens, hidden, "resid_post")[hidden].mean()
    assert loss == pytest.approx(np.log(encoder.vocabulary), rel=0.1)
