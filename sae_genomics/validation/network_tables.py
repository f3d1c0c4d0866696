"""The tables on networks of a layer: each unit's top genes in each channel of each network, beside chance."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.artifacts import FEATURE_GENES, FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.file_keys import expanded
from sae_genomics.run import Run
from sae_genomics.validation.background import FEATURES, token_column
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.interactions import Interactions, load_networks
from sae_genomics.validation.listed import (
    GeneIndex,
    gene_index,
    permutations_within,
    read_genes,
    read_lists,
)
from sae_genomics.validation.network import (
    Drawn,
    Network,
    Within,
    beside_draws,
    clusters_of,
    edges_within,
    expected_by_degree,
    network_over,
)
from sae_genomics.validation.nulls import MATCHED

NULL_REPEATS = 2  # at most: each costs as much as the lists themselves
_TABLES = (FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS)


@dataclass(frozen=True)
class Channel:
    """One channel of a network over a background. symbols: as the data spells them, of the genes that the network knows.

    known: positions of these genes in the background.
    """

    database: str
    name: str
    symbols: npt.NDArray[np.object_]
    known: npt.NDArray[np.int64]
    network: Network


@dataclass(frozen=True)
class Measured:
    """Lists in one channel. lists: csr [units, known genes], only units with two genes or more. unit: int64 [units].

    observed: int64, pairs within each. expected: float64, by degree. q_value: float64, over all channels. All [units].
    """

    channel: Channel
    unit: npt.NDArray[np.int64]
    lists: sparse.csr_matrix
    within: Within
    observed: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    drawn: Drawn
    q_value: npt.NDArray[np.float64]


def write_network(run: Run, layer: int) -> None:
    """Leave feature_network.parquet, network_edges.parquet and network_nulls.parquet of the layer.

    Without a network, or where it knows none of the genes, all three are without rows, with the reason as their note.
    Raises UserError for a network that cannot be read.
    """
    settings, folder = run.config.validation, run.layer_results(layer)
    weights = FEATURE_GENES.weights(folder / FEATURE_GENES.file)
    networks = load_networks(settings.network, expanded(run.config.paths.databases), settings.min_score)
    genes = read_genes(folder)
    channels = _channels(networks, gene_index(genes, FEATURES, run.config))
    nothing = _nothing(run, networks, channels)
    if nothing:
        for table in _TABLES:
            table.write(folder / table.file, table.schema.empty_table().to_pandas(), note=nothing, weights=weights)
        return
    known: dict[str, tuple[GeneIndex, list[Channel]]] = {}
    nulls: list[dict[str, object]] = []
    found: list[Measured] = []
    for units in (FEATURES, *settings.baselines):
        column = token_column(units, genes)
        if column not in known:
            index = gene_index(genes, units, run.config)
            known[column] = index, _channels(networks, index)
        index, channels = known[column]
        lists = read_lists(folder, units, index, run.config)
        measured = with_q([measured_in(run, layer, lists, channel) for channel in channels])
        nulls += _null_rows(units, units, 0, measured, settings.fdr)
        for repeat, again in enumerate(_matched(run, layer, lists, channels)):
            nulls += _null_rows(MATCHED, units, repeat, again, settings.fdr)
        found = measured if units == FEATURES else found
    FEATURE_NETWORK.write(folder / FEATURE_NETWORK.file, feature_network(found), weights=weights)
    NETWORK_EDGES.write(folder / NETWORK_EDGES.file, network_edges(found, settings.fdr), weights=weights)
    NETWORK_NULLS.write(folder / NETWORK_NULLS.file, pd.DataFrame(nulls), weights=weights)


def _nothing(run: Run, networks: list[Interactions], channels: list[Channel]) -> str:
    """Why there is nothing to compare with; empty where there is."""
    if not networks:
        if run.config.validation.network == []:
            return "validation.network is empty"
        return (
            f"no network is in {run.config.paths.databases}; fetch one with scripts/download_databases.py --only string"
        )
    if not channels:
        return (
            "the networks know no two genes that can be listed; set data.symbol_key to the var column of gene symbols, or "
            "validation.min_score of the network lower"
        )
    return ""


def _channels(networks: list[Interactions], index: GeneIndex) -> list[Channel]:
    """Every channel that has a pair of genes that can be listed."""
    found = []
    for each in networks:
        place = index.positions(each.symbols)
        known = np.unique(place[place >= 0])
        among_known = np.where(place >= 0, np.searchsorted(known, place), -1)
        for name, pairs in each.channels.items():
            network = network_over(pairs, among_known, index.tokens[known], index.expression[known])
            if network.upper.nnz:
                found.append(Channel(each.name, name, index.symbols[known], known, network))
    return found


def measured_in(run: Run, layer: int, lists: GeneLists, channel: Channel, *also: int) -> Measured:
    """Lists in one channel, q_value not known yet. also: whole numbers that tell the draws of this call from those of others."""
    matrix = lists.matrix[:, channel.known].tocsr()
    enough = np.flatnonzero(np.diff(matrix.indptr) >= 2)
    matrix = matrix[enough]
    within = edges_within(matrix, channel.network.upper)
    observed = np.bincount(within.row, minlength=len(enough))
    seed = [run.config.run.seed, layer, _number(channel), *also]
    drawn = beside_draws(matrix, observed, channel.network, run.config.validation.network_draws, seed)
    expected = expected_by_degree(matrix, channel.network)
    unknown = np.full(len(enough), np.nan)
    return Measured(channel, lists.unit[enough], matrix, within, observed, expected, drawn, unknown)


def with_q(measured: list[Measured]) -> list[Measured]:
    """The same with q_value over all of them."""
    q = benjamini_hochberg(np.concatenate([each.drawn.p_value for each in measured]))
    bounds = np.cumsum([len(each.unit) for each in measured])[:-1]
    return [replace(each, q_value=part) for each, part in zip(measured, np.split(q, bounds), strict=True)]


def _number(channel: Channel) -> int:
    return zlib.crc32(f"{channel.database} {channel.name}".encode())


def _matched(run: Run, layer: int, lists: GeneLists, channels: list[Channel]) -> Iterator[list[Measured]]:
    """The same with each list's genes drawn anew, in each channel among genes that are alike there."""
    for repeat in range(min(NULL_REPEATS, run.config.validation.shuffles)):
        yield with_q(
            [
                measured_in(run, layer, _renamed(run, layer, repeat, lists, channel), channel, repeat + 1)
                for channel in channels
            ]
        )


