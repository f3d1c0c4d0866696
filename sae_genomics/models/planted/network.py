"""The planted network: plain torch functions of [T, d_model] rows, differentiable, one sequence independent of the others.

    x_t          = e(gene) + value v
    block l      x_t += s on_p(cell) d_f     for features f that are born at l, t among the tokens that carry f
                 features that are erased at l are projected out; one is split into two, two are merged into one
    m_p(cell)    = mean over the programme's visible tokens of (<x, v> - the gene's value half way between off and on)
    on_p(cell)   = sigmoid(12 m_p) max(1 + 1.5 (m_p - half the rise from off to on), 0.3)     (stronger where expressed more)
    read_f(cell) = mean over the tokens that carry f of <x_t, d_f> / s        (attention whose keys are the genes)
    sat(r)       = sigmoid(5 (r - 0.5)), less its value at r = 0      (a threshold: little of a direction does little)
    prior_t      = base(gene) + gain(gene) * sum of sat(read_f) over features f that act on the gene
    token_t      = prior_t, of a visible token + 0.15 (<x_t, v> - prior_t)     (a visible value is partly copied)
    <cls>        += sum over f of read_f d_f;   from_item_t = base + gain * sum of sat(<cls, d_f>)

d: the features' unit vectors, v: that of the value, e: the gene's own vector, orthogonal to both; s = STRENGTH.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_genomics.models.planted import truth

COPIED = 0.15  # share of a visible token's prediction that is its own value
STEEP, STRONGER, WEAKEST = 12.0, 1.5, 0.3
READ_STEEP, READ_HALF = 5.0, 0.5
OWN_LENGTH = 0.3  # of a gene's own vector


@dataclass(frozen=True)
class Sequences:
    """The rows that a network works on. gene: int64 [T], -1 for <cls>. visible: float [T], 0 for hidden values and <cls>."""

    gene: Tensor
    visible: Tensor
    sequence: Tensor
    """int64 [T], which sequence a row is of"""
    n: int
    """Sequences"""

    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean over each sequence's rows: [sequences, columns]; 0 where there is no weight. Both [T, columns]."""
        total = values.new_zeros(self.n, values.shape[1]).index_add(0, self.sequence, values * weight)
        return total / values.new_zeros(self.n, values.shape[1]).index_add(0, self.sequence, weight).clamp_min(1e-6)

    def any(self, weight: Tensor) -> Tensor:
        """1 where a sequence has weight in the column, else 0: [sequences, columns]. weight: [T, columns]."""
        total = weight.new_zeros(self.n, weight.shape[1]).index_add(0, self.sequence, weight)
        return (total > 0).to(weight.dtype)


def _table(sets: list[tuple[int, ...]]) -> Tensor:
    """[genes + 1, sets], 1 where the gene is in the set; the last row stands for <cls>."""
    table = torch.zeros(truth.N_GENES + 1, len(sets))
    for column, genes in enumerate(sets):
        table[list(genes), column] = 1.0
    return table


