"""transformers' own network on packed rows: its modules, rotary positions, masks and scalings, without padding in linear layers and norms.

A batch is one row of the tokens of all sequences, one after the other, whose positions begin anew with each sequence. Only
attention needs to know where a sequence begins (`attention.py`). Blocks, attention and MLP are made to report what they give and
to go on with what they are told: a pass may begin and end at any layer. An architecture that is not in our table is given padded
batches instead; padding stands behind a sequence, where a causal model never looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from sae_genomics.errors import UserError
from sae_genomics.models.editing import unheard
from sae_genomics.models.huggingface.architectures import Architecture
from sae_genomics.models.huggingface.current import Pass, current_pass, passing
from sae_genomics.models.sequences import Sequences


class PackedDecoder(nn.Module):
    """An AutoModelForCausalLM for evaluation. Its modules are changed in place: it can be called through this object alone."""

    def __init__(self, network: Any, architecture: Architecture, n_layers: int, d_model: int):
        super().__init__()
        self.network, self.packed = network, architecture.packed
        self.n_layers, self.d_model = n_layers, d_model
        self.base = network.base_model if architecture.packed else _around_blocks(network, architecture)
        self._output_class: Any = BaseModelOutputWithPast  # of the base model, until it has shown its own
        self._shells: dict[
            int, tuple[Any, ...]
        ] = {}  # what a block's output holds beside the hidden states, where it is a tuple
        for layer in range(n_layers):
            for hook in architecture.hooks:
                module = architecture.find(network, hook, layer)
                if hook == "resid_post":
                    module.forward = self._block(layer, module.forward)
                else:
                    module.register_forward_hook(_reporter(hook, layer))
        self.base.forward = self._base(self.base.forward)

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return next(self.network.parameters()).dtype

    def forward(self, token: Tensor, one: Pass) -> Tensor:
        """What the head reads, [T, d_model], of the pass's sequences. token: int64 [T]."""
        with passing(one):
            if self.packed:
                output = self.base(input_ids=token[None], position_ids=one.sequences.place[None], use_cache=False)
            else:
                sequences = one.sequences
                assert sequences.real is not None
                output = self.base(
                    input_ids=sequences.pad(token[:, None])[..., 0], attention_mask=sequences.real.long(), use_cache=False
                )  # fmt: skip
        return one.rows(output[0])

    def head(self, x: Tensor, sequences: Sequences) -> Tensor:
        """Logits of what the head reads: [n, d_model] -> [n, vocabulary], by the network's own head with all that it does."""
        with passing(Pass(sequences, self.packed, unheard, read_by_head=x[None])):
            nothing = torch.zeros(1, x.shape[0], dtype=torch.int64, device=x.device)
            logits: Tensor = self.network(input_ids=nothing, use_cache=False).logits
        return logits[0]

    @torch.no_grad()
    def probe(self, device: torch.device) -> None:
        """One pass over two tokens, which shows whether the modules that the config names give what hooks need. Raises UserError."""
        import numpy as np

        heard: dict[tuple[str, int], tuple[int, ...]] = {}

        def listen(hook: str, layer: int, x: Tensor) -> Tensor:
            heard[hook, layer] = tuple(x.shape)
            return x

        sequences = Sequences(np.array([0, 2]), device, padded=True)
        try:
            self(torch.zeros(2, dtype=torch.int64, device=device), Pass(sequences, self.packed, listen))
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"model.hook_modules: the model cannot be run with hooks at these modules ({reason}); resid_post should name its blocks"
            ) from None
        wrong = next((key for key, shape in heard.items() if shape != (2, self.d_model)), None)
        if wrong is not None:
            raise UserError(
                f"model.hook_modules.{wrong[0]}: of 2 tokens the module of layer {wrong[1]} gives {list(heard[wrong])} numbers, "
                f"not [2, {self.d_model}]; name the module whose output is added to the stream"
            )

    def _block(self, layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def block(*given: Any, **named: Any) -> Any:
            one = current_pass()
            x: Tensor = given[0] if given else named["hidden_states"]
            if layer < one.first or layer > one.last:
                return self._in_shell(layer, x)
            if layer == one.first and one.leaving is not None:
                return self._in_shell(layer, one.shaped(one.leaving))
            if layer == one.first and one.entering is not None:
                x = one.shaped(one.entering)
            if layer == one.input_wanted:
                one.input_found = one.rows(x)
            output = forward(x, *given[1:], **named) if given else forward(**{**named, "hidden_states": x})
            if isinstance(output, tuple):
                self._shells[layer] = (None,) * (len(output) - 1)
            return _replaced(output, one, "resid_post", layer)

        return block

    def _in_shell(self, layer: int, x: Tensor) -> Any:
        return (x, *self._shells[layer]) if layer in self._shells else x

    def _base(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def base(*given: Any, **named: Any) -> Any:
            one = current_pass()
            if one.read_by_head is None:
                output = forward(*given, **named)
                self._output_class = type(output)
                return output
            return self._output_class(last_hidden_state=one.read_by_head)

        return base


def _reporter(hook: str, layer: int) -> Callable[..., Any]:
    def report(module: nn.Module, given: Any, output: Any) -> Any:
        return _replaced(output, current_pass(), hook, layer)

    return report


def _replaced(output: Any, one: Pass, hook: str, layer: int) -> Any:
    """A module's output, its first part being what the listener returned."""
    x = output[0] if isinstance(output, tuple) else output
    rows = one.rows(x)
    found = one.listen(hook, layer, rows)
    if found is rows:
        return output
    found = one.shaped(found).reshape(x.shape)  # some modules see [sequences x longest, d_model]
    return (found, *output[1:]) if isinstance(output, tuple) else found


def _around_blocks(network: Any, architecture: Architecture) -> Any:
    """The module that calls the blocks one after the other, which the network calls in turn: `model` of `model.layers.{i}`."""
    stack = architecture.hooks["resid_post"].partition(".{i}")[0]
    try:
        return network.get_submodule(stack.rpartition(".")[0])
    except AttributeError:
        return network.base_model
