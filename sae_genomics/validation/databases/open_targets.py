"""Open Targets Platform: associations of targets with diseases, overall and by data source.

A score is a weighted harmonic sum of evidence and no probability. Scores by data source are kept apart by the kind of evidence, so
that genetic and clinical evidence can be tested without expression and text mining. Traits that are measured, such as height, stand
among the diseases; they are kept and marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.ontologies import little_said
from sae_genomics.validation.normal_form.curies import curies
from sae_genomics.validation.normal_form.statements import Statements

NAME = "open_targets"
# Of each association table its names since 26.03, from 25.03 to 25.12, and up to 24.09. Indirect ones hold the diseases below, too.
OVERALL, BY_SOURCE = "overall", "by datasource"
DIRECT = {
    OVERALL: ("association_overall_direct", "association_by_overall_direct", "associationByOverallDirect"),
    BY_SOURCE: ("association_by_datasource_direct", "associationByDatasourceDirect"),
}
INDIRECT = {
    OVERALL: ("association_overall_indirect", "association_by_overall_indirect", "associationByOverallIndirect"),
    BY_SOURCE: ("association_by_datasource_indirect", "associationByDatasourceIndirect"),
}
TARGETS, DISEASES = ("target", "targets"), ("disease", "diseases")
_AREAS = "therapeuticAreas"
_MEASUREMENT, _ATTRIBUTE = "EFO_0001444", "OBA_"  # the area of measurements, and an ontology of traits alone
_BATCH_ROWS = 1 << 17

GENETIC, SOMATIC, CLINICAL, EXPRESSION, TEXT, ANIMAL, PATHWAY, OTHER = CATEGORIES = (
    "genetic", "somatic", "clinical", "expression", "text-mining", "animal-model", "pathway", "other",
)  # fmt: skip
_OF_SOURCE = {
    **dict.fromkeys(
        ("gwas_credible_sets", "ot_genetics_portal", "gene_burden", "eva", "genomics_england", "gene2phenotype", "uniprot_literature",
         "uniprot_variants", "orphanet", "clingen"), GENETIC),
    **dict.fromkeys(("cancer_gene_census", "intogen", "eva_somatic"), SOMATIC),
    **dict.fromkeys(("cancer_biomarkers", "crispr", "crispr_screen", "progeny", "reactome", "slapenrich", "sysbio"), PATHWAY),
    "chembl": CLINICAL, "expression_atlas": EXPRESSION, "europepmc": TEXT, "impc": ANIMAL,
}  # fmt: skip
_OF_TYPE = {  # of a data source that is not in the list; the layout up to 25.12 says it
    "genetic_association": GENETIC, "genetic_literature": GENETIC, "somatic_mutation": SOMATIC, "known_drug": CLINICAL,
    "clinical": CLINICAL, "rna_expression": EXPRESSION, "literature": TEXT, "animal_model": ANIMAL, "affected_pathway": PATHWAY,
}  # fmt: skip


def read(folder: Path) -> Statements:
    """Direct associations where there are any, else indirect ones; both tables where both are there. Raises UserError."""
    tables, propagated = _association_tables(folder)
    symbols = _table(_dataset(folder, TARGETS), ("id", "approvedSymbol")).drop_duplicates("id").set_index("id")
    diseases = _table(_dataset(folder, DISEASES), ("id", "name", "parents", "obsoleteTerms"), (_AREAS,))
    diseases = diseases.drop_duplicates("id")
    statements = Statements(propagated=propagated, parents=_parents(diseases))
    statements.says_little = _little_said(diseases, statements)
    if not tables:
        statements.terms = pd.DataFrame(columns=["term_id", "term_name", "ensembl_id"], dtype=object)
        statements.notes.append(
            f"there is no table of associations, only {len(symbols):,} targets and {len(diseases):,} diseases: nothing is stated, and "
            f"nothing can be tested; fetch {DIRECT[BY_SOURCE][0]}"
        )
        return statements
    pairs = _Pairs()
    for kind, path in tables.items():
        for batch in _associations(path, kind):
            statements.rows_read += len(batch)
            pairs.add(batch, statements)
    if not statements.rows_read:
        raise UserError(f"{NAME}: the association tables in {folder} have no rows; fetch them again")
    table = pairs.strongest(statements, _replaced(diseases))
    statements.terms = _terms(table, symbols["approvedSymbol"], diseases.set_index("id")["name"], statements)
    statements.notes.append(
        f"read {', '.join(path.name for path in tables.values())}; scores are no probabilities; {OVERALL} counts all other categories too"
    )
    for kind in DIRECT.keys() - tables.keys():
        statements.notes.append(f"associations {kind} are not there: {DIRECT[kind][0]} is missing")
    return statements


def _association_tables(folder: Path) -> tuple[dict[str, Path], bool]:
    """Kind of association -> its folder, and whether they hold what is below a disease, too. The two are never mixed.

    None where the folder has targets and diseases alone.
    """
    for names, propagated in ((DIRECT, False), (INDIRECT, True)):
        found = {kind: path for kind in names if (path := _existing(folder, names[kind])) is not None}
        if found:
            return found, propagated
    if _existing(folder, TARGETS) is not None and _existing(folder, DISEASES) is not None:
        return {}, False
    wanted = [name for names in (DIRECT, INDIRECT) for kind in names.values() for name in kind]
    raise UserError(
        f"{NAME}: none of {', '.join(wanted)} is in {folder}; run scripts/download_databases.py --only {NAME}"
    )


def _existing(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _dataset(folder: Path, names: tuple[str, ...]) -> Path:
    path = _existing(folder, names)
    if path is None:
        raise UserError(
            f"{NAME}: the folder {names[0]} is not in {folder}, and associations hold ids only; run scripts/download_databases.py --only {NAME}"
        )
    return path


def _files(path: Path) -> list[Path]:
    """The parts of a table, whatever they are called."""
    parts = sorted(part for part in path.glob("*.parquet") if not part.name.startswith((".", "_")))
    if not parts:
        raise UserError(f"{NAME}: no .parquet file is in {path}; run scripts/download_databases.py --only {NAME}")
    return parts


def _batches(part: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of one part, a group at a time, and of the columns asked for only: `timeseries` is most of a part's size."""
    try:
        with pq.ParquetFile(part) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise UserError(
                    f"{part} has no column {missing[0]!r}; it begins with {', '.join(file.schema_arrow.names)[:120]}: its layout has changed, or it is another table"
                )
            for group in range(file.num_row_groups):
                yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)
    except (OSError, pa.ArrowException) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"{part} is damaged or cut off: {first}; fetch it again") from None


