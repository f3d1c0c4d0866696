"""Config keys that stand for files: the files' content decides, not where they are, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sae_genomics.hashes import hash_file

BUILTIN_GENE_SETS = Path(__file__).parent / "assets" / "gene_sets"


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _named_files(paths: Any) -> list[Path]:
    return [expanded(path) for path in paths]


def _builtin_gene_sets(wanted: Any) -> list[Path]:
    return sorted(BUILTIN_GENE_SETS.glob("*.gmt")) if wanted else []


# key -> (its value -> the files that it stands for)
FILE_KEYS: Mapping[str, Callable[[Any], list[Path]]] = {
    "validation.gmt": _named_files,
    "validation.builtin": _builtin_gene_sets,
}


def contents(key: str, value: Any) -> list[list[str]]:
    """[name, content hash] of each file that the key's value stands for, in order.

    A list, because files of different folders may have one name. A file that cannot be read has the hash `missing`; the
    stage that reads it says so.
    """
    return [[path.name, _content(path)] for path in FILE_KEYS[key](value)]


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
