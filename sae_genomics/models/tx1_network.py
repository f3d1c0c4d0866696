"""Tahoe-x1's network in plain PyTorch.

Module names are those of the release's checkpoints. Tokens are packed: [T, d_model] rows of all cells, one after the
other, so that linear layers and norms never compute padding; only attention needs to know where a cell begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae_genomics.models.cpu_products import DotProductAttention, Linear
from sae_genomics.models.tx1_config import Tx1Config

# called with (hook, layer, activations [T, d_model]); what it returns, the network goes on with
Listener = Callable[[str, int, Tensor], Tensor]


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function of torch.nn.functional with its defaults, as the reference resolves names."""
    if name == "quick_gelu":
        return lambda x: x * torch.sigmoid(1.702 * x)
    if name == "relu":
        return partial(F.relu, inplace=True)
    return getattr(F, name)  # type: ignore[no-any-return]


class Layout:
    """Where the cells of a packed batch begin, and how attention gets at them.

    cell_ptr: int64 [cells + 1] on the CPU.
    grouped: attend to each run of cells of equal length by itself, without padding and without a mask; otherwise pad to
        the longest cell and mask, which launches fewer kernels. With one length there is no difference.
    """

    def __init__(self, cell_ptr: Tensor, device: torch.device, *, grouped: bool):
        lengths = cell_ptr.diff()
        self.n_cells = len(lengths)
        self.n_tokens = int(cell_ptr[-1])
        self.longest = int(lengths.max()) if self.n_cells else 0
        run_lengths, run_cells = torch.unique_consecutive(lengths, return_counts=True)
        self.runs = list(zip(run_cells.tolist(), run_lengths.tolist(), strict=True))
        self.uniform = len(self.runs) <= 1
        self.grouped = grouped or self.uniform
        self.cell_ptr = cell_ptr.numpy()
        self.first = cell_ptr[:-1].to(device)
        self.cell_of_token = torch.repeat_interleave(torch.arange(self.n_cells), lengths).to(device)
        place = torch.arange(self.n_tokens) - cell_ptr[:-1].repeat_interleave(lengths)
        self.padded_row = None if self.uniform else (self.cell_of_token * self.longest + place.to(device))
        self.real = None
        if not self.uniform:
            self.real = torch.arange(self.longest, device=device) < lengths.to(device)[:, None]  # [cells, longest]

    def pad(self, rows: Tensor) -> Tensor:
        """[T, n] -> [cells, longest, n], zero where there is no token."""
        if self.padded_row is None:
            return rows.view(self.n_cells, self.longest, -1)
        padded = rows.new_zeros(self.n_cells * self.longest, rows.shape[1])
        return padded.index_copy(0, self.padded_row, rows).view(self.n_cells, self.longest, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """[cells, longest, n] -> [T, n]."""
        flat = padded.reshape(self.n_cells * self.longest, -1)
        return flat if self.padded_row is None else flat[self.padded_row]


class Attention(nn.Module):
    """Full attention within each cell: every token sees every token of its cell."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        self.n_heads, self.kv_n_heads = config.n_heads, config.kv_n_heads
        self.d_head = config.d_model // config.n_heads
        self.Wqkv = Linear(config.d_model, (self.n_heads + 2 * self.kv_n_heads) * self.d_head)
        self.out_proj = Linear(config.d_model, config.d_model)
        self.dot_product = DotProductAttention()

    def forward(self, x: Tensor, layout: Layout, hidden: Tensor | None) -> Tensor:
        """x: [T, d_model]. hidden: bool [T], tokens that only they themselves may see, or None."""
        return self.out_proj(self._mixed(self.Wqkv(x), layout, hidden))  # type: ignore[no-any-return]

    def _mixed(self, qkv: Tensor, layout: Layout, hidden: Tensor | None) -> Tensor:
        """[T, heads x d_head of q, k and v] -> [T, d_model]."""
        if hidden is not None:
            return layout.pack(self._attend(layout.pad(qkv), _mask(layout, hidden)))
        mixed = self.dot_product.of_packed(qkv, layout.cell_ptr, self.n_heads, self.kv_n_heads)
        if mixed is not None:
            return mixed
        if not layout.grouped:
            return layout.pack(self._attend(layout.pad(qkv), _mask(layout, None)))
        mixed = qkv.new_empty(len(qkv), self.n_heads * self.d_head)
        start = 0
        for n_cells, length in layout.runs:
            part = slice(start, start + n_cells * length)
            heads = self._attend(qkv[part].view(n_cells, length, -1), None)
            mixed[part] = heads.reshape(n_cells * length, -1)
            start = part.stop
        return mixed

    def _attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """[cells, length, heads x d_head of q, k and v] -> [cells, length, d_model]."""
        cells, length, _ = qkv.shape
        heads = qkv.view(cells, length, self.n_heads + 2 * self.kv_n_heads, self.d_head).transpose(1, 2)
        q, k, v = heads.split([self.n_heads, self.kv_n_heads, self.kv_n_heads], dim=1)
        if self.kv_n_heads < self.n_heads:
            k = k.repeat_interleave(self.n_heads // self.kv_n_heads, dim=1)
            v = v.repeat_interleave(self.n_heads // self.kv_n_heads, dim=1)
        mixed = self.dot_product(q, k, v, mask)
        return mixed.transpose(1, 2).reshape(cells, length, -1)


def _mask(layout: Layout, hidden: Tensor | None) -> Tensor | None:
    """Which keys a query may see: bool, broadcastable to [cells, heads, queries, keys]."""
    real = None if layout.real is None else layout.real[:, None, None, :]
    if hidden is None:
        return real
    open_keys = ~layout.pad(hidden[:, None]).view(layout.n_cells, 1, 1, layout.longest)
    itself = torch.eye(layout.longest, dtype=torch.bool, device=hidden.device)
    mask = open_keys | itself
    return mask if real is None else mask & real


class Block(nn.Module):
    def __init__(self, config: Tx1Config):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.self_attn = Attention(config)
        self.up_proj = Linear(config.d_model, config.d_mlp)
        self.down_proj = Linear(config.d_mlp, config.d_model)
        if config.use_glu:
            self.gate_proj = Linear(config.d_model, config.d_mlp)
        self.use_glu = config.use_glu
        self.norm1, self.norm2 = _norm(config), _norm(config)
        self.activation = activation_function(config.activation)
        self.to_mlp, self.from_mlp = to_mlp, from_mlp  # functions, for which `tx1_compiled` puts compiled ones

    def forward(
        self, x: Tensor, layout: Layout, hidden: Tensor | None, listen: Callable[[str, Tensor], Tensor]
    ) -> Tensor:
        """x: [T, d_model]; returns the block's output."""
        return self.after_attention(x, listen("attn_out", self.attend(x, layout, hidden)), listen)

    def attend(self, x: Tensor, layout: Layout, hidden: Tensor | None) -> Tensor:
        """What attention adds to the stream."""
        return self.self_attn(self.norm1(x) if self.pre_norm else x, layout, hidden)  # type: ignore[no-any-return]

    def after_attention(self, x: Tensor, attention: Tensor, listen: Callable[[str, Tensor], Tensor]) -> Tensor:
        """The block's output, of the stream that attention read and attention's part."""
        x, mlp = self.to_mlp(self, x, attention)
        return self.after_mlp(x, listen("mlp_out", mlp), listen)

    def after_mlp(self, x: Tensor, mlp: Tensor, listen: Callable[[str, Tensor], Tensor]) -> Tensor:
        """The block's output, of the stream that the MLP's part is added to, and that part."""
        return listen("resid_post", self.from_mlp(self, x, mlp))

    def mlp(self, x: Tensor) -> Tensor:
        if self.use_glu:
            return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]
        return self.down_proj(self.activation(self.up_proj(x)))  # type: ignore[no-any-return]