def _table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> pd.DataFrame:
    frames = []
    for part in _files(path):
        names = _schema_names(part)
        wanted = [*columns, *(name for name in optional if name in names)]
        frames += [batch.to_pandas() for batch in _batches(part, wanted)]
    if not frames or not sum(map(len, frames)):
        raise UserError(f"{path} has no rows; fetch it again")
    return pd.concat(frames, ignore_index=True)


def _associations(path: Path, kind: str) -> Iterator[pd.DataFrame]:
    """diseaseId, targetId, score, category and evidence of both layouts, a batch at a time."""
    for part in _files(path):
        names = _schema_names(part)
        if "associationScore" in names:  # since 26.03
            for batch in _batches(
                part, ["diseaseId", "targetId", "aggregationType", "aggregationValue", "associationScore"]
            ):
                frame = _text(
                    batch.to_pandas().rename(columns={"associationScore": "score", "aggregationValue": "evidence"})
                )
                wanted = "overall" if kind == OVERALL else "datasourceId"
                other = frame.loc[frame["aggregationType"] != wanted, "aggregationType"]
                if len(other):
                    raise UserError(
                        f"{part} holds associations by {other.iloc[0]!r} and should hold {wanted!r}; fetch {path.name} again"
                    )
                yield _with_category(frame, kind)
        else:
            columns = ["diseaseId", "targetId", "score", *(["datatypeId", "datasourceId"] if kind == BY_SOURCE else [])]
            for batch in _batches(part, columns):
                yield _with_category(_text(batch.to_pandas().rename(columns={"datasourceId": "evidence"})), kind)


