"""Human Phenotype Ontology: which phenotypes a gene's diseases have; files of hpo/hpoa and hp.obo.

`genes_to_phenotype.txt` names the most specific terms and gives frequencies, so it is read where it is there.
`phenotype_to_genes.txt` says the same once more for the terms above. `genes_to_disease.txt` names diseases.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.hpo_files import COLUMNS, DISEASES, PHENOTYPES, PROPAGATED, read_rows
from sae_genomics.validation.databases.ontologies import ABNORMALITY as ROOT
from sae_genomics.validation.databases.ontologies import little_said, named_parents
from sae_genomics.validation.normal_form.ontology import Ontology, read_ontology
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, read_text_table

ONTOLOGY, ANNOTATIONS = "hp.obo", "phenotype.hpoa"
PHENOTYPE = (
    "phenotype"  # category of terms below the root; others have that of their branch, such as mode of inheritance
)
# Share of patients: the middle of the range that the ontology gives to each term.
BANDS = {
    "HP:0040280": 1.0, "HP:0040281": 0.895, "HP:0040282": 0.545, "HP:0040283": 0.17, "HP:0040284": 0.025, "HP:0040285": 0.0,
}  # fmt: skip
GENES_OF_A_RELEASE = 4_000
GENES_OF_A_DISEASE = 200


def read(folder: Path) -> Statements:
    """Statements of one of the three gene files, the first that is there in the order above. Raises UserError."""
    path = find(folder, (PHENOTYPES, PROPAGATED, DISEASES), "hpo")
    statements = Statements(propagated=path.name == PROPAGATED)
    _say_which(statements, folder, path)
    ontology = None
    if path.name != DISEASES or (folder / ONTOLOGY).exists():
        ontology = read_ontology(find(folder, (ONTOLOGY,), "hpo"), "HP")
        _add_hierarchy(statements, ontology)
    rows, notes = read_rows(path)
    statements.notes += notes
    statements.rows_read = len(rows)
    rows = _with_genes(statements, rows, path)
    if ontology is None or path.name == DISEASES:
        statements.terms = _diseases(statements, rows, folder)
    else:
        statements.terms = _phenotypes(statements, rows, ontology)
    if not len(statements.terms) or (path.name != DISEASES and not statements.terms["category"].eq(PHENOTYPE).any()):
        statements.drop(f"not below {ROOT}", len(statements.terms))
        why = "; ".join(f"{reason}: {count:,}" for reason, count in statements.dropped.items())
        raise UserError(f"hpo: nothing of {path} is left ({why}); fetch {path.name} and {ONTOLOGY} of one release")
    return statements


def _say_which(statements: Statements, folder: Path, path: Path) -> None:
    others = [name for name in COLUMNS if name != path.name and (folder / name).exists()]
    if others:
        statements.notes.append(
            f"read {path.name} and not {' and '.join(others)}: the files repeat each other, and mixing them counts a gene twice"
        )
    if path.name == PROPAGATED:
        statements.notes.append(
            f"{PROPAGATED} gives no frequencies: phenotypes that a disease excludes cannot be told apart; {PHENOTYPES} can"
        )
    if path.name == DISEASES:
        statements.notes.append(f"{DISEASES} names diseases and no phenotypes; fetch {PHENOTYPES} for those")


def _add_hierarchy(statements: Statements, ontology: Ontology) -> None:
    """Parents among the phenotypes. A hierarchy without its root is told, since most terms are then lost."""
    below = ontology.below(ROOT)
    parents = named_parents(ontology)
    inside = parents["term_id"].isin(below) & parents["parent_id"].isin(below)
    statements.parents = parents[inside].reset_index(drop=True)
    statements.version = ontology.version
    statements.notes += ontology.notes()
    if ROOT not in ontology.terms.index:
        living = int((~ontology.terms["obsolete"]).sum())
        statements.notes.append(
            f"the hierarchy of {ontology.file} is broken: {ROOT} (phenotypic abnormality) is not in it; {len(below):,} of {living:,} "
            f"terms can be traced to it, and only those are phenotypes here"
        )


def _with_genes(statements: Statements, rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rows whose gene and disease can be believed, with entrez_id and gene_symbol in the normal form."""
    rows = rows.assign(
        entrez_id=rows["ncbi_gene_id"].str.removeprefix("NCBIGene:").where(lambda ids: ids.str.fullmatch(r"\d+"), ""),
        gene_symbol=rows["gene_symbol"].where(rows["gene_symbol"] != "-", ""),
    )
    without_symbol = (rows["gene_symbol"] == "") & (rows["entrez_id"] != "")
    if without_symbol.any():
        statements.notes.append(
            f"{path.name}: {int(without_symbol.sum()):,} rows have no symbol; their gene is known by its NCBI id"
        )
    nameless = (rows["entrez_id"] == "") & (rows["gene_symbol"] == "")
    statements.drop("no gene", int(nameless.sum()))
    rows = rows[~nameless]
    gene = rows["entrez_id"].where(rows["entrez_id"] != "", rows["gene_symbol"])
    genes = gene.groupby(rows["disease_id"]).transform("nunique")
    numbered = rows["disease_id"].str.fullmatch(r"[^:]+:.+")
    too_many = (genes > GENES_OF_A_DISEASE) & numbered
    if too_many.any():
        names = ", ".join(sorted(rows.loc[too_many, "disease_id"].unique())[:3])
        statements.notes.append(
            f"{path.name}: {names} names more than {GENES_OF_A_DISEASE} genes, which was an error in the releases of late 2025; its rows were left out"
        )
    statements.drop(f"disease with more than {GENES_OF_A_DISEASE} genes", int(too_many.sum()))
    if gene.nunique() < GENES_OF_A_RELEASE:
        statements.notes.append(
            f"{path.name} names {gene.nunique():,} genes; a whole release names {GENES_OF_A_RELEASE:,} or more"
        )
    return rows[~too_many]


