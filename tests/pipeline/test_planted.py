"""The planted demo, whole: what was planted is found, and nothing where nothing is (configs/planted.yaml, docs/planted.md)."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from sae_genomics.config import load_config
from sae_genomics.cross_layer.coactivation import High
from sae_genomics.cross_layer.margins import draws
from sae_genomics.cross_layer.modules import Settings, find_modules
from sae_genomics.models.planted import truth
from sae_genomics.run import Run
from tests.pipeline.conftest import ROOT, run_command

pytestmark = pytest.mark.slow
COSINE = 0.95  # of a planted direction and the decoder row of its feature
FDR = 0.05


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run in a folder of its own."""
    folder = tmp_path_factory.mktemp("planted")
    overrides = [f"paths.{root}={folder / root}" for root in ("checkpoints", "results", "logs")]
    config = ROOT / "configs" / "planted.yaml"
    finished = run_command("pipeline", config, "--local", *(part for each in overrides for part in ("--set", each)))
    assert finished.returncode == 0, finished.stderr
    return Run(load_config(config, overrides), config)


def latents(run: Run, layer: int) -> dict[str, int]:
    """Name of each feature that is planted in the layer -> the latent whose decoder row points along it."""
    decoder = load_file(run.sae_dir(layer) / "sae_weights.safetensors")["W_dec"]
    cosine = decoder @ truth.directions().T / np.linalg.norm(decoder, axis=1, keepdims=True)
    here = [truth.NUMBER[feature.name] for feature in truth.features_at(layer)]
    assert cosine[:, here].max(axis=0).min() > COSINE
    found = {truth.FEATURES[number].name: int(cosine[:, number].argmax()) for number in here}
    assert len(set(found.values())) == len(found)
    return found


def named(run: Run, layer: int, table: pd.DataFrame) -> pd.DataFrame:
    """The table's rows with the name of what is planted there; empty for latents that stand for nothing planted."""
    names = {latent: name for name, latent in latents(run, layer).items()}
    return table.assign(name=[names.get(latent, "") for latent in table["feature"]])


def test_the_report_says_that_it_is_synthetic(planted: Run) -> None:
    report = planted.report_file.read_text()
    assert "**Synthetic data.**" in report
    assert '"facts":["synthetic data",' in planted.dashboard_file.read_text()


def test_every_planted_direction_is_a_feature(planted: Run) -> None:
    for layer in planted.layers:
        assert len(latents(planted, layer)) == len(truth.features_at(layer))


def test_labels_are_concepts_and_random_ones_are_not(planted: Run) -> None:
    for layer in planted.layers:
        folder = planted.layer_results(layer)
        found = pd.read_parquet(folder / "concept_vectors.parquet").query("kind == 'label'").set_index("name")
        assert set(found.index) == set(truth.LABELS)
        assert (found["auroc"] >= 0.95).all()
        assert (found["q_value"] < FDR).all()
        nulls = pd.read_parquet(folder / "concept_nulls.parquet").query("null == 'random'")
        assert (nulls.groupby("concept")["auroc"].mean() - 0.5).abs().max() <= 0.05


def causal(run: Run, layer: int) -> pd.DataFrame:
    """Effects on hidden targets, which the model predicts rather than copies."""
    table = pd.read_parquet(run.layer_results(layer) / "causal_features.parquet")
    return named(run, layer, table[(table["outcome"] == "token") & table["masked"]])


def test_ablation_changes_own_genes_and_not_matched_ones(planted: Run) -> None:
    rows = pd.concat([causal(planted, layer) for layer in planted.layers])
    acting = {feature.name for feature in truth.FEATURES if set(feature.tokens) & set(feature.causal)}
    acts = rows[rows["name"].isin(acting)]
    assert set(acts["name"]) == acting
    assert (acts["effect_own"] < 0).all()
    assert (acts["effect_matched"].abs() < 0.1 * acts["effect_own"].abs()).all()
    assert (acts["q_value"] < FDR).mean() >= 0.9
    assert (acts["p_value"] < FDR).all()


def test_features_that_act_on_nothing_stay_null(planted: Run) -> None:
    rows = pd.concat([causal(planted, layer) for layer in planted.layers])
    silent = {feature.name for feature in truth.FEATURES if not feature.causal} | {truth.DISTANT, ""}
    null = rows[rows["name"].isin(silent)]
    assert {"transient", truth.SILENT, truth.DISTANT} <= set(null["name"])
    assert (null["q_value"] < FDR).mean() <= 0.05


