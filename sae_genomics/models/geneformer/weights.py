"""Geneformer's checkpoint into transformers' own BertForMaskedLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_genomics.errors import UserError
from sae_genomics.models.geneformer.folder import GeneformerFolder
from sae_genomics.models.transformers_folder import quiet

if TYPE_CHECKING:
    from transformers import BertConfig, BertForMaskedLM

LOSS_NAME = "cross-entropy of hidden genes, in nats"
_HEAD = "cls.predictions."
_OURS = ("bert.embeddings.", "bert.encoder.", _HEAD)
_MAY_BE_THERE = ("cls.predictions.decoder.", "bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


def load_network(folder: GeneformerFolder, dtype: torch.dtype, attention: str = "sdpa") -> BertForMaskedLM:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU. Without a head in the file it has random weights
    there, and must not be asked.

    attention: transformers' implementation, of a network that is run as it is.
    Raises UserError as `check_shapes` does, and when a file's content cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import BertForMaskedLM

    check_shapes(folder)
    with quiet():
        try:
            loaded: Any = BertForMaskedLM.from_pretrained(
                str(folder.folder), config=network_config(folder), dtype=dtype, use_safetensors=True,
                local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=False,
                attn_implementation=attention,
            )  # fmt: skip
        except (SafetensorError, OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"model folder {folder.folder} cannot be loaded ({reason}); copy or download it again"
            ) from None
    network, report = loaded
    missing = sorted(name for name in report["missing_keys"] if folder.has_head or not name.startswith(_HEAD))
    if missing:
        raise UserError(f"model folder {folder.folder} has no tensor {missing[0]}; copy or download it again")
    network.eval()
    return network  # type: ignore[no-any-return]


def why_no_loss(folder: GeneformerFolder, name: str) -> str:
    """Why the checkpoint cannot predict genes; empty where it can."""
    if folder.has_head:
        return ""
    return (
        f"{name} has no head, so its masked loss cannot be measured; save it from BertForMaskedLM rather than BertModel"
    )


def random_network(folder: GeneformerFolder, dtype: torch.dtype, seed: int) -> BertForMaskedLM:
    """The same shape with the weights that BertForMaskedLM begins training with; a seed means the same ones on every device."""
    from transformers import BertForMaskedLM

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        network: Any = BertForMaskedLM(network_config(folder))
    network.to(dtype)
    network.eval()
    return network  # type: ignore[no-any-return]


def network_config(folder: GeneformerFolder) -> BertConfig:
    """transformers' config object."""
    from transformers import BertConfig

    own = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}
    return BertConfig(**{key: value for key, value in folder.config.items() if key not in own})


def check_shapes(folder: GeneformerFolder) -> None:
    """Compare the headers of the weight files with config.json; reads no weights.

    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model.
    """
    from transformers import BertForMaskedLM

    with torch.device("meta"), quiet():
        network = BertForMaskedLM(network_config(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    ask = f"is {folder.folder / 'config.json'} its own?"
    extra = sorted(
        name for name in folder.shapes
        if name.startswith(_OURS) and name not in expected and not name.startswith(_MAY_BE_THERE)
    )  # fmt: skip
    if extra:
        raise UserError(f"model folder {folder.folder}: tensor {extra[0]} has no place in its config; {ask}")
    tied = network.config.tie_word_embeddings
    for name, shape in expected.items():
        found = folder.shapes.get(name)
        if found is None:
            if name.startswith(_HEAD) and not folder.has_head:
                continue
            if tied and name.startswith(
                "cls.predictions.decoder."
            ):  # the same as the embedding, and as cls.predictions.bias
                continue
            raise UserError(f"model folder {folder.folder} has no tensor {name}, which its config asks for; {ask}")
        if found != shape:
            raise UserError(
                f"model folder {folder.folder}: tensor {name} has shape {list(found)}, its config says {list(shape)}; {ask}"
            )
