"""What a report says of groups (donors, samples, homology clusters): how many stand behind a number, or that items were counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report.markdown import code, count, escape, listing
from sae_genomics.report.wording import Wording, a, first_upper

MORE_GROUPS = "raise `data.heldout_fraction`, use data with more groups, or name another column in `data.group_key`"
_NAMED = 6


def items_counted(wording: Wording) -> str:
    """What it means that every item counts once."""
    nouns = wording.nouns
    return f"Intervals and q-values of {nouns.labels} count {nouns.items}, and {wording.name_groups}"


def is_so(plan: dict[str, Any]) -> bool:
    """Whether the run's items have groups."""
    return plan.get("group_key") is not None


def are_labels(plan: dict[str, Any]) -> bool:
    """Whether groups and labels are the same column: then no label is on both sides of the split."""
    return is_so(plan) and plan["group_key"] == plan.get("label_key", plan.get("cell_type_key"))


def same_as_labels(plan: dict[str, Any], wording: Wording) -> str:
    """What that means, and what to do."""
    nouns = wording.nouns
    return (
        f"{first_upper(nouns.labels)} are also the groups that the split keeps whole (`data.group_key: {plan['group_key']}`), so each is held out "
        f"wholly or not at all, and none can be tested on held-out {nouns.items}: to test {nouns.labels}, name another column in `data.group_key`."
    )


def fact(plan: dict[str, Any]) -> str:
    """`12 of donor, 3 of them held out whole`, as Markdown for a table."""
    return f"{count(plan.get('n_groups'))} of {code(plan['group_key'], in_table=True)}, {count(plan.get('n_heldout_groups'))} of them held out whole"


def heldout(plan: dict[str, Any]) -> str:
    """` of 3 groups (donor)`, after a number of held-out items; empty without groups."""
    if not is_so(plan):
        return ""
    return f" of {count(plan.get('n_heldout_groups'))} whole groups ({code(plan['group_key'])})"


def behind(wide: pd.DataFrame | None, plan: dict[str, Any], wording: Wording) -> str:
    """How many groups stand behind a number on a label; without groups, what counting items means."""
    if wide is None or not plan.get("n_heldout"):
        return ""
    if not is_so(plan):
        return items_counted(wording)
    if are_labels(plan):
        return same_as_labels(plan, wording)
    n_groups = wide[("feature", "n_groups")].dropna().astype(int)
    untested = [str(name) for name in wide.index[wide[("feature", "untested")].notna()]]
    tested = n_groups[~n_groups.index.isin(untested)]
    parts = []
    if len(tested):
        parts.append(
            f"Behind a number on {a(wording.nouns.label)} stand {_range(tested)} held-out groups, and each group counts once, however many "
            f"{wording.nouns.items} it has."
        )
    if untested:
        more = [f"{len(untested) - _NAMED} more {wording.types}"] if len(untested) > _NAMED else []
        names = listing([escape(name) for name in untested[:_NAMED]] + more)
        parts.append(f"For {names} too few held-out groups could be used, so there is no q-value: {MORE_GROUPS}.")
    return " ".join(parts)


def how_measured(plan: dict[str, Any], wording: Wording) -> str:
    """What a table's AUROC, interval and q are over; empty without groups."""
    if not is_so(plan):
        return ""
    return (
        f"Held-out groups ({code(plan['group_key'])}) are what counts: AUROC is the mean over the groups of what each gives by its own "
        f"{wording.nouns.items}, or, where the {wording.type} is all or none of a group's {wording.nouns.items}, it compares the groups' means. The interval and q are over "
        "groups. Chance is 0.5 in every group."
    )


def reasons(table: pd.DataFrame, wording: Wording) -> str:
    """The labels without a test, each with the reason. table: rows of the table of label baselines."""
    own = table[(table["kind"] == "feature") & table["untested"].notna()]
    lines = [f"- {escape(name)}: {escape(why)}." for name, why in zip(own["label"], own["untested"], strict=True)]
    return f"{first_upper(wording.types)} without a q-value ({MORE_GROUPS}):\n\n" + "\n".join(lines) if lines else ""


def groups_of_labels(tests: pd.DataFrame | None) -> dict[str, int]:
    """Label -> held-out groups behind its numbers; empty without groups."""
    if tests is None or tests["n_groups"].isna().all():
        return {}
    first = tests.drop_duplicates("label")
    return {str(name): int(n) for name, n in zip(first["label"], first["n_groups"], strict=True) if np.isfinite(n)}


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"
