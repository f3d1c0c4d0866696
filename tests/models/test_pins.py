"""A run keeps to the commit of the published weights that it began with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_genomics.cluster import submit
from sae_genomics.config import ModelConfig, load_config, parse_config
from sae_genomics.errors import UserError
from sae_genomics.models import hub as releases
from sae_genomics.models.pins import Pin, find_pin
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.cluster.tiny import write_cells
from tests.hub_server import COMMIT, Hub, addresses, run

NAME = "tahoe-x1-70m"
OTHER = "b" * 40
NOWHERE = "http://127.0.0.1:9"


def write_config(folder: Path, **model: Any) -> Path:
    write_cells(folder / "cells.h5ad", 24)
    values: dict[str, Any] = {
        "paths": {name: str(folder / name) for name in ("checkpoints", "results", "logs")},
        "data": {"path": str(folder / "cells.h5ad"), "symbol_key": "symbol"},
        "model": {"name": NAME, "layers": [0], "device": "cpu", **model},
        "sae": {"k": 4, "d_sae": 32, "steps": 5, "batch_tokens": 64, "lr_warmup_steps": 2, "device": "cpu"},
    }
    file = folder / "pins.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def stage(name: str, config: Path, url: str, home: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    return run(
        ["-m", "sae_genomics.cli", "stage", name, "--config", str(config), *more], url, home, OMP_NUM_THREADS="1", **environment
    )  # fmt: skip


def record(folder: Path, name: str = "pins") -> dict[str, Any]:
    return json.loads((folder / "results" / name / "run.json").read_text())


def publish_other_weights(hub: Hub) -> None:
    """The same release with the lowest bit of its last number changed, as the main branch."""
    files = dict(hub.files)
    weights = bytearray(files["70m-model/model.safetensors"])
    weights[-4] ^= 1
    hub.publish(OTHER, {**files, "70m-model/model.safetensors": bytes(weights)})


def noted(cache: Path, **revisions: str) -> None:
    """As the hub's client notes in its cache what a branch stands for."""
    folder = cache / "models--tahoebio--Tahoe-x1" / "refs"
    folder.mkdir(parents=True, exist_ok=True)
    for revision, commit in revisions.items():
        (folder / revision).write_text(commit)


