"""The section `data` of a run over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sae_genomics.data.kind import DataSection, Nouns
from sae_genomics.section import also

if TYPE_CHECKING:
    from sae_genomics.config import RunConfig


NOUNS = Nouns(
    item="cell", items="cells", unit="gene", units="genes", token="gene token", tokens="gene tokens",
    label="cell type", labels="cell types", group="group", groups="groups", span="span", spans="spans",
)  # fmt: skip


class CellsSection(DataSection):
    """The cells, and how they are read."""

    kind: str = Field("cells", description="cells | proteins | text; see docs/kinds.md")
    path: str = Field(description="an .h5ad file, or builtin:pbmc68k_reduced or builtin:planted")
    counts: str = Field("auto", pattern=r"^(auto|X|raw|layers:.+)$", description="auto | X | raw | layers:NAME")
    allow_normalised: bool = Field(
        False, description="where there are no counts, accept values that are finite and not negative"
    )
    gene_key: str | None = Field(
        None, description="var column of the gene names that the model's vocabulary has; default: the index"
    )
    symbol_key: str | None = Field(
        None, description="var column of gene symbols; default: a column with a usual name, else the index"
    )
    cell_type_key: str | None = Field(
        None, description="obs column of cell types; default: cell_type, where there is one"
    )
    group_key: str | None = Field(
        None, description="obs column of groups (donor, sample or batch); a group is held out whole or not at all"
    )
    max_cells: int | None = Field(
        None,
        ge=1,
        validation_alias=also("max_cells", "max_items"),
        description="use a random subset of this many cells; default: all",
    )
    heldout_fraction: float = Field(0.2, ge=0.0, lt=1.0, description="share of cells that no SAE is trained on")


def cells_section(config: RunConfig) -> CellsSection:
    """The section `data` of a run over cells."""
    assert isinstance(config.data, CellsSection)
    return config.data
