"""report.md of whole and of broken runs: what it says, that it is valid Markdown, that no name in it is markup."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import h5py
import pandas as pd
import pytest
import yaml
from conftest import write_report
from markdown_it import MarkdownIt
from planted_run import MARKUP, Plan, PlantedRun, planted_run

from sae_genomics.artifacts import ANNOTATION_NULLS, CELL_TYPE_BASELINES, FEATURE_GENES
from sae_genomics.atomic import read_json, write_json
from sae_genomics.cluster import attempts, jobs
from sae_genomics.commands import REPOSITORY
from sae_genomics.config import load_config
from sae_genomics.report import associations_json
from sae_genomics.stages import STAGES, stage_named


def rendered(text: str) -> str:
    """As GitHub renders it: CommonMark with tables, raw HTML let through."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def assert_valid(run: PlantedRun, text: str) -> None:
    """Every table has rows of one length, every local link and image leads to a file, no markup came from data."""
    lines = text.split("\n")
    for above, line in itertools.pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line)), line
    html = rendered(text)
    assert "<table>" in html
    for target in re.findall(r'(?:href|src)="([^"]*)"', html):
        path = target.split("#")[0]
        assert not path or (run.results / path).exists(), target
    tags = {tag.lower() for tag in re.findall(r"<([a-zA-Z][a-zA-Z0-9]*)", html)}
    allowed = {"h1", "h2", "h3", "p", "em", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "code",
               "pre", "img", "details", "summary"}  # fmt: skip
    assert tags <= allowed
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", html)
    assert text.count("<details>") == text.count("</details>")


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def problem_free(text: str) -> bool:
    return "could not be" not in text


