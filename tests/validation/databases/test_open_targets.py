"""Open Targets: both layouts, all names of folders, kinds of evidence, diseases that were replaced, and what is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.databases import load_collections, open_targets
from sae_genomics.validation.normal_form.build import build
from sae_genomics.validation.normal_form.catalogue import read_catalogue
from sae_genomics.validation.normal_form.hgnc import no_genes
from sae_genomics.validation.normal_form.schema import TERMS_FILE, read_table
from tests.validation.databases.counts import check, dropped
from tests.validation.excerpts import excerpt

OVERALL, BY_SOURCE = "association_overall_direct", "association_by_datasource_direct"
PART = "part-00000-86fc51a8-1d24-4753-b840-4a0b6289c221-c000.zstd.parquet"
_YEARS = pa.list_(
    pa.struct([
        ("year", pa.int32()), ("associationScore", pa.float64()), ("novelty", pa.float64()), ("yearlyEvidenceCount", pa.int64()),
    ])
)  # fmt: skip
# disease, target, score, data source
OVERALL_ROWS = [("MONDO_0000001", "ENSG01", 0.9, "None"), ("EFO_0000002", "ENSG02", 0.2, "None")]
SOURCE_ROWS = [
    ("MONDO_0000001", "ENSG01", 0.5, "gwas_credible_sets"), ("MONDO_0000001", "ENSG01", 0.8, "eva"),
    ("MONDO_0000001", "ENSG01", 0.7, "expression_atlas"), ("MONDO_0000001", "ENSG01", 0.3, "europepmc"),
    ("EFO_0000002", "ENSG02", 0.6, "clinical_precedence"), ("EFO_0000002", "ENSG02", 0.1, "chembl"),
    ("Orphanet_3", "ENSG03", 0.4, "impc"), ("Orphanet_3", "ENSG03", 0.4, "reactome"), ("Orphanet_3", "ENSG03", 0.4, "intogen"),
]  # fmt: skip


def associations(rows: list[tuple[str, str, float, str]], kind: str, new: bool, large: bool = False) -> pa.Table:
    text = pa.large_string() if large else pa.string()
    disease, target, score, source = zip(*rows, strict=True) if rows else ((), (), (), ())
    ids = {"diseaseId": pa.array(disease, text), "targetId": pa.array(target, text)}
    count = pa.array([1] * len(rows), pa.int64())
    if new:
        year = [{"year": None, "associationScore": 0.1, "novelty": None, "yearlyEvidenceCount": 1}]
        return pa.table({
            **ids, "aggregationType": pa.array([kind] * len(rows), text), "aggregationValue": pa.array(source, text),
            "associationScore": pa.array(score, pa.float64()), "evidenceCount": count,
            "timeseries": pa.array([year * 3] * len(rows), _YEARS), "currentNovelty": pa.array([0.5] * len(rows)),
        })  # fmt: skip
    more = (
        {}
        if kind == "overall"
        else {
            "datatypeId": pa.array(["genetic_literature"] * len(rows), text),
            "datasourceId": pa.array(source, text),
        }
    )
    return pa.table({**ids, **more, "score": pa.array(score, pa.float64()), "evidenceCount": count})


def write(folder: Path, name: str, table: pa.Table, part: str = PART, **options: Any) -> None:
    (folder / name).mkdir(exist_ok=True, parents=True)
    pq.write_table(table, folder / name / part, compression="zstd", **options)


def tables(folder: Path, target: str = "target", disease: str = "disease", large: bool = False) -> Path:
    """The tables of targets and diseases."""
    text = pa.large_string() if large else pa.string()
    texts = pa.large_list(text) if large else pa.list_(text)
    write(
        folder,
        target,
        pa.table(
            {
                "id": pa.array(["ENSG01", "ENSG02"], text),
                "approvedSymbol": pa.array(["AAA", "BBB"], text),
                "biotype": pa.array(["protein_coding"] * 2, text),
            }
        ),
    )
    diseases = [
        ("MONDO_0000001", "blue nails", ["MONDO_0000009", "OTAR_0000020"], ["EFO_0000685", "EFO_0000007"]),
        ("EFO_0000002", "red hair", [], None),
        ("Orphanet_3", "rare hair", None, ["EFO_0000002", "EFO_0000007"]),
    ]
    columns = list(zip(*diseases, strict=True))
    write(folder, disease, pa.table({
        "id": pa.array(columns[0], text), "name": pa.array(columns[1], text), "parents": pa.array(columns[2], texts),
        "obsoleteTerms": pa.array(columns[3], texts), "description": pa.array([None] * 3, text),
    }), part="00000000.parquet")  # fmt: skip
    return folder


def found(statements) -> list[tuple[Any, ...]]:
    columns = ["term_id", "ensembl_id", "category", "evidence", "score"]
    return sorted(statements.terms[columns].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("overall", "by_source", "target", "disease", "propagated"),
    [
        (OVERALL, BY_SOURCE, "target", "disease", False),
        ("association_overall_indirect", "association_by_datasource_indirect", "target", "disease", True),
        ("association_by_overall_indirect", "association_by_datasource_indirect", "target", "disease", True),
        ("associationByOverallDirect", "associationByDatasourceDirect", "targets", "diseases", False),
        ("associationByOverallIndirect", "associationByDatasourceIndirect", "targets", "diseases", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("new", [True, False], ids=["since 26.03", "before"])
def test_layouts_and_names(tmp_path: Path, overall: str, by_source: str, target: str, disease: str, propagated: bool, new: bool) -> None:  # fmt: skip
    tables(tmp_path, target, disease)
    write(tmp_path, overall, associations(OVERALL_ROWS, "overall", new))
    write(tmp_path, by_source, associations(SOURCE_ROWS[:4], "datasourceId", new))
    write(tmp_path, by_source, associations(SOURCE_ROWS[4:], "datasourceId", new), part="part-00001-c000.parquet")
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=11)
    assert statements.propagated == propagated
    assert statements.dropped == {"duplicate": 2}
    assert len(statements.terms) == 11 - dropped(statements)
    assert found(statements) == [
        ("EFO:0000002", "ENSG02", "clinical", "clinical_precedence", 0.6), ("EFO:0000002", "ENSG02", "overall", "overall", 0.2),
        ("MONDO:0000001", "ENSG01", "expression", "expression_atlas", 0.7), ("MONDO:0000001", "ENSG01", "genetic", "eva", 0.8),
        ("MONDO:0000001", "ENSG01", "overall", "overall", 0.9), ("MONDO:0000001", "ENSG01", "text-mining", "europepmc", 0.3),
        ("ORPHA:3", "ENSG03", "animal-model", "impc", 0.4), ("ORPHA:3", "ENSG03", "pathway", "reactome", 0.4),
        ("ORPHA:3", "ENSG03", "somatic", "intogen", 0.4),
    ]  # fmt: skip
    genes = dict(zip(statements.terms["ensembl_id"], statements.terms["gene_symbol"], strict=True))
    assert genes == {"ENSG01": "AAA", "ENSG02": "BBB", "ENSG03": ""}
    names = dict(zip(statements.terms["term_id"], statements.terms["term_name"], strict=True))
    assert names == {"MONDO:0000001": "blue nails", "EFO:0000002": "red hair", "ORPHA:3": "rare hair"}
    assert list(statements.parents.itertuples(index=False, name=None)) == [
        ("MONDO:0000001", "MONDO:0000009", ""),
        ("MONDO:0000001", "OTAR:0000020", ""),
    ]
    assert any("has no therapeuticAreas" in note for note in statements.notes)


def test_large_strings(tmp_path: Path) -> None:
    tables(tmp_path, large=True)
    write(tmp_path, OVERALL, associations(OVERALL_ROWS, "overall", new=True, large=True))
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=2)
    assert f"associations by datasource are not there: {BY_SOURCE} is missing" in statements.notes


def test_texts_that_are_stored_as_numbers(tmp_path: Path) -> None:
    table = associations(SOURCE_ROWS, "datasourceId", new=True)
    for i, name in enumerate(table.column_names):
        if table.schema.types[i] == pa.string():
            table = table.set_column(i, name, table[name].dictionary_encode())
    write(tables(tmp_path), BY_SOURCE, table)
    check(open_targets.read(tmp_path), rows_read=9)


def test_obsolete_and_unknown_diseases(tmp_path: Path) -> None:
    rows = [
        ("EFO_0000685", "ENSG01", 0.3, "None"),  # now MONDO_0000001
        ("MONDO_0000001", "ENSG01", 0.2, "None"),
        ("EFO_0000002", "ENSG01", 0.5, "None"),  # in use, though another claims to replace it
        ("EFO_0000007", "ENSG01", 0.6, "None"),  # two claim to replace it
        ("", "ENSG01", 0.6, "None"),
    ]
    write(tables(tmp_path), OVERALL, associations(rows, "overall", new=True))
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=5)
    assert statements.dropped == {"duplicate": 1, "no disease or no target": 1}
    assert [(row[0], row[4]) for row in found(statements)] == [
        ("EFO:0000002", 0.5), ("EFO:0000007", 0.6), ("MONDO:0000001", 0.3),
    ]  # fmt: skip
    assert "1 associations name an obsolete disease, which its successor replaces" in statements.notes
    assert any("EFO_0000007" in note for note in statements.notes)


def test_a_data_source_of_no_known_kind(tmp_path: Path) -> None:
    rows = [("MONDO_0000001", "ENSG01", 0.3, "brand_new")]
    write(tables(tmp_path), BY_SOURCE, associations(rows, "datasourceId", new=True))
    statements = open_targets.read(tmp_path)
    assert found(statements) == [("MONDO:0000001", "ENSG01", "other", "brand_new", 0.3)]
    assert "data sources of no known kind, in category 'other': brand_new" in statements.notes
    write(tmp_path, BY_SOURCE, associations(rows, "datasourceId", new=False))  # this layout says the kind
    assert open_targets.read(tmp_path).terms["category"].tolist() == ["genetic"]


def test_time_series_are_never_read(tmp_path: Path) -> None:
    """Their bytes are destroyed."""
    rows = [("MONDO_0000001", f"ENSG{i:02d}", i / 100, "None") for i in range(100)]
    write(tables(tmp_path), OVERALL, associations(rows, "overall", new=True), row_group_size=30)
    part = tmp_path / OVERALL / PART
    metadata, data = pq.read_metadata(part), bytearray(part.read_bytes())
    assert metadata.num_row_groups == 4
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            column = metadata.row_group(group).column(at)
            if column.path_in_schema.startswith("timeseries"):
                begin = column.dictionary_page_offset or column.data_page_offset
                data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    part.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(part)
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=100)
    assert statements.terms["score"].sum() == pytest.approx(49.5)


def test_parts_are_read_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is the same however rows are grouped, and is what a plain loop gives."""
    generator = np.random.default_rng(0)
    sources = ["eva", "orphanet", "europepmc", "chembl"]
    rows = [
        (f"EFO_{generator.integers(9):07d}", f"ENSG{generator.integers(9):02d}", round(float(generator.random()), 3), sources[generator.integers(4)])
        for _ in range(400)
    ]  # fmt: skip
    kinds = {"eva": "genetic", "orphanet": "genetic", "europepmc": "text-mining", "chembl": "clinical"}
    expected: dict[tuple[str, str, str], float] = {}
    for disease, target, score, source in rows:
        key = (disease.replace("_", ":"), target, kinds[source])
        expected[key] = max(score, expected.get(key, 0.0))
    monkeypatch.setattr(open_targets, "_BATCH_ROWS", 7)
    write(
        tables(tmp_path), BY_SOURCE, associations(rows[:250], "datasourceId", new=True), "part-1.parquet", row_group_size=40
    )  # fmt: skip
    write(tmp_path, BY_SOURCE, associations(rows[250:], "datasourceId", new=True), "part-2.parquet")
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=400)
    assert {row[:3]: row[4] for row in found(statements)} == expected
    assert len(statements.terms) == len(expected) == 400 - dropped(statements)


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of association_overall_direct"):
        open_targets.read(tmp_path)
    (tmp_path / OVERALL).mkdir()
    with pytest.raises(UserError, match="the folder target is not in"):
        open_targets.read(tmp_path)
    tables(tmp_path)
    with pytest.raises(UserError, match=r"no \.parquet file is in"):
        open_targets.read(tmp_path)
    write(tmp_path, OVERALL, associations([], "overall", new=True))
    with pytest.raises(UserError, match="have no rows"):
        open_targets.read(tmp_path)
    write(tmp_path, OVERALL, associations(OVERALL_ROWS, "datatypeId", new=True))
    with pytest.raises(UserError, match="by 'datatypeId' and should hold 'overall'"):
        open_targets.read(tmp_path)
    write(tmp_path, OVERALL, associations(OVERALL_ROWS, "overall", new=False).drop_columns(["score"]))
    with pytest.raises(UserError, match="no column 'score'"):
        open_targets.read(tmp_path)
    part = tmp_path / OVERALL / PART
    write(tmp_path, OVERALL, associations(OVERALL_ROWS, "overall", new=True))
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged or cut off"):
        open_targets.read(tmp_path)
    part.write_text("<html></html>")
    with pytest.raises(UserError, match="damaged or cut off"):
        open_targets.read(tmp_path)


