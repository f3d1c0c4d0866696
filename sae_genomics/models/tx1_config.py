"""Tahoe-x1's release folder: the files, what their configs say, and a description without reading weights.

The branches follow tahoe-x1 1.0.0 (`model/model.py`, `model/blocks.py`, `data/collator.py`). What that version does not
run, or what is not reproduced here, is refused by name; keys that it reads but does not use are ignored as it does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import folder_identity, n_parameters, tensor_shapes
from sae_genomics.models.named import NamedModels
from sae_genomics.models.tx1_tokenise import TokeniserSettings

FILES = ("model_config.yml", "collator_config.yml", "vocab.json", "model.safetensors")
PREFIX = "model."
READS = "cells"
DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo_model"
ACTIVATIONS = (
    "relu", "gelu", "silu", "leaky_relu", "quick_gelu", "elu", "selu", "celu", "mish", "relu6", "softplus",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "softsign", "tanhshrink",
)  # fmt: skip
NORMS = ("layernorm", "low_precision_layernorm", "rmsnorm", "low_precision_rmsnorm", "triton_rmsnorm")


@dataclass(frozen=True)
class Tx1Config:
    """The architecture, with the reference's defaults filled in.

    kv_n_heads: the reference reads `attn_config.kv_n_heads` (the releases' `kv_nheads` is ignored there, and here).
    mask_generated: tokens whose value is hidden are seen only by themselves (`use_attn_mask` of the plain attention).
    extra_embeddings: name -> (width, normalised) of further gene embeddings that are concatenated and projected.
    chem: (drugs, fingerprint width, activation) of the chemical encoder, or None where it is absent or not used.
    """

    d_model: int
    n_layers: int
    n_heads: int
    kv_n_heads: int
    d_mlp: int
    vocab_size: int
    pad_token_id: int
    pre_norm: bool
    rms_norm: bool
    norm_eps: float
    activation: str
    use_glu: bool
    mask_generated: bool
    cell_emb_style: str
    gene_norm: bool
    extra_embeddings: dict[str, tuple[int, bool]]
    value_activation: str
    value_norm: bool
    value_max: float
    value_dropout: float
    decoder_layers: int
    decoder_outputs: int
    decoder_activation: str
    mvc: bool
    mvc_activation: str
    mvc_scaled: bool
    chem: tuple[int, int, str] | None
    standard_scale_outputs: bool


@dataclass(frozen=True)
class Release:
    """A model folder whose small files have been read."""

    folder: Path
    config: Tx1Config
    tokeniser: TokeniserSettings
    vocab: dict[str, int]
    special_ids: dict[str, int]
    drug_ids: dict[str, int]

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of all its files."""
        return ModelInfo(
            family="tx1",
            name=name,
            n_layers=self.config.n_layers,
            d_model=self.config.d_model,
            n_heads=self.config.n_heads,
            max_length=self.tokeniser.max_length,
            n_parameters=n_parameters(tensor_shapes(self.folder / "model.safetensors")),
            identity=folder_identity(self.folder, FILES),
        )


MODELS = NamedModels(
    "tx1", lambda folder, model: read_release(folder, with_drugs=model.drug_key is not None), bundled=DEMO_FOLDER
)
describe, small_files = MODELS.describe, MODELS.small_files


def read_release(folder: Path, *, with_drugs: bool) -> Release:
    """Read and check the configs and the vocabulary of a release folder.

    with_drugs: use the chemical encoder; without it the encoder is dropped, as the reference does by default.
    Raises UserError for missing or unreadable files and for anything the native backend does not compute.
    """
    if not folder.is_dir():
        raise UserError(f"no such model folder: {folder}; it should hold {', '.join(FILES)}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"model folder {folder} is incomplete: no {', '.join(missing)}; copy or download it again")
    architecture = _Keys(folder / "model_config.yml", _read_yaml(folder / "model_config.yml"))
    collator = _Keys(folder / "collator_config.yml", _read_yaml(folder / "collator_config.yml"))
    all_ids = _read_ids(folder / "vocab.json")
    shapes = tensor_shapes(folder / "model.safetensors")
    config = _architecture(architecture, collator, shapes, with_drugs)
    largest = max(all_ids.values(), default=-1)
    if largest >= config.vocab_size:
        raise UserError(
            f"{folder / 'vocab.json'} holds id {largest}, but model_config.yml says vocab_size: {config.vocab_size}"
        )
    special_ids = {token: number for token, number in all_ids.items() if token.startswith("<")}
    needed = ["<cls>", "<drug>"] if with_drugs else ["<cls>"]
    for token in needed:
        if token not in special_ids:
            raise UserError(f"{folder / 'vocab.json'} has no {token} token")
    return Release(
        folder=folder,
        config=config,
        tokeniser=_tokeniser(collator, special_ids, with_drugs),
        vocab={token: number for token, number in all_ids.items() if not token.startswith("<")},
        special_ids=special_ids,
        drug_ids=_drug_ids(folder, collator, config) if with_drugs else {},
    )


class _Keys:
    """A mapping read from a file, with errors that name file and key."""

    def __init__(self, path: Path, values: Mapping[str, Any], where: str = ""):
        self.path, self.values, self.where = path, values, where

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        value = self.values.get(key, default)
        if value is ...:
            raise UserError(f"{self.path}: {self.where}{key} is missing")
        if value is default:
            return value
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, kind):
            raise UserError(f"{self.path}: {self.where}{key}: {value!r} is not what it should be")
        return value

    def positive(self, key: str, default: Any = ...) -> int:
        value = self.get(key, int, default)
        if value < 1:
            raise UserError(f"{self.path}: {self.where}{key}: {value} should be 1 or more")
        return int(value)

    def choice(self, key: str, known: tuple[str, ...], default: Any = ...) -> str:
        value = self.get(key, str, default)
        if value not in known:
            raise self.refusal(key, value, known)
        return str(value)

    def refusal(self, key: str, value: Any, known: tuple[str, ...]) -> UserError:
        return UserError(
            f"{self.path}: {self.where}{key}: {value!r} is not supported by the native backend, which knows "
            f"{', '.join(known)}; model.backend: reference may run it"
        )

    def section(self, key: str, default: Mapping[str, Any] | None = None) -> _Keys:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise UserError(f"{self.path}: {self.where}{key} is missing")
        if not isinstance(value, Mapping):
            raise UserError(f"{self.path}: {self.where}{key} should hold further keys")
        return _Keys(self.path, value, f"{self.where}{key}.")


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML; copy or download it again") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} should hold keys and values; copy or download it again")
    return values


