"""Which of a feature's terms the dashboard keeps, what their ids say, and what stands beside a source."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS
from sae_genomics.config import parse_config
from sae_genomics.report import dashboard_terms
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.dashboard_panel import PanelLayer, PanelSettings
from sae_genomics.report.dashboard_terms import TermsPanel
from sae_genomics.report.evidence import NOT_PASSING, by_source, in_order
from sae_genomics.report.reading import smallest
from sae_genomics.report.term_links import DISEASE, OTHER, PHENOTYPE, TERMS, kind_of, page_of

FDR = 0.05


def _terms(rows: list[tuple[int, str, float, float]]) -> pd.DataFrame:
    """feature, source, q_matched, q_source_matched of each; the other columns follow."""
    frame = pd.DataFrame(rows, columns=["feature", "collection", "q_matched", "q_source_matched"])
    frame["term"] = [f"term {n}" for n in range(len(frame))]
    return frame.assign(
        term_id=frame["term"], p_value=frame["q_matched"] / 10, q_value=frame["q_matched"] / 2, n_overlap=2, n_term=10, n_top=50,
        n_background=1000, odds_ratio=4.0, odds_ratio_low=2.0, odds_ratio_high=8.0, explained_by="", genes="A,B",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "term_id", "kind", "page"),
    [
        ("omim", "OMIM:154700", DISEASE, "https://omim.org/entry/154700"),
        ("omim", "OMIM:PS154700", DISEASE, "https://omim.org/phenotypicSeries/PS154700"),
        ("orphanet", "ORPHA:558", DISEASE, "https://www.orpha.net/en/disease/detail/558"),
        ("monarch", "MONDO:0007947", DISEASE, "https://monarchinitiative.org/MONDO:0007947"),
        ("open_targets", "MONDO:0007947", DISEASE, "https://platform.opentargets.org/disease/MONDO_0007947"),
        ("open_targets", "EFO:0000676", DISEASE, "https://platform.opentargets.org/disease/EFO_0000676"),
        ("gwas_catalog", "EFO:0000676", DISEASE, "https://www.ebi.ac.uk/gwas/efotraits/EFO_0000676"),
        ("gwas_catalog", "HP:0001519", PHENOTYPE, "https://hpo.jax.org/browse/term/HP:0001519"),
        ("clinvar", "MedGen:C0024796", DISEASE, "https://www.ncbi.nlm.nih.gov/medgen/C0024796"),
        ("disgenet", "UMLS:C0024796", DISEASE, "https://uts.nlm.nih.gov/uts/umls/concept/C0024796"),
        ("hpo", "HP:0001519", PHENOTYPE, "https://hpo.jax.org/browse/term/HP:0001519"),
        ("go", "GO:0005201", OTHER, "https://www.ebi.ac.uk/QuickGO/term/GO:0005201"),
        ("reactome", "R-HSA-1474244", OTHER, "https://reactome.org/content/detail/R-HSA-1474244"),
        ("kegg", "hsa04512", OTHER, "https://www.kegg.jp/pathway/hsa04512"),
        ("hgnc", "HGNC.GROUP:1199", OTHER, "https://www.genenames.org/data/genegroup/#!/group/1199"),
        ("h.all", "HALLMARK_HYPOXIA", OTHER, "https://www.gsea-msigdb.org/gsea/msigdb/human/geneset/HALLMARK_HYPOXIA.html"),
        ("my_sets", "MY_SET", OTHER, ""),
        ("builtin", "B cell", OTHER, ""),
        ("gencc", "an odd id", DISEASE, ""),
    ],
)  # fmt: skip
def test_an_id_says_what_it_is_and_where_its_page_is(source: str, term_id: str, kind: str, page: str) -> None:
    assert kind_of(source, term_id) == kind
    assert page_of(source, term_id) == page


def test_addresses_hold_nothing_but_parts_of_the_id() -> None:
    for each in TERMS:
        assert set(re.findall(r"\{[^}]*\}", each.page)) <= {"{id}", "{1}", "{2}"}
        assert each.page.startswith("https://")


def test_best_of_every_source_stands_before_the_second_of_any() -> None:
    rows = [(0, "a", 1e-9, 1e-9), (0, "a", 1e-8, 1e-8), (0, "b", 1e-3, 1e-3), (0, "c", 0.9, 0.9), (0, "c", 0.8, 0.8), (0, "c", 0.7, 0.7),
            (1, "c", 0.2, 0.04)]  # fmt: skip
    ordered = in_order(_terms(rows), FDR)
    first = ordered[ordered["feature"] == 0]
    assert first["term"].tolist() == ["term 0", "term 2", "term 1", "term 5", "term 4"]
    assert first["failing"].sum() == NOT_PASSING
    assert first["order"].tolist()[:3] == [0, 1, 2]
    assert (first["order"][first["failing"]] > 3).all()  # gives way first where room is short
    assert not ordered["failing"][ordered["feature"] == 1].any()  # passes among the terms of its source


def test_smallest_keeps_rows_of_every_source(tmp_path) -> None:
    rows = [(feature, source, 0.1 * n, 0.1) for feature in range(3) for source in "ab" for n in range(1, 6)]
    _terms(rows).to_parquet(tmp_path / "terms.parquet")
    kept = smallest(tmp_path / "terms.parquet", ("p_value",), 2, within=("collection",))
    assert kept.groupby(["feature", "collection"]).size().tolist() == [2] * 6
    assert np.allclose(sorted(kept["q_matched"].unique()), [0.1, 0.2])
    assert kept["p_value"].groupby(kept["feature"]).apply(lambda p: p.is_monotonic_increasing).all()


def test_a_page_with_too_many_terms_keeps_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    n_features = 50
    rows = [
        (feature, f"s{n}", 1e-5 * (n + 1) if feature < 25 else 0.5, 0.9)
        for feature in range(n_features)
        for n in range(10)
    ]
    for room, expected in ((10**9, 10), (25 * 4 + 25, 4)):
        monkeypatch.setattr(dashboard_terms, "TARGET_BYTES", room * dashboard_terms._BYTES_PER_TERM)
        panel = TermsPanel(PanelSettings(parse_config({"data": {"path": "cells.h5ad"}}, "test"), n_features, 1))
        features = pd.DataFrame({"feature": np.arange(n_features)})
        row = pd.Series(np.arange(n_features), index=features["feature"].to_numpy())
        panel.add(PanelLayer(LayerResults(0, tables={"terms": _terms(rows)}), features, row, 0, 0))
        length = panel.blocks()["terms.length"]
        assert (length[:25] == expected).all()
        assert length.sum() <= room
        assert (length[25:] >= 1).all()
        assert bool(panel.notes()) == (expected < 10)


def test_a_source_stands_beside_its_own_shuffles() -> None:
    columns = [column.name for column in ANNOTATION_NULLS.columns]
    rows = [
        {"source": source, "units": "features", "collection": collection, "repeat": repeat, "n_units": 40, "n_annotated": n, "share": n / 40,
         "n_tests": 1, "n_terms": n, "terms_per_100_units": n}
        for collection, of_features in (("all", 30), ("hpo", 10))
        for source, numbers in (("features", [of_features]), ("matched_genes", [0, 2]), ("shuffled_genes", [0, 0]))
        for repeat, n in enumerate(numbers)
    ]  # fmt: skip
    found = by_source(pd.DataFrame(rows)[columns])
    assert found == [
        {"source": "hpo", "n_units": 40, "n_annotated": 10, "share": 0.25, "chance": 1.0, "chance_max": 2, "chance_share": 0.025}
    ]  # fmt: skip
    assert by_source(None) == []
