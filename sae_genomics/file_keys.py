"""Config keys that stand for files: the files' content decides, not where they are, what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_genomics.hashes import hash_file

BUILTIN_GENE_SETS = Path(__file__).parent / "assets" / "gene_sets"
DATABASE_TERMS, DATABASE_EDGES, DATABASE_FACTS = (
    "terms.parquet",
    "edges.parquet",
    "source.json",
)  # in the folder of a database
Files = list[tuple[str, Path]]  # a name for messages, and where the file is


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _named_files(wanted: Any, paths: Mapping[str, Any]) -> Files:
    files = [expanded(path) for path in wanted]
    return [(path.name, path) for path in files]


def _one_file(wanted: Any, paths: Mapping[str, Any]) -> Files:
    return _named_files([wanted] if wanted else [], paths)


def _builtin_gene_sets(wanted: Any, paths: Mapping[str, Any]) -> Files:
    return [(path.name, path) for path in sorted(BUILTIN_GENE_SETS.glob("*.gmt"))] if wanted else []


def _databases(wanted: Any, paths: Mapping[str, Any]) -> Files:
    return [(path.parent.name, path) for path in database_terms(wanted, expanded(paths["databases"]))]


def database_terms(wanted: Sequence[str] | str, folder: Path) -> list[Path]:
    """The gene sets of each database that a run tests: those named, or `all` that are in the folder. A named one may be absent.

    Their content decides what comes out. What else is known of a source, such as the day of its download, does not.
    """
    if wanted == "all":
        complete = [
            path for path in sorted(folder.glob(f"*/{DATABASE_TERMS}")) if (path.parent / DATABASE_FACTS).exists()
        ]
        return [path for path in complete if _has_rows(path)]  # a network has edges alone
    return [folder / name / DATABASE_TERMS for name in wanted]


def _networks(wanted: Any, paths: Mapping[str, Any]) -> Files:
    return [(path.parent.name, path) for path in database_edges(wanted, expanded(paths["databases"]), directed=False)]


def _regulons(wanted: Any, paths: Mapping[str, Any]) -> Files:
    return [(path.parent.name, path) for path in database_edges(wanted, expanded(paths["databases"]), directed=True)]


def database_edges(wanted: Sequence[str] | str, folder: Path, directed: bool) -> list[Path]:
    """The pairs of each database that a run uses: those named, or `all` in the folder that are directed, or are not. A named one may be absent."""
    if wanted != "all":
        return [folder / name / DATABASE_EDGES for name in wanted]
    return [
        path
        for path in sorted(folder.glob(f"*/{DATABASE_EDGES}"))
        if _is_directed(path.parent / DATABASE_FACTS) is directed
    ]


def _is_directed(facts: Path) -> bool | None:
    """Whether the pairs of a database have a direction; None where it is not whole."""
    try:
        said = json.loads(facts.read_text())
    except (OSError, ValueError):
        return None
    return bool(said.get("directed")) if isinstance(said, dict) else None


def _has_rows(path: Path) -> bool:
    """Whether a table has rows, also where that cannot be told: the stage that reads it says what is wrong."""
    import pyarrow as pa  # here, because most commands find no database
    from pyarrow import parquet

    try:
        return bool(parquet.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return True


# key -> (its value, the section paths -> the files that it stands for)
FILE_KEYS: Mapping[str, Callable[[Any, Mapping[str, Any]], Files]] = {
    "validation.gmt": _named_files,
    "validation.builtin": _builtin_gene_sets,
    "validation.databases": _databases,
    "validation.network": _networks,
    "validation.regulons": _regulons,
    "concepts.examples": _named_files,
    "concepts.labels": _one_file,
    "concepts.confounds": _one_file,
}


def contents(key: str, value: Any, paths: Mapping[str, Any]) -> list[list[str]]:
    """[name, content hash] of each file that the key's value stands for, in order.

    A list, because files of different folders may have one name. A file that cannot be read has the hash `missing`; the
    stage that reads it says so. paths: the section of the config.
    """
    return [[name, _content(path)] for name, path in FILE_KEYS[key](value, paths)]


def _content(path: Path) -> str:
    try:
        return hash_file(path) if path.is_file() else "missing"
    except OSError:
        return "missing"


def change(then: Any, now: list[list[str]]) -> str:
    """What differs between two values of `contents`, as a clause; `then` may be of an older form."""
    before = [tuple(entry) for entry in then] if isinstance(then, list) else []
    after = [tuple(entry) for entry in now]
    names = dict.fromkeys(name for name, _ in (*before, *after))
    changed = [
        name
        for name in names
        if [digest for other, digest in before if other == name] != [digest for other, digest in after if other == name]
    ]
    return f"the content of {', '.join(changed[:3])} changed" if changed else "its files changed"