@pytest.mark.slow
def test_a_run_goes_on_with_the_weights_it_began_with(hub: Hub, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    began = stage("prepare", config, hub.url, tmp_path / "login_node")
    assert began.returncode == 0, began.stderr
    assert f"{NAME}: main is commit {COMMIT}" in began.stderr
    assert record(tmp_path)["weights"] == {"model": NAME, "commit": COMMIT, "asked_as": ["main"]}

    publish_other_weights(hub)
    del hub.requests[:]
    other_site = tmp_path / "other_site"  # its cache is empty
    for name in ("extract", "train"):
        done = stage(name, config, hub.url, other_site)
        assert done.returncode == 0, done.stderr
    assert addresses(hub) == {COMMIT}, "nobody asks for main again"
    cfg = json.loads((tmp_path / "checkpoints/pins/saes/layer_00/cfg.json").read_text())
    assert cfg["metadata"]["sae_genomics"]["model_revision"] == COMMIT
    assert cfg["metadata"]["sae_genomics"]["model_identity"] == f"hub:tahoebio/Tahoe-x1/70m-model@{COMMIT}"

    del hub.requests[:]
    shown = run(["-m", "sae_genomics.cli", "status", str(config), "--json"], hub.url, tmp_path / "no_cache")
    states = {task["stage"]: task["state"] for task in json.loads(shown.stdout)["tasks"]}
    assert [states[name] for name in ("prepare", "extract", "train")] == ["done"] * 3
    assert hub.requests == [], hub.requests

    new = stage("prepare", config, hub.url, tmp_path / "new", "--set", "run.name=new")
    assert new.returncode == 0, new.stderr
    assert record(tmp_path, "new")["weights"]["commit"] == OTHER
    assert record(tmp_path)["weights"]["commit"] == COMMIT


@pytest.mark.slow
def test_another_commit_is_another_model(hub: Hub, tmp_path: Path) -> None:
    config, home = write_config(tmp_path), tmp_path / "home"
    assert stage("prepare", config, hub.url, home).returncode == 0
    hub.publish(COMMIT, hub.files, branch="release-1")
    publish_other_weights(hub)
    before = (tmp_path / "results/pins/run.json").read_text()

    for revision in (OTHER, "next"):
        hub.publish(OTHER, hub.commits[OTHER], branch="next")
        refused = stage("prepare", config, hub.url, home, "--set", f"model.revision={revision}")
        assert refused.returncode == 2, refused.stderr
        assert f"with other model weights: {NAME} at commit {COMMIT}; give this one its own" in refused.stderr
        assert "--overwrite" in refused.stderr
        assert (tmp_path / "results/pins/run.json").read_text() == before

    for revision in ("null", COMMIT, "release-1"):
        same = stage("prepare", config, hub.url, home, "--set", f"model.revision={revision}")
        assert "prepare: done already" in same.stderr, same.stderr

    taken = stage("prepare", config, hub.url, home, "--set", f"model.revision={OTHER}", "--overwrite")
    assert taken.returncode == 0, taken.stderr
    assert "prepare: stale (the model changed)" in taken.stderr
    assert record(tmp_path)["weights"] == {"model": NAME, "commit": OTHER, "asked_as": [OTHER]}


@pytest.mark.slow
def test_one_line_when_the_recorded_commit_cannot_be_had(hub: Hub, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert stage("prepare", config, hub.url, tmp_path / "home").returncode == 0
    done = stage("extract", config, hub.url, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert f"python scripts/download_model.py {NAME} --revision {COMMIT}" in lines[0]
    assert "Traceback" not in done.stderr


def test_a_first_look_without_the_hub_is_one_line_and_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = stage("prepare", config, hub.url, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert f"{NAME} at revision main is not in the cache" in done.stderr
    assert f"python scripts/download_model.py {NAME};" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_dry_run_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = run(["-m", "sae_genomics.cli", "pipeline", str(config), "--local", "--dry-run"], hub.url, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert addresses(hub) == set()
    assert not (tmp_path / "results").exists()


# --- without a hub ---


def test_jobs_find_the_commit_recorded_before_they_are_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    settings = load_config(config, [f"paths.cache={tmp_path / 'cache'}"])
    noted(tmp_path / "cache", main=COMMIT)
    seen: list[tuple[Any, str]] = []

    def send(run: Run, profile: object, calls: object) -> None:
        on_the_node = Run(load_config(config, [f"paths.cache={tmp_path / 'elsewhere'}"]), config)
        seen.append((on_the_node.pin, on_the_node.base_fingerprint(stage_named("prepare"))))

    monkeypatch.setattr(submit, "check_environment", lambda: None)
    monkeypatch.setattr(submit, "check_jobs", lambda run, profile: None)
    monkeypatch.setattr(submit, "_queue", lambda run, profile, dry_run: [])
    monkeypatch.setattr(submit, "_send_all", send)
    run = Run(settings, config)
    run.check()
    submit.submit(run)
    assert seen == [(Pin(NAME, COMMIT, ("main",)), run.base_fingerprint(stage_named("prepare")))]


def test_the_commit_decides_the_identity_and_the_name_does_not(tmp_path: Path) -> None:
    config = write_config(tmp_path)

    def identity(**revisions: str) -> str:
        revision = revisions.pop("ask", "null")
        cache = tmp_path / f"cache_{'_'.join(revisions.values())}_{revision}"
        noted(cache, **revisions)
        made = Run(load_config(config, [f"paths.cache={cache}", f"model.revision={revision}"]), config)
        return str(made.content_hashes["model"])

    assert identity(main=COMMIT) == identity(ask=COMMIT) == identity(dev=COMMIT, ask="dev")
    assert identity(main=COMMIT) != identity(main=OTHER)
    assert identity(main="not a commit") not in (identity(main=COMMIT), identity(main=OTHER))


def test_weights_of_unrecorded_commit_are_not_taken_for_todays(tmp_path: Path) -> None:
    """Runs of before the record named the commit."""
    config = write_config(tmp_path)
    noted(tmp_path / "cache", main=COMMIT)
    made = Run(load_config(config, [f"paths.cache={tmp_path / 'cache'}"]), config)
    made.record_pin()
    old = record(tmp_path)
    del old["weights"], old["check"]
    old["identities"]["model"] = "hub:tahoebio/Tahoe-x1/70m-model"
    (tmp_path / "results/pins/run.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match="at a commit that was not recorded"):
        Run(made.config, config).check()


@pytest.mark.parametrize(
    ("recorded", "asked", "expected"),
    [
        (None, None, Pin(NAME, OTHER, ("main",))),
        (Pin(NAME, COMMIT, ("main",)), None, Pin(NAME, COMMIT, ("main",))),
        (Pin(NAME, COMMIT, ("main",)), COMMIT, Pin(NAME, COMMIT, ("main",))),
        (Pin(NAME, COMMIT, ("main",)), OTHER, Pin(NAME, OTHER, (OTHER,))),
        (Pin(NAME, COMMIT, ("main",)), "old", Pin(NAME, COMMIT, ("main", "old"))),
        (Pin(NAME, COMMIT, ("main",)), "unheard-of", None),
        (Pin("tahoe-x1-3b", COMMIT, ("main",)), None, Pin(NAME, OTHER, ("main",))),
    ],
)
def test_the_record_comes_before_what_a_branch_says_today(
    tmp_path: Path, recorded: Pin | None, asked: str | None, expected: Pin | None
) -> None:
    noted(tmp_path, main=OTHER, old=COMMIT)
    assert find_pin(ModelConfig(name=NAME, revision=asked), tmp_path, recorded, ask_hub=False) == expected


def test_a_damaged_record_is_no_record() -> None:
    pin = Pin(NAME, COMMIT, ("main",))
    assert Pin.from_record(json.loads(json.dumps(pin.to_record()))) == pin
    for record in (None, [], {}, {**pin.to_record(), "commit": "../../etc"}, {**pin.to_record(), "commit": 7}):
        assert Pin.from_record(record) is None


def test_a_local_model_has_no_commit(tmp_path: Path) -> None:
    assert find_pin(ModelConfig(), tmp_path, Pin("demo", COMMIT, ("main",)), ask_hub=True) is None


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"name": NAME, "revision": "abc1234"}, "all 40 digits"),
        ({"name": NAME, "revision": COMMIT[:39]}, "39 hexadecimal digits; write all 40"),
        ({"name": NAME, "revision": "../../secret"}, "names no revision"),
        ({"name": NAME, "revision": "/etc/passwd"}, "names no revision"),
        ({"name": NAME, "revision": ""}, "names no revision"),
        ({"name": NAME, "revision": "a b"}, "names no revision"),
        ({"name": NAME, "revision": 1.0}, "in quotes"),
        ({"path": "here", "revision": "main"}, "not for the folder here"),
        ({"name": "demo", "revision": "main"}, "not for the bundled demo"),
        ({"revision": COMMIT}, "not for the bundled demo"),
    ],
)
def test_one_line_for_a_revision_that_cannot_be(model: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=rf"^c: model\.revision.*{says}"):
        parse_config({"data": {"path": "x"}, "model": model}, "c")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "20260131", "release/2026-01", "cafe", COMMIT])
def test_revisions_that_can_be(revision: str | None) -> None:
    config = parse_config({"data": {"path": "x"}, "model": {"name": NAME, "revision": revision}}, "c")
    assert config.model.revision == revision


def test_every_release_names_a_branch_or_a_whole_commit() -> None:
    for known in releases.RELEASES.values():
        assert ModelConfig(name=NAME, revision=known.revision).revision == known.revision
