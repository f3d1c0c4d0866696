"""What each feature fires on (its input score) and what it acts on (its output score), in one table.

reads: how well the unit of a token alone tells whether the feature fires there. The rate at which the feature fires on each unit comes
from training items, the firings from held-out items; the score is the AUROC of the one for the other. A random direction of the layer
reads units too. So 99 of them stand beside each feature, each with the threshold at which it fires as often.
writes: the specificity of the feature's ablation, with its nulls, of causal_features.parquet.
steers: it writes, and a larger dose does more, of causal_dose.parquet.

Features that read need not be those that write (Arad, Mueller and Belinkov, "SAEs Are Good for Steering, If You Select the Right
Features", 2025).
"""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from sae_genomics.artifacts.steering import CAUSAL_READS_WRITES
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.fires import Fires, read_fires
from sae_genomics.causal.samples import evenly_of

if TYPE_CHECKING:
    from sae_genomics.data.units import Units
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
LEAST_TOKENS = 10  # on which a feature fires, in training and in held-out items, or it has no input score
LEVEL = 0.05  # q below which a feature reads, or writes
N_OWN = 5  # units that are named
_RATES = 12  # firing rates that random directions are tried at
_PRIOR = 5.0  # tokens that are added to each unit's, so that one firing on a rare unit says little


def write_reads_writes(run: Run, layer: int, model: FoundationModel, encoder: Encoder) -> None:
    """Leave causal_reads_writes.parquet of a layer. The output scores are taken from the tables of the stage that are there."""
    folder, settings = run.layer_results(layer), run.config.causal
    units = run.kind.read_units(run)
    heldout = run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool)
    path = folder / CAUSAL_READS_WRITES.file
    if heldout.all() or not heldout.any():
        frame = pd.DataFrame({column.name: pd.Series(dtype=object) for column in CAUSAL_READS_WRITES.columns})
        CAUSAL_READS_WRITES.write(
            path, frame, note="the input score needs training items and held-out items", weights=encoder.weights
        )
        return
    train, held = (
        read_fires(run, model, encoder, layer, evenly_of(np.flatnonzero(side), settings.reads_items), len(units))
        for side in (~heldout, heldout)
    )
    seed = [run.config.run.seed, layer, zlib.crc32(b"reads")]
    table = input_scores(train, held, settings.reads_directions, np.random.default_rng(seed))
    table["own_units"] = own_units(train, units)
    table = table.join(output_scores(folder), on="feature")
    CAUSAL_READS_WRITES.write(path, classified(table), weights=encoder.weights)


def input_scores(train: Fires, held: Fires, n_directions: int, generator: np.random.Generator) -> pd.DataFrame:
    """reads, its chance and q of every feature; NaN where it fires too seldom."""
    fired = [np.asarray(each.counts.sum(axis=1)).ravel() for each in (train, held)]
    enough = np.minimum(*fired) >= LEAST_TOKENS
    reads = unit_auroc(train.counts, held.counts, train.n_tokens, held.n_tokens)
    reads[~enough] = np.nan
    chance, p = np.full(len(reads), np.nan), np.full(len(reads), np.nan)
    if enough.any():
        rate = fired[0] / max(len(train.unit), 1)
        grid = np.unique(np.quantile(rate[enough], np.linspace(0, 1, _RATES)))
        null = np.stack([_random_aurocs(train, held, each, n_directions, generator) for each in grid])
        nearest = np.abs(np.log(rate[enough])[:, None] - np.log(grid)[None]).argmin(axis=1)
        drawn = null[nearest]
        chance[enough] = np.nanmean(drawn, axis=1)
        as_high = (drawn >= reads[enough][:, None] - 1e-12).sum(axis=1)
        p[enough] = (1 + as_high) / (1 + (~np.isnan(drawn)).sum(axis=1))
    return pd.DataFrame(
        {
            "feature": np.arange(len(reads)), "n_tokens": fired[1].astype(np.int64), "reads": reads, "reads_random": chance,
            "p_reads": p, "q_reads": benjamini_hochberg(p),
        }
    )  # fmt: skip


