"""Stage causal: what editing a layer's features changes in the model's predictions.

1. What every feature does on training items: its own units, firing rate and mean activation (`stored.py`).
2. The screen: to first order, how much ablating each feature changes, on training items (`strength.py`).
3. The features that the screen ranks highest, and some at random, are ablated (`ablation.py`) in held-out items in which they fire, beside the nulls
   (`measure.py`), with all targets visible and with some hidden.
4. Dose-response curves of the highest, and the tables (`results.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.artifacts.causal import (
    CAUSAL_CURVES,
    CAUSAL_DOSE,
    CAUSAL_FEATURES,
    CAUSAL_NULLS,
    CAUSAL_SCREEN,
    CAUSAL_SUMMARY,
)
from sae_genomics.atomic import write_json
from sae_genomics.causal.ablation import TO_ZERO, Ablation
from sae_genomics.causal.dose import Curve
from sae_genomics.causal.exact import Clean
from sae_genomics.causal.measure import Firing, Layer, activation_of, measure, respond_to_doses
from sae_genomics.causal.results import Effect, dose_tables, effect_tables, empty_tables
from sae_genomics.causal.stored import fired_on, fires_in, replacing_values
from sae_genomics.causal.strength import Strength, first_order_strength
from sae_genomics.causal.targets import Fired, own_units, unit_bins
from sae_genomics.causal.uses import write_no_uses, write_uses
from sae_genomics.data.groups import group_numbers
from sae_genomics.models.editing import Paused
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder, load_encoder
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.stages import stage_named
from sae_genomics.tokens import Tokens, items_in_order

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LEAST_ITEMS = 2  # in which a feature fires, so that it is tested
TOKENS_AT_ONCE = 1 << 16  # of the items that are stopped at the hook together
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Chosen:
    """The features that are tested exactly, in the screen's order, then those drawn at random.

    features: int64 [n]. sampled: bool [n]. items: of each, ascending rows of the run's items.
    """

    features: Ints
    sampled: Bools
    items: list[Ints]


def run_task(run: Run, task: int) -> None:
    """Leave the layer's files of `files.causal_files`.

    Where nothing can be edited, or no item is held out, the tables have no rows and a note that says why; that is no failure.
    Raises DamagedArtifact when an input cannot be read, Interrupted at a signal (the layer starts again then).
    """
    layer = run.layers[task]
    run.layer_results(layer).mkdir(parents=True, exist_ok=True)
    model = loaded_model(run, may_compile=False)
    items = run.kind.read_items(run, ["heldout", "group"])
    encoder = load_encoder(run.sae_dir(layer), "cpu")
    reason = why_nothing(run, model, items["heldout"].to_numpy(bool))
    if reason:
        say(f"causal layer {layer}: nothing is edited: {reason}")
        _write_nothing(run, layer, encoder, reason)
        write_no_uses(run, layer, model, encoder, reason)
        return
    _Task(run, task, model, encoder, items).work()
    write_uses(run, layer, model, encoder)


def why_not_edited(model: FoundationModel) -> str:
    """Why a model's activations cannot be edited, or effects not be seen; empty where both can."""
    if not model.outcome:
        return f"the family {model.info.family} cannot go on from edited activations"
    return model.why_no_loss if model.outcome == "distribution" else ""


def hidden_tokens(model: FoundationModel, tokens: Tokens, seed: int) -> Bools:
    """As many tokens as in the model's training, to hide: bool [T]. An item's depend on the item and the seed alone."""
    items, item = items_in_order(tokens)
    drawn = np.concatenate([
        np.random.default_rng([seed, zlib.crc32(b"causal.hidden"), int(row)]).random(n)
        for row, n in zip(items, np.bincount(item), strict=True)
    ])  # fmt: skip
    return ~tokens.special & (drawn < model.hidden_share)


def why_nothing(run: Run, model: FoundationModel, heldout: Bools) -> str:
    """Why the layer cannot be tested; empty where it can."""
    if reason := why_not_edited(model):
        return reason
    if not heldout.any() or heldout.all():
        return "effects are measured on held-out items, and own targets come from others; set data.heldout_fraction above 0"
    return ""


