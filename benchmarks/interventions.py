"""Effects of features on predictions: exact ones and the screen that the stage runs, against a loop of full forward passes.

    python benchmarks/interventions.py [--d-model 256 --layers 9 --d-sae 4096 --items 8 --tokens 600] [--device auto] [--json]

A random Tahoe-x1 model, edited behind two thirds of its layers. The loop is what a first script does: for each feature and each item two full
forward passes of that item alone, one clean and one whose hook encodes the activations and takes the feature away. It uses the very kernels that
ours uses; with --plain-loop it is timed once more with torch's own functions. Ours counts everything: the layers up to the hook, the clean run, the
encoding, the edited runs. The screen is `first_order_strength` with its own number of backward passes, batch by batch, as the stage runs it. All
contenders take turns, and the fastest round of each counts. The limit is going on from the hook, item by item, with
nothing around it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from scipy.stats import spearmanr

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.encoded import encode_paused
from sae_genomics.causal.exact import Clean, Effects, exact_effects
from sae_genomics.causal.strength import PROBES, Strength, first_order_strength
from sae_genomics.models import pick_device
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.editing import Paused
from sae_genomics.models.tx1 import NativeTx1
from sae_genomics.models.tx1_config import DEMO_FOLDER, read_release
from sae_genomics.sae.load import Encoder
from sae_genomics.tokens import Tokens, counted_tokens

HOOK = "resid_post"


@dataclass
class Bench:
    """What all contenders work on."""

    model: NativeTx1
    tokens: Tokens
    encoder: Encoder
    layer: int
    weights: np.ndarray
    """[T], of the target whose change the loop and the exact way compare"""
    batch_tokens: int

    def everywhere_and_rare(self) -> tuple[np.ndarray, np.ndarray]:
        """Features that are active in every item, and features that are active in at most a quarter of them, but in one."""
        encoded = encode_paused(self.model, self.model.pause(self.tokens, self.layer, HOOK), self.encoder)
        pairs = np.unique(encoded.feature.astype(np.int64) * self.tokens.n_items + encoded.sequence)
        n_items = np.bincount(pairs // self.tokens.n_items, minlength=self.encoder.d_sae)
        few = (n_items > 0) & (n_items <= max(1, self.tokens.n_items // 4))
        return np.flatnonzero(n_items == self.tokens.n_items), np.flatnonzero(few)


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    result = compare(arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    bench = make_bench(arguments)
    often, rare = bench.everywhere_and_rare()
    often, rare = often[: arguments.features], rare[: arguments.features]
    some = often[: arguments.loop_features]
    whole = bench.model.pause(bench.tokens, bench.layer, HOOK)
    paused = [whole.take([item]) for item in range(bench.tokens.n_items)]
    contenders: dict[str, Callable[[], object]] = {
        "loop": lambda: loop(bench, some),
        "exact": lambda: exact(bench, often),
        "exact, rare": lambda: exact(bench, rare),
        "screen": lambda: screen(bench),
        "limit": lambda: suffix_alone(bench, paused),
    }
    if arguments.plain_loop:
        contenders["loop, plain"] = lambda: without_kernels(bench, lambda: loop(bench, some))
    seconds, cores = measure(contenders, arguments.rounds, bench.model.device)
    looped = loop(bench, some)
    found, strength = exact(bench, often)
    worst = float(np.abs(looped - found[: len(some)]).max() / max(np.abs(looped).max(), 1e-30))
    per_feature = {
        "loop": seconds["loop"] / len(some),
        "exact": seconds["exact"] / len(often),
        "rare": seconds["exact, rare"] / max(len(rare), 1),
        "screen": seconds["screen"] / bench.encoder.d_sae,
        "limit": seconds["limit"],
        "plain": seconds["loop, plain"] / len(some) if arguments.plain_loop else None,
    }
    result = as_result(arguments, bench, per_feature, (len(often), len(rare)))
    result["largest_relative_difference"] = worst
    loop_cores = cores["loop"] / len(some)
    result["ratio_of_core_time"] = loop_cores * len(often) / cores["exact"]
    result["ratio_of_core_time_screen"] = loop_cores * bench.encoder.d_sae / cores["screen"]
    result["probes"] = PROBES
    result["spearman"] = float(spearmanr(screen(bench).first_order[often], strength).statistic)
    show(arguments, bench, result)
    return result


def as_result(
    arguments: argparse.Namespace, bench: Bench, per_feature: dict[str, float | None], n: tuple[int, int]
) -> dict[str, object]:
    rate = {name: None if value is None else 1 / value for name, value in per_feature.items()}
    loop_rate = rate["loop"]
    assert loop_rate is not None
    plain = rate["plain"]
    return {
        "name": "interventions", "unit": "features/s", "ours": rate["exact"], "peer": loop_rate,
        "peer_name": "two full forward passes per feature and item", "ratio": rate["exact"] / loop_rate, "limit": rate["limit"],
        "limit_name": "going on from the hook, item by item", "share_of_limit": rate["exact"] / rate["limit"],
        "rare": rate["rare"] if n[1] else None, "ratio_rare": rate["rare"] / loop_rate if n[1] else None,
        "screen": rate["screen"], "ratio_screen": rate["screen"] / loop_rate,
        "plain_loop": plain, "ratio_to_plain_loop": None if plain is None else rate["exact"] / plain,
        "features": n[0], "features_rare": n[1], "d_model": arguments.d_model, "layers": arguments.layers, "layer": bench.layer,
        "d_sae": bench.encoder.d_sae, "k": bench.encoder.k, "items": bench.tokens.n_items, "tokens": arguments.tokens,
        "threads": torch.get_num_threads(), "device": str(bench.model.device), "torch": torch.__version__,
    }  # fmt: skip


def show(arguments: argparse.Namespace, bench: Bench, result: dict[str, object]) -> None:
    print(
        f"d_model {arguments.d_model}, {arguments.layers} layers, edited behind layer {bench.layer}, d_sae {bench.encoder.d_sae}, "
        f"{bench.tokens.n_items} items of {arguments.tokens} tokens, {bench.model.device}, {torch.get_num_threads()} threads"
    )
    lines = [("loop of full passes", "peer", None), ("loop, torch's own functions", "plain_loop", None)]
    lines += [
        (f"exact, {result['features']} active in every item", "ours", "ratio"),
        (f"exact, {result['features_rare']} active in few", "rare", "ratio_rare"),
    ]
    lines += [("going on from the hook alone", "limit", None), ("screen of all features", "screen", "ratio_screen")]
    for name, key, ratio in lines:
        if result[key] is not None:
            times = f"  {result[ratio]:10,.1f} x the loop" if ratio is not None and result[ratio] else ""
            print(f"{name:40} {result[key]:14,.3f} features/s{times}")
    if result["ratio_to_plain_loop"] is not None:
        print(f"exact is {result['ratio_to_plain_loop']:.1f} x the loop of torch's own functions")
    print(
        f"by time of cores: exact {result['ratio_of_core_time']:.1f} x, screen {result['ratio_of_core_time_screen']:,.0f} x the loop "
        "(what other work on the machine disturbs less)"
    )
    print(f"largest relative difference from the loop: {result['largest_relative_difference']:.1e}")
    print(f"rank correlation of first-order and exact effects, {PROBES} probes: {result['spearman']:.3f}")


def loop(bench: Bench, features: np.ndarray) -> np.ndarray:
    """The target's change when each feature is ablated, mean over items, by two full passes per feature and item."""
    model, encoder = bench.model, bench.encoder
    sums = np.zeros(len(features))
    for number, feature in enumerate(features.tolist()):
        for item in range(bench.tokens.n_items):
            one = bench.tokens.take([item])
            usual = torch.from_numpy(~one.special).to(model.device)
            rows = slice(int(bench.tokens.item_ptr[item]), int(bench.tokens.item_ptr[item + 1]))

            def ablate(x: torch.Tensor, feature: int = feature, usual: torch.Tensor = usual) -> torch.Tensor:
                hidden = (x.float() - encoder.b_dec) @ encoder.W_enc + encoder.b_enc
                least = hidden.topk(encoder.k, dim=1).values[:, -1].clamp(min=0)
                z = torch.where((hidden[:, feature] >= least) & usual, hidden[:, feature], 0.0)
                return x - z[:, None] * encoder.W_dec[feature]

            clean = model.outputs(one, hook=HOOK).expr_preds
            edited = model.outputs(one, hook=HOOK, interventions={bench.layer: ablate}).expr_preds
            sums[number] += float((edited - clean).double().cpu().numpy() @ bench.weights[rows])
    return sums / bench.tokens.n_items


