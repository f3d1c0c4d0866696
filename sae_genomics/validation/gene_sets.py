"""Gene-set collections, and their membership among the genes that can enter a list."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError

COLLECTIONS = "collections"  # the fact of annotation_nulls.parquet that holds `described`


class NoSetFits(UserError):
    """No gene set has enough genes of the background: there is nothing to test."""


@dataclass(frozen=True)
class GeneSet:
    """One gene set."""

    term: str
    """its name, which no other set of the collection has"""

    description: str
    """source, as the file gives it"""

    genes: tuple[str, ...]
    """symbols as written, distinct"""

    term_id: str = ""
    """id in its source; the same as term where none is given"""

    def __post_init__(self) -> None:
        if not self.term_id:
            object.__setattr__(self, "term_id", self.term)


@dataclass(frozen=True)
class Collection:
    """The gene sets of one source."""

    name: str
    """file name without suffix, or the database's"""

    sets: tuple[GeneSet, ...]
    """in the file's order"""

    facts: Mapping[str, str] = field(default_factory=dict)
    """what is known of a downloaded database: title, version, licence, citation"""

    universe: frozenset[str] | None = None
    """upper-case symbols of all genes that the source could have named; None: any gene"""

    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """term_id -> ids of its parents, where there is a hierarchy"""

    contains: tuple[str, ...] = ()
    """names of other sources whose evidence this one contains"""


def described(collections: Sequence[Collection], members: Membership) -> list[dict[str, object]]:
    """What is known of each collection, its number of sets and how many of them fit, for the table that names it."""
    return [
        {
            "name": each.name,
            **each.facts,
            "contains": list(each.contains),
            "n_sets": len(each.sets),
            "n_fit": int((members.collection == each.name).sum()),
        }
        for each in collections
    ]


@dataclass(frozen=True)
class Source:
    """Where collections come from: one file in validation/databases, one line in its list.

    name: for messages. load: settings → collections; none when the settings do not ask for this source. Raises UserError.
    """

    name: str
    load: Callable[[ValidationConfig], list[Collection]]


