"""The hierarchies of diseases (MONDO) and phenotypes (HPO) for databases that name their terms, and which of these terms say little.

A gene's mode of inheritance, or the age at which its disease begins, tells nothing of what the gene does; neither does `disease`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.validation.normal_form.hierarchy import ancestors
from sae_genomics.validation.normal_form.ontology import Ontology, read_ontology
from sae_genomics.validation.normal_form.statements import Statements

MONDO, HPO = ("mondo.obo", "MONDO"), ("hp.obo", "HP")  # file and prefix of the ids
ALL, ABNORMALITY = (
    "HP:0000001",
    "HP:0000118",
)  # the second one's sisters are modes of inheritance, onset, course, frequency
TOO_GENERAL = "too general"
_GENERAL = {
    ALL: "all", ABNORMALITY: "phenotypic abnormality", "MONDO:0000001": "disease", "MONDO:0700096": "human disease",
    "EFO:0000408": "disease", "EFO:0000651": "phenotype",
}  # fmt: skip


def little_said(ontology: Ontology | None, terms: pd.DataFrame) -> dict[str, str]:
    """term_id -> why it says little, for phenotypes and diseases. terms: term_id, term_name.

    ontology: HPO; without it, modes of inheritance are known by their names alone.
    """
    named = terms.drop_duplicates("term_id").set_index("term_id")["term_name"].str.lower()
    # An id that the source gives to something else is not the general term.
    marked = {term: TOO_GENERAL for term, name in _GENERAL.items() if named.get(term, name) == name}
    if ontology is None:
        modes = terms["term_id"].str.startswith("HP:") & terms["term_name"].str.lower().str.endswith("inheritance")
        return marked | dict.fromkeys(terms.loc[modes, "term_id"].unique(), "mode of inheritance")
    outside = ontology.terms.index.difference(ontology.below(ABNORMALITY)).difference([ALL, ABNORMALITY])
    marked |= dict.fromkeys(outside, f"not below {ABNORMALITY}")
    for branch in ontology.parents.loc[ontology.parents["parent_id"] == ALL, "term_id"]:
        if branch != ABNORMALITY:
            name = str(ontology.terms.at[branch, "name"]).lower()
            marked |= dict.fromkeys([branch, *ontology.below(branch).intersection(outside)], name)
    return marked


def add_hierarchies(statements: Statements, folder: Path, *files: tuple[str, str]) -> None:
    """Parents of the terms from the ontologies whose files lie beside the source's, ids of today, and which terms say little."""
    assert statements.terms is not None
    terms, tables, phenotypes = statements.terms, [], None
    for file, prefix in files:
        if not (folder / file).exists():
            statements.notes.append(f"{file} is not there: terms of {prefix} have no hierarchy")
            continue
        ontology = read_ontology(folder / file, prefix)
        phenotypes = ontology if (file, prefix) == HPO else phenotypes
        terms["term_id"] = ontology.resolved(terms["term_id"])
        tables.append(named_parents(ontology, terms["term_id"]))
        statements.notes += [
            f"the hierarchy of {prefix} is that of {file} {ontology.version}".rstrip(),
            *ontology.notes(),
        ]
    if tables:
        statements.parents = pd.concat(tables, ignore_index=True)
    statements.says_little = little_said(phenotypes, terms)


def named_parents(ontology: Ontology, used: pd.Series | None = None) -> pd.DataFrame:
    """term_id, parent_id, parent_name of a whole ontology, or of the terms that are used and those above them."""
    parents = ontology.parents[["term_id", "parent_id"]].drop_duplicates(ignore_index=True)
    if used is not None:
        ids, above = ancestors(parents)
        rows = ids.isin(used.unique()).nonzero()[0]
        parents = parents[parents["term_id"].isin(ids[above[rows].sum(axis=0).nonzero()[1]])].reset_index(drop=True)
    return parents.assign(parent_name=ontology.names(parents["parent_id"]))