def to_mlp(block: Block, x: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """From one listener to the next: the stream with attention's part added, and what the MLP makes of it."""
    x = x + attention
    if not block.pre_norm:
        x = block.norm1(x)
    return x, block.mlp(block.norm2(x) if block.pre_norm else x)


def from_mlp(block: Block, x: Tensor, mlp: Tensor) -> Tensor:
    """The block's output, of the stream and the MLP's part. All: [T, d_model]."""
    x = x + mlp
    return x if block.pre_norm else block.norm2(x)  # type: ignore[no-any-return]


def _norm(config: Tx1Config) -> nn.Module:
    kind = nn.RMSNorm if config.rms_norm else nn.LayerNorm
    return kind(config.d_model, eps=config.norm_eps)


class Encoder(nn.Module):
    def __init__(self, config: Tx1Config):
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        if config.pre_norm:
            self.norm = _norm(config)


class GeneEncoder(nn.Module):
    """Vocabulary ids to vectors: a table, further tables where the model has them, a norm."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.extra_embeddings = nn.ModuleDict()
        self.extra_norms = nn.ModuleDict()
        width = config.d_model
        for name, (extra_width, normalised) in config.extra_embeddings.items():
            self.extra_embeddings[name] = nn.Embedding(config.vocab_size, extra_width)
            if normalised:
                self.extra_norms[name] = nn.LayerNorm(extra_width)
            width += extra_width
        if config.extra_embeddings:
            self.project = Linear(width, config.d_model, bias=False)
        if config.gene_norm:
            self.enc_norm = nn.LayerNorm(config.d_model)

    def forward(self, gene: Tensor) -> Tensor:
        x = self.embedding(gene)
        if self.extra_embeddings:
            parts = [x]
            for name, table in self.extra_embeddings.items():
                part = table(gene)
                parts.append(self.extra_norms[name](part) if name in self.extra_norms else part)
            x = self.project(torch.cat(parts, dim=-1))
        return self.enc_norm(x) if hasattr(self, "enc_norm") else x


class ValueEncoder(nn.Module):
    """A token's value to a vector, through a two-layer network."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        self.linear1 = Linear(1, config.d_model)
        self.linear2 = Linear(config.d_model, config.d_model)
        self.activation = activation_function(config.value_activation)
        if config.value_norm:
            self.norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.value_dropout)
        self.max_value = config.value_max

    def forward(self, value: Tensor) -> Tensor:
        value = value.clamp(max=self.max_value).to(self.linear1.weight.dtype)[:, None]
        x = self.linear2(self.activation(self.linear1(value)))
        return self.dropout(self.norm(x) if hasattr(self, "norm") else x)  # type: ignore[no-any-return]


