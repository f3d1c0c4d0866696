"""SAEs as SAELens itself writes them, of every architecture that `sae.from` takes, with weights that reproduce planted rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata

ARCHITECTURES = (
    "standard", "topk", "topk_rescaled", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk", "not_centred",
)  # fmt: skip


def planted_weights(directions: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """W_enc, W_dec, b_enc, b_dec that read and write known directions; decoder rows of any norm."""
    generator = torch.Generator().manual_seed(seed)
    d_sae, d_in = directions.shape
    norm = 0.5 + torch.rand(d_sae, 1, generator=generator)
    return {
        "W_enc": (torch.linalg.pinv(directions.double()).float() / norm.T).contiguous(),
        "W_dec": (directions * norm).contiguous(),
        "b_enc": 0.05 * torch.randn(d_sae, generator=generator),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
    }


def saved(folder: Path, architecture: str, weights: dict[str, torch.Tensor], k: int = 4, **settings: Any) -> Any:
    """Write the SAE as SAELens does; returns SAELens' own SAE for inference.

    settings: of its config; `metadata` holds what it says of its model and hook.
    """
    metadata = SAEMetadata(**settings.pop("metadata", {}))
    d_in, d_sae = weights["W_enc"].shape
    common = {"d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu", "metadata": metadata, **settings}
    extra: dict[str, torch.Tensor] = {}
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        return _batch(folder, architecture, weights, k, common)
    if architecture in ("topk", "topk_rescaled"):
        config: Any = sae_lens.TopKSAEConfig(
            **common, k=k, rescale_acts_by_decoder_norm=architecture == "topk_rescaled"
        )
        sae: Any = sae_lens.TopKSAE(config)
    elif architecture == "jumprelu":
        sae = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(**common))
        extra = {"threshold": torch.linspace(-0.2, 1.0, d_sae)}  # a negative one lets nothing negative through
    elif architecture == "gated":
        sae = sae_lens.GatedSAE(sae_lens.GatedSAEConfig(**common))
        weights = {name: tensor for name, tensor in weights.items() if name != "b_enc"}
        generator = torch.Generator().manual_seed(5)
        for name in ("b_gate", "b_mag", "r_mag"):
            extra[name] = 0.3 * torch.randn(d_sae, generator=generator)
    else:
        apply = architecture != "not_centred"
        sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(**common, apply_b_dec_to_input=apply))
    sae.load_state_dict({**weights, **extra})
    sae.save_model(folder)
    return sae


def _batch(folder: Path, architecture: str, weights: dict[str, torch.Tensor], k: int, common: dict[str, Any]) -> Any:
    """A checkpoint of training, which is the only form that SAELens has of these; its inference form is what it makes itself."""
    if architecture == "batchtopk":
        sae: Any = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**common, k=k))
    else:
        widths = [common["d_sae"] // 2, common["d_sae"]]
        sae = sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(**common, k=k, matryoshka_widths=widths)
        )
    sae.load_state_dict({**weights, "topk_threshold": torch.tensor(0.7, dtype=torch.double)})
    sae.save_model(folder)
    sae.save_inference_model(folder / "inference")
    found = sae_lens.SAE.load_from_disk(folder / "inference")
    for path in (folder / "inference").iterdir():
        path.unlink()
    (folder / "inference").rmdir()
    return found
