"""Geneformer's dictionaries: which genes have which token, and each gene's usual level. Found beside the model, and checked against it.

The hub repository keeps a model's folder and the dictionaries side by side:

    Geneformer-V2-104M/{config.json, model.safetensors}
    geneformer/{token_dictionary_gc104M.pkl, gene_median_dictionary_gc104M.pkl, gene_name_id_dict_gc104M.pkl, ensembl_mapping_dict_gc104M.pkl}
    geneformer/gene_dictionaries_30m/{..._gc30M.pkl}        for Geneformer-V1-10M

A token means nothing with the dictionary of another series: the model would run, and every gene would be another one. So the token
dictionary must have as many entries as the model has tokens, and the other files must be of its series, by content or by name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.geneformer.unpickle import read_dictionary

PLACES = (".", "geneformer", "geneformer/gene_dictionaries_30m", "../geneformer", "../geneformer/gene_dictionaries_30m")
TOKENS, MEDIANS, SYMBOLS, ALIASES = "token_dictionary", "gene_median", "gene_name_id", "ensembl_mapping"
_SERIES = {"gc30M": "V1", "gc95M": "V2", "gc104M": "V2"}  # gc95M and gc104M are two names of the same files
_PUBLISHED = {  # SHA-256 of the file
    "ab9dc40973fa5224d77b793e2fd114cacf3d08423ed9c4c49caf0ba9c7f218f1": "V1",
    "b3b589bb5ec75040d05fc44dd6bf0184cf87f3c362cf158d196a6ed3b7fe5f39": "V1",
    "55e67962e79c0039a6c32d43c5c99f38e51964bbcfa32f736150ee1e285c438c": "V1",
    "eac0fb0b3007267871b6305ac0003ceba19d4f28d85686cb9067ecf142787869": "V1",
    "67c445f4385127adfc48dcc072320cd65d6822829bf27dd38070e6e787bc597f": "V2",
    "a51c53f6a771d64508dfaf61529df70e394c53bd20856926117ae5d641a24bf5": "V2",
    "fabfa0c2f49c598c59ae432a32c3499a5908c033756c663b5e0cddf58deea8e1": "V2",
    "0819bcbd869cfa14279449b037eb9ed1d09a91310e77bd1a19d927465030e95c": "V2",
}
_LEAST_SHARE = 0.5  # of the genes with a token that must have a usual level


@dataclass(frozen=True)
class Dictionary:
    """One file."""

    path: Path
    entries: dict[str, Any]
    series: str | None
    """V1 or V2, by the content of the file where it is a published one, else by its name; None where neither says."""


@dataclass(frozen=True)
class Dictionaries:
    """What a model needs to know of genes."""

    files: tuple[Path, ...]
    tokens: dict[str, int]
    """Ensembl id, or special token -> id."""
    medians: dict[str, float]
    """Ensembl id -> median of the gene's level where it is detected, in counts per 10,000; of the genes that have a token."""
    vocab: dict[str, int]
    """Name -> id of the genes that have both: Ensembl ids first, then other ids and symbols that stand for them."""
    symbols: dict[str, str]
    """Ensembl id -> symbol, the first one that the table of names has for it; empty without such a table."""

    def special(self, token: str) -> int | None:
        """Id of a special token; None where there is no such token."""
        return self.tokens.get(token)


def find_dictionaries(folder: Path, vocab_size: int, pad_token: int | None) -> Dictionaries:
    """Read the dictionaries of a model folder.

    vocab_size, pad_token: as its config.json says.
    Raises UserError when they are not there, cannot be read, or are not the model's.
    """
    tokens = _token_dictionary(folder, vocab_size, pad_token)
    beside = tokens.path.parent
    medians = _partner(MEDIANS, [beside, *_places(folder)], tokens)
    if medians is None:
        raise UserError(
            f"model folder {folder} has no {MEDIANS}*.pkl or .json beside {tokens.path}; copy it from ctheodoris/Geneformer"
        )
    _check_medians(tokens, medians)
    symbols = _partner(SYMBOLS, [beside], tokens)
    aliases = _partner(ALIASES, [beside], tokens)
    found = [each for each in (tokens, medians, symbols, aliases) if each is not None]
    vocab = {gene: token for gene, token in tokens.entries.items() if not _is_special(gene) and gene in medians.entries}
    by_symbol = {} if symbols is None else symbols.entries
    return Dictionaries(
        tuple(each.path for each in found),
        tokens.entries,
        {gene: float(medians.entries[gene]) for gene in vocab},
        _names(vocab, {} if aliases is None else aliases.entries, by_symbol),
        {gene: name for name, gene in reversed(by_symbol.items())},
    )


def _names(vocab: dict[str, int], aliases: dict[str, Any], symbols: dict[str, Any]) -> dict[str, int]:
    """Every name by which a gene may be called -> its id. Ids come first, because errors show the first names.

    An id that is mapped to another id is read as that one, as Geneformer's own tokenizer does. A symbol counts where no id is so called.
    """
    ids = {**vocab, **{old: vocab[new] for old, new in aliases.items() if new in vocab}}
    return {**ids, **{name: ids[gene] for name, gene in symbols.items() if gene in ids and name not in ids}}


