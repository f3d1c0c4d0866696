"""From what was trained to what is used: scaling and decoder norms folded in, files in SAELens' own format.

Training sees s x with s = sqrt(d_in / mean |x|^2) and decoder rows of any norm n_j. With

    W_enc' = W_enc^T n,  b_enc' = b_enc n / s,  W_dec' = W_dec / n,  b_dec' = b_dec / s,  threshold' = threshold / s

the saved SAE reads stored activations as they are, writes them as they are, and has decoder rows of norm 1, so that an
activation is the length that its feature adds to the reconstruction. Which latents are active does not change.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from sae_genomics.atomic import atomic_path, temporary_folder
from sae_genomics.content import content_hash
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.load import CFG_FILE, SPARSITY_FILE, WEIGHTS_FILE, Encoder
from sae_genomics.sae.spec import Spec
from sae_genomics.sae.state import SaeState
from sae_genomics.sae.unit_means import MEANS_FILE, save_means

SPARSITY_EPSILON = 1e-10  # SAELens' own: log10(firing rate + 1e-10)


def fold(state: SaeState, spec: Spec, scale: float) -> Encoder:
    """The inference SAE on unscaled activations; `scale` is what training multiplied them by."""
    norm = state.W_dec.norm(dim=1).clamp(min=1e-8)
    architecture = architecture_named(spec.architecture)
    is_topk = architecture.saved_as == "topk"
    return Encoder(
        architecture=architecture.saved_as,
        W_enc=(state.W_enc * norm[:, None]).T.contiguous(),
        b_enc=state.b_enc * norm / scale,
        W_dec=state.W_dec / norm[:, None],
        b_dec=state.b_dec / scale,
        k=spec.k if is_topk else 0,
        threshold=None if is_topk else (architecture.threshold(state, norm) / scale).float(),
    )


def save_sae(folder: Path, encoder: Encoder, metadata: dict[str, Any]) -> dict[str, str]:
    """Write sae_weights.safetensors and cfg.json, each atomically, and the encoder's means where it has some.

    Returns the content hash of each, by file name.

    metadata: what SAELens keeps in cfg.json beside the weights (model_name, hook_name, ...); JSON values. Its `sae_genomics` gets
    the content hash of the weights, and of the means, so that whoever holds cfg.json can tell which files it belongs to.
    """
    version = importlib.metadata.version("sae_lens")
    cfg = saelens_cfg(encoder, {"sae_lens_version": version, "sae_lens_training_version": version, **metadata})
    folder.mkdir(parents=True, exist_ok=True)
    means = {} if encoder.means is None else {MEANS_FILE: save_means(folder / MEANS_FILE, encoder.means)}
    with temporary_folder(folder, "sae") as staging:
        weights, cfg_file = staging / WEIGHTS_FILE, staging / CFG_FILE
        save_file(saelens_tensors(encoder), weights)
        ours = cfg["metadata"].setdefault("sae_genomics", {})
        ours["weights"] = content_hash(weights)
        if means:
            ours |= {"centre": "unit", "unit_means": means[MEANS_FILE]}
        cfg_file.write_text(json.dumps(cfg), encoding="utf-8")
        hashes = {path.name: content_hash(path) for path in (weights, cfg_file)}
        for path in (weights, cfg_file):
            with atomic_path(folder / path.name) as temporary:
                shutil.move(path, temporary)
    if encoder.means is None:
        (folder / MEANS_FILE).unlink(missing_ok=True)  # of an SAE with other settings that stood here
    return hashes | means


def saelens_cfg(encoder: Encoder, metadata: dict[str, Any]) -> dict[str, Any]:
    """cfg.json as SAELens writes it for this SAE, JSON values of our own.

    Written here and not by SAELens' classes: importing them takes seconds and 160 MB in every process that trains.
    """
    cfg = {
        "d_in": encoder.d_in, "d_sae": encoder.d_sae, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": encoder.center,
        "normalize_activations": "none", "reshape_activations": "none", "metadata": json.loads(json.dumps(metadata)),
    }  # fmt: skip
    of_topk = {"k": encoder.k, "rescale_acts_by_decoder_norm": False} if encoder.architecture == "topk" else {}
    return {**cfg, **of_topk, "architecture": encoder.architecture}


def saelens_tensors(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The tensors of sae_weights.safetensors, under SAELens' names."""
    names = ["W_enc", "b_enc", "W_dec", "b_dec", *(["threshold"] if encoder.architecture == "jumprelu" else [])]
    return {name: getattr(encoder, name).float().contiguous().cpu() for name in names}


def save_sparsity(folder: Path, firing_rate: npt.NDArray[np.floating]) -> None:
    """Write sparsity.safetensors atomically. firing_rate: [d_sae], share of tokens each latent is active on."""
    log_rate = torch.from_numpy(np.log10(firing_rate + SPARSITY_EPSILON).astype(np.float32))
    with atomic_path(folder / SPARSITY_FILE) as temporary:
        save_file({"sparsity": log_rate}, temporary)