class PlantedNetwork:
    """The weights, and the functions above."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        basis = torch.from_numpy(truth.basis())
        n = len(truth.FEATURES)
        own = np.random.default_rng([truth.SEED, 2]).standard_normal((truth.N_GENES + 1, truth.D_MODEL - n - 1))
        own *= OWN_LENGTH / np.linalg.norm(own, axis=1, keepdims=True)
        off, on, overall = (torch.from_numpy(each).float() for each in truth.mean_values())
        acted_on = _table([feature.causal for feature in truth.FEATURES])
        base = torch.where(acted_on[:-1].sum(1) > 0, off, overall)

        def put(values: Tensor) -> Tensor:
            return values.to(device=device, dtype=dtype)

        self.directions, self.value = put(basis[:n]), put(basis[n])
        self.own = put(torch.from_numpy(own).float() @ basis[n + 1 :])
        self.carries = put(_table([feature.tokens for feature in truth.FEATURES]))
        self.marks = put(_table([programme.genes for programme in truth.PROGRAMMES]))
        # what a feature becomes acts in its stead: at the head, only features of the last layer are read
        at_end = torch.tensor([float(feature.last == truth.LAST) for feature in truth.FEATURES])
        self.acts_on = put(acted_on * at_end)
        self.base, self.gain = put(torch.cat([base, torch.zeros(1)])), put(torch.cat([on - off, torch.zeros(1)]))
        rise = _table([programme.genes for programme in truth.PROGRAMMES])[:-1] * ((on - off) / 2)[:, None]
        self.half_rise = put(rise.sum(0) / torch.tensor([float(len(each.genes)) for each in truth.PROGRAMMES]))
        self.half_way = put(torch.cat([(off + on) / 2, torch.zeros(1)]))

    def embed(self, rows: Sequences, value: Tensor) -> Tensor:
        """[T, d_model]. value: [T], log1p of the count; a hidden one is not looked at."""
        return self.own[rows.gene] + (value * rows.visible)[:, None] * self.value

    def block(self, layer: int, x: Tensor, rows: Sequences) -> Tensor:
        """[T, d_model], the output of a block."""
        if layer == truth.CHANGES_AT:
            x = self._split_and_merge(x, rows)
        gone = [
            number
            for number, feature in enumerate(truth.FEATURES)
            if feature.last + 1 == layer and feature.fate == "died"
        ]
        for number in gone:
            x = x - (x @ self.directions[number])[:, None] * self.directions[number]
        born = [
            number
            for number, feature in enumerate(truth.FEATURES)
            if feature.born == layer and not feature.fate.startswith("from")
        ]
        if not born:
            return x
        programmes = [
            truth.PROGRAMMES.index(truth.programme_named(truth.FEATURES[number].programmes[0])) for number in born
        ]
        on = self._on(x, rows)[:, programmes]
        return x + truth.STRENGTH * (on[rows.sequence] * self.carries[rows.gene][:, born]) @ self.directions[born]

    def _on(self, x: Tensor, rows: Sequences) -> Tensor:
        """[sequences, programmes], about 1 where a programme is on, else about 0."""
        above = (x @ self.value) - self.half_way[rows.gene]
        marks = self.marks[rows.gene] * rows.visible[:, None]
        more = rows.mean(above[:, None].expand_as(marks), marks)
        strength = (1 + STRONGER * (more - self.half_rise)).clamp_min(WEAKEST)
        return torch.sigmoid(STEEP * more) * strength * rows.any(marks)

    def _split_and_merge(self, x: Tensor, rows: Sequences) -> Tensor:
        was, carried = x @ self.directions.T, self.carries[rows.gene]
        number = truth.NUMBER
        for name in ("split", "merge_a", "merge_b"):
            x = x - was[:, number[name], None] * self.directions[number[name]]
        for name in ("split_a", "split_b"):
            part = was[:, number["split"]] * carried[:, number[name]]
            x = x + part[:, None] * self.directions[number[name]]
        return x + (was[:, number["merge_a"]] + was[:, number["merge_b"]])[:, None] * self.directions[number["merged"]]

    def head(self, x: Tensor, rows: Sequences) -> tuple[Tensor, Tensor, Tensor]:
        """What is predicted of each token from itself, and from the item: [T]; the items' embeddings: [sequences, d_model]."""
        read = rows.mean(x @ self.directions.T / truth.STRENGTH, self.carries[rows.gene])
        prior = self._prior(read, rows)
        token = prior + COPIED * rows.visible * (x @ self.value - prior)
        is_cls = (rows.gene < 0).to(x.dtype)[:, None]
        embedding = rows.mean(x, is_cls.expand_as(x)) + read @ self.directions
        return token, self._prior(embedding @ self.directions.T, rows), embedding

    def _prior(self, read: Tensor, rows: Sequences) -> Tensor:
        nothing = torch.sigmoid(read.new_tensor(-READ_STEEP * READ_HALF))
        acting = (torch.sigmoid(READ_STEEP * (read - READ_HALF)) - nothing)[rows.sequence] * self.acts_on[rows.gene]
        return self.base[rows.gene] + self.gain[rows.gene] * acting.sum(1)


class UntrainedNetwork(PlantedNetwork):
    """The same shape with nothing planted: random vectors of genes, and blocks that mix them at random."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int):
        super().__init__(device, dtype)
        draw = torch.Generator().manual_seed(seed)
        width = truth.D_MODEL**0.5
        own = torch.randn(truth.N_GENES + 1, truth.D_MODEL, generator=draw) / width
        value = torch.randn(truth.D_MODEL, generator=draw) / width
        mixes = torch.randn(truth.N_LAYERS, 2, truth.D_MODEL, truth.D_MODEL, generator=draw) / width
        self.own, self.value, self.mixes = (each.to(device=device, dtype=dtype) for each in (own, value, mixes))

    def block(self, layer: int, x: Tensor, rows: Sequences) -> Tensor:
        """x + tanh(x A + mean over the sequence of x, times B)."""
        of_token, of_mean = self.mixes[layer]
        return x + torch.tanh(x @ of_token + (rows.mean(x, torch.ones_like(x)) @ of_mean)[rows.sequence])
