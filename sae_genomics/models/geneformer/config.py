"""What can be said of the config's Geneformer model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from sae_genomics.models.geneformer.folder import read_folder
from sae_genomics.models.named import NamedModels

READS = "cells"
MODELS = NamedModels(
    "geneformer", lambda folder, _: read_folder(folder),
    none_named="has no bundled model; set model.name to Geneformer-V2-104M, or model.path to a folder",
)  # fmt: skip
describe, small_files = MODELS.describe, MODELS.small_files
