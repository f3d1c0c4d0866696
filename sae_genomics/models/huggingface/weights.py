"""A language model's checkpoint into transformers' own AutoModelForCausalLM. Safetensors files alone are read, and no code of a repository is run."""

from __future__ import annotations

from typing import Any

import torch

from sae_genomics.errors import UserError
from sae_genomics.models.huggingface.attention import NAME, register
from sae_genomics.models.huggingface.folder import TextFolder, own_config
from sae_genomics.models.transformers_weights import loading, untrained

# Masks and angles that earlier versions of transformers saved among the weights; today's modules compute them
_OLD_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")


def load_network(folder: TextFolder, dtype: torch.dtype) -> tuple[Any, bool]:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU; and whether the checkpoint has a head.

    Raises UserError as `check_shapes` does, and when a file's content cannot be read.
    """
    network, missing = _loaded(folder, dtype=dtype)
    return _ready(network, folder), not missing


def random_network(folder: TextFolder, dtype: torch.dtype, seed: int) -> Any:
    """The same shape with the weights that transformers begins training with; a seed means the same ones on every device and in every dtype."""
    from transformers import AutoModelForCausalLM

    config = own_config(folder.folder)
    network: Any = untrained(
        seed, lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32, **_attention(folder))
    )
    for parameter in network.parameters():  # buffers stay as from_pretrained leaves them: angles need the precision
        parameter.data = parameter.data.to(dtype)
    return _ready(network, folder)


def check_shapes(folder: TextFolder) -> bool:
    """Compare the headers of the weight files with config.json, by transformers' own rules of names; reads no weights. Returns whether
    the checkpoint has a head.

    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model, and the first hook whose
    module is not there.
    """
    network, missing = _loaded(folder, device_map="meta")
    for layer in range(folder.numbers["num_hidden_layers"]):
        for hook in folder.architecture.hooks:
            folder.architecture.find(network, hook, layer)
    return not missing


def _loaded(folder: TextFolder, **how: Any) -> tuple[Any, list[str]]:
    """transformers' model, and the names of its head's tensors that the checkpoint lacks."""
    from transformers import AutoModelForCausalLM

    _ = folder.shapes  # a damaged or missing file is told of in one line
    config = own_config(folder.folder)
    with loading(folder.folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder.folder), config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True, ignore_mismatched_sizes=True, **_attention(folder), **how,
        )  # fmt: skip
    network, report = loaded
    _refuse_another_shape(folder, network, report)
    heads = [name for name, module in network.named_modules() if module is network.get_output_embeddings()]
    missing = sorted(report["missing_keys"])
    of_head = [name for name in missing if any(name.startswith(f"{head}.") for head in heads)]
    below = [name for name in missing if name not in of_head]
    if below:
        raise UserError(
            f"model folder {folder.folder} has no tensor {below[0]}, which its config asks for; is its config.json its own?"
        )
    return network, of_head


def _refuse_another_shape(folder: TextFolder, network: Any, report: Any) -> None:
    ask = f"is {folder.folder / 'config.json'} its own?"
    mismatched = sorted(report["mismatched_keys"], key=str)
    if mismatched:
        name, found, expected = mismatched[0]
        raise UserError(
            f"model folder {folder.folder}: tensor {name} has shape {list(found)}, its config says {list(expected)}; {ask}"
        )
    prefix = f"{network.base_model_prefix}."
    own = {name.split(".")[0] for name, _ in network.base_model.named_children()}
    unexpected = (name for name in report["unexpected_keys"] if not name.endswith(_OLD_BUFFERS))
    extra = sorted(name for name in unexpected if name.startswith(prefix) or name.split(".")[0] in own)
    if extra:
        raise UserError(f"model folder {folder.folder}: tensor {extra[0]} has no place in its config; {ask}")


def _attention(folder: TextFolder) -> dict[str, str]:
    if not folder.architecture.packed:
        return {}
    register()
    return {"attn_implementation": NAME}


def _ready(network: Any, folder: TextFolder) -> Any:
    for path in folder.architecture.drop:
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, None)
    return network.eval().requires_grad_(False)
