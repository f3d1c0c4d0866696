"""The stage as a whole, on stored activations: files, SAELens, metrics, resuming."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch

from sae_genomics import progress
from sae_genomics.activations.reading.heldout import heldout_blocks
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.run import Run
from sae_genomics.sae import fit_layer, unit_variance
from sae_genomics.sae.files import SAE_FILES, SECOND_SEED, TRAINED_FILES
from sae_genomics.sae.fit_layer import TRAINING_FILE
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.stability import stability
from sae_genomics.sae.task import run_task
from sae_genomics.sae.train import fit
from sae_genomics.stages import stage_named

MakeRun = Callable[..., Run]


def untouched(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of what training leaves: they change when a file is written again."""
    stats = {name: (folder / name).stat() for name in (*TRAINED_FILES, TRAINING_FILE)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def dense(triples: tuple[Any, Any, Any], shape: tuple[int, int]) -> np.ndarray:
    token, feature, activation = triples
    out = np.zeros(shape, np.float32)
    out[token, feature] = activation
    return out


def test_a_layer_is_trained_saved_and_measured(make_run: MakeRun) -> None:
    run = make_run(steps=60)
    run_task(run, 0)
    folder = run.sae_dir(1)
    assert {path.name for path in folder.iterdir()} == {*SAE_FILES, TRAINING_FILE, "metrics.jsonl"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["heldout_tokens"] == 10 * 30  # a quarter of 40 cells, <cls> rows left out
    assert 0 < metrics["fvu"] < 0.9
    assert metrics["l0"] <= 4
    assert metrics["tokens_trained"] == 60 * 128
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(5, 61, 5))
    assert lines[-1]["loss"] < lines[0]["loss"]
    run.write_manifest(stage_named("train"), 0, {})
    assert run.state(stage_named("train"), 0).done


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "jumprelu"])
def test_saelens_reads_it_and_gives_the_same_features(make_run: MakeRun, architecture: str) -> None:
    run = make_run(architecture=architecture, steps=300)
    run_task(run, 0)
    sae = sae_lens.SAE.load_from_disk(str(run.sae_dir(1)))
    assert sae.cfg.architecture() == ("topk" if architecture == "topk" else "jumprelu")
    assert sae.cfg.metadata.training_architecture == architecture
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
    assert sae.cfg.metadata.model_name == "toy"
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    x = torch.from_numpy(np.concatenate(list(heldout_blocks(run, 1, 10**6, 100))))
    encoder = load_encoder(run.sae_dir(1))
    triples = encoder.encode_sparse(x)
    theirs = sae.encode(x)
    np.testing.assert_allclose(dense(triples, tuple(theirs.shape)), theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        encoder.decode_sparse(*triples, len(x)), sae.decode(theirs).detach(), rtol=1e-5, atol=1e-5
    )
    # and metrics.json is what SAELens' own reconstruction gives
    error = (sae(x) - x).detach().double().square().sum()
    variance = (x - x.mean(dim=0)).double().square().sum()
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert metrics["fvu"] == pytest.approx(float(error / variance), rel=1e-4)
    assert metrics["fvu"] < 0.5
    assert metrics["l0"] == pytest.approx(float((theirs > 0).sum(dim=1).double().mean()), abs=0.01)
    assert 1 < metrics["l0"] < 8


def test_without_heldout_cells_the_metrics_say_so(make_run: MakeRun) -> None:
    run = make_run(heldout=0.0)
    run_task(run, 0)
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert metrics["fvu"] is None
    assert metrics["heldout_tokens"] == 0
    assert "held-out" in metrics["note"]
    assert metrics["train_fvu"] > 0


def test_six_cells(make_run: MakeRun) -> None:
    run = make_run(n_cells=6, genes=10, heldout=0.2, steps=10, batch_tokens=4096)
    run_task(run, 0)
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert metrics["batch_tokens"] == 5 * 10  # all training rows


def test_more_active_latents_than_latents(make_run: MakeRun) -> None:
    run = make_run(d_sae=None, expansion=0.5, k=9)
    with pytest.raises(UserError, match=r"sae\.k = 9 is more than the 8 latents that sae\.expansion 0\.5 x 16"):
        run_task(run, 0)
    assert not run.sae_dir(1).exists()


def test_a_learning_rate_that_breaks_it(make_run: MakeRun) -> None:
    run = make_run(lr=1e30, lr_warmup_steps=0)
    with pytest.raises(UserError, match=r"layer 1, step \d+: the loss is no longer a number at learning rate 1e\+30"):
        run_task(run, 0)
    assert not (run.sae_dir(1) / "cfg.json").exists()


