"""How tasks are named to people."""

from __future__ import annotations

from collections.abc import Sequence


def unit_list(units: Sequence[str]) -> str:
    """`layer_00 to layer_03, layer_07` from units in their order; beyond four groups only how many there are."""
    groups: list[list[str]] = []
    for unit in units:
        if groups and _number(unit) == _number(groups[-1][-1]) + 1:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    parts = [group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups]
    return ", ".join(parts) if len(parts) <= 4 else f"{', '.join(parts[:4])} and more ({len(units)} in all)"


def _number(unit: str) -> int:
    number = unit.rpartition("_")[2]
    return int(number) if number.isdigit() else -2