class _Task:
    """One layer's work."""

    def __init__(self, run: Run, task: int, model: FoundationModel, encoder: Encoder, items: pd.DataFrame):
        self.run, self.layer, self.model, self.encoder = run, run.layers[task], model, encoder
        self.settings = run.config.causal
        self.heldout = items["heldout"].to_numpy(bool)
        self.group = group_numbers(run, items)
        self.heartbeat = run.heartbeat_file(stage_named("causal"), task)
        self.units = run.kind.read_units(run)

    def work(self) -> None:
        stored, fired = self._fired()
        ablation = self._ablation(stored, fired)
        strength = self._screen(ablation)
        chosen = self._choose(strength)
        shared = self._shared(fired, ablation)
        own = own_units(fired, chosen.features, self.settings.own_units)
        if self.model.outcome == "distribution":
            own[:] = False  # a feature's own targets are the tokens on which it is active
        effects, curves = self._measure(shared, chosen, own)
        self._write(strength, chosen, effects, curves)

    def generator(self, what: str, number: int = 0) -> np.random.Generator:
        """For one purpose in this layer, whatever was drawn before."""
        return np.random.default_rng([self.run.config.run.seed, zlib.crc32(what.encode()), self.layer, number])

    def _fired(self) -> tuple[Ints, Fired]:
        """The training items that are looked at, and what all features do on them."""
        training = np.flatnonzero(~self.heldout)
        stored = training[evenly(len(training), self.settings.training_items)]
        return stored, fired_on(self.run, self.layer, self.encoder, self.units, stored)

    def _ablation(self, stored: Ints, fired: Fired) -> Ablation:
        """What becomes of an ablated feature."""
        if self.settings.ablation == "zero":
            return TO_ZERO
        values = replacing_values(self.run, self.layer, self.encoder, self.units, stored, fired)
        seed = int(self.generator("causal.ablation").integers(1 << 31))
        return Ablation(self.settings.ablation, values, seed)

    def _screen(self, ablation: Ablation) -> Strength:
        """What ablating each feature changes on training items, to first order."""
        training = np.flatnonzero(~self.heldout)
        looked_at = training[evenly(len(training), self.settings.screen_items)]
        progress = Progress(f"causal layer {self.layer}: screen", len(looked_at), "items", self.heartbeat)
        generator, parts = self.generator("causal.screen"), []
        for paused in self._paused(looked_at):
            parts.append(first_order_strength(self.model, paused, self.encoder, generator, ablation))
            progress.advance(len(np.unique(paused.batch.item)))
        progress.finish()
        return Strength.joined(parts)

    def _paused(self, items: Ints) -> Iterator[Paused]:
        """Some items stopped at the layer's hook, as many together as fit a forward pass."""
        tokens = _tokens(self.run, self.model, items)
        for part in cut_windows(tokens.lengths, self.run.config.activations.batch_tokens):
            stop_point()
            yield self._pause(tokens.take(np.arange(part.start, part.stop)))

    def _pause(self, tokens: Tokens, hidden: Bools | None = None) -> Paused:
        return self.model.pause(tokens, self.layer, self.run.config.model.hook, hidden)

    def _choose(self, strength: Strength) -> Chosen:
        """By the screen, and at random; only features that fire in enough of the held-out items that are looked at."""
        heldout = np.flatnonzero(self.heldout)
        looked_at = heldout[evenly(len(heldout), self.settings.heldout_items)]
        fires = fires_in(self.run, self.layer, self.encoder, self.units, looked_at)
        possible = np.diff(fires.indptr) >= LEAST_ITEMS
        ranked = np.lexsort((np.arange(len(possible)), -strength.first_order))
        ranked = ranked[possible[ranked]]
        top = ranked[: self.settings.features]
        rest = np.setdiff1d(ranked, top)
        n = min(self.settings.sampled_features, len(rest))
        drawn = np.sort(self.generator("causal.sample").choice(rest, n, replace=False))
        features = np.concatenate([top, drawn]).astype(np.int64)
        items = [looked_at[_spread(fires, feature, self.settings.items)] for feature in features.tolist()]
        return Chosen(features, np.arange(len(features)) >= len(top), items)

    def _shared(self, fired: Fired, ablation: Ablation) -> Layer:
        directions = np.ascontiguousarray(self.encoder.W_dec.float().cpu().numpy())
        return Layer(
            self.model, directions, fired.rate, fired.mean, unit_bins(fired), self.settings.draws,
            self.settings.target_draws, self.run.config.activations.batch_tokens, ablation,
        )  # fmt: skip

    def _measure(
        self, shared: Layer, chosen: Chosen, own: Bools
    ) -> tuple[list[Effect], list[tuple[int, Curve, float, int]]]:
        effects: list[Effect] = []
        curves: list[tuple[int, Curve, float, int]] = []
        progress = Progress(f"causal layer {self.layer}", len(chosen.features), "features", self.heartbeat)
        for part in _parts(chosen.items, self._longest()):
            items = np.unique(np.concatenate([chosen.items[number] for number in part]))
            visible = self._pause(_tokens(self.run, self.model, items))
            hidden = self._hidden(visible)
            for number in part:
                stop_point()
                feature = int(chosen.features[number])
                sequences = _sequences_of(visible.batch, np.searchsorted(items, chosen.items[number]))
                group = None if self.group is None else self.group[chosen.items[number]]
                clean = Clean.of(self.model, visible.take(sequences), self.encoder)
                active = activation_of(clean, feature) > 0
                firing = Firing(feature, clean, own[number], active)
                found = measure(shared, firing, self.generator("causal.nulls", feature))
                effects.append(Effect(found, group, bool(chosen.sampled[number]), masked=False))
                if number < self.settings.dose_features and not chosen.sampled[number]:
                    response = respond_to_doses(shared, firing, self.settings.doses, self.settings.off_target)
                    curves.append((feature, *response))
                if hidden is not None:
                    clean = Clean.of(self.model, hidden.take(sequences), self.encoder)
                    firing = Firing(feature, clean, own[number], active)
                    found = measure(shared, firing, self.generator("causal.masked", feature))
                    effects.append(Effect(found, group, bool(chosen.sampled[number]), masked=True))
                progress.advance(1)
        progress.finish()
        return effects, curves

    def _longest(self) -> int:
        """Tokens of an item at most, roughly: what the model reads at once."""
        return self.model.info.max_length

    def _hidden(self, visible: Paused) -> Paused | None:
        """The same items with as many tokens hidden as in the model's training; None where that is not asked for, and where nothing is hidden."""
        if not self.settings.masked or self.model.predicts_next:
            return None
        return self._pause(visible.batch, hidden_tokens(self.model, visible.batch, self.run.config.run.seed))

    def _write(
        self, strength: Strength, chosen: Chosen, effects: list[Effect], curves: list[tuple[int, Curve, float, int]]
    ) -> None:
        folder, weights = self.run.layer_results(self.layer), self.encoder.weights
        screen = pd.DataFrame({
            "feature": np.arange(len(strength.first_order), dtype=np.int32), "n_items": strength.n_items,
            "first_order": strength.first_order, "exact": np.nan, "sampled": False,
        })  # fmt: skip
        exact = {effect.measured.feature: effect.measured.strength for effect in effects if not effect.masked}
        screen.loc[list(exact), "exact"] = list(exact.values())
        screen.loc[chosen.features[chosen.sampled], "sampled"] = True
        features, nulls = effect_tables(effects)
        doses, shapes = dose_tables(curves)
        frames = (screen, nulls, doses, shapes, features)
        for table, frame in zip(
            (CAUSAL_SCREEN, CAUSAL_NULLS, CAUSAL_DOSE, CAUSAL_CURVES, CAUSAL_FEATURES), frames, strict=True
        ):
            table.write(folder / table.file, frame, weights=weights)
        summary = summary_of(screen, features, shapes)
        facts = {"outcome": self.model.outcome, "ablation": self.settings.ablation}
        write_json(folder / CAUSAL_SUMMARY, {**summary, **facts})
        say(f"causal layer {self.layer}: {_in_words(summary)}")


