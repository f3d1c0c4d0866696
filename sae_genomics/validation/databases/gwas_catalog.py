"""GWAS Catalog: genes at loci that are associated with a trait, genome-wide.

A mapped gene is the nearest or overlapping one, and not the causal one. In a cell of genes, `, ` parts overlapping genes, ` - ` the
genes on both sides of an intergenic variant (one of them may be NA), `; ` the variants of a haplotype and ` x ` interacting ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.curies import curies
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_batches import text_batches
from sae_genomics.validation.normal_form.text_tables import find, opened

NAME = "gwas_catalog"
PLAIN = "gwas-catalog-associations_ontology-annotated.tsv"
PLAIN_LEAST_ROWS = 1_000_000  # this file stayed on the server with a fifth of its rows, and looks whole
EXCERPT_ROWS = 100_000  # what has fewer rows was cut out by a person, who knows it
FILES = (
    "gwas-catalog-associations_ontology-annotated-full.zip",
    "gwas-catalog-download-associations-alt-full.tsv",
    "gwas-catalog-associations_ontology-annotated-full.tsv",
    PLAIN,
)
_NAMED_BY_RELEASE = ("gwas_catalog_v1.0*-associations_e*_r*.tsv", "gwas_catalog_v1.0*-associations_e*_r*.tsv.gz")
GENOME_WIDE = 7.3  # -log10 of 5e-8; P-VALUE itself is 0 for the strongest, as a number

_GENES, _UPSTREAM, _DOWNSTREAM, _INSIDE = "MAPPED_GENE", "UPSTREAM_GENE_ID", "DOWNSTREAM_GENE_ID", "SNP_GENE_IDS"
_AS_WRITTEN = "DISEASE/TRAIT"  # the trait in the words of the paper
_MLOG, _TRAIT, _URI, _CONTEXT, _ADDED = (
    "PVALUE_MLOG",
    "MAPPED_TRAIT",
    "MAPPED_TRAIT_URI",
    "CONTEXT",
    "DATE ADDED TO CATALOG",
)
_COLUMNS = (_ADDED, _GENES, _UPSTREAM, _DOWNSTREAM, _INSIDE, _CONTEXT, _MLOG, _TRAIT, _URI)
_VARIANTS = r"; | x "
_BETWEEN = " - "  # names of genes hold dashes without blanks
IN_GENE, INTERGENIC = "in-gene", "intergenic"


def read(folder: Path) -> Statements:
    """Statements with one row per association, gene and trait. Raises UserError."""
    by_release = sorted(path.name for pattern in _NAMED_BY_RELEASE for path in folder.glob(pattern))
    path = find(folder, [*FILES, *reversed(by_release)], NAME)
    statements = Statements(
        version=path.name.partition(".tsv")[0].rpartition("_r")[2] if path.name in by_release else ""
    )
    newest, parts = "", []
    columns = _columns(path, statements)
    for batch in text_batches(path, columns):
        newest = max(newest, batch[_ADDED].max())
        batch = batch.rename(columns={_AS_WRITTEN: _TRAIT})
        batch.index = batch.index + statements.rows_read
        statements.rows_read += len(batch)
        parts.append(_wanted(batch, statements))
    if not statements.rows_read:
        raise UserError(f"{path} has a header and no rows; fetch it again")
    if path.name == PLAIN and EXCERPT_ROWS <= statements.rows_read < PLAIN_LEAST_ROWS:
        raise UserError(
            f"{path} has {statements.rows_read:,} rows and should have more than {PLAIN_LEAST_ROWS:,}: the server's plain file is cut off; fetch {FILES[0]}"
        )
    if statements.rows_read < EXCERPT_ROWS:
        statements.notes.append(
            f"{path.name} has {statements.rows_read:,} rows: an excerpt; the whole catalogue has more than {PLAIN_LEAST_ROWS:,}"
        )
    statements.terms = _joined(pd.concat(parts), statements)
    statements.notes.append(f"the newest association was added on {newest}")
    return statements


def _columns(path: Path, statements: Statements) -> tuple[str, ...]:
    """What to read. Files of the kind v1.0 have no terms of an ontology, only the words of the paper."""
    with opened(path) as raw:
        header = raw.readline().decode("utf-8", "replace")
    if _URI in header or _AS_WRITTEN not in header:
        return _COLUMNS
    statements.notes.append(
        f"{path.name} has no column {_URI}: a trait is known by the words of its paper, and one trait has several; fetch {FILES[0]}"
    )
    return (*(name for name in _COLUMNS if name not in (_TRAIT, _URI)), _AS_WRITTEN)


def _wanted(batch: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    """The rows of a batch that say something of a gene and a trait, genome-wide. Where no column has a trait's id, its name is its id."""
    if _URI not in batch:
        batch[_URI] = batch[_TRAIT].str.strip()
    batch["score"] = pd.to_numeric(batch[_MLOG].str.strip(), errors="coerce")
    has_gene = (batch[_GENES].str.strip() + batch[_UPSTREAM] + batch[_DOWNSTREAM] + batch[_INSIDE]) != ""
    reason = np.select(
        [batch["score"].isna(), batch["score"] < GENOME_WIDE, batch[_URI].str.strip() == "", ~has_gene],
        ["no p-value", "not genome-wide", "no ontology term", "no mapped gene"],
        "",
    )
    for name, rows in pd.Series(reason[reason != ""], dtype=object).value_counts().items():
        statements.drop(str(name), rows)
    # A p-value of 0 has no logarithm that could be compared.
    batch["score"] = batch["score"].replace(np.inf, np.nan)
    return batch[reason == ""]


