"""A model on packed rows: the rows of all sequences stand one after the other, and linear layers and norms compute no padding."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.models.base import FoundationModel, ModelInfo
from sae_genomics.models.cpu_products import tokens_at_once, use_kernels
from sae_genomics.models.editing import kept_at
from sae_genomics.models.sequences import Listener, Sequences, pieces_of
from sae_genomics.tokens import Tokens


class PackedModel(FoundationModel):
    """A loaded model that takes packed rows. A CPU takes a batch in pieces; all tokens are counted, and those of the padding."""

    def __init__(
        self, info: ModelInfo, network: nn.Module, device: torch.device, dtype: torch.dtype, *, widest: int | None
    ):
        """network: on the device already. widest: outputs of its widest layer, the head's not counted; None: the network takes
        padded batches, in one piece."""
        self.info, self.network, self.device, self.dtype = info, network, device, dtype
        use_kernels(network, device, dtype)
        self._padded = device.type != "cpu" or widest is None
        if widest is not None and device.type == "cpu":
            self.piece_tokens = tokens_at_once(widest)
        self._counting = threading.Lock()
        self._read = self._computed = 0

    @abstractmethod
    def given(self, batch: Tokens) -> tuple[Tensor, ...]:
        """What the network reads of a batch, where nothing is hidden: tensors of T rows, on the device."""

    @abstractmethod
    def run(self, given: tuple[Tensor, ...], sequences: Sequences, n_layers: int, listen: Listener) -> None:
        """Take rows of what `given` gives through the first `n_layers` blocks, and report to `listen`."""

    @property
    def padding_share(self) -> float:
        """Share of the tokens computed so far that were padding. Linear layers compute none; attention does on an accelerator."""
        return 1 - self._read / self._computed if self._computed else 0.0

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        given = self.given(batch)
        for first, last in pieces_of(batch.item_ptr, self.piece_tokens):
            rows, sequences = self._sequences(batch.item_ptr, first, last)
            found, listen = kept_at(hook, layers)
            if rows.stop > rows.start:
                self.run(tuple(x[rows] for x in given), sequences, max(layers) + 1, listen)
            for layer, x in found.items():
                parts[layer].append(x)
        empty = torch.empty(0, self.info.d_model, device=self.device, dtype=self.dtype)
        return {
            layer: rows[0] if len(rows) == 1 else torch.cat(rows) if rows else empty for layer, rows in parts.items()
        }

    def sequences(self, batch: Tokens) -> Sequences:
        """Where the batch's sequences begin."""
        return self._sequences(batch.item_ptr, 0, batch.n_items)[1]

    def on_device(self, token: npt.NDArray[np.int32]) -> Tensor:
        """Token ids as a network takes them: int64 [T]."""
        return torch.from_numpy(np.ascontiguousarray(token)).to(self.device).long()

    def _sequences(self, ptr: npt.NDArray[np.int64], first: int, last: int) -> tuple[slice, Sequences]:
        start, stop = int(ptr[first]), int(ptr[last])
        sequences = Sequences(ptr[first : last + 1] - start, self.device, padded=self._padded)
        with self._counting:
            self._read += stop - start
            self._computed += sequences.computed
        return slice(start, stop), sequences
