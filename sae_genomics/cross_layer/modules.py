"""Modules: features of one layer that fire in the same items, and whether they also do so in items that did not choose them.

Pairs and groups come from training items (coactivation.py, communities.py). A module's score comes from held-out items: pairs of its features that
are high together, beside tables with the same margins. Where nothing is held out, every second item takes their part.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_matrix

from sae_genomics.artifacts.modules import COACTIVATION, MODULE_SUMMARY, MODULES
from sae_genomics.artifacts.names import FEATURE_NAMES, UNNAMED
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.cross_layer.activations import LayerActivations, encode_sample, load_both, sample_tokens
from sae_genomics.cross_layer.coactivation import (
    High,
    Together,
    as_matrix,
    high_items,
    signed_g,
    together,
    usable_features,
)
from sae_genomics.cross_layer.communities import Groups, by_size, consensus_groups, leiden, modularity
from sae_genomics.cross_layer.margins import Floats, Strata, draws
from sae_genomics.data.units import Units
from sae_genomics.progress import stop_point
from sae_genomics.run import Run

MOST_PAIRS = 50_000  # of two layers, or of a layer with itself
HELDOUT_DRAWS = 199
UNITS_NAMED = 6
_AT_ONCE = 1 << 24  # items times pairs that are looked at together
_LEAST_FIRINGS = 3

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What modules are looked for with, see the section cross_layer. seed: of run and layer. n_heldout_draws: of the modules' scores."""

    features: int
    draws: int
    bootstraps: int
    resolutions: tuple[float, ...]
    seed: tuple[int, ...]
    n_heldout_draws: int = HELDOUT_DRAWS


@dataclass(frozen=True)
class Found:
    """Modules of one layer.

    features: int64 [n], those that were paired. pairs: by position among them. groups: of the positions that have a pair, `nodes`.
    rows: one row per module as in MODULE_SUMMARY, without layer, name, units, q_value and above_null.
    """

    features: Int64
    pairs: Together
    nodes: Int64
    groups: Groups | None
    rows: pd.DataFrame

    def label(self) -> Int64:
        """Module of each of `features`; -1: none."""
        label = np.full(len(self.features), -1, dtype=np.int64)
        if self.groups is not None:
            label[self.nodes] = self.groups.label
        return label


def find_modules(train: High, stratum: Strata, held: High, held_stratum: Strata, settings: Settings) -> Found:
    """Modules of one layer. stratum, held_stratum: int64, group of each training and held-out item."""
    features = usable_features(train.fires, settings.features)
    train = train.take(np.ones(len(stratum), bool), features)
    held = held.take(np.ones(len(held_stratum), bool), features)
    seed = settings.seed
    pairs = together(train, stratum, settings.draws, [*seed, 0], MOST_PAIRS)
    first, second = pairs.pairs["first"].to_numpy(np.int64), pairs.pairs["second"].to_numpy(np.int64)
    nodes = np.unique(np.concatenate([first, second]))
    if not len(nodes):
        return Found(features, pairs, nodes, None, _no_rows())
    number = np.full(len(features), -1, dtype=np.int64)
    number[nodes] = np.arange(len(nodes))
    weight, edges = pairs.pairs["pmi"].to_numpy(), (number[first], number[second])
    generator = np.random.default_rng(np.random.SeedSequence([*seed, 1]))
    kept = _remaining(train, pairs, _samples(stratum, settings.bootstraps, generator))
    leiden_seed = int(generator.integers(1, 1 << 30))
    groups = consensus_groups(len(nodes), edges, weight, kept, settings.resolutions, leiden_seed)
    rows = _rows(groups, edges, weight, pairs, leiden_seed)
    if len(rows):
        label = np.full(len(features), -1, dtype=np.int64)
        label[nodes] = groups.label
        rows = rows.assign(**_scores(held, held_stratum, label, settings))
    return Found(features, pairs, nodes, groups, rows)


