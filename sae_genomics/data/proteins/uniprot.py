"""One UniProtKB entry, as the REST service gives it in JSON, as a FASTA record, spans and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# UniProt's name of a return field without `ft_` -> what it holds.
FEATURES = {
    "domain": "domains", "zn_fing": "zinc fingers", "motif": "short motifs", "repeat": "repeats", "dna_bind": "DNA-binding regions",
    "act_site": "active sites", "binding": "binding sites", "site": "other sites", "signal": "signal peptides",
    "transit": "transit peptides", "transmem": "transmembrane segments", "intramem": "intramembrane segments",
    "topo_dom": "topological domains", "coiled": "coiled coils", "compbias": "compositional bias", "region": "regions",
    "disulfid": "disulfide bonds", "carbohyd": "glycosylation", "mod_res": "modified residues", "lipid": "lipidation",
    "propep": "propeptides", "peptide": "peptides", "helix": "helices", "strand": "strands", "turn": "turns",
}  # fmt: skip
USUAL = (
    "domain",
    "zn_fing",
    "motif",
    "repeat",
    "dna_bind",
    "act_site",
    "binding",
    "signal",
    "transit",
    "transmem",
    "coiled",
)
_BASE = ("accession", "id", "protein_name", "gene_primary", "organism_name", "sequence", "protein_families")

LABELS = ("accession", "entry", "organism", "gene", "family", "group")
_NUMBER = re.compile(r"\s+\d+(?=;|$)")
_NAME_OF_HELIX = re.compile(r";\s*Name=.*$")
_FAMILY = re.compile(r"Belongs to the (.+?)(?:\.|$)")
_LINE = 60


def fields(features: tuple[str, ...], pfam: bool) -> str:
    """The parameter `fields` of a request."""
    return ",".join([*_BASE, *(f"ft_{name}" for name in features), *(["xref_pfam"] if pfam else [])])


@dataclass(frozen=True)
class Protein:
    """spans: (start, end, concept, name), 1-based and inclusive. labels: in the order of LABELS, and Pfam's families where asked for.

    skipped: features whose ends UniProt does not know exactly.
    """

    fasta: str
    accession: str
    spans: list[tuple[int, int, str, str]]
    labels: list[str]
    skipped: int


def read_entry(entry: dict[str, Any], pfam: bool) -> Protein:
    """Raises KeyError for an entry without accession or sequence."""
    accession = str(entry["primaryAccession"])
    sequence = str(entry["sequence"]["value"])
    organism = str(entry.get("organism", {}).get("scientificName", ""))
    gene = _first_gene(entry)
    family = _family(entry)
    spans = [span for feature in entry.get("features", []) if (span := _span(feature, accession, len(sequence)))]
    labels = [accession, str(entry.get("uniProtkbId", "")), organism, gene, family, family or accession]
    if pfam:
        labels.append(";".join(_pfam(entry)))
    return Protein(
        _fasta(entry, accession, sequence, organism, gene),
        accession,
        spans,
        [_plain(label) for label in labels],
        len(entry.get("features", [])) - len(spans),
    )


def _fasta(entry: dict[str, Any], accession: str, sequence: str, organism: str, gene: str) -> str:
    database = "sp" if "Swiss-Prot" in str(entry.get("entryType", "")) else "tr"
    header = f">{database}|{accession}|{entry.get('uniProtkbId', '')} {_protein_name(entry)} OS={organism}"
    lines = [sequence[i : i + _LINE] for i in range(0, len(sequence), _LINE)]
    return "\n".join([_plain(f"{header} GN={gene}" if gene else header), *lines]) + "\n"


def _protein_name(entry: dict[str, Any]) -> str:
    description = entry.get("proteinDescription", {})
    names = [description.get("recommendedName"), *description.get("submissionNames", [])]
    return next((str(name["fullName"]["value"]) for name in names if name and "fullName" in name), "")


def _first_gene(entry: dict[str, Any]) -> str:
    names = (gene.get("geneName", {}).get("value") for gene in entry.get("genes", []))
    return next((str(name) for name in names if name), "")


def _family(entry: dict[str, Any]) -> str:
    """`Belongs to the X family. Y subfamily.` gives `X family`."""
    for comment in entry.get("comments", []):
        if comment.get("commentType") == "SIMILARITY":
            for text in comment.get("texts", []):
                if found := _FAMILY.match(str(text.get("value", ""))):
                    return found.group(1)
    return ""


def _pfam(entry: dict[str, Any]) -> list[str]:
    references = entry.get("uniProtKBCrossReferences", [])
    return [str(each["id"]) for each in references if each.get("database") == "Pfam"]


def _span(feature: dict[str, Any], accession: str, length: int) -> tuple[int, int, str, str] | None:
    """None where an end is not known exactly, and for features of another isoform."""
    location = feature.get("location", {})
    ends = [location.get("start", {}), location.get("end", {})]
    exact = all(end.get("modifier", "EXACT") == "EXACT" and isinstance(end.get("value"), int) for end in ends)
    if not exact or location.get("sequence", accession) != accession:
        return None
    start, stop = ends[0]["value"], ends[1]["value"]
    if not 1 <= start <= stop <= length:
        return None
    concept = _concept(feature)
    return start, stop, concept, concept


def _concept(feature: dict[str, Any]) -> str:
    """`Zinc finger: C2H2-type` for `C2H2-type 3`: repeats of a domain are one concept."""
    kind = str(feature.get("type", "")).strip() or "Feature"
    ligand = feature.get("ligand", {}).get("name")
    text = str(ligand or feature.get("description") or "")
    text = _NUMBER.sub("", _NAME_OF_HELIX.sub("", text)).strip().rstrip(";")
    return _plain(f"{kind}: {text}" if text else kind)


def _plain(text: str) -> str:
    """Without tabs and line ends."""
    return " ".join(text.split())
