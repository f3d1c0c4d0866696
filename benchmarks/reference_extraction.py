"""All layers' activations with tahoe-x1's own loader and model, on a CPU; run by benchmarks/extraction.py.

Usage: PYTHON reference_extraction.py '{"cells": "x.h5ad", "d_model": 512, ...}' with a python where tahoe-x1 imports.

Two things of tahoe-x1 1.0.0 do not work on a CPU and are replaced: a flash-attn helper that is called whatever the
attention is, and the masked path of plain attention, whose bias has one dimension too many. The replacement attends as
the flash path does: every token to every token that is not padding.
"""

import json
import sys
import time

import anndata
import numpy as np
import torch

settings = json.loads(sys.argv[1])
sys.argv = sys.argv[:1]  # the package parses arguments when imported

import tahoe_x1.model.blocks as blocks  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from tahoe_x1.model.model import ComposerTX  # noqa: E402
from tahoe_x1.tokenizer import GeneVocab  # noqa: E402
from tahoe_x1.utils.util import loader_from_adata  # noqa: E402


def encode(self, total_embs, key_padding_mask=None, gen_mask=None):
    smallest = torch.finfo(total_embs.dtype).min
    bias = torch.zeros(key_padding_mask.shape, dtype=total_embs.dtype).masked_fill(~key_padding_mask, smallest)
    for layer in self.layers:
        total_embs = layer(total_embs, attn_bias=bias[:, None, None, :])
    return self.norm(total_embs)


blocks.gen_flash_attn_padding_info = lambda **arguments: {}
blocks.TXEncoder.forward = encode

torch.set_num_threads(settings["threads"])
torch.manual_seed(0)
n_genes = settings["n_genes"]
model_config = {
    "vocab_size": n_genes + 3, "d_model": settings["d_model"], "n_layers": settings["n_layers"],
    "n_heads": settings["n_heads"], "expansion_ratio": 4, "transformer_activation": "relu", "norm_scheme": "pre",
    "cell_emb_style": "cls",
    "attn_config": {"attn_impl": "torch", "attn_type": "grouped_query_attention", "use_attn_mask": True},
    "norm_config": {"norm_type": "layernorm", "eps": 1e-5}, "gene_encoder": {"use_norm": True},
    "mvc": {"arch_style": "inner product", "query_activation": "sigmoid", "scaled_dot_product": True},
    "expression_encoder": {
        "input_emb_style": "continuous", "dropout": 0.1, "max_value": 512, "activation": "relu", "use_norm": True,
    },
    "expression_decoder": {"n_outputs": 1, "n_layers": 1, "activation": "leaky_relu"},
}  # fmt: skip
collator_config = OmegaConf.create(
    {
        "do_padding": True, "pad_value": -2, "do_binning": True, "mlm_probability": 0.5, "mask_value": -1,
        "sampling": True, "num_bins": 51, "right_binning": False, "pad_token_id": n_genes,
    }
)  # fmt: skip
model = ComposerTX(OmegaConf.create(model_config), collator_config).eval()
ids = {f"g{i}": i for i in range(n_genes)} | {"<pad>": n_genes, "<cls>": n_genes + 1, "<eoc>": n_genes + 2}
vocabulary = GeneVocab(ids)
vocabulary.set_default_token("<pad>")
cells = anndata.read_h5ad(settings["cells"])

captured = {}
for number, block in enumerate(model.model.transformer_encoder.layers):
    block.register_forward_hook(
        lambda module, inputs, output, number=number: captured.setdefault(number, []).append(output.detach())
    )
start = time.perf_counter()
loader = loader_from_adata(
    cells, collator_config, vocabulary, batch_size=8, max_length=1024, gene_ids=np.arange(n_genes),
    num_workers=settings["threads"], prefetch_factor=2,
)  # fmt: skip
n_real = 0
with torch.no_grad():
    for batch in loader:
        n_real += int((batch["gene"] != n_genes).sum())
        model(batch, skip_decoders=True)
seconds = time.perf_counter() - start
n_computed = sum(output.shape[0] * output.shape[1] for output in captured[0])
result = {
    "real_tokens": n_real, "computed_tokens": n_computed, "seconds": seconds, "real_tokens_per_s": n_real / seconds,
}  # fmt: skip
print(json.dumps(result))
