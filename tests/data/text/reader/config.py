"""The part that reads no weights, and imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sae_genomics.config import ModelConfig
from sae_genomics.models.base import ModelInfo
from sae_genomics.tokens import pointers
from tests.data.liner.config import D_MODEL, N_LAYERS

READS = "text"
MOST = 64
SPECIAL = ("<bos>", "<eos>")


class Pieces:
    """The folder's tokeniser, with <bos> before each document."""

    most_tokens = MOST

    def __init__(self, folder: Path):
        self._own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.vocab_size = self._own.get_vocab_size()
        self.special_ids = frozenset(self._own.token_to_id(token) for token in SPECIAL)

    def _all(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._own.encode_batch(texts)]

    def encode(self, texts: list[str], max_tokens: int | None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        limit = min(max_tokens or MOST, MOST)
        ids = [one[:limit] for one in self._all(texts)]
        flat = np.array([token for one in ids for token in one], dtype=np.int32)
        return flat, pointers(np.array([len(one) for one in ids], dtype=np.int64))

    def lengths(self, texts: list[str]) -> npt.NDArray[np.int64]:
        return np.array([len(one) for one in self._all(texts)], dtype=np.int64)

    def spell(self, ids: Any) -> list[str]:
        return [self._own.id_to_token(int(token)).replace("Ġ", " ") for token in ids]


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    identity = str((Path(str(model.path)) / "tokenizer.json").stat().st_size)
    return ModelInfo("reader", "the reader", N_LAYERS, D_MODEL, 2, MOST, 1000, identity, hooks=("resid_post",))


def text_tokeniser(model: ModelConfig, cache_dir: Path | None = None) -> Pieces:
    return Pieces(Path(str(model.path)))


def write_tokeniser(folder: Path, texts: list[str], size: int = 420) -> Path:
    """A byte-pair tokeniser trained on some texts; every byte has a piece."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    )
    own.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    folder.mkdir(parents=True, exist_ok=True)
    own.save(str(folder / "tokenizer.json"))
    return folder
