"""Documents to word pieces, by the folder's own tokenizer, and word pieces as a reader should see them. No torch is used."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.errors import UserError
from sae_genomics.items import TextItems
from sae_genomics.models.huggingface.folder import TextFolder
from sae_genomics.models.transformers_quiet import quiet
from sae_genomics.tokens import Int64, Tokens, pointers, ranges

Int32 = npt.NDArray[np.int32]


def read_tokeniser(folder: TextFolder) -> TextTokeniser:
    """The folder's tokenizer. Raises UserError where it has none that transformers can read without its code."""
    from transformers import AutoTokenizer

    if not folder.tokeniser_files:
        raise UserError(
            f"model folder {folder.folder} has no tokenizer.json; copy the tokenizer's files from where the model comes from"
        )
    try:
        with quiet():
            own = AutoTokenizer.from_pretrained(str(folder.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds, of several packages
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the tokenizer in {folder.folder} cannot be read ({reason}); copy or download it again, or save it anew with "
            "transformers' save_pretrained"
        ) from None
    return TextTokeniser(
        own, folder.numbers["vocab_size"], folder.numbers["max_position_embeddings"], str(folder.folder)
    )


class TextTokeniser:
    """A model's tokenizer.

    own: transformers' tokenizer. n_rows: rows of the model's embedding table. most_tokens: tokens of the longest sequence that the
    model takes, special ones included. where: the folder, for errors.
    """

    def __init__(self, own: Any, n_rows: int, most_tokens: int, where: str):
        self._own, self._where = own, where
        self.most_tokens = most_tokens
        self._n_rows = n_rows
        added = own.added_tokens_decoder
        self.vocab_size = max(n_rows, len(own), max(added, default=-1) + 1)
        self.special_ids = frozenset(own.all_special_ids) | {number for number, token in added.items() if token.special}
        self._backend = own.backend_tokenizer if own.is_fast else None
        if self._backend is not None:  # as a plain call of the tokenizer does
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.encode_special_tokens = bool(getattr(own, "split_special_tokens", False))

    def encode(self, texts: list[str], max_tokens: int | None = None) -> tuple[Int32, Int64]:
        """Word pieces of each text as the tokenizer gives them by default, cut behind so many: int32 [T], int64 [texts + 1].

        max_tokens: special ones included; never more than `most_tokens`. Raises UserError for a piece that the model has no row for.
        """
        most = self.most_tokens if max_tokens is None else min(max_tokens, self.most_tokens)
        if self._backend is not None:
            pieces = [each.ids[:most] for each in self._backend.encode_batch_fast(texts)]
        else:
            pieces = [ids[:most] for ids in self._own(texts)["input_ids"]] if texts else []
        ptr = pointers(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        ids = np.fromiter((number for each in pieces for number in each), np.int32, int(ptr[-1]))
        if len(ids) and int(ids.max()) >= self._n_rows:
            unknown = int(ids.max())
            raise UserError(
                f"{self._where}: the tokenizer gives {self._own.convert_ids_to_tokens(unknown)!r} the id {unknown}, but the model's "
                f"vocabulary has {self._n_rows:,} rows; are tokenizer and model of one release?"
            )
        return ids, ptr

    def lengths(self, texts: list[str]) -> Int64:
        """Word pieces of each text before anything is cut: int64 [texts]."""
        if self._backend is not None:
            return np.array([len(each.ids) for each in self._backend.encode_batch_fast(texts)], dtype=np.int64)
        return np.array([len(ids) for ids in self._own(texts)["input_ids"]] if texts else [], dtype=np.int64)

    def spell(self, ids: npt.ArrayLike) -> list[str]:
        """Each piece as a reader should see it, such as `" the"` for `▁the`. Two pieces that would read the same carry their ids."""
        spelt = self._spelt
        return [spelt.get(int(number), f"[{int(number)}]") for number in np.asarray(ids).reshape(-1).tolist()]

    @cached_property
    def _spelt(self) -> dict[int, str]:
        pieces = {number: piece for piece, number in self._own.get_vocab().items()}
        read = _of_bytes if self._reads_bytes else _of_marks
        spelt = {n: piece if n in self.special_ids else _visible(read(piece)) for n, piece in pieces.items()}
        count = Counter(spelt.values())
        return {n: text if count[text] == 1 else f"{text} [{n}]" for n, text in spelt.items()}

    @property
    def _reads_bytes(self) -> bool:
        """Whether pieces are spelt in GPT-2's letters for bytes."""
        if self._backend is None:
            return False
        parts = json.loads(self._backend.to_str())
        return any("ByteLevel" in json.dumps(parts.get(part)) for part in ("decoder", "pre_tokenizer"))


def tokenise(items: TextItems, tokeniser: TextTokeniser) -> Tokens:
    """The documents' tokens; one sequence each. Special ones have no unit."""
    ids, ptr = tokeniser.encode(items.texts, items.max_tokens)
    special = np.isin(ids, np.fromiter(tokeniser.special_ids, np.int32, len(tokeniser.special_ids)))
    unit = np.searchsorted(items.token, ids).astype(np.int32)
    known = np.append(items.token, -1)[unit] == ids
    lengths = np.diff(ptr)
    return Tokens(
        item=np.repeat(items.rows, lengths),
        token=ids,
        unit=np.where(known & ~special, unit, -1).astype(np.int32),
        position=ranges(np.zeros(len(lengths), np.int64), lengths).astype(np.int32),
        weight=np.ones(len(ids), np.float32),
        special=special,
        item_ptr=ptr,
    )


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's printable letter for each byte, turned round (Radford et al. 2019; `bytes_to_unicode` in its released code)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _letters_of_bytes()


def _of_bytes(piece: str) -> str:
    """The text of a piece in GPT-2's letters. A piece that ends within a letter keeps its bytes as <0xE2>."""
    values = [_BYTE_OF.get(letter) for letter in piece]
    if None in values:
        return piece  # an added token is spelt as it is
    text = bytes(value for value in values if value is not None).decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(one) - 0xDC00:02X}>" if 0xDC80 <= ord(one) <= 0xDCFF else one for one in text)


def _of_marks(piece: str) -> str:
    """The text of a SentencePiece piece, whose blank is ▁."""
    return piece.replace("▁", " ")


def _visible(text: str) -> str:
    """With control characters escaped, so that a table keeps one line per piece."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