def _read_ids(path: Path) -> dict[str, int]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(token): int(number) for token, number in values.items()}
    except (ValueError, TypeError, AttributeError, UnicodeDecodeError):
        raise UserError(f"{path} should be a JSON object of token: id; copy or download it again") from None


def _architecture(model: _Keys, collator: _Keys, shapes: Mapping[str, tuple[int, ...]], with_drugs: bool) -> Tx1Config:
    d_model, n_heads = model.positive("d_model"), model.positive("n_heads")
    if d_model % n_heads:
        raise UserError(f"{model.path}: d_model {d_model} is not a multiple of n_heads {n_heads}")
    ratio = model.get("expansion_ratio", (int, float))
    if d_model * ratio != int(d_model * ratio):
        raise UserError(f"{model.path}: d_model x expansion_ratio = {d_model * ratio} is not a whole number")
    attention = model.section("attn_config", {"attn_type": "grouped_query_attention", "attn_impl": "torch"})
    attention.choice("attn_type", ("grouped_query_attention",))
    implementation = attention.choice("attn_impl", ("flash", "torch", "triton"), "triton")
    kv_n_heads = attention.positive("kv_n_heads", n_heads)
    if n_heads % kv_n_heads:
        raise UserError(f"{model.path}: n_heads {n_heads} is not a multiple of attn_config.kv_n_heads {kv_n_heads}")
    norm = model.section("norm_config", {"norm_type": "low_precision_layernorm"})
    norm_type = norm.get("norm_type", str).lower()
    if norm_type not in NORMS:
        raise norm.refusal("norm_type", norm_type, NORMS)
    genes = model.section("gene_encoder", {"use_norm": False})
    values = model.section("expression_encoder")
    values.choice("input_emb_style", ("continuous",), "continuous")
    decoder = model.section("expression_decoder")
    has_mvc = model.values.get("mvc") is not None
    mvc = model.section("mvc", {"arch_style": "inner product", "query_activation": "sigmoid"})
    mvc.choice("arch_style", ("inner product",))
    return Tx1Config(
        d_model=d_model,
        n_layers=model.positive("n_layers"),
        n_heads=n_heads,
        kv_n_heads=kv_n_heads,
        d_mlp=int(d_model * ratio),
        vocab_size=model.positive("vocab_size"),
        pad_token_id=collator.get("pad_token_id", int),
        pre_norm=model.choice("norm_scheme", ("pre", "post"), "pre") == "pre",
        rms_norm="rms" in norm_type,
        norm_eps=float(norm.get("eps", (float, int), 1e-5)),
        activation=model.choice("transformer_activation", ACTIVATIONS, "gelu"),
        use_glu=model.get("use_glu", bool, False),
        mask_generated=implementation == "torch" and attention.get("use_attn_mask", bool, True),
        cell_emb_style=model.choice("cell_emb_style", ("cls", "avg-pool"), "cls"),
        gene_norm=genes.get("use_norm", bool),
        extra_embeddings=_extra_embeddings(genes, shapes),
        value_activation=values.choice("activation", ACTIVATIONS, "relu"),
        value_norm=values.get("use_norm", bool, False),
        value_max=float(values.get("max_value", (int, float), 512)),
        value_dropout=float(values.get("dropout", (int, float), 0.1)),
        decoder_layers=decoder.get("n_layers", int, 2),
        decoder_outputs=decoder.positive("n_outputs", 1),
        decoder_activation=decoder.choice("activation", ACTIVATIONS, "leaky_relu"),
        mvc=has_mvc,
        mvc_activation=mvc.choice("query_activation", ACTIVATIONS),
        mvc_scaled=mvc.get("scaled_dot_product", bool, False),
        chem=_chem(model, collator, shapes) if with_drugs else None,
        standard_scale_outputs=model.get("standard_scale_outputs", bool, False),
    )


