"""Which sources hold the same statements, so that no statement counts twice.

Open Targets contains ClinVar's statements. A gene set of Open Targets and one of ClinVar are then not two pieces of evidence. Each
source says which others it contains (`contains` in configs/databases.yaml). The origins of a source are itself, what it contains,
and what these contain. Two sources are independent when they have no origin in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Contains = Mapping[str, Sequence[str]]


def origins(contains: Contains) -> dict[str, frozenset[str]]:
    """source -> itself and everything that stands in it, over any number of steps."""
    found: dict[str, frozenset[str]] = {}
    for source in contains:
        reached, waiting = {source}, [source]
        while waiting:
            for other in contains.get(waiting.pop(), ()):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        found[source] = frozenset(reached)
    return found


def counted_once(agree: npt.NDArray[np.bool_], contains: Contains) -> npt.NDArray[np.bool_]:
    """Of the sources that agree on a row, those that count: bool [rows, sources].

    agree: bool [rows, sources], columns in the order of `contains`.

    Sources are asked in turn, the one with the fewest origins first. One counts when it is independent of all that count already.
    So the source that a statement comes from counts, and one that took it over does not.
    """
    known = origins(contains)
    names = list(contains)
    order = sorted(range(len(names)), key=lambda column: (len(known[names[column]]), column))
    counts = agree.copy()
    for turn, column in enumerate(order):
        for earlier in order[:turn]:
            if known[names[column]] & known[names[earlier]]:
                counts[:, column] &= ~counts[:, earlier]
    return counts
