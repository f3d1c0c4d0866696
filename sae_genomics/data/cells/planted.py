"""Synthetic cells with planted programmes: `builtin:planted`, 600 cells of 40 donors x 200 genes.

    python -m sae_genomics.data.cells.planted --output FOLDER

makes the bundled file again, and the gene sets of the programmes. What is planted stands in `models/planted/truth.py`.

A cell has one label. A programme is on in a cell of its own module with chance ON, else with chance ELSEWHERE. A gene's count is
Poisson with its own rate, FOLD times that where the gene's programme is on. Each such gene has a twin. The twin has the same counts
in another order of the cells: detection, mean and every other moment are the same, and no programme has to do with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from sae_genomics.atomic import atomic_path, write_text
from sae_genomics.models.planted import truth

if TYPE_CHECKING:
    import anndata

FOLDER = Path(__file__).parents[2] / "assets" / "planted"
DONORS, CELLS_PER_DONOR = 40, 15


def make_cells(seed: int = truth.SEED) -> anndata.AnnData:
    """The cells: obs has `programme` (the label), `donor`, and `on_NAME` for each programme, which nothing in the pipeline reads."""
    import anndata

    generator = np.random.default_rng([seed, 3])
    n = DONORS * CELLS_PER_DONOR
    label = generator.permutation(np.resize(np.arange(len(truth.LABELS)), n))
    own_module = np.array([truth.LABELS.index(programme.module) for programme in truth.PROGRAMMES])
    chance = np.where(label[:, None] == own_module, truth.ON, truth.ELSEWHERE)
    on = generator.random(chance.shape) < chance
    rate = np.tile(truth.rates()[: truth.TWIN], (n, 1))
    for gene, programme in truth.programme_of_gene().items():
        rate[on[:, truth.PROGRAMMES.index(programme)], gene] *= truth.FOLD
    counts = generator.poisson(rate)
    twins = generator.permuted(counts, axis=0)
    obs = pd.DataFrame(
        {
            "programme": pd.Categorical.from_codes(label, list(truth.LABELS)),
            "donor": pd.Categorical([f"donor{number:02d}" for number in np.repeat(np.arange(1, DONORS + 1), CELLS_PER_DONOR)]),
            **{f"on_{programme.name}": on[:, number] for number, programme in enumerate(truth.PROGRAMMES)},
        },
        index=[f"cell{number:04d}" for number in range(1, n + 1)],
    )  # fmt: skip
    cells = anndata.AnnData(
        csr_matrix(np.hstack([counts, twins]).astype(np.float32)), obs=obs, var=pd.DataFrame(index=list(truth.GENES))
    )
    cells.uns["note"] = "synthetic: made by sae_genomics.data.cells.planted, with programmes of genes planted"
    return cells


def gene_sets() -> str:
    """The programmes' genes as GMT, with those of the genes that a programme acts on without being carried by them."""
    sets = {programme.name: programme.genes for programme in truth.PROGRAMMES}
    sets[f"{truth.DISTANT}_targets"] = truth.DISTANT_TARGETS
    return "".join(
        "\t".join([f"planted_{name}", "synthetic", *(truth.GENES[gene] for gene in genes)]) + "\n"
        for name, genes in sets.items()
    )


def write(folder: Path) -> None:
    """Leave planted.h5ad and planted.gmt."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "planted.h5ad") as temporary:
        make_cells().write_h5ad(temporary, compression="gzip")
    write_text(folder / "planted.gmt", gene_sets())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the synthetic cells of builtin:planted again.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder; default: %(default)s")
    write(parser.parse_args().output)
