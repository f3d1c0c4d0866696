"""Train the bundled small model: Tahoe-x1's architecture and objective on 560 blood cells of pbmc68k_reduced.

Some of each cell's genes have their value hidden and are predicted from the rest, once from the gene's own token and
once from the cell's embedding (masked expression and MVC losses, mean squared error of the quantile bin). One cell in
five is never trained on; what the model reaches there goes to MODEL_CARD.md. The same seed on the same machine with the
same number of threads gives the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from torch import Tensor, nn

from sae_genomics.atomic import atomic_path, write_json, write_text
from sae_genomics.data.split import split_items
from sae_genomics.guard import guarded
from sae_genomics.models.tx1 import load_folder
from sae_genomics.models.tx1_config import DEMO_FOLDER, PREFIX, parse_architecture
from sae_genomics.models.tx1_network import Layout, Tx1Network
from sae_genomics.models.tx1_tokenise import TokeniserSettings, tokenise
from sae_genomics.progress import Progress, say
from sae_genomics.tokens import Tokens, pointers

HELDOUT_FRACTION, HELDOUT_SEED = 0.2, 0  # as in configs/demo.yaml
TUNING_FRACTION = 0.25  # of the training cells
MASKED_SHARE = 0.5  # when measuring
REPEATS = 8  # draws of hidden genes when measuring


@dataclass(frozen=True)
class Recipe:
    """How the model is trained. Each field is an option of the script."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    steps: int = 2000
    batch_cells: int = 32
    lr: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.1  # on each block's attention and MLP outputs
    least_kept: float = 0.5  # of a cell's genes, this share to all of them are shown in a step
    least_masked: float = 0.3  # of the genes shown, this share to most_masked have their value hidden
    most_masked: float = 0.8
    averaging: float = 0.99  # of the weights, exponential
    seed: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO_FOLDER, help="folder to write (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure on a quarter of the training cells, trained without, and write nothing: for choosing the options "
        "below without looking at the held-out cells",
    )
    for field in fields(Recipe):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, default=field.default, help="default: %(default)s")
    arguments = vars(parser.parse_args())
    output, threads, tune = arguments.pop("output"), arguments.pop("threads"), arguments.pop("tune")
    return guarded(lambda: make(output, Recipe(**arguments), threads, tune))


