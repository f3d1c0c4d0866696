"""What is planted: programmes of genes, the layers that hold them, what they do, and which go together. No torch, so that tests import it.

A *programme* is on or off in a cell. Its genes are expressed more where it is on. The model notices that, and adds a *feature*, one
direction of the residual stream, to the tokens of the programme's genes. The head reads features and predicts the genes' values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEED = 13
N_LAYERS, D_MODEL, N_GENES = 6, 32, 200
LAST = N_LAYERS - 1
TWIN = N_GENES // 2  # gene g + TWIN has the counts of gene g, in other cells
GENES = tuple(f"PLANTED{number + 1:04d}" for number in range(N_GENES))
FOLD = 6.0  # how much more a gene is expressed where its programme is on
ON, ELSEWHERE = 0.85, 0.05  # chance that a programme is on in cells of its own module, and in others
STRENGTH = 4.0  # length of a feature in the residual stream


@dataclass(frozen=True)
class Programme:
    """What is on or off in a cell."""

    name: str
    module: str
    """Programmes of one module are on in the same cells; it is the cells' label"""
    genes: tuple[int, ...]
    """Rows of GENES that are expressed FOLD times as much where it is on"""


@dataclass(frozen=True)
class Feature:
    """One planted direction."""

    name: str
    programmes: tuple[str, ...]
    """It stands in a cell where one of these is on"""
    born: int
    """First layer whose residual stream holds it"""
    last: int
    """Last layer that holds it"""
    tokens: tuple[int, ...]
    """Genes whose tokens carry it"""
    causal: tuple[int, ...]
    """Genes whose prediction it changes, directly or through the features that it becomes"""
    fate: str = "persistent"
    """persistent, died, split (into two), merged (with another); `from split`, `from merge`: what came of them"""


def _genes(first: int, n: int) -> tuple[int, ...]:
    return tuple(range(first, first + n))


LABELS = ("alpha", "beta", "gamma", "resting")  # `resting` cells have no module of their own
MODULES = LABELS[:3]
DISTANT, SILENT = "P06", "P09"  # acts on genes that do not carry it; acts on nothing
DISTANT_TARGETS = _genes(92, 7)

_PERSISTENT = tuple(Programme(f"P{number + 1:02d}", MODULES[number // 3], _genes(7 * number, 7)) for number in range(9))
TRANSIENT = Programme("transient", "alpha", _genes(63, 7))
SPLIT = Programme("split", "gamma", _genes(70, 10))
MERGE_A, MERGE_B = Programme("merge_a", "beta", _genes(80, 6)), Programme("merge_b", "beta", _genes(86, 6))
PROGRAMMES = (*_PERSISTENT, TRANSIENT, SPLIT, MERGE_A, MERGE_B)
CHANGES_AT = 3  # the layer that splits one feature and merges two
MERGED_GENES = MERGE_A.genes + MERGE_B.genes


def _persistent(number: int, programme: Programme) -> Feature:
    causal = {DISTANT: DISTANT_TARGETS, SILENT: ()}.get(programme.name, programme.genes)
    return Feature(programme.name, (programme.name,), number % 3 // 2, LAST, programme.genes, causal)


FEATURES = (
    *(_persistent(number, programme) for number, programme in enumerate(_PERSISTENT)),
    Feature("transient", ("transient",), 2, 4, TRANSIENT.genes, (), "died"),
    Feature("split", ("split",), 1, CHANGES_AT - 1, SPLIT.genes, SPLIT.genes, "split"),
    Feature("split_a", ("split",), CHANGES_AT, LAST, SPLIT.genes[:5], SPLIT.genes[:5], "from split"),
    Feature("split_b", ("split",), CHANGES_AT, LAST, SPLIT.genes[5:], SPLIT.genes[5:], "from split"),
    Feature("merge_a", ("merge_a",), 1, CHANGES_AT - 1, MERGE_A.genes, MERGED_GENES, "merged"),
    Feature("merge_b", ("merge_b",), 1, CHANGES_AT - 1, MERGE_B.genes, MERGED_GENES, "merged"),
    Feature("merged", ("merge_a", "merge_b"), CHANGES_AT, LAST, MERGED_GENES, MERGED_GENES, "from merge"),
)
NUMBER = {feature.name: number for number, feature in enumerate(FEATURES)}


def programme_named(name: str) -> Programme:
    """The programme of that name."""
    return next(programme for programme in PROGRAMMES if programme.name == name)


def features_at(layer: int) -> list[Feature]:
    """The features that the layer's residual stream holds."""
    return [feature for feature in FEATURES if feature.born <= layer <= feature.last]


def module_of(feature: Feature) -> str:
    """The module of its programmes: features of one module are on in the same cells."""
    return programme_named(feature.programmes[0]).module


def directions() -> npt.NDArray[np.float32]:
    """Unit vectors of FEATURES, orthogonal to one another: [features, d_model]."""
    return basis()[: len(FEATURES)]


def basis() -> npt.NDArray[np.float32]:
    """Orthonormal rows [d_model, d_model]: the features, then the value of a token, then what is left for the genes' own vectors."""
    drawn = np.random.default_rng([SEED, 0]).standard_normal((D_MODEL, D_MODEL))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].T, dtype=np.float32)


def programme_of_gene() -> dict[int, Programme]:
    """Gene -> the programme on which its expression depends; genes without one depend on nothing."""
    found = {gene: programme for programme in PROGRAMMES for gene in programme.genes}
    return found | dict.fromkeys(DISTANT_TARGETS, programme_named(DISTANT))


def rates() -> npt.NDArray[np.float64]:
    """Expected count of each gene in a cell where its programme is off: [genes]. A gene and its twin have the same one."""
    half = np.random.default_rng([SEED, 1]).uniform(0.9, 2.2, TWIN)
    return np.concatenate([half, half])


def share_on() -> float:
    """Share of the cells in which a programme is on."""
    return (ON + (len(LABELS) - 1) * ELSEWHERE) / len(LABELS)


def mean_values() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean of log1p(count) among counts above 0: where the gene's programme is off, where it is on, and over all cells: [genes] each."""
    count = np.arange(1, 80)
    log_factorial = np.cumsum(np.log(count))

    def moments(rate: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        chance = np.exp(count * np.log(rate)[:, None] - rate[:, None] - log_factorial)
        return chance @ np.log1p(count), chance.sum(axis=1)

    (sum_off, seen_off), (sum_on, seen_on) = moments(rates()), moments(FOLD * rates())
    off, on, share = sum_off / seen_off, sum_on / seen_on, share_on()
    overall = ((1 - share) * sum_off + share * sum_on) / ((1 - share) * seen_off + share * seen_on)
    return off, on, overall