@dataclass(frozen=True)
class Membership:
    """Which gene of the background is in which set.

    background: distinct symbols, upper case, sorted. symbols: the same as the data spells them.
    collection, term, term_id: text [terms]. matrix: csr int32 [background, terms].
    sources: names of all collections. source: int64 [terms], number of the term's collection in it.
    universe: bool [background, sources], whether the source could have named the gene.
    """

    background: npt.NDArray[np.object_]
    symbols: npt.NDArray[np.object_]
    collection: npt.NDArray[np.object_]
    term: npt.NDArray[np.object_]
    term_id: npt.NDArray[np.object_]
    matrix: sparse.csr_matrix
    sources: tuple[str, ...]
    source: npt.NDArray[np.int64]
    universe: npt.NDArray[np.bool_]

    @property
    def set_sizes(self) -> npt.NDArray[np.int64]:
        """Background genes of each set: int64 [terms]."""
        return np.bincount(self.matrix.indices, minlength=len(self.term))

    def positions(self, symbols: Sequence[str] | npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
        """Place of each symbol in the background, in any case of letters; -1 for one that is not there."""
        place = {symbol: position for position, symbol in enumerate(self.background)}
        distinct, back = np.unique(np.asarray(symbols, dtype=object).astype(str), return_inverse=True)
        return np.array([place.get(symbol.upper(), -1) for symbol in distinct], dtype=np.int64)[back]


def read_gmt(path: Path) -> Collection:
    """Read a GMT file: one set per line, `name TAB description TAB gene TAB gene …`, optionally gzipped.

    The genes that it could have named are those in any of its sets.

    Empty lines and lines that begin with # are passed over, and so are weights as in Enrichr's `GENE,1.0`.
    Raises UserError naming file and line for anything else, and for a file without sets.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such gene-set file: {path}; correct validation.gmt") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; validation.gmt takes .gmt files") from None
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read gene-set file {path}: {error}") from None
    except UnicodeDecodeError as error:
        bad = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {bad}: not UTF-8 text; validation.gmt takes plain or gzipped GMT files"
        ) from None
    sets: list[GeneSet] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        genes = tuple(dict.fromkeys(field.split(",")[0] for field in fields[2:] if field.split(",")[0]))
        if len(fields) < 3 or not fields[0] or not genes:
            raise UserError(
                f"{path}, line {number}: not a gene set; a GMT line is name TAB description TAB gene TAB gene ..."
            )
        if fields[0] in first_line:
            raise UserError(
                f"{path}, line {number}: gene set {fields[0]!r} stands on line {first_line[fields[0]]} already; rename one"
            )
        first_line[fields[0]] = number
        sets.append(GeneSet(fields[0], fields[1], genes))
    if not sets:
        raise UserError(f"{path} holds no gene sets; a GMT line is name TAB description TAB gene TAB gene ...")
    universe = frozenset(gene.upper() for each in sets for gene in each.genes)
    return Collection(_stem(path), tuple(sets), universe=universe)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".gmt")


def membership(
    collections: Sequence[Collection],
    symbols: npt.NDArray[np.object_],
    min_size: int,
    max_size: int,
    of_source: bool = True,
) -> Membership:
    """Sets with min_size to max_size genes of the background, as a matrix.

    symbols: genes that can enter a list; upper and lower case are one, and so are several genes of one symbol.
    of_source: the background of a set has only genes that its source could have named. Else it has all that can be listed.

    Raises NoSetFits, which says what to set, when no set is left.
    """
    upper = np.array([str(symbol).upper() for symbol in symbols], dtype=object)
    background, first = np.unique(upper.astype(str), return_index=True)
    place = {symbol: position for position, symbol in enumerate(background.tolist())}
    rows: list[int] = []
    columns: list[int] = []
    names: list[tuple[int, str, str]] = []
    largest = 0
    for number, collection in enumerate(collections):
        for gene_set in collection.sets:
            genes = {place[gene.upper()] for gene in gene_set.genes if gene.upper() in place}
            largest = max(largest, len(genes))
            if min_size <= len(genes) <= max_size:
                rows += sorted(genes)
                columns += [len(names)] * len(genes)
                names.append((number, gene_set.term, gene_set.term_id))
    if not names:
        example = ", ".join(collections[0].sets[0].genes[:3]) if collections else "none"
        seen = ", ".join(str(symbol) for symbol in symbols[:3]) or "none"
        sizes = f", or set validation.min_set_size to {largest} or less" if 0 < largest < min_size else ""
        raise NoSetFits(
            f"no gene set has {min_size} to {max_size} of the {len(background):,} genes that can be listed (the largest has "
            f"{largest}); the sets name genes like {example}, the data like {seen}: set data.symbol_key to the var column "
            f"of gene symbols, or validation.gmt to sets that name genes as the data does{sizes}"
        )
    matrix = sparse.csr_matrix(
        (np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=(len(background), len(names))
    )
    numbers, terms, ids = (np.array(part, dtype=object) for part in zip(*names, strict=True))
    source, sources = numbers.astype(np.int64), tuple(collection.name for collection in collections)
    return Membership(
        background=background.astype(object),
        symbols=np.asarray(symbols, dtype=object)[first],
        collection=np.array(sources, dtype=object)[source],
        term=terms,
        term_id=ids,
        matrix=matrix,
        sources=sources,
        source=source,
        universe=_universes(collections if of_source else (), len(sources), background, matrix, source),
    )


def _universes(
    collections: Sequence[Collection],
    n_sources: int,
    background: npt.NDArray[np.str_],
    matrix: sparse.csr_matrix,
    source: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which genes each source could have named: bool [background, sources]; every gene where a source does not say."""
    universe = np.ones((len(background), n_sources), dtype=bool)
    for number, collection in enumerate(collections):
        if collection.universe is not None:
            members = matrix[:, np.flatnonzero(source == number)].getnnz(axis=1) > 0
            universe[:, number] = members | [symbol in collection.universe for symbol in background.tolist()]
    return universe