def test_whole_report(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    assert_valid(finished, text)
    assert problem_free(text)
    titles = re.findall(r"^## (.*)$", text, flags=re.M)
    assert titles == [
        "What was run", "What is missing", "How faithful the features are", "Features that match known biology",
        "Features that tell cell types apart", "The best features", "What to do next", "Terms",
    ]  # fmt: skip
    assert "Nothing: all 12 tasks before this report are done." in text
    by_layer = [f"annotation_layer_{layer:02d}" for layer in finished.layers]
    for name in ("reconstruction", "annotation", *by_layer, "firing_rates", "cell_types", "embedding"):
        png = finished.figures_dir / f"{name}.png"
        assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"(figures/{name}.png)" in text
    run_section = section(text, "What was run")
    for fact in (
        "400, of which",
        "98.5 % of counts",
        "recovered from log-normalised",
        "torch 2.5.1",
        "node7",
        "412 MB",
        "topk, 200 features, k = 16",
    ):
        assert fact in run_section
    assert load_config(finished.results / "config.yaml") == finished.config


def test_numbers_are_those_of_the_tables(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    faithful = section(text, "How faithful the features are")
    for task, layer in enumerate(finished.layers):
        line = next(line for line in faithful.split("\n") if line.startswith(f"| {layer} |"))
        assert f"| {61 + 2 * task}.0 % |" in line  # stable
    assert f"another seed finds 61.0 % to {59 + 2 * len(finished.layers)}.0 % of the features again" in text
    biology = section(text, "Features that match known biology")
    for layer in finished.layers:
        nulls = ANNOTATION_NULLS.read(finished.layer_results(layer) / ANNOTATION_NULLS.file)
        nulls = nulls[nulls["collection"] == "all"]
        part = biology.split(f"### Layer {layer}: gene sets")[1].split("\n### ")[0]
        for units, label in (("features", "SAE features"), ("neurons", "raw neurons")):
            mine = nulls[nulls["units"] == units].set_index("source")
            own, line = mine.loc[units], next(line for line in part.split("\n") if line.startswith(f"| {label} |"))
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells[1] == str(own["n_units"])
            assert cells[2] == f"{own['n_annotated']} ({100 * own['share']:.1f} %)"
            assert cells[5] == str(own["n_terms"])
            assert cells[8] == f"{own['terms_per_100_units']:.1f}"
            for place, null in ((3, "matched_genes"), (4, "shuffled_genes")):
                rows = mine.loc[null]
                share = 100 * rows["share"].mean()
                assert (
                    cells[place] == f"{rows['n_annotated'].mean():.1f} ({share:.1f} %), max {rows['n_annotated'].max()}"
                )
                assert cells[place + 3] == f"{rows['n_terms'].mean():.1f}, max {rows['n_terms'].max()}"
                per_100 = rows["terms_per_100_units"]
                assert cells[place + 6] == f"{per_100.mean():.1f}, max {per_100.max():.1f}"
    tables = [
        CELL_TYPE_BASELINES.read(finished.layer_results(layer) / CELL_TYPE_BASELINES.file).assign(layer=layer)
        for layer in finished.layers
    ]
    features = (
        pd.concat(tables)
        .query("kind == 'feature'")
        .sort_values(["auroc_train", "layer"], ascending=[False, True], kind="stable")
    )
    types = section(text, "Features that tell cell types apart")
    for row in features.drop_duplicates("cell_type").to_dict("records"):
        few = " (few)" if row["n_cells"] < 20 else ""
        line = next(
            line for line in types.split("\n") if line.startswith(f"| {row['cell_type']} | {row['n_cells']}{few} |")
        )
        assert f"[{row['unit']}](dashboard.html#layer={row['layer']}&feature={row['unit']})" in line
        assert f"{row['auroc']:.3f}" in line


def test_no_share_of_annotated_features_without_its_null(finished: PlantedRun) -> None:
    n_found = 0
    for line in finished.report_file.read_text().split("\n"):
        if re.search(r"features \([\d.]+ %\) match", line):
            n_found += 1
            assert re.search(
                r"names shuffled among genes of the same expression [\d.]+ \([\d.]+ %\) on average, at most \d", line
            )
    assert n_found == 3 * len(finished.layers)  # in the opening, above the layer's table, and beside its best features


def test_what_is_above_chance_is_said_first(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    points = [line for line in text.split("\n## ")[0].split("\n") if line.lstrip().startswith("- ")]
    assert points[0] == (
        "- **Known biology.** Above chance in layers 0, 1 and 2: more features match a known gene set than in any of 10 shuffles of "
        "gene names among genes of the same expression. In no layer do the features find more different gene sets than every baseline: "
        "layer 0 (10, raw neurons 10), layer 1 (10, raw neurons 10) and layer 2 (10, raw neurons 10). A match is a gene set at q < 0.05."
    )
    for layer, line in zip(finished.layers, points[1:], strict=False):
        nulls = ANNOTATION_NULLS.read(finished.layer_results(layer) / ANNOTATION_NULLS.file)
        own, neurons = (nulls[nulls["source"] == source].iloc[0] for source in ("features", "neurons"))
        assert line == (
            f"  - Layer {layer}: {own['n_annotated']} of {own['n_units']} features ({100 * own['share']:.1f} %) match a gene set; with "
            f"names shuffled among genes of the same expression 0.9 ({90 / own['n_units']:.1f} %) on average, at most 2. The features "
            f"find {own['n_terms']} different gene sets; raw neurons {neurons['n_terms']}."
        )


def test_the_first_paragraph_on_known_biology_says_whether_features_beat_the_rest(finished: PlantedRun) -> None:
    biology = section(finished.report_file.read_text(), "Features that match known biology").strip()
    first = biology.split("\n\n")[0]
    assert first.startswith("Above chance in layers 0, 1 and 2: ")
    assert (
        "In no layer do the features find more different gene sets than every baseline: layer 0 (10, raw neurons 10)"
        in first
    )
    assert "match a gene set more often than every baseline in layer 0 (21.2 %, raw neurons 6.9 %)" in first
    assert "| builtin | 0 | 40 (21.2 %), 10 sets | 0.9 (0.5 %), 0.9 sets | 13 (6.9 %), 10 sets |" in biology
    assert "120 of 572 features have a name" in biology


def test_both_nulls_are_explained_and_nothing_is_divided_by_chance(finished: PlantedRun) -> None:
    biology = section(finished.report_file.read_text(), "Features that match known biology")
    assert len(re.findall(r"^- \*Same expression\*: [^.]*this keeps [^.]*\.$", biology, flags=re.M)) == 1
    assert len(re.findall(r"^- \*Any gene\*: [^.]*this keeps [^.]*\.$", biology, flags=re.M)) == 1
    assert not re.search(r"\d x\b", biology)


def test_names_with_markup_show_as_text(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    html = rendered(text)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    images = re.findall(r'<img src="([^"]*)"', html)
    by_layer = [f"annotation_layer_{layer:02d}" for layer in finished.layers]
    assert images == [
        f"figures/{name}.png"
        for name in (
            "reconstruction",
            "firing_rates",
            "annotation_sources",
            "annotation",
            *by_layer,
            "cell_types",
            "embedding",
        )
    ]
    assert "<script" not in html


def test_json_for_earlier_scripts(finished: PlantedRun) -> None:
    folder = finished.layer_results(1)
    genes = json.loads((folder / associations_json.GENES_FILE).read_text())
    table = FEATURE_GENES.read(folder / FEATURE_GENES.file)
    for feature, group in table.groupby("feature"):
        expected = group.nsmallest(10, "rank_score")["gene_symbol"].tolist()
        assert [entry["gene_symbol"] for entry in genes["features"][str(feature)]] == expected
    cells = json.loads((folder / associations_json.CELLS_FILE).read_text())
    with h5py.File(folder / "features.h5ad") as file:
        pointers, values, indices = (file["X"][name][:] for name in ("indptr", "data", "indices"))
    feature = next(iter(cells["features"]))
    rows = [
        row
        for row in range(len(pointers) - 1)
        for place in range(pointers[row], pointers[row + 1])
        if indices[place] == int(feature)
    ]
    strongest = sorted(
        (value for value, column in zip(values, indices, strict=True) if column == int(feature)), reverse=True
    )
    listed = cells["features"][feature]["cells"]
    assert [entry["max_activation"] for entry in listed] == pytest.approx(strongest[:10], rel=1e-5)
    assert {entry["cell_id"] for entry in listed} <= {f"cell_{row}" for row in rows}
    areas = [entry["auroc"] for entry in cells["features"][feature]["cell_types"]]
    assert areas == sorted(areas, reverse=True)


def test_missing_tasks_are_named_with_reason_and_command(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    for path in stage_named("train").files(run, 1):
        path.unlink()
    (run.layer_results(2) / ANNOTATION_NULLS.file).unlink()
    run.logs.mkdir(parents=True, exist_ok=True)
    attempts.begin(run, stage_named("train"), 1)
    attempts.end(run, stage_named("train"), 1, "failed", 1, "RuntimeError: no space left | <here>")
    write_json(
        run.heartbeat_file(stage_named("validate"), 2),
        {"label": "validate", "done": 40.0, "total": 200.0, "unit": "features", "time": 1767261600.0, "host": "node9"},
    )
    text = write_report(run)
    assert_valid(run, text)
    assert problem_free(text)
    gap = section(text, "What is missing")
    assert "2 of 12 tasks are not done." in gap  # the layer's later tables still stand and are done
    train = next(line for line in gap.split("\n") if line.startswith("| train |"))
    assert "layer 01" in train
    assert "missing" in train
    assert "RuntimeError: no space left \\| &lt;here&gt;" in train
    validate = next(line for line in gap.split("\n") if line.startswith("| validate |"))
    assert "at 40 of 200 features" in validate
    assert "node9" in validate
    assert f"bash {REPOSITORY}/slurm/00_full_pipeline.sh {run.config_file}" in gap
    assert "not complete" in text.split("## ")[0]
    biology = section(text, "Features that match known biology")
    assert "### Layer 1: gene sets" in biology
    assert "### Layer 2: gene sets" not in biology


def test_the_reason_is_that_of_the_job_that_held_the_task(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    for layer in run.layers:
        shutil.rmtree(run.sae_dir(layer))
    run.logs.mkdir(parents=True, exist_ok=True)
    job = jobs.Job(
        "2026-01-01T10:00:00", "me", "train", "77", "1", 1, 1, "", "", "", "out", f"{run.logs}/train_%A_%a.err"
    )
    jobs.add_jobs(run, [job])
    (run.logs / "train_77_1.err").write_text(
        "slurmstepd: error: *** JOB 77 ON node3 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n\n"
    )
    gap = section(write_report(run), "What is missing")
    rows = {line.split("|")[2].strip(): line for line in gap.split("\n") if line.startswith("| train |")}
    assert "no trace found" in rows["layer 01"]
    assert "TIMEOUT" in rows["layer 02"]  # index 1 with offset 1 is task 2


def test_slurm_runs_get_the_slurm_command(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    shutil.rmtree(run.sae_dir(0))
    run.logs.mkdir(parents=True, exist_ok=True)
    run.jobs_file.write_text("job\n")
    assert f"bash {REPOSITORY}/slurm/resubmit_failed.sh {run.config_file}" in write_report(run)


def test_waiting_tasks_are_told_from_failed_ones(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    shutil.rmtree(run.sae_dir(1))
    shutil.rmtree(run.layer_results(1))
    gap = section(write_report(run), "What is missing")
    assert "Waiting for tasks before them: associate (layer_01); validate (layer_01)." in gap


def test_stale_results_are_not_shown(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    changed = run.config.model_copy(update={"validation": run.config.validation.model_copy(update={"fdr": 0.01})})
    later = PlantedRun(changed, 3, run.config_file)
    text = write_report(later)
    gap = section(text, "What is missing")
    assert "3 of 12 tasks are not done." in gap
    assert "validation.fdr was 0.05, is 0.01" in gap
    assert section(text, "Features that match known biology").strip() == "Not tested yet."
    assert not list(run.figures_dir.glob("annotation*.png"))


@pytest.mark.parametrize(
    "name",
    [
        "feature_genes.parquet",
        "annotation_nulls.parquet",
        "features.parquet",
        "features.h5ad",
        "feature_cell_types.parquet",
    ],
)
def test_damaged_file_is_named_and_the_rest_shown(tmp_path: Path, name: str) -> None:
    run = planted_run(tmp_path)
    path = run.layer_results(1) / name
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size and time, so it still looks done
    text = write_report(run)
    assert_valid(run, text)
    gap = section(text, "What is missing")
    assert f"{path.name} is damaged" in gap
    assert "could not be made" not in gap
    assert "not complete" in text.split("## ")[0]
    assert "### Layer 0" in text
    assert run.dashboard_file.exists()


def test_damaged_plan_and_cells(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    for path in (run.plan_file, run.cells_file):
        path.write_bytes(b"\xff" * path.stat().st_size)
    text = write_report(run)
    assert_valid(run, text)
    missing = section(text, "What is missing")
    assert f"{run.plan_file.name} is damaged" in missing or f"{run.cells_file.name} is damaged" in missing, missing


def test_nothing_done_yet(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    shutil.rmtree(run.results)
    shutil.rmtree(run.checkpoints)
    text = write_report(run)
    assert_valid(run, text)
    assert problem_free(text)
    assert "Nothing is known yet" in text
    assert "12 of 12 tasks are not done." in text
    assert "No trained autoencoder yet." in text
    assert not list(run.figures_dir.glob("*.png"))
    assert run.dashboard_file.exists()


@pytest.mark.parametrize(
    "plan",
    [
        Plan(annotated=False, layers=1), Plan(embedding=False, layers=2), Plan(terms=False, layers=2), Plan(layers=1, d_sae=1),
        Plan(layers=1, n_cells=8, d_sae=12, annotated=False, embedding=False, terms=False),
    ],
    ids=["no annotation", "no embedding", "nothing annotated", "one feature", "tiny"],
)  # fmt: skip
def test_poorer_runs(tmp_path: Path, plan: Plan) -> None:
    run = planted_run(tmp_path, plan)
    text = write_report(run)
    assert_valid(run, text)
    assert problem_free(text)
    assert "Nothing: all" in text
    assert "nan" not in text.lower().replace("anand", "")
    types = section(text, "Features that tell cell types apart")
    assert ("data.cell_type_key" in types) == (not plan.annotated)
    assert ("figures/embedding.png" in text) == plan.embedding
    if not plan.terms:
        assert (
            "In none of the 2 layers do more features match" in text
            or "In the one layer here no more features match" in text
        )
        assert "nothing is above chance" in text
        assert re.search(r"Layer 0: 0 of \d+ features \(0.0 %\) match a gene set; with names shuffled", text)


def test_empty_tables(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1))
    from sae_genomics import artifacts

    folder = run.layer_results(0)
    for table in artifacts.LAYER_TABLES:
        table.write(folder / table.file, table.schema.empty_table().to_pandas())
    for stage in ("associate", "validate"):
        run.write_manifest(stage_named(stage), 0, {"seconds": 1.0})
    text = write_report(run)
    assert_valid(run, text)
    assert problem_free(text)


def test_report_without_dashboard(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1), report={"dashboard": False})
    text = write_report(run)
    assert_valid(run, text)
    assert "dashboard.html" not in text
    assert not run.dashboard_file.exists()


def test_report_is_stale_when_more_is_done(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    nulls = run.layer_results(2) / ANNOTATION_NULLS.file
    content = nulls.read_bytes()
    nulls.unlink()
    write_report(run)
    report = stage_named("report")
    assert run.state(report, 0).done
    nulls.write_bytes(content)
    assert run.state(report, 0).status == "stale"
    assert "Nothing: all 12" in write_report(run)


def test_own_config_beside_the_results_is_left_alone(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1))
    own = run.results / "config.yaml"
    own.write_text("# mine\n" + run.config_file.read_text())
    write_report(PlantedRun(run.config, 1, own))
    assert own.read_text().startswith("# mine\n")


def test_snippets_name_files_that_exist(finished: PlantedRun) -> None:
    text = section(finished.report_file.read_text(), "What to do next")
    paths = re.findall(r"\('(/[^']*)'[,)]", text)
    assert len(paths) == 3
    assert all(Path(path).exists() for path in paths)
    assert yaml.safe_load((finished.results / "config.yaml").read_text())["sae"]["k"] == 16


def test_manifest_lists_only_files_that_are_there(finished: PlantedRun) -> None:
    manifest = read_json(finished.manifest_file(stage_named("report"), 0))
    assert set(manifest["files"]) == {"report.md", "dashboard.html", "annotations.parquet", "annotations.tsv"}
    assert not list(finished.results.rglob(".partial-*"))
    assert [stage.name for stage in STAGES][-1] == "report"
    assert MARKUP[0] in json.dumps(read_json(finished.layer_results(0) / associations_json.GENES_FILE))


def test_what_a_killed_report_left_half_written_goes(tmp_path):
    run = planted_run(tmp_path, Plan())
    killed = subprocess.Popen(["true"])
    killed.wait()
    places = [run.figures_dir, run.layer_results(run.layers[0]), run.results]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / f".partial-{socket.gethostname()}-{killed.pid}-1-annotation.png").touch()
    write_report(run)
    assert not list(tmp_path.rglob(".partial-*"))
