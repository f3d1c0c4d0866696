"""Random checkpoints of many configurations, made and run by the tahoe-x1 package itself.

Runs under a python that has the package (and this repository on PYTHONPATH): for each configuration it writes a release
folder with `expected.npz`, in the layout of the parity fixtures, to the folder given as first argument.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tahoe_x1.model.blocks as blocks
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tahoe_x1.data import CountDataset, DataCollator
from tahoe_x1.model.model import ComposerTX
from tahoe_x1.tokenizer import GeneVocab

N_GENES = 90


def release(name, model=None, collator=None, attention=None, **sections):
    """The 70M model's configs at a small size, with changes."""
    model_config = {
        "name": "tahoe_x1", "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4, "norm_scheme": "pre",
        "transformer_activation": "relu", "use_glu": False, "cell_emb_style": "cls", "vocab_size": N_GENES + 3,
        "attn_config": {"attn_impl": "flash", "attn_type": "grouped_query_attention", "use_attn_mask": False, **(attention or {})},
        "norm_config": {"norm_type": "layernorm", "eps": 1e-5},
        "gene_encoder": {"use_norm": True},
        "mvc": {"arch_style": "inner product", "query_activation": "sigmoid", "scaled_dot_product": True},
        "expression_encoder": {"input_emb_style": "continuous", "dropout": 0.1, "max_value": 512, "activation": "relu", "use_norm": True},
        "expression_decoder": {"n_outputs": 1, "n_layers": 1, "activation": "leaky_relu"},
        **(model or {}), **sections,
    }  # fmt: skip
    collator_config = {
        "do_padding": True, "pad_value": -2, "do_mlm": True, "do_binning": True, "mlm_probability": 0.5, "mask_value": -1,
        "max_length": 1024, "sampling": True, "num_bins": 51, "right_binning": False, "pad_token_id": N_GENES, **(collator or {}),
    }  # fmt: skip
    return name, {key: value for key, value in model_config.items() if value is not ...}, collator_config


def gene(name):
    return {"remote": "s3://nowhere/none", "local": name}


RELEASES = [
    release("wide", model={"d_model": 96, "n_layers": 5, "n_heads": 6, "expansion_ratio": 2.5}),
    release("grouped_queries", attention={"kv_n_heads": 2}),
    release("one_key_head", attention={"kv_n_heads": 1}),
    release("ignored_keys", attention={"kv_nheads": 2, "qk_ln": True, "clip_qkv": 0.01, "softmax_scale": 9.0}),
    release("rmsnorm", norm_config={"norm_type": "rmsnorm", "eps": 1e-3}),
    release("low_precision_layernorm", norm_config={"norm_type": "Low_Precision_LayerNorm"}),
    release("defaults", norm_config=None, gene_encoder=None, expression_encoder={}, expression_decoder={}),
    release("post_norm_rms_glu", model={"norm_scheme": "post", "use_glu": True}, norm_config={"norm_type": "low_precision_rmsnorm", "eps": 1e-5}),
    release("quick_gelu", model={"transformer_activation": "quick_gelu"}),
    release("silu_glu", model={"transformer_activation": "silu", "use_glu": True}),
    release("mvc_plain", mvc={"arch_style": "inner product", "query_activation": "tanh"}),
    release("clipped_values", expression_encoder={"max_value": 20, "activation": "gelu", "use_norm": False}),
    release("many_outputs", expression_decoder={"n_outputs": 3, "n_layers": 3, "activation": "elu"}),
    release("bare_decoder", expression_decoder={"n_outputs": 1, "n_layers": 0, "activation": "relu"}),
    release("log_values", collator={"do_binning": False, "log_transform": True, "target_sum": 10000}),
    release("raw_values", collator={"do_binning": False}),
    release("right_bins", collator={"right_binning": True, "num_bins": 11}),
    release("first_three_kept", collator={"keep_first_n_tokens": 3}),
    release("hidden_tokens_unseen", attention={"attn_impl": "torch", "use_attn_mask": True}),
    release("avg_pool", model={"cell_emb_style": "avg-pool"}),
    release("extra_gene_embedding", gene_encoder={"use_norm": True, "embeddings": {"esm": {**gene("extra.pt"), "use_norm": True}, "go": gene("extra.pt")}}),
]  # fmt: skip


