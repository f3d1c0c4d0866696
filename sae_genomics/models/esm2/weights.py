"""ESM2's checkpoint into transformers' own EsmForMaskedLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_genomics.models.esm2.folder import Esm2Folder
from sae_genomics.models.transformers_weights import compare_shapes, expected_shapes, load, network_config, untrained

if TYPE_CHECKING:
    from transformers import EsmForMaskedLM

_HEAD = "lm_head."
_OPTIONAL = (_HEAD, "esm.contact_head.", "esm.pooler.", "esm.rotary_embeddings.")
_OURS = ("esm.embeddings.", "esm.encoder.", _HEAD)
# models with rotary positions were saved with a table of positions, and do not read it
_MAY_BE_THERE = ("lm_head.decoder.", "esm.embeddings.position_ids", "esm.embeddings.position_embeddings.weight")


def load_network(folder: Esm2Folder, dtype: torch.dtype) -> EsmForMaskedLM:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU. Without a head in the file it has random weights
    there, and must not be asked.

    Raises UserError as `check_shapes` does, and when a file's content cannot be read.
    """
    from transformers import EsmConfig, EsmForMaskedLM

    check_shapes(folder)
    config = network_config(EsmConfig, folder)
    loaded: EsmForMaskedLM = load(
        EsmForMaskedLM, folder, lambda name: name.startswith(_OPTIONAL), config=config, dtype=dtype
    )
    return loaded


def random_network(folder: Esm2Folder, dtype: torch.dtype, seed: int) -> EsmForMaskedLM:
    """The same shape with the weights that EsmForMaskedLM begins training with; a seed means the same ones on every device."""
    from transformers import EsmConfig, EsmForMaskedLM

    network: Any = untrained(seed, lambda: EsmForMaskedLM(network_config(EsmConfig, folder)))
    rotary = network.esm.rotary_embeddings
    inv_freq = None if rotary is None else rotary.inv_freq.clone()
    network.to(dtype)
    if rotary is not None:  # as from_pretrained leaves it: angles of far positions need the precision
        rotary.inv_freq = inv_freq
    return network.eval()  # type: ignore[no-any-return]


def check_shapes(folder: Esm2Folder) -> None:
    """Compare the headers of the weight files with config.json; reads no weights.

    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model.
    """
    from transformers import EsmConfig, EsmForMaskedLM

    config = network_config(EsmConfig, folder)
    expected = expected_shapes(lambda: EsmForMaskedLM(config))
    if config.tie_word_embeddings:
        expected.pop("lm_head.decoder.weight", None)

    def may_lack(name: str) -> bool:
        return name.startswith(_OPTIONAL) and not (name.startswith(_HEAD) and folder.has_head)

    compare_shapes(folder, expected, may_lack=may_lack, ours=_OURS, may_be_there=_MAY_BE_THERE)
