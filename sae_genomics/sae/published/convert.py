"""From an SAE as SAELens writes it to `Encoder`, which gives the features of SAELens' own `encode`.

    x' = s x                                   normalize_activations: expected_average_only_in, s = sqrt(d_in) / mean |x|
    h = (x' - b_dec) W_enc + b_enc             without b_dec where apply_b_dec_to_input is false

| architecture | a(h) in SAELens | here |
|---|---|---|
| standard | max(h, 0) | jumprelu with threshold 0 |
| topk | the k largest h, if positive; of h abs(W_dec) with rescale_acts_by_decoder_norm | topk |
| jumprelu | h where h > threshold and h > 0 | jumprelu |
| batchtopk, matryoshka_batchtopk | what SAELens saves for inference: jumprelu with topk_threshold for every latent | jumprelu |
| gated | max(p exp(r_mag) + b_mag, 0) where p + b_gate > 0, p = (x' - b_dec) W_enc | jumprelu, see below |

A gated latent is positive where p > -b_gate and p exp(r_mag) + b_mag > 0. With h = p exp(r_mag) + b_mag the first says
h > b_mag - exp(r_mag) b_gate: so W_enc exp(r_mag) as the encoder and that as the threshold is the same latent.

s is folded in as SAELens does it (`fold_activation_norm_scaling_factor`): W_enc s, W_dec / s, b_dec / s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sae_genomics.errors import UserError
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.published.sources import metadata_of

Tensors = dict[str, torch.Tensor]
BATCH_FAMILIES = ("batchtopk", "matryoshka_batchtopk")
_COMMON = ("W_enc", "W_dec", "b_dec")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "standard": (*_COMMON, "b_enc"),
    "topk": (*_COMMON, "b_enc"),
    "jumprelu": (*_COMMON, "b_enc", "threshold"),
    "gated": (*_COMMON, "b_gate", "b_mag", "r_mag"),
    **dict.fromkeys(BATCH_FAMILIES, (*_COMMON, "b_enc", "topk_threshold")),
}
_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}  # of Gemma Scope 2
AVERAGE = "expected_average_only_in"
_REASONS = {
    "layer_norm": "each token would be scaled by a number of its own",
    "constant_norm_rescale": "each token would be scaled by a number of its own",
    "covariance_whitening": "SAELens folds it in when training ends; this SAE was saved before",
}


def settings_of(cfg: dict[str, Any], where: str) -> dict[str, Any]:
    """cfg.json as SAELens 6 writes it, also where an older version wrote it. Raises UserError for an SAE that is not computed here."""
    architecture = _architecture(cfg)
    if architecture not in NEEDED:
        raise UserError(f"{where}: architecture {architecture!r} is not computed here; {', '.join(NEEDED)} are")
    if "metadata" not in cfg and architecture not in BATCH_FAMILIES:
        from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

        beside = {name: cfg[name] for name in ("hook_layer", "hook_point_layer") if name in cfg}
        cfg = handle_config_defaulting(dict(cfg))
        cfg["metadata"] = {**cfg["metadata"], **beside}
    normalised = cfg.get("normalize_activations", "none") or "none"
    if normalised not in ("none", AVERAGE):
        why = _REASONS.get(str(normalised), "it is not known here")
        raise UserError(
            f"{where}: its normalize_activations is {normalised!r}, the activations are stored as the model gives them, and weights "
            f"cannot take this in ({why}); choose an SAE with none or {AVERAGE}"
        )
    if cfg.get("reshape_activations", "none") != "none":
        raise UserError(
            f"{where}: it reads {cfg['reshape_activations']} of the attention heads; the activations are of a whole hook"
        )
    return cfg


def is_scaled(cfg: dict[str, Any]) -> bool:
    """Whether the SAE expects activations times s, and s is not in its weights."""
    return cfg.get("normalize_activations") == AVERAGE


def read_tensors(path: Path, cfg: dict[str, Any]) -> Tensors:
    """The weights, float32 on the CPU. Raises UserError where the file cannot be read or is not the SAE that cfg says."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"sae.from: {path} cannot be read: {error}") from None
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise UserError(f"sae.from: {path} has a finetuning scaling factor, which is not computed here")
    return checked({_NAMES.get(name, name): tensor.float() for name, tensor in tensors.items()}, cfg, path)


def checked(tensors: Tensors, cfg: dict[str, Any], path: Path) -> Tensors:
    """The same tensors. Raises UserError where one is not there, not finite, or of another shape than cfg says."""
    architecture, d_in, d_sae = _architecture(cfg), cfg.get("d_in"), cfg.get("d_sae")
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,), "topk_threshold": ()}
    for name in NEEDED[architecture]:
        tensor = tensors.get(name)
        if tensor is None:
            raise UserError(f"sae.from: {path} has no {name}, which an SAE of architecture {architecture} has")
        if tuple(tensor.shape) != shapes.get(name, (d_sae,)):
            raise UserError(
                f"sae.from: {name} in {path} is {list(tensor.shape)}; cfg.json beside it says d_in {d_in}, d_sae {d_sae}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"sae.from: {name} in {path} holds values that are not finite")
    return tensors


def convert(cfg: dict[str, Any], tensors: Tensors, scale: float = 1.0) -> Encoder:
    """The SAE as an Encoder that reads unscaled activations.

    cfg: of `settings_of`. tensors: of `read_tensors`. scale: s, 1 where the SAE expects none.
    """
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale {scale}")
    architecture = _architecture(cfg)
    W_enc, W_dec, b_dec = tensors["W_enc"] * scale, tensors["W_dec"] / scale, tensors["b_dec"] / scale
    threshold: torch.Tensor | None = None
    if architecture == "gated":
        gain = tensors["r_mag"].exp()
        W_enc, b_enc = W_enc * gain, tensors["b_mag"]
        threshold = tensors["b_mag"] - gain * tensors["b_gate"]
    else:
        b_enc = tensors["b_enc"]
    if cfg.get("rescale_acts_by_decoder_norm"):
        norm = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm.clamp(min=1e-8)[:, None]
    if architecture in BATCH_FAMILIES:  # its threshold is of h times the decoder's norm, which the scale divides
        least = float(tensors["topk_threshold"]) / (scale if cfg.get("rescale_acts_by_decoder_norm") else 1.0)
        threshold = torch.full_like(b_enc, least)
    elif architecture == "jumprelu":
        threshold = tensors["threshold"]
    elif architecture == "standard":
        threshold = torch.zeros_like(b_enc)
    return Encoder(
        architecture="topk" if architecture == "topk" else "jumprelu",
        W_enc=W_enc.contiguous().clone(),
        b_enc=b_enc.clone(),
        W_dec=W_dec.contiguous().clone(),
        b_dec=b_dec.clone(),
        k=min(int(cfg.get("k", 0)), len(W_dec)) if architecture == "topk" else 0,
        # a negative threshold lets no negative activation through: SAELens rectifies first
        threshold=None if threshold is None else threshold.clamp(min=0).clone(),
        center=bool(cfg.get("apply_b_dec_to_input", True)),
    )


def _architecture(cfg: dict[str, Any]) -> str:
    if cfg.get("activation_fn_str") == "topk" or cfg.get("activation_fn") == "topk":  # SAELens 5
        return "topk"
    return str(cfg.get("architecture", "standard"))


def said_dtype(cfg: dict[str, Any]) -> str:
    """dtype that the SAE's authors computed in."""
    return str(metadata_of(cfg).get("dtype") or "float32").removeprefix("torch.")
