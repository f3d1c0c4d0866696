"""scGPT through its own package's TransformerModel, behind the same interface.

Of the package, `scgpt/model/model.py` alone is imported, under a name of its own: `import scgpt` needs torchtext, whose compiled library
does not load with today's torch. The package runs flash-attn 1 on CUDA or torch's TransformerEncoder. Here it runs torch's, with the
weights of flash-attn's layers renamed, as its `load_pretrained` does.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.editing import Paused
from sae_genomics.models.scgpt.base import Outputs, ScgptModel
from sae_genomics.models.scgpt.folder import ScgptFolder
from sae_genomics.models.scgpt.weights import read_checkpoint
from sae_genomics.tokens import Tokens

_ALONE = "sae_genomics_scgpt_model"  # what `scgpt.model` is imported as


class ReferenceScgpt(ScgptModel):
    """An scGPT checkpoint in the package's own model."""

    def __init__(self, folder: ScgptFolder, info: ModelInfo, device: torch.device, dtype: torch.dtype):
        self.info, self.folder, self.device, self.dtype = info, folder, device, dtype
        self.model = _build(folder).to(device=device, dtype=dtype).eval().requires_grad_(False)

    @torch.inference_mode()
    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        padded, real = self._padded(batch, None)

        def keep(layer: int, x: Tensor) -> None:
            found[layer] = x[real]

        with self._listening(hook, dict.fromkeys(layers, keep)):
            self.model._encode(*padded)
        return {layer: found[layer] for layer in layers}

    @torch.inference_mode()
    def outputs(
        self,
        batch: Tokens,
        *,
        masked: npt.NDArray[np.bool_] | None = None,
        hook: str = "resid_post",
        interventions: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Outputs:
        changes = interventions or {}
        padded, real = self._padded(batch, masked)

        def change(layer: int, x: Tensor) -> Tensor:
            changed = x.clone()
            changed[real] = changes[layer](x[real])
            return changed

        has_mvc = hasattr(self.model, "mvc_decoder")
        with self._listening(hook, dict.fromkeys(changes, change)):
            found = self.model(*padded, MVC=has_mvc)
        return Outputs(found["cell_emb"], found["mlm_output"][real], found["mvc_output"][real] if has_mvc else None)

    def pause(self, batch: Tokens, layer: int, hook: str, hidden: npt.NDArray[np.bool_] | None = None) -> Paused:
        raise UserError("model.backend: reference cannot be edited; set model.backend to native")

    def _padded(
        self, batch: Tokens, hidden: npt.NDArray[np.bool_] | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Genes, values and padding mask, each [cells, longest], and which positions are tokens."""
        lengths = torch.from_numpy(batch.lengths).to(self.device)
        real = torch.arange(int(batch.lengths.max()), device=self.device) < lengths[:, None]
        settings = self.folder.tokeniser
        gene = torch.full(real.shape, settings.pad_id, device=self.device)
        gene[real] = torch.from_numpy(np.ascontiguousarray(batch.token)).to(self.device).long()
        value = torch.full(real.shape, settings.pad_value, device=self.device, dtype=self.dtype)
        value[real] = torch.from_numpy(self.values(batch, hidden)).to(value)
        return (gene, value, ~real), real

    @contextmanager
    def _listening(self, hook: str, listeners: Mapping[int, Callable[[int, Tensor], Tensor | None]]) -> Iterator[None]:
        """With torch's layers computed step by step: their fused path calls no hook of a part."""
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
            for layer, listener in listeners.items():
                block: Any = self.model.transformer_encoder.layers[layer]
                module: nn.Module = {"resid_post": block, "mlp_out": block.linear2, "attn_out": block.self_attn}[hook]
                stack.callback(module.register_forward_hook(partial(_relay, listener, layer)).remove)
            yield


def _relay(listener: Callable[[int, Tensor], Tensor | None], layer: int, module: Any, inputs: Any, output: Any) -> Any:
    if not isinstance(output, tuple):
        return listener(layer, output)
    changed = listener(layer, output[0])
    return None if changed is None else (changed, *output[1:])


def _build(folder: ScgptFolder) -> Any:
    """The package's model with the checkpoint's weights; heads that the embedding does not need are as they were made."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.shape.pre_norm:
        raise UserError(
            "scGPT's package computes pre_norm with flash-attn alone, which model.backend: reference does not use; set model.backend: native"
        )
    package = package_model()
    model = package.TransformerModel(
        ntoken=folder.vocab_size, d_model=folder.d_model, nhead=folder.n_heads, d_hid=folder.d_mlp, nlayers=folder.n_layers,
        vocab={"<pad>": folder.tokeniser.pad_id}, pad_token="<pad>", do_mvc=checkpoint.shape.has_mvc, use_fast_transformer=False,
    )  # fmt: skip
    weights = {name.replace("Wqkv.", "in_proj_"): tensor for name, tensor in checkpoint.tensors.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.startswith("cls_decoder.")]
    if missing or unexpected:
        raise UserError(f"{folder.folder}: the scgpt package's model has other tensors ({[*missing, *unexpected][0]})")
    return model


def package_model() -> Any:
    """The module `scgpt.model.model` of the installed package. Raises UserError where it is not installed."""
    spec = find_spec("scgpt")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "model.backend: reference needs the scgpt package; install it with pip install --no-deps scgpt==0.2.4, or set model.backend: native"
        )
    if _ALONE not in sys.modules:
        alone = types.ModuleType(_ALONE)
        alone.__path__ = [str(Path(spec.submodule_search_locations[0]) / "model")]
        sys.modules[_ALONE] = alone
    try:
        with warnings.catch_warnings():  # it says at import that flash-attn is not there
            warnings.simplefilter("ignore")
            return importlib.import_module(f"{_ALONE}.model")
    except ImportError as error:
        raise UserError(
            f"model.backend: reference: the scgpt package's model cannot be imported ({error}); set model.backend: native"
        ) from None
