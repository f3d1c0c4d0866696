"""One pass over all values that a run uses: which matrix holds counts, are they sound, what do they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.data.cells.counts import (
    MIN_EVIDENCE_BITS,
    CountsForm,
    NotCounts,
    Scale,
    check_logs,
    check_values,
    stored_decimals,
    to_counts,
)
from sae_genomics.data.cells.genes import GeneMatch, sum_by_gene
from sae_genomics.data.cells.matrix import Rows, StoredMatrix
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, stop_point

if TYPE_CHECKING:
    from sae_genomics.data.cells.h5ad import CellTable

_COUNTS_LAYERS = ("counts", "raw_counts")
_RECOVERABLE: tuple[Scale, ...] = ("log1p_counts", "log1p_normalised")


@dataclass(frozen=True)
class Candidate:
    """A matrix that may hold the counts.

    open: gives (the matrix, the row in it of each cell used: int64 [cells]), within a `with` block.
    """

    where: str
    match: GeneMatch
    open: Callable[[], AbstractContextManager[tuple[StoredMatrix, Rows]]]


@dataclass(frozen=True)
class Scan:
    """What a pass over the chosen matrix found.

    form: how its values become counts.
    gene_counts: float64 [columns], sum over the cells used.
    n_counts: float64 [cells], sum over matched genes. n_genes: int32 [cells], distinct matched genes above zero.
    target_sum: what every cell's expm1 values add up to (within 1 %); None when they do not agree.
    """

    candidate: Candidate
    form: CountsForm
    gene_counts: npt.NDArray[np.float64]
    n_counts: npt.NDArray[np.float64]
    n_genes: npt.NDArray[np.int32]
    target_sum: float | None = None


@dataclass(frozen=True)
class Finding:
    """Why a matrix was passed over: a clause for the reader, and what kind of fault it is."""

    where: str
    what: str
    clause: str


def candidate_names(setting: str, table: CellTable) -> list[str]:
    """The matrices that `data.counts` allows, in the order in which they are tried.

    `auto`: layers named counts, then raw, then X. Raises UserError when there is none.
    """
    if setting != "auto":
        table.matrix(setting)
        return [setting]
    names = [f"layers:{name}" for name in _COUNTS_LAYERS] + ["raw", "X"]
    found = [name for name in names if name in table.matrices]
    if not found:
        there = ", ".join(table.matrices)
        what_next = f"set data.counts to one of {there}" if there else "write it with anndata, counts in X"
        raise UserError(f"{table.path} has no X, no raw and no layer named counts; {what_next}")
    return found


def find_counts(
    candidates: Sequence[Candidate],
    table: CellTable,
    rows: Rows,
    allow_normalised: bool,
    progress: Callable[[str], Progress],
) -> tuple[Scan, list[str]]:
    """Scan the first candidate that holds counts; failing that, the first that counts can be recovered from; failing
    that, with `allow_normalised`, the first whose values are finite and not negative.

    rows: int64 [cells], rows of the input, for messages.
    progress: called with a label for each pass.

    Returns the scan and sentences for the reader. Raises UserError that says what was found in each candidate.
    """
    findings: dict[str, Finding] = {}
    for candidate in candidates:
        scan = _attempt(candidate, "counts", table, rows, findings, progress)
        if scan is not None:
            return scan, _passed_over(findings)
    fractional = [each for each in candidates if findings[each.where].what == "fraction"]
    for candidate in fractional:
        for scale in _RECOVERABLE:
            scan = _attempt(candidate, scale, table, rows, findings, progress)
            if scan is not None:
                del findings[candidate.where]
                source = "log1p of counts" if scale == "log1p_counts" else "log1p of normalised counts"
                rounded = f", stored with {scan.form.decimals} decimals" if scan.form.decimals else ""
                note = f"Counts were recovered from {candidate.where}, which holds {source}{rounded}."
                return scan, [note, *_passed_over(findings)]
    if allow_normalised:
        for candidate in fractional:
            scan = _attempt(candidate, "normalised", table, rows, findings, progress)
            if scan is not None:
                del findings[candidate.where]
                note = (
                    f"The values of {candidate.where} are no counts and were used as they are (data.allow_normalised)."
                )
                return scan, [note, *_passed_over(findings)]
    raise UserError(_no_counts(table, list(findings.values())))


def scan_counts(candidate: Candidate, scale: Scale, progress: Progress | None = None) -> tuple[Scan, float]:
    """Read every value of the cells used, once, in bounded memory. Returns the scan and the evidence in bits.

    Raises NotCounts (its row counts the cells used) at the first value that does not fit.
    """
    with candidate.open() as (matrix, rows):
        return _scan_matrix(candidate, matrix, rows, scale, progress)


def _scan_matrix(
    candidate: Candidate, matrix: StoredMatrix, rows: Rows, scale: Scale, progress: Progress | None
) -> tuple[Scan, float]:
    match = candidate.match
    n_matched = len(match.tokens)
    gene_counts = np.zeros(matrix.shape[1])
    n_counts, n_genes = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int32)
    form = CountsForm(scale)
    bits, totals = 0.0, _Range()
    for number, (cells, block) in enumerate(matrix.blocks(rows)):
        try:
            if number == 0 and scale in _RECOVERABLE:
                check_values(block)
                check_logs(block)
                form = CountsForm(scale, stored_decimals(block))
            counts, evidence = to_counts(block, form)
        except NotCounts as error:
            error.row += cells.start
            raise
        bits = max(bits, evidence)  # blocks may repeat one another's values
        gene_counts += np.bincount(counts.indices, weights=counts.data, minlength=matrix.shape[1])
        by_gene = sum_by_gene(counts, match.gene_index, n_matched, np.float64)
        n_counts[cells] = np.asarray(by_gene.sum(axis=1)).ravel()
        n_genes[cells] = np.diff(by_gene.indptr)
        if scale == "log1p_normalised":
            totals.add(block)
        if progress is not None:
            progress.advance(cells.stop - cells.start)
        stop_point()
    return Scan(candidate, form, gene_counts, n_counts, n_genes, totals.agreed()), bits


class _Range:
    """Smallest and largest sum of expm1 values over the cells that have any."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, 0.0

    def add(self, block: csr_matrix) -> None:
        back = csr_matrix((np.expm1(block.data.astype(np.float64)), block.indices, block.indptr), shape=block.shape)
        sums = np.asarray(back.sum(axis=1)).ravel()
        sums = sums[sums > 0]
        if len(sums):
            self.low, self.high = min(self.low, float(sums.min())), max(self.high, float(sums.max()))

    def agreed(self) -> float | None:
        return (self.low + self.high) / 2 if 0 < self.high <= 1.01 * self.low else None


