"""The whole pipeline without writing a YAML: python scripts/run_pipeline.py --data cells.h5ad --model-size 70m --output results/exp1.

The config that ran is written beside the results (OUTPUT/config.yaml), so that any later command can name it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sae_genomics.atomic import remove_empty_folders, write_text
from sae_genomics.cluster.pipeline import pipeline
from sae_genomics.config import apply_override, dump_config, parse_config
from sae_genomics.errors import EXIT_USER, UserError
from sae_genomics.folders import check_folders
from sae_genomics.guard import guarded
from sae_genomics.run import Run
from sae_genomics.stages import register_installed, stages_of

MODELS = {"70m": "tahoe-x1-70m", "1.3b": "tahoe-x1-1.3b", "3b": "tahoe-x1-3b", "demo": "demo"}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What is done already is not repeated.",
    )
    parser.add_argument("--data", required=True, metavar="H5AD", help="the cells, or builtin:pbmc68k_reduced")
    parser.add_argument(
        "--model-size",
        choices=MODELS,
        default="70m",
        help="a Tahoe-x1, or the bundled small model (default: %(default)s)",
    )
    parser.add_argument("--model-path", type=Path, metavar="FOLDER", help="a local checkpoint folder instead")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="results; its last part names the run"
    )
    parser.add_argument("--steps", type=int, help="training steps of each SAE (default: 2000)")
    parser.add_argument("--max-cells", type=int, help="a random subset of this many cells")
    parser.add_argument("--k", type=int, help="active features per token (default: 32)")
    parser.add_argument("--d-sae", type=int, help="latents (default: 8 x d_model)")
    parser.add_argument("--layers", default="all", help="for example 0,6,11 (default: all)")
    parser.add_argument(
        "--hook",
        choices=["resid_post", "mlp_out", "attn_out"],
        help="where in a block (default: mlp_out; demo: resid_post)",
    )
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | mps (default: %(default)s)")
    parser.add_argument("--top-k-genes", type=int, help="genes listed per feature (default: 100)")
    parser.add_argument("--gene-key", help="var column matched to the model's vocabulary (default: the index)")
    parser.add_argument("--cell-type-key", help="obs column of annotations (default: cell_type where there is one)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any other key"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="take over an output folder that other data or another model used"
    )
    return parser.parse_args(argv)


def config_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The config these arguments mean; checkpoints and logs stand beside the results' parent folder."""
    output = arguments.output.absolute()
    name = output.name
    if not name or name in (".", ".."):
        raise UserError(f"--output {output}: its last part names the run, for example --output results/exp1")
    root = output.parent.parent if output.parent.name == "results" else output.parent
    local = Path(arguments.data)
    data = arguments.data if arguments.data.startswith("builtin:") else str(local.absolute())
    demo = arguments.model_size == "demo" and not arguments.model_path
    choices: dict[str, dict[str, Any]] = {
        "run": {"name": name},
        "paths": {"checkpoints": str(root / "checkpoints"), "results": str(output.parent), "logs": str(root / "logs")},
        "data": {"path": data, "max_cells": arguments.max_cells, "gene_key": arguments.gene_key, "cell_type_key": arguments.cell_type_key},
        "model": {
            "name": None if arguments.model_path else MODELS[arguments.model_size],
            "path": str(arguments.model_path.absolute()) if arguments.model_path else None,
            "layers": arguments.layers,
            "hook": arguments.hook or ("resid_post" if demo else "mlp_out"),
            "device": arguments.device,
        },
        "sae": {"steps": arguments.steps, "k": arguments.k, "d_sae": arguments.d_sae, "device": arguments.device},
        "associations": {"top_genes": arguments.top_k_genes},
        # No more genes can be tested than are kept.
        "validation": {"top_genes": arguments.top_k_genes if (arguments.top_k_genes or 100) < 30 else None},
    }  # fmt: skip
    values: dict[str, Any] = {
        section: {key: value for key, value in keys.items() if value is not None} for section, keys in choices.items()
    }
    for override in arguments.overrides:
        apply_override(values, override)
    return values


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    register_installed()
    config = parse_config(config_values(arguments), "the command line")
    config_file = arguments.output.absolute() / "config.yaml"
    # Everything that can be wrong is found before the config is written: a mistyped path leaves nothing behind.
    run = Run(config, config_file)
    run.check(stages_of(run), overwrite=arguments.overwrite)
    check_folders(run)
    write_text(config_file, dump_config(config))
    code = pipeline(config_file, [], local=True, overwrite=arguments.overwrite)
    if code == EXIT_USER and not (config_file.parent / "run.json").exists():
        config_file.unlink()  # refused by the first stage, which writes nothing: so does this
        remove_empty_folders(config_file.parent, up_to=config_file.parent.parent)
    return code


if __name__ == "__main__":
    sys.exit(guarded(main))
