"""An HGNC complete set in its true form, with the genes that a test needs."""

from __future__ import annotations

from pathlib import Path

COLUMNS = [
    "hgnc_id",
    "symbol",
    "name",
    "locus_group",
    "locus_type",
    "status",
    "location",
    "alias_symbol",
    "alias_name",
    "prev_symbol",
    "prev_name",
    "gene_group",
    "gene_group_id",
    "date_approved_reserved",
    "date_symbol_changed",
    "date_name_changed",
    "date_modified",
    "entrez_id",
    "ensembl_gene_id",
    "vega_id",
    "ucsc_id",
    "ena",
    "refseq_accession",
    "ccds_id",
    "uniprot_ids",
    "pubmed_id",
    "mgd_id",
    "rgd_id",
    "lsdb",
    "cosmic",
    "omim_id",
    "mirbase",
    "homeodb",
    "snornabase",
    "bioparadigms_slc",
    "orphanet",
    "pseudogene.org",
    "horde_id",
    "merops",
    "imgt",
    "iuphar",
    "kznf_gene_catalog",
    "mamit-trnadb",
    "cd",
    "lncrnadb",
    "enzyme_id",
    "intermediate_filament_db",
    "rna_central_id",
    "lncipedia",
    "gtrnadb",
    "agr",
    "mane_select",
    "gencc",
]
OLD_NAMES = {"gene_group": "gene_family", "gene_group_id": "gene_family_id", "rna_central_id": "rna_central_ids"}
OLD_COLUMNS = [OLD_NAMES.get(name, name) for name in COLUMNS if name not in ("mane_select", "gencc")]
OLD_COLUMNS.insert(OLD_COLUMNS.index("location") + 1, "location_sortable")


def gene(number: int, symbol: str, **cells: str) -> dict[str, str]:
    usual = {
        "hgnc_id": f"HGNC:{number}", "symbol": symbol, "status": "Approved", "locus_group": "protein-coding gene",
        "entrez_id": str(1000 + number), "ensembl_gene_id": f"ENSG{number:011d}", "uniprot_ids": f"P{number:05d}",
    }  # fmt: skip
    return usual | cells


def filler(n: int, start: int = 50_000) -> list[dict[str, str]]:
    """Genes that make the table a whole one."""
    return [gene(number, f"FILL{number}") for number in range(start, start + n)]


def write_hgnc(folder: Path, genes: list[dict[str, str]], columns: list[str] = COLUMNS, name: str = "hgnc_complete_set.txt") -> Path:  # fmt: skip
    """Cells with several values stand in quotes, and withdrawn entries end early, as in the real file."""
    lines = ["\t".join(columns)]
    for cells in genes:
        named = {OLD_NAMES.get(key, key) if columns is OLD_COLUMNS else key: value for key, value in cells.items()}
        row = [f'"{text}"' if "|" in (text := named.get(column, "")) else text for column in columns]
        lines.append("\t".join(row[:7] if "Withdrawn" in cells["status"] else row))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
