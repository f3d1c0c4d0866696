"""The input of a run over text: JSONL, one document per line, or one document per file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sae_genomics.data.json_lines import json_object
from sae_genomics.data.lines import count_lines, first_bytes, lines
from sae_genomics.data.text.settings import TextSection
from sae_genomics.errors import DISK_ERRORS, UserError
from sae_genomics.hashes import hash_file, hash_values

FOLDER_KEY = "folder"
_JSONL, _PLAIN = (".jsonl", ".ndjson", ".json"), (".txt", ".text")
_MOST_KEYS = 200  # that are remembered, to be named in an error
_BOM = "\ufeff"


NOTHING: Mapping[str, str] = MappingProxyType({})


class Document(NamedTuple):
    """One document. where: file and line, for an error. label, group: None where it has none. more: values of the keys asked for."""

    where: str
    item_id: str
    text: str
    label: str | None = None
    group: str | None = None
    more: tuple[str | None, ...] = ()


@dataclass
class Source(ABC):
    """Where documents are read from. path: as the config names it, absolute."""

    what: ClassVar[str]
    """What such an input is, for a reader."""

    path: Path
    settings: TextSection
    keys: dict[str, None] = field(default_factory=dict)
    """What may be a label or a group, of the documents read so far, in their order."""

    @property
    def files(self) -> list[Path]:
        return [self.path]

    def content_hash(self) -> str:
        """Over all that the files hold."""
        return hash_file(self.path)

    @abstractmethod
    def count(self) -> int:
        """How many documents there are, without looking into them."""

    def check_key(self, key: str, setting: str) -> None:
        """Raise UserError for a key that such an input cannot have. setting: the config key that asks for it."""
        raise self.no_keys(setting)

    def no_keys(self, setting: str) -> UserError:
        """Of a setting that names a key."""
        return UserError(
            f"{setting}: {self.path} is {self.what}, which has no keys; leave {setting} out, or give a JSONL file"
        )

    @abstractmethod
    def documents(self, rows: npt.NDArray[np.int64], asked: Mapping[str, str] = NOTHING) -> Iterator[Document]:
        """Some documents, one at a time. rows: ascending; the others are stepped over unread.

        asked: further key -> the config key that asks for it; their values stand in `Document.more`.
        Raises UserError with file and line for whatever is not a document.
        """

    def values(self, rows: npt.NDArray[np.int64], asked: Mapping[str, str]) -> dict[str, list[str | None]]:
        """What some documents have under some keys, from one pass. As for `documents`; a key that no document has is refused."""
        for key, setting in asked.items():
            self.check_key(key, setting)
        found = [document.more for document in self.documents(rows, asked)]
        columns = {key: [values[i] for values in found] for i, key in enumerate(asked)}
        for key, setting in asked.items():
            if key not in self.keys and not any(value is not None for value in columns[key]):
                raise UserError(
                    f"{setting}: no document has the key {key!r}; there are: {', '.join(list(self.keys)[:20])}"
                )
        return columns


class JsonLines(Source):
    """One object per line; further keys may be labels."""

    what = "JSONL, one document per line"

    def check_key(self, key: str, setting: str) -> None:
        """Which keys the lines have is not known before they are read."""

    def count(self) -> int:
        """Lines that are not blank."""
        return count_lines(self.path)

    def documents(self, rows: npt.NDArray[np.int64], asked: Mapping[str, str] = NOTHING) -> Iterator[Document]:
        """See `Source`."""
        example = f'{{"{self.settings.text_key}": "..."}}'
        for number, line in _chosen_lines(self.path, rows):
            entry = json_object(self.path, number, line, example)
            yield self._document(f"{self.path}, line {number}", number, entry, asked)

    def _document(self, where: str, number: int, entry: dict[str, Any], asked: Mapping[str, str]) -> Document:
        data = self.settings
        text = entry.get(data.text_key)
        if not isinstance(text, str):
            problem = "is no text" if data.text_key in entry else "is not there"
            others = [key for key, value in entry.items() if isinstance(value, str)][:10]
            hint = f"; set data.text_key to one of {', '.join(others)}" if others else ""
            raise UserError(f"{where}: the key {data.text_key!r} {problem}{hint}")
        if len(self.keys) < _MOST_KEYS:
            self.keys.update((key, None) for key in entry if key != data.text_key)
        item_id = f"line {number}" if data.id_key is None else self._value(where, entry, data.id_key, "data.id_key")
        if item_id is None:
            raise UserError(
                f"{where}: no value for the key {data.id_key!r} of data.id_key; add it, or leave data.id_key out"
            )
        return Document(
            where, item_id, _checked_text(where, text),
            None if data.label_key is None else self._value(where, entry, data.label_key, "data.label_key"),
            None if data.group_key is None else self._value(where, entry, data.group_key, "data.group_key"),
            tuple(self._value(where, entry, key, setting) for key, setting in asked.items()),
        )  # fmt: skip

    def _value(self, where: str, entry: dict[str, Any], key: str, setting: str) -> str | None:
        """A text, a number, or true or false, as text; None where there is none."""
        value = entry.get(key)
        if value is None:
            return None
        if not isinstance(value, str | int | float):
            kind = "list" if isinstance(value, list) else "object"
            raise UserError(f"{where}: {key!r} of {setting} is a {kind}; write a text or a number there")
        return _checked_unicode(where, str(value).strip(), f" of {key!r}") or None


class Lines(Source):
    """One document per line."""

    what = "a text file, one document per line"

    def count(self) -> int:
        """Lines that are not blank."""
        return count_lines(self.path)

    def documents(self, rows: npt.NDArray[np.int64], asked: Mapping[str, str] = NOTHING) -> Iterator[Document]:
        """See `Source`."""
        for number, line in _chosen_lines(self.path, rows):
            where = f"{self.path}, line {number}"
            yield Document(where, f"line {number}", _checked_text(where, line))


@dataclass
class Folder(Source):
    """One document per .txt file, in the folder or below it. The folder that a file lies in may be its label."""

    what = "a folder of texts"

    def __post_init__(self) -> None:
        found = [path for path in self.path.rglob("*") if _is_text_file(path, self.path)]
        self._files = sorted(found, key=self._name)
        if not self._files:
            raise UserError(f"data.path: {self.path} holds no .txt file; name a folder that does, or a JSONL file")
        self.keys[FOLDER_KEY] = None

    @property
    def files(self) -> list[Path]:
        return self._files

    def check_key(self, key: str, setting: str) -> None:
        """`folder` is the only one."""
        if key != FOLDER_KEY:
            raise UserError(
                f"{setting}: {self.path} is {self.what}, whose only key is {FOLDER_KEY} (the folder that a file lies in); "
                f"set {setting} to {FOLDER_KEY}, or give a JSONL file"
            )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def content_hash(self) -> str:
        """The files' names count too: they are the documents' names, and say which folder a document lies in."""
        return hash_values([[self._name(path), hash_file(path)] for path in self._files])

    def count(self) -> int:
        """Files."""
        return len(self._files)

    def documents(self, rows: npt.NDArray[np.int64], asked: Mapping[str, str] = NOTHING) -> Iterator[Document]:
        """See `Source`."""
        data = self.settings
        for row in rows.tolist():
            path = self._files[row]
            folder = path.parent.relative_to(self.path).as_posix()
            name = None if folder == "." else folder
            yield Document(
                str(path), self._name(path), _checked_text(str(path), _whole_file(path)),
                None if data.label_key is None else name, None if data.group_key is None else name,
                (name,) * len(asked),
            )  # fmt: skip


def find_source(settings: TextSection) -> Source:
    """What `data.path` names. Raises UserError when it is not there, and for keys that such an input cannot have."""
    source = _source(settings)
    for name in ("text_key", "id_key"):
        is_set = getattr(settings, name) != TextSection.model_fields[name].default
        if is_set and not isinstance(source, JsonLines):
            raise source.no_keys(f"data.{name}")
    for name in ("label_key", "group_key"):
        if getattr(settings, name) is not None:
            source.check_key(getattr(settings, name), f"data.{name}")
    return source


def _source(settings: TextSection) -> Source:
    path = Path(settings.path).expanduser().absolute()
    if settings.path.startswith("builtin:"):
        raise UserError(f"data.path: no data set {settings.path} of texts; name a file or a folder")
    if path.is_dir():
        return Folder(path, settings)
    if not path.exists():
        raise UserError(f"data.path: no such file: {path}")
    return JsonLines(path, settings) if _is_jsonl(path) else Lines(path, settings)


def _is_jsonl(path: Path) -> bool:
    """By its name, and where that says nothing, by its first character."""
    start = first_bytes(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in _JSONL:
        return True
    if suffix not in (*_PLAIN, "") and not start.startswith(b"{"):
        raise UserError(
            f"data.path: {path} is neither {', '.join(_JSONL)} nor {_PLAIN[0]}; rename it, or convert it to JSONL"
        )
    return suffix not in _PLAIN and start.startswith(b"{")


def _is_text_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() == ".txt" and not hidden and path.is_file()


def _chosen_lines(path: Path, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of some of the lines that are not blank. rows: ascending."""
    wanted = iter(rows.tolist())
    next_row = next(wanted, None)
    for row, pair in enumerate(lines(path)):
        if next_row is None:
            return
        if row == next_row:
            yield pair
            next_row = next(wanted, None)


def _whole_file(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, byte {error.start + 1}: not UTF-8 text; save the file as UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise UserError(f"{path} cannot be read: {DISK_ERRORS[error.errno]}") from None
        raise


def _checked_text(where: str, text: str) -> str:
    if not text.strip():
        raise UserError(f"{where}: the document is empty; remove it")
    return _checked_unicode(where, text, "")


def _checked_unicode(where: str, text: str, of: str) -> str:
    """JSON can write half of a character (a lone surrogate), which is no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start + 1} of the text{of} is half a character ({text[error.start]!r}); correct it"
        ) from None
    return text