def _samples(stratum: Strata, n: int, generator: np.random.Generator) -> Floats:
    """How often each sample with replacement has each item: float64 [samples, items]; whole groups where there are groups."""
    of_item = np.arange(len(stratum)) if stratum.max(initial=0) == 0 else stratum
    n_drawn = int(of_item.max()) + 1
    times = generator.multinomial(n_drawn, np.full(n_drawn, 1 / n_drawn), size=n).astype(np.float64)
    return times[:, of_item]


def _remaining(train: High, found: Together, times: Floats) -> npt.NDArray[np.bool_]:
    """Which pairs are above chance in each sample of the items: bool [samples, pairs]. Expected counts go with the features' own."""
    pairs = found.pairs
    first, second = pairs["first"].to_numpy(np.int64), pairs["second"].to_numpy(np.int64)
    own, n = times @ train.fires.astype(np.float64), times.sum(axis=1)[:, None]
    full, n_full = train.fires.sum(axis=0).astype(np.float64), float(len(train.fires))
    kept = np.zeros((len(times), len(pairs)), dtype=np.bool_)
    step = max(1, _AT_ONCE // len(train.fires))
    for start in range(0, len(pairs), step):
        stop_point()
        part = slice(start, start + step)
        i, j = first[part], second[part]
        both = (train.fires[:, i] & train.fires[:, j]).astype(np.float64)
        counted = pairs["n_both"].to_numpy()[part] / np.maximum(both.sum(axis=0), 1)
        observed = times @ both * counted
        expected = pairs["expected"].to_numpy()[part] * own[:, i] * own[:, j] / (full[i] * full[j]) * (n_full / n)
        kept[:, part] = signed_g(observed, expected, own[:, i], own[:, j], n) > max(found.threshold, 0.0)
    return kept


_COLUMNS = [
    "module", "size", "n_edges", "resolution", "consensus", "n_items", "score", "null_mean", "null_max", "p_value", "modularity", "modularity_null",
    "largest_null",
]  # fmt: skip


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=np.float64) for name in _COLUMNS})


def _rows(groups: Groups, edges: tuple[Int64, Int64], weight: Floats, found: Together, seed: int) -> pd.DataFrame:
    label, n = groups.label, int(groups.label.max(initial=-1)) + 1
    if not n:
        return _no_rows()
    inside = (label[edges[0]] == label[edges[1]]) & (label[edges[0]] >= 0)
    whole = np.where(label >= 0, label, n + np.arange(len(label)))  # a node without a module is one by itself
    chance = [_chance(part, groups.resolution, seed) for part in found.null if len(part[0])]
    return pd.DataFrame(
        {
            "module": np.arange(n),
            "size": np.bincount(label[label >= 0], minlength=n),
            "n_edges": np.bincount(label[edges[0]][inside], minlength=n),
            "resolution": groups.resolution,
            "consensus": [groups.consensus[label == number].mean() for number in range(n)],
            "modularity": modularity(len(label), *edges, weight, whole),
            "modularity_null": np.mean([each[0] for each in chance]) if chance else np.nan,
            "largest_null": np.mean([each[1] for each in chance]) if chance else np.nan,
        }
    )


def _chance(pairs: tuple[Int64, Int64, Floats], resolution: float, seed: int) -> tuple[float, int]:
    """Modularity and largest module of a graph of chance."""
    nodes, number = np.unique(np.concatenate(pairs[:2]), return_inverse=True)
    first, second = np.split(number.ravel(), 2)
    label = leiden(len(nodes), first, second, pairs[2], resolution, seed)
    sizes = np.bincount(by_size(label)[by_size(label) >= 0]) if (by_size(label) >= 0).any() else np.zeros(1, int)
    return modularity(len(nodes), first, second, pairs[2], label), int(sizes.max())