def _schema_names(part: Path) -> list[str]:
    try:
        return list(pq.read_schema(part).names)
    except (OSError, pa.ArrowException) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"{part} is damaged or cut off: {first}; fetch it again") from None


def _text(frame: pd.DataFrame) -> pd.DataFrame:
    texts = [name for name in frame if name != "score"]
    return frame.assign(**{name: frame[name].astype(object).fillna("") for name in texts})


def _with_category(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    if kind == OVERALL:
        return frame.assign(category=OVERALL, evidence=OVERALL)
    category = frame["evidence"].map(_OF_SOURCE)
    category = category.mask(frame["evidence"].str.startswith("clinical"), CLINICAL)
    if "datatypeId" in frame:
        category = category.fillna(frame["datatypeId"].map(_OF_TYPE))
    return frame.assign(category=category.fillna(OTHER))


@dataclass
class _Codes:
    """Text -> number, growing: millions of rows repeat some thousand ids."""

    index: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))

    def of(self, values: pd.Series) -> np.ndarray:
        codes, uniques = pd.factorize(values)
        fresh = uniques[~uniques.isin(self.index)] if len(self.index) else uniques
        self.index = self.index.append(pd.Index(fresh, dtype=object))
        return self.index.get_indexer(uniques).astype(np.int32)[codes]


class _Pairs:
    """Associations as numbers, 17 bytes each, until all parts are read."""

    def __init__(self) -> None:
        self.disease, self.target, self.category, self.evidence = _Codes(), _Codes(), _Codes(), _Codes()
        self.parts: list[pd.DataFrame] = []

    def add(self, batch: pd.DataFrame, statements: Statements) -> None:
        named = (batch["diseaseId"] != "") & (batch["targetId"] != "")
        statements.drop("no disease or no target", (~named).sum())
        batch = batch[named]
        self.parts.append(pd.DataFrame({
            "disease": self.disease.of(batch["diseaseId"]),
            "target": self.target.of(batch["targetId"]),
            "category": self.category.of(batch["category"]).astype(np.int8),
            "evidence": self.evidence.of(batch["evidence"]).astype(np.int16),
            "score": batch["score"].to_numpy(np.float64),
        }))  # fmt: skip

    def strongest(self, statements: Statements, replaced: pd.Series) -> pd.DataFrame:
        """The strongest statement per disease, target and category, ids in place of numbers, obsolete diseases replaced."""
        table = pd.concat(self.parts, ignore_index=True)
        self.parts = []
        old = self.disease.index
        current = old.to_series().map(replaced).fillna(old.to_series())
        codes, names = pd.factorize(current)
        moved = (current.to_numpy() != old.to_numpy())[table["disease"]].sum()
        if moved:
            statements.notes.append(f"{moved:,} associations name an obsolete disease, which its successor replaces")
        table["disease"] = codes.astype(np.int32)[table["disease"]]
        order = np.lexsort(
            (
                -table["score"].fillna(-1).to_numpy(),
                table["category"],
                table["target"],
                table["disease"],
            )
        )
        table = table.iloc[order]
        again = table.duplicated(["disease", "target", "category"])
        statements.drop("duplicate", again.sum())
        table = table[~again]
        # Rows share the texts, of which there are few: a number in each row is enough.
        return pd.DataFrame({
            "disease": _texts(table["disease"], names),
            "ensembl_id": _texts(table["target"], self.target.index),
            "category": _texts(table["category"], self.category.index),
            "evidence": _texts(table["evidence"], self.evidence.index),
            "score": table["score"].to_numpy(),
        })  # fmt: skip


