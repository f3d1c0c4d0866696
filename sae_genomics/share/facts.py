"""What a card says of a run: every number is read from the run's own tables, and each stands beside what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sae_genomics import __version__
from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    CELL_TYPE_BASELINES,
    CONCEPT_COUNTS,
    FEATURE_CONCEPTS,
    FEATURE_GENES,
    FEATURE_NAMES,
    FEATURE_UNITS,
    LABEL_BASELINES,
)
from sae_genomics.atomic import read_json
from sae_genomics.commands import command
from sae_genomics.config import load_config
from sae_genomics.errors import UserError
from sae_genomics.models.hub import ALIASES, RELEASES
from sae_genomics.run import Run
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.stages import stages_of

TOP_UNITS = 10  # named per feature in the table of features
_KINDS = {"neuron": "raw neurons", "pca": "principal components", "ica": "independent components",
          "untrained": "features on an untrained model", "random": "random directions",
          "composition": "what it is composed of", "position": "position alone"}  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A measured number beside what chance, or something simpler, gives. All are text for people."""

    name: str
    value: str
    chance: str
    meaning: str


@dataclass(frozen=True)
class Layer:
    """One layer's SAE. features: one row per feature (`features_of`)."""

    number: int
    folder: Path
    metrics: dict[str, Any]
    numbers: list[Number]
    features: pd.DataFrame

    @property
    def name(self) -> str:
        """Of its folder, as `sae_id` on the hub."""
        return f"layer_{self.number:02d}"


@dataclass(frozen=True)
class Shared:
    """A run as it is handed on. facts: (what, which) for the table of the card. base_model: its repository on the hub."""

    run: Run
    layers: list[Layer]
    facts: list[tuple[str, str]]
    notes: list[str]
    base_model: str | None = None
    published: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def run_of(path: Path, overrides: Sequence[str] = ()) -> Run:
    """The run whose config file, or folder of results, this is. Raises UserError where it is neither."""
    if not path.exists():
        raise UserError(f"there is no {path}; name results/RUN, or the config file of a run")
    if not path.is_dir():
        return Run(load_config(path, overrides), path, overrides)
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path} has no config.yaml; name the config file of the run, or run its stage report first")
    run = Run(load_config(file, overrides), file, overrides)
    if run.results.resolve() != path.resolve():
        raise UserError(
            f"{file} says that this run's results are in {run.results}, which is another folder from here; name the run's config file"
        )
    return run


def refuse_unfinished(run: Run) -> None:
    """Raise UserError where a task of the run is not done: what is handed on must be what the tables describe."""
    for stage in stages_of(run):
        for task, state in enumerate(run.states(stage)):
            if not state.done:
                raise UserError(
                    f"run {run.name} is not finished: {run.label(stage, task)} is {state.status} ({state.why}); "
                    f"finish it with: {command('pipeline', run)}"
                )


def read(run: Run, layers: Sequence[int] | None = None) -> Shared:
    """Read a finished run. layers: those to share, default all. Raises UserError for a layer that it does not have."""
    run.check(ask_hub=False)
    refuse_unfinished(run)
    wanted = list(run.layers) if layers is None else sorted(set(layers))
    if unknown := [layer for layer in wanted if layer not in run.layers]:
        raise UserError(f"--layers: run {run.name} has no layer {unknown[0]}; it has {', '.join(map(str, run.layers))}")
    found = [_layer(run, layer) for layer in wanted]
    release = RELEASES.get(ALIASES.get(run.config.model.name or "", run.config.model.name or ""))
    plan = read_json(run.plan_file) or {}
    return Shared(
        run, found, [*_data(run, plan), *_model(run), *_training(run, found)], [str(note) for note in plan.get("notes") or []],
        base_model=release.repository if release is not None and run.config.model.path is None else None,
        published=run.config.sae.from_ is not None,
    )  # fmt: skip


def _layer(run: Run, layer: int) -> Layer:
    metrics = read_json(run.sae_dir(layer) / "metrics.json") or {}
    results = run.layer_results(layer)
    numbers = [*_reconstruction(metrics, run), *_annotated(results), *_labels(results, run), *_concepts(results)]
    return Layer(layer, run.sae_dir(layer), metrics, numbers, features_of(run, layer))


