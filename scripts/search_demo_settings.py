"""How the demo's SAE settings were chosen: a sweep on the demo's training cells alone.

    python scripts/search_demo_settings.py --folder /tmp/search

The demo's training cells become an input of their own, with held-out cells of their own. So the demo's held-out cells, on which the
report measures, have no part in the choice. Every point of the grid is trained with two seeds. `results/.../sweep.tsv` and
the log say which points no other beats (`sae_genomics/cluster/sweep_ranking.py`). The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anndata
import numpy as np
import yaml

from sae_genomics.artifacts import CELLS
from sae_genomics.atomic import atomic_path, write_text
from sae_genomics.cluster.sweep import make_sweep
from sae_genomics.cluster.sweep_jobs import run_sweep
from sae_genomics.config import load_config
from sae_genomics.execute import execute
from sae_genomics.guard import guarded
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

ROOT = Path(__file__).parents[1]
GRID = ("sae.centre=none,unit", "sae.expansion=2,4", "sae.k=2,3,4")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where cells, activations and SAEs of the search stand"
    )
    parser.add_argument("--grid", action="append", metavar="sae.KEY=V1,V2,...", help=f"default: {' '.join(GRID)}")
    parser.add_argument("--layers", metavar="L1,L2,...", help="default: all")
    parser.add_argument("--gmt", action="append", default=[], help="gene sets to count besides the built-in ones")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="SAEs trained at once (default: 1)")
    parser.add_argument("--name", default="search", help="of the sweep (default: search)")
    arguments = parser.parse_args(argv)
    config = training_config(arguments.folder, arguments.gmt)
    run = Run(load_config(config), config)
    for name in ("prepare", "extract"):
        for task in range(run.n_tasks(stage_named(name))):
            execute(run, stage_named(name), task)
    sweep = make_sweep(config, [], arguments.grid or GRID, arguments.layers, arguments.name)
    return run_sweep(sweep, local=True, parallel=arguments.parallel)


def training_config(folder: Path, gmt: list[str]) -> Path:
    """Write the demo's training cells as an .h5ad file, and the demo's config for them; returns the config's path."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    paths = {name: str(folder / name) for name in ("checkpoints", "results", "logs")}
    demo_config, search_config = folder / "demo.yaml", folder / "search.yaml"
    write_text(demo_config, yaml.safe_dump({**values, "paths": paths}))
    demo = Run(load_config(demo_config), demo_config)
    execute(demo, stage_named("prepare"), 0)
    cells = CELLS.read(demo.cells_file, ["cell", "heldout"])
    training = np.sort(cells["cell"][~cells["heldout"]].to_numpy())
    file = folder / "training_cells.h5ad"
    if not file.exists():
        with atomic_path(file) as temporary:
            anndata.read_h5ad(demo.data_file)[training].copy().write_h5ad(temporary)
    values["run"]["name"] = "search"
    values["data"]["path"] = str(file)
    values["validation"] = {**values.get("validation", {}), "gmt": gmt}
    write_text(search_config, yaml.safe_dump({**values, "paths": paths}))
    return search_config


if __name__ == "__main__":
    sys.exit(guarded(main))
