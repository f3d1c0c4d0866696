"""results/<run>/annotations.parquet and annotations.tsv: every annotation of every feature, one table over all layers.

Made to be handed on: to a spreadsheet, to a colleague, to another program. Layers are written one after the other.
"""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sae_genomics.artifacts import ANNOTATIONS, FEATURE_NAMES
from sae_genomics.atomic import atomic_path
from sae_genomics.report.collect import Problems
from sae_genomics.report.contents import Contents
from sae_genomics.report.files import annotation_files

_TERM_COLUMNS = [
    "feature", "collection", "term", "term_id", "n_overlap", "n_term", "odds_ratio", "odds_ratio_low", "odds_ratio_high", "p_value",
    "p_matched", "q_matched", "q_source_matched", "explained_by", "genes",
]  # fmt: skip
_TEXTS = [column.name for column in ANNOTATIONS.columns if column.type == pa.string()]


def write_annotations(contents: Contents) -> None:
    """Write both files of the layers whose tables are there; without rows where no layer has them."""
    schema = ANNOTATIONS.schema
    problems, fdr = Problems(contents.problems), contents.config.validation.fdr
    parquet_file, text_file = annotation_files(contents.run)
    with (
        atomic_path(parquet_file) as parquet,
        atomic_path(text_file) as text,
        pq.ParquetWriter(parquet, schema, compression="zstd") as table,
        text.open("wb") as lines,
    ):
        lines.write(("\t".join(schema.names) + "\n").encode())
        for summary in contents.layers:
            if "annotation_files" not in summary.parts:
                continue
            terms, names = summary.parts["annotation_files"]
            rows = problems.attempt(terms, layer_annotations, summary.layer, terms, names, fdr)
            if rows is not None and len(rows):
                table.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False))
                lines.write(_as_text(rows, schema))


def _as_text(rows: pd.DataFrame, schema: pa.Schema) -> bytes:
    """Lines of tab-separated values, without quotes: neither a tab nor a line break nor a quote stands within a value."""
    plain = {name: rows[name].str.replace(r'[\t\r\n"]+', " ", regex=True) for name in _TEXTS}
    buffer = io.BytesIO()
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    csv.write_csv(pa.Table.from_pandas(rows.assign(**plain), schema=schema, preserve_index=False), buffer, options)
    return buffer.getvalue()


def layer_annotations(layer: int, terms_file: Path, names_file: Path, fdr: float) -> pd.DataFrame:
    """The rows of one layer, by feature, then by the larger p; only terms found over all sources, or within their own."""
    names = FEATURE_NAMES.read(names_file, ["feature", "name", "sources"])
    passing = [[("q_matched", "<", fdr)], [("q_source_matched", "<", fdr)]]
    terms = pq.read_table(terms_file, columns=_TERM_COLUMNS, filters=passing, partitioning=None).to_pandas()
    rows = names.merge(terms.rename(columns={"collection": "source"}), on="feature", how="left")
    rows = rows.assign(
        layer=layer,
        in_headline=(rows["q_matched"] < fdr).fillna(False),
        p=rows[["p_value", "p_matched"]].max(axis=1),
    ).sort_values(["feature", "p"], kind="stable")
    for column in _TEXTS:
        rows[column] = rows[column].fillna("").astype(str)
    for column in ("n_overlap", "n_term"):
        rows[column] = rows[column].astype("Int32")
    return rows[[column.name for column in ANNOTATIONS.columns]]
