"""The whole stage against SAELens and plain pandas, and at its edges."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from sae_genomics import artifacts
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.associations.task import run_task
from sae_genomics.config import parse_config
from sae_genomics.errors import DamagedArtifact
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

LAYER = 1
ASSOCIATE_FILES = (
    "features.parquet", "feature_genes.parquet", "gene_tokens.parquet", "feature_cell_types.parquet",
    "cell_type_baselines.parquet", "features.h5ad",
)  # fmt: skip
BASELINE_FILES = {
    "neurons": "neuron_genes.parquet", "pca": "pca_genes.parquet", "ica": "ica_genes.parquet",
    "untrained": "untrained_genes.parquet",
}  # fmt: skip


def read(run, table):
    return table.read(run.layer_results(LAYER) / table.file)


def plain_tokens(run):
    """Every counted gene token as a row: cell (place in the run), gene id, expression; and SAELens' activations of it."""
    sae = sae_lens.SAE.load_from_disk(str(run.sae_dir(LAYER)))
    genes = artifacts.GENES.read(run.genes_file).drop_duplicates("token").set_index("token")
    parts, rows = [], []
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        with open_activations(run.activations_file(LAYER, shard)) as file:
            x, counted = file.rows(0, file.n_rows), ~tokens.special
            counted[file.nonfinite_rows] = False
        frame = pd.DataFrame(
            {
                "cell": run.shard_items(shard)[0] + tokens.item_in_shard,
                "gene": genes.loc[np.where(counted, tokens.token, genes.index[0]), "gene_id"].to_numpy(),
                "expression": tokens.weight.astype(np.float64),
            }
        )
        parts.append(frame[counted])
        rows.append(x[counted])
    with torch.no_grad():
        activation = sae.encode(torch.from_numpy(np.concatenate(rows))).numpy().astype(np.float64)
    return pd.concat(parts, ignore_index=True), activation


