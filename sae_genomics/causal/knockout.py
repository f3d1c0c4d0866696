"""Delete a gene from cells, or raise it, beside the ablation of a feature that reads it.

knock_out: the gene's token is taken away, and the model reads the cell anew. over_express: its value is set to the 99th percentile of
its values in training items. The other genes keep their values: bins of a cell are not made anew. The ablation takes the
feature's part away where it fires, x' = x - z_j d_j, at the layer, with the gene in place.

Every edit has a profile: how much the predicted value of each other token of the cell changes. Two profiles of one cell are compared
by their correlation; cells count once each. The null is the same edit of random genes of the cell whose value is nearest to the gene's.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sae_genomics.artifacts.steering import CAUSAL_GENES
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean
from sae_genomics.causal.fires import Fires, read_fires
from sae_genomics.causal.markers import VALUE
from sae_genomics.causal.over_items import mean_over, p_above
from sae_genomics.causal.passes import changes
from sae_genomics.causal.samples import Sample, evenly_of, paused_batches, read_sample, rows32
from sae_genomics.data.groups import group_numbers
from sae_genomics.errors import UserError
from sae_genomics.progress import stop_point
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.data.units import Units
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
KNOCK_OUT, OVER_EXPRESS = "knock_out", "over_express"
RAISED_TO = 0.99  # quantile of the gene's values in training items
LEAST_ITEMS = 3  # held-out items that have the gene and in which the feature fires
LOOKED_AT = 400  # held-out items at most among which those with the gene are looked for
SPARE = 10  # pairs per pair that is wanted: some genes are in too few held-out items
LEAST_FIRINGS = 5  # tokens of a gene in training items on which a feature fires, or the gene is not tried
_NEAREST = 10  # genes of a cell among which random ones are drawn, on either side of the gene in the order of values


@dataclass(frozen=True)
class Pair:
    """A feature and the gene that it is compared with."""

    feature: int
    unit: int
    share: float
    """of the feature's activation on training items that is on the gene"""


def write_knockout(run: Run, layer: int, model: FoundationModel, encoder: Encoder) -> None:
    """Leave causal_genes.parquet of a layer. Raises UserError for a name in `causal.knockout_genes` that is no unit of the run."""
    path = run.layer_results(layer) / CAUSAL_GENES.file
    units = run.kind.read_units(run)
    named = _named(run, units)
    if model.outcome != "value":
        note = "units are deleted and raised where a model predicts a value per token; this one predicts a distribution"
        CAUSAL_GENES.write(path, _empty(), note=note, weights=encoder.weights)
        return
    items = run.kind.read_items(run, ["item", "heldout", "group"])
    training, heldout = (np.flatnonzero(items["heldout"] == side) for side in (False, True))
    fires = read_fires(run, model, encoder, layer, evenly_of(training, run.config.causal.reads_items), len(units))
    rows: list[dict[str, object]] = []
    if len(heldout):
        tried = read_sample(run, model, evenly_of(heldout, LOOKED_AT))
        gene = _Gene(run, layer, model, encoder, tried, group_numbers(run, items, tried.rows))
        raised = _raised(read_values(fires), len(units))
        wanted = run.config.causal.knockout_features if named is None else len(named)
        n_found = 0
        for pair in _pairs(fires, named, SPARE * wanted):
            stop_point()
            found = gene.rows(pair, raised[pair.unit]) if n_found < wanted else []
            n_found += bool(found)
            rows += found
    table = pd.DataFrame(rows) if rows else _empty()
    for name in ("correlation", "effect"):
        table[f"q_{name}"] = benjamini_hochberg(table[f"p_{name}"].to_numpy(np.float64))
    unit = table["unit"].to_numpy(np.int64)
    table = table.assign(unit_id=units.unit_id[unit], unit_name=units.unit_name[unit])
    why = None if len(table) else f"no gene is in {LEAST_ITEMS} held-out items in which its feature fires"
    CAUSAL_GENES.write(path, table, note=why, weights=encoder.weights)


