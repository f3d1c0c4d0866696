"""The tables on regulons of a layer: units beside the targets of factors, and pairs of genes beside known pairs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import FEATURE_GENES, FEATURE_REGULONS, REGULON_EDGES, REGULON_NULLS
from sae_genomics.file_keys import expanded
from sae_genomics.run import Run
from sae_genomics.validation import regulon_edges
from sae_genomics.validation.background import FEATURES, matched_bins, token_column
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.interactions import Interactions, load_regulons
from sae_genomics.validation.listed import (
    RANKED_COLUMNS,
    GeneIndex,
    gene_index,
    read_genes,
    read_lists,
    unit_table,
)
from sae_genomics.validation.nulls import MATCHED, shuffled_within
from sae_genomics.validation.regulon_edges import HELD_OUT, STRENGTHS, TUNING, Candidates, Recovery
from sae_genomics.validation.regulons import KEPT_P, Found, Regulons, find, regulons_over
from sae_genomics.validation.rewiring import rewirings

REWIRED = "rewired"
_TABLES = (FEATURE_REGULONS, REGULON_NULLS, REGULON_EDGES)


@dataclass(frozen=True)
class Database:
    """The regulons of one database over a background.

    pairs: factor, factor_gene, target, sign, see `regulons_over`; also those that are too small to be tested.
    """

    name: str
    index: GeneIndex
    pairs: pd.DataFrame
    regulons: Regulons


def write_regulons(run: Run, layer: int) -> None:
    """Leave feature_regulons.parquet, regulon_nulls.parquet and regulon_edges.parquet of the layer.

    Without regulons, or where none fits the data, all three are without rows, with the reason as their note.
    Raises UserError for regulons that cannot be read.
    """
    settings, folder = run.config.validation, run.layer_results(layer)
    weights = FEATURE_GENES.weights(folder / FEATURE_GENES.file)
    read = load_regulons(settings.regulons, expanded(run.config.paths.databases))
    genes = read_genes(folder)
    known = {token_column(FEATURES, genes): _databases(run, read, gene_index(genes, FEATURES, run.config))}
    nothing = _nothing(run, read, known[token_column(FEATURES, genes)])
    if nothing:
        for table in _TABLES:
            table.write(folder / table.file, table.schema.empty_table().to_pandas(), note=nothing, weights=weights)
        return
    features, nulls, edges = [], [], []
    for units in (FEATURES, *settings.baselines):
        column = token_column(units, genes)
        if column not in known:
            known[column] = _databases(run, read, gene_index(genes, units, run.config))
        for database in known[column]:
            lists = read_lists(folder, units, database.index, run.config)
            if units == FEATURES:
                ranked = unit_table(units).read(folder / unit_table(units).file, RANKED_COLUMNS)
                rank = _ranks(ranked, database.index, settings.rank_by)
                features.append(feature_regulons(lists, find(lists, database.regulons, KEPT_P), database, rank))
            nulls += list(_null_rows(run, layer, units, lists, database))
            edges += list(_edge_rows(run, layer, units, database))
    FEATURE_REGULONS.write(folder / FEATURE_REGULONS.file, pd.concat(features), weights=weights)
    REGULON_NULLS.write(folder / REGULON_NULLS.file, pd.DataFrame(nulls), weights=weights)
    REGULON_EDGES.write(folder / REGULON_EDGES.file, pd.DataFrame(edges), weights=weights)


def _nothing(run: Run, read: list[Interactions], databases: list[Database]) -> str:
    """Why there is nothing to test; empty where there is."""
    settings = run.config.validation
    if not read:
        if settings.regulons == []:
            return "validation.regulons is empty"
        return f"no regulons are in {run.config.paths.databases}; fetch them with scripts/download_databases.py --only trrust"
    if not databases:
        return (
            f"no transcription factor has {settings.min_set_size} to {settings.max_set_size} targets that can be listed; set "
            "data.symbol_key to the var column of gene symbols, or validation.min_set_size lower"
        )
    return ""


def _databases(run: Run, read: list[Interactions], index: GeneIndex) -> list[Database]:
    """Those with a factor that has enough targets."""
    settings, found = run.config.validation, []
    bins = matched_bins(index.tokens, index.expression)
    for each in read:
        place = index.positions(each.symbols)
        universe = np.zeros(len(index.background), dtype=np.bool_)
        universe[place[place >= 0]] = True
        (pairs,) = each.channels.values() if each.channels else (None,)
        if pairs is None:
            continue
        rows = pd.DataFrame(
            {
                "factor": each.symbols[pairs.first], "factor_gene": place[pairs.first], "target": place[pairs.second],
                "sign": pairs.sign,
            }
        )  # fmt: skip
        spelt = rows["factor_gene"].to_numpy()
        rows["factor"] = np.where(spelt >= 0, np.append(index.symbols, "")[spelt], rows["factor"])
        regulons = regulons_over(rows, index.symbols, universe, bins, settings.min_set_size, settings.max_set_size)
        if len(regulons.factor):
            found.append(Database(each.name, index, rows, regulons))
    return found


def _ranks(genes: pd.DataFrame, index: GeneIndex, rank_by: str) -> pd.Series:
    """Rank of each listed gene: (feature, position in the background) -> rank."""
    place = index.positions(genes["gene_symbol"].to_numpy(object))
    rank = genes[f"rank_{rank_by}"].astype("float64")
    by_gene = pd.Series(rank.to_numpy(), pd.MultiIndex.from_arrays([genes["feature"].to_numpy(np.int64), place]))
    return by_gene.groupby(level=[0, 1]).min()


def feature_regulons(lists: GeneLists, found: Found, database: Database, rank: pd.Series) -> pd.DataFrame:
    """The rows of feature_regulons.parquet, by feature, then p."""
    tests, regulons = found.tests, database.regulons
    unit, gene = lists.unit[tests.row], regulons.gene[tests.term]
    ranks = rank.reindex(pd.MultiIndex.from_arrays([unit, gene])).to_numpy(np.float64)
    rows = pd.DataFrame(
        {
            "feature": unit.astype(np.int32), "database": database.name, "factor": regulons.factor[tests.term],
            "n_overlap": tests.n_overlap, "n_targets": tests.n_term, "n_top": tests.n_top, "n_background": tests.n_background,
            "odds_ratio": tests.odds_ratio()[0], "p_value": tests.p_value, "q_value": tests.q_source,
            "p_matched": found.matched.p, "q_matched": found.matched.q_source, "n_activated": found.activated,
            "n_repressed": found.repressed, "expected_activated": found.expected_activated, "p_sign": found.p_sign,
            "factor_rank": pd.array(np.where(found.own, ranks, np.nan), dtype="Int32"), "factor_chance": found.own_chance,
            "genes": _genes(lists, database, found),
        }
    )  # fmt: skip
    return rows.sort_values(["feature", "p_value"], kind="stable", ignore_index=True)


def _genes(lists: GeneLists, database: Database, found: Found) -> npt.NDArray[np.object_]:
    """Shared symbols of each test, comma-separated."""
    tests = found.tests
    shared = lists.matrix[tests.row].multiply(database.regulons.sets.matrix.T.tocsr()[tests.term]).tocsr()
    shared.sort_indices()
    row = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
    text = pd.Series(database.index.symbols[shared.indices]).groupby(row).agg(",".join)
    return text.reindex(range(shared.shape[0])).fillna("").to_numpy(object)


def _null_rows(run: Run, layer: int, units: str, lists: GeneLists, database: Database) -> Iterator[dict[str, object]]:
    """The rows of regulon_nulls.parquet: the lists as they are, then with gene names shuffled within bins."""
    settings, regulons = run.config.validation, database.regulons
    yield _null_row(units, units, 0, lists, database, find(lists, regulons, settings.fdr), settings.fdr)
    for repeat in range(settings.shuffles):
        seed = np.random.SeedSequence([run.config.run.seed, zlib.crc32(b"regulons"), layer, repeat])
        shuffled = regulons.shuffled(shuffled_within(regulons.sets.bins, np.random.default_rng(seed)))
        yield _null_row(MATCHED, units, repeat, lists, database, find(lists, shuffled, settings.fdr), settings.fdr)


def _null_row(
    source: str, units: str, repeat: int, lists: GeneLists, database: Database, found: Found, fdr: float
) -> dict[str, object]:
    shown = found.matched.q_source < fdr
    n_units, n_found = len(lists.unit), len(np.unique(found.tests.row[shown]))
    return {
        "source": source, "units": units, "database": database.name, "repeat": repeat, "n_units": n_units,
        "n_found": n_found, "share": n_found / n_units if n_units else np.nan, "n_tests": found.tests.n_tests,
        "n_pairs": int(shown.sum()), "n_factors": len(np.unique(found.tests.term[shown])),
        "n_own_factor": int(found.own[shown].sum()), "expected_own_factor": float(np.nansum(found.own_chance[shown])),
        "n_activated": int(found.activated[shown].sum()), "n_repressed": int(found.repressed[shown].sum()),
        "expected_activated": float(np.nansum(found.expected_activated[shown])),
    }  # fmt: skip


def _edge_rows(run: Run, layer: int, units: str, database: Database) -> Iterator[dict[str, object]]:
    """The rows of regulon_edges.parquet: each strength on the tuning factors, the best one on the others, and rewired."""
    table, index = unit_table(units), database.index
    genes = table.read(run.layer_results(layer) / table.file, RANKED_COLUMNS)
    place = index.positions(genes["gene_symbol"].to_numpy(object))
    halves = _halves(database)
    rows = {name: regulon_edges.gene_rows(genes, place, len(index.background), name) for name in STRENGTHS}
    best, highest = STRENGTHS[0], -np.inf
    for name in STRENGTHS:
        pairs = halves[TUNING]
        if not len(pairs.factor):
            break
        row = _edge_row(regulon_edges.recovery(rows[name], pairs), pairs, pairs.target)
        yield {**_named(units, units, database, TUNING, name, 0), **row}
        if row["auroc"] > highest:
            best, highest = name, float(row["auroc"])
    pairs = halves[HELD_OUT]
    if not len(pairs.factor):
        return
    found = regulon_edges.recovery(rows[best], pairs)
    yield {**_named(units, units, database, HELD_OUT, best, 0), **_edge_row(found, pairs, pairs.target)}
    seed = [run.config.run.seed, zlib.crc32(b"rewired")]  # the same networks for features and baselines
    swapped = rewirings(
        pairs.factor, pairs.target, pairs.own, len(pairs.targets), run.config.validation.rewirings, seed
    )
    for repeat, target in enumerate(swapped):
        yield {**_named(REWIRED, units, database, HELD_OUT, best, repeat), **_edge_row(found, pairs, target)}


def _halves(database: Database) -> dict[str, Candidates]:
    """The known pairs whose two genes can be listed, by the half of their factor."""
    pairs = database.pairs[(database.pairs["factor_gene"] >= 0) & (database.pairs["target"] >= 0)]
    half = regulon_edges.half_of(pairs["factor"].to_numpy(object))
    return {
        name: regulon_edges.candidates(*pairs.loc[half == name, ["factor_gene", "target"]].to_numpy(np.int64).T)
        for name in (TUNING, HELD_OUT)
    }


def _named(source: str, units: str, database: Database, factors: str, strength: str, repeat: int) -> dict[str, object]:
    return {
        "source": source, "units": units, "database": database.name, "factors": factors, "strength": strength,
        "repeat": repeat,
    }  # fmt: skip


def _edge_row(found: Recovery, pairs: Candidates, target: npt.NDArray[np.int64]) -> dict[str, float]:
    return {
        "n_factors": len(pairs.factors), "n_targets": len(pairs.targets), "n_pairs": found.n_pairs, "n_edges": found.n_known,
        "auroc": found.auroc(pairs.factor, target), "early_precision_ratio": found.early_precision_ratio(pairs.factor, target),
    }  # fmt: skip
