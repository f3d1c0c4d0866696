"""What can be said of the config's language model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.models.huggingface.folder import read_folder
from sae_genomics.models.named import NamedModels

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig
    from sae_genomics.models.huggingface.tokenise import TextTokeniser

READS = "text"
MODELS = NamedModels(
    "huggingface", lambda folder, model: read_folder(folder, model.hook_modules),
    none_named="has no bundled model; set model.path to a folder, or model.name to OWNER/NAME of the hub, such as google/gemma-3-4b-it",
)  # fmt: skip
describe, small_files = MODELS.describe, MODELS.small_files


def text_tokeniser(model: ModelConfig, cache_dir: Path | None = None) -> TextTokeniser:
    """See `sae_genomics.models.text_tokeniser`."""
    from sae_genomics.models.huggingface.tokenise import read_tokeniser

    return read_tokeniser(small_files(model, cache_dir))
