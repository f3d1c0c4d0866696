"""Layers trained at once are layers trained one after the other, bit for bit, stopped in the middle or not."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from sae_genomics import progress
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.at_once import run_at_once
from sae_genomics.errors import Interrupted
from sae_genomics.run import Run
from sae_genomics.sae import evaluate_layer, fit_layer
from sae_genomics.sae import loss_recovered as splicing
from sae_genomics.sae.task import run_task
from sae_genomics.stages import stage_named

MakeRun = Callable[..., Run]
LAYERS = (0, 1, 2)
TRAIN = stage_named("train")


def train(run: Run) -> None:
    def work(task: int) -> int:
        run_task(run, task)
        return 0

    assert run_at_once(run, TRAIN, LAYERS, work) == dict.fromkeys(LAYERS, 0)


def results(run: Run) -> list[dict[str, Any]]:
    """What each layer's training left, times and names left out."""
    timed = ("seconds", "tokens_per_s")
    found = []
    for layer in LAYERS:
        folder = run.sae_dir(layer)
        metrics = json.loads((folder / "metrics.json").read_text())
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found.append(
            {
                "weights": (folder / "sae_weights.safetensors").read_bytes(),
                "sparsity": (folder / "sparsity.safetensors").read_bytes(),
                "metrics": {key: metrics[key] for key in metrics if key not in timed},
                "logged": [{key: line[key] for key in line if key not in timed} for line in lines],
                "files": sorted(path.name for path in folder.iterdir()),
            }
        )
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"architecture": "batchtopk", "stability": True},
        {"architecture": "jumprelu"},
        {"centre": "unit", "stability": True},
    ],
)
def test_as_one_after_the_other(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    settings = {"steps": 60, "dead_after_tokens": 512, "lr": 3e-3, **settings}
    one = make_run(name="one", layers=LAYERS, layers_at_once=1, **settings)
    train(one)
    threads, real = set(), fit_layer.fit

    def seen(*arguments: Any, **keywords: Any) -> Any:
        threads.add(threading.get_ident())
        return real(*arguments, **keywords)

    monkeypatch.setattr(fit_layer, "fit", seen)
    three = make_run(name="three", layers=LAYERS, layers_at_once=3, **settings)
    train(three)
    assert len(threads) == 3
    assert results(one) == results(three)
    weights = [each["weights"] for each in results(one)]
    assert len(set(weights)) == 3  # each layer has a seed of its own


def test_all_stopped_in_the_middle_then_gone_on(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 80, "dead_after_tokens": 512, "lr": 3e-3}
    one = make_run(name="one", layers=LAYERS, layers_at_once=1, **settings)
    train(one)
    ask = threading.Barrier(3, action=lambda: monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM))

    class Stopping(ShuffledBatches):
        """All layers meet after 40 batches, those of the scaling among them; then a signal comes."""

        given = 0

        def __next__(self) -> torch.Tensor:
            self.given += 1
            if self.given == 40:
                ask.wait(60)
            return super().__next__()

    three = make_run(name="three", layers=LAYERS, layers_at_once=3, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(fit_layer, "ShuffledBatches", Stopping)
        with pytest.raises(Interrupted):
            train(three)
    for layer in LAYERS:
        with safe_open(three.sae_dir(layer) / "checkpoint" / fit_layer.CHECKPOINT_FILE, framework="pt") as file:
            assert 0 < json.loads(file.metadata()["sae_genomics"])["step"] < 80
    monkeypatch.setattr(progress, "_stop_signal", None)
    train(three)
    assert results(one) == results(three)


def test_one_model_at_a_time(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(layers=LAYERS, layers_at_once=3, steps=5, loss_recovered_cells=8)
    users, most, together = [0], [0], threading.Barrier(3)
    real = evaluate_layer.loss_recovered

    def meet(*arguments: Any) -> Any:
        together.wait(60)
        return real(*arguments)

    def loaded(run: Run, **keywords: Any) -> SimpleNamespace:
        users[0] += 1
        most[0] = max(most[0], users[0])
        return SimpleNamespace(why_no_loss="")

    def no_tokens(*arguments: Any) -> None:
        threading.Event().wait(0.05)
        users[0] -= 1

    monkeypatch.setattr(evaluate_layer, "loss_recovered", meet)
    monkeypatch.setattr(splicing, "loaded_model", loaded)
    monkeypatch.setattr(splicing, "heldout_tokens", no_tokens)
    train(run)
    assert (users, most) == ([0], [1])


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_on_a_gpu_each_has_a_stream_of_its_own(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    settings = {"steps": 200, "device": "cuda", "architecture": architecture}
    one = make_run(name="one", layers=LAYERS, layers_at_once=1, **settings)
    train(one)
    streams, real = set(), fit_layer.fit

    def seen(*arguments: Any, **keywords: Any) -> Any:
        streams.add(torch.cuda.current_stream().cuda_stream)
        return real(*arguments, **keywords)

    monkeypatch.setattr(fit_layer, "fit", seen)
    three = make_run(name="three", layers=LAYERS, **settings)  # as many as fit
    train(three)
    assert len(streams) == 3
    assert torch.cuda.default_stream().cuda_stream not in streams
    for before, after in zip(results(one), results(three), strict=True):
        for key in ("fvu", "l0", "train_fvu", "activation_scale"):
            assert after["metrics"][key] == pytest.approx(before["metrics"][key], rel=0.02), key