def _token_dictionary(folder: Path, vocab_size: int, pad_token: int | None) -> Dictionary:
    """The first token dictionary that has as many entries as the model has tokens."""
    seen: list[Dictionary] = []
    for place in _places(folder):
        here = [_read(path) for path in _files(place, TOKENS)]
        fitting = [each for each in here if len(each.entries) == vocab_size]
        if len({frozenset(each.entries.items()) for each in fitting}) > 1:
            names = " and ".join(each.path.name for each in fitting)
            raise UserError(
                f"{place} has two token dictionaries of {vocab_size:,} entries, {names}; keep the model's own"
            )
        if fitting:
            _check_tokens(fitting[0], vocab_size, pad_token, folder)
            return fitting[0]
        seen += here
    if seen:
        others = ", ".join(f"{each.path} has {len(each.entries):,}" for each in seen)
        raise UserError(
            f"{folder / 'config.json'} says vocab_size: {vocab_size:,}, but {others} entries; "
            "put the token dictionary of the model's own series there (V1: gc30M, V2: gc104M)"
        )
    raise UserError(
        f"model folder {folder} has no {TOKENS}*.pkl or .json, and neither has the folder geneformer beside it; "
        "copy it from ctheodoris/Geneformer"
    )


def _check_tokens(tokens: Dictionary, vocab_size: int, pad_token: int | None, folder: Path) -> None:
    entries, path = tokens.entries, tokens.path
    if any(type(number) is not int for number in entries.values()):
        raise UserError(f"{path} should give each gene a whole number; copy or download it again")
    if sorted(entries.values()) != list(range(vocab_size)):
        raise UserError(f"{path} should give its {vocab_size:,} entries the numbers 0 to {vocab_size - 1:,}, each once")
    if ("<cls>" in entries) != ("<eos>" in entries):
        have, lack = ("<cls>", "<eos>") if "<cls>" in entries else ("<eos>", "<cls>")
        raise UserError(f"{path} has {have} but no {lack}; models of series V2 have both, those of V1 neither")
    if pad_token is not None and entries.get("<pad>", pad_token) != pad_token:
        raise UserError(
            f"{folder / 'config.json'} says pad_token_id: {pad_token}, but {path} has <pad>: {entries['<pad>']}; "
            "are both of one model?"
        )
    if all(_is_special(gene) for gene in entries):
        raise UserError(f"{path} has no gene; copy or download it again")


def _check_medians(tokens: Dictionary, medians: Dictionary) -> None:
    genes = [gene for gene in tokens.entries if not _is_special(gene)]
    for gene in genes:
        level = medians.entries.get(gene, 1.0)
        if isinstance(level, str) or not (level > 0 and math.isfinite(level)):
            raise UserError(f"{medians.path}: the median of {gene} is {level!r}; it should be a number above 0")
    n_known = sum(gene in medians.entries for gene in genes)
    if n_known < _LEAST_SHARE * len(genes):
        raise UserError(
            f"{tokens.path} has {len(genes):,} genes, but {medians.path} has a median of {n_known:,} of them alone; "
            "are both of one series (V1: gc30M, V2: gc104M)?"
        )


def _partner(stem: str, places: Sequence[Path], tokens: Dictionary) -> Dictionary | None:
    """The file of that kind that belongs to a token dictionary, from the first place that has one. Raises UserError when it
    is of another series, or when two could be meant."""
    for place in places:
        here = [_read(path) for path in _files(place, stem)]
        if not here:
            continue
        same = [each for each in here if None in (each.series, tokens.series) or each.series == tokens.series]
        if not same:
            other = here[0]
            raise UserError(
                f"{tokens.path} is of series {tokens.series}, but {other.path} is of series {other.series}; "
                f"put the file of series {tokens.series} there"
            )
        best = [each for each in same if each.series == tokens.series] or same
        if any(each.entries != best[0].entries for each in best):
            names = " and ".join(each.path.name for each in best)
            raise UserError(f"{place} has {names}, which differ; keep the one that belongs to {tokens.path.name}")
        return best[0]
    return None


def _places(folder: Path) -> list[Path]:
    """Where dictionaries may be, the model's own folder first; `..` is by name, as a cache of links needs it."""
    return [folder.absolute().parent / place[3:] if place.startswith("../") else folder / place for place in PLACES]


def _files(place: Path, stem: str) -> list[Path]:
    return sorted(path for end in ("pkl", "json") for path in place.glob(f"{stem}*.{end}") if path.is_file())


def _read(path: Path) -> Dictionary:
    state = path.stat()
    return _read_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)  # a command asks for them several times
def _read_once(path: Path, changed: int, size: int) -> Dictionary:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    named = re.search(r"gc\d+M", path.name)
    series = _PUBLISHED.get(hashlib.sha256(content).hexdigest()) or (_SERIES.get(named.group()) if named else None)
    return Dictionary(path, read_dictionary(path, content), series)


def _is_special(gene: str) -> bool:
    return gene.startswith("<") and gene.endswith(">")