def _named(run: Run, units: Units) -> list[int] | None:
    """The units of `causal.knockout_genes`, which are names or ids; None where the settings leave the choice."""
    genes = run.config.causal.knockout_genes
    if genes is None:
        return None
    rows = {str(name): row for row, name in enumerate(units.unit_name)} | {
        str(each): row for row, each in enumerate(units.unit_id)
    }
    unknown = [gene for gene in genes if gene not in rows]
    if unknown:
        raise UserError(
            f"causal.knockout_genes: {unknown[0]!r} is no gene that the data and the model have; take names from "
            f"{run.units_file}, columns unit_name and unit_id"
        )
    return [rows[gene] for gene in genes]


def read_values(fires: Fires) -> tuple[Int64, Float64]:
    """The unit and the value of every token of the sample."""
    tokens = fires.sample.tokens
    kept = fires.sample.usual & (tokens.unit >= 0)
    return tokens.unit[kept].astype(np.int64), tokens.per_token[VALUE][kept].astype(np.float64)


def _raised(values: tuple[Int64, Float64], n_units: int) -> Float64:
    """The RAISED_TO quantile of each unit's values: float64 [units], NaN for a unit without tokens. Lower of two neighbours."""
    unit, value = values
    order = np.lexsort((value, unit))
    first = np.searchsorted(unit[order], np.arange(n_units + 1))
    count = np.diff(first)
    at = np.minimum(first[:-1] + (RAISED_TO * np.maximum(count - 1, 0)).round().astype(np.int64), len(order) - 1)
    return np.where(count > 0, value[order][at], np.nan)


def _pairs(fires: Fires, named: list[int] | None, wanted: int) -> list[Pair]:
    """Each named gene with the feature that is most active on it; or the features with the largest share on one gene, each with that gene.

    A share counts from LEAST_FIRINGS tokens of the gene on.
    """
    total = np.asarray(fires.activation.sum(axis=1)).ravel()
    entries = fires.activation.tocoo()
    often = np.asarray(fires.counts[entries.row, entries.col]).ravel() >= (LEAST_FIRINGS if named is None else 1)
    feature, unit = entries.row[often].astype(np.int64), entries.col[often].astype(np.int64)
    share = entries.data[often] / total[feature]
    if named is None:
        order = np.lexsort((unit, feature, -share))
        keep = order[_first_of(feature[order])]
        keep = keep[_first_of(unit[keep])][:wanted]  # a gene is tried once
    else:
        order = np.lexsort((feature, -entries.data[often]))
        first = {int(unit[at]): int(at) for at in order[_first_of(unit[order])]}
        keep = np.array([first[each] for each in named if each in first], dtype=np.int64)
    return [Pair(int(feature[at]), int(unit[at]), float(share[at])) for at in keep]