class ChemEncoder(nn.Module):
    """A drug's fingerprint to a vector that stands for the `<drug>` token."""

    def __init__(self, n_drugs: int, width: int, activation: str, d_model: int):
        super().__init__()
        self.embedding = nn.Embedding(n_drugs, width)
        self.fc = Linear(width, d_model)
        self.proj = Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.activation = activation_function(activation)

    def forward(self, drug: Tensor) -> Tensor:
        return self.norm(self.proj(self.activation(self.fc(self.embedding(drug)))))  # type: ignore[no-any-return]


class ExpressionDecoder(nn.Module):
    """A token's final vector to the predicted value of its gene."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        width = config.d_model
        self.linear_layers = nn.ModuleList(Linear(width, width) for _ in range(config.decoder_layers))
        self.out_proj = Linear(width, config.decoder_outputs)
        self.activation = activation_function(config.decoder_activation)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.linear_layers:
            x = self.activation(layer(x))
        x = self.out_proj(x)
        return x.squeeze(-1) if x.shape[-1] == 1 else x


class MvcDecoder(nn.Module):
    """Masked value prediction from the cell embedding: an inner product with a query made of the gene's vector."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        self.gene2query = Linear(config.d_model, config.d_model)
        self.W = Linear(config.d_model, config.d_model, bias=False)
        self.activation = activation_function(config.mvc_activation)
        self.scale = 1 / math.sqrt(config.d_model) if config.mvc_scaled else 1.0

    def forward(self, cell_emb: Tensor, gene_vectors: Tensor, cell_of_token: Tensor) -> Tensor:
        query = self.activation(self.gene2query(gene_vectors))
        # (W q) . c = q . (W^T c): one product a cell rather than one a token
        against = (cell_emb @ self.W.weight)[cell_of_token]
        return (query * against).sum(-1) * self.scale


