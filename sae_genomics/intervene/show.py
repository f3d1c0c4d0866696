"""An answer as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sae_genomics.data.kind import Nouns
from sae_genomics.intervene.answer import Answer
from sae_genomics.intervene.tables import outcomes_in, strongest

Q = 0.05


def as_json(answer: Answer, top: int) -> str:
    """One object; numbers that are not known are null."""
    moved = {}
    for outcome in outcomes_in(answer.units):
        up, down = strongest(answer.units, outcome, top)
        moved[outcome] = {"up": up.to_dict("records"), "down": down.to_dict("records")}
    whole = {**answer.facts, "outcomes": answer.sizes, "own_and_matched": answer.specificity, "moved_most": moved}
    return json.dumps(_known(whole), indent=2, ensure_ascii=False) + "\n"


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(answer: Answer, nouns: Nouns, top: int) -> str:
    """What a person reads: the edit, each outcome beside random directions, own beside matched targets, and the units that move most."""
    facts = answer.facts
    parts = [_head(facts, nouns), _sizes(answer, nouns)]
    if answer.specificity:
        parts.append(_own(answer, nouns))
    parts += [_moved(answer, outcome, nouns, top) for outcome in outcomes_in(answer.units)]
    return "\n\n".join(parts) + "\n"


def _head(facts: dict[str, Any], nouns: Nouns) -> str:
    n = facts["n_items"]
    groups = "" if facts["n_groups"] is None else f" of {facts['n_groups']:,} {nouns.groups}"
    hidden = f"; a share of the {nouns.tokens} is hidden, and only these are looked at" if facts["masked"] else ""
    lines = [
        f"{facts['subject']}: {facts['edit']}. Run {facts['run']}, layer {facts['layer']}, {facts['hook']}",
        f"{n:,} {nouns.items}{groups} ({facts['items']}), {facts['n_edited']:,} of {facts['n_tokens']:,} {nouns.tokens} edited{hidden}",
        f"edit norm {_number(facts['norm'])} per {nouns.item}{_interval(facts, 'norm')}; the activations of a {nouns.token} have {_number(facts['activation_norm'])}",
    ]
    lines += [
        f"feature {each['feature']}: active at {100 * each['rate']:.2g} % of training {nouns.tokens}, median {_number(each['median'])}, "
        f"99th percentile {_number(each['p99'])}"
        if facts["subject"].startswith("feature")
        else f"score above 0 at {100 * each['rate']:.2g} % of training {nouns.tokens}, median {_number(each['median'])}, 99th percentile {_number(each['p99'])}"
        for each in facts["features"]
    ]
    if facts["training_items_named"]:
        lines.append(
            f"training {nouns.items} are among them: the features and their own {nouns.units} were learnt on these"
        )
    return "\n".join(lines)


def _sizes(answer: Answer, nouns: Nouns) -> str:
    rows = [("what changes", "by", "95 % interval", f"{answer.facts['draws']} random directions", "largest", "p")]
    for each in answer.sizes:
        rows.append((
            _outcome(each["outcome"], answer.facts, nouns), _number(each["change"]), _ends(each, "change"), _number(each["random"]),
            _number(each["random_high"]), _p(each["p_value"]),
        ))  # fmt: skip
    note = f"p: is it more than random directions of the same norm at each {nouns.token} change? Mean over {_unit_of(answer.facts, nouns)}."
    return _table(rows) + "\n" + note


def _own(answer: Answer, nouns: Nouns) -> str:
    is_value = answer.facts["outcome"] == "value"
    rows = [
        ("own against matched targets", "own", "matched", "specificity", "95 % interval", "p, directions", "p, targets")
    ]
    for each in answer.specificity:
        rows.append((
            _outcome(each["outcome"], answer.facts, nouns), _number(each["effect_own"]), _number(each["effect_matched"]),
            _number(each["specificity"]), _ends(each, "specificity"), _p(each["p_direction"]), _p(each["p_targets"]),
        ))  # fmt: skip
    n = max(each["n_own"] for each in answer.specificity)
    targets = (
        f"{n} own {nouns.units}, those it fires on most" if is_value else f"{n:,} {nouns.tokens} where it is active"
    )
    return f"{_table(rows)}\nper unit of edit norm; {targets}; specificity 1 is what a random direction does"


def _moved(answer: Answer, outcome: str, nouns: Nouns, top: int) -> str:
    up, down = strongest(answer.units, outcome, top)
    rows: list[tuple[str, ...]] = [(nouns.unit, "change", "95 % interval", "random", "p", "q", nouns.items, "own")]
    if not answer.units["own"].any():
        rows[0] = rows[0][:-1]
    for each in [*up.to_dict("records"), *reversed(down.to_dict("records"))]:
        row = (
            str(each["unit_name"]), f"{each['change']:+.3g}", _ends(each, "change"), _number(each["random"]), _p(each["p_value"]),
            _p(each["q_value"]), f"{each['n_items']:,}", "own" if each["own"] else "",
        )  # fmt: skip
        rows.append(row[: len(rows[0])])
    found = answer.units[answer.units["outcome"] == outcome]
    tested = int(found["p_value"].notna().sum())
    said = "probability" if answer.facts["outcome"] == "distribution" else _outcome(outcome, answer.facts, nouns)
    n = int((found["q_value"] <= Q).sum())
    title = f"{nouns.units} whose {said} moves the most; {n:,} of {tested:,} tested have q <= {Q:g}"
    if len(rows) == 1:
        return f"{title}; none is shown"
    return f"{title}\n{_table(rows)}\np: the larger of two, against random directions and over {_unit_of(answer.facts, nouns)}"


def _outcome(name: str, facts: dict[str, Any], nouns: Nouns) -> str:
    if name == "embedding":
        return f"{nouns.item} embedding"
    predicted = "predicted value" if facts["outcome"] == "value" else f"predicted {nouns.token} (KL, nats)"
    return f"{predicted}, from {nouns.item} embedding" if name == "from_item" else predicted


def _unit_of(facts: dict[str, Any], nouns: Nouns) -> str:
    return nouns.items if facts["n_groups"] is None else nouns.groups


def _interval(row: dict[str, Any], name: str) -> str:
    ends = _ends(row, name)
    return f" ({ends})" if ends != "-" else ""


def _ends(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if pd.isna(low) else f"{low:.3g} to {high:.3g}"


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3g}"


def _p(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)