def _scores(held: High, stratum: Strata, label: Int64, settings: Settings) -> dict[str, npt.NDArray[np.generic]]:
    """Of every module: pairs of its features that are high together in held-out items, beside draws with the same margins."""
    n = int(label.max()) + 1
    used = np.flatnonzero(label >= 0)
    member = csr_matrix((np.ones(len(used), np.float32), (used, label[used])), shape=(len(label), n))

    def pairs_in(table: npt.NDArray[np.bool_]) -> Floats:
        counts = np.asarray(table.astype(np.float32) @ member, dtype=np.float64)
        found: Floats = (counts * (counts - 1) / 2).sum(axis=0)
        return found

    if not len(stratum):
        unknown = np.full(n, np.nan)
        return {
            "n_items": np.zeros(n, np.int64),
            **dict.fromkeys(("score", "null_mean", "null_max", "p_value"), unknown),
        }
    alone = np.asarray((held.alone @ member).todense(), dtype=np.float64)
    observed = pairs_in(held.fires) - (alone * (alone - 1) / 2).sum(axis=0)
    tables = draws(held.fires, stratum, settings.n_heldout_draws, [*settings.seed, 2])
    null = np.array([pairs_in(table) for table in tables])
    base = null.mean(axis=0) + 1
    of_draws = np.log2((null + 1) / base)
    return {
        "n_items": np.full(n, len(stratum)),
        "score": np.log2((observed + 1) / base),
        "null_mean": of_draws.mean(axis=0),
        "null_max": of_draws.max(axis=0),
        "p_value": (1 + (null >= observed).sum(axis=0)) / (1 + len(null)),
    }


def write_modules(run: Run, taken: LayerActivations, device: torch.device, advance: Callable[[float], None]) -> None:
    """Leave coactivation.parquet, modules.parquet and module_summary.parquet.

    taken: held-out items. advance: told of each layer that is done.
    """
    settings, units = run.config.cross_layer, run.kind.read_units(run)
    stratum = _strata(run)
    scored = np.zeros(len(stratum), dtype=np.bool_)
    scored[taken.item] = True
    held = run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool)
    if not taken.heldout:
        scored[1::2] = False  # the others choose
        held = np.arange(len(stratum)) % 2 == 0
    samples = sample_tokens(run, units, ~held, settings.module_items, settings.module_tokens)
    item, unit = (np.concatenate([getattr(each, name) for each in samples]) for name in ("item", "unit"))
    chosen = np.unique(item)
    pairs, members, summary = [], [], []
    before: tuple[int, High, Found] | None = None
    for layer in run.layers:
        stop_point()
        encoder, _ = load_both(run, layer, device)
        d_sae = encoder.d_sae
        active = as_matrix(encode_sample(run, layer, encoder, samples), d_sae)
        del encoder
        train = high_items(active, np.searchsorted(chosen, item), unit, len(chosen))
        of_held = held_high(taken, layer, scored)
        asked = Settings(
            settings.module_features, settings.module_draws, settings.module_bootstraps, tuple(settings.module_resolutions),
            (run.config.run.seed, zlib.crc32(b"cross_layer modules"), layer),
        )  # fmt: skip
        found = find_modules(train, stratum[chosen], of_held, stratum[np.flatnonzero(scored)], asked)
        train = train.take(np.ones(len(chosen), bool), found.features)
        pairs.append(_pair_rows((layer, found.features), (layer, found.features), found.pairs))
        if before is not None:
            between = together(before[1], stratum[chosen], settings.module_draws, [*asked.seed, 3], MOST_PAIRS, train)
            pairs.append(_pair_rows((before[0], before[2].features), (layer, found.features), between))
        rows, own = _layer_rows(run, layer, found, _top_units(active, unit, found, units))
        summary.append(rows)
        members.append(own)
        before = layer, train, found
        advance(1)
    table = pd.concat(summary, ignore_index=True)
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(np.float64))
    table["above_null"] = table["q_value"] < run.config.validation.fdr
    passing = table.loc[table["above_null"], ["layer", "module"]]
    folder = run.results / "cross_layer"
    note = None if len(table) else "no group of three features fires together more often than chance on training items"
    COACTIVATION.write(folder / COACTIVATION.file, pd.concat(pairs, ignore_index=True))
    MODULES.write(folder / MODULES.file, pd.concat(members, ignore_index=True).merge(passing), note=note)
    MODULE_SUMMARY.write(folder / MODULE_SUMMARY.file, table, note=note)


