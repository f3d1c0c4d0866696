"""Train SAEs over a grid of settings on a run's activations: one table, one sparsity-FVU figure.

python scripts/sweep.py --config configs/demo.yaml --grid sae.k=8,16,32 --grid sae.d_sae=512,1024 --layers 0,2
python scripts/sweep.py --config configs/demo.yaml --grid sae.centre=none,unit --grid sae.expansion=2,16 --grid sae.k=4,8

The same command runs on Slurm and on a laptop, goes on when the terminal closes, and attaches again when typed again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.cluster.sweep import make_sweep
from sae_genomics.errors import UserError
from sae_genomics.guard import guarded


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a run whose activations are there")
    parser.add_argument(
        "--grid", action="append", default=[], metavar="sae.KEY=V1,V2,...", help="may be given several times"
    )
    parser.add_argument("--layers", metavar="L1,L2,...", help="default: all of the run's")
    parser.add_argument("--name", help="of the sweep's folder; default: from the grid")
    parser.add_argument("--local", action="store_true", help="on this machine even where Slurm is")
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="processes at once on this machine (default: 1)"
    )
    parser.add_argument("--detach", action="store_true", help="submit and do not wait")
    parser.add_argument("--dry-run", action="store_true", help="list the grid's points, and stop")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args(argv)
    if arguments.parallel < 1:
        raise UserError("--parallel: at least 1")
    sweep = make_sweep(arguments.config, arguments.overrides, arguments.grid, arguments.layers, arguments.name)
    from sae_genomics.cluster.sweep_jobs import run_sweep

    return run_sweep(
        sweep, local=arguments.local, parallel=arguments.parallel, detach=arguments.detach, dry_run=arguments.dry_run
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
