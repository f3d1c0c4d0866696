"""The section `concepts` of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sae_genomics.section import Section

Kind = Literal["label", "span", "gene_set", "examples"]
KINDS: tuple[Kind, ...] = ("label", "span", "gene_set", "examples")


class ConceptsConfig(Section):
    """Concept vectors, what they are compared with, and where they are found."""

    enabled: bool = Field(True, description="run the stage concepts")
    kinds: list[Kind] = Field(
        default_factory=lambda: list(KINDS),
        description="which concepts get a vector: label, span, gene_set, examples; kinds that the data lacks are passed over",
    )
    examples: list[Path] = Field(
        default_factory=list,
        description="files of positive and negative examples, .tsv or .jsonl; see docs/concepts.md",
    )
    labels: Path | None = Field(
        None,
        description="a .tsv file with item_id and more labels of the items (condition, drug, ...): each value is a concept",
    )
    label_columns: list[str] = Field(
        default_factory=list,
        description="more columns of the input whose values are concepts: obs columns of cells (condition, drug, donor), columns of data.labels, keys of JSONL",
    )
    confounds: Path | None = Field(
        None,
        description="a .tsv file with more properties of the items (organism, batch, ...) for the audit of confounds",
    )
    confound_columns: list[str] = Field(
        default_factory=list, description="more columns of the input for the audit of confounds (organism, batch)"
    )
    min_items: int = Field(20, ge=4, description="items (cells, proteins) that a concept needs, with it and without it")
    min_genes: int = Field(10, ge=4, description="genes of the data that a gene set needs")
    max_concepts: int = Field(200, ge=1, description="most concepts of each kind; those with the most items are taken")
    gene_sets: int = Field(
        10, ge=0, description="number of gene sets that get a vector: those with the most genes of the data"
    )
    folds: int = Field(
        5, ge=2, description="folds of the training items, for the strength and the stability of a direction"
    )
    draws: int = Field(
        99, ge=19, description="number of shuffled and of random concepts that each concept is compared with"
    )
    stop_after: int = Field(
        10,
        ge=3,
        description="draws at least as good as the concept after which no more are made: its p-value is large anyway",
    )
    pca: int | None = Field(
        None, ge=1, description="number of principal components that are kept; default: all, which changes no distance"
    )
    max_items: int = Field(
        4000, ge=40, description="most items whose mean activation is kept, spread evenly over labels"
    )
    span_items: int = Field(
        64, ge=4, description="most items with a span, and as many without it, on each side of the split"
    )
    max_tokens: int = Field(
        200_000,
        ge=1000,
        description="most tokens whose activations are kept for spans; with many concepts each gets fewer items",
    )
    tokens_per_item: int = Field(32, ge=4, description="most tokens of an item for spans, spread evenly over it")
    tokens_per_gene: int = Field(
        4, ge=1, description="most tokens of a gene for gene sets, spread evenly over the cells"
    )
    bootstraps: int = Field(200, ge=100, description="draws of groups for each interval")
    tcav_items: int = Field(
        10,
        ge=0,
        description="held-out items of each concept on which the effect of its direction on predictions is measured; 0: none",
    )
