"""Known biology by source: does it beat simpler means, where not, which sources were left out, what the names rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from test_annotation import rows

from sae_genomics.config import parse_config
from sae_genomics.report import figures_sources, section_sources
from sae_genomics.report.annotation import Annotation, annotation, by_collection
from sae_genomics.report.comparison import PER_100, SETS, SHARE, by_source, paragraph, sentence
from sae_genomics.report.sources_left_out import HEADER, left_out
from sae_genomics.report.summary import LayerSummary
from sae_genomics.validation.normal_form.catalogue import read_catalogue
from sae_genomics.validation.null_rows import untested_rows


def found(
    n_features: int, annotated: int, terms: int, neurons: tuple[int, int], pca: tuple[int, int] = (0, 0)
) -> Annotation:
    parts = [*rows("features", n_features, annotated, terms, [0, 2], [0, 0]), *rows("neurons", 100, *neurons, [0], [0])]
    made = annotation(pd.DataFrame([*parts, *rows("pca", 100, *pca, [0], [0]), *untested_rows("ica", [])]))
    assert made is not None
    return made


AHEAD, TIED, BEHIND = (
    found(100, 20, 12, (30, 6), (1, 1)),
    found(100, 20, 9, (10, 9)),
    found(100, 5, 2, (50, 11), (60, 3)),
)


def test_where_the_features_lead_and_where_not_is_said_with_both_numbers() -> None:
    assert sentence([(0, AHEAD)], SETS) == (
        "The features find more different gene sets than every baseline in layer 0 (12, raw neurons 6)."
    )
    assert sentence([(0, AHEAD), (1, TIED), (2, BEHIND)], SETS) == (
        "The features find more different gene sets than every baseline in layer 0 (12, raw neurons 6). "
        "Not in layer 1 (9, raw neurons 9) and layer 2 (2, raw neurons 11)."
    )
    assert sentence([(2, BEHIND)], SETS) == (
        "In the one layer here the features do not find more different gene sets than every baseline: layer 2 (2, raw neurons 11)."
    )
    assert sentence([(1, TIED), (2, BEHIND)], SHARE) == (
        "The features match a gene set more often than every baseline in layer 1 (20.0 %, raw neurons 10.0 %). "
        "Not in layer 2 (5.0 %, principal components 60.0 %)."
    )
    assert sentence([(0, BEHIND), (1, TIED)], SETS).startswith("In no layer do the features find more")


def test_many_layers_are_told_in_ranges() -> None:
    layers = [(number, AHEAD) for number in range(20)] + [(20, BEHIND)]
    assert sentence(layers, SETS) == (
        "The features find more different gene sets than every baseline in 20 of 21 layers (features 12, the best baseline 6). "
        "Not in layer 20 (2, raw neurons 11)."
    )
    assert "in all 20 layers (" in sentence(layers[:20], SETS)


def test_many_more_features_than_units_are_compared_per_100_units_too() -> None:
    assert "per 100 units" not in paragraph([(0, AHEAD)])
    many = found(1000, 200, 12, (30, 6))
    assert paragraph([(0, many)]).endswith(
        "In the one layer here the features do not find more different gene sets per 100 units than every baseline: "
        "layer 0 (1.2, raw neurons 6.0)."
    )
    assert sentence([(0, many)], PER_100) in paragraph([(0, many)])


def test_without_a_baseline_there_is_no_comparison() -> None:
    alone = annotation(pd.DataFrame([*rows("features", 10, 3, 2, [0], [0]), *untested_rows("neurons", [])]))
    assert alone is not None
    assert paragraph([(0, alone)]) == ""


def test_each_source_is_told_apart() -> None:
    text = by_source({"go": [(0, AHEAD), (1, BEHIND)], "kegg": [(0, AHEAD), (1, AHEAD)]}, str.upper)
    assert text == (
        "By source, the features find more different gene sets than every baseline: GO: in 1 of 2 layers, not in layer 1; KEGG: in all 2 "
        "layers."
    )


def nulls(**of: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([{**row, "collection": name} for name, part in of.items() for row in part])


def test_the_rows_of_a_collection_are_its_own() -> None:
    table = nulls(
        all=rows("features", 100, 22, 9, [0], [0]),
        go=rows("features", 90, 4, 3, [1], [0]),
        kegg=rows("neurons", 90, 4, 3, [1], [0]),
    )
    assert annotation(table).features.n_annotated == 22  # type: ignore[union-attr]
    parts = by_collection(table)
    assert list(parts) == ["go"]
    assert (parts["go"].features.n_units, parts["go"].features.n_terms, parts["go"].features.matched.n_annotated) == (
        90,
        3,
        (1,),
    )


SOURCES = {"go": [(0, AHEAD), (1, BEHIND)], "hpo": [(0, found(100, 0, 0, (0, 0)))]}


def test_the_table_has_every_source_layer_and_baseline() -> None:
    lines = section_sources.source_table(SOURCES, str.upper).split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        "Source",
        "Layer",
        "SAE features",
        "by chance",
        "raw neurons",
        "principal components",
        "independent components",
    ]
    assert cells[2] == [
        "GO",
        "0",
        "20 (20.0 %), 12 sets",
        "1.0 (1.0 %), 1.0 sets",
        "30 (30.0 %), 6 sets",
        "1 (1.0 %), 1 set",
        "–",
    ]
    assert [row[:2] for row in cells[2:]] == [["GO", "0"], ["GO", "1"], ["HPO", "0"]]


def test_many_layers_get_one_row_per_source() -> None:
    many = {"go": [(number, AHEAD if number else BEHIND) for number in range(9)]}
    line = section_sources.range_table(many, []).split("\n")[2]
    assert line == (
        "| go | 9 | 5.0 % to 20.0 %, 2 to 12 sets | 1.0 %, 1.0 sets | 30.0 % to 50.0 %, 6 to 11 sets | 1.0 % to 60.0 %, 1 to 3 sets | – |"
    )


def test_the_figure_has_a_row_for_each_source_that_anything_matches() -> None:
    figure = figures_sources.by_source(SOURCES, {"go": "Gene Ontology"})
    assert figure is not None
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Gene Ontology: annotated units", "Gene Ontology: different gene sets",
    ]  # fmt: skip
    share, sets = figure.axes
    assert [list(line.get_ydata()) for line in share.lines if line.get_label() == "SAE features"] == [[0.2, 0.05]]
    assert [list(line.get_ydata()) for line in sets.lines if line.get_label() == "raw neurons"] == [[6, 11]]
    assert figures_sources.by_source({"hpo": SOURCES["hpo"]}, {}) is None


def test_sources_that_do_not_fit_or_match_nothing_are_no_rows() -> None:
    nothing = annotation(pd.DataFrame([*rows("features", 9, 0, 0, [0], [0]), *rows("neurons", 9, 0, 0, [0], [0])]))
    by_neurons = annotation(pd.DataFrame([*rows("features", 9, 0, 0, [0], [0]), *rows("neurons", 9, 1, 1, [0], [0])]))
    collections = [{"name": name, "n_fit": int(name != "kegg")} for name in ("go", "hpo", "kegg")]
    found = {"go": by_neurons, "hpo": nothing, "kegg": nothing}
    sources = section_sources.tested_of([LayerSummary(0, parts={"by_source": found, "collections": collections})])
    assert list(sources) == ["go", "hpo"]
    assert list(section_sources.matched_of(sources)) == ["go"]


def layer(names: list[tuple[str, str, str]], *collections: dict) -> LayerSummary:
    table = pd.DataFrame(names, columns=["name", "collection", "sources"])
    return LayerSummary(0, parts={"names": section_sources.NameCounts.of(table), "collections": list(collections)})


def test_what_the_names_rest_on_counts_no_statement_twice() -> None:
    names = [("a", "open_targets", "clinvar,go"), ("b", "go", "go"), ("unnamed", "", "")]
    clinvar = {"name": "clinvar", "title": "ClinVar", "contains": []}
    layers = [layer(names, clinvar, {"name": "open_targets", "contains": ["clinvar"]}), layer(names)]
    assert section_sources.rests_on(layers) == (
        "**What the names rest on.** 4 of 6 features have a name: the smallest of its strongest gene sets. The names rest on "
        "go (4) and ClinVar (2). 2 rest on two or more independent sources."
    )
    assert section_sources.contained(layers) == (
        "open_targets holds statements of ClinVar: a match with several of them is counted once."
    )
    assert section_sources.contained([layer(names, clinvar)]) == ""
    assert section_sources.rests_on([layer([("unnamed", "", "")])]) == ""


def config(folder: Path, **validation: object):
    return parse_config({"paths": {"databases": str(folder)}, "data": {"path": "x"}, "validation": validation}, "test")


def downloaded(folder: Path, name: str, **counts: int) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "source.json").write_text(
        json.dumps({"name": name, "counts": {"statements": 5, "edges": 0, **counts}})
    )


def test_every_source_that_was_left_out_has_its_reason(tmp_path: Path) -> None:
    for name in ("go", "hpo", "orphanet", "kegg"):
        downloaded(tmp_path, name)
    downloaded(tmp_path, "string", statements=0, edges=7)
    downloaded(tmp_path, "gencc", statements=0)
    tested = [{"name": "go", "n_sets": 9, "n_fit": 4}, {"name": "hpo", "n_sets": 12, "n_fit": 0}]
    text = left_out(config(tmp_path, databases=["go", "hpo", "string", "gencc", "kegg"]), tested)
    told = {}
    for line in text.split("\n")[4:]:
        titles, reason = (cell.strip() for cell in line.strip("| ").split(" | "))
        told[titles] = reason
    titles = {name: entry.title for name, entry in read_catalogue().items()}
    assert titles["go"] not in text
    assert titles["hgnc"] not in text
    assert told[titles["hpo"]] == "none of its 12 gene sets has enough genes of the data"
    assert told[titles["orphanet"]] == "`validation.databases` does not name it"
    assert told[titles["string"]] == "it has pairs of genes and no gene sets"
    assert told[titles["gencc"]] == "none of its rows could be used"
    assert told[titles["kegg"]] == "downloaded after the test; type the pipeline's command again"
    assert told[titles["omim"]] == "not downloaded; it needs an access key in the environment variable `OMIM_API_KEY`"
    absent = next(reason for names, reason in told.items() if titles["reactome"] in names)
    assert absent.startswith("not downloaded; `python scripts/download_databases.py --only open_targets gwas_catalog ")
    assert absent.endswith(f"--to {tmp_path}` fetches them")
    assert text.split("\n")[2] == f"| {HEADER[0]} | {HEADER[1]} |"


@pytest.mark.parametrize("is_there", [False, True])
def test_without_any_database_one_line_says_how_to_get_them(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path / "databases"
    if is_there:
        folder.mkdir()
    text = left_out(config(folder), [{"name": "my_sets", "n_sets": 3, "n_fit": 3}])
    assert "\n" not in text
    assert f"`python scripts/download_databases.py --to {folder}`" in text
    assert "Reactome" in text
