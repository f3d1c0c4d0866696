"""A data kind: what a run's items are. For now its nouns alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Nouns:
    """What a person calls the parts of one kind of data, singular and plural."""

    item: str
    """one input of the model: cell, protein"""
    items: str
    unit: str
    """what a token is an instance of: gene, amino acid"""
    units: str
    token: str
    """one position of an item: gene token, residue"""
    tokens: str
    label: str
    """an annotation of an item: cell type, family"""
    labels: str
    group: str
    """items that are not independent of each other: donor, family"""
    groups: str
    span: str
    """an annotated stretch of an item: domain"""
    spans: str


CELLS = Nouns(
    item="cell", items="cells", unit="gene", units="genes", token="gene token", tokens="gene tokens", label="cell type",
    labels="cell types", group="group", groups="groups", span="span", spans="spans",
)  # fmt: skip
