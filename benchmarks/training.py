"""One TopK training step, and encoding alone, against SAELens, sparsify and the encoder's matrix product.

    python benchmarks/training.py [--d-in 512 --d-sae 16384 --k 64 --tokens 1024] [--dead SHARE] [--json]

Every contender takes whole steps (forward, loss, gradients, clipping or projection, Adam, decoder norms, dead-latent
counters) on the same batches in one process, in turn, so that what disturbs one disturbs all; the median of a contender's
rounds counts. The limit is the product x W_enc^T alone, by the faster of two libraries. sparsify is the package eai-sparsify; it
is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import torch

from sae_genomics.config import SaeConfig
from sae_genomics.models import pick_device
from sae_genomics.sae.export import fold
from sae_genomics.sae.product import linear, pieces
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.state import SaeState, initial_state
from sae_genomics.sae.steps import make_step

Contender = Callable[[torch.Tensor], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-in", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--d-sae", type=int, default=16384, help="default: %(default)s")
    parser.add_argument("--k", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens a step; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--dead", type=float, default=0.25, help="share of dead latents where AuxK is measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N")
    parser.add_argument("--no-peers", action="store_true", help="leave SAELens and sparsify out")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = compare(arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    device = pick_device(arguments.device)
    batches = make_batches(arguments, device)
    contenders: dict[str, Contender] = {"GEMM, torch.mm": gemm(arguments, device)}
    if device.type == "cpu":
        contenders["GEMM, oneDNN"] = onednn(arguments)
    contenders["ours"] = ours(arguments, device, batches[0])
    contenders["ours, bfloat16"] = ours(arguments, device, batches[0], compute_dtype="bfloat16")
    contenders["ours, BatchTopK"] = ours(arguments, device, batches[0], architecture="batchtopk")
    contenders[f"ours, {arguments.dead:.0%} dead"] = ours(arguments, device, batches[0], dead=arguments.dead)
    contenders["ours, encode only"] = our_encoder(arguments, device, batches[0])
    if not arguments.no_peers:
        contenders["SAELens"] = saelens(arguments, device, batches[0])
        contenders[f"SAELens, {arguments.dead:.0%} dead"] = saelens(arguments, device, batches[0], dead=arguments.dead)
        contenders["SAELens, encode only"] = saelens_encoder(arguments, device, batches[0])
        try:
            contenders["sparsify"] = sparsify(arguments, device, batches[0])
        except ImportError as error:
            print(f"sparsify is left out ({error}); pip install eai-sparsify")
    rates = measure(contenders, batches, arguments.rounds, device)
    limit = max(rate for name, rate in rates.items() if name.startswith("GEMM"))
    print(
        f"d_in {arguments.d_in}, d_sae {arguments.d_sae}, k {arguments.k}, {arguments.tokens} tokens a step, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, rate in rates.items():
        print(f"{name:24} {rate:10,.0f} tokens/s  {rate / limit:6.1%} of the encoder GEMM")
    for peer in ("SAELens", "sparsify"):
        if peer in rates:
            print(f"ours is {rates['ours'] / rates[peer]:.2f} x {peer}")
    peer_rate = rates.get("SAELens")
    return {
        "name": "training_step", "unit": "tokens/s", "ours": rates["ours"], "peer": peer_rate, "peer_name": "SAELens TopK step",
        "ratio": rates["ours"] / peer_rate if peer_rate else None, "limit": limit, "limit_name": "encoder GEMM",
        "share_of_limit": rates["ours"] / limit, "share_of_torch_mm": rates["ours"] / rates["GEMM, torch.mm"], "encode_share_of_limit": rates["ours, encode only"] / limit,
        "rates": rates, "d_in": arguments.d_in, "d_sae": arguments.d_sae, "k": arguments.k, "tokens": arguments.tokens,
        "threads": torch.get_num_threads(), "device": str(device), "torch": torch.__version__,
    }  # fmt: skip


def measure(
    contenders: dict[str, Contender], batches: list[torch.Tensor], rounds: int, device: torch.device
) -> dict[str, float]:
    """Tokens a second of each; all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 2):
        for name, work in contenders.items():
            started = time.perf_counter()
            work(batches[number % len(batches)])
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 2:  # the first rounds compile and fault pages in
                seconds[name].append(time.perf_counter() - started)
    return {name: len(batches[0]) / statistics.median(times) for name, times in seconds.items()}


