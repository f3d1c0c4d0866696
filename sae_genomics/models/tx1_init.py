"""Tahoe-x1's network with the weights that its training began with: random, from a seed.

As in the reference (`init_config` is in none of the releases, so its defaults hold: llm-foundry's `kaiming_normal_`): weights of linear layers
and embeddings are normal with variance 2 / fan-in (He et al. 2015), those of the two layers that write to the residual stream
are divided by sqrt(2 n_layers), biases are 0 and norms are the identity.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from sae_genomics.models.tx1_network import Tx1Network

_RESIDUAL = ("self_attn.out_proj", "down_proj")


def initialise(network: Tx1Network, seed: int, device: torch.device, dtype: torch.dtype) -> None:
    """Give a network that was built on the meta device random weights; the same ones on every device."""
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, math.sqrt(2 / module.weight.shape[1]), generator=generator)
                if name.endswith(_RESIDUAL):
                    module.weight.div_(math.sqrt(2 * network.config.n_layers))
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
    network.to(device=device, dtype=dtype)