def unit_auroc(train: csr_matrix, held: csr_matrix, n_train: Int64, n_held: Int64) -> Float64:
    """AUROC of a unit's firing rate in training items for firings in held-out items: float64 [rows]; ties count half.

    train, held: [rows, units], tokens of each unit on which a row fires. n_train, n_held: int64 [units], tokens of each unit. The rate is
    count / (tokens + 5). Units on which a row never fired in training share the rate 0. NaN for a row that fires on none or on all.
    """
    entries = train.tocoo()
    row, unit = entries.row.astype(np.int64), entries.col.astype(np.int64)
    rate = entries.data / (n_train[unit] + _PRIOR)
    fires = np.asarray(held[row, unit], dtype=np.float64).ravel() if len(row) else np.zeros(0)
    n = train.shape[0]
    all_fires = np.asarray(held.sum(axis=1), dtype=np.float64).ravel()
    all_rest = float(n_held.sum()) - all_fires
    rest = n_held[unit] - fires
    # the units without a rate come first in each row, as one entry
    row = np.concatenate([np.arange(n), row])
    rate = np.concatenate([np.zeros(n), rate])
    listed_fires, listed_rest = (np.bincount(row[n:], each, minlength=n) for each in (fires, rest))
    fires = np.concatenate([all_fires - listed_fires, fires])
    rest = np.concatenate([all_rest - listed_rest, rest])
    order = np.lexsort((rate, row))
    row, rate, fires, rest = row[order], rate[order], fires[order], rest[order]
    new = np.ones(len(row), dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (rate[1:] != rate[:-1])
    starts = np.flatnonzero(new)
    row, fires, rest = row[starts], np.add.reduceat(fires, starts), np.add.reduceat(rest, starts)
    below = np.cumsum(rest) - rest
    below -= below[np.searchsorted(row, row)]  # what earlier rows have
    won = np.bincount(row, fires * (below + rest / 2), minlength=n)
    pairs = all_fires * all_rest
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


def _random_aurocs(train: Fires, held: Fires, rate: float, n: int, generator: np.random.Generator) -> Float64:
    """The input scores of random directions that fire on that share of the training tokens: float64 [n]."""
    directions = generator.standard_normal((train.inputs.shape[1], n)).astype(np.float32)
    on_train, on_held = train.inputs @ directions, held.inputs @ directions
    above = max(round(rate * len(on_train)), 1)
    threshold = np.partition(on_train, len(on_train) - above, axis=0)[len(on_train) - above]
    counts = [
        _per_unit(values >= threshold, each.unit, len(each.n_tokens))
        for values, each in ((on_train, train), (on_held, held))
    ]
    return unit_auroc(counts[0], counts[1], train.n_tokens, held.n_tokens)


def _per_unit(fires: npt.NDArray[np.bool_], unit: Int64, n_units: int) -> csr_matrix:
    """[directions, units], tokens of each unit on which a direction fires. fires: bool [tokens, directions]."""
    token, direction = np.nonzero(fires)
    return csr_matrix((np.ones(len(token)), (direction, unit[token])), shape=(fires.shape[1], n_units))


def own_units(train: Fires, units: Units) -> list[str | None]:
    """The names of the units with the highest rate of each feature, comma-separated; None where it never fires."""
    entries = train.counts.tocoo()
    rate = entries.data / (train.n_tokens[entries.col] + _PRIOR)
    order = np.lexsort((entries.col, -rate, entries.row))
    row, unit = entries.row[order], entries.col[order]
    first = np.searchsorted(row, np.arange(train.counts.shape[0] + 1))
    names = units.unit_name.astype(str)
    return [
        ",".join(names[unit[start : min(start + N_OWN, stop)]]) or None for start, stop in itertools.pairwise(first)
    ]


def output_scores(folder: Path) -> pd.DataFrame:
    """writes and what belongs to it, by feature, of the tables that the stage left; no rows without them."""
    from sae_genomics.artifacts import causal

    columns = ["writes", "writes_random", "p_writes", "q_writes", "outcome", "monotone", "own_most"]
    empty = pd.DataFrame(
        {name: pd.Series(dtype=object if name in ("outcome", "monotone") else float) for name in columns}
    )
    effects, nulls, doses = (
        table.read(folder / table.file) if (folder / table.file).exists() else None
        for table in (causal.CAUSAL_FEATURES, causal.CAUSAL_NULLS, causal.CAUSAL_DOSE)
    )
    if effects is None or effects.empty:
        return empty
    effects = of_outcome(effects)
    found = effects.set_index("feature").rename(
        columns={"specificity": "writes", "p_value": "p_writes", "q_value": "q_writes"}
    )
    if nulls is not None and len(nulls):
        outcome, masked = effects["outcome"].iloc[0], effects["masked"].iloc[0]
        random = nulls[(nulls["null"] == "direction") & (nulls["outcome"] == outcome) & (nulls["masked"] == masked)]
        found["writes_random"] = random.groupby("feature")["specificity"].mean()
    if doses is not None and len(doses):
        found = found.join(dose_shapes(doses))
    return found.reindex(columns=columns)


def of_outcome(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of one outcome: what is predicted of tokens, hidden ones first, or else whatever there is."""
    rank = (effects["outcome"] != "token") * 2 + ~effects["masked"].astype(bool)
    best = effects.assign(rank=rank, known=effects["specificity"].notna())
    chosen = best[best["known"]] if best["known"].any() else best
    first = chosen.sort_values("rank", kind="stable").iloc[0]
    return best[(best["outcome"] == first["outcome"]) & (best["masked"] == first["masked"])]


def dose_shapes(doses: pd.DataFrame) -> pd.DataFrame:
    """Per feature: whether (own - matched) goes one way with every dose from 1 on, at least three of them, and its largest value."""
    up = doses[doses["dose"] >= 1].sort_values(["feature", "dose"], kind="stable")
    by, gain = up["feature"], up["own"] - up["matched"]
    steps = gain.groupby(by).diff()
    one_way = [(sign * steps > 0) | steps.isna() for sign in (1, -1)]
    monotone = one_way[0].groupby(by).all() | one_way[1].groupby(by).all()
    n = gain.groupby(by).size()
    within = gain.where(~up["stopped"].astype(bool))
    largest = within.groupby(by).agg(
        lambda values: values.loc[values.abs().idxmax()] if values.notna().any() else np.nan
    )
    return pd.DataFrame({"monotone": monotone.astype(object).where(n >= 3, None), "own_most": largest})


def classified(table: pd.DataFrame) -> pd.DataFrame:
    """With `role` and `steers`: null where a score that they need is missing."""
    reads, writes = table["q_reads"] < LEVEL, table["q_writes"].astype(float) < LEVEL
    both_known = table["q_reads"].notna() & table["q_writes"].notna()
    role = np.select([reads & writes, reads, writes], ["both", "reads", "writes"], "neither")
    monotone = table["monotone"]
    known = monotone.notna() & table["q_writes"].notna()
    steers = pd.Series(
        [bool(one) and bool(other) for one, other in zip(writes, monotone.eq(True), strict=True)], dtype=object
    )
    return table.assign(
        role=pd.Series(role, dtype=object).where(both_known, None),
        steers=steers.where(known, None),
        monotone=monotone.astype(object).where(monotone.notna(), None),
        outcome=table["outcome"].astype(object).where(table["outcome"].notna(), None),
    )
