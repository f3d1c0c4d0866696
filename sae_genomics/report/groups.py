"""What a report says of groups of cells (donors, samples, batches): how many stand behind a number, or that cells were counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report.markdown import code, count, escape, listing

MORE_GROUPS = "raise `data.heldout_fraction`, use data with more groups, or name another obs column in `data.group_key`"
CELLS_COUNTED = (
    "Intervals and q-values of cell types count cells, and cells of one donor are alike, so these numbers look surer than they are: "
    "if `obs` has a column of donors, samples or batches, name it in `data.group_key`."
)
DASHBOARD_CELLS_COUNTED = CELLS_COUNTED.replace("`", "")
_NAMED = 6


def is_so(plan: dict[str, Any]) -> bool:
    """Whether the run's cells have groups."""
    return plan.get("group_key") is not None


def fact(plan: dict[str, Any]) -> str:
    """`12 of donor, 3 of them held out whole`, as Markdown for a table."""
    return f"{count(plan.get('n_groups'))} of {code(plan['group_key'], in_table=True)}, {count(plan.get('n_heldout_groups'))} of them held out whole"


def heldout(plan: dict[str, Any]) -> str:
    """` of 3 groups (donor)`, after a number of held-out cells; empty without groups."""
    if not is_so(plan):
        return ""
    return f" of {count(plan.get('n_heldout_groups'))} whole groups ({code(plan['group_key'])})"


def behind(wide: pd.DataFrame | None, plan: dict[str, Any]) -> str:
    """How many groups stand behind a number on a cell type; without groups, what counting cells means."""
    if wide is None or not plan.get("n_heldout"):
        return ""
    if not is_so(plan):
        return CELLS_COUNTED
    n_groups = wide[("feature", "n_groups")].dropna().astype(int)
    untested = [str(name) for name in wide.index[wide[("feature", "untested")].notna()]]
    tested = n_groups[~n_groups.index.isin(untested)]
    parts = []
    if len(tested):
        parts.append(
            f"Behind a number on a cell type stand {_range(tested)} held-out groups, and each group counts once, however many cells it has."
        )
    if untested:
        more = [f"{len(untested) - _NAMED} more types"] if len(untested) > _NAMED else []
        names = listing([escape(name) for name in untested[:_NAMED]] + more)
        parts.append(f"For {names} too few held-out groups could be used, so there is no q-value: {MORE_GROUPS}.")
    return " ".join(parts)


def how_measured(plan: dict[str, Any]) -> str:
    """What a table's AUROC, interval and q are over; empty without groups."""
    if not is_so(plan):
        return ""
    return (
        f"Held-out groups ({code(plan['group_key'])}) are what counts: AUROC is the mean over the groups of what each gives by its own "
        "cells, or, where the type is all or none of a group's cells, it compares the groups' means. The interval and q are over "
        "groups. Chance is 0.5 in every group."
    )


def reasons(table: pd.DataFrame) -> str:
    """The types without a test, each with the reason. table: rows of cell_type_baselines.parquet."""
    own = table[(table["kind"] == "feature") & table["untested"].notna()]
    lines = [f"- {escape(name)}: {escape(why)}." for name, why in zip(own["cell_type"], own["untested"], strict=True)]
    return f"Types without a q-value ({MORE_GROUPS}):\n\n" + "\n".join(lines) if lines else ""


def groups_of_types(cell_types: pd.DataFrame | None) -> dict[str, int]:
    """Cell type -> held-out groups behind its numbers; empty without groups."""
    if cell_types is None or cell_types["n_groups"].isna().all():
        return {}
    first = cell_types.drop_duplicates("cell_type")
    return {str(name): int(n) for name, n in zip(first["cell_type"], first["n_groups"], strict=True) if np.isfinite(n)}


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"
