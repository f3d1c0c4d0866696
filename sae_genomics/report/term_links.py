"""What a term's id says: what kind of thing it is, and the web page about it. Also the pages about genes.

The dashboard holds these addresses as text and opens none by itself; a reader follows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DISEASE, PHENOTYPE, OTHER = "disease", "phenotype", "other"
KINDS = (OTHER, DISEASE, PHENOTYPE)
_ANY = ""
_MSIGDB = "https://www.gsea-msigdb.org/gsea/msigdb/human/geneset/{id}.html"
_DISEASE_SOURCES = frozenset(
    ("open_targets", "gwas_catalog", "disgenet", "monarch", "omim", "orphanet", "clinvar", "gencc")
)


@dataclass(frozen=True)
class Address:
    """Ids that match `pattern` as a whole, of one source or of any, and their page. {id}: the id; {1}: its first group."""

    pattern: str
    page: str
    source: str = _ANY
    kind: str | None = None
    """None: what the source is about"""


# The first that fits counts.
TERMS = (
    Address(r"HP:(\d+)", "https://hpo.jax.org/browse/term/{id}", kind=PHENOTYPE),
    Address(r"(EFO|MONDO|OBA|DOID|NCIT):(\w+)", "https://platform.opentargets.org/disease/{1}_{2}", "open_targets"),
    Address(r"(\w+):(\w+)", "https://www.ebi.ac.uk/gwas/efotraits/{1}_{2}", "gwas_catalog"),
    Address(r"MONDO:(\d+)", "https://monarchinitiative.org/{id}", kind=DISEASE),
    Address(r"OMIM:(PS\d+)", "https://omim.org/phenotypicSeries/{1}", kind=DISEASE),
    Address(r"OMIM:(\d+)", "https://omim.org/entry/{1}", kind=DISEASE),
    Address(r"ORPHA:(\d+)", "https://www.orpha.net/en/disease/detail/{1}", kind=DISEASE),
    Address(r"MedGen:(\w+)", "https://www.ncbi.nlm.nih.gov/medgen/{1}", kind=DISEASE),
    Address(r"UMLS:(C\d+)", "https://uts.nlm.nih.gov/uts/umls/concept/{1}", kind=DISEASE),
    Address(r"EFO:(\d+)", "https://www.ebi.ac.uk/ols4/ontologies/efo/classes?obo_id={id}", kind=DISEASE),
    Address(r"DOID:(\d+)", "https://www.ebi.ac.uk/ols4/ontologies/doid/classes?obo_id={id}", kind=DISEASE),
    Address(r"GO:(\d+)", "https://www.ebi.ac.uk/QuickGO/term/{id}", kind=OTHER),
    Address(r"CL:(\d+)", "https://www.ebi.ac.uk/ols4/ontologies/cl/classes?obo_id={id}", kind=OTHER),
    Address(r"R-HSA-\d+", "https://reactome.org/content/detail/{id}", kind=OTHER),
    Address(r"hsa\d{5}", "https://www.kegg.jp/pathway/{id}", kind=OTHER),
    Address(r"HGNC\.GROUP:(\d+)", "https://www.genenames.org/data/genegroup/#!/group/{1}", kind=OTHER),
    Address(r"(?:HALLMARK|REACTOME|KEGG|GOBP|GOCC|GOMF|WP|BIOCARTA|PID|HP)_[A-Z0-9_]+", _MSIGDB, kind=OTHER),
    Address(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", _MSIGDB, "msigdb", OTHER),
)  # fmt: skip

GENES = (
    ("Ensembl", Address(r"ENS[A-Z]*G\d{11}", "https://www.ensembl.org/id/{id}")),
    ("HGNC", Address(r"[A-Z][A-Za-z0-9-]*", "https://www.genenames.org/tools/search/#!/?query={id}")),
)
"""Of a gene: by its id, and by its symbol."""


def address_of(source: str, term_id: str) -> Address | None:
    """What fits a term's id; None where nothing does."""
    fitting = (each for each in TERMS if each.source in (_ANY, source) and re.fullmatch(each.pattern, term_id))
    return next(fitting, None)


def kind_of(source: str, term_id: str) -> str:
    """What kind of thing a term is, one of KINDS: by its id, else by what the source is about."""
    found = address_of(source, term_id)
    if found is not None and found.kind is not None:
        return found.kind
    return DISEASE if source in _DISEASE_SOURCES else PHENOTYPE if source == "hpo" else OTHER


def page_of(source: str, term_id: str) -> str:
    """The address of the page about a term; empty without one."""
    found = address_of(source, term_id)
    match = re.fullmatch(found.pattern, term_id) if found is not None else None
    return filled(found.page, match) if found is not None and match is not None else ""


def filled(page: str, match: re.Match[str]) -> str:
    """The address with the parts of an id in it. The script does the same."""
    return re.sub(r"\{(id|\d)\}", lambda part: match[0] if part[1] == "id" else match[int(part[1])], page)


def of_terms(sources: Sequence[str]) -> list[dict[str, str]]:
    """The addresses that terms of these sources may need."""
    fitting = [each for each in TERMS if each.source in (_ANY, *sources)]
    return [{"pattern": each.pattern, "page": each.page, "source": each.source} for each in fitting]


def of_genes() -> list[dict[str, str]]:
    """The addresses of pages about genes."""
    return [{"title": title, "pattern": each.pattern, "page": each.page} for title, each in GENES]
