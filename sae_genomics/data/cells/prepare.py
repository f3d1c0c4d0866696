"""Stage prepare: what is read, how genes match, which cells are held out, what the run will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.artifacts import CELLS, GENES
from sae_genomics.associations.baseline_costs import baseline_costs, sentence
from sae_genomics.atomic import atomic_path, write_json
from sae_genomics.data import plan
from sae_genomics.data.cells.by_rows import record_file
from sae_genomics.data.cells.genes import match_genes, units_of
from sae_genomics.data.cells.groups import group_notes, read_groups
from sae_genomics.data.cells.h5ad import BUILTIN, CellTable
from sae_genomics.data.cells.matrix import Rows, StoredMatrix
from sae_genomics.data.cells.row_copy import copy_file, open_by_rows
from sae_genomics.data.cells.scan import Candidate, Scan, candidate_names, find_counts
from sae_genomics.data.cells.settings import cells_section
from sae_genomics.data.groups import Groups
from sae_genomics.data.labelled import tell_groups
from sae_genomics.data.plan_file import PLAN_VERSION
from sae_genomics.data.prepared import (
    check_room,
    heartbeat,
    nothing_left_on_failure,
    tell_costs,
    tell_sampling,
)
from sae_genomics.data.split import choose_items, split_items
from sae_genomics.data.token_counts import TokenCounts
from sae_genomics.errors import UserError
from sae_genomics.models import check_model, gene_symbols, tokeniser_settings, vocabulary
from sae_genomics.progress import Progress, say

if TYPE_CHECKING:
    from sae_genomics.run import Run

_KIND = {"counts": "counts", "log1p_counts": "recovered", "log1p_normalised": "recovered", "normalised": "normalised"}
_CELLS_AT_ONCE = 1 << 20


def prepare_cells(run: Run) -> None:
    """Leave genes.parquet, cells.parquet, units.parquet and plan.json. Everything is checked before anything is written.

    Raises UserError for every fault of the input, config or disk that can be known before the model runs.
    """
    data, copy = cells_section(run.config), copy_file(run)
    with CellTable(run.data_file) as table:
        cell_type_key, notes = _cell_type_key(data.cell_type_key, table)
        notes += [known.note] if (known := BUILTIN.get(data.path)) is not None and known.note else []
        if run.config.model.drug_key is not None:
            table.column(run.config.model.drug_key, "model.drug_key")
        rows = choose_items(table.n_cells, data.max_cells, run.config.run.seed)
        labels = None if cell_type_key is None else table.column(cell_type_key, "data.cell_type_key")[rows]
        groups = read_groups(data, table, rows, cell_type_key)
        heldout = split_items(
            len(rows), labels, data.heldout_fraction, run.config.run.seed, None if groups is None else groups.name
        )
        notes += group_notes(groups, heldout, data, table.obs_columns)
        candidate_names(data.counts, table)  # faults of the file show before a model is downloaded
        check_model(run.pinned_model, run.config.paths.cache)
        vocabulary_ids = vocabulary(run.pinned_model, run.config.paths.cache)
        with nothing_left_on_failure([copy, record_file(copy), heartbeat(run)]):
            scan, count_notes = find_counts(
                _candidates(run, table, vocabulary_ids, rows),
                table,
                rows,
                data.allow_normalised,
                _progress(run, len(rows)),
            )
            tokens = _token_counts(run, scan)
            n_cell_types = 0 if labels is None else int(pd.Series(labels).nunique())
            work = plan.workload(
                run, tokens,
                n_units=len(scan.candidate.match.tokens), n_gene_values=int(scan.n_genes.sum()), n_cell_types=n_cell_types,
                train_tokens=int(scan.n_genes[~heldout].sum()),
            )  # fmt: skip
            estimates = check_room(run, work, tokens)
        notes = [*count_notes, *scan.candidate.match.notes, *notes, *_cell_notes(scan)]
        genes = _genes(scan)
        GENES.write(run.genes_file, genes)
        units_of(genes).write(run.units_file)
        _write_cells(run, table, rows, heldout, labels, groups, scan)
        baselines = baseline_costs(work)
        content = _plan(run, table, scan, heldout, cell_type_key, tokens, estimates, notes)
        content["baselines"] = [asdict(cost) for cost in baselines]
        if groups is not None:
            content |= {"group_key": groups.key, **groups.numbers(heldout)}
        write_json(run.plan_file, content)
    _tell(content)
    tell_costs(content, work)
    say(f"prepare: {sentence(baselines)}")
    tell_sampling(run, tokens, work)


def _cell_type_key(key: str | None, table: CellTable) -> tuple[str | None, list[str]]:
    if key is None and "cell_type" in table.obs_columns:
        return "cell_type", []
    if key is None:
        columns = ", ".join(table.obs_columns[:20])
        hint = f" (obs has {columns})" if columns else ""
        return None, [f"No annotation of cells: data.cell_type_key names an obs column{hint}."]
    if key not in table.obs_columns:
        table.column(key, "data.cell_type_key")
    return key, []


def _candidates(run: Run, table: CellTable, vocabulary_ids: dict[str, int], rows: Rows) -> list[Candidate]:
    """The matrices that may hold counts and whose genes match. Raises UserError when those of none do."""
    data = cells_section(run.config)
    symbols = gene_symbols(run.pinned_model, run.config.paths.cache)
    found: list[Candidate] = []
    refusal: UserError | None = None
    for where in candidate_names(data.counts, table):
        source = str(table.path) if where == "X" else f"{table.path} ({where})"
        table.matrix(where)
        try:
            match = match_genes(table.genes(where), vocabulary_ids, data.gene_key, data.symbol_key, source, symbols)
        except UserError as error:
            refusal = refusal or error
            continue
        found.append(Candidate(where, match, _opener(run, table, where, rows)))
    if not found:
        assert refusal is not None
        raise refusal
    return found


def _opener(run: Run, table: CellTable, where: str, rows: Rows) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[tuple[StoredMatrix, Rows]]:
        with open_by_rows(run, table, where, lambda: rows) as (matrix, is_copy):
            yield matrix, np.arange(len(rows), dtype=np.int64) if is_copy else rows

    return opened


def _progress(run: Run, n_cells: int) -> Callable[[str], Progress]:
    return lambda label: Progress(f"prepare: {label}", n_cells, "cells", heartbeat(run))


def _token_counts(run: Run, scan: Scan) -> TokenCounts:
    """Genes above zero, as many as the model takes beside its special tokens and the drug."""
    settings = tokeniser_settings(run.pinned_model, run.config.paths.cache)
    n_special = settings.n_special + (run.config.model.drug_key is not None)
    genes = np.minimum(scan.n_genes.astype(np.int64), settings.max_length - n_special)
    return TokenCounts(run, genes, np.maximum(genes + n_special, 1), n_special)


def _cell_notes(scan: Scan) -> list[str]:
    empty = int((scan.n_genes == 0).sum())
    return [f"Cells without any gene that the model knows: {empty:,}; they have no gene tokens."] if empty else []


def _genes(scan: Scan) -> pd.DataFrame:
    match = scan.candidate.match
    return pd.DataFrame(
        {
            "column": np.arange(len(match.token), dtype=np.int64),
            "gene_id": match.names,
            "gene_symbol": match.symbols,
            "token": match.token,
            "counts": scan.gene_counts,
        }
    )


def _write_cells(
    run: Run,
    table: CellTable,
    rows: Rows,
    heldout: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.object_] | pd.Categorical | None,
    groups: Groups | None,
    scan: Scan,
) -> None:
    """cells.parquet, a part at a time: the names of an atlas's cells would not fit in memory."""
    with (
        atomic_path(run.cells_file) as temporary,
        pq.ParquetWriter(temporary, CELLS.schema, compression="zstd") as writer,
    ):
        for first in range(0, len(rows), _CELLS_AT_ONCE):
            some = slice(first, min(first + _CELLS_AT_ONCE, len(rows)))
            frame = pd.DataFrame(
                {
                    "cell": rows[some],
                    "cell_id": table.cell_ids(rows[some]),
                    "heldout": heldout[some],
                    "cell_type": None if labels is None else np.asarray(labels[some], dtype=object),
                    "group": None if groups is None else np.asarray(groups.name[some], dtype=object),
                    "n_counts": scan.n_counts[some],
                    "n_genes": scan.n_genes[some],
                }
            )
            frame["cell_type"] = frame["cell_type"].astype(object).where(frame["cell_type"].notna(), None)
            writer.write_table(pa.Table.from_pandas(frame, schema=CELLS.schema, preserve_index=False))