class Tx1Network(nn.Module):
    """The whole model; with `eval()` it computes what the reference computes, with `train()` it has its dropout."""

    def __init__(self, config: Tx1Config):
        super().__init__()
        self.config = config
        self.gene_encoder = GeneEncoder(config)
        self.flag_encoder = nn.Embedding(2, config.d_model)
        self.expression_encoder = ValueEncoder(config)
        if config.chem is not None:
            self.chem_encoder = ChemEncoder(*config.chem, config.d_model)
        self.transformer_encoder = Encoder(config)
        self.expression_decoder = ExpressionDecoder(config)
        if config.mvc:
            self.mvc_decoder = MvcDecoder(config)

    def embed(
        self, gene: Tensor, value: Tensor, layout: Layout, masked: Tensor | None, drug: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """gene: int64 [T]; value: float32 [T]; masked: bool [T] or None; drug: int64 [cells] or None.

        Returns the genes' own vectors and what enters the first block, both [T, d_model].
        """
        gene_vectors = self.gene_encoder(gene)
        value_vectors = self.expression_encoder(value)
        if masked is not None:
            value_vectors = torch.where(masked[:, None], self.flag_encoder.weight[1], value_vectors)
        x = gene_vectors + value_vectors
        if drug is not None:
            x = x.index_copy(0, layout.first + 1, self.chem_encoder(drug))
        return gene_vectors, x

    def encode(
        self,
        x: Tensor,
        layout: Layout,
        masked: Tensor | None,
        n_layers: int,
        listen: Listener | None = None,
        *,
        first: int = 0,
    ) -> Tensor:
        """The blocks `first` to `n_layers` - 1, without the final norm."""
        hidden = self.hidden_keys(masked)
        for number in range(first, n_layers):
            x = self.transformer_encoder.layers[number](x, layout, hidden, heard_at(listen, number))
        return x

    def hidden_keys(self, masked: Tensor | None) -> Tensor | None:
        """Tokens that only they themselves may see: bool [T], or None."""
        return masked if self.config.mask_generated else None

    def decode(self, x: Tensor, gene_vectors: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cell embeddings [cells, d_model], predicted values [T], and the same from the cell embeddings."""
        if self.config.pre_norm:
            x = self.transformer_encoder.norm(x)
        cell_emb = self._cell_embedding(x, layout)
        mvc = self.mvc_decoder(cell_emb, gene_vectors, layout.cell_of_token) if self.config.mvc else None
        return cell_emb, self.expression_decoder(x), mvc

    def _cell_embedding(self, x: Tensor, layout: Layout) -> Tensor:
        if self.config.cell_emb_style == "cls":
            return x[layout.first]
        # the reference averages padded positions too, which makes a cell depend on its batch; here only real tokens count
        sums = x.new_zeros(layout.n_cells, x.shape[1]).index_add(0, layout.cell_of_token, x)
        return sums / torch.bincount(layout.cell_of_token, minlength=layout.n_cells)[:, None].to(x.dtype)


def heard_at(listen: Listener | None, layer: int) -> Callable[[str, Tensor], Tensor]:
    """A listener to one layer."""
    return _unheard if listen is None else partial(_relay, listen, layer)


def _unheard(hook: str, x: Tensor) -> Tensor:
    return x


def _relay(listen: Listener, layer: int, hook: str, x: Tensor) -> Tensor:
    return listen(hook, layer, x)
