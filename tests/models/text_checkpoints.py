"""Small random language models of each architecture, made with transformers, tokenizers made with `tokenizers`, and what transformers' own hooks see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXTS = [
    "The cell divides, and its nucleus is copied first.",
    "Proteins fold; water drives the chain together, they say.\nA second line.",
    "Die Zelle teilt sich. Größe und Form ändern sich über Nacht, naïve cells do not.",
    "short",
    "A longer text about genes: a gene is read, spliced and translated; then the protein is folded, moved and broken down again. "
    * 2,
]
_GQA = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 160, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
_GEMMA = {**_GQA, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7}
_GEMMA3 = {**_GEMMA, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
_NEOX = {key: value for key, value in _GQA.items() if key != "num_key_value_heads"}
_VISION = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 28, "patch_size": 14
}  # fmt: skip
# name: (model_type, settings)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("gemma", {**_GQA, "head_dim": 16}),
    "gemma2": ("gemma2", {**_GEMMA, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 3.0}),
    "gemma3_text": ("gemma3_text", _GEMMA3),
    "gemma3": ("gemma3", {"text_config": _GEMMA3, "vision_config": _VISION, "mm_tokens_per_image": 4}),
    "llama": ("llama", {**_GQA, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("llama", {
        **_GQA, "tie_word_embeddings": True, "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 40,
        },
    }),
    "mistral": ("mistral", {**_GQA, "sliding_window": 9}),
    "qwen2": ("qwen2", {**_GQA, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    "qwen3": ("qwen3", {**_GQA, "head_dim": 20}),
    "gpt2": ("gpt2", {"vocab_size": 300, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 160, "bos_token_id": 2, "eos_token_id": 1,
                      "scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("gpt_neox", {**_NEOX, "rotary_pct": 0.25}),
    "gpt_neox sequential": ("gpt_neox", {**_NEOX, "use_parallel_residual": False}),
}  # fmt: skip
# where transformers' own hooks listen, written down here a second time
BLOCKS = {
    "gemma3": "model.language_model.layers", "gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers",
}  # fmt: skip
PARTS = {
    "gpt2": ("mlp", "attn"), "gpt_neox": ("mlp", "attention"),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text"), ("post_feedforward_layernorm", "post_attention_layernorm")),
}  # fmt: skip


def config_of(name: str, **settings: Any) -> Any:
    kind, values = ARCHITECTURES[name]
    return AutoConfig.for_model(kind, **{**values, **settings})


def make(
    folder: Path, name: str, seed: int = 0, *, tokeniser: str = "bos", max_shard_size: str = "1GB", **settings: Any
) -> Any:
    """A checkpoint as save_pretrained leaves it, with weights that are not what training begins with, and a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config_of(name, **settings)).eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            centre = float(parameter.ndim < 2 and key.endswith("weight") and "gemma" not in name)
            width = (
                parameter.shape[0] if name == "gpt2" and key.split(".")[-2].startswith("c_") else parameter.shape[-1]
            )
            parameter.copy_(noise * (0.1 if parameter.ndim < 2 else 1.5 * width**-0.5) + centre)
    network.save_pretrained(folder, max_shard_size=max_shard_size)
    if tokeniser:
        make_tokeniser(tokeniser).save_pretrained(folder)
    return network


def make_tokeniser(kind: str) -> PreTrainedTokenizerFast:
    """`bos`: pieces marked by ▁ with byte pieces and a <bos> (as Gemma, Llama); `bytes`: GPT-2's letters for bytes, nothing added."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    if kind == "bos":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        trainer = trainers.BpeTrainer(
            vocab_size=200, special_tokens=[*special, "<0x0A>", "<0xC3>"], show_progress=False
        )
        made.train_from_iterator(TEXTS[:4], trainer)
        made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
        return PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
        )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS[:4], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@torch.inference_mode()
def seen_by_hooks(network: Any, name: str, row: list[int]) -> dict[tuple[str, int], np.ndarray]:
    """(hook, layer) -> [T, d_model] of one unpadded sequence, by transformers with forward hooks."""
    kind = ARCHITECTURES[name][0]
    found: dict[tuple[str, int], np.ndarray] = {}

    def keep(hook: str, layer: int) -> Any:
        def listener(module: Any, given: Any, output: Any) -> None:
            x = output[0] if isinstance(output, tuple) else output
            found[hook, layer] = x.reshape(-1, x.shape[-1]).float().numpy().copy()

        return listener

    handles = []
    for layer, block in enumerate(network.get_submodule(BLOCKS.get(kind, "model.layers"))):
        mlp, attention = PARTS.get(kind, ("mlp", "self_attn"))
        for hook, module in (
            ("resid_post", block),
            ("mlp_out", getattr(block, mlp)),
            ("attn_out", getattr(block, attention)),
        ):
            handles.append(module.register_forward_hook(keep(hook, layer)))
    try:
        network(input_ids=torch.tensor([row]))
    finally:
        for handle in handles:
            handle.remove()
    return found


def close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> bool:
    """Equal to so much of the largest number."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= tolerance * float(np.abs(theirs).max())
