"""STRING: which proteins work together, and which touch. Up to three files of pairs, one of names, one of other ids.

The functional network rests on co-expression, on papers and on pathway databases too. So it agrees with pathways and with expression
for reasons that are not independent. Two parts are: the physical network (`category` is physical), and the channel of experiments, which
`experimental` reads from `evidence`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.batches import no_rows, read_all, read_batches
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import opened

FUNCTIONAL, PHYSICAL = "functional", "physical"
_LINKS = {  # the files of pairs, of each category the one that says most first
    FUNCTIONAL: ("protein.links.detailed", "protein.links", "protein.links.full"),
    PHYSICAL: ("protein.physical.links.detailed", "protein.physical.links", "protein.physical.links.full"),
}
_INFO, _ALIASES = "protein.info", "protein.aliases"
_CHANNELS = ("neighborhood", "fusion", "cooccurence", "coexpression", "experimental", "database", "textmining")
_ENSEMBL = (  # the sources of aliases that are genes, the better one first; the second is the name up to version 11.5
    "Ensembl_HGNC_ensembl_gene_id",
    "Ensembl_HGNC_Ensembl_ID(supplied_by_Ensembl)",
    "Ensembl_gene",
)
_HUMAN = "9606."
_ALIAS_COLUMNS = ("string_protein_id", "alias", "source")
_ID_UP_TO_11 = "protein_external_id"  # the column of ids in the file of names, up to version 11.0
_HIGHEST = 1000
_EXPERIMENTAL = "; experimental "


@dataclass(frozen=True)
class _Pairs:
    """Rows of one file: proteins as numbers, the smaller first; score and the experimental channel in thousandths; the strongest channel."""

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    score: npt.NDArray[np.int16]
    experimental: npt.NDArray[np.int16]
    strongest: npt.NDArray[np.int8]


def read(folder: Path) -> Statements:
    """One edge per pair and category; no pair is left out for its score, which is STRING's divided by 1000.

    evidence: where the detailed file is there, the strongest channel and what experiments alone give, as `textmining; experimental 0.292`.
    """
    files, version = _files(folder)
    found = Statements(version=version, directed=False)
    proteins, names = _names(files, found)
    genes, several = np.full(len(proteins), "", dtype=object), 0
    if _ALIASES in files:
        genes, several = _genes(files[_ALIASES], proteins)
    else:
        found.notes.append(f"9606.{_ALIASES} is not there: the genes of proteins are looked up by symbol alone")
    if several:
        found.notes.append(f"{several:,} proteins have several Ensembl genes; their gene is looked up by its symbol")
    parts = [
        _edges(_pairs(files[category], proteins, found), category, genes, names, found)
        for category in _LINKS
        if category in files
    ]
    found.edges = pd.concat(parts, ignore_index=True, copy=False) if len(parts) > 1 else parts[0]
    return found


def experimental(evidence: pd.Series) -> pd.Series:
    """The score of the channel of experiments in `evidence` of STRING's edges; NaN where only the combined score is known."""
    kinds, values = pd.factorize(evidence)
    said = pd.Series(values, dtype=object).str.extract(rf"{_EXPERIMENTAL}([0-9.]+)$", expand=False)
    return pd.Series(np.append(said.astype("float64").to_numpy(), np.nan)[kinds], index=evidence.index)


def _files(folder: Path) -> tuple[dict[str, Path], str]:
    """What is there of each category, names and ids, and the version in their names. Raises UserError for two versions."""
    found: dict[str, Path] = {}
    versions: set[str] = set()
    for key, kinds in {**_LINKS, _INFO: (_INFO,), _ALIASES: (_ALIASES,)}.items():
        for kind in reversed(kinds):
            for path in sorted(folder.glob(f"9606.{kind}.v*.txt*")):
                named = re.fullmatch(rf"9606\.{re.escape(kind)}\.v([0-9.]+[0-9])\.txt(\.gz)?", path.name)
                if named:
                    found[key] = path
                    versions.add(named.group(1))
    nameless = _INFO not in found and _ALIASES not in found
    if nameless or not set(_LINKS) & set(found):
        missing = _INFO if nameless else _LINKS[FUNCTIONAL][1]
        raise UserError(
            f"string: no 9606.{missing}.v12.0.txt.gz is in {folder}; run scripts/download_databases.py --only string"
        )
    if len(versions) > 1:
        raise UserError(f"string: {folder} has files of the versions {', '.join(sorted(versions))}; leave those of one")
    return found, versions.pop()


