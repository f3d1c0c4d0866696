"""What can be wrong with the stage's settings and files, told before anything runs."""

from __future__ import annotations

from sae_genomics.concepts.examples import read_examples
from sae_genomics.concepts.item_table import read_item_table
from sae_genomics.errors import UserError
from sae_genomics.run import Run


def check(run: Run) -> None:
    """Raise UserError for settings that the stage cannot work with, and for files with a bad row. Reads no items."""
    settings = run.config.concepts
    if not settings.enabled:
        return
    if not settings.kinds:
        raise UserError(
            "concepts.kinds is empty; name label, span, gene_set or examples, or set concepts.enabled to false"
        )
    for path in settings.examples:
        read_examples(path)
    if settings.confounds is not None:
        read_item_table(settings.confounds, "concepts.confounds")
    if settings.labels is not None:
        read_item_table(settings.labels, "concepts.labels")
    run.kind.check_columns(run.config.data, dict.fromkeys(settings.label_columns, "concepts.label_columns"))
    run.kind.check_columns(run.config.data, dict.fromkeys(settings.confound_columns, "concepts.confound_columns"))
    if settings.stop_after > settings.draws:
        raise UserError(
            f"concepts.stop_after = {settings.stop_after} is more than concepts.draws = {settings.draws}; "
            f"set it to {settings.draws} or less"
        )
