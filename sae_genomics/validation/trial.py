"""How many terms a trial SAE's features match on training cells: a number to choose settings by.

What is chosen must not be scored on the same cells. So a sweep counts terms on training cells alone, and the stages associate and
validate measure what was chosen on all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.gene_values import gene_values
from sae_genomics.associations.layer_pass import encode_block
from sae_genomics.associations.stream import layer_blocks, tokens_of, unit_token_counts
from sae_genomics.config import RunConfig
from sae_genomics.data.units import Units
from sae_genomics.models import pick_device
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.validation.background import FEATURES, background_of
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.gene_lists import GeneLists, top_genes
from sae_genomics.validation.gene_sets import Membership, NoSetFits
from sae_genomics.validation.null_rows import Tested, null_rows
from sae_genomics.validation.nulls import annotated
from sae_genomics.validation.rankings import whole_rankings
from sae_genomics.validation.settings import check_settings


def count_terms(run: Run, layer: int, folder: Path) -> dict[str, Any]:
    """Test the gene lists of the SAE in `folder` against the run's gene sets, by the rules of the stage validate.

    Returns n_units (features with a gene list), n_annotated (those that match a set at validation.fdr), n_terms (different sets matched)
    and weights (content hash of the SAE's weights). The three numbers are None where no set fits the data.
    Raises DamagedArtifact when an input cannot be read.
    """
    associations, settings = run.config.associations, run.config.validation
    units = run.kind.read_units(run)
    heldout = run.kind.read_items(run)["heldout"].to_numpy(bool)
    encoder = load_encoder(folder, pick_device(run.config.sae.device))
    sums, counted = GeneSums(encoder.d_sae, len(units), unit_token_counts(run, units)), GeneTokens(len(units))
    for block, x in layer_blocks(run, layer, units, heldout, associations.batch_tokens):
        stop_point()
        of_heldout = np.repeat(block.heldout, np.diff(block.item_ptr))
        training = replace(block, unit=np.where(of_heldout, -1, block.unit).astype(np.int32))
        counted.add(training)
        sums.add(training, encode_block(encoder, encoder.input(x, tokens_of(units, block.unit))))
    try:
        background = background_of(FEATURES, counted.table(units, None), check_settings(run.config), run.config)
    except NoSetFits:
        return {"n_units": None, "n_annotated": None, "n_terms": None, "weights": encoder.weights}
    test = enrichment_test_named(settings.test)
    lists = _ranked(run.config, sums, units, background.members, test.reads == "ranking")
    found = annotated(test, lists, background.sets, settings.fdr)
    row = null_rows(
        Tested(FEATURES, FEATURES, 0), lists, background.sets, background.members.sources, found, settings.fdr
    )[0]
    return {**{name: row[name] for name in ("n_units", "n_annotated", "n_terms")}, "weights": encoder.weights}


def _ranked(config: RunConfig, sums: GeneSums, units: Units, members: Membership, whole: bool) -> GeneLists:
    """What the test is given of each feature. whole: its whole ranking too."""
    associations, settings = config.associations, config.validation
    least = associations.min_gene_tokens
    if whole:
        values = pd.concat(gene_values(sums.by_feature(), sums.tokens, settings.rank_by, least), ignore_index=True)
        return whole_rankings(values, units.unit_name, members, settings.top_genes)
    ranked = rank_genes(
        sums.by_feature(), sums.tokens, units.unit_id, units.unit_name, associations.top_genes, least
    )  # fmt: skip
    return top_genes(ranked.table, members, settings.rank_by, settings.top_genes)