def parse_architecture(model: Mapping[str, Any], collator: Mapping[str, Any]) -> Tx1Config:
    """The architecture that the contents of `model_config.yml` and `collator_config.yml` describe, without drugs.

    Raises UserError as `read_release` does.
    """
    return _architecture(_Keys(Path(FILES[0]), model), _Keys(Path(FILES[1]), collator), {}, with_drugs=False)


def _extra_embeddings(genes: _Keys, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, bool]]:
    """Their widths come from the checkpoint: the config names only where training took them from."""
    found = {}
    for name in genes.section("embeddings", {}).values:
        keys = genes.section("embeddings").section(name)
        tensor = f"{PREFIX}gene_encoder.extra_embeddings.{name}.weight"
        if tensor not in shapes:
            raise UserError(f"{genes.path} names the gene embedding {name}, but model.safetensors has no {tensor}")
        found[str(name)] = (shapes[tensor][-1], keys.get("use_norm", bool, False))
    return found


def _chem(model: _Keys, collator: _Keys, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, str]:
    if not collator.get("use_chem_token", bool, False) or model.values.get("chemical_encoder") is None:
        raise UserError(f"{model.path} describes no chemical encoder; leave model.drug_key out")
    tensor = f"{PREFIX}chem_encoder.embedding.weight"
    if tensor not in shapes:
        raise UserError(f"{model.path} describes a chemical encoder, but model.safetensors has no {tensor}")
    drugs, width = shapes[tensor]
    return drugs, width, model.section("chemical_encoder").choice("activation", ACTIVATIONS, "leaky_relu")


def _tokeniser(collator: _Keys, special_ids: Mapping[str, int], with_drugs: bool) -> TokeniserSettings:
    do_binning = collator.get("do_binning", bool, True)
    keep_first = collator.get("keep_first_n_tokens", int, 1)
    n_special = 2 if with_drugs else 1
    if keep_first < n_special:
        raise UserError(f"{collator.path}: keep_first_n_tokens: {keep_first} should be {n_special} or more")
    max_length = collator.positive("max_length")
    if max_length <= keep_first:
        raise UserError(f"{collator.path}: max_length: {max_length} leaves no room for genes")
    num_bins = collator.get("num_bins", int, 51)
    if num_bins < 3:
        raise UserError(f"{collator.path}: num_bins: {num_bins} should be 3 or more")
    return TokeniserSettings(
        cls_token_id=special_ids["<cls>"],
        pad_token_id=collator.get("pad_token_id", int),
        drug_token_id=special_ids.get("<drug>"),
        pad_value=float(collator.get("pad_value", (int, float))),
        mask_value=float(collator.get("mask_value", (int, float), -1)),
        num_bins=num_bins,
        do_binning=do_binning,
        right_binning=collator.get("right_binning", bool, False),
        log_transform=collator.get("log_transform", bool, False),
        target_sum=float(collator.get("target_sum", (int, float), 10_000)),
        max_length=max_length,
        sampling=collator.get("sampling", bool, True),
        keep_first_n_tokens=keep_first,
    )


def _drug_ids(folder: Path, collator: _Keys, config: Tx1Config) -> dict[str, int]:
    """Drug -> row of the chemical encoder's table, from the JSON that `drug_to_id_path.local` names."""
    local = Path(collator.section("drug_to_id_path").get("local", str))
    path = folder / local.name
    if not path.is_file():
        raise UserError(f"model folder {folder} is incomplete: model.drug_key needs {local.name} there (drug: row)")
    drug_ids = _read_ids(path)
    assert config.chem is not None
    if "<pad>" not in drug_ids:
        raise UserError(f"{path} has no <pad> entry, which stands for cells without a known drug")
    if max(drug_ids.values()) >= config.chem[0]:
        raise UserError(f"{path} numbers drugs up to {max(drug_ids.values())}, the model knows {config.chem[0]}")
    return drug_ids