def exact(bench: Bench, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from one clean run and the layers behind the hook, and the effects' size as `Strength` has it: [features] each."""
    sums, squares, n_items = (np.zeros(len(features)) for _ in range(3))
    counted = counted_tokens(bench.tokens)

    def add(effects: Effects) -> None:
        assert effects.token is not None
        np.add.at(sums, effects.edit, effects.sums(effects.token * bench.weights[effects.row]))
        np.add.at(squares, effects.edit, effects.sums(effects.token.astype(np.float64) ** 2 * counted[effects.row]))
        np.add.at(n_items, effects.edit, 1)

    clean = Clean.of(bench.model, bench.model.pause(bench.tokens, bench.layer, HOOK), bench.encoder)
    edits = [Edit("ablate", np.array([feature])) for feature in features.tolist()]
    exact_effects(clean, edits, add, batch_tokens=bench.batch_tokens)
    return sums / bench.tokens.n_items, np.sqrt(squares / np.maximum(n_items, 1))


def screen(bench: Bench) -> Strength:
    """Of all features."""
    generator, parts = np.random.default_rng(0), []
    for part in cut_windows(bench.tokens.lengths, bench.batch_tokens):
        paused = bench.model.pause(bench.tokens.take(np.arange(part.start, part.stop)), bench.layer, HOOK)
        parts.append(first_order_strength(bench.model, paused, bench.encoder, generator))
    return Strength.joined(parts)


def suffix_alone(bench: Bench, paused: list[Paused]) -> None:
    """One feature's edited runs, without edits and without anything else."""
    with torch.no_grad():
        for one in paused:
            bench.model.resume(one)


def without_kernels(bench: Bench, work: Callable[[], object]) -> object:
    """The same with torch's own functions."""
    changed = []
    for module in bench.model.network.modules():
        for kernel in ("onednn", "compiled"):
            if getattr(module, kernel, False) is True:
                setattr(module, kernel, False)
                changed.append((module, kernel))
    try:
        return work()
    finally:
        for module, kernel in changed:
            setattr(module, kernel, True)


def measure(
    contenders: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each contender's fastest round on the clock, and of all cores together.

    All take turns, and the first turn, which compiles, does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    of_cores: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started, cores = time.perf_counter(), time.process_time()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
                of_cores[name].append(time.process_time() - cores)
    clock, core_time = ({name: min(times) for name, times in each.items()} for each in (seconds, of_cores))
    return clock, core_time


def make_bench(arguments: argparse.Namespace) -> Bench:
    device = pick_device(arguments.device)
    release = read_release(DEMO_FOLDER, with_drugs=False)
    config = replace(
        release.config, d_model=arguments.d_model, n_layers=arguments.layers, n_heads=max(1, arguments.d_model // 64),
        kv_n_heads=max(1, arguments.d_model // 64), d_mlp=4 * arguments.d_model,
    )  # fmt: skip
    info = ModelInfo("tx1", "random", config.n_layers, config.d_model, config.n_heads, 1 << 20, 0, "random")
    dtype = getattr(torch, arguments.dtype)
    model = NativeTx1(replace(release, config=config), info, device, dtype, untrained_seed=0)
    generator = np.random.default_rng(0)
    n = arguments.items * arguments.tokens
    tokens = Tokens(
        item=np.repeat(np.arange(arguments.items), arguments.tokens),
        token=generator.integers(3, config.vocab_size, n).astype(np.int32),
        unit=np.zeros(n, np.int32),
        position=np.tile(np.arange(arguments.tokens, dtype=np.int32), arguments.items),
        weight=np.ones(n, np.float32),
        special=np.tile(np.arange(arguments.tokens) == 0, arguments.items),
        item_ptr=np.arange(arguments.items + 1, dtype=np.int64) * arguments.tokens,
        per_token={"value": generator.integers(1, 50, n).astype(np.float32)},
    )
    layer = max(0, 2 * arguments.layers // 3 - 1)
    weights = (generator.random(n) < 0.1) * (10 / arguments.tokens)
    encoder = make_encoder(arguments, model, tokens, layer)
    return Bench(model, tokens, encoder, layer, weights, arguments.batch_tokens)


def make_encoder(arguments: argparse.Namespace, model: NativeTx1, tokens: Tokens, layer: int) -> Encoder:
    """Random directions around the mean activation; half of the features fire ever more seldom."""
    x = model.pause(tokens, layer, HOOK).activations.float()
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(arguments.d_sae, arguments.d_model, generator=generator).to(x.device)
    W_dec = torch.nn.functional.normalize(directions, dim=1)
    spread = float(((x - x.mean(0)) @ W_dec.T).std())
    seldom = torch.linspace(-4, 4, arguments.d_sae, device=x.device).clamp(min=0)
    return Encoder(
        "topk", W_dec.T.contiguous(), -spread * seldom, W_dec, x.mean(0), k=min(arguments.k, arguments.d_sae)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--d-sae", type=int, default=4096, help="default: %(default)s")
    parser.add_argument("--k", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=600, help="of an item; default: %(default)s")
    parser.add_argument(
        "--features", type=int, default=48, help="whose exact effects are measured; default: %(default)s"
    )
    parser.add_argument("--loop-features", type=int, default=2, help="of the loop; default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="auto | cpu | cuda; default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--plain-loop", action="store_true", help="time the loop without kernels too")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