def summary_of(screen: pd.DataFrame, features: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """What causal_summary.json holds."""
    tested = screen[screen["exact"].notna()]
    outcomes = [
        {
            "outcome": outcome, "masked": bool(masked), "n_features": len(rows), "n_tested": int(rows["q_value"].notna().sum()),
            "n_significant": int((rows["q_value"] <= SIGNIFICANT).sum()),
        }
        for (outcome, masked), rows in features.groupby(["outcome", "masked"], sort=False)
    ]  # fmt: skip
    return {
        "n_features": len(tested),
        "n_sampled": int(tested["sampled"].sum()),
        "screen_rank_correlation": _rank_correlation(tested),
        "screen_rank_correlation_sampled": _rank_correlation(tested[tested["sampled"]]),
        "n_curves": len(curves),
        "n_monotone": int((curves["monotonicity"].abs() >= 0.9).sum()),
        "fdr": SIGNIFICANT,
        "outcomes": outcomes,
        "note": "",
    }


def _rank_correlation(rows: pd.DataFrame) -> float | None:
    """Spearman's, of first-order and exact effects; None below four features, or where either is the same for all."""
    if len(rows) < 4 or rows["exact"].nunique() < 2 or rows["first_order"].nunique() < 2:
        return None
    return float(stats.spearmanr(rows["first_order"], rows["exact"]).statistic)


def _in_words(summary: dict[str, Any]) -> str:
    ranked = summary["screen_rank_correlation"]
    screen = "not known" if ranked is None else f"{ranked:.2f}"
    found = ", ".join(
        f"{each['outcome']}{' hidden' if each['masked'] else ''} {each['n_significant']} of {each['n_tested']}"
        for each in summary["outcomes"]
    )
    return (
        f"{summary['n_features']} features tested; rank correlation of screen and exact effects {screen}; "
        f"q <= {summary['fdr']}: {found}"
    )


def _write_nothing(run: Run, layer: int, encoder: Encoder, reason: str) -> None:
    folder = run.layer_results(layer)
    features, nulls, doses, curves = empty_tables()
    screen = CAUSAL_SCREEN.schema.empty_table().to_pandas()
    frames = (screen, nulls, doses, curves, features)
    for table, frame in zip(
        (CAUSAL_SCREEN, CAUSAL_NULLS, CAUSAL_DOSE, CAUSAL_CURVES, CAUSAL_FEATURES), frames, strict=True
    ):
        table.write(folder / table.file, frame, note=reason, weights=encoder.weights)
    facts = {"note": reason, "outcome": "", "ablation": run.config.causal.ablation}
    write_json(folder / CAUSAL_SUMMARY, {**summary_of(screen, features, curves), **facts})


def _tokens(run: Run, model: FoundationModel, items: Ints) -> Tokens:
    """As in their shards. items: ascending. The input is opened once; only the shards that hold the items are read."""
    stop_point()
    return tokenised_items(run, model, items).tokens


def _spread(fires: sparse.csc_matrix, feature: int, n: int) -> Ints:
    """At most n of the rows in which a feature fires, at even distances."""
    rows = np.sort(fires.indices[fires.indptr[feature] : fires.indptr[feature + 1]])
    return rows[evenly(len(rows), n)].astype(np.int64)


def _parts(items: list[Ints], longest: int) -> Iterator[list[int]]:
    """Consecutive features whose items together are few enough to be stopped at the hook at once."""
    part: list[int] = []
    known: set[int] = set()
    for number, wanted in enumerate(items):
        together = known | set(wanted.tolist())
        if part and len(together) * longest > TOKENS_AT_ONCE:
            yield part
            part, together = [], set(wanted.tolist())
        part, known = [*part, number], together
    if part:
        yield part


def _sequences_of(batch: Tokens, wanted: Ints) -> Ints:
    """The sequences of some items of a batch. wanted: ascending, among the batch's items in order."""
    return np.flatnonzero(np.isin(items_in_order(batch)[1][batch.item_ptr[:-1]], wanted))
