"""Train the bundled small protein model: ESM2's architecture and objective, on the demo's synthetic proteins.

Some residues of each protein are hidden and predicted from the rest (masked language model; 15 % are chosen, of these 80 % show <mask>,
10 % a random residue, 10 % themselves). Whole families are held out; what the model reaches there goes to MODEL_CARD.md, beside what
residue frequencies and the two neighbours reach. The same seed on the same machine with the same number of threads gives the same
weights. With --fasta it trains on any proteins.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_genomics.atomic import put_in_place, temporary_folder, write_text
from sae_genomics.cli import guarded
from sae_genomics.data.proteins.synthetic.baselines import Counts, neighbour_loss
from sae_genomics.data.proteins.synthetic.reading import Proteins, read_proteins
from sae_genomics.data.proteins.synthetic.writing import FOLDER as DEMO_PROTEINS
from sae_genomics.data.split import split_items
from sae_genomics.progress import Progress, say

ROOT = Path(__file__).parents[1]
DEMO_FOLDER = ROOT / "sae_genomics" / "assets" / "demo_protein_model"
HELDOUT_FRACTION, HELDOUT_SEED = 0.25, 0  # as in configs/demo_proteins.yaml
TUNING_FRACTION = 0.25  # of the training families
HIDDEN_SHARE = 0.15
DRAWS = 4  # of hidden residues when measuring
VOCABULARY = (
    "<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>",
)  # fmt: skip
RESIDUES = "LAGVSERTIDPKQNFYMHWC"
FIRST = VOCABULARY.index(RESIDUES[0])  # the residues' tokens follow each other
CLS, PAD, EOS, MASK = (VOCABULARY.index(name) for name in ("<cls>", "<pad>", "<eos>", "<mask>"))


@dataclass(frozen=True)
class Recipe:
    """How the model is trained. Each field is an option of the script."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    steps: int = 4000
    batch_tokens: int = 2048
    initial: float = 0.1  # standard deviation of the first weights
    crop: int = 256  # residues of a longer protein that one step shows
    lr: float = 3e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    dropout: float = 0.0
    averaging: float = 0.995  # of the weights, exponential
    seed: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help=f"folder to write (default: {DEMO_FOLDER} for the demo's proteins)")
    parser.add_argument("--fasta", type=Path, help="proteins, plain or .gz (default: the demo's)")
    parser.add_argument("--labels", type=Path, help="tab-separated table with a column `accession` (with --fasta)")
    parser.add_argument("--group-key", help="column of --labels; its groups are held out whole (with --fasta)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure on a quarter of the training families, trained without, and write nothing: for choosing the options "
        "below without looking at the held-out families",
    )
    for field in fields(Recipe):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, default=field.default, help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.fasta is not None and arguments.output is None and not arguments.tune:
        parser.error("--fasta needs --output FOLDER")
    recipe = Recipe(**{field.name: getattr(arguments, field.name) for field in fields(Recipe)})
    return guarded(lambda: make(arguments, recipe))


