"""Is this installation able to work? Checks the environment, loads the model, extracts one shard, trains a few steps, cleans up.

Takes under a minute. Everything is written to a temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sae_genomics.config import parse_config
from sae_genomics.errors import EXIT_DONE
from sae_genomics.execute import execute, peak_memory
from sae_genomics.guard import guarded
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model-path", type=Path, metavar="FOLDER", help="try this checkpoint folder instead of the bundled model"
    )
    parser.add_argument("--model-name", metavar="NAME", help="try tahoe-x1-70m, -1.3b or -3b (downloaded where needed)")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | mps (default: %(default)s)")
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="sae_genomics_smoke_"))
    try:
        _environment(arguments.device)
        run = Run(parse_config(_values(arguments, folder), "the smoke test"))
        run.check(stages_of(run))
        info = run.model_info
        say(f"model: {info.name}, {info.n_layers} layers, d_model {info.d_model}, {info.n_parameters:,} parameters")
        for name in ("prepare", "extract", "train"):
            execute(run, stage_named(name), 0)
        _loads_in_sae_lens(run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say(
        f"all well: {time.monotonic() - started:.0f} s, {peak_memory() / 2**30:.1f} GiB of memory at most; {folder} removed"
    )
    return EXIT_DONE


def _values(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    own_model = arguments.model_path or arguments.model_name
    return {
        "run": {"name": "smoke"},
        "paths": {"checkpoints": str(folder / "c"), "results": str(folder / "r"), "logs": str(folder / "l"), "databases": str(folder / "d")},
        "data": {"path": "builtin:pbmc68k_reduced", "max_cells": 60, "cell_type_key": "bulk_labels"},
        "model": {
            "name": None if arguments.model_path else arguments.model_name or "demo",
            "path": str(arguments.model_path.absolute()) if arguments.model_path else None,
            "layers": [0] if own_model else [1],
            "device": arguments.device,
        },
        "activations": {"cells_per_shard": 60},
        "sae": {"steps": 20, "batch_tokens": 256, "k": 8, "d_sae": 256, "device": arguments.device},
    }  # fmt: skip


def _environment(device: str) -> None:
    import torch

    from sae_genomics.models import pick_device

    packages = ("torch", "numpy", "anndata", "scanpy", "h5py", "sae-lens", "pydantic")
    say(
        f"python {platform.python_version()}: "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    )
    chosen = pick_device(device)
    what = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{torch.get_num_threads()} threads"
    say(f"device: {chosen} ({what}); sbatch: {shutil.which('sbatch') or 'not found, runs stay on this machine'}")


def _loads_in_sae_lens(run: Run) -> None:
    import torch
    from sae_lens import SAE

    from sae_genomics.activations import read_activations, read_units
    from sae_genomics.sae.load import centre

    folder = run.sae_dir(run.layers[0])
    sae = SAE.load_from_disk(str(folder))
    part = slice(0, 100)
    rows = read_activations(run.activations_file(run.layers[0], 0), part)
    seen = centre(rows, read_units(run.tokens_file(0), part), folder)
    active = int((sae.encode(torch.from_numpy(seen)) > 0).sum())
    say(
        f"SAELens loads the SAE: d_in {sae.cfg.d_in}, d_sae {sae.cfg.d_sae}; {active:,} features active on {len(rows)} tokens"
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