def test_everything_is_what_saelens_and_pandas_say(make_run):
    run = make_run(associations__batch_tokens=150, associations__top_genes=200, associations__min_gene_tokens=3)
    run_task(run, 0)
    assert {path.name for path in run.layer_results(LAYER).iterdir()} == {*ASSOCIATE_FILES, *BASELINE_FILES.values()}
    tokens, activation = plain_tokens(run)
    cells = artifacts.CELLS.read(run.cells_file)
    n_cells, d_sae = len(cells), activation.shape[1]

    data = anndata.read_h5ad(run.layer_results(LAYER) / "features.h5ad")
    frame = pd.DataFrame(activation).groupby(tokens["cell"].to_numpy())
    maxima = frame.max().reindex(range(n_cells), fill_value=0.0).to_numpy()
    np.testing.assert_allclose(data.X.toarray(), maxima, rtol=1e-4, atol=1e-5)
    means = frame.mean().reindex(range(n_cells), fill_value=0.0).to_numpy()
    np.testing.assert_allclose(data.layers["mean"].toarray(), means, rtol=1e-4, atol=1e-5)
    assert data.obs_names.tolist() == cells["cell_id"].tolist()
    assert data.obs["heldout"].tolist() == cells["heldout"].tolist()
    assert data.obs["cell_type"].astype(str).tolist() == cells["cell_type"].tolist()

    table = read(run, artifacts.FEATURE_GENES)
    for feature in range(0, d_sae, 7):
        mine = table[table["feature"] == feature].set_index("gene_id")
        by_gene = pd.DataFrame(
            {
                "gene": tokens["gene"],
                "score": activation[:, feature] * tokens["expression"],
                "activation": activation[:, feature],
                "active": activation[:, feature] > 0,
            }
        ).groupby("gene")
        active = by_gene["active"].sum()
        expected = active.index[active > 0]
        assert set(mine.index) == set(expected)
        np.testing.assert_allclose(mine["score"], by_gene["score"].sum()[mine.index], rtol=1e-4)
        np.testing.assert_allclose(mine["mean_activation"], by_gene["activation"].mean()[mine.index], rtol=1e-4)
        np.testing.assert_allclose(mine["firing_rate"], by_gene["active"].mean()[mine.index])
        np.testing.assert_array_equal(mine["n_tokens"], active[mine.index])
        assert (np.diff(mine["score"]) <= 0).all()

    met = tokens.groupby("gene")["expression"].agg(["size", "mean"])
    genes = read(run, artifacts.GENE_TOKENS).set_index("gene_id")
    assert genes.index.is_unique
    np.testing.assert_array_equal(genes["n_tokens_stored"], met["size"].reindex(genes.index, fill_value=0))
    np.testing.assert_allclose(genes["mean_expression"], met["mean"].reindex(genes.index), rtol=1e-12)
    assert set(table.loc[table["rank_specificity"].notna(), "gene_id"]) == set(
        genes.index[genes["n_tokens_stored"] >= 3]
    )

    features = read(run, artifacts.FEATURES)
    fired = activation > 0
    heldout = cells["heldout"].to_numpy()[tokens["cell"]]
    np.testing.assert_array_equal(features["n_tokens"], fired.sum(axis=0))
    np.testing.assert_allclose(features["firing_rate"], fired.mean(axis=0))
    np.testing.assert_allclose(features["heldout_firing_rate"], fired[heldout].mean(axis=0))
    np.testing.assert_array_equal(features["n_cells"], (maxima > 0).sum(axis=0))
    np.testing.assert_allclose(features["max_activation"], activation.max(axis=0), rtol=1e-4)
    assert (features.loc[:4, "n_tokens"] == 0).all()  # the dead ones
    assert features.loc[:4, ["top_gene", "specificity", "best_cell_type"]].isna().all(axis=None)

    tests = read(run, artifacts.FEATURE_CELL_TYPES)
    kinds, held = cells["cell_type"].to_numpy(), cells["heldout"].to_numpy()
    values = data.X.toarray().astype(np.float64)
    assert len(tests) == d_sae * 3
    for row in tests.iloc[::11].itertuples():
        column, inside = values[:, row.feature], kinds == row.cell_type
        np.testing.assert_allclose(row.auroc, roc_auc_score(inside[held], column[held]))
        np.testing.assert_allclose(row.auroc_train, roc_auc_score(inside[~held], column[~held]))
        p = stats.mannwhitneyu(column[held & inside], column[held & ~inside]).pvalue
        np.testing.assert_allclose(row.p_value, p, rtol=1e-9)
        assert (row.n_cells, row.n_rest) == ((held & inside).sum(), (held & ~inside).sum())
    np.testing.assert_allclose(tests["q_value"], stats.false_discovery_control(tests["p_value"]), rtol=1e-9)

    best = tests.loc[tests.groupby("feature")["auroc_train"].idxmax()].set_index("feature")
    named = features[features["best_cell_type"].notna()]
    assert len(named)
    np.testing.assert_array_equal(named["best_cell_type"], best.loc[named["feature"], "cell_type"])
    np.testing.assert_allclose(named["best_cell_type_auroc"], best.loc[named["feature"], "auroc"])


