"""What a finished task was made from, told from manifests alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of
from tests.core.test_run import finish, make_run


def write_again(run: Run, stage_name: str, task: int, path: Path, text: str) -> None:
    """Have a done task leave other content in one of its files."""
    stage = stage_named(stage_name)
    assert path in stage.files(run, task)
    path.write_text(text)
    run.write_manifest(stage, task, {}, made_from=run.contents.read_by(stage, task))


def stale(run: Run) -> dict[str, set[str]]:
    found = {}
    for stage in stages_of(run):
        units = {run.unit_key(stage, task) for task, state in enumerate(run.states(stage)) if state.status == "stale"}
        if units:
            found[stage.name] = units
    return found


def made_anew(folder: Path) -> Run:
    run = make_run(folder)
    finish(run)
    assert not stale(run)
    return run


def test_other_weights_make_their_layer_stale_and_no_other(tmp_path: Path) -> None:
    run = made_anew(tmp_path)
    write_again(run, "train", 0, run.sae_dir(run.layers[0]) / "sae_weights.safetensors", "other weights")
    layer = run.unit_key(stage_named("train"), 0)
    found = stale(Run(run.config))
    assert found == stale(run)
    assert found["associate"] == {layer}
    assert set(found) == {"associate", "report"}, "validate waits for what associate leaves"
    state = run.state(stage_named("associate"), 0)
    assert "came out different" in state.why


def test_the_same_content_written_again_leaves_everything_done(tmp_path: Path) -> None:
    run = made_anew(tmp_path)
    for stage in stages_of(run)[:-1]:
        for task in range(run.n_tasks(stage)):
            for path in stage.files(run, task):
                text = path.read_bytes()
                path.unlink()
                path.write_bytes(text)
            run.write_manifest(stage, task, {}, made_from=run.contents.read_by(stage, task))
    assert not stale(Run(run.config))


def test_one_layer_of_one_shard_touches_that_layer(tmp_path: Path) -> None:
    """A shard made anew may differ in the files of one layer alone."""
    run = made_anew(tmp_path)
    layer = run.layers[-1]
    write_again(run, "extract", 0, run.activations_file(layer, 0), "other activations")
    found = stale(run)
    assert found["train"] == {run.unit_key(stage_named("train"), len(run.layers) - 1)}
    assert "extract" not in found


def test_manifests_are_read_once(tmp_path: Path, monkeypatch) -> None:
    """A status of thousands of shards must not read thousands of manifests for each of its layers."""
    import sae_genomics.contents as module

    run = made_anew(tmp_path)
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    time.sleep(0.01)
    fresh, reads = Run(run.config), []
    monkeypatch.setattr(module, "read_if_whole", lambda path: reads.append(path) or json.loads(path.read_text()))
    for _ in range(3):
        assert not stale(fresh)
    assert len(reads) == len(set(reads))


def test_what_was_made_from_a_task_is_not_stale_while_that_is_done_again(tmp_path: Path) -> None:
    """Another process makes one damaged file again: nothing is known to be different yet."""
    run = made_anew(tmp_path)
    extract = stage_named("extract")
    damaged = run.tokens_file(0)
    whole = damaged.read_bytes()
    damaged.unlink()
    run.manifests.keep_finished(extract, 0)
    assert run.finished_files(extract, 0), "the other files stay"
    damaged.write_bytes(whole)
    assert stale(Run(run.config)).keys() <= {"report"}
    assert not Run(run.config).state(extract, 0).done