def test_excerpt(tmp_path: Path) -> None:
    """The real tables of targets and diseases, with associations that the test writes."""
    folder = excerpt("open_targets")
    for name in ("target", "disease"):
        (tmp_path / name).symlink_to(folder / name)
    rows = [("EFO_0003838", "ENSG00000005812", 0.5, "None"), ("HP_0001513", "ENSG00000005812", 0.4, "None")]
    write(tmp_path, OVERALL, associations(rows, "overall", new=True))
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=2)
    assert set(statements.terms["gene_symbol"]) == {"FBXL3"}
    names = dict(zip(statements.terms["term_id"], statements.terms["term_name"], strict=True))
    assert names == {"GO:0006954": "inflammatory response", "HP:0001513": "Obesity"}
    assert set(statements.parents.itertuples(index=False, name=None)) == {
        ("GO:0006954", "GO:0006950", ""), ("HP:0001513", "HP:0004324", ""), ("EFO:0001073", "MONDO:0003916", ""),
    }  # fmt: skip


def test_measured_traits_and_areas_are_kept_and_marked(tmp_path: Path) -> None:
    diseases = [
        ("EFO_0004339", "body height", ["EFO_0001444"], ["EFO_0001444"]),
        ("OBA_0000001", "a trait", [], ["EFO_0000651"]),
        ("EFO_0001444", "measurement", [], ["EFO_0001444"]),
        ("OTAR_0000018", "genetic disease", [], ["OTAR_0000018"]),
        ("MONDO_0000009", "nail disease", ["OTAR_0000018"], ["OTAR_0000018"]),
        ("EFO_0000408", "disease", [], None),
    ]
    ids, names, parents, areas = (list(column) for column in zip(*diseases, strict=True))
    texts = pa.list_(pa.string())
    tables(tmp_path)
    write(tmp_path, "disease", pa.table({
        "id": ids, "name": names, "parents": pa.array(parents, texts), "obsoleteTerms": pa.array([None] * 6, texts),
        "therapeuticAreas": pa.array(areas, texts),
    }), part="00000000.parquet")  # fmt: skip
    rows = [(each, "ENSG01", 0.9, "eva") for each in ("EFO_0004339", "MONDO_0000009", "OBA_0000001")]
    write(tmp_path, BY_SOURCE, associations([*rows, ("EFO_0004339", "ENSG02", 0.4, "eva")], "datasourceId", new=True))
    statements = open_targets.read(tmp_path)
    check(statements, rows_read=4)
    assert len(statements.terms) == 4
    facts = build(
        "open_targets", statements, read_catalogue()["open_targets"], no_genes(), [], tmp_path / "to" / "open_targets"
    )
    assert facts["counts"]["left_out_terms"] == {"measurement": 3, "therapeutic area": 1}
    folder = tmp_path / "to"
    sets = {each.term: each.genes for each in load_collections(ValidationConfig(builtin=False), folder)[0].sets}
    assert sets == {"nail disease (MONDO:0000009)": ("AAA",)}
    everything = ValidationConfig(builtin=False, all_terms=True, min_score={"open_targets": 0})
    sets = {each.term: set(each.genes) for each in load_collections(everything, folder)[0].sets}
    assert sets == {
        "nail disease (MONDO:0000009)": {"AAA"}, "body height (EFO:0004339)": {"AAA", "BBB"}, "a trait (OBA:0000001)": {"AAA"},
        "measurement (EFO:0001444)": {"AAA", "BBB"}, "genetic disease (OTAR:0000018)": {"AAA"},
    }  # fmt: skip


def test_targets_and_diseases_alone_state_nothing(tmp_path: Path) -> None:
    """As the real excerpt has them: that is said, and is no failure."""
    statements = open_targets.read(tables(tmp_path))
    assert statements.rows_read == 0
    assert len(statements.terms) == 0
    assert any("no table of associations, only 2 targets and 3 diseases" in note for note in statements.notes)
    folder = tmp_path / "to" / "open_targets"
    facts = build("open_targets", statements, read_catalogue()["open_targets"], no_genes(), [], folder)
    assert facts["counts"]["statements"] == facts["counts"]["kept"] == 0
    assert facts["counts"]["parents"] == 2
    assert read_table(folder / TERMS_FILE).num_rows == 0
    with pytest.raises(UserError, match="no gene sets to test"):  # it is passed over, like a source that is not there
        load_collections(ValidationConfig(builtin=False), tmp_path / "to")
    with pytest.raises(UserError, match="open_targets has no gene sets; leave it out"):
        load_collections(ValidationConfig(builtin=False, databases=["open_targets"]), tmp_path / "to")
