"""Geneformer's folder: transformers' config.json and safetensors files of BERT, and the dictionaries beside it; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_file, hash_values
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import folder_identity, n_parameters
from sae_genomics.models.geneformer.dictionaries import Dictionaries, find_dictionaries
from sae_genomics.models.model_folder import require_files
from sae_genomics.models.releases import SINGLE
from sae_genomics.models.transformers_folder import header_shapes, read_config, weight_files

HEADS = ("cls.", "classifier.")
_DEFAULTS = {  # as BertConfig has them
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": None,
}  # fmt: skip
ACTIVATIONS = ("gelu", "relu", "silu", "swish", "gelu_new", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class RankSettings:
    """How Geneformer wants its tokens."""

    max_length: int
    """Tokens of the longest sequence, special ones included."""
    n_special: int
    """2: <cls> first and <eos> last (series V2). 0: none (V1)."""


@dataclass(frozen=True)
class GeneformerFolder:
    """A model folder whose small files and headers have been read."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files in it that are read, weights included; the dictionaries may stand elsewhere."""
    config: dict[str, Any]
    """config.json, checked."""
    dictionaries: Dictionaries
    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor, under the names of BertForMaskedLM."""

    @property
    def n_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def d_model(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def vocab(self) -> dict[str, int]:
        """Name of a gene -> token id: Ensembl ids, ids that stand for them, symbols."""
        return self.dictionaries.vocab

    @property
    def symbols(self) -> dict[str, str]:
        """Id of a gene -> its symbol, where the dictionaries tell it."""
        return self.dictionaries.symbols

    @property
    def tokeniser(self) -> RankSettings:
        """How many tokens a cell has at most, and how many of them are special."""
        n_special = 2 if "<cls>" in self.dictionaries.tokens else 0
        return RankSettings(int(self.config["max_position_embeddings"]), n_special)

    @property
    def has_head(self) -> bool:
        """Whether the checkpoint can predict genes: it was saved from BertForMaskedLM."""
        return "cls.predictions.transform.dense.weight" in self.shapes

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of all its files, dictionaries included."""
        weights = folder_identity(self.folder, self.files)
        dictionaries = sorted((path.name, hash_file(path)) for path in self.dictionaries.files)
        return ModelInfo(
            family="geneformer",
            name=name,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=int(self.config["num_attention_heads"]),
            max_length=self.tokeniser.max_length,
            n_parameters=n_parameters(
                {key: at for key, at in self.shapes.items() if key != "cls.predictions.decoder.weight"}
            ),
            identity=hash_values(weights, dictionaries),
        )


def read_folder(folder: Path) -> GeneformerFolder:
    """Read and check config.json, the headers of the safetensors files, and the dictionaries.

    Raises UserError for missing or unreadable files, for a model that is not BERT's encoder, and for dictionaries of another model.
    """
    require_files(folder, ("config.json",), f"config.json and {SINGLE}")
    path = folder / "config.json"
    config = read_config(path, "bert", "geneformer", _DEFAULTS)
    for key in ("is_decoder", "add_cross_attention", "use_te_layers"):
        if config.get(key):
            raise UserError(f"{path}: {key} is true; only BERT's plain encoder is supported")
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(f"{path}: position_embedding_type: {kind!r} is not supported; it should be absolute")
    activation = config.setdefault("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{path}: hidden_act: {activation!r} is not supported; it should be one of {', '.join(ACTIVATIONS)}"
        )
    weights = weight_files(folder, "BertForMaskedLM")
    shapes = header_shapes(folder, weights, "bert.", HEADS)
    dictionaries = find_dictionaries(folder, config["vocab_size"], config.get("pad_token_id", 0))
    found = GeneformerFolder(folder, ("config.json", *weights), config, dictionaries, shapes)
    if found.tokeniser.max_length <= found.tokeniser.n_special:
        raise UserError(f"{path}: max_position_embeddings leaves no room for a gene")
    if found.has_head and "<mask>" not in dictionaries.tokens:
        raise UserError(
            f"{dictionaries.files[0]} has no <mask>, which a model with a head needs; copy or download it again"
        )
    return found
