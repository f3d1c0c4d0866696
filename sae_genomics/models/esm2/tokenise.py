"""Proteins to ESM2's tokens: <cls>, one token per residue, <eos>; long proteins in overlapping windows.

Position p of a protein, counted from 1, is token p of it: <cls> is token 0. `check_alignment` proves it for every shard, from the
letters and the positions alone, because an error here would shift every annotation without any other sign.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.errors import UserError
from sae_genomics.items import SequenceItems
from sae_genomics.models.esm2.folder import Esm2Folder
from sae_genomics.tokens import Tokens, pointers, windows_of


class MisalignedTokens(Exception):
    """A residue's token is not that of the letter at its position: an error of this program."""


def tokenise(items: SequenceItems, folder: Esm2Folder) -> Tokens:
    """The tokens of some proteins. Letters that the vocabulary does not have get the token of X.

    Of a protein that is read in windows, <cls> is stored from the first window, <eos> from the last, each residue from one.
    Raises UserError when windows would overlap by all of their residues, MisalignedTokens when `check_alignment` does.
    """
    most = folder.most_residues
    lengths = np.array([len(sequence) for sequence in items.sequences], dtype=np.int64)
    overlap = items.overlap if (lengths > most).any() else 0
    if overlap >= most:
        raise UserError(
            f"data.window_overlap: windows of {most} residues cannot overlap by {overlap}; set it to less than {most}"
        )
    item, start, stop, kept_start, kept_stop = windows_of(lengths, most, overlap)
    letters, first = _letters(items.sequences), pointers(lengths)[:-1]

    n_residues = stop - start
    ptr = pointers(n_residues + 2)
    window = np.repeat(np.arange(len(item)), n_residues + 2)
    place = np.arange(ptr[-1]) - ptr[window]  # in its window: 0 is <cls>
    is_cls, is_eos = place == 0, place == n_residues[window] + 1
    special = is_cls | is_eos
    residue = start[window] + place - 1  # in its protein, counted from 0
    is_first, is_last = start == 0, stop == lengths[item]

    token_of, unit_of = _tables(folder)
    token = np.empty(len(place), dtype=np.int32)
    token[is_cls], token[is_eos] = folder.token_id("<cls>"), folder.token_id("<eos>")
    token[~special] = token_of[letters[(first[item[window]] + residue)[~special]]]
    stored = (residue >= kept_start[window]) & (residue < kept_stop[window]) & ~special
    stored |= (is_cls & is_first[window]) | (is_eos & is_last[window])
    position = np.where(is_cls, 0, np.where(is_eos, lengths[item[window]] + 1, residue + 1))
    tokens = Tokens(
        item=np.asarray(items.rows, dtype=np.int64)[item[window]],
        token=token,
        unit=np.where(special, np.int32(-1), unit_of[token]),
        position=position.astype(np.int32),
        weight=np.ones(len(place), dtype=np.float32),
        special=special,
        item_ptr=ptr,
        stored=None if len(item) == len(lengths) else stored,
    )
    check_alignment(tokens, items, folder)
    return tokens


def check_alignment(tokens: Tokens, items: SequenceItems, folder: Esm2Folder) -> None:
    """Compare every residue's token, spelt out by vocab.txt, with the letter at the position that the token claims.

    Raises MisalignedTokens naming the protein and the position, also when a residue is stored twice or not at all.
    """
    lengths = np.array([len(sequence) for sequence in items.sequences], dtype=np.int64)
    order = np.argsort(items.rows, kind="stable")
    rows = np.asarray(items.rows, dtype=np.int64)[order]
    found = np.minimum(np.searchsorted(rows, tokens.item), max(len(rows) - 1, 0))
    residues = np.flatnonzero(~tokens.special)
    protein = order[found[residues]] if len(rows) else found[residues]
    place = tokens.position[residues].astype(np.int64) - 1
    inside = (np.asarray(items.rows)[protein] == tokens.item[residues]) & (place >= 0) & (place < lengths[protein])
    _refuse(tokens, residues[~inside], "is not a position of that protein")

    spelt = np.array([ord(token) if len(token) == 1 else 0 for token in folder.vocab], dtype=np.uint8)
    known = np.zeros(256, dtype=bool)
    known[spelt[spelt > 0]] = True
    at = pointers(lengths)[protein] + place
    letters = _letters(items.sequences)[at]
    of_token = tokens.token[residues]
    right = np.where(known[letters], spelt[of_token] == letters, of_token == folder.unknown_id)
    _refuse(tokens, residues[~right], "has the token of another letter")

    stored = np.ones(len(residues), dtype=bool) if tokens.stored is None else tokens.stored[residues]
    times = np.bincount(at[stored], minlength=int(lengths.sum()))
    if (times != 1).any():
        bad = int(np.flatnonzero(times != 1)[0])
        which = int(np.searchsorted(pointers(lengths), bad, side="right")) - 1
        raise MisalignedTokens(
            f"protein in row {items.rows[which]} of the input, position {bad - pointers(lengths)[which] + 1}: stored {times[bad]} times"
        )


def _refuse(tokens: Tokens, rows: npt.NDArray[np.int64], why: str) -> None:
    if len(rows):
        row = int(rows[0])
        raise MisalignedTokens(
            f"protein in row {tokens.item[row]} of the input, position {tokens.position[row]}: token {tokens.token[row]} {why}"
        )


def _letters(sequences: list[str]) -> npt.NDArray[np.uint8]:
    """All letters, one after the other, as ASCII; what is not ASCII is a question mark."""
    return np.frombuffer("".join(sequences).encode("ascii", "replace"), dtype=np.uint8)


def _tables(folder: Esm2Folder) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Token of each ASCII code, and unit of each token: its index among the letters, -1 for tokens that are none."""
    token_of = np.full(256, folder.unknown_id, dtype=np.int32)
    unit_of = np.full(len(folder.vocab), -1, dtype=np.int32)
    for unit, (letter, token) in enumerate(folder.residues.items()):
        token_of[ord(letter)], unit_of[token] = token, unit
    return token_of, unit_of
