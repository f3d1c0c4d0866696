"""The forward pass that a thread is in. transformers' modules are shared by threads, and what they call finds its pass here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sae_genomics.models.sequences import Listener, Sequences


@dataclass
class Pass:
    """What the modules of one forward pass must know."""

    sequences: Sequences
    packed: bool
    """Whether the hidden states are [1, T, d_model]; else they are padded, [sequences, longest, d_model]."""
    listen: Listener
    first: int = 0
    """The first layer that is computed; earlier ones pass their input on."""
    last: int = 1 << 30
    """The last layer that is computed; later ones pass their input on."""
    entering: Tensor | None = None
    """[T, d_model], what enters layer `first` in place of what its predecessors passed on."""
    leaving: Tensor | None = None
    """[T, d_model], the output of layer `first`, which is then not computed."""
    input_wanted: int | None = None
    """A layer whose input is kept in `input_found`."""
    input_found: Tensor | None = None
    """[T, d_model]"""
    read_by_head: Tensor | None = None
    """[1, n, d_model], what the head reads; the model below it is then not computed."""

    def rows(self, x: Tensor) -> Tensor:
        """[T, d_model] of a module's output."""
        return x.reshape(-1, x.shape[-1]) if self.packed else self.sequences.pack(x)

    def shaped(self, rows: Tensor) -> Tensor:
        """[T, d_model] as the modules want it."""
        return rows[None] if self.packed else self.sequences.pad(rows)


_here = threading.local()


def current_pass() -> Pass:
    """The thread's pass. Raises RuntimeError outside of one: the modules then belong to nobody's batch."""
    found: Any = getattr(_here, "value", None)
    if found is None:
        raise RuntimeError("the network was called outside of PackedDecoder")
    return found  # type: ignore[no-any-return]


@contextmanager
def passing(one: Pass) -> Iterator[Pass]:
    """Within it, the thread is in this pass."""
    before = getattr(_here, "value", None)
    _here.value = one
    try:
        yield one
    finally:
        _here.value = before
