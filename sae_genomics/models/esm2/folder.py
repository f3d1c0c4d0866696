"""ESM2's folder as transformers' save_pretrained leaves it: config.json, vocab.txt and safetensors files; read without weights or torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import folder_identity, n_parameters
from sae_genomics.models.model_folder import require_files
from sae_genomics.models.releases import SINGLE
from sae_genomics.models.transformers_folder import header_shapes, read_config, weight_files

SPECIAL = ("<cls>", "<eos>", "<pad>", "<mask>")
_INV_FREQ = re.compile(r"(encoder\.layer\.[^.]+\.attention\.self\.)?rotary_embeddings\.inv_freq")


@dataclass(frozen=True)
class Esm2Folder:
    """A model folder whose small files and headers have been read."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files that are read, weights included."""
    config: dict[str, Any]
    """config.json, checked."""
    vocab: tuple[str, ...]
    """The token of each id."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor, under the names of EsmForMaskedLM."""

    @property
    def n_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def d_model(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def residues(self) -> dict[str, int]:
        """Letter -> token id, in the order of the ids."""
        return {token: number for number, token in enumerate(self.vocab) if re.fullmatch("[A-Z]", token)}

    @property
    def most_residues(self) -> int:
        """Residues of the longest sequence: what the position table has rows for, or what training went up to."""
        return int(self.config["max_position_embeddings"]) - int(self.config["pad_token_id"]) - 1 - 2

    @property
    def has_head(self) -> bool:
        """Whether the checkpoint can predict residues: it was saved from EsmForMaskedLM."""
        return "lm_head.dense.weight" in self.shapes

    def token_id(self, token: str) -> int:
        """Of a special token."""
        return self.vocab.index(token)

    @property
    def unknown_id(self) -> int:
        """The token of letters that the vocabulary does not have."""
        return self.vocab.index("X" if "X" in self.vocab else "<unk>")

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of all its files."""
        return ModelInfo(
            family="esm2",
            name=name,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=int(self.config["num_attention_heads"]),
            max_length=self.most_residues + 2,
            n_parameters=n_parameters(
                {key: shape for key, shape in self.shapes.items() if not key.endswith("inv_freq")}
            ),
            identity=folder_identity(self.folder, self.files),
        )


def read_folder(folder: Path) -> Esm2Folder:
    """Read and check config.json, vocab.txt and the headers of the safetensors files.

    Raises UserError for missing or unreadable files, and for a model that is not ESM2's encoder.
    """
    require_files(folder, ("config.json", "vocab.txt"), f"config.json, vocab.txt and {SINGLE}")
    config = _read_config(folder / "config.json")
    vocab = _read_vocab(folder / "vocab.txt", int(config["vocab_size"]))
    for key, token in (("pad_token_id", "<pad>"), ("mask_token_id", "<mask>")):
        if config.get(key) is None:
            config[key] = vocab.index(token)
        elif config[key] != vocab.index(token):
            raise UserError(
                f"{folder / 'config.json'}: {key} is {config[key]}, but {token} is line {vocab.index(token) + 1} of vocab.txt; "
                "are both of one model?"
            )
    weights = weight_files(folder, "EsmForMaskedLM")
    shapes = _full_names(header_shapes(folder, weights, "esm.", ("lm_head.",)))
    found = Esm2Folder(folder, ("config.json", "vocab.txt", *weights), config, vocab, shapes)
    if found.most_residues < 1:
        raise UserError(f"{folder / 'config.json'}: max_position_embeddings leaves no room for a residue")
    return found


def _full_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The rotary angles under one name, whichever version of transformers saved them."""
    inv_freq = "esm.rotary_embeddings.inv_freq"
    return {
        inv_freq if _INV_FREQ.fullmatch(name.removeprefix("esm.")) else name: shape for name, shape in shapes.items()
    }


def _read_config(path: Path) -> dict[str, Any]:
    defaults = {  # as EsmConfig has them
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 1026, "vocab_size": None,
    }  # fmt: skip
    values = read_config(path, "esm", "esm2", defaults)
    kind = values.setdefault("position_embedding_type", "absolute")
    if kind not in ("rotary", "absolute"):
        raise UserError(f"{path}: position_embedding_type: {kind!r} is not supported; it should be rotary or absolute")
    for key in ("is_folding_model", "is_decoder", "add_cross_attention"):
        if values.get(key):
            raise UserError(f"{path}: {key} is true; only ESM2's plain encoder is supported")
    return values


def _read_vocab(path: Path, size: int) -> tuple[str, ...]:
    try:
        vocab = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text; copy or download it again") from None
    if len(vocab) > size:
        raise UserError(
            f"{path} has {len(vocab)} tokens, but config.json says vocab_size: {size}; are both of one model?"
        )
    missing = [token for token in SPECIAL if token not in vocab]
    if "X" not in vocab and "<unk>" not in vocab:
        missing.append("X")
    if missing:
        raise UserError(f"{path} has no {missing[0]} token; copy or download it again")
    return vocab
