"""GenCC: how well it is established that a gene causes a disease, as expert panels and laboratories submit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.ontologies import MONDO, add_hierarchies
from sae_genomics.validation.normal_form.curies import curies
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened, read_text_table

NAME = "gencc"
FILES = (
    "gencc-submissions.tsv",
    "gencc-submissions.csv",
    "submissions-export.tsv",
    "submissions-export.csv",
    "submissions-export-tsv",
    "submissions-export-csv",
)
# By id, because titles hold the submitters' typing errors.
CLASSES = {
    "GENCC:100001": "Definitive",
    "GENCC:100002": "Strong",
    "GENCC:100003": "Moderate",
    "GENCC:100004": "Limited",
    "GENCC:100005": "Disputed Evidence",
    "GENCC:100006": "Refuted Evidence",
    "GENCC:100007": "Animal Model Only",
    "GENCC:100008": "No Known Disease Relationship",
    "GENCC:100009": "Supportive",
}
NEGATIVE = ("GENCC:100005", "GENCC:100006", "GENCC:100008")
_NEEDED = ("gene_curie", "gene_symbol", "disease_curie", "disease_title", "classification_curie", "submitter_title")


def read(folder: Path) -> Statements:
    """One row per submission, of its highest version. Raises UserError."""
    path = find(folder, FILES, NAME)
    with opened(path) as raw:
        separator = "\t" if b"\t" in raw.readline() else ","
    optional = ("uuid", "sgc_id", "version_number", "submitted_run_date")
    rows = read_text_table(path, _NEEDED, optional=optional, separator=separator, quoted=True)
    if not len(rows):
        raise UserError(f"{path} has a header and no rows; fetch it again")
    if (rows["sgc_id"] == "").all() and (rows["uuid"] == "").all():
        raise UserError(
            f"{path} has neither a column 'sgc_id' nor 'uuid': its layout has changed, or it is another file"
        )
    rows = rows.apply(lambda column: column.str.strip())
    statements = Statements(rows_read=len(rows))
    term, category = curies(rows["disease_curie"]), rows["classification_curie"].map(CLASSES)
    reason = np.select(
        [
            _is_outdated(rows, path),
            category.isna(),
            ~rows["gene_curie"].str.fullmatch(r"HGNC:\d+"),
            ~term.str.fullmatch(r"[A-Za-z]+:\S+"),
        ],
        ["an older version of a submission", "class that is not one of the nine", "no gene", "no disease"],
        "",
    )
    for name, count in pd.Series(reason[reason != ""], dtype=object).value_counts().items():
        statements.drop(str(name), count)
    statements.terms = pd.DataFrame({
        "term_id": term,
        "term_name": rows["disease_title"],
        "hgnc_id": rows["gene_curie"],
        "gene_symbol": rows["gene_symbol"],
        "score": np.nan,
        "evidence": rows["submitter_title"],
        "category": category,
        "negative": rows["classification_curie"].isin(NEGATIVE),
    })[reason == ""].reset_index(drop=True)  # fmt: skip
    add_hierarchies(statements, folder, MONDO)
    if newest := rows["submitted_run_date"].max():
        statements.notes.append(f"the newest submission ran on {newest}")
    return statements


def _is_outdated(rows: pd.DataFrame, path: Path) -> pd.Series:
    """Whether another row has the same sgc_id and a higher version; the legacy layout has one version of each."""
    versioned = rows["sgc_id"] != ""
    version = pd.to_numeric(rows["version_number"], errors="coerce").where(versioned)
    if version[versioned].isna().any():
        wrong = rows.loc[versioned & version.isna(), "version_number"].iloc[0]
        raise UserError(f"{path}: version_number {wrong!r} is no number: its layout has changed; fetch it again")
    highest = version.groupby(rows["sgc_id"]).transform("max")
    return versioned & (version < highest)