def plain_encoder(mask_generated):
    """Every token sees every token that is not padding; where the config says so, hidden ones only by themselves."""

    def forward(self, total_embs, key_padding_mask=None, gen_mask=None):
        seen = key_padding_mask[:, None, :].expand(-1, total_embs.shape[1], -1)
        if mask_generated:
            seen = seen & self._make_mask(gen_mask, total_embs.device)
        bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
        for layer in self.layers:
            total_embs = layer(total_embs, attn_bias=bias)
        return self.norm(total_embs) if self.use_norm else total_embs

    return forward


def make(folder: Path, model_values: dict, collator_values: dict, seed: int) -> None:
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tokens = {f"ENSG{i:011d}": i for i in range(N_GENES)} | {
        "<pad>": N_GENES,
        "<cls>": N_GENES + 1,
        "<eoc>": N_GENES + 2,
    }
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "model_config.yml").write_text(yaml.safe_dump(model_values))
    (folder / "collator_config.yml").write_text(yaml.safe_dump(collator_values))

    torch.save({"embedding.weight": torch.randn(N_GENES - 5, 7)}, folder / "extra.pt")
    config = OmegaConf.create(model_values)
    for embedding in (config.get("gene_encoder") or {}).get("embeddings", {}).values():
        embedding.local = str(folder / embedding.local)
    mask_generated = config.attn_config.attn_impl == "torch" and config.attn_config.use_attn_mask
    config.attn_config.attn_impl = "torch"
    blocks.TXEncoder.forward = plain_encoder(mask_generated)
    model = ComposerTX(config, OmegaConf.create(collator_values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases away from their initial ones and zeros
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")

    lengths = generator.integers(5, N_GENES, 5)
    counts = np.zeros((5, N_GENES), dtype=np.float32)
    for row, length in zip(counts, lengths, strict=True):
        row[generator.choice(N_GENES, length, replace=False)] = 1 + generator.negative_binomial(0.4, 0.05, length)
    from scipy.sparse import csr_matrix

    dataset = CountDataset(csr_matrix(counts), np.arange(N_GENES), cls_token_id=N_GENES + 1, pad_value=-2)
    names = ("do_padding", "pad_token_id", "pad_value", "do_binning", "log_transform", "target_sum", "mlm_probability",
             "mask_value", "max_length", "sampling", "num_bins", "right_binning", "keep_first_n_tokens")  # fmt: skip
    collate = DataCollator(
        vocab=GeneVocab.from_dict(tokens),
        do_mlm=False,
        **{name: collator_values[name] for name in names if name in collator_values},
    )
    batch = collate([dataset[i] for i in range(len(counts))])
    real = batch["gene"] != N_GENES
    expected = {"counts": counts, "gene_ids": np.arange(N_GENES)}
    for case in ("plain", "masked"):
        hidden = (
            real & (torch.rand(real.shape) < 0.4) & (batch["gene"] < N_GENES)
            if case == "masked"
            else torch.zeros_like(real)
        )
        given = {**batch, "gen_mask": hidden, "expr": batch["expr"].masked_fill(hidden, -1)}
        found, handles = {}, []
        for i, block in enumerate(model.model.transformer_encoder.layers):
            for hook, module in (("resid_post", block), ("mlp_out", block.down_proj), ("attn_out", block.self_attn)):

                def keep(module, inputs, output, name=f"{hook}/{i}", found=found):
                    found[name] = output[0] if isinstance(output, tuple) else output

                handles.append(module.register_forward_hook(keep))
        with torch.no_grad():
            outputs = model(given, skip_decoders=False)
        for handle in handles:
            handle.remove()
        arrays = {
            "gene": batch["gene"],
            "expr": batch["expr"],
            "expr_raw": batch["expr_raw"],
            "gen_mask": hidden,
            **found,
        }
        arrays |= {name: outputs[name] for name in ("cell_emb", "expr_preds", "mvc_output")}
        expected |= {f"{case}/{name}": array.numpy() for name, array in arrays.items()}
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    for number, (release_name, model_values, collator_values) in enumerate(RELEASES):
        make(Path(sys.argv[1]) / release_name, model_values, collator_values, number)
        print(release_name, flush=True)