def _first_of(values: Int64) -> Int64:
    """Where each value stands for the first time, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])


class _Gene:
    """One layer's items, and what edits of a gene and of a feature change in them."""

    def __init__(
        self, run: Run, layer: int, model: FoundationModel, encoder: Encoder, tried: Sample, group: Int64 | None
    ):
        self.run, self.layer, self.model, self.encoder = run, layer, model, encoder
        self.tried, self.group = tried, group
        self.settings = run.config.causal

    def rows(self, pair: Pair, raised: float) -> list[dict[str, object]]:
        """The rows of one pair: knock-out and over-expression. None where too few items have both."""
        sample, ablated = self._items_of(pair)
        if sample is None or len(sample.rows) < LEAST_ITEMS:
            return []
        seed = [self.run.config.run.seed, self.layer, pair.feature, zlib.crc32(b"knockout")]
        generator = np.random.default_rng(seed)
        tokens = sample.tokens
        gene = np.flatnonzero(sample.usual & (tokens.unit == pair.unit))  # one token per item
        draws = nearest_values(sample, gene, self.settings.knockout_draws, generator)
        before = self._predicted(tokens)
        group = None if self.group is None else self.group[np.searchsorted(self.tried.rows, sample.rows)]
        found = []
        for edit in (KNOCK_OUT, OVER_EXPRESS):
            change = np.stack([self._change(tokens, before, chosen, edit, raised) for chosen in (gene, *draws)])
            found.append(_row(pair, edit, sample, gene, draws, change, ablated, group))
        return found

    def _items_of(self, pair: Pair) -> tuple[Sample | None, Float64]:
        """At most `knockout_items` items that have the gene and in which the feature fires, and what its ablation changes in them."""
        tokens = self.tried.tokens
        has = np.unique(self.tried.of_tokens()[self.tried.usual & (tokens.unit == pair.unit)])
        chosen, changes = np.zeros(0, np.int64), np.zeros(0)
        if not len(has):
            return None, changes
        some = self.tried.take(
            evenly_of(has, 2 * self.settings.knockout_items)
        )  # a few more: the feature may not fire in all
        change, fired = self._ablated(some, pair.feature)
        chosen = evenly_of(np.flatnonzero(fired), self.settings.knockout_items)
        if not len(chosen):
            return None, changes
        kept = np.isin(some.of_tokens(), chosen)
        return some.take(chosen), change[kept]

    def _ablated(self, sample: Sample, feature: int) -> tuple[Float64, npt.NDArray[np.bool_]]:
        """What the ablation of a feature changes at every token, float64 [T], and whether it fires in each item."""
        change, fired = np.zeros(len(sample.tokens)), np.zeros(len(sample.rows), bool)
        edit = Edit("ablate", np.array([feature]))
        batch_tokens = self.run.config.activations.batch_tokens
        for sequences, rows, paused in paused_batches(
            self.model, sample, self.layer, self.run.config.model.hook, batch_tokens
        ):
            with torch.inference_mode():
                clean = Clean.of(self.model, paused, self.encoder)
                found = changes(clean, [edit], batch_tokens).token
            assert found is not None
            change[rows] = found[0]
            at = clean.encoded.of(np.array([feature]))
            fired[sample.item[sequences[clean.encoded.sequence[at]]]] = True
        return change, fired

    def _predicted(self, tokens: Tokens) -> Float64:
        """The predicted value of every token, unedited: float64 [T]."""
        found = np.zeros(len(tokens))
        sample = Sample(np.arange(tokens.n_items), tokens, np.arange(tokens.n_items))
        settings = self.run.config
        for _, rows, paused in paused_batches(
            self.model, sample, 0, settings.model.hook, settings.activations.batch_tokens
        ):
            with torch.inference_mode():
                values = self.model.resume(paused).token
            assert values is not None
            found[rows] = rows32(values)
        return found

    def _change(self, tokens: Tokens, before: Float64, chosen: Int64, edit: str, raised: float) -> Float64:
        """What an edit of one token per item changes at the others: float64 [T], NaN at the edited ones."""
        change = np.full(len(tokens), np.nan)
        kept = np.ones(len(tokens), bool)
        kept[chosen] = False
        if edit == KNOCK_OUT:
            change[kept] = self._predicted(tokens.without(chosen)) - before[kept]
            return change
        change = self._predicted(tokens.with_values(VALUE, chosen, raised)) - before
        change[chosen] = np.nan
        return change


