"""Features without a name that are still no accident: a second seed finds them again, and they say something of held-out items.

Found again: the partner in the second seed's SAE is the latent whose activations go with the feature's best on every second item; the correlation
counts on the other items. Chance: the largest of draws in which the partner's tokens are permuted within their unit, so that a feature which is no more
than a unit is not above it. The cosine of both decoder directions counts too; chance: the largest cosine of random directions with the second seed's latents. The random
directions are as many as the features and have the second moments of those latents.

Says something: the label that the feature tells apart best on training items (table of labels), with its AUROC on held-out items, interval and q.

Candidates are clustered by the units that they share (Jaccard index of their top units, Leiden).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import coo_matrix, csr_matrix

from sae_genomics.artifacts import FEATURE_CONCEPTS, FEATURE_NAMES, ITEM_NAMES, LayerTables
from sae_genomics.artifacts.modules import NOVELTY
from sae_genomics.artifacts.names import UNNAMED
from sae_genomics.associations.accumulators import layer_tables
from sae_genomics.cross_layer.activations import LayerActivations, SparseRows, load_both
from sae_genomics.cross_layer.coactivation import as_matrix
from sae_genomics.cross_layer.communities import leiden
from sae_genomics.cross_layer.correlations import Features, permuted_within
from sae_genomics.kernels.cross_products import best_correlations
from sae_genomics.progress import stop_point
from sae_genomics.run import Run

_DRAWS = 19
_LEAST_JACCARD = 0.2
_MANY_UNITS = 100  # genes are that many, amino acids are not
_TOP_UNITS = (10, 3)

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Again:
    """Each feature's partner in a second seed. partner: int64, -1: none. correlation: on items that did not choose it. chance: largest of the draws."""

    partner: Int64
    correlation: Floats
    chance: Floats


def found_again(
    first: csr_matrix, second: csr_matrix, unit: npt.NDArray[np.integer], item: Int64, rng: np.random.Generator
) -> Again:
    """first, second: [tokens, features] of both seeds. unit, item: int [tokens]."""
    chooses = np.unique(item, return_inverse=True)[1] % 2 == 0
    ours, theirs = ((each[chooses], each[~chooses]) for each in (first, second))

    one, other = _features(ours[0]), _features(theirs[0])
    order = np.arange(ours[0].shape[0])
    best, _ = best_correlations(one.by_feature, other.by_token, order, (one.moments, other.moments), 1)
    partner = best[:, 0].astype(np.int64)
    scoring = np.asarray(unit)[~chooses]
    chance = np.zeros(len(partner))
    for _ in range(_DRAWS):
        stop_point()
        by_lot = theirs[1][permuted_within(scoring, rng)]
        chance = np.maximum(chance, paired_correlations(ours[1], by_lot, partner))
    return Again(partner, paired_correlations(ours[1], theirs[1], partner), chance)


def _features(rows: csr_matrix) -> Features:
    return Features.of(
        SparseRows(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32)),
        rows.shape[1],
    )


def paired_correlations(first: csr_matrix, second: csr_matrix, partner: Int64) -> Floats:
    """Correlation of each feature with its partner: float64 [features]; 0 without a partner, or where one of both never varies."""
    n = first.shape[0]
    has = partner >= 0
    found = np.zeros(len(partner))
    if not n or not has.any():
        return found
    x, y = (csr_matrix(each, dtype=np.float64) for each in (first.tocsc()[:, has], second.tocsc()[:, partner[has]]))
    means = [np.asarray(each.mean(axis=0)).ravel() for each in (x, y)]
    squares = [np.asarray(each.multiply(each).mean(axis=0)).ravel() for each in (x, y)]
    spread = np.sqrt(np.prod([np.maximum(s - m**2, 0.0) for s, m in zip(squares, means, strict=True)], axis=0))
    shared = np.asarray(x.multiply(y).mean(axis=0)).ravel() - means[0] * means[1]
    found[has] = np.divide(shared, spread, out=np.zeros(has.sum()), where=spread > 1e-12)
    return found


def seed_cosines(
    first: torch.Tensor, second: torch.Tensor, partner: Int64, generator: np.random.Generator
) -> tuple[Floats, float]:
    """Cosine of each decoder direction with its partner's, NaN without one; and the largest that random directions reach.

    first, second: [features, d_in].
    """
    ours, theirs = (torch.nn.functional.normalize(each.float().cpu(), dim=1).numpy() for each in (first, second))
    found = np.full(len(partner), np.nan)
    has = partner >= 0
    found[has] = np.einsum("ij,ij->i", ours[has], theirs[partner[has]])
    moments = theirs.astype(np.float64).T @ theirs / len(theirs)
    values, vectors = np.linalg.eigh(moments)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
    largest = 0.0
    for start in range(0, len(ours), 1024):
        n = min(1024, len(ours) - start)
        drawn = generator.standard_normal((n, root.shape[1])).astype(np.float32) @ root.T
        drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
        largest = max(largest, float((drawn @ theirs.T).max()))
    return found, largest


def clusters(units: list[frozenset[str]], seed: int) -> Int64:
    """Number of each set's cluster: sets that share at least a fifth of their members are neighbours. int64 [sets]."""
    if not units:
        return np.zeros(0, np.int64)
    names, code = np.unique([name for each in units for name in sorted(each)] or [""], return_inverse=True)
    size = np.array([len(each) for each in units])
    member = csr_matrix(
        (np.ones(size.sum()), (np.repeat(np.arange(len(units)), size), code[: size.sum()])),
        shape=(len(units), len(names)),
    )
    shared = coo_matrix(member @ member.T)
    jaccard = shared.data / (size[shared.row] + size[shared.col] - shared.data)
    used = (shared.row < shared.col) & (jaccard >= _LEAST_JACCARD)
    return leiden(len(units), shared.row[used], shared.col[used], jaccard[used], 1.0, seed)