def _phenotypes(statements: Statements, rows: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    term = ontology.resolved(rows["hpo_id"])
    known, obsolete = ontology.known(term), ontology.obsolete(term)
    statements.drop(f"term is not in {ONTOLOGY}", int((~known).sum()))
    statements.drop("obsolete term", int((known & obsolete).sum()))
    keep = known & ~obsolete
    rows, term = rows[keep], term[keep]
    frequency = rows["frequency"] if "frequency" in rows else pd.Series("-", index=rows.index, dtype=object)
    share = _share_of_patients(frequency)
    name = ontology.names(term)
    statements.says_little = little_said(ontology, pd.DataFrame({"term_id": term, "term_name": name}))
    return pd.DataFrame({
        "term_id": term, "term_name": name, "entrez_id": rows["entrez_id"], "gene_symbol": rows["gene_symbol"],
        "score": share, "evidence": rows["disease_id"], "category": term.map(statements.says_little).fillna(PHENOTYPE), "negative": share == 0.0,
    }).reset_index(drop=True)  # fmt: skip


def _share_of_patients(frequency: pd.Series) -> npt.NDArray[np.float64]:
    """`3/5`, `60%` and `HP:0040282` as a share; 0 for none and for Excluded; NaN where nothing, or another text, is given."""
    text = frequency.str.strip()
    counted = text.str.extract(r"^(\d+)\s*/\s*(\d+)$").astype(float)
    percent = text.str.extract(r"^(\d+(?:\.\d*)?|\.\d+)\s*%$")[0].astype(float)
    share = (counted[0] / counted[1].where(counted[1] > 0)).fillna(percent / 100).fillna(text.map(BANDS).astype(float))
    excluded = text.str.lower().str.startswith("excluded")
    return share.mask(excluded, 0.0).to_numpy(dtype=np.float64)


def _diseases(statements: Statements, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    numbered = rows["disease_id"].str.fullmatch(r"[^:]+:.+").to_numpy(dtype=bool)
    statements.drop("disease without a number", int((~numbered).sum()))
    rows = rows[numbered]
    term = rows["disease_id"]
    name = term
    if (folder / ANNOTATIONS).exists():
        told = read_text_table(folder / ANNOTATIONS, ("database_id", "disease_name"), skip="#")
        name = term.map(told.drop_duplicates("database_id").set_index("database_id")["disease_name"]).fillna(term)
    return pd.DataFrame({
        "term_id": term, "term_name": name, "entrez_id": rows["entrez_id"], "gene_symbol": rows["gene_symbol"], "score": np.nan,
        "evidence": rows["source"], "category": rows["association_type"], "negative": False,
    }).reset_index(drop=True)  # fmt: skip