def _renamed(run: Run, layer: int, repeat: int, lists: GeneLists, channel: Channel) -> GeneLists:
    seed = np.random.SeedSequence([run.config.run.seed, layer, repeat, _number(channel), zlib.crc32(b"lists")])
    (name,) = permutations_within(channel.network.bins, 1, np.random.default_rng(seed))
    matrix = lists.matrix.copy()
    new = np.arange(matrix.shape[1])
    new[channel.known] = channel.known[name]
    matrix.indices = new[matrix.indices].astype(matrix.indices.dtype)
    matrix.has_sorted_indices = False
    return GeneLists(lists.unit, matrix)


def _null_rows(source: str, units: str, repeat: int, measured: list[Measured], fdr: float) -> list[dict[str, object]]:
    """Rows of network_nulls.parquet."""
    rows: list[dict[str, object]] = []
    for each in measured:
        n_units, n_found = len(each.unit), int((each.q_value < fdr).sum())
        rows.append(
            {
                "source": source, "units": units, "database": each.channel.database, "channel": each.channel.name,
                "repeat": repeat, "n_units": n_units, "n_found": n_found, "share": n_found / n_units if n_units else np.nan,
                "n_edges": int(each.observed.sum()), "n_expected": float(each.drawn.expected.sum()),
            }
        )  # fmt: skip
    return rows


def feature_network(measured: list[Measured]) -> pd.DataFrame:
    """The rows of feature_network.parquet, by feature, then network and channel."""
    parts = [_of_channel(each) for each in measured]
    return pd.concat(parts).sort_values("feature", kind="stable", ignore_index=True)


def _of_channel(each: Measured) -> pd.DataFrame:
    drawn = each.drawn
    rows = pd.DataFrame(
        {
            "feature": each.unit.astype(np.int32), "database": each.channel.database, "channel": each.channel.name,
            "n_genes": np.diff(each.lists.indptr), "n_edges": each.observed, "expected_degree": each.expected,
            "expected_matched": drawn.expected, "ratio": (each.observed + 0.5) / (drawn.expected + 0.5),
            "n_draws": drawn.n_draws, "p_value": drawn.p_value, "q_value": each.q_value,
        }
    )  # fmt: skip
    clusters = clusters_of(each.within, len(each.channel.symbols))
    genes = pd.DataFrame({"row": clusters.row, "label": clusters.label, "gene": each.channel.symbols[clusters.gene]})
    groups = genes.groupby(["row", "label"], sort=False)["gene"].agg(["size", ",".join]).reset_index()
    by_row = groups.groupby("row").agg(n=("size", "size"), largest=("size", "max"), text=("join", ";".join))
    by_row = by_row.reindex(range(len(rows)))
    rows["n_clusters"] = by_row["n"].fillna(0).to_numpy(np.int32)
    rows["largest_cluster"] = by_row["largest"].fillna(0).to_numpy(np.int32)
    rows["clusters"] = by_row["text"].fillna("").to_numpy(object)
    return rows


def network_edges(measured: list[Measured], fdr: float) -> pd.DataFrame:
    """The rows of network_edges.parquet, by feature, then network and channel."""
    parts = []
    for each in measured:
        shown = (each.q_value < fdr)[each.within.row]
        ends = [each.channel.symbols[side[shown]] for side in (each.within.first, each.within.second)]
        parts.append(
            pd.DataFrame(
                {
                    "feature": each.unit[each.within.row[shown]].astype(np.int32), "database": each.channel.database,
                    "channel": each.channel.name, "gene_a": ends[0], "gene_b": ends[1], "score": each.within.score[shown],
                }
            )
        )  # fmt: skip
    return pd.concat(parts).sort_values("feature", kind="stable", ignore_index=True)
