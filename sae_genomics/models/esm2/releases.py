"""The published ESM2 models."""

from __future__ import annotations

from sae_genomics.models.releases import KnownRelease

SMALL_FILES = ("config.json", "vocab.txt")
MAX_LENGTH = 1024  # tokens of the longest sequence in training, <cls> and <eos> among them


def _release(name: str, n_layers: int, d_model: int, n_heads: int, n_parameters: int) -> KnownRelease:
    return KnownRelease(
        "esm2", f"facebook/{name}", "", SMALL_FILES, n_layers, d_model, n_heads, MAX_LENGTH, n_parameters,
        saved_from="EsmForMaskedLM",
    )  # fmt: skip


_SIZES = {  # short name: (layers, d_model, heads, parameters)
    "8M": (6, 320, 20, 8_000_000),
    "35M": (12, 480, 20, 35_000_000),
    "150M": (30, 640, 20, 150_000_000),
    "650M": (33, 1280, 20, 650_000_000),
    "3B": (36, 2560, 40, 3_000_000_000),
    "15B": (48, 5120, 40, 15_000_000_000),
}
ALIASES = {f"esm2-{size.lower()}": f"esm2_t{shape[0]}_{size}_UR50D" for size, shape in _SIZES.items()}
RELEASES = {name: _release(name, *shape) for name, shape in zip(ALIASES.values(), _SIZES.values(), strict=True)}