def test_baselines_are_chosen_on_training_cells_and_find_planted_genes(make_run):
    run = make_run(n_cells=60)
    run_task(run, 0)
    baselines = read(run, artifacts.CELL_TYPE_BASELINES)
    kinds = {"feature", "gene", "neuron", "pca", "ica", "untrained"}
    assert baselines.groupby("cell_type")["kind"].apply(set).tolist() == [kinds] * 3
    cells = artifacts.CELLS.read(run.cells_file)
    train = ~cells["heldout"].to_numpy()
    counts = anndata.read_h5ad(run.data_file)[cells["cell_id"]].X.toarray()
    shares = counts / counts.sum(axis=1, keepdims=True)  # log1p and the median change no rank
    genes = baselines[baselines["kind"] == "gene"].set_index("cell_type")
    for number, kind in enumerate("abc"):
        assert genes.loc[kind, "name"] in {f"SYM{3 * number + i}" for i in range(3)}
        inside = (cells["cell_type"] == kind).to_numpy()
        auroc = [roc_auc_score(inside[train], shares[train, j]) for j in range(shares.shape[1])]
        assert genes.loc[kind, "auroc_train"] == pytest.approx(max(auroc))
        heldout = roc_auc_score(inside[~train], shares[~train, int(genes.loc[kind, "name"][3:])])
        assert genes.loc[kind, "auroc"] == pytest.approx(heldout)
    neuron = baselines[(baselines["kind"] == "neuron") & (baselines["cell_type"] == "a")].iloc[0]
    values = np.full((run.n_items, 96), -np.inf)
    cell, x = plain_rows(run)
    np.maximum.at(values[:, 0::2], cell, x)
    np.maximum.at(values[:, 1::2], cell, -x)
    inside = (cells["cell_type"] == "a").to_numpy()
    auroc = [roc_auc_score(inside[train], values[train, j]) for j in range(96)]
    assert neuron["auroc_train"] == pytest.approx(max(auroc))
    assert neuron["auroc"] == pytest.approx(roc_auc_score(inside[~train], values[~train, neuron["unit"]]))
    assert neuron["name"] == f"{neuron['unit'] // 2}{'+-'[neuron['unit'] % 2]}"


def plain_rows(run):
    """Every counted gene token: its cell's place in the run, and its activations in float64."""
    cells, rows = [], []
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        with open_activations(run.activations_file(LAYER, shard)) as file:
            rows.append(file.rows(0, file.n_rows)[~tokens.special].astype(np.float64))
        cells.append((run.shard_items(shard)[0] + tokens.item_in_shard)[~tokens.special])
    return np.concatenate(cells), np.concatenate(rows)


def test_a_neuron_that_is_low_in_a_type_is_found_as_its_negative_unit(make_run):
    """With one sign only, AUROC 0.03 counted as useless."""
    run = make_run(n_cells=60, validation__baselines=["neurons"])
    kinds = artifacts.CELLS.read(run.cells_file)["cell_type"].to_numpy()
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        kind = kinds[run.shard_items(shard)[0] + tokens.item_in_shard]
        with h5py.File(run.activations_file(LAYER, shard), "r+") as file:
            x = file["activations"][:]
            x[:, 7] = np.where(kind == "b", x[:, 7] - 1000, x[:, 7])
            file["activations"][:] = x
    run_task(run, 0)
    baselines = read(run, artifacts.CELL_TYPE_BASELINES)
    best = baselines[(baselines["kind"] == "neuron") & (baselines["cell_type"] == "b")].iloc[0]
    assert (best["unit"], best["name"], best["auroc"]) == (15, "7-", 1.0)


def test_baselines_of_genes_are_what_pandas_says(make_run):
    """neuron_genes and pca_genes, both signs, from the stored rows by plain numpy."""
    from sklearn.decomposition import PCA

    run = make_run(associations__batch_tokens=150, associations__top_genes=300, associations__min_gene_tokens=3)
    run_task(run, 0)
    tokens = plain_tokens(run)[0]
    cell, x = plain_rows(run)
    train = ~artifacts.CELLS.read(run.cells_file)["heldout"].to_numpy()[cell]
    pca = PCA().fit(x[train])
    scores = pca.transform(x)
    for table, values in ((artifacts.NEURON_GENES, x), (artifacts.PCA_GENES, scores)):
        genes = read(run, table)
        assert set(genes["feature"]) == set(range(2 * 48))
        for component in (0, 13, 30):
            z = (values[:, component] - values[train, component].mean()) / values[train, component].std()
            plain = [np.maximum(z, 0), np.maximum(-z, 0)]
            mine = [genes[genes["feature"] == 2 * component + sign].set_index("gene_id") for sign in (0, 1)]
            if table is artifacts.PCA_GENES and not np.isclose(
                mine[0]["score"].sum(), plain[0] @ tokens["expression"], rtol=1e-3
            ):
                mine.reverse()  # a component's sign is arbitrary
            for units, wanted in zip(mine, plain, strict=True):
                frame = pd.DataFrame(
                    {"score": wanted * tokens["expression"], "activation": wanted, "active": wanted > 0}
                )
                by_gene = frame.groupby(tokens["gene"].to_numpy())
                assert set(units.index) == set(by_gene["active"].sum().loc[lambda active: active > 0].index)
                np.testing.assert_allclose(units["score"], by_gene["score"].sum()[units.index], rtol=1e-3, atol=1e-3)
                np.testing.assert_allclose(units["n_tokens"], by_gene["active"].sum()[units.index], atol=1)
                np.testing.assert_allclose(
                    units["mean_activation"], by_gene["activation"].mean()[units.index], atol=1e-4
                )


