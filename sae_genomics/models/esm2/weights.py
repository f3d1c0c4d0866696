"""ESM2's checkpoint into transformers' own EsmForMaskedLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_genomics.errors import UserError
from sae_genomics.models.esm2.folder import Esm2Folder
from sae_genomics.models.transformers_folder import quiet

if TYPE_CHECKING:
    from transformers import EsmConfig, EsmForMaskedLM

_OPTIONAL = ("lm_head.", "esm.contact_head.", "esm.pooler.", "esm.rotary_embeddings.")
_OURS = ("esm.embeddings.", "esm.encoder.", "lm_head.")


def load_network(folder: Esm2Folder, dtype: torch.dtype) -> EsmForMaskedLM:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU. Without a head in the file it has random weights
    there, and must not be asked.

    Raises UserError as `check_shapes` does, and when a file's content cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import EsmForMaskedLM

    check_shapes(folder)
    with quiet():
        try:
            loaded: Any = EsmForMaskedLM.from_pretrained(
                str(folder.folder), config=network_config(folder), dtype=dtype, use_safetensors=True,
                local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=False,
            )  # fmt: skip
        except (SafetensorError, OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"model folder {folder.folder} cannot be loaded ({reason}); copy or download it again"
            ) from None
    network, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_OPTIONAL))
    if missing:
        raise UserError(f"model folder {folder.folder} has no tensor {missing[0]}; copy or download it again")
    network.eval()
    return network  # type: ignore[no-any-return]


def random_network(folder: Esm2Folder, dtype: torch.dtype, seed: int) -> EsmForMaskedLM:
    """The same shape with the weights that EsmForMaskedLM begins training with; a seed means the same ones on every device."""
    from transformers import EsmForMaskedLM

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        network: Any = EsmForMaskedLM(network_config(folder))
    rotary = network.esm.rotary_embeddings
    inv_freq = None if rotary is None else rotary.inv_freq.clone()
    network.to(dtype)
    if rotary is not None:  # as from_pretrained leaves it: angles of far positions need the precision
        rotary.inv_freq = inv_freq
    network.eval()
    return network  # type: ignore[no-any-return]


def network_config(folder: Esm2Folder) -> EsmConfig:
    """transformers' config object."""
    from transformers import EsmConfig

    own = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}
    return EsmConfig(**{key: value for key, value in folder.config.items() if key not in own})


def check_shapes(folder: Esm2Folder) -> None:
    """Compare the headers of the weight files with config.json; reads no weights.

    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model.
    """
    from transformers import EsmForMaskedLM

    with torch.device("meta"), quiet():
        network = EsmForMaskedLM(network_config(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if network.config.tie_word_embeddings:
        expected.pop("lm_head.decoder.weight", None)
    ask = f"is {folder.folder / 'config.json'} its own?"
    allowed = {*expected, "lm_head.decoder.weight", "lm_head.decoder.bias", "esm.embeddings.position_ids"}
    allowed.add(
        "esm.embeddings.position_embeddings.weight"
    )  # which models with rotary positions were saved with, and do not read
    extra = sorted(name for name in folder.shapes if name.startswith(_OURS) and name not in allowed)
    if extra:
        raise UserError(f"model folder {folder.folder}: tensor {extra[0]} has no place in its config; {ask}")
    for name, shape in expected.items():
        found = folder.shapes.get(name)
        if found is None:
            if name.startswith(_OPTIONAL) and not (name.startswith("lm_head.") and folder.has_head):
                continue
            raise UserError(f"model folder {folder.folder} has no tensor {name}, which its config asks for; {ask}")
        if found != shape:
            raise UserError(
                f"model folder {folder.folder}: tensor {name} has shape {list(found)}, its config says {list(shape)}; {ask}"
            )
