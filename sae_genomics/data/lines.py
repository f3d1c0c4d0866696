"""Text files, plain or gzip, read in blocks of whole lines. A file that cannot be read is one line for the reader."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sae_genomics.errors import DISK_ERRORS, UserError

BLOCK_BYTES = 8 << 20
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLANKS = " \t\r\v\f"  # what `bytes.isspace` takes for blank, so that a count of lines and the lines agree
_FORMATS = {b"\x89HDF": "HDF5", b"PK\x03\x04": "a zip archive", b"BZh": "bzip2", b"\xfd7zX": "xz", b"PAR1": "Parquet"}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where it is gzip, whatever its name. Raises UserError when it cannot be read."""
    try:
        with open(path, "rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            if start[:2] != _GZIP:
                yield raw
                return
            with gzip.open(raw, "rb") as file:
                yield file  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the gzip file is broken or cut short ({error}); copy or download it again") from None
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise UserError(f"{path} cannot be read: {DISK_ERRORS[error.errno]}") from None
        raise


def skip_mark(file: IO[bytes]) -> None:
    """Step over a byte order mark at the start of a file."""
    if file.read(len(_BOM)) != _BOM:
        file.seek(0)


def first_bytes(path: Path, n: int = 4096) -> bytes:
    """The start of the text, without a byte order mark, and without blank lines before it. Raises UserError for an empty file."""
    with opened(path) as file:
        start = b""
        while (data := file.read(n)) and not (start := start + data).removeprefix(_BOM).strip():
            pass
    text = start.removeprefix(_BOM).lstrip()
    if not text:
        raise UserError(f"{path} is empty")
    for magic, name in _FORMATS.items():
        if start.startswith(magic):
            raise UserError(f"{path} is {name}, not text; give a plain or .gz text file")
    return text


def blocks(path: Path, next_begins: bytes, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The text in blocks of whole lines. A line that begins with `next_begins` follows each block but the last."""
    with opened(path) as file:
        skip_mark(file)
        rest = b""
        while data := file.read(size):
            data = rest + data
            cut = data.rfind(b"\n" + next_begins) + 1
            if cut:
                yield data[:cut]
            rest = data[cut:]
        if rest:
            yield rest


def count_lines(path: Path) -> int:
    """Lines that are not blank, as `lines` gives them, without decoding them."""
    with opened(path) as file:
        skip_mark(file)
        return sum(1 for line in file if not line.isspace())


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end) of each line that is not blank. Raises UserError for what is not UTF-8."""
    number = 0
    for block in blocks(path, b""):
        try:
            texts = block.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            at = number + 1 + block.count(b"\n", 0, error.start)
            raise UserError(f"{path}, line {at}: not UTF-8 text; save the file as UTF-8") from None
        for text in texts:
            number += 1
            if text.strip(_BLANKS):
                yield number, text.rstrip("\r")
        if block.endswith(b"\n"):
            number -= 1  # what `split` leaves after the last line end is no line
