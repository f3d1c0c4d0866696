"""What can be wrong with the stage's settings, told before there is a run; needs no tables, so that every command can ask."""

from __future__ import annotations

from sae_genomics.config import RunConfig
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded
from sae_genomics.run import Run
from sae_genomics.validation.databases import check_collections, load_collections
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.gene_sets import Collection
from sae_genomics.validation.interactions import check_named


def check(run: Run) -> None:
    """Raise UserError for settings that the stage cannot work with. Every command asks, so no database is read."""
    _check_values(run.config)
    check_collections(run.config.validation, expanded(run.config.paths.databases))


def check_settings(config: RunConfig) -> list[Collection]:
    """The collections that the stage will test, read whole.

    Raises UserError for gene-set files that cannot be used, for more genes to test than are kept, and for a test that there is not.
    """
    _check_values(config)
    return load_collections(config.validation, expanded(config.paths.databases))


def _check_values(config: RunConfig) -> None:
    if enrichment_test_named(config.validation.test).reads == "ranking":
        raise UserError(
            f"validation.test: {config.validation.test} reads the order of all genes, and the stage associate keeps the top genes of a "
            "feature alone; set validation.test to fisher"
        )
    wanted, kept = config.validation.top_genes, config.associations.top_genes
    if wanted > kept:
        raise UserError(
            f"validation.top_genes = {wanted}, but only associations.top_genes = {kept} genes a feature are kept; set "
            f"associations.top_genes to {wanted} or more"
        )
    if config.validation.min_set_size > config.validation.max_set_size:
        raise UserError(
            f"validation.min_set_size = {config.validation.min_set_size} is more than validation.max_set_size = "
            f"{config.validation.max_set_size}; set it to {config.validation.max_set_size} or less"
        )
    for key, directed in (("network", False), ("regulons", True)):
        check_named(key, getattr(config.validation, key), expanded(config.paths.databases), directed)
