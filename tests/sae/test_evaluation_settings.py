"""What a change of an evaluation setting makes anew: the metrics, never an SAE, and no table that was made from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sae_genomics.content import content_hash
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.sae import fit_layer
from sae_genomics.sae import task as sae_task
from sae_genomics.sae.files import SECOND_SEED
from sae_genomics.sae.fit_layer import TRAINING_FILE
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.task import run_task
from sae_genomics.stages import STAGES, stage_named, stages_of
from tests.sae.test_task import untouched
from tests.stage_names import EVERY

MakeRun = Callable[..., Run]
TRAIN = stage_named("train")
TIMED = ("seconds", "tokens_per_s")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the SAEs that were trained, in order."""
    seeds: list[int] = []
    real = fit_layer.fit

    def counted(spec: Any, *arguments: Any, **keywords: Any) -> Any:
        seeds.append(spec.seed)
        return real(spec, *arguments, **keywords)

    monkeypatch.setattr(fit_layer, "fit", counted)
    return seeds


def finish(run: Run) -> dict[str, Any]:
    """Do the task as `execute` does it; returns the metrics."""
    run_task(run, 0)
    run.write_manifest(TRAIN, 0, {})
    assert run.state(TRAIN, 0).done
    metrics: dict[str, Any] = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize(
    ("change", "why", "n_trained"),
    [
        ({"evaluate_tokens": 100}, "sae.evaluate_tokens was 200000, is 100", 0),
        ({"loss_recovered_cells": 4}, "sae.loss_recovered_cells was 0, is 4", 0),
        ({"stability": True}, "", 1),  # the second seed alone
        ({"k": 5}, "sae.k was 4, is 5", 1),  # not one of them
    ],
)
def test_an_evaluation_setting_trains_nothing_again(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    trained: list[int],
    change: dict[str, Any],
    why: str,
    n_trained: int,
) -> None:
    monkeypatch.setattr("sae_genomics.sae.evaluate_layer.loss_recovered", lambda *arguments: None)
    before = finish(make_run())
    run = make_run(**change)
    files = untouched(run.sae_dir(1))
    state = run.state(TRAIN, 0)
    assert not state.done
    assert why in state.why
    trained.clear()
    after = finish(run)
    assert len(trained) == n_trained
    assert (untouched(run.sae_dir(1)) == files) == ("k" not in change)
    if "k" not in change:
        assert {name: after[name] for name in TIMED} == {name: before[name] for name in TIMED}
        assert after["tokens_trained"] == before["tokens_trained"] == 30 * 128
    assert after["heldout_tokens"] == (100 if "evaluate_tokens" in change else 300)
    assert (after["stability"] is not None) == ("stability" in change)


def test_evaluating_later_gives_the_same_numbers(make_run: MakeRun) -> None:
    """Also on training rows: which ones does not depend on where training stopped."""
    at_once = finish(make_run(name="at_once", evaluate_tokens=77, stability=True))
    finish(make_run(name="later", stability=True))
    later = finish(make_run(name="later", evaluate_tokens=77, stability=True))
    for metrics in (at_once, later):
        for name in TIMED:
            del metrics[name]
    assert later == at_once
    assert later["train_tokens"] == later["heldout_tokens"] == 77


def test_a_second_seed_is_kept(make_run: MakeRun, trained: list[int]) -> None:
    with_two = finish(make_run(stability=True))
    assert len(trained) == 2
    assert finish(make_run())["stability"] is None
    assert finish(make_run(stability=True))["stability"] == with_two["stability"]
    assert len(trained) == 2
    run = make_run(stability=True, evaluate_tokens=50)
    second = untouched(run.sae_dir(1) / SECOND_SEED)
    finish(run)
    assert len(trained) == 2
    assert untouched(run.sae_dir(1) / SECOND_SEED) == second


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "cfg.json", TRAINING_FILE])
@pytest.mark.parametrize("damage", ["changed", "gone", "cut"])
def test_a_damaged_sae_is_trained_again(make_run: MakeRun, trained: list[int], name: str, damage: str) -> None:
    run = make_run()
    finish(run)
    path = run.sae_dir(1) / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-40] + b"#" + content[-39:])
    run_task(run, 0)
    assert len(trained) == 2
    if name != TRAINING_FILE:  # which holds times
        assert path.read_bytes() == content


def test_other_activations_are_trained_on(
    make_run: MakeRun, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are the same, the activations are not: the SAE that lies there is of others."""
    run = make_run()
    finish(run)
    monkeypatch.setattr(run.contents, "read_by", lambda stage, task: {"extract": "other"})
    run_task(run, 0)
    assert len(trained) == 2


def test_a_fit_whose_evaluation_was_killed_is_not_repeated(
    make_run: MakeRun, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    with monkeypatch.context() as patch:
        patch.setattr(sae_task, "evaluate_sae", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_task(run, 0)
    assert not (run.sae_dir(1) / "checkpoint").exists()
    finish(run)
    assert len(trained) == 1


def test_cfg_json_is_the_same_every_time_and_names_its_weights(make_run: MakeRun) -> None:
    run = make_run()
    run_task(run, 0)
    folder = run.sae_dir(1)
    first = (folder / "cfg.json").read_bytes()
    for path in folder.iterdir():
        path.unlink()
    run_task(run, 0)
    assert (folder / "cfg.json").read_bytes() == first
    named = json.loads(first)["metadata"]["sae_genomics"]["weights"]
    assert named == content_hash(folder / "sae_weights.safetensors")
    assert len(named) == 32


@pytest.mark.parametrize("change", [{"stability": True}, {"evaluate_tokens": 50}, {"loss_recovered_cells": 4}])
def test_tables_stay_and_the_report_is_written_anew(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr("sae_genomics.sae.evaluate_layer.loss_recovered", lambda *arguments: None)
    later = [stage for stage in STAGES if stage.number > TRAIN.number and stage.name in EVERY]

    def leave_all(run: Run) -> None:
        for stage in stages_of(run):
            for task in range(run.n_tasks(stage)):
                for path in stage.files(run, task):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not path.exists():
                        path.write_text(stage.name)
                run.write_manifest(stage, task, {})

    first = make_run()
    run_task(first, 0)
    leave_all(first)
    assert all(first.state(stage, 0).done for stage in later)
    run = make_run(**change)
    finish(run)
    states = {stage.name: run.state(stage, 0).status for stage in later}
    assert states.pop("report") == "stale"
    assert set(states.values()) == {"done"}


def test_a_damaged_cfg_alone_cannot_be_loaded_but_is_mended(make_run: MakeRun) -> None:
    run = make_run()
    finish(run)
    (run.sae_dir(1) / "cfg.json").unlink()
    with pytest.raises(UserError):
        load_encoder(run.sae_dir(1))
    finish(run)
    assert load_encoder(run.sae_dir(1)).d_sae == 32
