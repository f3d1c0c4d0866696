"""Orphanet: names at five levels, bare HGNC numbers, kinds of association, phenotypes, encodings and hostile XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.orphanet import read
from tests.validation.databases.true_files import adds_up
from tests.validation.excerpts import excerpt

HEAD = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
ROOT = '<JDBOR date="2026-07-01 14:14:43" version="1.3.40 / 4.1.7 [2026-06-17] (orientdb version)">{body}</JDBOR>\n'
CAUSES = "Disease-causing germline mutation(s) in"


def references(**ids: str) -> str:
    inside = "".join(
        f"<ExternalReference><Source>{source}</Source><Reference>{reference}</Reference></ExternalReference>"
        for source, reference in ids.items()
    )
    return f'<ExternalReferenceList count="{len(ids)}">{inside}</ExternalReferenceList>'


def association(symbol: str, kind: str = CAUSES, status: str = "Assessed", **ids: str) -> str:
    return f"""<DisorderGeneAssociation><SourceOfValidation>1[PMID]</SourceOfValidation>
      <Gene id="1"><Name lang="en">a gene's name</Name><Symbol>{symbol}</Symbol><SynonymList count="1"><Synonym>OTHER</Synonym></SynonymList>
      <GeneType id="1"><Name lang="en">gene with protein product</Name></GeneType>{references(**ids)}</Gene>
      <DisorderGeneAssociationType id="1"><Name lang="en">{kind}</Name></DisorderGeneAssociationType>
      <DisorderGeneAssociationStatus id="1"><Name lang="en">{status}</Name></DisorderGeneAssociationStatus></DisorderGeneAssociation>"""


def disorder(code: str, name: str, body: str, group: str = "Disorder") -> str:
    return f"""<Disorder id="9{code}"><OrphaCode>{code}</OrphaCode><Name lang="en">{name}</Name>
      <DisorderType id="1"><Name lang="en">Disease</Name></DisorderType><DisorderGroup id="1"><Name lang="en">{group}</Name></DisorderGroup>
      {body}</Disorder>"""


def genes(*associations: str) -> str:
    return f'<DisorderGeneAssociationList count="{len(associations)}">{"".join(associations)}</DisorderGeneAssociationList>'


PRODUCT_6 = ROOT.format(body="<DisorderList>" + "".join((
    disorder("58", "Maladie d'été", genes(
        association("GFAP", HGNC="4235", Ensembl="ENSG00000131095", SwissProt="P14136", OMIM="137780"),
        association("LAMB1", "Candidate gene tested in", HGNC="6486"),
    )),
    disorder("61", "Mannosidosis", genes(
        association("MAN2B1", status="Not yet assessed"),
        association("X", "Biomarker tested in", HGNC="7"),
        association("Y", "Modifying germline mutation in", HGNC="8"),
    ), group="Group of disorders"),
    disorder("62", "Without genes", '<DisorderGeneAssociationList count="0"/>'),
)) + "</DisorderList>")  # fmt: skip


def phenotype(term: str, name: str, frequency: str) -> str:
    return (
        f"<HPODisorderAssociation><HPO><HPOId>{term}</HPOId><HPOTerm>{name}</HPOTerm></HPO>"
        f'<HPOFrequency id="1"><Name lang="en">{frequency}</Name></HPOFrequency></HPODisorderAssociation>'
    )


def phenotypes(code: str, *rows: str) -> str:
    inside = f'<HPODisorderAssociationList count="{len(rows)}">{"".join(rows)}</HPODisorderAssociationList>'
    return f"<HPODisorderSetStatus>{disorder(code, 'A name', inside)}<Source/></HPODisorderSetStatus>"


PRODUCT_4 = ROOT.format(body="<HPODisorderSetStatusList>" + "".join((
    phenotypes("58", phenotype("HP:0000256", "Macrocephaly", "Very frequent (99-80%)"),
               phenotype("HP:0001249", "Intellectual disability", "Excluded (0%)")),
    phenotypes("61", phenotype("HP:0001337", "Tremor", "Occasional (29-5%)")),
    phenotypes("99", phenotype("HP:0001337", "Tremor", "Obligate (100%)"), phenotype("HP:0000256", "Macrocephaly", "Very rare (&lt;4-1%)")),
)) + "</HPODisorderSetStatusList>")  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "en_product6.xml").write_bytes((HEAD + PRODUCT_6).encode("latin-1"))
    return tmp_path


def test_candidates_and_biomarkers_are_left_out_and_counted(folder):
    statements = read(folder)
    assert statements.rows_read == 5
    assert adds_up(statements)
    assert statements.dropped == {"Candidate gene tested in": 1, "Biomarker tested in": 1}
    assert statements.version == "2026-07-01"
    terms = statements.terms
    assert list(terms["gene_symbol"]) == ["GFAP", "MAN2B1", "Y"]
    assert list(terms["term_id"]) == ["ORPHA:58", "ORPHA:61", "ORPHA:61"]
    assert list(terms["category"]) == ["Assessed", "Not yet assessed", "Assessed"]
    assert list(terms["evidence"]) == [CAUSES, CAUSES, "Modifying germline mutation in"]
    assert not terms["negative"].any()
    assert any("2 associations are of groups" in note for note in statements.notes)


def test_ids_have_their_prefix_and_missing_ones_are_empty(folder):
    terms = read(folder).terms
    assert list(terms["hgnc_id"]) == ["HGNC:4235", "", "HGNC:8"]
    assert list(terms["ensembl_id"]) == ["ENSG00000131095", "", ""]
    assert list(terms["uniprot_id"]) == ["P14136", "", ""]


def test_the_declared_encoding_is_used(folder):
    assert read(folder).terms["term_name"][0] == "Maladie d'été"
    text = HEAD.replace("ISO-8859-1", "UTF-8") + PRODUCT_6
    (folder / "en_product6.xml").write_bytes(text.encode("utf-8"))
    assert read(folder).terms["term_name"][0] == "Maladie d'été"


def test_phenotypes_come_through_the_disease_and_excluded_ones_are_negative(folder):
    (folder / "en_product4.xml").write_bytes((HEAD + PRODUCT_4).encode("latin-1"))
    statements = read(folder)
    # 5 associations, 2 phenotypes of one gene, 1 of two genes, 2 of a disease without a gene
    assert statements.rows_read == 5 + 2 * 1 + 1 * 2 + 2
    assert adds_up(statements)
    assert statements.dropped["phenotype of a disease without a gene"] == 2
    added = statements.terms[statements.terms["category"] == "phenotype"]
    assert added[["term_id", "gene_symbol", "evidence", "score", "negative"]].to_numpy().tolist() == [
        ["HP:0000256", "GFAP", "ORPHA:58", 0.895, False],
        ["HP:0001249", "GFAP", "ORPHA:58", 0.0, True],
        ["HP:0001337", "MAN2B1", "ORPHA:61", 0.17, False],
        ["HP:0001337", "Y", "ORPHA:61", 0.17, False],
    ]
    assert statements.terms["negative"].dtype == bool


ENTITY = '<!DOCTYPE JDBOR [<!ENTITY secret SYSTEM "file:///etc/hostname">]>\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + PRODUCT_6[:-400], "damaged or cut off"),
        (HEAD + ENTITY + PRODUCT_6.replace("GFAP", "&secret;"), "declares a document type"),
        (HEAD + "<!-- " + "x" * 70_000 + " -->" + ENTITY + PRODUCT_6, "declares a document type"),
        (HEAD + ROOT.format(body='<DisorderList count="0"/>'), "holds no associations"),
        (HEAD + PRODUCT_4, "holds no associations"),
        (HEAD + "<Other/>", "not a file of Orphanet"),
        ("<!DOCTYPE html><html>", "web page"),
        ("gene\tdisease\n", "not XML"),
        ("", "is empty"),
    ],
)
def test_damaged_and_hostile_files_are_refused(folder, text, message):
    (folder / "en_product6.xml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_the_real_excerpt():
    folder = excerpt("orphanet")
    statements = read(folder)
    tree = ElementTree.parse(folder / "en_product6.xml")
    symbols = [gene.findtext("Symbol") for gene in tree.iter("Gene")]
    codes = [f"ORPHA:{code.text}" for code in tree.iter("OrphaCode")]
    assert list(statements.terms["gene_symbol"]) == symbols
    assert list(statements.terms["term_id"]) == codes
    assert (statements.rows_read, statements.version) == (5, "2023-06-22")
    first = statements.terms.iloc[0]
    assert (first["hgnc_id"], first["ensembl_id"], first["category"]) == ("HGNC:30497", "ENSG00000166813", "Assessed")
    assert first["term_name"] == "Multiple epiphyseal dysplasia, Al-Gazali type"


def test_files_of_before_2020_call_the_number_otherwise(folder):
    new = read(folder).terms
    for path in folder.glob("en_product*.xml"):
        path.write_bytes(path.read_bytes().replace(b"OrphaCode", b"OrphaNumber"))
    pd.testing.assert_frame_equal(read(folder).terms, new)