def test_gene_tokens_are_counted_as_they_entered_the_sums(make_run):
    run = make_run(activations__tokens_per_cell=9, validation__baselines=["pca"])
    run_task(run, 0)
    found = read(run, artifacts.GENE_TOKENS).set_index("gene_id")
    by_gene = plain_tokens(run)[0].groupby("gene")["expression"]
    seen = found[found["n_tokens_stored"] > 0]
    assert seen["n_tokens_stored"].to_dict() == by_gene.count().to_dict()
    np.testing.assert_allclose(seen["mean_expression"], by_gene.mean()[seen.index])
    assert found.loc[found["n_tokens_stored"] == 0, "mean_expression"].isna().all()
    assert found["n_tokens_untrained"].isna().all(), "without that baseline"
    token = artifacts.GENES.read(run.genes_file)["token"]
    assert len(found) == token[token >= 0].nunique()


def test_a_baseline_that_is_left_out_leaves_no_table(make_run):
    run = make_run()
    run_task(run, 0)
    run.config.validation.baselines[:] = ["pca"]
    run_task(run, 0)
    assert {path.name for path in run.layer_results(LAYER).iterdir()} == {*ASSOCIATE_FILES, "pca_genes.parquet"}
    assert {path.name for path in stage_named("associate").files(run, 0)} == {*ASSOCIATE_FILES, "pca_genes.parquet"}
    assert set(read(run, artifacts.CELL_TYPE_BASELINES)["kind"]) == {"feature", "gene", "pca"}
    run.config.validation.baselines[:] = []
    run_task(run, 0)
    assert {path.name for path in run.layer_results(LAYER).iterdir()} == set(ASSOCIATE_FILES)
    assert {name: table.file for name, table in artifacts.BASELINE_GENES.items()} == BASELINE_FILES


@pytest.mark.parametrize(
    ("changed", "is_stale"),
    [({"baselines": ["neurons"]}, True), ({"untrained_cells": 7}, True), ({"fdr": 0.2, "top_genes": 5}, False)],
)
def test_a_change_of_the_baselines_makes_the_stage_stale(tmp_path, changed, is_stale):
    def fingerprint(validation):
        values = {"run": {"name": "r"}, "data": {"path": "builtin:pbmc68k_reduced"}, "validation": validation}
        return Run(parse_config(values, "test")).base_fingerprint(stage_named("associate"))

    assert (fingerprint({}) != fingerprint(changed)) == is_stale


def test_no_convergence_is_said_in_one_line_and_in_the_table(make_run, monkeypatch, capsys):
    monkeypatch.setattr("sae_genomics.associations.components.ICA_ITERATIONS", 1)
    run = make_run(validation__baselines=["ica"])
    run_task(run, 0)
    said = [line for line in capsys.readouterr().err.splitlines() if "converge" in line]
    assert said == [
        "associate layer 1: FastICA did not converge in 1 iterations; the components are those of the last one"
    ]
    path = run.layer_results(LAYER) / artifacts.ICA_GENES.file
    assert artifacts.ICA_GENES.note(path) == said[0].removeprefix("associate layer 1: ")


