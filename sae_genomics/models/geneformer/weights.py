"""Geneformer's checkpoint into transformers' own BertForMaskedLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_genomics.models.geneformer.folder import GeneformerFolder
from sae_genomics.models.transformers_weights import compare_shapes, expected_shapes, load, network_config, untrained

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

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
    from transformers import BertConfig, BertForMaskedLM

    check_shapes(folder)
    config = network_config(BertConfig, folder)
    loaded: BertForMaskedLM = load(
        BertForMaskedLM, folder, lambda name: name.startswith(_HEAD) and not folder.has_head,
        config=config, dtype=dtype, attn_implementation=attention,
    )  # fmt: skip
    return loaded


def why_no_loss(folder: GeneformerFolder, name: str) -> str:
    """Why the checkpoint cannot predict genes; empty where it can."""
    if folder.has_head:
        return ""
    return (
        f"{name} has no head, so its masked loss cannot be measured; save it from BertForMaskedLM rather than BertModel"
    )


def random_network(folder: GeneformerFolder, dtype: torch.dtype, seed: int) -> BertForMaskedLM:
    """The same shape with the weights that BertForMaskedLM begins training with; a seed means the same ones on every device."""
    from transformers import BertConfig, BertForMaskedLM

    network: Any = untrained(seed, lambda: BertForMaskedLM(network_config(BertConfig, folder)))
    return network.to(dtype).eval()  # type: ignore[no-any-return]


def check_shapes(folder: GeneformerFolder) -> None:
    """Compare the headers of the weight files with config.json; reads no weights.

    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model.
    """
    from transformers import BertConfig, BertForMaskedLM

    config = network_config(BertConfig, folder)

    def may_lack(name: str) -> bool:
        if name.startswith(_HEAD) and not folder.has_head:
            return True
        # the same as the embedding, and as cls.predictions.bias
        return config.tie_word_embeddings and name.startswith("cls.predictions.decoder.")

    expected = expected_shapes(lambda: BertForMaskedLM(config))
    compare_shapes(folder, expected, may_lack=may_lack, ours=_OURS, may_be_there=_MAY_BE_THERE)
