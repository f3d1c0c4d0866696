"""The native backend, and the reference backend behind our interface, against the tahoe-x1 package itself.

Needs a python in which tahoe-x1 imports, named by SAE_GENOMICS_REFERENCE_PYTHON (docs/parity.md says how to make one).
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sae_genomics.items import CountItems
from sae_genomics.models.tx1 import load_folder
from tests.models.test_tx1_parity import close, collated

PYTHON = os.environ.get("SAE_GENOMICS_REFERENCE_PYTHON")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SAE_GENOMICS_REFERENCE_PYTHON names no python with tahoe-x1"),
]


def reference(*arguments) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [PYTHON, "-W", "ignore", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    reference(ROOT / "tests" / "models" / "reference_checkpoints.py", folder)
    return folder


def test_native_equals_the_package_on_random_checkpoints(checkpoints):
    folders = sorted(checkpoints.iterdir())
    assert len(folders) > 20
    for folder in folders:
        expected = np.load(folder / "expected.npz")
        model = load_folder(folder)
        tokens = model.tokenise(CountItems(np.arange(5), csr_matrix(expected["counts"]), expected["gene_ids"]), seed=0)
        given, real = collated(expected, "plain", model.tokeniser.pad_token_id)
        np.testing.assert_array_equal(tokens.token, given.token, err_msg=folder.name)
        tolerance = 1e-6 if folder.name == "log_values" else 0
        np.testing.assert_allclose(
            tokens.per_token["value"], given.per_token["value"], rtol=tolerance, err_msg=folder.name
        )
        for hook in model.info.hooks:
            activations = model.forward_layers(given, range(model.info.n_layers), hook)
            for layer, got in activations.items():
                close(got, expected[f"plain/{hook}/{layer}"][real], f"{folder.name}: {hook} of layer {layer}")
        for case in ("plain", "masked"):
            outputs = model.outputs(given, masked=expected[f"{case}/gen_mask"][real])
            close(outputs.expr_preds, expected[f"{case}/expr_preds"][real], f"{folder.name}: {case} expr_preds")
            if folder.name != "avg_pool":  # where the package averages padding too
                close(outputs.cell_emb, expected[f"{case}/cell_emb"], f"{folder.name}: {case} cell_emb")
                close(outputs.mvc_output, expected[f"{case}/mvc_output"][real], f"{folder.name}: {case} mvc_output")


COMPARE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch
from scipy.sparse import csr_matrix
from sae_genomics.models import load_model

torch.set_num_threads(2)
report = {}
for folder, drug_key in json.loads(sys.argv[1]):
    config = dict(family="tx1", name=None, path=Path(folder), drug_key=drug_key, device="cpu", compute_dtype="float32")
    both = [load_model(SimpleNamespace(**config, backend=backend)) for backend in ("native", "reference")]
    assert type(both[0]) is not type(both[1])
    vocab = len(both[0].vocab)
    rng = np.random.default_rng(0)
    counts = csr_matrix((rng.random((6, vocab)) < 200 / vocab) * rng.integers(1, 40, (6, vocab))).astype(np.float32)
    drugs = ["Trametinib", "DMSO_TF", "none"] * 2 if drug_key else None
    ids = np.arange(vocab, dtype=np.int32)
    batch = both[0].tokenise(CountItems(np.arange(6), counts, ids, drugs), 0)
    worst = {}
    def compare(name, native, reference):
        scale = reference.abs().max()
        worst[name] = max(worst.get(name, 0.0), float((native - reference).abs().max() / scale))
    layers = list(range(both[0].info.n_layers))
    for hook in both[0].info.hooks:
        got = [model.forward_layers(batch, layers, hook) for model in both]
        for layer in layers:
            assert got[0][layer].shape == (len(batch), both[0].info.d_model)
            compare(hook, got[0][layer], got[1][layer])
        one = both[1].forward_layers(batch, layers[:1], hook)
        compare(hook, one[0], got[1][0])
    hidden = (rng.random(len(batch)) < 0.3) & (batch.token < vocab)
    for what, arguments in dict(
        plain={}, masked=dict(masked=hidden), intervened=dict(hook="mlp_out", interventions={0: lambda x: x * 0.5})
    ).items():
        got = [model.outputs(batch, **arguments) for model in both]
        for name in ("cell_emb", "expr_preds", "mvc_output"):
            compare(f"{name} {what}", getattr(got[0], name), getattr(got[1], name))
    report[Path(folder).name + (" with drugs" if drug_key else "")] = worst
print("REPORT" + json.dumps(report))
"""


def compare_backends(*cases) -> dict:
    out = reference("-c", COMPARE, json.dumps([[str(folder), drug_key] for folder, drug_key in cases]))
    return json.loads(out.split("REPORT")[1])


def test_both_backends_agree_on_the_fixtures():
    fixtures = ROOT / "tests" / "fixtures" / "tx1_parity"
    report = compare_backends(
        (fixtures / "relu_70m_style", None),
        (fixtures / "gelu_chem_3b_style", None),
        (fixtures / "gelu_chem_3b_style", "drug"),
        (fixtures / "glu_post_norm", None),
    )
    assert len(report) == 4
    assert max(max(worst.values()) for worst in report.values()) < 1e-5, report


def test_both_backends_agree_on_a_random_checkpoint_of_the_70m_shape(tmp_path):
    """12 layers, d_model 512, 8 heads: the figures of docs/parity.md."""
    make = "import sys; from pathlib import Path; sys.path.insert(0, 'tests/models'); import reference_checkpoints as r; r.make(Path(sys.argv[1]), *r.release('x', model=dict(d_model=512, n_layers=12, n_heads=8))[1:], 0)"
    reference("-c", make, tmp_path / "shape_70m")
    report = compare_backends((tmp_path / "shape_70m", None))
    print(json.dumps(report, indent=1))
    assert max(report["shape_70m"].values()) < 1e-5, report
