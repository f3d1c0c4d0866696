"""What can be said of the config's ESM2 model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.models.esm2.folder import read_folder
from sae_genomics.models.named import NamedModels

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

READS = "proteins"
DEMO_FOLDER = Path(__file__).parents[2] / "assets" / "demo_protein_model"
MODELS = NamedModels("esm2", lambda folder, _: read_folder(folder), bundled=DEMO_FOLDER)
describe, small_files = MODELS.describe, MODELS.small_files


def unit_tokens(model: ModelConfig, cache_dir: Path | None = None) -> dict[str, int]:
    """Residue letter -> token id, in the order of the ids. Downloads a model on the hub. Raises UserError as `describe` does."""
    return small_files(model, cache_dir).residues


def most_residues(model: ModelConfig, cache_dir: Path | None = None) -> int:
    """Residues of the longest sequence that one pass takes. Downloads a model on the hub. Raises UserError as `describe` does."""
    return small_files(model, cache_dir).most_residues