def _names(files: dict[str, Path], found: Statements) -> tuple[pa.Array, npt.NDArray[np.object_]]:
    """The proteins that have a name or an alias, and their names; empty names where the file of names is not there.

    Raises UserError where none is human.
    """
    path = files.get(_INFO, files.get(_ALIASES))
    assert path is not None
    if _INFO in files:
        rows = _info(path)
    else:
        found.notes.append(f"9606.{_INFO} is not there: proteins without an Ensembl gene have no name")
        ids = [pc.unique(batch["string_protein_id"]) for batch in _alias_batches(path)]
        rows = pd.DataFrame({"id": pc.unique(pa.chunked_array(ids, pa.string())).to_pandas(), "name": ""}, dtype=object)
    human = rows["id"].str.startswith(_HUMAN)
    if not human.any():
        raise UserError(
            f"{path} names no protein of {_HUMAN[:-1]} (human), but {', '.join(rows['id'].head(1))}; fetch it again"
        )
    rows = rows[human].drop_duplicates("id")
    return pa.array(rows["id"].tolist(), pa.string()), rows["name"].to_numpy(object)


def _info(path: Path) -> pd.DataFrame:
    """Columns id and name."""
    with opened(path) as raw:
        header = raw.readline().decode("utf-8", "replace")
    key = _ID_UP_TO_11 if _ID_UP_TO_11 in header else "string_protein_id"
    table = read_all(path, (key, "preferred_name"), "string")
    return table.to_pandas().set_axis(["id", "name"], axis=1)