def nearest_values(sample: Sample, gene: Int64, draws: int, generator: np.random.Generator) -> list[Int64]:
    """Per draw one other token of each item, at random among those with the nearest values: int64 [items] each.

    gene: int64 [items], the row of each item's own token, ascending.
    """
    tokens = sample.tokens
    values = tokens.per_token[VALUE].astype(np.float64) + 0.01 * generator.random(
        len(tokens)
    )  # equal values in random order
    sequence = np.repeat(np.arange(tokens.n_items), tokens.lengths)
    usable = np.flatnonzero(sample.usual & (tokens.unit >= 0))
    order = usable[np.lexsort((values[usable], sequence[usable]))]
    first = np.searchsorted(sequence[order], np.arange(tokens.n_items + 1))
    rank = np.empty(len(tokens), dtype=np.int64)
    rank[order] = np.arange(len(order))
    low, high = (first[sequence[gene] + end] for end in (0, 1))
    start = np.clip(rank[gene] - _NEAREST, low, np.maximum(high - 2 * _NEAREST - 1, low))
    width = np.minimum(high - start, 2 * _NEAREST + 1) - 1  # the gene itself is left out
    drawn = start + (generator.random((draws, len(gene))) * np.maximum(width, 1)).astype(np.int64)
    drawn += drawn >= rank[gene]
    return list(order[np.minimum(drawn, high - 1)])


def _row(
    pair: Pair,
    edit: str,
    sample: Sample,
    gene: Int64,
    draws: list[Int64],
    change: Float64,
    ablated: Float64,
    group: Int64 | None,
) -> dict[str, object]:
    """One edit's columns. change: float64 [1 + draws, T], the gene's own first."""
    item, n = sample.of_tokens(), len(sample.rows)
    usual = sample.usual.copy()
    usual[gene] = False
    correlation = np.stack([_correlations(each, ablated, item, usual & ~np.isnan(each), n) for each in change])
    effect = np.stack([_root_mean_square(each, item, usual & ~np.isnan(each), n) for each in change])
    row: dict[str, object] = {"feature": pair.feature, "unit": pair.unit, "edit": edit, "share_on_unit": pair.share}
    for name, values in (("correlation", correlation), ("effect", effect)):
        mean = mean_over(values[0], group)
        null = np.array([mean_over(each, group).value for each in values[1:]])
        known = null[~np.isnan(null)]  # where nothing is left to correlate with, there is none
        row |= {
            name: mean.value, f"{name}_random": float(known.mean()) if len(known) else np.nan,
            f"{name}_random_high": float(known.max()) if len(known) else np.nan,
            f"p_{name}": p_above(mean.value, null),
        }  # fmt: skip
        if name == "correlation":
            row |= {
                "correlation_low": mean.low,
                "correlation_high": mean.high,
                "n_items": mean.n_items,
                "n_groups": mean.n_groups,
            }
    of_feature = _root_mean_square(ablated, item, usual, n)
    return row | {"effect_feature": mean_over(of_feature, group).value, "n_random": len(draws)}


def _sums(values: Float64, item: Int64, chosen: npt.NDArray[np.bool_], n: int) -> Float64:
    return np.bincount(item[chosen], values[chosen], minlength=n).astype(np.float64)


def _correlations(one: Float64, other: Float64, item: Int64, chosen: npt.NDArray[np.bool_], n: int) -> Float64:
    """Pearson's correlation within each item: float64 [items], NaN where one does not vary."""
    count = np.maximum(_sums(np.ones(len(one)), item, chosen, n), 1)
    centred = [each - (_sums(each, item, chosen, n) / count)[item] for each in (one, other)]
    product = _sums(centred[0] * centred[1], item, chosen, n)
    spread = np.sqrt(_sums(centred[0] ** 2, item, chosen, n) * _sums(centred[1] ** 2, item, chosen, n))
    return np.where(spread > 0, product / np.where(spread > 0, spread, 1), np.nan)


def _root_mean_square(values: Float64, item: Int64, chosen: npt.NDArray[np.bool_], n: int) -> Float64:
    return np.sqrt(_sums(values**2, item, chosen, n) / np.maximum(_sums(np.ones(len(values)), item, chosen, n), 1))


def _empty() -> pd.DataFrame:
    frame = pd.DataFrame({column.name: pd.Series(dtype=object) for column in CAUSAL_GENES.columns})
    return frame.astype({"unit": np.int64, "p_correlation": float, "p_effect": float})
