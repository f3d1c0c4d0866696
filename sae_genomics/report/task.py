"""The report stage: report.md, figures, dashboard and JSON of the top associations, from whatever is done.

It runs although stages before it failed: what is missing, stale or damaged is named in the report, with the command that
makes it.
"""

from __future__ import annotations

from sae_genomics.atomic import remove_leftovers, write_text
from sae_genomics.commands import command, config_path, path_words
from sae_genomics.config import dump_config
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.report import dashboard_about, figures, missing, provenance
from sae_genomics.report.cells import read_activations, read_embedding, sample_cells
from sae_genomics.report.collect import LayerResults, Problems, done_files, read_layer, read_prepared, read_run_tables
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.contributions import contributions
from sae_genomics.report.dashboard import Dashboard
from sae_genomics.report.dashboard_panel import PanelSettings
from sae_genomics.report.document import compose
from sae_genomics.report.markdown import code, escape
from sae_genomics.report.summary import LayerSummary, summarise
from sae_genomics.report.wording import in_nouns, wording_of
from sae_genomics.run import Run
from sae_genomics.stages import stage_named


def run_task(run: Run, task: int) -> None:
    """Write results/<run>/report.md, config.yaml, figures/, dashboard.html and each layer's JSON of associations.

    Raises nothing because of what other stages left or did not leave; OSError when its own files cannot be written.
    """
    for folder in (run.figures_dir, *map(run.layer_results, run.layers)):
        remove_leftovers(folder)  # of a report that was killed: these hold more than the files this stage must leave
    problems, wording = Problems(), wording_of(run)
    applying = contributions(run)
    progress = Progress("report", len(run.layers) + 2, "steps", run.heartbeat_file(stage_named("report"), task))
    unfinished, done = missing.unfinished_tasks(run)
    contents = Contents(run, wording, model=_model(run), unfinished=unfinished, done=done, problems=problems.found)
    contents.prepared = read_prepared(run, problems)
    if contents.prepared.plan is not None and run.cells_file.exists():
        contents.sample = problems.attempt(run.cells_file, sample_cells, run)
    contents.run_results = read_run_tables(run, problems, [table for each in applying for table in each.run_tables])
    said = contents.run_results.inference
    contents.run_results.inference = {name: in_nouns(each, wording) for name, each in said.items()}
    dashboard = _new_dashboard(contents, applying)
    progress.advance(1, "looked at what is done")
    readings = [table for each in applying for table in each.tables]
    for index, layer in enumerate(run.layers):
        stop_point()
        results = read_layer(run, index, problems, readings)
        results.inference = {name: in_nouns(said, wording) for name, said in results.inference.items()}
        _take_layer(contents, results, applying, dashboard, problems)
        progress.advance(1, f"layer {layer}")

    for each in applying:
        if each.gather is not None:
            problems.attempt(f"{each.name} over layers", each.gather, contents)
    contents.figures = _draw(contents, applying, problems)
    _write_config(run)
    _write_dashboard(contents, applying, dashboard, problems)
    contents.provenance = provenance.gather(run, {(each.stage, each.unit) for each in unfinished})
    contents.resume, contents.pipeline = missing.resume_command(run), command("pipeline", run)
    contents.config_file = path_words(config_path(run))
    contents.dashboard = run.dashboard_file.name if run.config.report.dashboard else ""
    _take_example(contents, applying)
    write_text(run.report_file, compose(contents, applying))
    progress.finish()
    say(f"report: {run.report_file}")


def _new_dashboard(contents: Contents, applying: list[Contribution]) -> Dashboard:
    run = contents.run
    settings = PanelSettings(
        contents.config, run.d_sae * len(run.layers), len(run.layers), contents.sample, contents.run_results
    )
    panels = [each.panel(settings) for each in applying if each.panel is not None]
    return Dashboard(panels, contents.run_results.inference)


def _take_layer(
    contents: Contents, results: LayerResults, applying: list[Contribution], dashboard: Dashboard, problems: Problems
) -> None:
    layer = results.layer
    _read_activations(contents, results, problems)
    summary = problems.attempt(f"numbers of layer {layer}", summarise, results)
    summary = summary or LayerSummary(layer, results.metrics or {})
    contents.layers.append(summary)
    for each in applying:
        if each.take_layer is not None:
            problems.attempt(f"{each.name} of layer {layer}", each.take_layer, contents, results, summary)
    if contents.config.report.dashboard:
        problems.attempt(f"layer {layer} of the dashboard", dashboard.add, results)


def _read_activations(contents: Contents, results: LayerResults, problems: Problems) -> None:
    path, sample = results.features_file, contents.sample
    if path is None or sample is None:
        return
    if sample.xy is None:
        problems.attempt(path, read_embedding, path, sample)
    results.activations = problems.attempt(path, read_activations, path, sample)


def _draw(contents: Contents, applying: list[Contribution], problems: Problems) -> dict[str, str]:
    """Draw every figure there is something for, remove those there is nothing for any more. name -> relative path."""
    folder, drawn = contents.run.figures_dir, {}
    for each in applying:
        for name, draw in (problems.attempt(f"figures of {each.name}", each.figures, contents) or {}).items():
            path = folder / f"{name}.png"
            figure = problems.attempt(f"figure {path.name}", draw)
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            figures.save(figure, path)
            drawn[name] = f"{folder.name}/{path.name}"
        for pattern in each.figure_files:
            for old in folder.glob(pattern):
                if old.stem not in drawn:
                    old.unlink()
    return drawn


def _write_config(run: Run) -> None:
    path = run.results / "config.yaml"
    if run.config_file is None or run.config_file.resolve() != path.resolve():
        write_text(path, dump_config(run.config))


def _write_dashboard(
    contents: Contents, applying: list[Contribution], dashboard: Dashboard, problems: Problems
) -> None:
    path = contents.run.dashboard_file
    if not contents.config.report.dashboard:
        path.unlink(missing_ok=True)
        return
    before, about = len(problems.found), dashboard_about.about(contents, applying)
    problems.attempt("dashboard.html", dashboard.write, path, about)
    if len(problems.found) > before:
        notes = [*about["notes"], f"The features could not be put into this page: {problems.found[-1].message}"]
        contents.sample = None
        _new_dashboard(contents, applying).write(path, {**about, "notes": notes})


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


def _take_example(contents: Contents, applying: list[Contribution]) -> None:
    """The first example that a contribution has; and what is done of its layer, else of the first, as absolute paths."""
    run = contents.run
    found = (each.example(contents) for each in applying if each.example is not None)
    contents.example = next((example for example in found if example is not None), None)
    task = run.layers.index(contents.example.layer) if contents.example is not None else 0
    layer, done = run.layers[task], done_files(run, "layer", task)
    h5ad, weights = run.layer_results(layer) / "features.h5ad", run.sae_dir(layer) / "sae_weights.safetensors"
    shard = run.activations_file(layer, 0)
    contents.h5ad = h5ad.absolute() if h5ad in done else None
    if weights in done:
        contents.sae = weights.parent.absolute()
        contents.shard = shard.absolute() if shard in done_files(run, "shard", 0) else None
