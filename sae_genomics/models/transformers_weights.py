"""A checkpoint of an encoder into transformers' own class: with the weights of the files, with random ones, or compared with the files alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from sae_genomics.errors import UserError
from sae_genomics.models.transformers_quiet import quiet, reason_of

_NOT_OF_THE_NETWORK = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}


class EncoderFolder(Protocol):
    """A model folder whose config and headers have been read."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    @property
    def config(self) -> dict[str, Any]:
        """config.json, checked."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, under the names of the class with a head."""


def network_config(kind: Any, folder: EncoderFolder) -> Any:
    """transformers' config object. kind: its class, such as BertConfig."""
    return kind(**{key: value for key, value in folder.config.items() if key not in _NOT_OF_THE_NETWORK})


def load(kind: Any, folder: EncoderFolder, may_lack: Callable[[str], bool], **how: Any) -> Any:
    """The network with the checkpoint's weights, in evaluation mode, on the CPU.

    kind: transformers' class of it. may_lack: whether the files may lack a tensor, which then has random weights. how: further
    arguments of `from_pretrained`. Raises UserError when a file's content cannot be read, or lacks another tensor.
    """
    with loading(folder.folder):
        network, report = kind.from_pretrained(
            str(folder.folder), use_safetensors=True, local_files_only=True, output_loading_info=True,
            ignore_mismatched_sizes=False, **how,
        )  # fmt: skip
    missing = sorted(name for name in report["missing_keys"] if not may_lack(name))
    if missing:
        raise UserError(f"model folder {folder.folder} has no tensor {missing[0]}; copy or download it again")
    return network.eval()


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Within it, transformers is quiet, and what it raises about a model folder is a UserError."""
    with quiet():
        try:
            yield
        except (UserError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of many kinds, of several packages: a config or a file that they cannot use
            raise UserError(
                f"model folder {folder} cannot be loaded ({reason_of(error)}); copy or download it again"
            ) from None


def untrained(seed: int, make: Callable[[], Any]) -> Any:
    """A new network of transformers with the weights that it begins training with; a seed means the same ones on every device."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        return make()


def expected_shapes(make: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a new network, for which no memory is taken."""
    with torch.device("meta"), quiet():
        network = make()
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def compare_shapes(
    folder: EncoderFolder,
    expected: dict[str, tuple[int, ...]],
    *,
    may_lack: Callable[[str], bool],
    ours: tuple[str, ...],
    may_be_there: tuple[str, ...],
) -> None:
    """Compare the headers of the weight files with the shapes that a network of its config has; reads no weights.

    may_lack: whether the files may lack a tensor. ours: prefixes of the tensors of the network; those of others are not looked at.
    may_be_there: prefixes of tensors that are not read, whether the files have them or not.
    Raises UserError naming the first tensor that is missing, has another shape, or has no place in the model.
    """
    ask = f"is {folder.folder / 'config.json'} its own?"
    extra = sorted(
        name for name in folder.shapes
        if name.startswith(ours) and name not in expected and not name.startswith(may_be_there)
    )  # fmt: skip
    if extra:
        raise UserError(f"model folder {folder.folder}: tensor {extra[0]} has no place in its config; {ask}")
    for name, shape in expected.items():
        found = folder.shapes.get(name)
        if found is None:
            if may_lack(name):
                continue
            raise UserError(f"model folder {folder.folder} has no tensor {name}, which its config asks for; {ask}")
        if found != shape:
            raise UserError(
                f"model folder {folder.folder}: tensor {name} has shape {list(found)}, its config says {list(shape)}; {ask}"
            )
