"""Which pairs of layers the settings ask for, and what can be wrong with them."""

from __future__ import annotations

from itertools import combinations, pairwise

from sae_genomics.errors import UserError
from sae_genomics.run import Run


def attribution_pairs(run: Run) -> list[tuple[int, int]]:
    """Earlier and later layer of each pair. Raises UserError for a pair that is not two layers of the run in their order."""
    asked = run.config.cross_layer.attribution_pairs
    if isinstance(asked, str):
        return list(combinations(run.layers, 2) if asked == "all" else pairwise(run.layers))
    for first, second in asked:
        if first >= second or first not in run.layers or second not in run.layers:
            raise UserError(
                f"cross_layer.attribution_pairs: [{first}, {second}] is not an earlier and a later layer of model.layers; "
                f"the run has layers {', '.join(map(str, run.layers))}"
            )
    return asked


def check(run: Run) -> None:
    """Raise what `attribution_pairs` does, before anything runs."""
    if run.config.cross_layer.enabled:
        attribution_pairs(run)
