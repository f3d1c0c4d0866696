"""What `cross_layer` costs, with its default settings."""

from __future__ import annotations

from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload
from sae_genomics.sae.cost import HIDDEN_MEMORY, sae_parameters

_SETTINGS = CrossLayerConfig()
_ENTRY = 32  # bytes of an active feature of a token: by token and by feature, with what sorting one layer takes
_MATCH = 30  # bytes of a row of matches.parquet, compressed
_MATCHES = 4  # rows per feature and pair of layers
_PRODUCTS_RATE = 50e6  # products per second and direction, of one core
_PASSES = 40  # of the model over a few items per pair of layers, for attribution
_INITIALISED = 50e6  # random weights per second
_PAIR = 5  # bytes of a pair of features that modules may look at: 8 where it is expected often enough
_PAIR_RATE = 1.5e6  # such pairs of a layer, and of it with the next, per second of two cores


def cost(work: Workload) -> Cost:
    """Tables of all pairs of layers, the sampled tokens of all layers in memory, and the time of their products."""
    tokens = min(_SETTINGS.tokens, work.n_stored)
    pairs = work.n_layers * (work.n_layers - 1) / 2
    disk = (pairs * _MATCHES * _MATCH + work.n_layers * 400) * work.d_sae
    sampled = work.n_layers * work.seeds * tokens * work.k * _ENTRY
    memory = BASE_MEMORY + 3 * 4 * sae_parameters(work) + HIDDEN_MEMORY + sampled
    products = pairs * (2 + _SETTINGS.null_draws) * tokens * work.k**2
    encoded = work.n_layers * (work.seeds * tokens + 140_000) * 2 * work.d_model * work.d_sae
    items = _SETTINGS.attribution_items * work.n_tokens / max(work.n_cells, 1)
    attributed = work.n_layers * _PASSES * items * 2 * work.n_parameters / max(work.deepest, 1)
    seconds = 5 + products / _PRODUCTS_RATE + encoded / work.train_rate + attributed / work.extract_rate
    module_pairs = float(min(work.d_sae, _SETTINGS.module_features)) ** 2
    memory += int(_PAIR * module_pairs)
    seconds += work.n_layers * module_pairs / _PAIR_RATE
    rest = Cost(disk, memory, seconds + work.n_layers * (2 + work.d_sae / 500))
    floor = untrained(work)
    return Cost(
        rest.disk_bytes, rest.memory_bytes + floor.memory_bytes, rest.seconds + floor.seconds, floor.scratch_bytes
    )


def untrained(work: Workload) -> Cost:
    """The share of the untrained model: one pass over items that hold the tokens, its SAEs, and products of all ordered pairs of layers."""
    if "untrained" not in work.baselines:
        return Cost(0, 0, 0)
    sampled = min(_SETTINGS.tokens, work.n_stored)
    tokens = min(_SETTINGS.untrained_tokens, sampled)
    items = min(_SETTINGS.items, work.n_cells) * tokens / max(sampled, 1)
    read = items * work.n_tokens / max(work.n_cells, 1)
    forward = read * 2 * work.n_parameters / work.extract_rate
    encoding = work.n_layers * tokens * 2 * work.d_model * work.d_sae / work.train_rate
    products = work.n_layers * (work.n_layers - 1) * (1 + _SETTINGS.null_draws) * tokens * work.k**2 / _PRODUCTS_RATE
    memory = 4 * work.n_parameters + 2 * work.n_layers * tokens * work.k * _ENTRY
    seconds = forward + encoding + products + work.n_parameters / _INITIALISED
    return Cost(0, memory, seconds, work.n_layers * tokens * work.d_model * work.item_bytes)