def _joined(rows: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    gene_number, gene_cells = _distinct(rows, [_GENES, _UPSTREAM, _DOWNSTREAM, _INSIDE])
    trait_number, trait_cells = _distinct(rows, [_TRAIT, _URI])
    genes, traits = _genes(gene_cells), _traits(trait_cells)
    unnamed = ~np.isin(gene_number, genes.index)
    untold = ~np.isin(trait_number, traits.index) & ~unnamed
    statements.drop("no mapped gene", unnamed.sum())
    statements.drop("no ontology term", untold.sum())
    taken = int((~unnamed & ~untold).sum())
    facts = pd.DataFrame(
        {"score": rows["score"], "evidence": rows[_CONTEXT], "gene": gene_number, "trait": trait_number}
    )
    terms = facts.join(genes, on="gene", how="inner").join(traits, on="trait", how="inner")
    statements.split = len(terms) - taken
    statements.notes.append(
        f"{taken:,} genome-wide associations give {len(terms):,} statements, one per gene and trait of theirs"
    )
    return terms.drop(columns=["gene", "trait"]).reset_index(drop=True).assign(negative=False)


def _distinct(rows: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """A number per row, and the cells of each number: most variants and traits are in the catalogue many times."""
    number = rows.groupby(columns, sort=False).ngroup().to_numpy()
    return number, rows[columns].drop_duplicates().reset_index(drop=True)


def _traits(rows: pd.DataFrame) -> pd.DataFrame:
    """term_id and term_name by row, one per address. Names hold commas, so a cell with several addresses is named by the cells
    with one, else by its parts where there are as many as addresses, else by the id."""
    if rows[_URI].equals(rows[_TRAIT].str.strip()):  # names, which hold commas
        return pd.DataFrame({"term_id": rows[_URI], "term_name": rows[_URI]})
    uris = rows[_URI].str.strip().str.split(r"\s*,\s*", regex=True).explode()
    uris = uris[uris != ""]
    traits = pd.DataFrame({"term_id": curies(uris)})
    several = traits.index.duplicated(keep=False)
    alone = traits[~several].assign(name=rows[_TRAIT].str.strip())
    known = alone[alone["name"] != ""].drop_duplicates("term_id").set_index("term_id")["name"]
    names = rows.loc[traits.index[several].unique(), _TRAIT].str.split(r",\s+", regex=True)
    counted = traits[several].groupby(level=0).size()
    matching = names[names.str.len() == counted.reindex(names.index)].explode()
    traits["term_name"] = traits["term_id"].map(known)
    as_parts = pd.Series("", index=_numbered(traits.index))
    as_parts.update(pd.Series(matching.to_numpy(), index=_numbered(matching.index), dtype=object))
    parts = as_parts.to_numpy()
    traits["term_name"] = traits["term_name"].where(
        traits["term_name"].notna(), np.where(parts != "", parts, traits["term_id"])
    )
    return traits


def _genes(rows: pd.DataFrame) -> pd.DataFrame:
    """gene_symbol, ensembl_id, entrez_id and category by row, one per gene. Names and ids are joined where there are as many
    names as ids on one side of a variant (upstream, downstream, inside); else each stands alone."""
    variants = rows[_GENES].str.split(_VARIANTS, regex=True).explode()
    between = variants.str.contains(_BETWEEN, regex=False)
    pairs = variants[between].str.split(_BETWEEN, n=1, regex=False)
    names = _tokens(
        {
            _INSIDE: variants[~between],
            _UPSTREAM: pairs.str[0],
            _DOWNSTREAM: pairs.str[1].str.replace(_BETWEEN, ", ", regex=False),
        }
    )
    ids = _tokens({side: rows[side] for side in (_INSIDE, _UPSTREAM, _DOWNSTREAM)})
    key = ["row", "side"]
    many = names.groupby(key).size().rename("names").to_frame().join(ids.groupby(key).size().rename("ids"), how="outer")
    paired = many.index[many["names"] == many["ids"]]
    of_names = names.set_index(key).index.isin(paired)
    of_ids = ids.set_index(key).index.isin(paired)
    joined = names[of_names].merge(ids[of_ids], on=[*key, "number"], suffixes=("_name", "_id"))
    genes = pd.concat(
        [
            joined.rename(columns={"text_name": "symbol", "text_id": "id"}),
            names[~of_names].rename(columns={"text": "symbol"}),
            ids[~of_ids].rename(columns={"text": "id"}),
        ]
    )[["row", "side", "symbol", "id"]].fillna("")
    genes = genes.replace({"symbol": {"NA": ""}, "id": {"NA": ""}})
    ensembl = genes["id"].str.extract(r"^(ENSG\d+)(?:\.\d+)?$")[0].fillna("")
    entrez = genes["id"].str.extract(r"^(\d+)$")[0].fillna("")  # old files
    table = pd.DataFrame({
        "gene_symbol": genes["symbol"].to_numpy(),
        "ensembl_id": ensembl.to_numpy(),
        "entrez_id": entrez.to_numpy(),
        "category": np.where(genes["side"] == _INSIDE, IN_GENE, INTERGENIC),
    }, index=pd.Index(genes["row"].to_numpy(), name=None))  # fmt: skip
    return table[(table[["gene_symbol", "ensembl_id", "entrez_id"]] != "").any(axis=1)].sort_index(kind="stable")


def _tokens(cells: dict[str, pd.Series]) -> pd.DataFrame:
    """Parts of cells: row, side, their number in the row and side, and their text; empty parts are left out."""
    tables = []
    for side, values in cells.items():
        parts = values.str.split(r"; | x |,\s*", regex=True).explode().str.strip()
        parts = parts[parts.fillna("") != ""]
        numbers = parts.groupby(level=0).cumcount()
        tables.append(
            pd.DataFrame(
                {"row": parts.index, "side": side, "number": numbers.to_numpy(), "text": parts.to_numpy()}, dtype=object
            )
        )
    table = pd.concat(tables, ignore_index=True)
    return table.astype({"row": "int64", "number": "int64"})


def _numbered(index: pd.Index) -> pd.MultiIndex:
    """Rows that occur several times, with the number of the occurrence."""
    rows = pd.Series(index)
    return pd.MultiIndex.from_arrays([rows, rows.groupby(rows).cumcount()])
