"""The report stage: report.md, figures, dashboard and JSON of the top associations, from whatever is done.

It runs although stages before it failed: what is missing, stale or damaged is named in the report, with the command that
makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix

from sae_genomics.atomic import remove_leftovers, write_text
from sae_genomics.commands import command, config_path, path_words
from sae_genomics.config import dump_config
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.report import (
    associations_json,
    figures,
    figures_annotation,
    groups,
    missing,
    nothing_heldout,
    provenance,
    section_annotation,
)
from sae_genomics.report.annotation import known
from sae_genomics.report.annotation_words import beside, headline, verdict
from sae_genomics.report.cells import CellSample, read_activations, read_embedding, sample_cells, top_cells
from sae_genomics.report.collect import LayerResults, Prepared, Problems, read_layer, read_prepared
from sae_genomics.report.contents import Contents, Example
from sae_genomics.report.dashboard import Dashboard
from sae_genomics.report.document import compose
from sae_genomics.report.markdown import code, count, escape, is_number
from sae_genomics.report.summary import GENES_SHOWN, LayerSummary, best_over_layers, side_by_side, summarise
from sae_genomics.run import Run
from sae_genomics.sae.quality import doubts
from sae_genomics.stages import stage_named

EMBEDDING_PANELS = 8


@dataclass
class _Layers:
    """What is kept of the layers after each was read: summaries, and the columns of X that a figure may show."""

    summaries: list[LayerSummary] = field(default_factory=list)
    activations: dict[tuple[int, int], npt.NDArray[np.float32]] = field(default_factory=dict)


def run_task(run: Run, task: int) -> None:
    """Write results/<run>/report.md, config.yaml, figures/, dashboard.html and each layer's JSON of associations.

    Raises nothing because of what other stages left or did not leave; OSError when its own files cannot be written.
    """
    for folder in (run.figures_dir, *map(run.layer_results, run.layers)):
        remove_leftovers(folder)  # of a report that was killed: these hold more than the files this stage must leave
    problems, kept = Problems(), _Layers()
    progress = Progress("report", len(run.layers) + 2, "steps", run.heartbeat_file(stage_named("report"), task))
    unfinished, done = missing.unfinished_tasks(run)
    prepared = read_prepared(run, problems)
    sample = problems.attempt(run.cells_file, sample_cells, run) if prepared.plan is not None else None
    dashboard = _new_dashboard(run, sample)
    progress.advance(1, "looked at what is done")
    for place, layer in enumerate(run.layers):
        stop_point()
        results = read_layer(run, place, problems, max(run.config.report.dashboard_genes, GENES_SHOWN))
        _take_layer(run, results, sample, dashboard, kept, problems)
        progress.advance(1, f"layer {layer}")

    best = problems.attempt("the best features over layers", best_over_layers, kept.summaries)
    wide = side_by_side(best) if best is not None else None
    drawn = _draw(run, kept, wide, sample, problems)
    _write_config(run)
    _write_dashboard(run, dashboard, _about(run, prepared, kept.summaries, len(unfinished)), problems)
    example = _example(kept, wide)
    contents = Contents(
        name=run.name,
        config=run.config,
        model_name=run.model_info.name,
        model=_model(run),
        prepared=prepared,
        layers=kept.summaries,
        wide=wide,
        provenance=provenance.gather(run, {(each.stage, each.unit) for each in unfinished}),
        unfinished=unfinished,
        done=done,
        problems=problems.found,
        resume=missing.resume_command(run),
        pipeline=command("pipeline", run),
        config_file=path_words(config_path(run)),
        overrides=run.overrides,
        figures=drawn,
        dashboard=run.dashboard_file.name if run.config.report.dashboard else "",
        example=example,
        **_files_of_layer(run, example),
        embedding=sample.basis if sample is not None else "",
    )
    write_text(run.report_file, compose(contents))
    progress.finish()
    say(f"report: {run.report_file}")


def _new_dashboard(run: Run, sample: CellSample | None) -> Dashboard:
    sae = run.config.sae
    per_layer = sae.d_sae or round(sae.expansion * run.model_info.d_model)
    genes = run.config.report.dashboard_genes
    return Dashboard(per_layer * len(run.layers), len(run.layers), genes, run.config.validation.fdr, sample)


def _take_layer(
    run: Run, results: LayerResults, sample: CellSample | None, dashboard: Dashboard, kept: _Layers, problems: Problems
) -> None:
    layer, settings = results.layer, run.config.report
    activations = _activations(results, sample, problems)
    summary = problems.attempt(
        f"numbers of layer {layer}", summarise, results, run.config.validation.fdr, settings.top_features
    )
    summary = summary or LayerSummary(layer, results.metrics or {})
    kept.summaries.append(summary)
    if activations is not None:
        kept.activations |= _drawn_columns(summary, activations)
    if settings.dashboard:
        problems.attempt(f"layer {layer} of the dashboard", dashboard.add, results, activations)
    problems.attempt(f"JSON files of layer {layer}", _write_associations, run, results, sample, activations)


def _activations(results: LayerResults, sample: CellSample | None, problems: Problems) -> csr_matrix | None:
    path = results.features_file
    if path is None or sample is None:
        return None
    if sample.xy is None:
        problems.attempt(path, read_embedding, path, sample)
    return problems.attempt(path, read_activations, path, sample)


def _drawn_columns(summary: LayerSummary, activations: csr_matrix) -> dict[tuple[int, int], npt.NDArray[np.float32]]:
    """The features that tell a cell type best in this layer, and its first best features: those a figure may show.

    (layer, feature) -> activation of the sampled cells.
    """
    features: list[int] = []
    if summary.baselines is not None:
        features += summary.baselines.loc[summary.baselines["kind"] == "feature", "unit"].astype(int).tolist()
    if summary.best is not None:
        features += summary.best["feature"].head(EMBEDDING_PANELS).astype(int).tolist()
    columns = np.array(sorted({each for each in features if 0 <= each < activations.shape[1]}), dtype=np.int64)
    dense = activations[:, columns].toarray()
    return {(summary.layer, int(feature)): dense[:, place] for place, feature in enumerate(columns)}


def _write_associations(
    run: Run, results: LayerResults, sample: CellSample | None, activations: csr_matrix | None
) -> None:
    folder = run.layer_results(results.layer)
    genes, cells = folder / associations_json.GENES_FILE, folder / associations_json.CELLS_FILE
    if results.genes is not None:
        associations_json.write_genes(genes, results, run.config.report.dashboard_genes)
    else:
        genes.unlink(missing_ok=True)  # what an earlier report wrote is of tables that are gone or stale
    if results.cell_types is not None:
        top = top_cells(activations, associations_json.CELLS_LISTED) if activations is not None else None
        associations_json.write_cells(cells, results, sample, top)
    else:
        cells.unlink(missing_ok=True)


def _draw(
    run: Run, kept: _Layers, wide: pd.DataFrame | None, sample: CellSample | None, problems: Problems
) -> dict[str, str]:
    """Draw every figure there is something for, remove those there is nothing for any more. name -> relative path."""
    layers, fdr = kept.summaries, run.config.validation.fdr
    drawings: dict[str, Callable[[], Figure | None]] = {
        "reconstruction": lambda: figures.reconstruction(layers),
        "annotation": lambda: figures_annotation.annotation(layers, fdr),
        "firing_rates": lambda: figures.firing_rates(layers),
        "cell_types": lambda: figures.cell_types(wide) if wide is not None else None,
        "embedding": lambda: _embedding(kept, wide, sample),
    }
    for each in layers:
        if each.annotation is not None:
            draw_layer = partial(figures_annotation.layer_annotation, each.layer, each.annotation, fdr)
            drawings[section_annotation.figure_name(each.layer)] = draw_layer
    for old in run.figures_dir.glob(section_annotation.FIGURES):
        if old.stem not in drawings:
            old.unlink()
    drawn = {}
    for name, draw in drawings.items():
        path = run.figures_dir / f"{name}.png"
        figure = problems.attempt(f"figure {path.name}", draw)
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        figures.save(figure, path)
        drawn[name] = f"{run.figures_dir.name}/{path.name}"
    return drawn


def _embedding(kept: _Layers, wide: pd.DataFrame | None, sample: CellSample | None) -> Figure | None:
    """The best feature of each of the largest cell types; without annotation the best features of the deepest layer."""
    if sample is None or sample.xy is None:
        return None
    wanted: list[tuple[str, int, int]] = []
    if wide is not None:
        largest = wide.sort_values(("feature", "n_cells"), ascending=False, kind="stable")
        rows = [(str(name), row) for name, row in largest.head(EMBEDDING_PANELS)["feature"].iterrows()]
        wanted = [(name, int(row["layer"]), int(row["unit"])) for name, row in rows if is_number(row["unit"])]
    else:
        deepest = next((each for each in reversed(kept.summaries) if each.best is not None and len(each.best)), None)
        if deepest is not None and deepest.best is not None:
            shown = deepest.best.head(EMBEDDING_PANELS)
            wanted = [
                (", ".join(genes[:3]), deepest.layer, int(feature))
                for feature, genes in zip(shown["feature"], shown["genes"], strict=True)
            ]
    panels = [
        (f"{figures.shorten(name, 30)}\nlayer {layer}, feature {feature}", kept.activations[layer, feature])
        for name, layer, feature in wanted
        if (layer, feature) in kept.activations
    ]
    return figures.embedding(sample, panels)


def _write_config(run: Run) -> None:
    path = run.results / "config.yaml"
    if run.config_file is None or run.config_file.resolve() != path.resolve():
        write_text(path, dump_config(run.config))


def _write_dashboard(run: Run, dashboard: Dashboard, about: dict[str, Any], problems: Problems) -> None:
    if not run.config.report.dashboard:
        run.dashboard_file.unlink(missing_ok=True)
        return
    before = len(problems.found)
    problems.attempt("dashboard.html", dashboard.write, run.dashboard_file, about)
    if len(problems.found) > before:
        notes = [*about["notes"], f"The features could not be put into this page: {problems.found[-1].message}"]
        _new_dashboard(run, None).write(run.dashboard_file, {**about, "notes": notes})


def _about(run: Run, prepared: Prepared, layers: list[LayerSummary], n_unfinished: int) -> dict[str, Any]:
    """What the dashboard says of the run."""
    plan, sae = prepared.plan or {}, run.config.sae
    facts = [run.model_info.name, f"{run.config.model.hook}, layers {', '.join(map(str, run.layers))}"]
    if plan.get("n_cells") is not None:
        facts.append(f"{count(plan['n_cells'])} cells, {count(plan.get('n_heldout'))} held out")
    if groups.is_so(plan):
        facts.append(
            f"{count(plan.get('n_groups'))} groups ({plan['group_key']}), {count(plan.get('n_heldout_groups'))} held out whole"
        )
    facts.append(f"{sae.architecture}, k = {sae.k}")
    notes = []
    if n_unfinished:
        notes.append(f"{n_unfinished} tasks of the run are not done: report.md beside this page says which and why.")
    if nothing_heldout.is_so(plan):
        notes.append(nothing_heldout.DASHBOARD_NOTE)
    elif not groups.is_so(plan) and any(each.baselines is not None for each in layers):
        notes.append(groups.DASHBOARD_CELLS_COUNTED)
    notes += [f"Layer {each.layer}: {text}." for each in layers if each.metrics for text in doubts(each.metrics)]
    return {
        "title": f"SAE features: {run.name}",
        "facts": facts,
        "layers": [_layer_facts(each) for each in layers],
        "above_chance": verdict(layers),
        "notes": notes,
    }


def _layer_facts(summary: LayerSummary) -> dict[str, Any]:
    note, metrics = summary.annotation, summary.metrics
    where = "" if metrics.get("heldout_tokens") else "train_"
    return {
        "layer": summary.layer,
        "fvu": known(metrics.get(f"{where}fvu")),
        "l0": known(metrics.get(f"{where}l0")),
        "n_features": summary.n_features,
        "headline": headline(summary.layer, note) if note else None,
        "beside": beside(note) if note else None,
        "sources": note.facts if note else [],
    }


def _model(run: Run) -> list[tuple[str, str]]:
    info = run.model_info
    size = f", {info.n_parameters / 1e6:.1f} M parameters" if info.n_parameters else ""
    return [
        (
            "Model",
            escape(info.name) + (f", published weights of commit {code(info.revision)}" if info.revision else ""),
        ),
        ("Architecture", f"{info.family}: {info.n_layers} layers, d_model {info.d_model}, {info.n_heads} heads{size}"),
        ("Where", f"`{run.config.model.hook}` of layers {', '.join(map(str, run.layers))}"),
    ]


def _example(kept: _Layers, wide: pd.DataFrame | None) -> Example | None:
    """The clearest cell type's feature, else the first of the best features."""
    if wide is not None:
        for name, row in wide["feature"].iterrows():
            if is_number(row["unit"]):
                layer, feature = int(row["layer"]), int(row["unit"])
                cells = "" if is_number(row["auroc"]) else " on the training cells"
                words = f"feature {feature} of layer {layer}, the best for {escape(name)}{cells}"
                return Example(layer, feature, words)
    for each in kept.summaries:
        if each.best is not None and len(each.best):
            feature = int(each.best["feature"].iloc[0])
            return Example(each.layer, feature, f"feature {feature} of layer {each.layer}")
    return None


def _files_of_layer(run: Run, example: Example | None) -> dict[str, Path]:
    """What is done of the example's layer, else of the first: `h5ad`, `sae` and `activations`, as absolute paths."""
    task = run.layers.index(example.layer) if example is not None else 0
    layer = run.layers[task]
    found: dict[str, Path] = {}
    if run.state(stage_named("associate"), task).done:
        found["h5ad"] = (run.layer_results(layer) / "features.h5ad").absolute()
    if run.state(stage_named("train"), task).done:
        found["sae"] = run.sae_dir(layer).absolute()
        if run.state(stage_named("extract"), 0).done:
            found["activations"] = run.activations_file(layer, 0).absolute()
    return found