def make(output: Path, recipe: Recipe, threads: int, tune: bool) -> int:
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    cells = read_cells()
    heldout = split_items(len(cells.labels), cells.labels, HELDOUT_FRACTION, HELDOUT_SEED)
    train, test = np.flatnonzero(~heldout), np.flatnonzero(heldout)
    if tune:
        inner = split_items(len(train), cells.labels[train], TUNING_FRACTION, HELDOUT_SEED + 1)
        train, test = train[~inner], train[inner]
    vocab, model_config, collator_config = release_configs(cells.symbols, recipe)
    settings = TokeniserSettings(
        cls_token_id=vocab["<cls>"], pad_token_id=vocab["<pad>"], max_length=collator_config["max_length"]
    )
    n_genes = len(cells.symbols)
    everything = np.arange(len(cells.labels))
    tokens = tokenise(cells.counts, np.arange(n_genes, dtype=np.int32), everything, settings=settings, seed=0)
    gene_means = mean_of_each_gene(tokens.take(train), n_genes)
    trainer = Trainer(recipe, tokens, train, n_genes, parse_architecture(model_config, collator_config))
    say(f"training {sum(p.numel() for p in trainer.network.parameters()):,} parameters on {len(train)} cells")

    def look(network: Tx1Network) -> str:
        found = measure(trainer.predict, tokens.take(test), gene_means, repeats=1)
        return f"{'tuning' if tune else 'held-out'} gain {found['gain']:.4f}, mvc {found['mvc_gain']:.4f}"

    # nothing is chosen by the held-out cells, so they are not looked at on the way
    trainer.train(look if tune else None)
    if tune:
        print(json.dumps(measure(trainer.predict, tokens.take(test), gene_means), indent=1))
        return 0
    trainer.save(output, vocab, model_config, collator_config)
    model = load_folder(output)  # what is measured is what was written

    def predict(batch: Tokens, masked: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        shown = Tokens(
            **{**vars(batch), "per_token": {"value": np.where(masked, np.float32(-1), batch.per_token["value"])}}
        )
        outputs = model.outputs(shown, masked=masked)
        assert outputs.mvc_output is not None
        return outputs.expr_preds.numpy(), outputs.mvc_output.numpy()

    found = {
        name: measure(predict, tokens.take(part), gene_means) for name, part in (("heldout", test), ("train", train))
    }
    write_json(
        output / "heldout_cells.json",
        {"fraction": HELDOUT_FRACTION, "seed": HELDOUT_SEED, "rows": test, "names": cells.names[test].tolist()},
    )
    write_text(output / "MODEL_CARD.md", model_card(recipe, found, model.info.n_parameters, n_genes, threads))
    print((output / "MODEL_CARD.md").read_text())
    return 0


@dataclass(frozen=True)
class Cells:
    """counts: float32 csr [cells, genes]; symbols: [genes]; labels, names: [cells]."""

    counts: csr_matrix
    symbols: list[str]
    labels: npt.NDArray[Any]
    names: npt.NDArray[Any]


def read_cells() -> Cells:
    """pbmc68k_reduced, its counts recovered from raw log1p values: a cell's smallest value is a count of one."""
    import scanpy

    data = scanpy.datasets.pbmc68k_reduced()
    counts = data.raw.X.tocsr().astype(np.float64)
    counts.data = np.expm1(counts.data)
    ones = np.minimum.reduceat(counts.data, counts.indptr[:-1])
    counts.data = np.round(counts.data / np.repeat(ones, np.diff(counts.indptr)))
    labels = data.obs["bulk_labels"].astype(str).to_numpy()
    return Cells(counts.astype(np.float32), [str(s) for s in data.raw.var_names], labels, data.obs_names.to_numpy())


def release_configs(symbols: list[str], recipe: Recipe) -> tuple[dict[str, int], dict[str, Any], dict[str, Any]]:
    """vocab.json, model_config.yml and collator_config.yml: those of Tahoe-x1's 70M model at a smaller size."""
    n = len(symbols)
    vocab = {symbol: i for i, symbol in enumerate(symbols)} | {"<pad>": n, "<cls>": n + 1, "<eoc>": n + 2}
    model = {
        "name": "tahoe_x1", "init_device": "cpu", "vocab_size": n + 3, "d_model": recipe.d_model,
        "n_layers": recipe.layers, "n_heads": recipe.heads, "expansion_ratio": 4, "transformer_activation": "relu",
        "norm_scheme": "pre", "use_glu": False, "cell_emb_style": "cls", "standard_scale_outputs": False, "precision": "amp_bf16",
        "attn_config": {"attn_impl": "flash", "attn_type": "grouped_query_attention", "kv_nheads": recipe.heads,
                        "attn_pdrop": 0.0, "use_attn_mask": False},
        "norm_config": {"norm_type": "layernorm", "eps": 1.0e-5},
        "gene_encoder": {"use_norm": True},
        "expression_encoder": {"input_emb_style": "continuous", "dropout": 0.1, "max_value": 512, "activation": "relu", "use_norm": True},
        "expression_decoder": {"n_outputs": 1, "n_layers": 1, "activation": "leaky_relu"},
        "mvc": {"arch_style": "inner product", "query_activation": "sigmoid", "scaled_dot_product": True},
    }  # fmt: skip
    collator = {
        "do_padding": True, "pad_value": -2, "pad_token_id": n, "do_mlm": True, "do_binning": True, "mlm_probability": 0.5,
        "mask_value": -1, "max_length": 512, "sampling": True, "data_style": "both", "num_bins": 51, "right_binning": False,
        "use_junk_tokens": False,
    }  # fmt: skip
    return vocab, model, collator


def mean_of_each_gene(tokens: Tokens, n_genes: int) -> npt.NDArray[np.float64]:
    """Mean value of each gene where it is expressed, in the training cells: the predictor to beat."""
    is_gene = tokens.token < n_genes
    total = np.bincount(tokens.token[is_gene], tokens.per_token["value"][is_gene], n_genes)
    times = np.bincount(tokens.token[is_gene], minlength=n_genes)
    return np.where(times > 0, total / np.maximum(times, 1), tokens.per_token["value"][is_gene].mean())


def hide(tokens: Tokens, n_genes: int, share: npt.ArrayLike, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose `share` of each cell's genes at random: bool [T]. The share may differ from cell to cell."""
    cell = np.repeat(np.arange(tokens.n_items), tokens.lengths)
    key = generator.random(len(tokens)) + (tokens.token >= n_genes)  # special tokens come last and are never chosen
    place = np.empty(len(tokens), dtype=np.int64)
    place[np.lexsort((key, cell))] = np.arange(len(tokens)) - np.repeat(tokens.item_ptr[:-1], tokens.lengths)
    chosen: npt.NDArray[np.bool_] = place < np.repeat(np.floor((tokens.lengths - 1) * share), tokens.lengths)
    return chosen


class Trainer:
    """The network, its average over steps, and how both are trained. Values are predicted as (value - mean) / sd."""

    def __init__(self, recipe: Recipe, tokens: Tokens, train: npt.NDArray[np.int64], n_genes: int, architecture: Any):
        self.recipe, self.tokens, self.cells, self.n_genes = recipe, tokens, train, n_genes
        seen = tokens.take(train)
        values = seen.per_token["value"][seen.token < n_genes]
        self.mean, self.sd = float(values.mean()), float(values.std())
        self.network = Tx1Network(architecture)
        initialise(self.network, recipe.layers)
        self.average = {name: weight.detach().clone() for name, weight in self.network.state_dict().items()}

    def train(self, look: Callable[[Tx1Network], str] | None) -> None:
        """Train, then put the averaged weights into the network. `look` describes the average now and then."""
        recipe = self.recipe
        generator = np.random.default_rng(recipe.seed)
        decayed = [p for name, p in self.network.named_parameters() if p.ndim == 2 and "flag" not in name]
        others = [p for name, p in self.network.named_parameters() if p.ndim != 2 or "flag" in name]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95))
        progress = Progress("train", recipe.steps, "steps")
        waiting = np.empty(0, dtype=np.int64)
        note = ""
        self.network.train()
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * self._schedule(step)
            if len(waiting) < recipe.batch_cells:
                waiting = np.concatenate([waiting, generator.permutation(self.cells)])
            batch, waiting = self.tokens.take(waiting[: recipe.batch_cells]), waiting[recipe.batch_cells :]
            loss, mvc_loss = self._step(self._thinned(batch, generator), generator, optimizer)
            self._average(step)
            if look is not None and (step + 1) % 100 == 0:
                note = look(self.network)
                say(f"step {step + 1}: {note}")
            progress.advance(1, f"loss {loss:.3f}, mvc {mvc_loss:.3f} (1 = the variance of values)")
        progress.finish()
        self.network.load_state_dict(self.average)
        self.network.eval()

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 2 %."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.recipe.steps))
        return min(1.0, (step + 1) / self.recipe.warmup_steps) * (0.02 + 0.98 * cosine)

    def _thinned(self, batch: Tokens, generator: np.random.Generator) -> Tokens:
        """A random part of each cell's genes: other company in every epoch, as sampling at max_length gives."""
        share = generator.uniform(self.recipe.least_kept, 1, batch.n_items)
        keep = hide(batch, self.n_genes, share, generator) | (batch.token >= self.n_genes)
        lengths = np.add.reduceat(keep.astype(np.int64), batch.item_ptr[:-1])
        names = ("item", "token", "unit", "position", "weight", "special")
        arrays = {name: getattr(batch, name)[keep] for name in names}
        values = {"value": batch.per_token["value"][keep]}
        return Tokens(**arrays, item_ptr=pointers(lengths), per_token=values)

    def _step(
        self, batch: Tokens, generator: np.random.Generator, optimizer: torch.optim.Optimizer
    ) -> tuple[float, float]:
        share = generator.uniform(self.recipe.least_masked, self.recipe.most_masked, batch.n_items)
        masked = hide(batch, self.n_genes, share, generator)
        hidden = torch.from_numpy(masked)
        target = (torch.from_numpy(batch.per_token["value"])[hidden] - self.mean) / self.sd
        expression, mvc = self._forward(batch, masked)
        loss, mvc_loss = F.mse_loss(expression[hidden], target), F.mse_loss(mvc[hidden] - self.mean / self.sd, target)
        optimizer.zero_grad()
        ((loss + mvc_loss) / 2).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step()
        return loss.item(), mvc_loss.item()

    def _forward(self, batch: Tokens, masked: npt.NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """(value - mean) / sd predicted from each token, value / sd from the cell embedding; both [T]."""
        layout = Layout(torch.from_numpy(batch.item_ptr), torch.device("cpu"), grouped=False)
        value = torch.from_numpy(np.where(masked, np.float32(-1), batch.per_token["value"]))
        gene_vectors, x = self.network.embed(
            torch.from_numpy(batch.token).long(), value, layout, torch.from_numpy(masked), None
        )
        x = self.network.encode(x, layout, None, self.recipe.layers, self._dropped if self.network.training else None)
        _, expression, mvc = self.network.decode(x, gene_vectors, layout)
        assert mvc is not None
        return expression, mvc

    def _dropped(self, hook: str, layer: int, x: Tensor) -> Tensor:
        return x if hook == "resid_post" else F.dropout(x, self.recipe.dropout)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        weight = 1 - min(self.recipe.averaging, (step + 1) / (step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, weight)

    @torch.no_grad()
    def predict(self, batch: Tokens, masked: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Predicted values, both ways, with the averaged weights: float32 [T] each."""
        now = {name: weight.clone() for name, weight in self.network.state_dict().items()}
        was_training = self.network.training
        self.network.load_state_dict(self.average)
        self.network.eval()
        expression, mvc = self._forward(batch, masked)
        self.network.load_state_dict(now)
        self.network.train(was_training)
        return (expression * self.sd + self.mean).numpy(), (mvc * self.sd).numpy()

    def save(self, folder: Path, vocab: dict[str, int], model: dict[str, Any], collator: dict[str, Any]) -> None:
        """Write the release's four files. The last layers take over scale and offset, so that values come out as such."""
        weights = {PREFIX + name: weight.clone().contiguous() for name, weight in self.average.items()}
        decoder = f"{PREFIX}expression_decoder.out_proj."
        weights[f"{decoder}weight"] *= self.sd
        weights[f"{decoder}bias"] = weights[f"{decoder}bias"] * self.sd + self.mean
        weights[f"{PREFIX}mvc_decoder.W.weight"] *= self.sd
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(weights, temporary)
        write_json(folder / "vocab.json", vocab)
        write_text(folder / "model_config.yml", yaml.safe_dump(model, sort_keys=False))
        write_text(folder / "collator_config.yml", yaml.safe_dump(collator, sort_keys=False))


def initialise(network: Tx1Network, layers: int) -> None:
    """Normal weights of variance 1 / fan-in, residual branches scaled down by depth, predictions near zero at first."""
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        if name.startswith("transformer_encoder") and name.endswith(("out_proj.weight", "down_proj.weight")):
            weight.data /= math.sqrt(2 * layers)
    nn.init.normal_(network.gene_encoder.embedding.weight, std=1.0)
    nn.init.normal_(network.flag_encoder.weight, std=0.5)
    nn.init.normal_(network.expression_encoder.linear1.weight, std=1.0)
    nn.init.uniform_(network.expression_encoder.linear1.bias, -50, 2)  # kinks all along the range of values
    network.expression_decoder.out_proj.weight.data *= 0.1
    network.mvc_decoder.W.weight.data *= 0.1


def measure(
    predict: Callable[[Tokens, npt.NDArray[np.bool_]], tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    tokens: Tokens,
    gene_means: npt.NDArray[np.float64],
    repeats: int = REPEATS,
) -> dict[str, float]:
    """Errors on hidden genes, half of each cell's, over `repeats` draws with a seed of their own.

    gain is 1 - MSE / MSE of each gene's mean; spearman is the mean over cells of the rank correlation between predicted
    values and counts, as Tahoe-x1's own metric takes it.
    """
    generator = np.random.default_rng(12345)
    errors = np.zeros(3)
    n_hidden = 0
    correlations: list[tuple[float, float]] = []
    for _ in range(repeats):
        masked = hide(tokens, len(gene_means), MASKED_SHARE, generator)
        expression, mvc = predict(tokens, masked)
        plain = gene_means[np.where(masked, tokens.token, 0)]
        for i, guess in enumerate((expression, mvc, plain)):
            errors[i] += ((guess[masked] - tokens.per_token["value"][masked]) ** 2).sum()
        n_hidden += int(masked.sum())
        for start, stop in zip(tokens.item_ptr[:-1], tokens.item_ptr[1:], strict=True):
            here = np.flatnonzero(masked[start:stop]) + start
            count = rankdata(tokens.weight[here])
            correlations.append(tuple(np.corrcoef(count, rankdata(guess[here]))[0, 1] for guess in (expression, plain)))
    mse, mvc_mse, mean_mse = errors / n_hidden
    spearman, mean_spearman = np.mean(correlations, axis=0)
    return {
        "mse": float(mse), "mvc_mse": float(mvc_mse), "gene_mean_mse": float(mean_mse), "gain": float(1 - mse / mean_mse),
        "mvc_gain": float(1 - mvc_mse / mean_mse), "spearman": float(spearman), "gene_mean_spearman": float(mean_spearman),
    }  # fmt: skip


def model_card(
    recipe: Recipe, found: dict[str, dict[str, float]], n_parameters: int, n_genes: int, threads: int
) -> str:
    held, train = found["heldout"], found["train"]
    recipe_lines = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    return f"""# The bundled demo model

A small model of Tahoe-x1's architecture ({recipe.layers} layers, d_model {recipe.d_model}, {recipe.heads} heads,
{n_parameters:,} parameters), trained from scratch so that the whole pipeline can be tried without a download.
It has learned something about blood cells, from 560 of them; it is no substitute for the published models, and what its
features mean says nothing about theirs.

- Architecture and file layout: those of `tahoebio/Tahoe-x1` (70M) at a smaller size. The weights are this project's own.
- Data: `scanpy.datasets.pbmc68k_reduced()`, 700 peripheral blood mononuclear cells x {n_genes} genes
  (10x Genomics, Zheng et al., Nature Communications 2017). Counts recovered from `raw`: expm1, divided by the cell's
  smallest value, rounded. Vocabulary: the {n_genes} gene symbols and `<pad>`, `<cls>`, `<eoc>`.
- Split: {HELDOUT_FRACTION:.0%} of the cells held out, stratified by `bulk_labels`
  (`split_items(700, labels, {HELDOUT_FRACTION}, {HELDOUT_SEED})`); named in `heldout_cells.json`. They were used neither for
  training nor for choosing the recipe, which was chosen on a quarter of the training cells (`--tune`).
- Objective: Tahoe-x1's own. The quantile bin (1 to 50) of hidden genes is predicted from their tokens and from the cell
  embedding; loss = (masked MSE + MVC MSE) / 2.

## What it reaches

With half of each cell's genes hidden, {REPEATS} draws; squared errors of the quantile bin:

| | held-out cells | training cells |
|---|---|---|
| masked MSE | {held["mse"]:.1f} | {train["mse"]:.1f} |
| MVC MSE (from the cell embedding alone) | {held["mvc_mse"]:.1f} | {train["mvc_mse"]:.1f} |
| MSE of predicting each gene's mean in the training cells | {held["gene_mean_mse"]:.1f} | {train["gene_mean_mse"]:.1f} |
| masked MSE below that by | {held["gain"]:.1%} | {train["gain"]:.1%} |
| MVC MSE below that by | {held["mvc_gain"]:.1%} | {train["mvc_gain"]:.1%} |
| Spearman, predicted value and count, mean over cells | {held["spearman"]:.3f} | {train["spearman"]:.3f} |
| Spearman of each gene's mean | {held["gene_mean_spearman"]:.3f} | {train["gene_mean_spearman"]:.3f} |

## Recipe

`python scripts/make_demo_model.py --threads {threads}`

{recipe_lines}
"""


if __name__ == "__main__":
    sys.exit(main())
