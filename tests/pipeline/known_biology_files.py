"""Every source as its publisher writes it, with a few genes, and an independent reading of each.

A source is written by one function and read plainly by another (csv, json, XML, Arrow), which share nothing with the readers in
`validation/databases/`. Gene number g of the tests has the ids that `gene` gives; the functions name it by the id that the source uses.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

from tests.validation.databases import (
    test_cellmarker,
    test_clinvar,
    test_disgenet,
    test_gencc,
    test_go,
    test_gwas_catalog,
    test_hpo,
    test_monarch,
    test_omim,
    test_open_targets,
    test_orphanet,
    test_panglaodb,
)
from tests.validation.databases.true_files import write_rows
from tests.validation.normal_form import hgnc_file

Sets = dict[int, list[int]]  # number of a term -> numbers of its genes
NOT_MEMBER = 39  # the gene that a source with negative statements says not to belong to term 0


@dataclass
class Plain:
    """What an independent reading finds. rows: data rows of all files."""

    rows: int = 0
    members: dict[str, set[int]] = field(default_factory=dict)
    """term id -> genes that belong to it"""
    negative: set[tuple[str, int]] = field(default_factory=set)
    left_out: set[tuple[str, int]] = field(default_factory=set)
    """statements that are kept and that do not count: weak ones, ones from expression, and terms that say little"""

    def say(self, term: str, gene: int, negative: bool = False) -> None:
        if negative:
            self.negative.add((term, gene))
        else:
            self.members.setdefault(term, set()).add(gene)

    @property
    def universe(self) -> set[int]:
        """Every gene that the source names."""
        return set().union(*self.members.values(), (gene for _, gene in self.negative | self.left_out))


def symbol(gene: int) -> str:
    return f"GENE{gene}"


def ensembl(gene: int) -> str:
    return f"ENSG{gene + 1:011d}"


def entrez(gene: int) -> str:
    return str(1001 + gene)


def number(name: str) -> int:
    """The gene that a name stands for, by any of its ids."""
    if name.startswith("GENE"):
        return int(name.removeprefix("GENE"))
    for prefix, first in (("ENSG", 1), ("HGNC:", 1), ("hsa:", 1001), ("P", 1)):
        if name.startswith(prefix):
            return int(name.removeprefix(prefix)) - first
    return int(name) - 1001


def _pairs(sets: Sets) -> Iterator[tuple[int, int]]:
    return ((term, gene) for term, genes in sets.items() for gene in genes)


def _table(path: Path, **options: str) -> list[dict[str, str]]:
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", **options))


def write_hgnc(folder: Path, n_genes: int, groups: Sets) -> None:
    group = {gene: term for term, genes in groups.items() for gene in genes}
    hgnc_file.write_hgnc(folder, [
        hgnc_file.gene(g + 1, symbol(g), **({"gene_group": f"family {group[g]}", "gene_group_id": str(100 + group[g])} if g in group else {}))
        for g in range(n_genes)
    ])  # fmt: skip


def read_hgnc(folder: Path) -> Plain:
    rows = _table(folder / "hgnc_complete_set.txt")
    plain = Plain(len(rows))
    for row in rows:
        if row["gene_group_id"]:
            plain.say(f"HGNC.GROUP:{row['gene_group_id']}", number(row["hgnc_id"]))
    return plain


def write_open_targets(folder: Path, sets: Sets) -> None:
    genes = sorted({gene for _, gene in _pairs(sets)} | {NOT_MEMBER, NOT_MEMBER - 1})
    test_open_targets.write(folder, "target", pa.table({"id": [ensembl(g) for g in genes], "approvedSymbol": [symbol(g) for g in genes],
                                                        "biotype": ["protein_coding"] * len(genes)}))  # fmt: skip
    ids, none = [f"MONDO_000010{term}" for term in sets], pa.array([None] * len(sets), pa.list_(pa.string()))
    test_open_targets.write(
        folder, "disease",
        pa.table({"id": ids, "name": [f"disease {term}" for term in sets], "parents": none, "obsoleteTerms": none,
                  "therapeuticAreas": pa.array([["OTAR_0000020"]] * len(sets), pa.list_(pa.string()))}),
        part="00000000.parquet",
    )  # fmt: skip
    rows = [(f"MONDO_000010{term}", ensembl(gene), 0.9, "eva") for term, gene in _pairs(sets)]
    rows += [
        ("MONDO_0000100", ensembl(NOT_MEMBER), 0.9, "expression_atlas"),
        ("MONDO_0000100", ensembl(NOT_MEMBER - 1), 0.1, "eva"),
    ]
    test_open_targets.write(
        folder, test_open_targets.BY_SOURCE, test_open_targets.associations(rows, "datasourceId", new=True)
    )


def read_open_targets(folder: Path) -> Plain:
    rows = pq.read_table(folder / test_open_targets.BY_SOURCE).to_pylist()
    plain = Plain(len(rows))
    for row in rows:
        term, gene = row["diseaseId"].replace("_", ":"), number(row["targetId"])
        if row["aggregationValue"] != "expression_atlas" and row["associationScore"] >= 0.5:
            plain.say(term, gene)
        else:
            plain.left_out.add((term, gene))
    return plain


HPO = ("HP:0000252", "HP:0001250", "HP:0002460")


def write_hpo(folder: Path, sets: Sets) -> None:
    (folder / "hp.obo").write_text(test_hpo.obo())
    rows = [(entrez(gene), symbol(gene), HPO[term], "a phenotype", "-", "OMIM:1") for term, gene in _pairs(sets)]
    rows.append((entrez(NOT_MEMBER), symbol(NOT_MEMBER), HPO[0], "a phenotype", "0/7", "OMIM:1"))
    rows.append((entrez(2), symbol(2), "HP:0000007", "Autosomal recessive inheritance", "-", "OMIM:1"))
    write_rows(folder / "genes_to_phenotype.txt", [test_hpo.NEW, *rows])


def read_hpo(folder: Path) -> Plain:
    rows = _table(folder / "genes_to_phenotype.txt")
    plain = Plain(len(rows))
    for row in rows:
        if row["hpo_id"] in HPO:
            plain.say(row["hpo_id"], number(row["ncbi_gene_id"]), negative=row["frequency"] == "0/7")
        else:
            plain.left_out.add((row["hpo_id"], number(row["ncbi_gene_id"])))
    return plain


def write_gwas_catalog(folder: Path, sets: Sets) -> None:
    rows = [
        test_gwas_catalog.association(symbol(gene), ensembl(gene), MAPPED_TRAIT=f"trait {term}", MAPPED_TRAIT_URI=f"{test_gwas_catalog.EFO}000010{term}")
        for term, gene in _pairs(sets)
    ]  # fmt: skip
    rows.append(test_gwas_catalog.association(symbol(NOT_MEMBER), ensembl(NOT_MEMBER), mlog="7.2"))
    test_gwas_catalog.written(folder, rows, test_gwas_catalog.ZIP)


def read_gwas_catalog(folder: Path) -> Plain:
    with zipfile.ZipFile(folder / test_gwas_catalog.ZIP) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    plain = Plain(len(rows))
    for row in rows:
        if float(row["PVALUE_MLOG"]) >= 7.3:
            plain.say(row["MAPPED_TRAIT_URI"].rpartition("/")[2].replace("_", ":"), number(row["SNP_GENE_IDS"]))
    return plain


def write_disgenet(folder: Path, sets: Sets) -> None:
    pairs = list(_pairs(sets))
    payload = [
        test_disgenet.association(i, symbolOfGene=symbol(gene), geneNcbiID=int(entrez(gene)), geneEnsemblIDs=[ensembl(gene)],
                                  diseaseUMLSCUI=f"C000010{term}", diseaseName=f"disease {term}")
        for i, (term, gene) in enumerate(pairs)
    ]  # fmt: skip
    test_disgenet.written(folder, [test_disgenet.page("1", 0, len(payload), payload)])


def read_disgenet(folder: Path) -> Plain:
    rows = [
        row for line in (folder / "gda_pages.jsonl").read_text().splitlines() for row in json.loads(line)["payload"]
    ]
    plain = Plain(len(rows))
    for row in rows:
        plain.say(f"UMLS:{row['diseaseUMLSCUI']}", number(str(row["geneNcbiID"])))
    return plain


def write_monarch(folder: Path, sets: Sets) -> None:
    rows = [
        {"subject": f"HGNC:{gene + 1}", "subject_label": symbol(gene), "object": f"MONDO:000010{term}", "object_label": f"disease {term}"}
        for term, gene in _pairs(sets)
    ]  # fmt: skip
    rows.append(
        {"subject": f"HGNC:{NOT_MEMBER + 1}", "object": "MONDO:0000100", "object_label": "disease 0", "negated": "true"}
    )
    rows.append({"subject": "MGI:1", "object": "MONDO:0000100", "object_label": "disease 0"})
    test_monarch.written(folder, test_monarch.CAUSAL, rows)


def read_monarch(folder: Path) -> Plain:
    rows = _table(folder / test_monarch.CAUSAL)
    plain = Plain(len(rows))
    for row in rows:
        if row["subject"].startswith("HGNC:"):
            plain.say(row["object"], number(row["subject"]), negative=row["negated"] == "true")
    return plain


def write_omim(folder: Path, sets: Sets) -> None:
    by_gene: dict[int, list[int]] = {}
    for term, gene in _pairs(sets):
        by_gene.setdefault(gene, []).append(term)
    rows = [
        test_omim.gene("; ".join(f"Disease {term}, 10000{term} (3)" for term in terms), symbol(gene), entrez(gene), ensembl(gene))
        for gene, terms in by_gene.items()
    ]  # fmt: skip
    rows.append(test_omim.gene("?Disease 0, 100000 (3)", symbol(NOT_MEMBER), entrez(NOT_MEMBER), ensembl(NOT_MEMBER)))
    test_omim.written(folder, rows)


def read_omim(folder: Path) -> Plain:
    lines = (folder / "genemap2.txt").read_text().splitlines()
    header = next(line for line in lines if line.startswith("# Chromosome")).removeprefix("# ").split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=False)) for line in lines if line and not line.startswith("#")]
    plain = Plain(len(rows))
    for row in rows:
        for phenotype in row["Phenotypes"].split("; "):
            if not phenotype.startswith("?"):
                plain.say(f"OMIM:{phenotype.split(', ')[1].split()[0]}", number(row["Entrez Gene ID"]))
    return plain


def write_orphanet(folder: Path, sets: Sets) -> None:
    disorders = [
        test_orphanet.disorder(str(100 + term), f"Disorder {term}", test_orphanet.genes(*[
            test_orphanet.association(symbol(gene), HGNC=str(gene + 1), Ensembl=ensembl(gene)) for gene in genes
        ], test_orphanet.association(symbol(NOT_MEMBER), "Candidate gene tested in", HGNC=str(NOT_MEMBER + 1))))
        for term, genes in sets.items()
    ]  # fmt: skip
    body = test_orphanet.ROOT.format(body=f"<DisorderList>{''.join(disorders)}</DisorderList>")
    (folder / "en_product6.xml").write_bytes((test_orphanet.HEAD + body).encode("latin-1"))


def read_orphanet(folder: Path) -> Plain:
    plain = Plain()
    for disorder in ElementTree.parse(folder / "en_product6.xml").iter("Disorder"):
        for association in disorder.iter("DisorderGeneAssociation"):
            plain.rows += 1
            if (association.findtext("DisorderGeneAssociationType/Name") or "").startswith("Disease-causing"):
                plain.say(f"ORPHA:{disorder.findtext('OrphaCode')}", number(association.findtext("Gene/Symbol") or ""))
    return plain


def write_clinvar(folder: Path, sets: Sets) -> None:
    rows = [
        {"GeneID": entrez(gene), "GeneSymbol": symbol(gene), "HGNC_ID": f"HGNC:{gene + 1}",
         "PhenotypeIDS": f"MONDO:MONDO:000010{term},MedGen:C000010{term}", "PhenotypeList": f"Disease {term}"}
        for term, gene in _pairs(sets)
    ]  # fmt: skip
    other = {"GeneID": entrez(NOT_MEMBER), "GeneSymbol": symbol(NOT_MEMBER), "HGNC_ID": f"HGNC:{NOT_MEMBER + 1}"}
    rows.append({**rows[0], **other, "ClinicalSignificance": "Benign"})
    test_clinvar.variants(folder, rows)


def read_clinvar(folder: Path) -> Plain:
    rows = _table(folder / "variant_summary.txt.gz", quoting=csv.QUOTE_NONE)  # type: ignore[arg-type]
    plain = Plain(len(rows))
    for row in rows:
        if row["Assembly"] == "GRCh38":
            term = row["PhenotypeIDS"].split(",")[0].removeprefix("MONDO:")
            plain.say(term, number(row["GeneID"]), negative=row["ClinicalSignificance"] == "Benign")
    return plain


def write_gencc(folder: Path, sets: Sets) -> None:
    rows = [
        {"gene_curie": f"HGNC:{gene + 1}", "gene_symbol": symbol(gene), "disease_curie": f"MONDO:000010{term}", "disease_title": f"disease, {term}"}
        for term, gene in _pairs(sets)
    ]  # fmt: skip
    rows.append({**rows[0], "gene_curie": f"HGNC:{NOT_MEMBER + 1}", "classification_curie": "GENCC:100006"})
    test_gencc.written(folder, rows)


def read_gencc(folder: Path) -> Plain:
    rows = _table(folder / "gencc-submissions.tsv")
    plain = Plain(len(rows))
    for row in rows:
        plain.say(
            row["disease_curie"], number(row["gene_curie"]), negative=row["classification_curie"] == "GENCC:100006"
        )
    return plain


def write_reactome(folder: Path, sets: Sets) -> None:
    rows = [(f"Pathway, {term}", f"R-HSA-{100 + term}", *map(symbol, genes)) for term, genes in sets.items()]
    plain = write_rows(folder / "sets", [*rows, ("Of cattle", "R-BTA-3", symbol(NOT_MEMBER))])
    with zipfile.ZipFile(folder / "ReactomePathways.gmt.zip", "w") as archive:
        archive.write(plain, "ReactomePathways.gmt")
    plain.unlink()


def read_reactome(folder: Path) -> Plain:
    plain = Plain()
    with zipfile.ZipFile(folder / "ReactomePathways.gmt.zip") as archive:
        lines = archive.read("ReactomePathways.gmt").decode().splitlines()
    for _, term, *genes in (line.split("\t") for line in lines):
        plain.rows += len(genes)
        for gene in genes if term.startswith("R-HSA-") else ():
            plain.say(term, number(gene))
    return plain


GO = ("GO:0000100", "GO:0000101", "GO:0000102")


def write_go(folder: Path, sets: Sets) -> None:
    terms = "".join(f"\n[Term]\nid: {term}\nname: process {i}\nis_a: GO:0005575\n" for i, term in enumerate(GO))
    (folder / "go-basic.obo").write_text(test_go.OBO + terms)
    rows = [test_go.row(f"P{gene + 1:05d}", symbol(gene), "involved_in", GO[term]) for term, gene in _pairs(sets)]
    rows.append(test_go.row(f"P{NOT_MEMBER + 1:05d}", symbol(NOT_MEMBER), "NOT|involved_in", GO[0]))
    rows.append(test_go.row("P00003", symbol(2), "enables", "GO:0005515", evidence="IPI"))
    write_rows(folder / "goa_human.gaf", rows, before=test_go.COMMENTS.format(version="2.2"))


def read_go(folder: Path) -> Plain:
    lines = [line.split("\t") for line in (folder / "goa_human.gaf").read_text().splitlines() if line[0] != "!"]
    plain = Plain(len(lines))
    for line in lines:
        if line[4] in GO:
            plain.say(line[4], number(line[1]), negative=line[3].split("|")[0] == "NOT")
        else:
            plain.left_out.add((line[4], number(line[1])))
    return plain


def write_kegg(folder: Path, sets: Sets) -> None:
    names = [
        ("hsa01100", "Metabolic pathways - Homo sapiens (human)"),
        *((f"hsa0410{term}", f"Pathway {term} - Homo sapiens (human)") for term in sets),
    ]
    write_rows(folder / "list_pathway_hsa.txt", names)
    links = [(f"path:hsa0410{term}", f"hsa:{entrez(gene)}") for term, gene in _pairs(sets)]
    write_rows(folder / "link_hsa_pathway.txt", [*links, ("path:hsa01100", f"hsa:{entrez(NOT_MEMBER)}")])


def read_kegg(folder: Path) -> Plain:
    rows = [line.split("\t") for line in (folder / "link_hsa_pathway.txt").read_text().splitlines()]
    plain = Plain(len(rows))
    for pathway, gene in rows:
        term = pathway.removeprefix("path:")
        if term == "hsa01100":
            plain.left_out.add((term, number(gene)))
        else:
            plain.say(term, number(gene))
    return plain


def write_trrust(folder: Path, sets: Sets) -> None:
    write_rows(
        folder / "trrust_rawdata.human.tsv",
        [(symbol(280 + term), symbol(gene), "Activation", "1") for term, gene in _pairs(sets)],
    )


def read_trrust(folder: Path) -> Plain:
    rows = [line.split("\t") for line in (folder / "trrust_rawdata.human.tsv").read_text().splitlines()]
    plain = Plain(len(rows))
    for factor, target, _, _ in rows:
        plain.say(factor, number(target))
    return plain


def write_msigdb(folder: Path, sets: Sets) -> None:
    rows = [
        (f"HALLMARK_{term}", f"https://www.gsea-msigdb.org/{term}", *map(symbol, genes)) for term, genes in sets.items()
    ]
    write_rows(folder / "h.all.v2025.1.Hs.symbols.gmt", rows)


def read_msigdb(folder: Path) -> Plain:
    plain = Plain()
    for term, _, *genes in (
        line.split("\t") for line in (folder / "h.all.v2025.1.Hs.symbols.gmt").read_text().splitlines()
    ):
        plain.rows += len(genes)
        for gene in genes:
            plain.say(term, number(gene))
    return plain


def write_cellmarker(folder: Path, sets: Sets) -> None:
    names = test_cellmarker.NAMES_3

    def row(term: int, gene: int, how: str) -> list[str]:
        cells = dict.fromkeys(names, "x") | {
            "species": "Human", "disease": "Normal", "cell_name_class": "Normal cell", "cell_name": f"Cell {term}",
            "cellontology_id": f"CL_000010{term}", "marker": symbol(gene), "symbol": symbol(gene), "gene_id": f"{entrez(gene)}.0",
            "marker_source": how,
        }  # fmt: skip
        return [cells[name] for name in names]

    rows = [row(term, gene, "Experiment") for term, gene in _pairs(sets)]
    rows.append(row(0, NOT_MEMBER, "Method"))
    text = "\n".join("\t".join(each) for each in [names, *rows]) + "\n"
    with zipfile.ZipFile(folder / "human_cell_marker.zip", "w") as archive:
        archive.writestr("human_cell_marker.txt", text)


def read_cellmarker(folder: Path) -> Plain:
    with zipfile.ZipFile(folder / "human_cell_marker.zip") as archive:
        text = archive.read("human_cell_marker.txt").decode()
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    plain = Plain(len(rows))
    for row in rows:
        if row["marker_source"] != "Method":
            plain.say(row["cellontology_id"].replace("_", ":"), number(row["symbol"]))
    return plain


def write_panglaodb(folder: Path, sets: Sets) -> None:
    def row(term: int, gene: int, canonical: str) -> str:
        return f"Mm Hs\t{symbol(gene)}\tType {term}\tNA\t0.1\tb\tprotein-coding gene\t{canonical}\tMesoderm\tBlood\t0.5\t0.5\t0\t0"

    rows = [*(row(term, gene, "1") for term, gene in _pairs(sets)), row(0, NOT_MEMBER, "NA")]
    (folder / f"{test_panglaodb.NAME}.gz").write_bytes(gzip.compress(test_panglaodb.content(rows)))


def read_panglaodb(folder: Path) -> Plain:
    rows = _table(folder / f"{test_panglaodb.NAME}.gz")
    plain = Plain(len(rows))
    for row in rows:
        if row["canonical marker"] == "1":
            plain.say(row["cell type"], number(row["official gene symbol"]))
    return plain


Write, Read = Callable[[Path, Sets], None], Callable[[Path], Plain]
WITH_TERMS: dict[str, tuple[Write, Read]] = {
    "open_targets": (write_open_targets, read_open_targets), "hpo": (write_hpo, read_hpo),
    "gwas_catalog": (write_gwas_catalog, read_gwas_catalog), "disgenet": (write_disgenet, read_disgenet),
    "monarch": (write_monarch, read_monarch), "omim": (write_omim, read_omim), "orphanet": (write_orphanet, read_orphanet),
    "clinvar": (write_clinvar, read_clinvar), "gencc": (write_gencc, read_gencc), "reactome": (write_reactome, read_reactome),
    "go": (write_go, read_go), "kegg": (write_kegg, read_kegg), "trrust": (write_trrust, read_trrust),
    "msigdb": (write_msigdb, read_msigdb), "cellmarker": (write_cellmarker, read_cellmarker),
    "panglaodb": (write_panglaodb, read_panglaodb),
}  # fmt: skip
