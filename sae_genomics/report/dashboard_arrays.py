"""How the dashboard's numbers and texts become arrays: numbered texts, lists of entries per feature, short numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.report.dashboard_packing import Array, Coded, Logs, Steps

LOWEST_LOG = -320.0


class Names:
    """Numbers texts in the order they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def codes(self, column: pd.Series) -> npt.NDArray[np.int32]:
        """Number of each text, -1 for null. int32 [rows]."""
        local, uniques = pd.factorize(column, use_na_sentinel=True)
        known = np.array([self.code(str(text)) for text in uniques] + [-1], dtype=np.int32)
        return known[local]

    def code(self, text: str) -> int:
        """The number of one text."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


@dataclass
class Lists:
    """Entries of every feature, one list after the other: columns of equal length, and how many each feature has; by layer."""

    encodings: dict[str, Logs | Steps] = field(default_factory=dict)
    """name of a column -> what its numbers are rounded to"""
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)
    columns: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, n_features: int, row: npt.NDArray[np.int64], columns: dict[str, Array]) -> None:
        """Entries of a layer, sorted by `row`, the feature's position in its layer."""
        self.lengths.append(np.bincount(row, minlength=n_features))
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    def forget(self, n_layers: int) -> None:
        """Keep the first n_layers alone."""
        for parts in (self.lengths, *self.columns.values()):
            del parts[n_layers:]

    @property
    def n_bytes(self) -> int:
        return sum(part.nbytes for parts in self.columns.values() for part in parts)

    def blocks(self, prefix: str) -> dict[str, Array | Coded]:
        """The arrays as the page has them."""
        lengths = np.concatenate(self.lengths) if self.lengths else np.zeros(0, np.int64)
        found: dict[str, Array | Coded] = {f"{prefix}.length": lengths.astype(np.uint16)}
        for name, parts in self.columns.items():
            values, encoding = np.concatenate(parts), self.encodings.get(name)
            found[f"{prefix}.{name}"] = values if encoding is None else Coded(values, encoding)
        return found


def in_rows(
    frame: pd.DataFrame, rows: pd.Series, by: list[str], n_kept: int | None = None
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Entries of known features sorted by feature and `by`, the first n_kept of each, and the features' positions.

    rows: feature (index) -> its position in the layer.
    """
    frame = frame[frame["feature"].isin(rows.index)]
    frame = frame.sort_values(["feature", *by], kind="stable")
    if n_kept is not None:
        frame = frame[frame.groupby("feature").cumcount() < n_kept]
    return frame, rows.reindex(frame["feature"].to_numpy()).to_numpy(np.int64)


def empty(numbers: tuple[str, ...], texts: tuple[str, ...]) -> pd.DataFrame:
    """No rows, with these columns and `feature`."""
    columns = {name: pd.Series(dtype=float) for name in ("feature", *numbers)}
    return pd.DataFrame(columns | {name: pd.Series(dtype=object) for name in texts})


def shortened(values: pd.Series | Array) -> npt.NDArray[np.float32]:
    """float32 with 12 of its 23 fraction bits: three digits are shown, and zeros at the end compress well."""
    exact = np.asarray(values, np.float64).astype(np.float32)
    bits = exact.view(np.uint32)
    rounded = ((bits + np.uint32(0x400)) & np.uint32(0xFFFFF800)).view(np.float32)
    return np.where(np.isfinite(exact) & np.isfinite(rounded), rounded, exact)


def log10(values: pd.Series) -> npt.NDArray[np.float32]:
    """log10 as float32; LOWEST_LOG for 0, NaN stays."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(numbers), LOWEST_LOG).astype(np.float32)


def quantise(values: pd.Series | Array) -> npt.NDArray[np.uint16]:
    """Numbers between 0 and 1 in 65535 steps."""
    return np.round(np.clip(np.nan_to_num(np.asarray(values, float)), 0, 1) * 65535).astype(np.uint16)
