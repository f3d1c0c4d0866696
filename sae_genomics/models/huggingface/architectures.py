"""Where the hooks are in transformers' modules, by architecture (`model_type` of config.json). No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.models.base import HOOKS

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Module paths below the AutoModelForCausalLM; `{i}` stands for the layer."""

    hooks: Mapping[str, str]
    """Hook -> path of the module whose output is the hook's activation; `resid_post` is the block itself."""
    packed: bool
    """Whether its attention may be ours, so that rows of all sequences stand one after the other. Else batches are padded."""
    drop: tuple[str, ...] = ()
    """Modules that text does not need: encoders of images."""

    def module(self, hook: str, layer: int) -> str:
        """The path of one layer's module."""
        return self.hooks[hook].replace("{i}", str(layer))

    def find(self, network: nn.Module, hook: str, layer: int) -> nn.Module:
        """One layer's module. Raises UserError where the network has none of that path."""
        path = self.module(hook, layer)
        try:
            return network.get_submodule(path)
        except AttributeError:
            names = [name for name, _ in network.named_modules() if ".0" in name]
            some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise UserError(
                f"model.hook_modules.{hook}: the model has no module {path}; its modules of the first layer are {some}"
            ) from None


def _plain(stack: str, attention: str, mlp: str, drop: tuple[str, ...] = ()) -> Architecture:
    block = stack + ".{i}"
    hooks = {"resid_post": block, "mlp_out": f"{block}.{mlp}", "attn_out": f"{block}.{attention}"}
    return Architecture(hooks, packed=True, drop=drop)


_LLAMA = _plain("model.layers", "self_attn", "mlp")
# Gemma 2 and 3 norm what attention and MLP give, and add that to the stream
_GEMMA_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")

ARCHITECTURES: dict[str, Architecture] = {
    "gemma": _LLAMA,
    "gemma2": _plain("model.layers", *_GEMMA_NORMS),
    "gemma3_text": _plain("model.layers", *_GEMMA_NORMS),
    "gemma3": _plain(
        "model.language_model.layers", *_GEMMA_NORMS, drop=("model.vision_tower", "model.multi_modal_projector")
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt2": _plain("transformer.h", "attn", "mlp"),
    "gpt_neox": _plain("gpt_neox.layers", "attention", "mlp"),
}


def architecture(model_type: str, hook_modules: Mapping[str, str] | None, where: str) -> Architecture:
    """Of a `model_type`, or as `model.hook_modules` says; a hook that the config names wins over the table.

    where: the file that names the type, for the error.
    Raises UserError for a hook or path that is not understood, and for an unknown type without hook_modules.
    """
    known = ARCHITECTURES.get(model_type)
    named = dict(hook_modules or {})
    for hook, path in named.items():
        if hook not in HOOKS:
            raise UserError(f"model.hook_modules: {hook!r} is not a hook; write {', '.join(HOOKS)}")
        if path.count("{i}") != 1:
            raise UserError(
                f"model.hook_modules.{hook}: {path!r} should name a layer's module with {{i}} in place of its number, "
                "such as model.layers.{i}"
            )
    if known is not None and not named:
        return known
    if known is None and "resid_post" not in named:
        raise UserError(
            f"{where}: model_type {model_type!r} is not one of {', '.join(sorted(ARCHITECTURES))}; set model.hook_modules to "
            "say where its layers are, such as {resid_post: 'model.layers.{i}', mlp_out: 'model.layers.{i}.mlp', "
            "attn_out: 'model.layers.{i}.self_attn'}"
        )
    if known is None:
        return Architecture(named, packed=False)
    return Architecture({**known.hooks, **named}, known.packed, known.drop)