def make(arguments: argparse.Namespace, recipe: Recipe) -> int:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)
    demo = arguments.fasta is None
    proteins = demo_proteins() if demo else read_proteins(arguments.fasta, arguments.labels, arguments.group_key)
    train, test = split(proteins)
    if arguments.tune:
        inner = np.array(proteins.groups)[train]
        held = split_items(len(train), None, TUNING_FRACTION, HELDOUT_SEED + 1, groups=inner)
        train, test = train[~held], train[held]
    tokens = encode(proteins.sequences)
    trainer = Trainer(recipe, [tokens[i] for i in train])
    n_parameters = sum(p.numel() for p in trainer.network.parameters())
    say(f"training {n_parameters:,} parameters on {len(train):,} proteins, {len(test):,} held out")
    trainer.train()
    parts = (("heldout", test), ("train", train[:: max(len(train) // max(len(test), 1), 1)]))
    counts = Counts.of([tokens[i] - FIRST for i in train], len(RESIDUES))
    found = {name: measure(trainer.network, [tokens[i] for i in part], counts) for name, part in parts}
    print(json.dumps(found, indent=1))
    if not arguments.tune:
        card = model_card(recipe, found, n_parameters, proteins, train, test, arguments)
        save(trainer.network, arguments.output or DEMO_FOLDER, card)
    return 0


def demo_proteins() -> Proteins:
    return read_proteins(DEMO_PROTEINS / "proteins.fasta.gz", DEMO_PROTEINS / "labels.tsv.gz", "family")


def split(proteins: Proteins) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the training and of the held-out proteins: the split that a run with this fraction and seed makes."""
    held = split_items(len(proteins.sequences), None, HELDOUT_FRACTION, HELDOUT_SEED, groups=proteins.groups)
    return np.flatnonzero(~held), np.flatnonzero(held)


def encode(sequences: list[str]) -> list[npt.NDArray[np.int64]]:
    """Token of each residue, without special tokens. Letters that are no amino acid become X."""
    table = np.full(256, VOCABULARY.index("X"))
    for residue in VOCABULARY[FIRST:-2]:
        table[ord(residue)] = VOCABULARY.index(residue)
    return [table[np.frombuffer(sequence.encode(), dtype=np.uint8)] for sequence in sequences]


def padded(sequences: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """<cls> residues <eos> <pad>...: [sequences, longest + 2]."""
    rows = np.full((len(sequences), max(map(len, sequences)) + 2), PAD)
    for row, sequence in zip(rows, sequences, strict=True):
        row[0], row[1 : len(sequence) + 1], row[len(sequence) + 1] = CLS, sequence, EOS
    return rows


def hide(rows: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Residues whose identity is asked for. X and other rare letters are never."""
    residues = (rows >= FIRST) & (rows < FIRST + len(RESIDUES))
    return residues & (generator.random(rows.shape) < HIDDEN_SHARE)


class Trainer:
    """The network, its average over steps, and how both are trained."""

    def __init__(self, recipe: Recipe, sequences: list[npt.NDArray[np.int64]]):
        from transformers import EsmConfig, EsmForMaskedLM

        self.recipe, self.sequences = recipe, sequences
        self.network = EsmForMaskedLM(
            EsmConfig(
                vocab_size=len(VOCABULARY), pad_token_id=PAD, mask_token_id=MASK, hidden_size=recipe.d_model,
                num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, intermediate_size=4 * recipe.d_model,
                hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=0.0, max_position_embeddings=1026,
                initializer_range=recipe.initial, layer_norm_eps=1e-5, position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
                vocab_list=list(VOCABULARY), bos_token_id=CLS, eos_token_id=EOS,
            )
        )  # fmt: skip
        self.average = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}

    def train(self) -> None:
        """Train, then put the averaged weights into the network."""
        recipe = self.recipe
        generator = np.random.default_rng(recipe.seed)
        decayed = [p for p in self.network.parameters() if p.ndim == 2]
        others = [p for p in self.network.parameters() if p.ndim != 2]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
        progress = Progress("train", recipe.steps, "steps")
        waiting: list[npt.NDArray[np.int64]] = []
        self.network.train()
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * self._schedule(step)
            waiting = waiting or self._batches(generator)
            loss = self._step(waiting.pop(), generator, optimizer)
            self._average(step)
            progress.advance(1, f"loss {loss:.3f} nats")
        progress.finish()
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(self.average[name])
        self.network.eval()

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 2 %."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.recipe.steps))
        return min(1.0, (step + 1) / self.recipe.warmup_steps) * (0.02 + 0.98 * cosine)

    def _batches(self, generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        """All proteins once, those of nearly one length together, about `batch_tokens` in a batch, the batches shuffled."""
        lengths = np.minimum([len(sequence) for sequence in self.sequences], self.recipe.crop) + 2
        order = np.argsort(lengths * generator.uniform(0.9, 1.1, len(lengths)))
        batch = np.cumsum(lengths[order]) // self.recipe.batch_tokens
        batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
        return [batches[i] for i in generator.permutation(len(batches))]

    def _step(
        self, chosen: npt.NDArray[np.int64], generator: np.random.Generator, optimizer: torch.optim.Optimizer
    ) -> float:
        rows = padded([self._cropped(self.sequences[i], generator) for i in chosen])
        hidden = hide(rows, generator)
        fate = generator.random(rows.shape)
        shown = np.where(hidden & (fate < 0.8), MASK, rows)
        anything = FIRST + generator.integers(0, len(RESIDUES), rows.shape)
        shown = np.where(hidden & (fate >= 0.9), anything, shown)
        loss = torch.nn.functional.cross_entropy(*predicted(self.network, rows, shown, hidden))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def _cropped(self, sequence: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        spare = max(len(sequence) - self.recipe.crop, 0)
        first = int(generator.integers(0, spare + 1))
        return sequence[first : first + self.recipe.crop]

    @torch.no_grad()
    def _average(self, step: int) -> None:
        weight = 1 - min(self.recipe.averaging, (step + 1) / (step + 10))
        for name, value in self.network.named_parameters():
            self.average[name].lerp_(value, weight)


def predicted(
    network: torch.nn.Module, rows: npt.NDArray[np.int64], shown: npt.NDArray[np.int64], hidden: npt.NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """Logits over the vocabulary and true tokens of the hidden residues."""
    states = network.esm(torch.from_numpy(shown), attention_mask=torch.from_numpy((rows != PAD).astype(np.int64)))
    return network.lm_head(states.last_hidden_state[torch.from_numpy(hidden)]), torch.from_numpy(rows[hidden])


@torch.no_grad()
def measure(network: torch.nn.Module, sequences: list[npt.NDArray[np.int64]], counts: Counts) -> dict[str, float]:
    """Mean cross-entropy of hidden residues in nats: of the model, of residue frequencies, and of the two neighbours.

    All three see the same proteins with the same residues hidden, in `DRAWS` draws. Proteins longer than the model reads are cut.
    """
    generator = np.random.default_rng(12345)
    most = network.config.max_position_embeddings - 4
    order = np.argsort([len(sequence) for sequence in sequences], kind="stable")
    losses, baselines = [], []
    for _ in range(DRAWS):
        for chosen in np.array_split(order, max(len(order) // 16, 1)):
            rows = padded([sequences[i][:most] for i in chosen])
            hidden = hide(rows, generator)
            logits, truth = predicted(network, rows, np.where(hidden, MASK, rows), hidden)
            losses.append(torch.nn.functional.cross_entropy(logits, truth, reduction="none").double().numpy())
            baselines.append(neighbour_loss(counts, rows - FIRST, hidden))
    loss = float(np.concatenate(losses).mean())
    frequency, neighbours = np.concatenate(baselines, axis=1).mean(axis=1)
    return {"loss": loss, "perplexity": math.exp(loss), "frequency": float(frequency), "neighbours": float(neighbours)}


def save(network: torch.nn.Module, folder: Path, card: str) -> None:
    """The files that `save_pretrained` leaves, and the card."""
    from transformers import EsmTokenizer

    network.config.hidden_dropout_prob = 0.0  # as ESM2's: dropout is part of the recipe alone
    with temporary_folder(folder.parent, folder.name) as temporary:
        (temporary / "vocabulary.txt").write_text("\n".join(VOCABULARY))
        EsmTokenizer(str(temporary / "vocabulary.txt"), model_max_length=1024).save_pretrained(temporary)
        (temporary / "vocabulary.txt").unlink()
        network.save_pretrained(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(temporary.iterdir()):
            file.chmod(0o644)  # safetensors leaves it unreadable for others
            put_in_place(file, folder / file.name)
    write_text(folder / "MODEL_CARD.md", card)
    print(card)


def model_card(
    recipe: Recipe, found: dict[str, dict[str, float]], n_parameters: int, proteins: Proteins,
    train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], arguments: argparse.Namespace,
) -> str:  # fmt: skip
    held, seen = found["heldout"], found["train"]
    groups = np.array(proteins.groups)
    data = (
        "the demo's synthetic proteins (`builtin:demo_proteins`). They are no proteins of a living being: random residues of\n"
        "  published frequencies with planted domains that follow PROSITE patterns"
        if arguments.fasta is None
        else f"`{arguments.fasta.name}`"
    )
    rows = "\n".join(
        f"| {name} | {held[key]:.4f} | {math.exp(held[key]):.2f} | {seen[key]:.4f} | {math.exp(seen[key]):.2f} |"
        for name, key in (
            ("this model", "loss"),
            ("residue frequencies of the training proteins", "frequency"),
            ("left and right neighbour (counts in the training proteins)", "neighbours"),
        )
    )
    recipe_lines = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    changed = {name: value for name, value in asdict(recipe).items() if value != getattr(Recipe(), name)}
    options = {"fasta": arguments.fasta, "labels": arguments.labels, "group_key": arguments.group_key} | changed
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items() if value is not None]
    command = " ".join(["python scripts/make_demo_protein_model.py", *words])
    return f"""# A small protein language model of ESM2's architecture

{recipe.layers} layers, d_model {recipe.d_model}, {recipe.heads} heads, {n_parameters:,} parameters, trained from scratch so that the whole
pipeline can be tried without a download. It is no substitute for the published ESM2 models, and what its features mean says nothing
about theirs.

- Architecture, vocabulary and file layout: those of `facebook/esm2_t6_8M_UR50D` at a smaller size. The weights are this project's own.
- Data: {data}.
- Split: whole families. {len(set(groups[train]))} families ({len(train):,} proteins) for training, {len(set(groups[test]))} families
  ({len(test):,} proteins) held out (`split_items(..., {HELDOUT_FRACTION}, {HELDOUT_SEED}, groups=family)`). The held-out families were used
  neither for training nor for choosing the recipe (`--tune` measures on a quarter of the training families).
- Objective: ESM2's own, masked residues.

## What it reaches

{HIDDEN_SHARE:.0%} of the residues hidden, {DRAWS} draws; cross-entropy of the hidden residues, in nats per masked residue, and perplexity:

| | held-out families | perplexity | training families | perplexity |
|---|---|---|---|---|
{rows}

The neighbours' smoothing is the one that is best for them on these very residues.

## Recipe

`{command} --threads {arguments.threads}`

{recipe_lines}
"""


if __name__ == "__main__":
    sys.exit(main())
