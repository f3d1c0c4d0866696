"""What can be said of the config's scGPT model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from sae_genomics.models.named import NamedModels
from sae_genomics.models.scgpt.folder import FILES, read_folder

READS = "cells"
MODELS = NamedModels(
    "scgpt", lambda folder, _: read_folder(folder),
    none_named="has no published model: download one as scGPT's page on GitHub (bowang-lab/scGPT) says, then set model.path to its "
    f"folder ({', '.join(FILES)})",
)  # fmt: skip
describe, small_files = MODELS.describe, MODELS.small_files