def test_stability_is_what_a_second_seed_finds_again(make_run: MakeRun) -> None:
    once = make_run(steps=200)
    run_task(once, 0)
    weights = (once.sae_dir(1) / "sae_weights.safetensors").read_bytes()
    alone = json.loads((once.sae_dir(1) / "metrics.json").read_text())
    assert alone["stability"] is None
    run = make_run(steps=200, stability=True)
    run_task(run, 0)
    assert (run.sae_dir(1) / "sae_weights.safetensors").read_bytes() == weights  # the SAE itself is the same
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert 0 < metrics["stability"] <= 1
    assert 0 < metrics["stability_mmcs"] <= 1
    assert {path.name for path in run.sae_dir(1).iterdir()} == {*SAE_FILES, TRAINING_FILE, SECOND_SEED, "metrics.jsonl"}
    second = {path.name for path in (run.sae_dir(1) / SECOND_SEED).iterdir()}
    assert second == {*TRAINED_FILES, TRAINING_FILE}


@pytest.mark.parametrize("heldout", [0.25, 0.0])
def test_the_second_seed_is_evaluated_on_the_rows_of_the_first(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, heldout: float
) -> None:
    seen: list[list[np.ndarray]] = []
    real = unit_variance.evaluate

    def noted(encoder: Any, rows: Any) -> Any:
        seen.append(list(rows))
        return real(encoder, seen[-1])

    monkeypatch.setattr(unit_variance, "evaluate", noted)
    run = make_run(heldout=heldout, stability=True)
    run_task(run, 0)
    on_train, compared = np.concatenate(seen[0]), np.concatenate(seen[-1])
    if heldout:
        np.testing.assert_array_equal(np.concatenate(seen[1]), compared)
        assert not (compared[:, None] == on_train).all(axis=2).any()
    else:
        np.testing.assert_array_equal(on_train, compared)
    assert json.loads((run.sae_dir(1) / "metrics.json").read_text())["stability"] is not None


def test_stability_counts_live_features_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 16, generator=generator)
    near = directions + 0.05 * torch.randn(5, 16, generator=generator)
    far = torch.randn(5, 16, generator=generator)

    def of(rows: list[torch.Tensor], live: list[int]) -> tuple[Any, Any]:
        encoder = SimpleNamespace(W_dec=torch.stack(rows))
        rate = np.zeros(len(rows))
        rate[live] = 0.1
        return encoder, SimpleNamespace(firing_rate=rate)

    ours = of([*directions[:4], directions[4]], [0, 1, 2, 3])
    # partners of 0 and 1 are live, that of 2 is not, 3 has none; 4 is dead with us
    theirs = of([near[0], near[1], near[2], far[3], near[4]], [0, 1, 3, 4])
    found = stability(*ours, *theirs)
    assert found.share == 0.5
    cosines = torch.nn.functional.cosine_similarity(
        directions[:4, None], torch.stack([near[0], near[1], far[3], near[4]])[None], dim=2
    )
    assert found.mmcs == pytest.approx(float(cosines.amax(dim=1).mean()), abs=1e-6)
    assert stability(*of(list(directions), []), *theirs).share is None


def test_interrupted_in_the_second_seed(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_run(steps=40, stability=True)
    run_task(whole, 0)
    first = (whole.sae_dir(1) / "sae_weights.safetensors").read_bytes()
    expected = json.loads((whole.sae_dir(1) / "metrics.json").read_text())
    shutil.rmtree(whole.sae_dir(1))
    fits = []

    def stopped(spec: Any, *arguments: Any, **keywords: Any) -> Any:
        fits.append(spec.seed)
        if len(fits) == 2:
            monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
        return fit(spec, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(fit_layer, "fit", stopped)
        with pytest.raises(Interrupted):
            run_task(whole, 0)
        monkeypatch.setattr(progress, "_stop_signal", None)
        done = untouched(whole.sae_dir(1))
        run_task(whole, 0)
    assert len(fits) == 3, "the first seed is not trained again, not even from its checkpoint"
    assert untouched(whole.sae_dir(1)) == done
    assert (whole.sae_dir(1) / "sae_weights.safetensors").read_bytes() == first
    again = json.loads((whole.sae_dir(1) / "metrics.json").read_text())
    timed = ("seconds", "tokens_per_s")
    assert {key: again[key] for key in again if key not in timed} == {
        key: expected[key] for key in expected if key not in timed
    }
