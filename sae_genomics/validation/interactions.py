"""Networks and regulons of downloaded databases, read from disk alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.errors import UserError
from sae_genomics.file_keys import database_edges
from sae_genomics.validation.databases.string import FUNCTIONAL, experimental
from sae_genomics.validation.normal_form.schema import EDGES, SOURCE_FILE, read_source

EXPERIMENTAL = "experimental"
_COLUMNS = ["source_gene_symbol", "target_gene_symbol", "score", "evidence", "category", "sign"]
_BATCH_ROWS = 1 << 19


@dataclass(frozen=True)
class Pairs:
    """Pairs of genes. first, second: int32, positions in the symbols of their database. score: float64. sign: int8, 1 activates, -1 represses."""

    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    score: npt.NDArray[np.float64]
    sign: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Interactions:
    """Pairs of a database. symbols: upper case, every gene of any pair, whatever its score. channels: name -> its pairs."""

    name: str
    symbols: npt.NDArray[np.object_]
    channels: dict[str, Pairs]


def check_named(key: str, wanted: Sequence[str] | str, folder: Path, directed: bool) -> None:
    """Raise UserError for a database that `validation.KEY` names and that is not there, or is of the other kind."""
    if wanted == "all":
        return
    for path in database_edges(wanted, folder, directed):
        name = path.parent.name
        if not (path.parent / SOURCE_FILE).exists():
            raise UserError(
                f"validation.{key}: {name} is not in {folder}; run scripts/download_databases.py --only {name} --to {folder}"
            )
        if not path.exists():
            raise UserError(f"validation.{key}: {name} has gene sets and no pairs of genes; leave it out")
        if bool(read_source(path.parent).get("directed")) is not directed:
            other, what = ("network", "a network") if directed else ("regulons", "regulons")
            raise UserError(f"validation.{key}: {name} has {what}; name it in validation.{other}")


def load_networks(wanted: Sequence[str] | str, folder: Path, min_score: Mapping[str, float]) -> list[Interactions]:
    """The networks that a run uses, with pairs from their `min_score` on; all pairs of a network without one.

    A category of a database is a channel. Where the evidence tells what experiments alone give, that is one more.
    Raises UserError for a file that cannot be read.
    """
    return [
        _read(path, min_score.get(path.parent.name, 0.0)) for path in database_edges(wanted, folder, directed=False)
    ]


def load_regulons(wanted: Sequence[str] | str, folder: Path) -> list[Interactions]:
    """The regulons that a run uses: first is the factor, second its target. Raises UserError for a file that cannot be read."""
    return [_read(path, None) for path in database_edges(wanted, folder, directed=True)]


def _read(path: Path, min_score: float | None) -> Interactions:
    """min_score: pairs below it are left out; None: no pair is, and experiments are no channel of their own."""
    numbers: dict[str, int] = {}
    parts: dict[str, list[pd.DataFrame]] = {}
    try:
        file = pq.ParquetFile(path, read_dictionary=_COLUMNS[:2] + _COLUMNS[3:5])
        if [file.schema_arrow.field(name).name for name in _COLUMNS] != _COLUMNS:
            raise KeyError(path)
        for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
            rows = batch.to_pandas()
            for name, column in (("first", "source_gene_symbol"), ("second", "target_gene_symbol")):
                rows[name] = _numbered(rows[column], numbers)
            rows = rows[(rows["first"] >= 0) & (rows["second"] >= 0)]
            for channel, some in _by_channel(rows, min_score):
                parts.setdefault(channel, []).append(some)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run scripts/download_databases.py --only {path.parent.name}") from None
    except (OSError, KeyError, pa.ArrowException):
        wanted = ", ".join(EDGES.names)
        raise UserError(
            f"cannot read {path}, or it has other columns than {wanted}; make it again with scripts/download_databases.py "
            f"--only {path.parent.name}"
        ) from None
    channels = {
        name: Pairs(*(pd.concat(some)[column].to_numpy() for column in ("first", "second", "score", "sign")))
        for name, some in parts.items()
        if any(map(len, some))
    }
    return Interactions(path.parent.name, np.array(list(numbers), dtype=object), channels)


def _numbered(symbols: pd.Series, numbers: dict[str, int]) -> npt.NDArray[np.int32]:
    """The number of each symbol, upper and lower case alike; -1 for none. `numbers` grows by those that are new. The loop is over different symbols."""
    column = symbols.astype("category").cat
    place = [numbers.setdefault(str(symbol).upper(), len(numbers)) if symbol else -1 for symbol in column.categories]
    return np.append(np.array(place, dtype=np.int32), np.int32(-1))[column.codes.to_numpy()]


def _by_channel(rows: pd.DataFrame, min_score: float | None) -> list[tuple[str, pd.DataFrame]]:
    columns = ["first", "second", "score", "sign"]
    if min_score is None:
        return [("", rows[columns])]
    enough = rows[rows["score"] >= min_score]
    found = [(str(name), some[columns]) for name, some in enough.groupby("category", observed=True, sort=True)]
    functional = rows[rows["category"] == FUNCTIONAL]  # the physical network repeats what it says of experiments
    of_experiments = experimental(functional["evidence"].astype(object))
    if of_experiments.notna().any():
        alone = functional.assign(score=of_experiments)[columns]
        found.append((EXPERIMENTAL, alone[alone["score"] >= min_score]))
    return found
