"""Cells and their gene counts, from an h5ad file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sae_genomics.atomic import read_json
from sae_genomics.data.cells.settings import NOUNS, CellsSection
from sae_genomics.data.kind import DataKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from sae_genomics.data.units import Units
    from sae_genomics.items import CountItems
    from sae_genomics.run import Run

# generic column -> column of cells.parquet
_COLUMNS = {"item": "cell", "item_id": "cell_id", "heldout": "heldout", "group": "group", "label": "cell_type"}


class Cells(DataKind):
    """Items are cells, units are the genes that the model knows, labels are cell types."""

    name = "cells"
    nouns = NOUNS
    section = CellsSection
    units_are_genes = True
    own_keys: ClassVar[Mapping[str, str]] = {
        "data.max_items": "data.max_cells",
        "activations.items_per_shard": "activations.cells_per_shard",
        "activations.tokens_per_item": "activations.tokens_per_cell",
        "sae.loss_recovered_items": "sae.loss_recovered_cells",
    }

    def inputs(self, settings: CellsSection) -> list[Path]:
        """The h5ad file."""
        from sae_genomics.data.cells.h5ad import resolve

        return [resolve(settings.path)]

    def count_items(self, settings: CellsSection) -> int:
        """Cells that the run uses, from the file's header."""
        from sae_genomics.data.cells.h5ad import count_cells

        cells = count_cells(self.inputs(settings)[0])
        return min(cells, settings.max_cells or cells)

    def prepare_files(self, run: Run) -> tuple[Path, ...]:
        """genes.parquet, cells.parquet, units.parquet and plan.json; a run of the version that wrote no units is whole without."""
        old = (run.genes_file, run.cells_file, run.plan_file)
        return old if _without_units(run) else (*old, run.units_file)

    def prepare(self, run: Run) -> None:
        """See `data/cells/prepare.py`."""
        from sae_genomics.data.cells.prepare import prepare_cells

        prepare_cells(run)

    def read_items(self, run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """cells.parquet under the generic names."""
        from sae_genomics.artifacts import CELLS

        chosen = list(_COLUMNS) if columns is None else list(columns)
        cells = CELLS.read(run.cells_file, [_COLUMNS[name] for name in chosen])
        return cells.rename(columns={_COLUMNS[name]: name for name in chosen})

    def check_columns(self, settings: CellsSection, asked: Mapping[str, str]) -> None:
        """Against the file's obs."""
        from sae_genomics.data.cells.h5ad import CellTable

        if not asked:
            return
        with CellTable(self.inputs(settings)[0]) as table:
            for key, setting in asked.items():
                table.check_column(key, setting)

    def read_columns(self, run: Run, asked: Mapping[str, str]) -> pd.DataFrame:
        """Columns of obs."""
        import numpy as np
        import pandas as pd

        from sae_genomics.data.cells.h5ad import CellTable

        cells = self.read_items(run, ["item"])["item"].to_numpy()
        with CellTable(run.data_file) as table:
            found = pd.DataFrame(
                {key: np.asarray(table.column(key, setting)[cells], dtype=object) for key, setting in asked.items()}
            )
        return found.where(found.notna(), None)

    def read_units(self, run: Run) -> Units:
        """The distinct matched genes, ascending by token: from genes.parquet, which runs of every version have."""
        from sae_genomics.artifacts import GENES
        from sae_genomics.data.cells.genes import units_of

        return units_of(GENES.read(run.genes_file, ["token", "gene_id", "gene_symbol", "counts"]))

    def read_spans(self, run: Run) -> None:
        """Cells have no annotated parts."""
        return None

    def read(self, run: Run, indices: npt.NDArray[np.int64]) -> CountItems:
        """The cells' counts."""
        from sae_genomics.data.cells.read import read_items

        return read_items(run, indices)


def _without_units(run: Run) -> bool:
    """Whether what prepare left is of the version that wrote no units.parquet: its plan names no kind of data."""
    plan = read_json(run.plan_file)
    return isinstance(plan, dict) and "kind" not in plan