def _data(run: Run, plan: dict[str, Any]) -> list[tuple[str, str]]:
    nouns = run.kind.nouns
    held = plan.get("n_heldout") or 0
    facts = [
        ("Data", f"{run.data_file.name} ({run.config.data.kind}; content hash {run.content_hashes['data']})"),
        (nouns.items.capitalize(), f"{run.n_items:,}, of which {held:,} held out"),
    ]
    if plan.get("group_key"):
        facts.append(("Groups", f"{plan.get('n_groups', 0):,} of {plan['group_key']}; whole groups are held out"))
    return facts


def _model(run: Run) -> list[tuple[str, str]]:
    info = run.model_info
    commit = f"commit {info.revision}" if info.revision else "a folder or the bundled model, which has no commit"
    return [
        ("Model", f"{info.name} (family {info.family}; {info.n_layers} layers, {info.d_model} wide)"),
        ("Model weights", f"{commit}; identity {info.identity}"),
        ("Hook", f"{run.config.model.hook} (blocks.N.hook_{run.config.model.hook})"),
    ]


def _training(run: Run, layers: list[Layer]) -> list[tuple[str, str]]:
    sae = run.config.sae
    centre = [("Input", f"the activation minus the mean of its {run.kind.nouns.unit} (unit_means.safetensors)")]
    facts = centre if sae.centre == "unit" else [("Input", "the activation as the model gives it")]
    if sae.from_ is not None:
        names = sorted({public_name(each.metrics["from"]["name"]) for each in layers if each.metrics.get("from")})
        facts.append(("Training", f"none here: published SAEs, taken over from {', '.join(names)}"))
    else:
        words = architecture_named(sae.architecture).in_words(sae)
        facts.append(("Architecture", ", ".join(filter(None, (sae.architecture, words)))))
        tokens = sorted({int(each.metrics.get("tokens_trained") or 0) for each in layers})
        many = " to ".join(f"{each:,}" for each in sorted({tokens[0], tokens[-1]})) if tokens else "0"
        facts.append(
            (
                "Training",
                f"{sae.steps:,} steps of {sae.batch_tokens:,} tokens, {many} tokens per layer; seed {run.config.run.seed}",
            )
        )
    return [*facts, ("Software", f"sae-genomics {__version__}")]