def _attempt(
    candidate: Candidate,
    scale: Scale,
    table: CellTable,
    rows: Rows,
    findings: dict[str, Finding],
    progress: Callable[[str], Progress],
) -> Scan | None:
    """A pass, or None with a finding when the values do not fit."""
    verb = "checking" if scale in ("counts", "normalised") else "recovering counts from"
    line = progress(f"{verb} {candidate.where}")
    try:
        scan, bits = scan_counts(candidate, scale, line)
    except NotCounts as error:
        if scale not in _RECOVERABLE or error.what != "fraction":
            findings[candidate.where] = _describe(candidate, error, table, rows)
        return None
    if not scan.gene_counts.any():
        findings[candidate.where] = Finding(candidate.where, "empty", f"{candidate.where} holds nothing above zero")
        return None
    if bits < MIN_EVIDENCE_BITS:
        return None
    line.finish()
    return scan


def _describe(candidate: Candidate, error: NotCounts, table: CellTable, rows: Rows) -> Finding:
    row = rows[error.row]
    gene = candidate.match.names[error.column]
    if candidate.match.gene_key is not None:
        gene = f"{gene} ({table.genes(candidate.where).index[error.column]})"
    what = {
        "negative": f"the negative value {error.value:g}",
        "nan": "NaN",
        "infinite": "an infinite value",
        "fraction": f"the non-integral value {error.value:g}",
    }[error.what]
    cell = table.cell_ids(np.array([row]))[0]
    return Finding(candidate.where, error.what, f"{candidate.where} has {what} in row {row} (cell {cell}), gene {gene}")


def _passed_over(findings: dict[str, Finding]) -> list[str]:
    return [f"{finding.where} was passed over: {finding.clause}." for finding in findings.values()]


def _no_counts(table: CellTable, findings: Sequence[Finding]) -> str:
    fractional = any(finding.what == "fraction" for finding in findings)
    clauses = "; ".join(finding.clause for finding in findings)
    tried = {finding.where for finding in findings}
    others = [name for name in table.matrices if name not in tried]
    advice = [f"set data.counts to another matrix ({', '.join(others)})"] if others else []
    if fractional:
        advice.append("set data.allow_normalised: true to use values that are not counts")
    if not advice:
        advice.append("correct the file")
    no_integers = " and counts cannot be recovered from it" if fractional and len(findings) == 1 else ""
    return f"{table.path} holds no usable counts: {clauses}{no_integers}; {' or '.join(advice)}"
