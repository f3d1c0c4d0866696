"""configs/databases.yaml: which databases there are, and where their files are fetched from."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, model_validator

import sae_genomics
from sae_genomics.config_file import read_mapping
from sae_genomics.errors import UserError
from sae_genomics.section import Section
from sae_genomics.validation.normal_form.statements import Read, Statements

CATALOGUE = Path(sae_genomics.__file__).parents[1] / "configs" / "databases.yaml"
READERS = "sae_genomics.validation.databases"
_NAME = r"[a-z][a-z0-9_]*"


class RemoteFile(Section):
    """A file of a database. {version} in name and url is the entry's version, {key} in url the value of its variable."""

    name: str = Field(description="official name; of a directory the name of the folder")
    url: str = Field(description="address")
    kind: Literal["file", "directory", "pages"] = Field(
        "file", description="file, or directory: all Parquet parts that its page lists; pages: the pages of DisGeNET's REST interface"
    )  # fmt: skip
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="what the file must have")
    md5_url: str = Field("", description="address of a file that begins with its MD5")
    optional: bool = Field(
        False, description="whether the source is of use without it, such as a hierarchy of its terms"
    )

    @model_validator(mode="after")
    def _plain(self) -> RemoteFile:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._{}-]*", self.name):
            raise ValueError(f"{self.name!r} is no plain file name")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"the url of {self.name} begins with neither https:// nor http://")
        return self


class Entry(Section):
    """One database."""

    title: str = Field(description="its name in a report")
    version: str = Field(
        "current", description="the release that is fetched; current: what the address holds at the time"
    )
    licence: str = Field(description="terms of its data, in a few words")
    citation: str = Field(description="what to cite")
    key: str = Field("", description="environment variable with the access key, where one is needed")
    key_header: str = Field(
        "", description="HTTP header that carries the key; without it the key stands in the url as {key}"
    )
    contains: list[str] = Field([], description="databases whose statements it holds too")
    unmapped_limit: float = Field(0.5, ge=0, le=1, description="share of genes that the HGNC table may not know")
    pause: float = Field(0.0, ge=0, le=60, description="seconds between two requests")
    files: list[RemoteFile] = Field(min_length=1, description="what is fetched")

    @model_validator(mode="after")
    def _key_is_used(self) -> Entry:
        in_url = any("{key}" in file.url for file in self.files)
        if in_url and not self.key:
            raise ValueError("a url has {key}, and key: names no environment variable")
        if self.key and not in_url and not self.key_header:
            raise ValueError("key: is used neither as {key} in a url nor by key_header")
        return self

    def resolved(self, text: str) -> str:
        """With the version in place; never with the key."""
        return text.replace("{version}", self.version)


def read_catalogue(path: Path = CATALOGUE) -> dict[str, Entry]:
    """All databases by name. Raises UserError, in one line, for what is not known or missing in the file."""
    _refuse_twice(path)
    return {name: _entry(path, name, values) for name, values in read_mapping(path).items()}


def _entry(path: Path, name: str, values: object) -> Entry:
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise UserError(f"{path}: {name!r} is no name for a database: small letters, digits and _")
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_problem(name, error)}") from None


def _problem(name: str, error: ValidationError) -> str:
    problem = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")[0]
    where = ".".join([name, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        known = list((RemoteFile if "files" in problem["loc"] else Entry).model_fields)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.4)
        return f"unknown key {where}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def _refuse_twice(path: Path) -> None:
    """YAML itself lets the second of two entries win without a word."""
    try:
        names = re.findall(rf"(?m)^({_NAME})\s*:", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # said where it is read
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UserError(f"{path}: {twice[0]} stands there twice; delete one")


def no_database(where: str, name: str, catalogue: dict[str, Entry]) -> UserError:
    """What is said of a name that is not in the catalogue, with the nearest. where: it was typed."""
    near = difflib.get_close_matches(name, catalogue, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(catalogue)}"
    return UserError(f"{where}: {name!r} is no database of the catalogue; {hint}")


def chosen(names: list[str], catalogue: dict[str, Entry]) -> list[str]:
    """Names that the user gave. Raises UserError for one that is not in the catalogue, with the nearest."""
    for name in names:
        if name not in catalogue:
            raise no_database("--only", name, catalogue)
    return list(dict.fromkeys(names))


def reader_of(name: str) -> Read:
    """`read` of the module that has the database's name. Raises UserError where there is none."""
    module = f"{READERS}.{name}"
    try:
        read: Callable[[Path], Statements] = importlib.import_module(module).read
    except ModuleNotFoundError as error:
        if error.name != module:
            raise UserError(
                f"{name}: its reader needs the package {error.name}; install it with scripts/setup.sh"
            ) from None
        raise UserError(
            f"{name}: there is no reader; write validation/databases/{name}.py with a function read(folder)"
        ) from None
    except AttributeError:
        raise UserError(f"{name}: validation/databases/{name}.py has no function read(folder)") from None
    return read