def write_novelty(run: Run, taken: LayerActivations) -> None:
    """Leave novelty.parquet; without rows, and with the reason as its note, where no second seed was trained.

    taken: held-out items.
    """
    path = run.results / "cross_layer" / NOVELTY.file
    if not taken.second:
        reason = (
            "no SAE of a second seed is there: set sae.stability to true"
            if run.config.sae.from_ is None
            else "no SAE of a second seed is there, and published ones (sae.from) have none"
        )
        NOVELTY.write(path, NOVELTY.schema.empty_table().to_pandas(), note=reason)
        return
    parts = [_layer(run, layer, taken) for layer in run.layers if layer in taken.second]
    table = pd.concat([part for part, _ in parts], ignore_index=True)
    tops = [frozenset(each) for _, lists in parts for each in lists]
    chosen = np.flatnonzero(table["candidate"])
    table["cluster"] = pd.array([None] * len(table), dtype="Int32")
    seed = int(np.random.SeedSequence([run.config.run.seed, zlib.crc32(b"cross_layer novelty")]).generate_state(1)[0])
    table.loc[chosen, "cluster"] = clusters([tops[row] for row in chosen], seed % (1 << 30))
    untested = table["predicts"].isna().all() and len(table)
    note = (
        "no label tells whether a feature says something of items: no feature can be a candidate" if untested else None
    )
    NOVELTY.write(path, table, note=note)


def _layer(run: Run, layer: int, taken: LayerActivations) -> tuple[pd.DataFrame, list[list[str]]]:
    """The layer's features without a name, without cluster; and the top units of each."""
    stop_point()
    rng = np.random.default_rng(
        np.random.SeedSequence([run.config.run.seed, zlib.crc32(b"cross_layer novelty"), layer])
    )
    encoder, other = load_both(run, layer, torch.device("cpu"))
    assert other is not None
    first = as_matrix(taken.layers[layer], encoder.d_sae)
    again = found_again(first, as_matrix(taken.second[layer], other.d_sae), taken.unit, taken.item, rng)
    cosine, chance = seed_cosines(encoder.W_dec, other.W_dec, again.partner, rng)
    live = np.diff(first.tocsc().indptr) > 0
    features = np.flatnonzero(live & ~_annotated(run, layer, encoder.d_sae))
    tables = layer_tables(run)
    tops = _top_units(run, layer, tables, features, _TOP_UNITS[taken.n_units < _MANY_UNITS])
    match = (again.correlation > again.chance) & (np.nan_to_num(cosine, nan=-1.0) > chance)
    table = pd.DataFrame(
        {
            "layer": layer, "feature": features, "seed_feature": again.partner[features], "seed_correlation": again.correlation[features],
            "chance_correlation": again.chance[features], "seed_cosine": cosine[features], "chance_cosine": chance, "seed_match": match[features],
            "units": [", ".join(each) for each in tops],
        }
    )  # fmt: skip
    table = table.merge(_predictions(run, layer, tables), on="feature", how="left")
    says = (table["q_value"] < run.config.validation.fdr) & (table["auroc_low"] > 0.5)
    return table.assign(candidate=table["seed_match"] & says.fillna(False).astype(bool)), tops


def _annotated(run: Run, layer: int, d_sae: int) -> npt.NDArray[np.bool_]:
    """Features that have a name, or find a concept: bool [features]."""
    found, folder = np.zeros(d_sae, dtype=np.bool_), run.layer_results(layer)
    if (folder / FEATURE_NAMES.file).exists():
        names = FEATURE_NAMES.read(folder / FEATURE_NAMES.file, ["feature", "name"])
        found[names.loc[names["name"] != UNNAMED, "feature"]] = True
    if (folder / FEATURE_CONCEPTS.file).exists():
        concepts = FEATURE_CONCEPTS.read(folder / FEATURE_CONCEPTS.file, ["feature", "q_value"])
        found[concepts.loc[concepts["q_value"] < run.config.validation.fdr, "feature"]] = True
    return found


def _predictions(run: Run, layer: int, tables: LayerTables) -> pd.DataFrame:
    """Per feature the label of highest AUROC on training items, with what held-out items say."""
    path = run.layer_results(layer) / tables.feature_labels.file
    columns = ["feature", "predicts", "auroc", "auroc_low", "auroc_high", "q_value"]
    if not path.exists():
        return pd.DataFrame(columns=columns).astype({"feature": np.int64, "predicts": object})
    table = tables.feature_labels.read(path).rename(columns=ITEM_NAMES).rename(columns={"label": "predicts"})
    best = table.sort_values("auroc_train", ascending=False, kind="stable").drop_duplicates("feature")
    return best[columns]


def _top_units(run: Run, layer: int, tables: LayerTables, features: Int64, n: int) -> list[list[str]]:
    path = run.layer_results(layer) / tables.feature_units.file
    if not path.exists():
        return [[] for _ in features]
    table = tables.feature_units.read(path).rename(columns=ITEM_NAMES)
    table = table[table["rank_specificity"] <= n].sort_values(["feature", "rank_specificity"], kind="stable")
    listed = table.groupby("feature")["unit_name"].agg(list)
    return [[str(name) for name in listed.get(feature, [])] for feature in features.tolist()]