def _texts(codes: pd.Series, values: Sequence[str]) -> pd.Categorical:
    """Of each row the value that its number stands for; two numbers may stand for one value."""
    number, distinct = pd.factorize(np.asarray(values, dtype=object))
    return pd.Categorical.from_codes(number.astype(np.int32)[codes.to_numpy()], distinct)


def _terms(table: pd.DataFrame, symbols: pd.Series, names: pd.Series, statements: Statements) -> pd.DataFrame:
    ids = pd.Series(table["disease"].cat.categories, dtype=object)
    unnamed = ids[~ids.isin(names.index)]
    if len(unnamed):
        statements.notes.append(
            f"{len(unnamed):,} diseases are not in the disease table, for example {unnamed.iloc[0]}: they are named by their ids"
        )
    unknown = sorted(set(table.loc[table["category"] == OTHER, "evidence"]))
    if unknown:
        statements.notes.append(f"data sources of no known kind, in category {OTHER!r}: {', '.join(unknown)}")
    curie = curies(ids)
    name = names.reindex(ids).reset_index(drop=True).fillna("")
    name = name.mask(name == "", curie)
    disease, target = table["disease"].cat, table["ensembl_id"].cat
    return pd.DataFrame({
        "term_id": _texts(disease.codes, curie),
        "term_name": _texts(disease.codes, name),
        "ensembl_id": table["ensembl_id"],
        "gene_symbol": _texts(target.codes, symbols.reindex(target.categories).fillna("")),
        "score": table["score"],
        "evidence": table["evidence"],
        "category": table["category"],
        "negative": False,
    })  # fmt: skip


def _replaced(diseases: pd.DataFrame) -> pd.Series:
    """Obsolete id -> the id that took its place; an id that is in use, or that two took the place of, is not replaced."""
    old = diseases.set_index("id")["obsoleteTerms"].explode().dropna()
    pairs = pd.DataFrame({"old": old.to_numpy(), "id": old.index}).drop_duplicates()
    pairs = pairs[~pairs["old"].isin(diseases["id"]) & ~pairs["old"].duplicated(keep=False)]
    return pd.Series(pairs["id"].to_numpy(), index=pairs["old"].to_numpy(), dtype=object)


def _parents(diseases: pd.DataFrame) -> pd.DataFrame:
    parents = diseases.set_index("id")["parents"].explode().dropna()
    return pd.DataFrame({
        "term_id": curies(pd.Series(parents.index, dtype=object)),
        "parent_id": curies(pd.Series(parents.to_numpy(), dtype=object)),
        "parent_name": diseases.set_index("id")["name"].reindex(parents.to_numpy()).fillna("").to_numpy(),
    }).drop_duplicates(ignore_index=True)  # fmt: skip


def _little_said(diseases: pd.DataFrame, statements: Statements) -> dict[str, str]:
    """Traits that are measured, and areas of medicine; for both the table has to say of which areas a disease is."""
    named = pd.DataFrame({"term_id": curies(diseases["id"]), "term_name": diseases["name"]})
    marked = little_said(None, named)
    if _AREAS not in diseases:
        statements.notes.append(f"the disease table has no {_AREAS}: traits that are measured count as diseases")
        return marked
    areas = diseases.set_index("id")[_AREAS].explode().dropna()
    measurement = {_MEASUREMENT, *diseases.loc[diseases["name"].str.lower() == "measurement", "id"]}
    ids = {
        "therapeutic area": areas.unique(),
        "measurement": [*areas.index[areas.isin(measurement)], *diseases.loc[diseases["id"].str.startswith(_ATTRIBUTE), "id"]],
    }  # fmt: skip
    for reason, which in ids.items():
        marked |= dict.fromkeys(curies(pd.Series(which, dtype=object)), reason)
    return marked