def public_name(name: str) -> str:
    """Where an SAE is from, without a path of this machine: of a folder the last two names."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() or name.startswith((".", "~")) else name


def _reconstruction(metrics: dict[str, Any], run: Run) -> list[Number]:
    nouns = run.kind.nouns
    held = bool(metrics.get("heldout_tokens"))
    where, before = (
        (f"held-out {nouns.tokens}", "") if held else (f"training {nouns.tokens}: nothing is held out", "train_")
    )
    interval = metrics.get("loss_recovered_interval")
    of = f" ({interval[0]:.3f} to {interval[1]:.3f}, 95 %)" if interval else ""
    name = metrics.get("loss_name")
    found = [
        _number(f"FVU on {where}", metrics.get(f"{before}fvu"), "1 (the mean activation)", "share of the variance that is missed"),
        _number(f"FVU of what the {nouns.unit} does not tell", metrics.get(f"{before}fvu_centred"), f"1 (each {nouns.unit}'s mean alone)",
                f"the same of the variance within {nouns.units}"),
        _number("Loss recovered", metrics.get("loss_recovered"), "0 (the mean activation)", f"of the model's own {name}", of),
        _number("L0", metrics.get(f"{before}l0"), f"{metrics['d_sae']:,} features", f"mean active features per {nouns.token}"),
        _number("Dead features", metrics.get("dead_share" if held else "train_dead_share"), "0 is best", "share that never fires there"),
        _number("Stable features", metrics.get("stability"), "1 is best", "share with a partner in an SAE of another seed (cosine 0.7)"),
    ]  # fmt: skip
    return [each for each in found if each is not None]


def _number(name: str, value: Any, chance: str, meaning: str, behind: str = "") -> Number | None:
    return None if value is None else Number(name, f"{value:.3f}{behind}", chance, meaning)


def _annotated(results: Path) -> list[Number]:
    """Features with a gene set, beside shuffled gene names and each baseline."""
    path = results / ANNOTATION_NULLS.file
    if not path.exists():
        return []
    rows = ANNOTATION_NULLS.read(path)
    rows = rows[rows["collection"] == "all"]
    features = rows[rows["units"] == "features"]
    real = features[features["source"] == "features"]
    if real.empty or not int(real["n_units"].iloc[0]):
        return []
    parts = [
        f"{features.loc[features['source'] == null, 'share'].mean():.1%} with {words}"
        for null, words in (
            ("shuffled_genes", "gene names shuffled"),
            ("matched_genes", "names shuffled among like genes"),
        )
        if (features["source"] == null).any()
    ]
    for each in rows[(rows["source"] == rows["units"]) & (rows["units"] != "features")].itertuples():
        parts.append(f"{each.share:.1%} of {_KINDS.get(str(each.units).removesuffix('s'), each.units)}")
    n, of = int(real["n_annotated"].iloc[0]), int(real["n_units"].iloc[0])
    return [
        Number("Features with a gene set", f"{n / of:.1%} ({n:,} of {of:,})", "; ".join(parts), "at the run's q-value")
    ]


def _labels(results: Path, run: Run) -> list[Number]:
    """The best feature of each label, beside single units and neurons: mean held-out AUROC over the labels."""
    for table, key in ((CELL_TYPE_BASELINES, "cell_type"), (LABEL_BASELINES, "label")):
        path = results / table.file
        if path.exists():
            rows = table.read(path)
            means = rows.groupby("kind")["auroc"].mean().dropna()
            if "feature" not in means:
                return []
            unit = run.kind.nouns.unit
            beside = [
                f"{means[kind]:.3f} the best of {_KINDS.get(kind, f'single {unit}s')}"
                for kind in means.index
                if kind != "feature"
            ]
            n = rows.loc[rows["kind"] == "feature", key].nunique()
            return [
                Number(f"AUROC of {run.kind.nouns.labels}", f"{means['feature']:.3f}", "; ".join(["0.5 by chance", *beside]),
                       f"mean over {n} of the best single feature, chosen on training {run.kind.nouns.items}, on held-out ones")
            ]  # fmt: skip
    return []


def _concepts(results: Path) -> list[Number]:
    """Concepts of spans that a feature finds, beside neurons and random directions."""
    path = results / CONCEPT_COUNTS.file
    if not path.exists():
        return []
    rows = CONCEPT_COUNTS.read(path).set_index("kind")
    if "feature" not in rows.index:
        return []
    beside = [
        f"{int(each.n_concepts_found):,} {_KINDS.get(str(kind), str(kind))}"
        for kind, each in rows.iterrows()
        if kind != "feature"
    ]
    own = rows.loc["feature"]
    return [Number("Concepts found", f"{int(own['n_concepts_found']):,} of {int(own['n_concepts_tested']):,}", "; ".join(beside),
                   str(own["criterion"]))]  # fmt: skip


def features_of(run: Run, layer: int) -> pd.DataFrame:
    """One row per feature: layer, feature, name, sources, firing_rate, n_tokens, top units, and the best label with its test."""
    results = run.layer_results(layer)
    table = pd.read_parquet(results / "features.parquet")
    table.insert(0, "layer", layer)
    names_file = results / FEATURE_NAMES.file
    if names_file.exists():
        names = FEATURE_NAMES.read(names_file, ["feature", "name", "q_matched", "sources"])
        table = table.merge(
            names.rename(columns={"q_matched": "name_q_matched", "sources": "name_sources"}), on="feature", how="left"
        )
    for each, unit in ((FEATURE_GENES, "gene_symbol"), (FEATURE_UNITS, "unit_name")):
        if (results / each.file).exists():
            table = table.merge(_top_units(results / each.file, unit), on="feature", how="left")
    if (results / FEATURE_CONCEPTS.file).exists():
        table = table.merge(_best_concepts(results / FEATURE_CONCEPTS.file), on="feature", how="left")
    return table


def _best_concepts(path: Path) -> pd.DataFrame:
    """Of each feature the annotated concept that it finds best, whatever its q: the column beside it says how sure that is."""
    rows = FEATURE_CONCEPTS.read(path, ["feature", "name", "f1_residue", "q_value"])
    rows = rows.sort_values(["feature", "f1_residue"], ascending=[True, False]).drop_duplicates("feature")
    return rows.rename(
        columns={"name": "best_concept", "f1_residue": "best_concept_f1", "q_value": "best_concept_q_value"}
    )


def _top_units(path: Path, unit: str) -> pd.DataFrame:
    rows = pd.read_parquet(path, columns=["feature", unit, "rank_specificity"])
    rows = rows[rows["rank_specificity"] <= TOP_UNITS].sort_values(["feature", "rank_specificity"])
    lists = rows.groupby("feature")[unit].agg(", ".join)
    return lists.rename(f"top_{unit}s").reset_index()
