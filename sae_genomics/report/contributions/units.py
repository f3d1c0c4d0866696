"""What the accumulator of units adds: the genes, or amino acids, that features fire on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.artifacts import FEATURE_GENES, FEATURE_UNITS
from sae_genomics.config import RunConfig
from sae_genomics.report import associations_json
from sae_genomics.report.best_features import UNITS_SHOWN
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Said
from sae_genomics.report.dashboard_units import UnitsPanel
from sae_genomics.report.reading import Reading, batches
from sae_genomics.report.section_units import UnitShares, finding, section
from sae_genomics.report.summary import LayerSummary

_SHORT_LIST = 30  # at most so many units of a feature are read whole: no more amino acids exist


def _best_units(path: Path, config: RunConfig) -> pd.DataFrame:
    """Rows ranked high by either ranking; read in batches, because the whole table can be gigabytes."""
    most = max(config.report.dashboard_genes, UNITS_SHOWN, _SHORT_LIST if path.name == FEATURE_UNITS.file else 0)
    names = ("gene_id", "gene_symbol", "unit_id", "unit_name")
    parts = [
        frame[(frame["rank_score"] <= most) | (frame["rank_specificity"] <= most)] for frame in batches(path, names)
    ]
    return pd.concat(parts).sort_values(["feature", "rank_specificity"], kind="stable", ignore_index=True)


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    units = results.table("units")
    if contents.wording.kind != "cells":
        summary.parts["units"] = UnitShares.of(units) if units is not None and len(units) else None
        return
    path = contents.run.layer_results(results.layer) / associations_json.GENES_FILE
    if units is not None:
        associations_json.write_genes(path, results, contents.config.report.dashboard_genes)
    else:
        path.unlink(missing_ok=True)  # what an earlier report wrote is of tables that are gone or stale


UNITS = Contribution(
    name="units",
    order=45,
    tables=(Reading("units", (FEATURE_GENES, FEATURE_UNITS), _best_units),),
    take_layer=_take,
    section=section,
    findings=lambda contents: [Said(35, finding(contents))],
    panel=UnitsPanel,
    compared_with=lambda wording: Said(10, wording.nouns.units),
    found_by=lambda wording: Said(10, wording.nouns.unit),
)
