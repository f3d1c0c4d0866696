"""`sae.from`: features equal SAELens' own, whatever the architecture; what does not fit is one line; staleness follows the content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch

from sae_genomics.activations.reading.heldout import heldout_rows, spread_units
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.config import RunConfig, dump_config, load_config, parse_config
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.settings import check
from sae_genomics.sae.task import run_task
from sae_genomics.stages import stage_named
from tests.sae.conftest import planted_rows
from tests.sae.published_saes import ARCHITECTURES, planted_weights, saved
from tests.sae.test_task import dense

MakeRun = Callable[..., Run]
TRAIN = stage_named("train")
HOOK = {"model_name": "toy", "hook_name": "blocks.1.hook_resid_post", "prepend_bos": True}
D_IN, N_DIRECTIONS = 16, 12


@pytest.fixture
def planted() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Rows of 12 directions in 16 dimensions, and weights that read them."""
    rows, directions = planted_rows(40 * 31, N_DIRECTIONS, D_IN, 3, seed=3)
    return rows, planted_weights(directions)


def adopted(run: Run) -> dict[str, Any]:
    run_task(run, 0)
    run.write_manifest(TRAIN, 0, {})
    assert run.state(TRAIN, 0).done
    metrics: dict[str, Any] = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    return metrics


def features(sae: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(sae.encode(torch.from_numpy(x)))


def heldout(run: Run) -> np.ndarray:
    return np.concatenate([x.copy() for x, _ in spread_units(heldout_rows(run, 1), 10_000, 512)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scaled", [False, True])
def test_features_are_those_of_saelens(
    architecture: str, scaled: bool, make_run: MakeRun, tmp_path: Path, planted: Any
) -> None:
    rows, weights = planted
    normalise = {"normalize_activations": "expected_average_only_in"} if scaled else {}
    if scaled:  # weights of an SAE that sees rows of mean norm sqrt(d_in)
        factor = float(np.sqrt(D_IN) / rows.norm(dim=1).mean())
        weights = {**weights, "W_enc": weights["W_enc"] / factor, "W_dec": weights["W_dec"] * factor}
        weights["b_dec"] = weights["b_dec"] * factor
    sae = saved(tmp_path / "theirs", architecture, weights, metadata=HOOK, **normalise)
    run = make_run(rows=rows, d_in=D_IN, from_=str(tmp_path / "theirs"))
    check(run)
    metrics = adopted(run)
    x = heldout(run)
    if scaled:
        train = np.concatenate([x.copy() for x, _ in spread_units(chosen_rows(run, 1, "train"), 10**6, 512)]).astype(
            np.float64
        )
        measured = float(np.sqrt(D_IN) / np.linalg.norm(train, axis=1).mean())
        assert metrics["activation_scale"] == pytest.approx(measured, rel=1e-6)
        if architecture.endswith("batchtopk"):  # SAELens folds the factor before it makes the form for inference
            trainer = sae_lens.TrainingSAE.load_from_disk(tmp_path / "theirs")
            trainer.fold_activation_norm_scaling_factor(measured)
            trainer.save_inference_model(tmp_path / "folded")
            sae = sae_lens.SAE.load_from_disk(tmp_path / "folded")
        else:
            sae.fold_activation_norm_scaling_factor(measured)
    theirs = features(sae, x)
    assert (theirs > 0).any(axis=0).sum() > N_DIRECTIONS / 2, "most features fire"
    encoder = load_encoder(run.sae_dir(1))
    ours = dense(encoder.encode_sparse(x), theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features(sae_lens.SAE.load_from_disk(run.sae_dir(1)), x), theirs, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        decoded = sae.decode(torch.from_numpy(theirs)).numpy()
    np.testing.assert_allclose(
        encoder.reconstruct(torch.from_numpy(x), np.zeros(len(x))), decoded, rtol=1e-4, atol=1e-4
    )
    expected = float(((decoded - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
    assert metrics["fvu"] == pytest.approx(expected, rel=1e-3)
    assert metrics["l0"] == pytest.approx((theirs > 0).sum(1).mean(), rel=1e-6)
    assert metrics["d_sae"] == N_DIRECTIONS
    assert metrics["steps"] is None
    assert metrics["from"]["name"] == str(tmp_path / "theirs")


def test_a_folder_whose_content_changes_is_stale_and_one_that_moves_is_not(
    make_run: MakeRun, tmp_path: Path, planted: Any
) -> None:
    rows, weights = planted
    folder = tmp_path / "theirs"
    saved(folder, "standard", weights, metadata=HOOK)
    run = make_run(rows=rows, d_in=D_IN, from_=str(folder))
    adopted(run)
    before = load_encoder(run.sae_dir(1)).weights

    shutil.copytree(folder, tmp_path / "copy")
    moved = Run(
        run.config.model_copy(update={"sae": run.config.sae.model_copy(update={"from_": str(tmp_path / "copy")})})
    )
    moved.__dict__.update(
        {name: run.__dict__[name] for name in ("layers", "model_info", "content_hashes", "n_items", "data_files")}
    )
    assert moved.state(TRAIN, 0).done

    saved(folder, "standard", {**weights, "b_enc": weights["b_enc"] + 0.1}, metadata=HOOK)
    assert run.state(TRAIN, 0).status == "stale"
    adopted(run)
    assert load_encoder(run.sae_dir(1)).weights != before


def test_trained_and_published_are_told_apart(make_run: MakeRun, tmp_path: Path, planted: Any) -> None:
    rows, weights = planted
    saved(tmp_path / "theirs", "standard", weights, metadata=HOOK)
    run = make_run(rows=rows, d_in=D_IN)
    run_task(run, 0)
    run.write_manifest(TRAIN, 0, {})
    config = run.config.model_copy(
        update={"sae": run.config.sae.model_copy(update={"from_": str(tmp_path / "theirs")})}
    )
    other = Run(config)
    other.__dict__.update(
        {name: run.__dict__[name] for name in ("layers", "model_info", "content_hashes", "n_items", "data_files")}
    )
    state = other.state(TRAIN, 0)
    assert state.status == "stale"
    assert "sae.from was None" in state.why


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {}


def broken(words: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(change: Callable[[Path], None]) -> Callable[[Path], None]:
        BROKEN[change.__name__] = (change, words)
        return change

    return register


def change_cfg(folder: Path, **values: Any) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    metadata = values.pop("metadata", {})
    (folder / "cfg.json").write_text(json.dumps({**cfg, **values, "metadata": {**cfg["metadata"], **metadata}}))


@broken("reads blocks.1.hook_mlp_out, the activations are of blocks.1.hook_resid_post")
def other_hook(folder: Path) -> None:
    change_cfg(folder, metadata={"hook_name": "blocks.1.hook_mlp_out"})


@broken("which is layer 4 here, and the activations are of layer 1")
def other_layer(folder: Path) -> None:
    change_cfg(folder, metadata={"hook_name": "blocks.5.hook_resid_pre"})


@broken("of the attention heads")
def heads(folder: Path) -> None:
    change_cfg(folder, reshape_activations="hook_z", metadata={"hook_name": "blocks.1.attn.hook_z"})


@broken("normalize_activations is 'layer_norm'")
def layer_norm(folder: Path) -> None:
    change_cfg(folder, normalize_activations="layer_norm")


@broken("normalize_activations is 'covariance_whitening'")
def whitened(folder: Path) -> None:
    change_cfg(folder, normalize_activations="covariance_whitening")


@broken("architecture 'abstopk' is not computed here")
def other_architecture(folder: Path) -> None:
    change_cfg(folder, architecture="abstopk")


@broken("cannot be read")
def not_json(folder: Path) -> None:
    (folder / "cfg.json").write_text("{")


@broken("cannot be read")
def cut_weights(folder: Path) -> None:
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])


@broken("cfg.json beside it says d_in 16, d_sae 99")
def other_d_sae(folder: Path) -> None:
    change_cfg(folder, d_sae=99)


@broken("has no threshold")
def lacks_threshold(folder: Path) -> None:
    change_cfg(folder, architecture="jumprelu")


@broken("model.pt is not read, because only safetensors files cannot run code")
def pickled(folder: Path) -> None:
    (folder / "sae_weights.safetensors").rename(folder / "model.pt")


@broken("sae.centre is none; set sae.centre to unit")
def centred(folder: Path) -> None:
    change_cfg(folder, metadata={"sae_genomics": {"centre": "unit", "unit_means": "abc"}})


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    name: str, make_run: MakeRun, tmp_path: Path, planted: Any
) -> None:
    rows, weights = planted
    saved(tmp_path / "theirs", "standard", weights, metadata=HOOK)
    change, words = BROKEN[name]
    change(tmp_path / "theirs")
    run = make_run(rows=rows, d_in=D_IN, from_=str(tmp_path / "theirs"))
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")) as raised:
        run_task(run, 0)
    assert "\n" not in str(raised.value)
    assert "sae.from" in str(raised.value)
    assert not run.sae_dir(1).exists() or not any(run.sae_dir(1).iterdir())


def test_an_sae_of_other_width_or_of_other_activations_is_refused(
    make_run: MakeRun, tmp_path: Path, planted: Any
) -> None:
    rows, weights = planted
    saved(tmp_path / "theirs", "standard", weights, metadata=HOOK)
    wide = make_run(d_in=20, from_=str(tmp_path / "theirs"), name="wide")
    with pytest.raises(UserError, match="reads activations 16 wide, those of toy are 20 wide"):
        run_task(wide, 0)
    shutil.rmtree(tmp_path / "wide")
    other = make_run(
        rows=torch.randn(len(rows), D_IN, generator=torch.Generator().manual_seed(1)) * 0.1,
        d_in=D_IN,
        from_=str(tmp_path / "theirs"),
    )
    with pytest.raises(UserError, match="no better than their mean does"):
        run_task(other, 0)


def test_what_may_matter_is_said(
    make_run: MakeRun, tmp_path: Path, planted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, weights = planted
    said = {"model_name": "gpt2", "hook_name": "blocks.2.hook_resid_pre", "prepend_bos": False, "context_size": 32}
    sae = saved(tmp_path / "theirs", "standard", weights, metadata=said)
    sae.to(torch.bfloat16)
    sae.save_model(tmp_path / "theirs")
    run = make_run(rows=rows, d_in=D_IN, from_=str(tmp_path / "theirs"), stability=True, k=3)
    metrics = adopted(run)
    out = capsys.readouterr().err
    for words in (
        "trained on the model gpt2, and the activations are of toy",
        "sequences without a special token at their start, and those here are with one",
        "sequences of 32 tokens, and those here have up to 64",
        "its dtype is bfloat16, and features are computed here in float32",
        "sae.stability is left out",
        "sae.d_sae, sae.k are not used",
    ):
        assert words in out, out
    assert metrics["stability"] is None
    assert len(metrics["from"]["notes"]) == 4


def test_one_folder_per_layer(make_run: MakeRun, tmp_path: Path, planted: Any) -> None:
    rows, weights = planted
    for layer, name in ((0, "first"), (1, "b/second"), (3, "layer_03")):
        saved(
            tmp_path / "many" / name,
            "standard",
            weights,
            metadata={**HOOK, "hook_name": f"blocks.{layer}.hook_resid_post"},
        )
    run = make_run(rows=rows, d_in=D_IN, layers=(0, 1, 3), from_=str(tmp_path / "many"))
    check(run)
    for task in range(3):
        run_task(run, task)
    names = [json.loads((run.sae_dir(layer) / "metrics.json").read_text())["from"]["name"] for layer in (0, 1, 3)]
    assert names == [str(tmp_path / "many" / name) for name in ("first", "b/second", "layer_03")]
    lacking = make_run(rows=rows, d_in=D_IN, layers=(1, 2), from_=str(tmp_path / "many"), name="lacking")
    with pytest.raises(UserError, match=r"has no SAE of layer 2; it has SAEs of layers 0, 1, 3; set model\.layers"):
        check(lacking)
    one = make_run(rows=rows, d_in=D_IN, layers=(1, 2), from_=str(tmp_path / "many" / "first"), name="one")
    with pytest.raises(UserError, match="is one SAE, and the run has layers 1, 2"):
        check(one)
    saved(tmp_path / "many" / "twin", "standard", weights, metadata=HOOK)
    with pytest.raises(UserError, match=r"has 2 SAEs of layer 1 \(twin, b/second\)"):
        check(make_run(rows=rows, d_in=D_IN, layers=(1,), from_=str(tmp_path / "many"), name="two"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("./nowhere", "there is no folder ./nowhere"), ("nowhere", "there is no folder nowhere"), ("a/b/../c", "there is no folder"),
     ("org/name/id@..", "names no revision")],
)  # fmt: skip
def test_what_names_nothing(text: str, words: str, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=words):
        check(make_run(from_=text))


def test_a_runs_own_saes_are_no_source(make_run: MakeRun) -> None:
    run = make_run()
    run_task(run, 0)
    with pytest.raises(UserError, match="is where this run keeps its own SAEs"):
        check(make_run(from_=str(run.sae_dir(1))))


def test_the_key_is_written_as_people_write_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {path: a.h5ad}\nsae: {from: some/folder}\n")
    config = load_config(file)
    assert config.sae.from_ == "some/folder"
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert "from: some/folder" in dump_config(config)
    assert "from_" not in dump_config(config)
    assert load_config(tmp_path / "again.yaml", ["run.name=c"]) == config
    assert load_config(file, ["sae.from=other"]).sae.from_ == "other"
    with pytest.raises(UserError, match=r"did you mean sae\.from\?"):
        parse_config({"data": {"path": "a"}, "sae": {"fro": "x"}}, "c")
    assert RunConfig.model_validate({"data": {"path": "a"}}).sae.from_ is None


def test_centred_saes_bring_their_means(make_run: MakeRun, tmp_path: Path) -> None:
    """An SAE of ours with sae.centre: unit: the means are its own, not those of the run that uses it."""
    units = np.tile(np.arange(31, dtype=np.int32) % 7, 40)
    first = make_run(units=units, centre="unit", name="first")
    adopted(first)
    second = make_run(units=units, centre="unit", name="second", from_=str(first.sae_dir(1)), heldout=0.5)
    metrics = adopted(second)
    for name in ("unit_means.safetensors", "sae_weights.safetensors"):
        assert (second.sae_dir(1) / name).read_bytes() == (first.sae_dir(1) / name).read_bytes()
    assert metrics["unit_means"] == load_encoder(first.sae_dir(1)).means.content
    (first.sae_dir(1) / "unit_means.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no unit_means\.safetensors"):
        run_task(make_run(units=units, centre="unit", name="third", from_=str(first.sae_dir(1))), 0)


def test_saes_of_others_can_be_centred(make_run: MakeRun, tmp_path: Path, planted: Any) -> None:
    """Where cfg.json says nothing of means, they are measured on the run's training rows."""
    rows, weights = planted
    saved(tmp_path / "theirs", "standard", weights, metadata=HOOK)
    run = make_run(rows=rows + 5, d_in=D_IN, centre="unit", from_=str(tmp_path / "theirs"))
    adopted(run)
    train = np.concatenate([x.copy() for x, _ in spread_units(chosen_rows(run, 1, "train"), 10**6, 512)])
    encoder = load_encoder(run.sae_dir(1))
    assert encoder.means is not None
    np.testing.assert_allclose(encoder.means.of(np.zeros(1, np.int64))[0], train.mean(0), rtol=1e-4)
