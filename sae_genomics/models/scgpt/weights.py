"""scGPT's best_model.pt: reading its tensors, checking them against args.json, and giving them to the network.

The file is a torch.save of a state dict. It is read with `weights_only=True`, which makes tensors and plain containers, and runs no code.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sae_genomics.errors import UserError
from sae_genomics.models.scgpt.folder import ARGS, WEIGHTS, ScgptFolder
from sae_genomics.models.scgpt.network import ScgptNetwork, Shape

_WRAPPERS = ("module.", "_orig_mod.")  # which DistributedDataParallel and torch.compile put before every name
_TORCH_LAYOUT, _FLASH_LAYOUT = "self_attn.in_proj_", "self_attn.Wqkv."
# Parts of scGPT's classes that no activation and no prediction here depends on: the classifier of cells, the discriminator of batches,
# the probabilities of a zero, and the flag that pretraining adds to genes whose value is to be generated.
_NOT_NEEDED = re.compile(
    r"cls_decoder\.(_decoder\.\d+|out_layer)\.(weight|bias)|grad_reverse_discriminator\.(_decoder\.\d+|out_layer)\.(weight|bias)"
    r"|decoder\.zero_logit\.[024]\.(weight|bias)|mvc_decoder\.W_zero_logit\.(weight|bias)|flag_encoder\.weight"
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of the file under the names of the network, and the shape of the network that they are of."""

    tensors: dict[str, Tensor]
    """Only those that the network has. Their content may still be on disk."""
    shape: Shape
    is_flash: bool
    """Whether the attention layers are those for flash-attn (`Wqkv`) rather than torch's (`in_proj_`)."""


def read_checkpoint(folder: ScgptFolder) -> Checkpoint:
    """The tensors, checked. Weights are mapped, not read, where the file's format allows it.

    Raises UserError naming all tensors that are missing or that have no place in the model, or the first of another shape.
    """
    path = folder.folder / WEIGHTS
    found = _without_wrappers(_load(path))
    is_flash = any(_FLASH_LAYOUT in name for name in found)
    if is_flash and any(_TORCH_LAYOUT in name for name in found):
        raise UserError(f"{path} has attention layers of both layouts, Wqkv and in_proj_; copy or download it again")
    found = {name.replace(_TORCH_LAYOUT, _FLASH_LAYOUT): tensor for name, tensor in found.items()}
    shape = Shape(
        folder.vocab_size, folder.d_model, folder.n_layers, folder.n_heads, folder.d_mlp,
        pre_norm=folder.pre_norm and is_flash, has_mvc=any(name.startswith("mvc_decoder.") for name in found),
    )  # fmt: skip
    with torch.device("meta"):
        expected = ScgptNetwork(shape).state_dict()
    _check(path, found, expected, is_flash)
    return Checkpoint({name: found[name] for name in expected}, shape, is_flash)


def load_network(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> ScgptNetwork:
    """The network with the checkpoint's weights, in evaluation mode."""
    with torch.device("meta"):
        network = ScgptNetwork(checkpoint.shape)
    # a copy, so that no weight depends on the file once the model is loaded
    weights = {name: tensor.to(device=device, dtype=dtype, copy=True) for name, tensor in checkpoint.tensors.items()}
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def random_network(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, seed: int) -> ScgptNetwork:
    """The same shape with the weights that scGPT's training begins with; a seed means the same ones on every device.

    Those are torch's own for each layer, embeddings uniform in -0.1 to 0.1 (`init_weights`), torch's attention layer Xavier-uniform with
    zero biases. All blocks begin as copies of the first, because `nn.TransformerEncoder` clones the layer that it is given.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ScgptNetwork(checkpoint.shape)
        nn.init.uniform_(network.encoder.embedding.weight, -0.1, 0.1)
        attention = network.blocks[0].self_attn
        if not checkpoint.is_flash:
            nn.init.xavier_uniform_(attention.Wqkv.weight)  # type: ignore[union-attr, arg-type]
            nn.init.zeros_(attention.Wqkv.bias)  # type: ignore[union-attr, arg-type]
            nn.init.zeros_(attention.out_proj.bias)  # type: ignore[union-attr, arg-type]
    for block in list(network.blocks)[1:]:
        block.load_state_dict(network.blocks[0].state_dict())
    return network.to(device=device, dtype=dtype).eval().requires_grad_(False)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        try:
            found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError:
            raise UserError(
                f"{path} holds more than tensors, and reading it could run code; save it again, where you trust it, with "
                f"torch.save(model.state_dict(), {WEIGHTS!r})"
            ) from None
    except UserError:
        raise
    except (
        Exception
    ) as error:  # whatever a damaged file does to the reader: RuntimeError, EOFError, KeyError, IndexError ...
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is truncated or was not made by torch.save ({reason}); copy or download it again"
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()) or not found:
        raise UserError(
            f"{path} should be the state dict of a model; save it with torch.save(model.state_dict(), {WEIGHTS!r})"
        )
    return dict(found)


def _without_wrappers(found: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in range(4):
        for prefix in _WRAPPERS:
            if all(name.startswith(prefix) for name in found):
                found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _check(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], is_flash: bool) -> None:
    def spelt(names: list[str]) -> str:
        if not is_flash:
            names = [name.replace(_FLASH_LAYOUT, _TORCH_LAYOUT) for name in names]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    missing = [name for name in expected if name not in found]
    extra = sorted(name for name in found if name not in expected and not _NOT_NEEDED.fullmatch(name))
    faults = [f"lacks {spelt(missing)}"] if missing else []
    faults += [f"has {spelt(extra)}, for which the model has no place"] if extra else []
    if faults:
        raise UserError(f"{path} {' and '.join(faults)}; is {path.parent / ARGS} its own?")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor {spelt([name])} has shape {list(found[name].shape)}, args.json and vocab.json say "
                f"{list(tensor.shape)}; are they its own?"
            )
