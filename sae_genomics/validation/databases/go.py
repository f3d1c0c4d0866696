"""Gene Ontology: annotations (GAF 2.0 to 2.2) and the ontology they name.

A qualifier that begins with NOT says that the gene does not belong to the term. Parents are is_a and part_of: what regulates a
process is no part of it. Protein binding, the roots and terms that GO itself does not want in annotations are kept and marked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.counting import EXPRESSION
from sae_genomics.validation.databases.ontologies import TOO_GENERAL, named_parents
from sae_genomics.validation.normal_form.ontology import Ontology, read_ontology
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import opened, read_text_table

ONTOLOGIES = ("go-basic.obo", "go.obo")
# The first pair is the name since June 2026, the second the one before.
ANNOTATIONS = ("HUMAN-uniprot.gaf.gz", "HUMAN-uniprot.gaf", "goa_human.gaf.gz", "goa_human.gaf")
RELATIONS = ("is_a", "part_of")
COLUMNS = (
    "database", "object_id", "symbol", "qualifier", "go_id", "reference", "evidence", "with_from", "aspect", "name", "synonyms", "type",
    "taxon", "date", "assigned_by", "extension", "product_form",
)  # fmt: skip
NEEDED = ("database", "object_id", "symbol", "qualifier", "go_id", "evidence", "type", "taxon")
VERSIONS = ("2.0", "2.1", "2.2")  # 2.0 differs from 2.1 only in columns that are not read
HUMAN, NO_DATA, ELECTRONIC = "taxon:9606", "ND", "IEA"
BY_EXPRESSION = ("IEP", "HEP")  # inferred from expression patterns, in single and in large experiments
ROOTS = ("GO:0008150", "GO:0003674", "GO:0005575")  # biological process, molecular function, cellular component
PROTEIN_BINDING, NOT_FOR_ANNOTATION = "GO:0005515", "gocheck_do_not_annotate"


def read(folder: Path) -> Statements:
    """Statements of the annotations, parents of the ontology. Raises UserError."""
    ontology_path = _only_file(folder, ONTOLOGIES, "*.obo")
    path = _only_file(folder, ANNOTATIONS, "*.gaf*")
    ontology = read_ontology(ontology_path, "GO", RELATIONS)
    rows = _read_annotations(path)
    statements = Statements(
        parents=named_parents(ontology),
        says_little={
            **dict.fromkeys(ontology.in_subset(NOT_FOR_ANNOTATION), "not for annotation"),
            **dict.fromkeys(ROOTS, TOO_GENERAL),
            PROTEIN_BINDING: "protein binding",
        },
        version=ontology.version,
        rows_read=len(rows),
        notes=[f"read {path.name} with {ontology_path.name}", *ontology.notes()],
    )
    statements.terms = _statements(statements, rows, ontology)
    if not len(statements.terms):
        raise UserError(f"go: nothing of {path} is left ({statements.dropped}); fetch it and {ONTOLOGIES[0]} again")
    return statements


def _only_file(folder: Path, official: Sequence[str], pattern: str) -> Path:
    """An official name that is there, else the only file of the pattern; a slim is no ontology for annotations."""
    for name in official:
        if (folder / name).exists():
            return folder / name
    others = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith("goslim")]
    if len(others) == 1:
        return others[0]
    what = (
        f"{len(others)} others are, and which to read is not clear: rename one"
        if others
        else "run scripts/download_databases.py --only go"
    )
    raise UserError(f"go: none of {', '.join(official)} is in {folder}; {what}")


def _read_annotations(path: Path) -> pd.DataFrame:
    """The rows. Raises UserError naming a layout that is not GAF 2."""
    version = ""
    with opened(path) as raw:
        line = raw.readline().decode("utf-8", errors="replace")
        while line.startswith("!"):
            stated = re.match(r"!\s*gaf-version:\s*(\S+)", line)
            version = stated[1] if stated else version
            line = raw.readline().decode("utf-8", errors="replace")
    if version and version not in VERSIONS:
        raise UserError(f"{path} is GAF {version}; GAF {' and '.join(VERSIONS[1:])} can be read: fetch it again")
    cells = line.rstrip("\r\n").split("\t")
    if line and len(cells) == 15:
        raise UserError(f"{path} is GAF 1.0 (15 columns); GAF {' and '.join(VERSIONS[1:])} can be read: fetch it again")
    if line and (len(cells) != len(COLUMNS) or not cells[4].startswith("GO:")):
        raise UserError(f"{path} is not GAF {' or '.join(VERSIONS[1:])}: it begins with {line[:60]!r}; fetch it again")
    return read_text_table(path, NEEDED, names=COLUMNS, skip="!")


def _statements(statements: Statements, rows: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    term = ontology.resolved(rows["go_id"])
    # Host and pathogen stand as taxon:9606|taxon:...; the gene is of the first.
    reasons = {
        "another species": _first_part(rows["taxon"]) != HUMAN,
        "complex and no gene": rows["database"].eq("ComplexPortal") | rows["type"].str.contains("complex"),
        "no data (ND)": rows["evidence"] == NO_DATA,
        "obsolete term": pd.Series(ontology.obsolete(term), index=rows.index),
    }
    left_out = np.zeros(len(rows), dtype=bool)
    for reason, which in reasons.items():
        fresh = which.to_numpy(dtype=bool) & ~left_out
        statements.drop(reason, int(fresh.sum()))
        left_out |= fresh
    rows, term = rows[~left_out], term[~left_out]
    unknown = ~ontology.known(term)
    if unknown.any():
        statements.notes.append(
            f"{int(unknown.sum()):,} annotations name {term[unknown].nunique():,} terms that {ontology.file} does not have: the files are "
            f"of different releases; those terms have no name and no parents"
        )
    return pd.DataFrame({
        "term_id": term, "term_name": ontology.names(term),
        "uniprot_id": rows["object_id"].where(rows["database"].isin(["UniProtKB", "UniProt"]), ""), "gene_symbol": rows["symbol"],
        "score": np.nan, "evidence": rows["evidence"], "category": np.select([rows["evidence"] == ELECTRONIC, rows["evidence"].isin(BY_EXPRESSION)], [ELECTRONIC, EXPRESSION], "manual"),
        "negative": _first_part(rows["qualifier"]).str.upper() == "NOT",
    }).reset_index(drop=True)  # fmt: skip


def _first_part(cells: pd.Series) -> pd.Series:
    """What stands before the first |; each distinct cell is looked at once, since there are few of them."""
    codes, distinct = pd.factorize(cells)
    parts = pd.Series(distinct, dtype=object).str.split("|").str[0].str.strip()
    return parts.take(codes).set_axis(cells.index)
