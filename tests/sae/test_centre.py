"""`sae.centre: unit`, on activations that are a gene's own vector plus a context whose directions are known."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics import progress
from sae_genomics.activations import read_activations, read_units
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.heldout import heldout_blocks, heldout_rows, spread_units
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.content import content_hash
from sae_genomics.errors import DamagedArtifact, Interrupted, UserError
from sae_genomics.run import Run
from sae_genomics.sae import fit_layer
from sae_genomics.sae.evaluate import EVALUATE_ROWS, evaluate
from sae_genomics.sae.export import fold
from sae_genomics.sae.files import SAE_FILES, SECOND_SEED
from sae_genomics.sae.load import Encoder, centre, load_encoder
from sae_genomics.sae.measure_means import measure_means, shrunk
from sae_genomics.sae.task import _training, run_task
from sae_genomics.sae.train import fit
from sae_genomics.sae.unit_means import MEANS_FILE, UnitMeans, load_means, save_means
from sae_genomics.stages import stage_named
from tests.sae.conftest import planted_rows

MakeRun = Callable[..., Run]
TRAIN, ASSOCIATE = stage_named("train"), stage_named("associate")
CELLS, GENES, WIDTH = 40, 30, 16
TOKENS = GENES + 1


def gene_rows(n_cells: int = CELLS, identity: float = 3.0) -> tuple[torch.Tensor, np.ndarray]:
    """Rows of n_cells x (<cls> and 30 tokens of 12 genes): a vector for each gene, and context from 24 known directions."""
    rng = np.random.default_rng(5)
    units = rng.integers(10, 22, n_cells * TOKENS).astype(np.int32)
    units[::TOKENS] = 3  # <cls>
    vectors = torch.from_numpy(rng.normal(size=(30, WIDTH)).astype(np.float32)) * identity
    context = planted_rows(len(units), 24, WIDTH, 4, seed=3)[0]
    return context + vectors[torch.from_numpy(units.astype(np.int64))], units


@pytest.fixture
def make(make_run: MakeRun) -> MakeRun:
    rows, units = gene_rows()

    def build(**settings: Any) -> Run:
        return make_run(rows=rows, units=units, d_in=WIDTH, **{"centre": "unit", "steps": 300, **settings})

    return build


def metrics_of(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    return values


def plain_means(x: np.ndarray, units: np.ndarray) -> tuple[dict[int, np.ndarray], np.ndarray, float]:
    """The formula of `shrunk`, written out: mean of each unit, global mean, prior count."""
    x = x.astype(np.float64)
    overall, total = x.mean(axis=0), len(x)
    groups = {int(u): x[units == u] for u in np.unique(units)}
    within = sum(((g - g.mean(axis=0)) ** 2).sum() for g in groups.values())
    between = sum(len(g) * ((g.mean(axis=0) - overall) ** 2).sum() for g in groups.values())
    prior = 1.0
    if len(groups) > 1 and total > len(groups):
        w = within / (total - len(groups))
        b = (between - (len(groups) - 1) * w) / (total - sum(len(g) ** 2 for g in groups.values()) / total)
        prior = w / b if b > 0 else np.inf
    means = {
        u: overall if np.isinf(prior) else (len(g) * g.mean(axis=0) + prior * overall) / (len(g) + prior)
        for u, g in groups.items()
    }
    return means, overall, prior


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    identity=st.sampled_from([0.0, 0.3, 5.0]),
    offset=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 1000),
)
def test_means_are_those_of_plain_numpy(sizes: list[int], identity: float, offset: float, seed: int) -> None:
    if not sum(sizes):
        return
    rng = np.random.default_rng(seed)
    unit_id = np.sort(rng.choice(100, len(sizes), replace=False)).astype(np.int64)
    units = rng.permutation(np.repeat(unit_id, sizes))
    vectors = rng.normal(size=(100, 4)) * identity
    x = (rng.normal(size=(len(units), 4)) + vectors[units] + offset).astype(np.float32)
    shift = x.astype(np.float64)[0]
    sums = np.stack([(x.astype(np.float64)[units == u] - shift).sum(axis=0) for u in unit_id])
    found = shrunk(unit_id, np.array(sizes), sums, float(((x - shift) ** 2).sum()), shift)
    means, overall, prior = plain_means(x, units)
    assert found.prior_tokens == pytest.approx(prior, rel=1e-3)
    np.testing.assert_allclose(found.global_mean, overall, rtol=1e-5, atol=1e-5)
    for u, size, mean in zip(unit_id, sizes, found.means, strict=True):
        np.testing.assert_allclose(mean, means[int(u)] if size else overall, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.of(np.array([-1, 10**6])), np.tile(found.global_mean, (2, 1)))
    np.testing.assert_array_equal(found.of(unit_id), found.means)


def test_the_pass_over_files_sees_training_rows_alone(make: MakeRun) -> None:
    run = make()
    rows = chosen_rows(run, 1, "train")
    found = measure_means(rows)
    x, units = gene_rows()
    cell, place = np.divmod(np.arange(len(units)), TOKENS)
    training = (cell >= 10) & (place > 0)
    means, overall, prior = plain_means(x.numpy()[training], units[training])
    assert found.unit_id.tolist() == [3, *range(10, 22)]
    assert found.n_tokens.tolist() == [0] + [int((units[training] == u).sum()) for u in range(10, 22)]
    assert found.prior_tokens == pytest.approx(prior)
    np.testing.assert_allclose(found.means[0], overall, rtol=1e-5, atol=1e-6)  # <cls> is not trained on
    np.testing.assert_allclose(found.means[1:], [means[u] for u in range(10, 22)], rtol=1e-5, atol=1e-6)
    with_cls = measure_means(chosen_rows(run, 1, "train", include_cls=True))
    assert with_cls.n_tokens[0] == 30
    assert not np.allclose(with_cls.means[0], with_cls.global_mean)


def test_few_tokens_shrink_more() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([1, 4, 400, 400])
    units = np.repeat(np.arange(4), sizes)
    x = rng.normal(size=(len(units), 3)) * 2 + rng.normal(size=(4, 3))[units]
    sums = np.stack([x[units == u].sum(axis=0) for u in range(4)])
    own = sums / sizes[:, None]
    found = shrunk(np.arange(4), sizes, sums, float((x**2).sum()))
    kept = np.linalg.norm(found.means - found.global_mean, axis=1) / np.linalg.norm(own - x.mean(axis=0), axis=1)
    np.testing.assert_allclose(kept, sizes / (sizes + found.prior_tokens), rtol=1e-4)
    assert kept[0] < kept[1] < kept[2] < 1


def test_the_file_says_the_same_every_time_and_damage_is_named(tmp_path: Path) -> None:
    means = UnitMeans(np.array([2, 7]), np.ones((2, 3), np.float32), np.zeros(3, np.float32), np.array([4, 0]), 0.5)
    path = tmp_path / MEANS_FILE
    named = save_means(path, means)
    assert named == content_hash(path) == save_means(path, means)
    again = load_means(path)
    assert again.content == named
    np.testing.assert_array_equal(again.means, means.means)
    assert (again.prior_tokens, again.n_tokens.tolist()) == (0.5, [4, 0])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedArtifact, match=MEANS_FILE):
        load_means(path)


@pytest.mark.parametrize("memory_rows", [10**6, 150])
@pytest.mark.parametrize("heldout", [0.25, 0.0])
def test_batches_are_the_same_rows_minus_their_means(make: MakeRun, memory_rows: int, heldout: float) -> None:
    """Whether all rows are in memory or groups of blocks are read, and after going on from a state."""
    run = make(heldout=heldout)
    rows = chosen_rows(run, 1, "train")
    means = measure_means(rows)
    x, units = gene_rows()
    by_row = {row.tobytes(): means.centred(row[None], units[i : i + 1])[0] for i, row in enumerate(x.numpy())}
    memory = memory_rows * rows.row_bytes
    with (
        ShuffledBatches(rows, 64, 0, memory_bytes=memory) as plain,
        ShuffledBatches(rows, 64, 0, memory_bytes=memory, centre=means.subtract) as centred,
    ):
        for number in range(30):
            wanted = np.stack([by_row[row.tobytes()] for row in next(plain).numpy()])
            np.testing.assert_array_equal(next(centred).numpy(), wanted)
            if number == 10:
                centred.restore(centred.state())


def test_a_centred_sae_leaves_its_means_and_saelens_gives_its_features(make: MakeRun) -> None:
    run = make(stability=True)
    run_task(run, 0)
    folder = run.sae_dir(1)
    assert {*SAE_FILES, MEANS_FILE} <= {path.name for path in folder.iterdir()}
    assert (folder / SECOND_SEED / MEANS_FILE).read_bytes() == (folder / MEANS_FILE).read_bytes()
    named = json.loads((folder / "cfg.json").read_text())["metadata"]["sae_genomics"]
    assert named["centre"] == "unit"
    assert named["unit_means"] == content_hash(folder / MEANS_FILE) == metrics_of(run)["unit_means"]

    tokens = run.tokens_file(0)
    x, units = read_activations(run.activations_file(1, 0), slice(0, 200)), read_units(tokens, slice(0, 200))
    rest = centre(x, units, folder)
    np.testing.assert_array_equal(rest, load_means(folder / MEANS_FILE).centred(x, units))
    sae = sae_lens.SAE.load_from_disk(str(folder))
    theirs = sae.encode(torch.from_numpy(rest)).detach()
    encoder = load_encoder(folder)
    token, feature, activation = encoder.encode_sparse(encoder.input(x, units))
    dense = np.zeros(tuple(theirs.shape), np.float32)
    dense[token, feature] = activation
    np.testing.assert_allclose(dense, theirs.numpy(), rtol=1e-5, atol=1e-5)
    whole = load_means(folder / MEANS_FILE).of(units) + sae.decode(theirs).detach().numpy()
    np.testing.assert_allclose(encoder.reconstruct(torch.from_numpy(x), units).numpy(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["unit", "none"])
def test_the_shares_of_variance_are_those_of_plain_numpy(make: MakeRun, kind: str) -> None:
    run = make(centre=kind)
    run_task(run, 0)
    metrics = metrics_of(run)
    blocks = list(spread_units(heldout_rows(run, 1), 10**6, 100))
    x, units = (np.concatenate(part) for part in zip(*blocks, strict=True))
    encoder, means = load_encoder(run.sae_dir(1)), measure_means(chosen_rows(run, 1, "train"))
    error = ((encoder.reconstruct(torch.from_numpy(x), units).numpy() - x).astype(np.float64) ** 2).sum()
    rest = (x - means.of(units)).astype(np.float64)
    whole = ((x - x.mean(axis=0, dtype=np.float64)) ** 2).sum()
    inside = ((rest - rest.mean(axis=0)) ** 2).sum()
    assert metrics["centre"] == kind
    assert metrics["fvu"] == pytest.approx(error / whole, rel=1e-4)
    assert metrics["fvu_centred"] == pytest.approx(error / inside, rel=1e-4)
    assert metrics["identity_variance"] == pytest.approx(1 - inside / whole, rel=1e-4)
    assert 0.7 < metrics["identity_variance"] < 0.99
    assert metrics["fvu"] == pytest.approx(metrics["fvu_centred"] * (1 - metrics["identity_variance"]), rel=1e-4)
    if kind == "unit":
        assert metrics["fvu"] < 0.1


def test_a_centred_sae_finds_more_of_the_context(make: MakeRun) -> None:
    found = {}
    for kind in ("unit", "none"):
        run = make(centre=kind, name=kind, steps=600)
        run_task(run, 0)
        found[kind] = metrics_of(run)
    assert found["unit"]["fvu_centred"] < found["none"]["fvu_centred"]
    assert found["unit"]["identity_variance"] == pytest.approx(found["none"]["identity_variance"])


def test_changed_means_make_what_was_derived_stale_and_are_trained_again(make: MakeRun) -> None:
    run = make()
    run_task(run, 0)
    run.write_manifest(TRAIN, 0, {})
    assert run.state(TRAIN, 0).done
    path = run.sae_dir(1) / MEANS_FILE
    before, token = path.read_bytes(), run.contents.read_by(ASSOCIATE, 0)["train"]
    means = load_means(path)
    means.means[1] += 1
    save_means(path, means)
    assert not run.state(TRAIN, 0).done
    with pytest.raises(DamagedArtifact, match=r"unit_means\.safetensors is damaged"):
        load_encoder(run.sae_dir(1))
    with pytest.raises(DamagedArtifact, match=r"unit_means\.safetensors is damaged"):
        centre(np.zeros((1, WIDTH), np.float32), np.zeros(1, np.int32), run.sae_dir(1))
    run.write_manifest(TRAIN, 0, {})
    assert run.contents.read_by(ASSOCIATE, 0)["train"] not in (None, token)
    run_task(run, 0)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(UserError, match=r"unit_means\.safetensors is not there"):
        load_encoder(run.sae_dir(1))


def test_the_second_seed_is_trained_again_when_the_first_has_other_means(
    make: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(stability=True, steps=20)
    run_task(run, 0)
    folder = run.sae_dir(1)
    first = (folder / MEANS_FILE).read_bytes()
    (folder / "sae_weights.safetensors").unlink()
    real = measure_means

    def other(rows: Any) -> UnitMeans:
        means = real(rows)
        return UnitMeans(means.unit_id, means.means + 0.125, means.global_mean, means.n_tokens, means.prior_tokens)

    monkeypatch.setattr(fit_layer, "measure_means", other)
    run_task(run, 0)
    assert (folder / MEANS_FILE).read_bytes() != first
    assert (folder / SECOND_SEED / MEANS_FILE).read_bytes() == (folder / MEANS_FILE).read_bytes()


def test_none_leaves_no_means_and_unit_is_another_setting(make: MakeRun) -> None:
    run = make()
    run_task(run, 0)
    plain = make(centre="none")
    assert run.base_fingerprint(TRAIN) != plain.base_fingerprint(TRAIN)
    run_task(plain, 0)
    assert not (plain.sae_dir(1) / MEANS_FILE).exists()
    cfg = json.loads((plain.sae_dir(1) / "cfg.json").read_text())
    assert not {"centre", "unit_means"} & set(cfg["metadata"]["sae_genomics"])
    assert load_encoder(plain.sae_dir(1)).means is None
    x = np.ones((2, WIDTH), np.float32)
    assert centre(x, np.zeros(2, np.int32), plain.sae_dir(1)) is x


def test_none_is_trained_and_measured_as_without_the_setting(make: MakeRun, tmp_path: Path) -> None:
    """Bit for bit: rows as they are stored, weights as they are folded, numbers as `evaluate` gives them."""
    run = make(centre="none", steps=60)
    run_task(run, 0)
    training = _training(run, TRAIN, 0)
    with ShuffledBatches(training.rows, training.spec.batch_rows, training.order) as batches:
        trained = fit(
            training.spec, batches, layer=1, normalise=True, checkpoint=tmp_path / "c.safetensors", fingerprint="f",
            open_loggers=lambda step: [], progress=progress.Progress("t", 1, "tokens", tmp_path / "beat.json"),
            device=torch.device("cpu"),
        )  # fmt: skip
    wanted, found = fold(trained.state, training.spec, trained.scale), load_encoder(run.sae_dir(1))
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(wanted, name), getattr(found, name))
    measured = evaluate(found, heldout_blocks(run, 1, 200_000, EVALUATE_ROWS))
    assert measured is not None
    metrics = metrics_of(run)
    for name in ("fvu", "explained_variance", "l0", "dead_share"):
        assert metrics[name] == getattr(measured, name)


def test_a_killed_centred_training_goes_on_to_the_same_weights(make: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(name="whole", steps=40)
    run_task(whole, 0)
    run = make(name="cut", steps=40)

    class Stopping(ShuffledBatches):
        def __next__(self) -> torch.Tensor:
            if self.position >= 20 * self.batch_rows:
                monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(fit_layer, "ShuffledBatches", Stopping)
        with pytest.raises(Interrupted):
            run_task(run, 0)
    monkeypatch.setattr(progress, "_stop_signal", None)
    assert not (run.sae_dir(1) / "cfg.json").exists()
    run_task(run, 0)
    for name in ("sae_weights.safetensors", MEANS_FILE):
        assert (run.sae_dir(1) / name).read_bytes() == (whole.sae_dir(1) / name).read_bytes()


def test_six_cells(make_run: MakeRun) -> None:
    rows, units = gene_rows(6)
    run = make_run(
        n_cells=6, rows=rows, units=units, heldout=0.2, centre="unit", stability=True, steps=10, batch_tokens=4096
    )
    run_task(run, 0)
    assert metrics_of(run)["unit_means"] is not None


def test_every_unit_once_and_units_that_never_vary() -> None:
    """No two tokens of a unit: the prior count is 1. Tokens of a unit all the same: it is 0, and nothing is shrunk."""
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    once = shrunk(np.arange(4), np.array([1, 1, 1, 0]), np.concatenate([x, np.zeros((1, 2))]), float((x**2).sum()))
    assert once.prior_tokens == 1
    np.testing.assert_allclose(once.means, [*(0.5 * x + 0.5 * x.mean(axis=0)), x.mean(axis=0)])
    same = shrunk(np.arange(3), np.array([2, 2, 0]), np.array([[2.0], [6.0], [0.0]]), 2 * 1.0 + 2 * 9.0)
    assert same.prior_tokens == 0
    np.testing.assert_allclose(same.means[:, 0], [1, 3, 2])


@pytest.mark.gpu
def test_on_a_gpu_the_reconstruction_is_that_of_the_cpu(make: MakeRun) -> None:
    run = make(device="cuda", stability=True)
    run_task(run, 0)
    x, units = gene_rows()
    for folder in (run.sae_dir(1), run.sae_dir(1) / SECOND_SEED):
        here = load_encoder(folder).reconstruct(x, units)
        there = load_encoder(folder, "cuda").reconstruct(x.cuda(), units)
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
    assert metrics_of(run)["fvu_centred"] < 1


def test_an_encoder_without_means_gives_rows_back_untouched() -> None:
    encoder = Encoder("topk", torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), k=1)
    x = np.ones((2, 3), np.float32)
    assert encoder.input(x, np.zeros(2, np.int32)) is x