def _plan(
    run: Run,
    table: CellTable,
    scan: Scan,
    heldout: npt.NDArray[np.bool_],
    cell_type_key: str | None,
    tokens: TokenCounts,
    estimates: list[plan.Estimate],
    notes: list[str],
) -> dict[str, Any]:
    match = scan.candidate.match
    matched = match.token >= 0
    shards = [{**shard, "cells": shard["items"]} for shard in tokens.shards()]
    return {
        "format_version": PLAN_VERSION,
        "kind": run.kind.name,
        "counts": {
            "where": scan.candidate.where,
            "kind": _KIND[scan.form.scale],
            "scale": scan.form.scale,
            "decimals": scan.form.decimals,
            "target_sum": scan.target_sum,
        },
        "gene_key": match.gene_key,
        "symbol_key": match.symbol_key,
        "cell_type_key": cell_type_key,
        "n_items": len(heldout),
        "n_items_input": table.n_cells,
        "n_cells": len(heldout),
        "n_cells_input": table.n_cells,
        "n_heldout": int(heldout.sum()),
        "n_genes_input": len(matched),
        "n_genes_matched": match.n_matched,
        "share_genes_matched": match.n_matched / len(matched),
        "share_counts_matched": float(scan.gene_counts[matched].sum() / scan.gene_counts.sum()),
        "shards": shards,
        "n_tokens": int(tokens.stored.sum()),
        "n_tokens_read": tokens.read,
        "estimates": plan.as_dicts(estimates),
        "notes": notes,
        "obsm": table.obsm_names,
    }


def _tell(content: dict[str, Any]) -> None:
    """The plan in a few lines."""
    counts = {"counts": "counts", "recovered": "counts recovered", "normalised": "normalised values"}
    say(
        f"prepare: {content['n_cells']:,} cells, {content['n_heldout']:,} of them held out; "
        f"{counts[content['counts']['kind']]} from {content['counts']['where']}"
    )
    tell_groups(content)
    say(
        f"prepare: {content['n_genes_matched']:,} of {content['n_genes_input']:,} genes matched "
        f"({content['share_genes_matched']:.1%}), {content['share_counts_matched']:.1%} of the counts"
    )