def held_high(taken: LayerActivations, layer: int, scored: npt.NDArray[np.bool_]) -> High:
    """The held-out items of a layer. scored: bool [items of the run], those to take."""
    use = scored[taken.item]
    number = np.cumsum(scored) - 1
    active = as_matrix(taken.layers[layer], taken.d_sae[layer])[use]
    return high_items(active, number[taken.item[use]], taken.unit[use], int(scored.sum()))


def _strata(run: Run) -> Strata:
    """Number of each item's group; 0 for all without groups."""
    groups = run.kind.read_items(run, ["group"])["group"]
    if groups.isna().all():
        return np.zeros(len(groups), dtype=np.int64)
    return pd.factorize(groups, use_na_sentinel=False)[0].astype(np.int64)


def _pair_rows(first: tuple[int, Int64], second: tuple[int, Int64], found: Together) -> pd.DataFrame:
    rows = found.pairs
    return rows.assign(
        layer_a=first[0], feature_a=first[1][rows["first"].to_numpy(np.int64)], layer_b=second[0],
        feature_b=second[1][rows["second"].to_numpy(np.int64)], largest_null=found.threshold,
    )  # fmt: skip


def _layer_rows(run: Run, layer: int, found: Found, units: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the summary, without q_value; and of the members."""
    rows, label = found.rows.assign(layer=layer, units=units), found.label()
    path = run.layer_results(layer) / FEATURE_NAMES.file
    names = FEATURE_NAMES.read(path).set_index("feature")["name"] if path.exists() else pd.Series(dtype=object)
    names = names[names != UNNAMED]
    chosen = [names.reindex(found.features[label == number]).value_counts().head(1) for number in range(len(rows))]
    rows["name"] = [each.index[0] if len(each) and each.iloc[0] > 0 else "" for each in chosen]
    rows["n_named"] = [int(each.iloc[0]) if len(each) else 0 for each in chosen]
    used = np.flatnonzero(label >= 0)
    consensus = np.zeros(len(label))
    if found.groups is not None:
        consensus[found.nodes] = found.groups.consensus
    i, j = (found.pairs.pairs[name].to_numpy(np.int64) for name in ("first", "second"))
    inside = label[i] == label[j]
    n_edges = np.bincount(np.concatenate([i[inside], j[inside]]), minlength=len(label))
    members = pd.DataFrame(
        {
            "layer": layer, "feature": found.features[used], "module": label[used],
            "resolution": found.groups.resolution if found.groups is not None else np.nan,
            "consensus": consensus[used], "n_edges": n_edges[used],
        }
    )  # fmt: skip
    return rows, members


def _top_units(active: csr_matrix, unit: Int64, found: Found, units: Units) -> list[str]:
    """Names of the units on which each module's features fire most above the units' share of all tokens."""
    label = found.label()
    n = int(label.max(initial=-1)) + 1
    if not n:
        return []
    used = label >= 0
    member = csr_matrix((np.ones(used.sum()), (found.features[used], label[used])), shape=(active.shape[1], n))
    fires = csr_matrix(active, copy=True)
    fires.data = (fires.data > 0).astype(np.float64)
    of_unit = csr_matrix((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(len(units), len(unit)))
    counts = np.asarray((of_unit @ (fires @ member)).todense())
    tokens = np.bincount(unit, minlength=len(units))
    expected = np.outer(tokens, counts.sum(axis=0)) / max(tokens.sum(), 1)
    # in standard deviations of a Poisson count: much above its share, and not by a few firings alone
    strength = np.where(counts >= _LEAST_FIRINGS, (counts - expected) / np.sqrt(np.maximum(expected, 0.5)), -np.inf)
    texts = []
    for number in range(n):
        best = np.argsort(-strength[:, number], kind="stable")[:UNITS_NAMED]
        best = best[strength[best, number] > 0]
        texts.append(", ".join(str(units.unit_name[each]) for each in best))
    return texts
