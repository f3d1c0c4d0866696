"""All documents of a run, block by block: tokenised, counted, and copied to where shards read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.text.source import Document, Source
from sae_genomics.errors import UserError
from sae_genomics.models.word_pieces import TextTokeniser
from sae_genomics.tokens import pointers

_BLOCK_CHARACTERS = 1 << 20  # of a block: a tokeniser's own records take a hundred bytes and more of a token
_BLOCK_DOCUMENTS = 4096


@dataclass(frozen=True)
class Corpus:
    """What is known of every document used, without its text: arrays [documents], of pieces [vocabulary]."""

    item_id: list[str]
    label: list[str | None]
    group: list[str | None]
    length: npt.NDArray[np.int64]
    """tokens that the model reads, special ones included"""
    n_special: npt.NDArray[np.int64]
    """special tokens among them"""
    full_length: npt.NDArray[np.int64]
    """tokens of the whole document, of which the model may read a part"""
    n_pieces: npt.NDArray[np.int64]
    """different word pieces"""
    ptr: npt.NDArray[np.int64]
    """[documents + 1], bytes of the copy at which each begins"""
    digest: npt.NDArray[np.int64]
    """the same for the same text"""
    counts: npt.NDArray[np.int64]
    """[vocabulary], how often each piece comes; 0 for special tokens"""

    @property
    def units(self) -> npt.NDArray[np.int32]:
        """Ids of the word pieces that come, ascending."""
        return np.flatnonzero(self.counts).astype(np.int32)


@dataclass
class _Rows:
    """Corpus while it grows: one small array per block."""

    counts: npt.NDArray[np.int64]
    item_id: list[str] = field(default_factory=list)
    label: list[str | None] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)
    blocks: list[tuple[npt.NDArray[np.int64], ...]] = field(default_factory=list)

    def corpus(self) -> Corpus:
        length, n_special, full_length, n_pieces, n_bytes, digest = map(np.concatenate, zip(*self.blocks, strict=True))
        names = self.item_id, self.label, self.group
        return Corpus(*names, length, n_special, full_length, n_pieces, pointers(n_bytes), digest, self.counts)


def read_corpus(
    source: Source,
    rows: npt.NDArray[np.int64],
    tokeniser: TextTokeniser,
    max_tokens: int | None,
    copy: Path,
    advance: Callable[[float], None] | None = None,
) -> Corpus:
    """Read and check the documents that are used, and write them to `copy` as UTF-8, one after the other.

    rows: ascending documents of the input. advance: told how many were read.
    At any time one block of documents is in memory, and some numbers of each one before it.

    Raises UserError, with file and line, for whatever is not a document, and for two of one name.
    """
    is_special = np.zeros(max(tokeniser.vocab_size, max(tokeniser.special_ids, default=-1) + 1), dtype=bool)
    is_special[list(tokeniser.special_ids)] = True
    grown = _Rows(np.zeros(len(is_special), dtype=np.int64))
    names: dict[str | None, str | None] = {}  # one object per label and group, not one per document
    with open(copy, "wb") as file:
        for block in _blocks(source.documents(rows)):
            grown.item_id += [document.item_id for document in block]
            grown.label += [names.setdefault(document.label, document.label) for document in block]
            grown.group += [names.setdefault(document.group, document.group) for document in block]
            n_bytes, digest = _copied(block, file)
            grown.blocks.append((*_counted(block, tokeniser, max_tokens, is_special, grown.counts), n_bytes, digest))
            if advance is not None:
                advance(len(block))
    if len(grown.item_id) != len(rows):
        raise UserError(f"{source.path} changed while it was read; type the same command again")
    corpus = grown.corpus()
    _refuse_same_names(source, rows, corpus.item_id)
    return corpus


def _blocks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    block: list[Document] = []
    characters = 0
    for document in documents:
        block.append(document)
        characters += len(document.text)
        if characters >= _BLOCK_CHARACTERS or len(block) >= _BLOCK_DOCUMENTS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _copied(block: list[Document], file: IO[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Append the texts to the copy. Returns bytes and digest of each."""
    texts = [document.text.encode("utf-8") for document in block]
    file.write(b"".join(texts))
    n_bytes = np.fromiter(map(len, texts), np.int64, len(texts))
    return n_bytes, np.fromiter(map(hash, texts), np.int64, len(texts))


def _counted(
    block: list[Document],
    tokeniser: TextTokeniser,
    max_tokens: int | None,
    is_special: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], ...]:
    """Tokens, special tokens, uncut tokens and different pieces of each document, int64 [block]; `counts` grows by the pieces."""
    ids, ptr = tokeniser.encode([document.text for document in block], max_tokens)
    length = np.diff(ptr)
    special = is_special[ids]
    n_special = np.diff(np.append(0, np.cumsum(special))[ptr])
    empty = np.flatnonzero(n_special == length)
    if len(empty):
        raise UserError(
            f"{block[empty[0]].where}: the model's tokeniser makes no word piece of the document; remove it"
        )
    pieces = ids[~special].astype(np.int64)
    counts += np.bincount(pieces, minlength=len(counts))
    document = np.repeat(np.arange(len(block)), length)[~special]
    different = np.unique(document * len(counts) + pieces) // len(counts)
    full_length = length.copy()
    limit = tokeniser.most_tokens if max_tokens is None else min(max_tokens, tokeniser.most_tokens)
    if len(full := np.flatnonzero(length == limit)):
        full_length[full] = tokeniser.lengths([block[i].text for i in full])
    return length, n_special.astype(np.int64), full_length, np.bincount(different, minlength=len(block))


def _refuse_same_names(source: Source, rows: npt.NDArray[np.int64], item_id: list[str]) -> None:
    again = np.flatnonzero(pd.Index(item_id, dtype=object).duplicated())
    if not len(again):
        return
    name = item_id[again[0]]
    pair = rows[[item_id.index(name), again[0]]]
    first, second = (document.where for document in source.documents(pair))
    more = f" ({len(again):,} such documents)" if len(again) > 1 else ""
    raise UserError(
        f"{second}: a document called {name!r} is there already, in {first.removeprefix(f'{source.path}, ')}{more}; "
        "give each a name of its own, or leave data.id_key out"
    )
