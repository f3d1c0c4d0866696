"""Does a published SAE fit the activations of this run? What makes its features wrong is refused; what may matter is said.

Refused: another width, another hook or layer, and activations that are centred for one and not for the other. Said, because both sides can
be meant: another model's name, `<bos>` at the start of a sequence, the length of sequences, the dtype that its authors computed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_item_ptr, read_special_rows
from sae_genomics.errors import UserError
from sae_genomics.sae.published.convert import said_dtype
from sae_genomics.sae.published.sources import hook_of, metadata_of

if TYPE_CHECKING:
    from sae_genomics.activations.format.store import Header
    from sae_genomics.run import Run


@dataclass(frozen=True)
class Stored:
    """What the activations of a layer are. starts_special: whether the first item begins with a special token."""

    header: Header
    max_length: int
    starts_special: bool
    centred: bool


def stored_activations(run: Run, layer: int) -> Stored:
    """Read from the first shard."""
    with open_activations(run.activations_file(layer, 0)) as file:
        header = file.header
    special, starts = read_special_rows(run.tokens_file(0)), read_item_ptr(run.tokens_file(0))
    begins = bool(len(special)) and len(starts) > 1 and int(special[0]) == int(starts[0])
    return Stored(header, run.model_info.max_length, begins, run.config.sae.centre == "unit")


def refuse_misfit(cfg: dict[str, Any], stored: Stored, name: str) -> None:
    """Raise UserError, with both sides in its one line, where the SAE's features would be wrong. cfg: of `convert.settings_of`."""
    header, at = stored.header, hook_of(cfg)
    if cfg.get("d_in") != header.d_model:
        raise UserError(
            f"sae.from: {name} reads activations {cfg.get('d_in')} wide, those of {header.model} are {header.d_model} wide; "
            "choose an SAE of this model"
        )
    if at.name is not None and at.hook != header.hook:
        raise UserError(
            f"sae.from: {name} reads {at.name}, the activations are of {header.hook_name}; set model.hook to its hook, or choose an SAE "
            f"of {header.hook}"
        )
    if at.layer is not None and at.layer != header.layer:
        raise UserError(
            f"sae.from: {name} reads {at.name or f'layer {at.layer}'}, which is layer {at.layer} here, and the activations are of layer "
            f"{header.layer}; set model.layers to [{at.layer}]"
        )
    ours = _ours(cfg)
    if ours.get("centre") == "unit" and not stored.centred:
        raise UserError(
            f"sae.from: {name} reads activations minus their units' means, and sae.centre is none; set sae.centre to unit"
        )
    if ours and ours.get("centre") != "unit" and stored.centred:
        raise UserError(
            f"sae.from: {name} reads whole activations, and sae.centre is unit, which subtracts the units' means; set sae.centre to none"
        )


def remarks(cfg: dict[str, Any], stored: Stored) -> list[str]:
    """What may matter, one clause each, with both sides."""
    known, header = metadata_of(cfg), stored.header
    found = []
    if hook_of(cfg).name is None:
        found.append(f"its cfg.json names no hook, and it is used at {header.hook_name}")
    model, ours = known.get("model_name"), _ours(cfg)
    if isinstance(model, str) and _plain(model) != _plain(header.model):
        found.append(f"it was trained on the model {model}, and the activations are of {header.model}")
    elif ours.get("model_identity") not in (None, header.model_identity):
        found.append(f"it was trained on other weights of {header.model}")
    begins = known.get("prepend_bos")
    if isinstance(begins, bool) and begins != stored.starts_special:
        sides = ("with", "without") if begins else ("without", "with")
        found.append(
            f"it was trained on sequences {sides[0]} a special token at their start, and those here are {sides[1]} one"
        )
    length = known.get("context_size")
    if isinstance(length, int) and 0 < length < stored.max_length:
        found.append(
            f"it was trained on sequences of {length:,} tokens, and those here have up to {stored.max_length:,}"
        )
    if said_dtype(cfg) != "float32":
        found.append(f"its dtype is {said_dtype(cfg)}, and features are computed here in float32")
    if (known.get("model_from_pretrained_kwargs") or {}) and isinstance(known["model_from_pretrained_kwargs"], dict):
        options = ", ".join(f"{key}={value}" for key, value in sorted(known["model_from_pretrained_kwargs"].items()))
        found.append(f"it was trained on a model loaded with {options}, and the model here is used as it is")
    return found


def _ours(cfg: dict[str, Any]) -> dict[str, Any]:
    """What this software wrote into cfg.json; empty for SAEs of others."""
    metadata = cfg.get("metadata")
    ours = metadata.get("sae_genomics") if isinstance(metadata, dict) else None
    return ours if isinstance(ours, dict) else {}


def _plain(model: str) -> str:
    """Names of one model differ by who publishes it: `openai-community/gpt2` is SAELens' `gpt2`."""
    return model.rpartition("/")[2].lower()
