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
from sae_genomics.associations.layer_pass import encode_block
from sae_genomics.associations.stream import layer_blocks, tokens_of, unit_token_counts
from sae_genomics.models import pick_device
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.validation.background import listable
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.gene_lists import top_genes
from sae_genomics.validation.gene_sets import NoSetFits, membership
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
    sums = GeneSums(encoder.d_sae, len(units), unit_token_counts(run, units))
    for block, x in layer_blocks(run, layer, units, heldout, associations.batch_tokens):
        stop_point()
        of_heldout = np.repeat(block.heldout, np.diff(block.item_ptr))
        training = replace(block, unit=np.where(of_heldout, -1, block.unit).astype(np.int32))
        sums.add(training, encode_block(encoder, encoder.input(x, tokens_of(units, block.unit))))
    ranked = rank_genes(
        sums.by_feature(), sums.tokens, units.unit_id, units.unit_name,
        associations.top_genes, associations.min_gene_tokens,
    )  # fmt: skip
    counts = pd.DataFrame({"gene_symbol": units.unit_name, "n_tokens_stored": sums.tokens, "mean_expression": np.nan})
    could_be_listed = listable(counts, "features", settings.rank_by, associations.min_gene_tokens)["gene_symbol"]
    try:
        members = membership(
            check_settings(run.config), could_be_listed.to_numpy(object), settings.min_set_size, settings.max_set_size
        )
    except NoSetFits:
        return {"n_units": None, "n_annotated": None, "n_terms": None, "weights": encoder.weights}
    lists = top_genes(ranked.table, members, settings.rank_by, settings.top_genes)
    tests = enrichment_test_named(settings.test).run(lists, members.matrix)
    found = tests.q_value < settings.fdr
    return {
        "n_units": len(lists.unit),
        "n_annotated": len(np.unique(tests.row[found])),
        "n_terms": len(np.unique(tests.term[found])),
        "weights": encoder.weights,
    }