@pytest.mark.parametrize("null", ["direction", "feature", "permuted", "targets"])
def test_no_null_does_what_a_planted_feature_does(planted: Run, null: str) -> None:
    persistent = [
        feature.name for feature in truth.FEATURES if feature.fate == "persistent" and feature.causal == feature.tokens
    ]
    reached = []
    for layer in planted.layers:
        table = pd.read_parquet(planted.layer_results(layer) / "causal_nulls.parquet")
        drawn = named(planted, layer, table[(table["outcome"] == "token") & table["masked"] & (table["null"] == null)])
        own = causal(planted, layer).query("name != ''").set_index("name")["specificity"].abs()
        drawn = drawn[drawn["name"].isin(persistent)]
        reached.append(drawn["specificity"].abs() >= drawn["name"].map(own))
    assert pd.concat(reached).mean() <= 0.05


def test_dose_response_is_monotone(planted: Run) -> None:
    n = 0
    for layer in planted.layers:
        curves = named(planted, layer, pd.read_parquet(planted.layer_results(layer) / "causal_dose.parquet"))
        for name, rows in curves[curves["name"] != ""].groupby("name"):
            feature = truth.FEATURES[truth.NUMBER[str(name)]]
            if not set(feature.tokens) & set(feature.causal):
                continue
            rows = rows.sort_values("dose")
            specific = (rows["own"] - rows["matched"]).to_numpy()
            assert (np.diff(specific) >= -1e-3).all(), (layer, name)
            assert specific[rows["dose"] == 0] < -0.1
            n += 1
    assert n >= len(planted.layers)


def fates(run: Run) -> pd.DataFrame:
    table = pd.read_parquet(run.results / "cross_layer" / "fates.parquet")
    parts = [named(run, layer, table[table["layer"] == layer]) for layer in run.layers]
    return pd.concat(parts).query("name != ''").set_index(["name", "layer"]).sort_index()


def test_features_are_born_and_gone_where_they_were_planted(planted: Run) -> None:
    found = fates(planted)
    for feature in truth.FEATURES:
        if feature.fate in ("persistent", "died"):
            rows = found.loc[feature.name]
            assert rows.index.tolist() == list(range(feature.born, feature.last + 1))
            assert rows["before"].iloc[0] == (None if feature.born == 0 else "born")
            assert rows["after"].iloc[-1] == (None if feature.last == truth.LAST else "died")
            assert (rows["after"].iloc[:-1] == "persistent").all()
            assert rows["chain"].nunique() == 1
    transient = found.loc["transient"]
    assert (transient.index.min(), transient.index.max()) == (2, 4)


def test_one_feature_splits_and_two_merge(planted: Run) -> None:
    found = fates(planted)
    last, first = truth.CHANGES_AT - 1, truth.CHANGES_AT
    assert found.loc[("split", last), "after"] == "split"
    for name in ("merge_a", "merge_b"):
        assert found.loc[(name, last), "after"] == "merged"
    for name in ("split_a", "split_b"):
        assert found.loc[(name, first), "before"] == "split"
    assert found.loc[("merged", first), "before"] == "merged"


def test_planted_modules_are_found(planted: Run) -> None:
    table = pd.read_parquet(planted.results / "cross_layer" / "modules.parquet")
    for layer in (2, 3, 4):  # the layers where each module has three features or more
        rows = named(planted, layer, table[table["layer"] == layer]).set_index("name")["module"]
        features = truth.features_at(layer)
        label = [int(rows.get(feature.name, -1)) for feature in features]
        assert adjusted_rand_score([truth.module_of(feature) for feature in features], label) >= 0.9, layer


def test_shuffled_data_have_no_modules(planted: Run) -> None:
    """The same features in the same cells, each as often, but not together."""
    features = ad.read_h5ad(planted.layer_results(2) / "features.h5ad")
    strongest = features.X.toarray()
    fires = strongest[:, list(latents(planted, 2).values())] > truth.STRENGTH / 4
    heldout = pd.read_parquet(planted.cells_file)["heldout"].to_numpy(bool)
    settings = Settings(4096, 19, 5, (0.5, 1.0, 2.0), (1, 2), n_heldout_draws=99)

    def n_modules(table: np.ndarray) -> int:
        one, other = (
            High(part, csr_matrix((0, table.shape[1]), dtype=np.float32), np.zeros(0, np.int64))
            for part in (table[~heldout], table[heldout])
        )
        strata = [np.zeros(len(part.fires), np.int64) for part in (one, other)]
        return len(find_modules(one, strata[0], other, strata[1], settings).rows)

    assert n_modules(fires) == len(truth.MODULES)
    for shuffled in draws(fires, np.zeros(len(fires), np.int64), 3, [5]):
        assert n_modules(shuffled) == 0