def make_batches(arguments: argparse.Namespace, device: torch.device) -> list[torch.Tensor]:
    """Sparse sums of random directions, mean squared norm d_in: what an SAE is for."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4096, arguments.d_in, generator=generator)
    weights = [torch.randn(arguments.tokens, 4096, generator=generator).sub_(2).clamp_(min=0) for _ in range(4)]
    rows = [weight @ directions for weight in weights]
    scale = (arguments.d_in / rows[0].square().sum(dim=1).mean()).sqrt()
    return [(each * scale).to(device) for each in rows]


def spec_of(arguments: argparse.Namespace, **sae: object) -> Spec:
    config = SaeConfig.model_validate(
        {"d_sae": arguments.d_sae, "k": arguments.k, "batch_tokens": arguments.tokens, "steps": 10**6, **sae}
    )
    return make_spec(config, arguments.d_in, 10**9, seed=0)


def start(arguments: argparse.Namespace, batch: torch.Tensor) -> SaeState:
    return initial_state(spec_of(arguments), batch.mean(dim=0).cpu(), 0)


def gemm(arguments: argparse.Namespace, device: torch.device) -> Contender:
    W_enc = torch.randn(arguments.d_sae, arguments.d_in, device=device)
    out = torch.empty(arguments.tokens, arguments.d_sae, device=device)
    return lambda x: torch.mm(x, W_enc.T, out=out)


def onednn(arguments: argparse.Namespace) -> Contender:
    W_enc, bias = torch.randn(arguments.d_sae, arguments.d_in), torch.zeros(arguments.d_sae)

    def take(x: torch.Tensor) -> None:
        for piece in pieces(len(x), arguments.d_sae):
            linear(x[piece], W_enc, bias)

    return take


def ours(
    arguments: argparse.Namespace, device: torch.device, batch: torch.Tensor, dead: float = 0.0, **sae: object
) -> Contender:
    step = make_step(start(arguments, batch), spec_of(arguments, **sae), device)

    def take(x: torch.Tensor) -> None:
        step.state.tokens_since_fired[: round(dead * arguments.d_sae)] = 10**9
        step(x, 1e-4)

    return take


def our_encoder(arguments: argparse.Namespace, device: torch.device, batch: torch.Tensor) -> Contender:
    encoder = fold(start(arguments, batch), spec_of(arguments), 1.0).to(device)
    return encoder.encode_sparse


def saelens(arguments: argparse.Namespace, device: torch.device, batch: torch.Tensor, dead: float = 0.0) -> Contender:
    """What SAELens' SAETrainer does a step, from the same weights."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    state = start(arguments, batch)
    config = TopKTrainingSAEConfig(
        d_in=arguments.d_in, d_sae=arguments.d_sae, k=arguments.k, device=str(device), aux_loss_coefficient=1 / 32
    )
    sae = TopKTrainingSAE(config)
    with torch.no_grad():
        sae.W_enc.copy_(state.W_enc.T)
        sae.W_dec.copy_(state.W_dec)
        sae.b_dec.copy_(state.b_dec)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4, betas=(0.9, 0.999))
    silent = torch.zeros(arguments.d_sae, device=device)
    frequency = torch.zeros(arguments.d_sae, device=device)

    def take(x: torch.Tensor) -> None:
        nonlocal silent, frequency
        silent[: round(dead * arguments.d_sae)] = 10**6
        output = sae.training_forward_pass(TrainStepInput(x, {}, silent > 10**4, 0, False))
        with torch.no_grad():
            firing = output.feature_acts.bool().float()
            fired = firing.sum(-2).bool()
            silent += 1
            silent[fired] = 0
            frequency += firing.sum(0)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return take


def saelens_encoder(arguments: argparse.Namespace, device: torch.device, batch: torch.Tensor) -> Contender:
    from sae_lens import TopKSAE, TopKSAEConfig

    state = start(arguments, batch)
    sae = TopKSAE(TopKSAEConfig(d_in=arguments.d_in, d_sae=arguments.d_sae, k=arguments.k, device=str(device)))
    with torch.no_grad():
        sae.W_enc.copy_(state.W_enc.T)
        sae.W_dec.copy_(state.W_dec)
        sae.b_dec.copy_(state.b_dec)

    def take(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features: torch.Tensor = sae.encode(x)
        return features

    return take


def sparsify(arguments: argparse.Namespace, device: torch.device, batch: torch.Tensor) -> Contender:
    """What sparsify's Trainer does a step with its fused encoder and Adam, from the same weights."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    state = start(arguments, batch)
    coder = SparseCoder(arguments.d_in, SparseCoderConfig(num_latents=arguments.d_sae, k=arguments.k), device=device)
    with torch.no_grad():
        coder.encoder.weight.copy_(state.W_enc)
        coder.W_dec.copy_(state.W_dec)
        coder.b_dec.copy_(state.b_dec)
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-4)
    silent = torch.zeros(arguments.d_sae, dtype=torch.long, device=device)

    def take(x: torch.Tensor) -> None:
        nonlocal silent
        coder.set_decoder_norm_to_unit_norm()
        output = coder(x, dead_mask=silent > 10**9)
        (output.fvu + output.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        fired = torch.zeros(arguments.d_sae, dtype=torch.bool, device=device)
        fired[output.latent_indices.flatten()] = True
        silent += len(x)
        silent[fired] = 0

    return take


if __name__ == "__main__":
    raise SystemExit(main())