def test_neither_block_size_nor_shards_nor_threads_change_the_result(make_run, monkeypatch):
    results = []
    for batch_tokens, threads in ((16384, "1"), (1, "3"), (97, "2")):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        run = make_run(associations__batch_tokens=batch_tokens)
        run_task(run, 0)
        results.append((read(run, artifacts.FEATURE_GENES), read(run, artifacts.FEATURE_CELL_TYPES)))
    for genes, types in results[1:]:
        pd.testing.assert_frame_equal(genes, results[0][0], rtol=1e-5)
        pd.testing.assert_frame_equal(types, results[0][1], rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_cells": 6},
        {"n_cells": 1},
        {"types": ("one",)},
        {"types": None},
        {"data__heldout_fraction": 0.0},
        {"d_sae": 16, "k": 4, "dead": 16},
        {"n_cells": 300, "associations__max_auroc_cells": 30},
        {"activations__dtype": "bfloat16"},
        {"activations__tokens_per_cell": 5},
    ],
    ids=lambda changes: ", ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_edges(make_run, changes):
    run = make_run(**changes)
    run_task(run, 0)
    data = anndata.read_h5ad(run.layer_results(LAYER) / "features.h5ad")
    d_sae = run.config.sae.d_sae
    assert data.shape == (run.n_items, d_sae)
    features, tests = read(run, artifacts.FEATURES), read(run, artifacts.FEATURE_CELL_TYPES)
    assert len(features) == d_sae
    types = changes.get("types", ("a", "b", "c"))
    if types is None:
        assert len(tests) == 0
        assert len(read(run, artifacts.CELL_TYPE_BASELINES)) == 0
        assert features["best_cell_type"].isna().all()
    elif len(types) == 1 or changes.get("data__heldout_fraction") == 0.0:
        assert tests["p_value"].isna().all()
        assert tests["q_value"].isna().all()
    if changes.get("dead") == 16:
        assert (features["n_tokens"] == 0).all()
        assert len(read(run, artifacts.FEATURE_GENES)) == 0
        assert features["best_cell_type"].isna().all()
        assert (tests["p_value"] == 1).all()
    if "associations__max_auroc_cells" in changes:
        assert (tests["n_cells"] + tests["n_rest"]).max() <= 30


def test_rows_that_are_not_finite_never_count(make_run):
    run = make_run()
    run_task(run, 0)
    before = read(run, artifacts.FEATURES)
    tokens = read_tokens(run.tokens_file(0))
    row = int(np.flatnonzero(~tokens.special)[3])
    with h5py.File(run.activations_file(LAYER, 0), "r+") as file:
        file["activations"][row] = np.nan
        del file["nonfinite_rows"]
        file["nonfinite_rows"] = np.array([row])
    run_task(run, 0)
    after = read(run, artifacts.FEATURES)
    assert before["n_tokens"].sum() - after["n_tokens"].sum() == run.config.sae.k
    maxima = anndata.read_h5ad(run.layer_results(LAYER) / "features.h5ad").X
    assert np.isfinite(maxima.data).all()


def test_a_damaged_input_leaves_nothing_half_written(make_run):
    run = make_run()
    path = run.activations_file(LAYER, 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact, match=r"layer_01/shard_0001\.h5"):
        run_task(run, 0)
    assert list(run.layer_results(LAYER).iterdir()) == []
    assert list((run.checkpoints / "scratch").iterdir()) == []


@pytest.mark.slow
def test_scanpy_plots_a_feature_without_help(make_run):
    import matplotlib as mpl

    mpl.use("Agg")
    import scanpy as sc

    run = make_run(obs=pd.DataFrame({"batch/x": ["p", "q"] * 20}, index=[f"c{i}" for i in range(40)]))
    run_task(run, 0)
    data = sc.read_h5ad(run.layer_results(LAYER) / "features.h5ad")
    feature = read(run, artifacts.FEATURES)["n_cells"].idxmax()
    sc.pl.umap(data, color=[f"F{feature}", "cell_type", "batch_x"], show=False)
    sc.tl.rank_genes_groups(data, "cell_type", method="wilcoxon")
