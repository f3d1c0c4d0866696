"""A saved SAE as an encoder: dense activations in, (token, feature, activation) triples out.

Gives the features of `sae_lens.SAE.load_from_disk(folder).encode(x)` without importing SAELens and without a dense
[tokens, d_sae] result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sae_genomics.content import content_hash
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.kernels.select import above, top_k
from sae_genomics.sae.product import linear, pieces
from sae_genomics.sae.unit_means import MEANS_FILE, UnitMeans, Units, load_means

CFG_FILE, WEIGHTS_FILE, SPARSITY_FILE = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
HIDDEN_ELEMENTS = 1 << 26  # pre-activations at once on a GPU

Triples = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]


@dataclass
class Encoder:
    """The inference half of an SAE.

    architecture: topk | jumprelu. W_enc: float32 [d_in, d_sae]. b_enc: float32 [d_sae]. W_dec: float32 [d_sae, d_in].
    b_dec: float32 [d_in]. k: active latents (topk). threshold: float32 [d_sae] (jumprelu). center: subtract b_dec first.
    weights: content hash of the file that it was loaded from; empty where it comes from none.
    means: what is subtracted from an activation before it is encoded (`sae.centre: unit`); None where nothing is.

    `encode_sparse` and `decode_sparse` are the SAE alone: with means, their x is `input(activations, units)`.
    """

    architecture: str
    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    k: int = 0
    threshold: torch.Tensor | None = None
    center: bool = True
    weights: str = ""
    means: UnitMeans | None = None

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def device(self) -> torch.device:
        return self.W_enc.device

    def input(self, x: npt.NDArray[np.float32], units: Units) -> npt.NDArray[np.float32]:
        """What the SAE reads of activations x, float32 [tokens, d_in]: x - means[unit], or x itself.

        units: vocabulary id of each token, integers [tokens]; -1 where it is not known.
        """
        return x if self.means is None else self.means.centred(x, units)

    def reconstruct(self, x: torch.Tensor, units: Units) -> torch.Tensor:
        """The activations that the features stand for: float32 [tokens, d_in], means[unit] + decode(encode(x - means[unit])).

        x: activations [tokens, d_in] on any device. units: as for `input`.
        """
        x = x.float()
        if self.means is None:
            return self.decode_sparse(*self.encode_sparse(x), len(x))
        means = self.means.tensor(units, x.device)
        return means + self.decode_sparse(*self.encode_sparse(x - means), len(x)).to(x.device)

    def encode_sparse(self, x: npt.NDArray[np.float32] | torch.Tensor) -> Triples:
        """Active features of x, float32 [tokens, d_in].

        Returns token int64 [n], feature int32 [n], activation float32 [n]: activations > 0 only, tokens ascending,
        features ascending within a token. The pre-activations exist for a few tokens at a time.
        Raises ValueError when the width of x is not d_in.
        """
        parts = list(self._encode_parts(torch.as_tensor(x, dtype=torch.float32)))
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
        token, feature, activation = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return token, feature, activation

    def _encode_parts(self, x: torch.Tensor) -> Iterator[Triples]:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(f"activations of shape {tuple(x.shape)} do not fit an SAE of d_in {self.d_in}")
        weight = self.W_enc.T
        for piece in self._pieces(len(x)):
            rows = x[piece].to(self.device)
            if self.center:
                rows = rows - self.b_dec
            token, feature, activation = self._active(linear(rows, weight, self.b_enc))
            yield token + piece.start, feature, activation

    def _pieces(self, rows: int) -> Iterable[slice]:
        if self.device.type == "cpu":
            return pieces(rows, self.d_sae)
        at_once = max(1, HIDDEN_ELEMENTS // self.d_sae)
        return (slice(start, start + at_once) for start in range(0, rows, at_once))

    def _active(self, hidden: torch.Tensor) -> Triples:
        if self.device.type != "cpu":
            return self._active_dense(hidden)
        if self.architecture == "topk":
            indices = np.empty((len(hidden), self.k), np.int32)
            values = np.empty((len(hidden), self.k), np.float32)
            top_k(hidden.numpy(), np.ones(self.d_sae, np.float32), self.k, indices, values)
            keep = values.ravel() > 0
            token = np.repeat(np.arange(len(hidden), dtype=np.int64), self.k)
            return token[keep], indices.ravel()[keep], values.ravel()[keep]
        assert self.threshold is not None
        return above(hidden.numpy(), np.maximum(self.threshold.numpy(), 0))

    def _active_dense(self, hidden: torch.Tensor) -> Triples:
        if self.architecture == "topk":
            values, indices = hidden.topk(self.k, dim=1, sorted=False)
            indices, order = indices.sort(dim=1)
            values = values.gather(1, order)
            row, rank = torch.nonzero(values > 0, as_tuple=True)
            feature, activation = indices[row, rank], values[row, rank]
        else:
            assert self.threshold is not None
            row, feature = torch.nonzero(hidden > self.threshold.clamp(min=0), as_tuple=True)
            activation = hidden[row, feature]
        return row.cpu().numpy(), feature.to(torch.int32).cpu().numpy(), activation.cpu().numpy()

    def decode_sparse(
        self,
        token: npt.NDArray[np.integer],
        feature: npt.NDArray[np.integer],
        activation: npt.NDArray[np.floating],
        n_tokens: int,
    ) -> torch.Tensor:
        """Reconstruction, float32 [n_tokens, d_in], from triples whose tokens ascend."""
        indptr = torch.from_numpy(np.searchsorted(token, np.arange(n_tokens + 1)).astype(np.int64))
        offsets, indices = indptr[:-1].to(self.device), torch.from_numpy(feature.astype(np.int64)).to(self.device)
        weights = torch.from_numpy(activation.astype(np.float32)).to(self.device)
        sums = torch.nn.functional.embedding_bag(indices, self.W_dec, offsets, mode="sum", per_sample_weights=weights)
        return sums + self.b_dec

    def to(self, device: str | torch.device) -> Encoder:
        tensors = ("W_enc", "b_enc", "W_dec", "b_dec")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in tensors}
        threshold = None if self.threshold is None else self.threshold.to(device)
        return replace(self, **moved, threshold=threshold)


def load_encoder(folder: Path, device: str | torch.device = "cpu") -> Encoder:
    """The SAE saved in `folder` in SAELens' format (architectures topk and jumprelu).

    With `sae.centre: unit` its `means` are those of the file beside it. Raises UserError for an architecture or option that is
    not supported, DamagedArtifact when a file cannot be read or the weights or the means are not those that cfg.json names (SAEs of
    other programs name none).
    """
    folder = Path(folder)
    cfg = _read_cfg(folder)
    path = folder / WEIGHTS_FILE
    with _readable(path):
        weights = content_hash(path)
        tensors = load_file(path)
    known = cfg.get("metadata", {}).get("sae_genomics", {})
    _check_named(path, weights, known.get("weights"))
    means = _means(folder, known.get("unit_means"))
    return replace(encoder_from(cfg, tensors, str(folder)).to(device), weights=weights, means=means)


def _read_cfg(folder: Path) -> dict[str, Any]:
    path = folder / CFG_FILE
    with _readable(path):
        cfg: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return cfg


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises UserError where a file of an SAE is not there, DamagedArtifact where it cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no SAE: {path.name} is not there") from None
    except (SafetensorError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None


def centre(x: npt.NDArray[np.float32], unit_ids: Units, folder: str | Path) -> npt.NDArray[np.float32]:
    """What the SAE in `folder` reads of stored activations: the input of `sae_lens.SAE.load_from_disk(folder).encode`.

    With `sae.centre: unit` that is x - means[unit], else x as it is, so that the same line serves every SAE.

    x: float32 [tokens, d_model], as `read_activations` gives them. unit_ids: integers [tokens], their vocabulary ids, as
    `read_units` gives them. folder: `checkpoints/<run>/saes/layer_LL`.

    Raises UserError when the folder holds no SAE, or not its means; DamagedArtifact when a file cannot be read.
    """
    folder = Path(folder)
    means = _means(folder, _read_cfg(folder).get("metadata", {}).get("sae_genomics", {}).get("unit_means"))
    if len(x) != len(unit_ids):
        raise ValueError(f"{len(x)} rows of activations and {len(unit_ids)} unit_ids; there must be one for each row")
    return x if means is None else means.centred(x, np.asarray(unit_ids))


def _means(folder: Path, named: str | None) -> UnitMeans | None:
    """The means that cfg.json names by their content hash; None where it names none."""
    if named is None:
        return None
    path = folder / MEANS_FILE
    try:
        means = load_means(path)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no whole SAE: {MEANS_FILE} is not there, and this SAE reads activations minus these means; "
            "copy it from the folder that the SAE comes from"
        ) from None
    _check_named(path, means.content, named)
    return means


def _check_named(path: Path, content: str, named: str | None) -> None:
    if named not in (None, content):
        raise DamagedArtifact(f"{path} is damaged: its content is not what {CFG_FILE} beside it names", path)


def encoder_from(cfg: dict[str, Any], tensors: dict[str, torch.Tensor], where: str) -> Encoder:
    """An encoder from SAELens' config values and weights. Raises UserError for what is not supported."""
    architecture = cfg.get("architecture")
    if architecture not in ("topk", "jumprelu"):
        raise UserError(f"{where}: architecture {architecture!r} is not supported here; topk and jumprelu are")
    for key, wanted in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if cfg.get(key, wanted) != wanted:
            raise UserError(f"{where}: {key} = {cfg[key]!r} is not supported here; fold it into the weights first")
    # Clones: what is mapped from a file is not aligned as products like it.
    W_enc, b_enc, W_dec, b_dec = (tensors[name].float().clone() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if cfg.get("rescale_acts_by_decoder_norm"):
        norm = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm[:, None]
    return Encoder(
        architecture=architecture,
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        k=min(int(cfg.get("k", 0)), W_dec.shape[0]),
        threshold=tensors["threshold"].float().clone() if architecture == "jumprelu" else None,
        center=bool(cfg.get("apply_b_dec_to_input", True)),
    )