def _alias_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows of the aliases. Up to version 11.0 the header is one cell, `## string_protein_id ## alias ## source ##`."""
    with opened(path) as raw:
        old = raw.readline().startswith(b"##")
    if not old:
        yield from read_batches(path, _ALIAS_COLUMNS)
        return
    for batch in read_batches(path, _ALIAS_COLUMNS, names=_ALIAS_COLUMNS, skip_rows=1):
        # There a cell of sources holds several, and blanks part them.
        said = pc.utf8_split_whitespace(batch["source"])
        row, source = pc.list_parent_indices(said), pc.list_flatten(said)
        source = pc.if_else(pc.equal(source, "Ensembl"), "Ensembl_gene", source)
        yield pa.record_batch(
            [batch["string_protein_id"].take(row), batch["alias"].take(row), source], names=list(_ALIAS_COLUMNS)
        )


def _genes(path: Path, proteins: pa.Array) -> tuple[npt.NDArray[np.object_], int]:
    """The Ensembl gene of each protein, empty where there is none or where there are several, and how many have several."""
    kept = [
        batch.filter(pc.and_(pc.is_in(batch["source"], pa.array(_ENSEMBL)), pc.starts_with(batch["alias"], "ENSG")))
        for batch in _alias_batches(path)
    ]
    rows = pa.Table.from_batches(kept).to_pandas() if kept else pd.DataFrame()
    if rows.empty:
        raise UserError(
            f"{path} names no gene of Ensembl: no row has the source {' or '.join(_ENSEMBL)}; its layout has changed, or it is cut off"
        )
    rows["protein"] = pc.index_in(pa.array(rows["string_protein_id"]), proteins).to_pandas()
    rows = rows.dropna(subset="protein").drop_duplicates(["protein", "source", "alias"])
    genes = np.full(len(proteins), "", dtype=object)
    for source in _ENSEMBL:
        each = rows[rows["source"] == source]
        each = each[~each.duplicated("protein", keep=False)]
        place, alias = each["protein"].to_numpy(np.int64), each["alias"].str.split(".").str[0].to_numpy(object)
        genes[place] = np.where(genes[place] == "", alias, genes[place])
    several = int((genes[rows["protein"].unique().astype(np.int64)] == "").sum())
    return genes, several


def _pairs(path: Path, proteins: pa.Array, found: Statements) -> _Pairs:
    """The rows of a file of pairs. Rows of proteins without a name, and of a protein with itself, are counted and left out."""
    numbers = {name: pa.int16() for name in ("combined_score", *_CHANNELS)}
    columns: dict[str, list[npt.NDArray[np.integer]]] = {
        name: [] for name in ("low", "high", "score", "experimental", "strongest")
    }
    n_rows = 0
    for batch in read_batches(
        path, ("protein1", "protein2", "combined_score"), optional=_CHANNELS, types=numbers, separator=" "
    ):
        n_rows += batch.num_rows
        first, second = (
            pc.index_in(batch[name], proteins).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            for name in ("protein1", "protein2")
        )
        nameless, itself = (first < 0) | (second < 0), (first == second) & (first >= 0)
        found.drop("protein without a name", int(nameless.sum()))
        found.drop("a protein with itself", int(itself.sum()))
        keep = ~(nameless | itself)
        given = {name: batch[name].to_numpy() for name in batch.schema.names if name in numbers}
        if any(len(value) and (value.min() < 0 or value.max() > _HIGHEST) for value in given.values()):
            raise UserError(f"{path} has a score that is not between 0 and {_HIGHEST}; fetch it again")
        channels = [name for name in _CHANNELS if name in given]
        strongest = (
            np.argmax(np.stack([given[name] for name in channels]), axis=0) if channels else np.full(len(first), -1)
        )
        places = np.array([_CHANNELS.index(name) for name in channels] + [-1])
        experiments = given.get("experimental", np.full(len(first), -1))
        for name, value in (
            ("low", np.minimum(first, second)), ("high", np.maximum(first, second)), ("score", given["combined_score"]),
            ("experimental", experiments.astype(np.int16)), ("strongest", places[strongest].astype(np.int8)),
        ):  # fmt: skip
            columns[name].append(value[keep])
    if not n_rows:
        raise no_rows(path, "string")
    found.rows_read += n_rows
    return _Pairs(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _edges(
    pairs: _Pairs, category: str, genes: npt.NDArray[np.object_], names: npt.NDArray[np.object_], found: Statements
) -> pd.DataFrame:
    """Each pair once. The file has both directions; of two scores the higher one counts."""
    key = pairs.low.astype(np.int64) * len(names) + pairs.high
    order = np.lexsort((-pairs.score, key))
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    found.drop("duplicate", len(key) - len(starts))
    single = int((np.diff(np.append(starts, len(key))) == 1).sum())
    if single:
        found.notes.append(
            f"{single:,} {category} pairs stand in one direction only, where STRING lists both: the file may be cut off"
        )
    chosen = order[starts]
    low, high = pairs.low[chosen], pairs.high[chosen]
    evidence = _evidence(pairs.strongest[chosen], pairs.experimental[chosen])
    return pd.DataFrame(
        {
            "source_ensembl_id": genes[low], "source_gene_symbol": names[low],
            "target_ensembl_id": genes[high], "target_gene_symbol": names[high],
            "score": pairs.score[chosen] / _HIGHEST, "evidence": evidence, "category": category,
            "sign": np.zeros(len(chosen), dtype=np.int8),
        }
    )  # fmt: skip


def _evidence(strongest: npt.NDArray[np.int8], experiments: npt.NDArray[np.int16]) -> npt.NDArray[np.object_]:
    """A few thousand different texts, so that millions of pairs share them."""
    kind = (strongest.astype(np.int64) + 1) * (_HIGHEST + 2) + experiments + 1
    kinds, back = np.unique(kind, return_inverse=True)
    texts = [_text(int(each) // (_HIGHEST + 2) - 1, int(each) % (_HIGHEST + 2) - 1) for each in kinds]
    return np.array(texts, dtype=object)[back]


def _text(strongest: int, experiments: int) -> str:
    if strongest < 0:
        return ""
    named = _CHANNELS[strongest]
    return named if experiments < 0 else f"{named}{_EXPERIMENTAL}{experiments / _HIGHEST:.3f}"
