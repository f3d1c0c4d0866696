"""Tahoe-x1 through its own package (tahoe-x1 with llm-foundry and composer), behind the same interface.

With CUDA, flash-attn and a 16-bit compute dtype the package runs as it is. Everywhere else two pieces of tahoe-x1 1.0.0
do not run: the encoder asks flash-attn for padding information even when attention is plain, and its masked path builds
a bias of five dimensions. There the encoder's forward is replaced by what the flash path computes: every token sees
every token of its cell that is not padding. docs/parity.md compares both backends.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import tensor_shapes
from sae_genomics.models.editing import Paused
from sae_genomics.models.tx1_config import PREFIX, Release
from sae_genomics.models.tx1_model import Outputs, Tx1Model
from sae_genomics.tokens import Tokens


class _DeepEnough(Exception):
    """The deepest wanted layer has been computed."""


class ReferenceTx1(Tx1Model):
    """A Tahoe-x1 checkpoint in the package's own model."""

    def __init__(self, release: Release, info: ModelInfo, device: torch.device, dtype: torch.dtype):
        self.info = info
        self.vocab = release.vocab
        self.special_ids = release.special_ids
        self.drug_ids = release.drug_ids
        self.tokeniser = release.tokeniser
        self.device, self.dtype = device, dtype
        flash = device.type == "cuda" and dtype != torch.float32 and find_spec("flash_attn") is not None
        self.model = _build(release, flash).to(device).eval().requires_grad_(False)
        if not flash:
            encoder = self.model.model.transformer_encoder
            encoder.forward = types.MethodType(
                partial(_plain_encoder, mask_generated=release.config.mask_generated), encoder
            )

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        padding = _Padding(batch, self.device)

        def keep(layer: int, x: Tensor) -> None:
            found[layer] = padding.pack(x)
            if len(found) == len(set(layers)):
                raise _DeepEnough

        with self._listening(hook, dict.fromkeys(layers, keep)), self._autocast(), suppress(_DeepEnough):
            self.model(self._batch(batch, padding, None), skip_decoders=True)
        return {layer: found[layer].to(self.dtype) for layer in layers}

    @torch.inference_mode()
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        padding = _Padding(batch, self.device)
        changes = interventions or {}

        def change(layer: int, x: Tensor) -> Tensor:
            return padding.pad(changes[layer](padding.pack(x)))

        with self._listening(hook, dict.fromkeys(changes, change)), self._autocast():
            found = self.model(self._batch(batch, padding, masked), skip_decoders=False)
        return Outputs(found["cell_emb"], padding.pack(found["expr_preds"]), padding.pack(found["mvc_output"]))

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        raise UserError("model.backend: reference cannot be edited; set model.backend to native")

    def _batch(self, batch: Tokens, padding: _Padding, masked: npt.NDArray[np.bool_] | None) -> dict[str, Tensor]:
        """The collated batch that the package's model takes."""
        hidden = np.zeros(len(batch), dtype=bool) if masked is None else masked
        value = np.where(hidden, np.float32(self.tokeniser.mask_value), batch.per_token["value"])
        collated = {
            "gene": padding.pad(torch.from_numpy(batch.token).long().to(self.device), self.tokeniser.pad_token_id),
            "expr": padding.pad(torch.from_numpy(value).to(self.device), self.tokeniser.pad_value),
            "gen_mask": padding.pad(torch.from_numpy(hidden).to(self.device), False),
        }
        if "drug" in batch.per_item:
            collated["drug_ids"] = torch.from_numpy(batch.per_item["drug"]).to(self.device)
        return collated

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextmanager
    def _listening(self, hook: str, listeners: Mapping[int, Callable[[int, Tensor], Tensor | None]]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, listener in listeners.items():
                block = self.model.model.transformer_encoder.layers[layer]
                handle = _module(block, hook).register_forward_hook(partial(_relay, listener, layer))
                stack.callback(handle.remove)
            yield


def _module(block: Any, hook: str) -> nn.Module:
    """The module whose output a hook names; attention's is a tuple that begins with it."""
    found: nn.Module = {"resid_post": block, "mlp_out": block.down_proj, "attn_out": block.self_attn}[hook]
    return found


def _relay(listener: Callable[[int, Tensor], Tensor | None], layer: int, module: Any, inputs: Any, output: Any) -> Any:
    if not isinstance(output, tuple):
        return listener(layer, output)
    changed = listener(layer, output[0])
    return None if changed is None else (changed, *output[1:])


class _Padding:
    """Between packed rows [T, …] and the padded batch [cells, longest, …]."""

    def __init__(self, batch: Tokens, device: torch.device):
        lengths = torch.from_numpy(batch.lengths).to(device)
        self.shape = (batch.n_items, int(batch.lengths.max()))
        self.real = torch.arange(self.shape[1], device=device) < lengths[:, None]

    def pad(self, rows: Tensor, fill: float | bool = 0) -> Tensor:
        padded = rows.new_full((*self.shape, *rows.shape[1:]), fill)
        padded[self.real] = rows
        return padded

    def pack(self, padded: Tensor) -> Tensor:
        return padded[self.real]


def _build(release: Release, flash: bool) -> Any:
    """The package's model with the release's weights."""
    try:
        from omegaconf import OmegaConf
        from tahoe_x1.model.model import ComposerTX
    except ImportError as error:
        raise UserError(
            f"model.backend: reference needs the tahoe-x1 package ({error}); install it with "
            "pip install -r requirements-tahoe.txt, use its container (docs/parity.md), or set model.backend: native"
        ) from None
    from safetensors.torch import load_file

    if release.config.extra_embeddings:
        raise UserError(
            "the tahoe-x1 package would fetch this model's gene embeddings from S3; set model.backend: native"
        )
    if not release.config.mvc:
        raise UserError("the tahoe-x1 package does not run a model without mvc; set model.backend: native")
    model_config = OmegaConf.load(release.folder / "model_config.yml")
    collator_config = OmegaConf.load(release.folder / "collator_config.yml")
    attention = dict(model_config.get("attn_config") or {"attn_type": "grouped_query_attention"})
    model_config["attn_config"] = {**attention, "attn_impl": "flash" if flash else "torch", "use_attn_mask": False}
    path = release.folder / "model.safetensors"
    if release.config.chem is None:
        collator_config["use_chem_token"] = False
        model_config.pop("chemical_encoder", None)
    else:
        # the fingerprints are in the checkpoint: no need for the file that training took them from
        model_config["chemical_encoder"].pop("drug_fps_path", None)
        drugs, width = tensor_shapes(path)[f"{PREFIX}chem_encoder.embedding.weight"]
        model_config["chemical_encoder"].update({"num_drugs": drugs, "fp_dim": width})
    model = ComposerTX(model_config=model_config, collator_config=collator_config)
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    unexpected = [name for name in unexpected if not name.startswith(f"{PREFIX}chem_encoder.")]
    if missing or unexpected:
        raise UserError(f"{path}: tensor {[*missing, *unexpected][0]} does not go with the model's config")
    return model


def _plain_encoder(
    encoder: Any, total_embs: Tensor, key_padding_mask: Tensor, gen_mask: Tensor, *, mask_generated: bool
) -> Tensor:
    """The encoder's forward with plain attention: padding is never seen, everything else is.

    mask_generated: tokens whose value is hidden are seen only by themselves.
    """
    seen = key_padding_mask[:, None, :]
    if mask_generated:
        itself = torch.eye(gen_mask.shape[1], dtype=torch.bool, device=gen_mask.device)
        seen = seen & (~gen_mask[:, None, :] | itself)
    bias = torch.zeros(seen.shape, dtype=total_embs.dtype, device=total_embs.device)
    bias = bias.masked_fill(~seen, torch.finfo(total_embs.dtype).min)[:, None]
    for layer in encoder.layers:
        total_embs = layer(total_embs, attn_bias=bias)
    return encoder.norm(total_embs) if encoder.use_norm else total_embs
