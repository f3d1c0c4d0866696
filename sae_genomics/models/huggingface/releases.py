"""Published language models whose shape is known before a download. Any other OWNER/NAME of the hub works once its files are there."""

from __future__ import annotations

from sae_genomics.models.releases import KnownRelease

SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
OPTIONAL_FILES = ("special_tokens_map.json", "added_tokens.json")
TOKENISER_FILES = (  # also those of tokenizers that were saved before tokenizer.json was: transformers' VOCAB_FILES_NAMES
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


def release_of(repository: str, *shape: int) -> KnownRelease:
    """shape: layers, d_model, heads, longest sequence, parameters; zeros where they are not known before the download."""
    n_layers, d_model, n_heads, max_length, n_parameters = shape or (0,) * 5
    return KnownRelease(
        "huggingface", repository, "", SMALL_FILES, n_layers, d_model, n_heads, max_length, n_parameters,
        optional_files=OPTIONAL_FILES, saved_from="AutoModelForCausalLM",
    )  # fmt: skip


_SHAPES = {
    "google/gemma-3-4b-it": (34, 2560, 8, 131_072, 4_300_000_000),
    "google/gemma-2-2b": (26, 2304, 8, 8192, 2_600_000_000),
    "openai-community/gpt2": (12, 768, 12, 1024, 124_000_000),
    "EleutherAI/pythia-70m": (6, 512, 8, 2048, 70_000_000),
    "EleutherAI/pythia-160m": (12, 768, 12, 2048, 160_000_000),
}
RELEASES = {name: release_of(name, *shape) for name, shape in _SHAPES.items()}
