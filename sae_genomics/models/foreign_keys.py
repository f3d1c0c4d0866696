"""Keys of the config's section `model` that only some families read. Another family refuses them, because it would ignore them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.errors import UserError

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

_READ_BY = {
    "backend": ("tx1", "geneformer", "scgpt"),
    "compile": ("tx1",),
    "drug_key": ("tx1",),
    "hook_modules": ("huggingface",),
}


def refuse_other_families_keys(model: ModelConfig, family: str) -> None:
    """Raise UserError for a key that is set and that `family` does not read."""
    for key, families in _READ_BY.items():
        if family not in families and getattr(model, key) != type(model).model_fields[key].default:
            raise UserError(f"model.{key} is for model.family {_listed(families)}, not for {family}; leave it out")


def _listed(families: tuple[str, ...]) -> str:
    *others, last = families
    return f"{', '.join(others)} and {last}" if others else last
