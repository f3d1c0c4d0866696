"""The native backend against what tahoe-x1 1.0.0 computed on three checkpoints (tests/fixtures/tx1_parity/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sae_genomics.models.tx1 import load_folder
from sae_genomics.tokens import Tokens

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
CASES = [
    ("relu_70m_style", "no_drug"),
    ("gelu_chem_3b_style", "no_drug"),
    ("gelu_chem_3b_style", "with_drug"),
    ("glu_post_norm", "no_drug"),
]


def collated(expected, case: str, pad: int) -> tuple[Tokens, np.ndarray]:
    """The reference's padded batch as packed tokens, and which of its positions are real."""
    gene, value = expected[f"{case}/gene"], expected[f"{case}/expr"]
    real = gene != pad
    drug = expected[f"{case}/drug_ids"].astype(np.int64) if f"{case}/drug_ids" in expected else None
    tokens = Tokens(
        item=np.nonzero(real)[0].astype(np.int64),
        token=gene[real].astype(np.int32),
        unit=gene[real].astype(np.int32),
        position=np.nonzero(real)[1].astype(np.int32),
        weight=expected[f"{case}/expr_raw"][real],
        special=np.nonzero(real)[1] < (1 if drug is None else 2),
        item_ptr=np.concatenate([[0], real.sum(1).cumsum()]).astype(np.int64),
        per_token={"value": value[real]},
        per_item={} if drug is None else {"drug": drug},
    )
    return tokens, real


def close(got: torch.Tensor, expected: np.ndarray, what: str):
    """1e-5 relative: to each element where it is not small, to the array's scale elsewhere."""
    got = got.numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * scale, err_msg=what)
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected), what


@pytest.fixture(params=[True, False], ids=["grouped", "padded"])
def grouped(request, monkeypatch):
    """Both ways of attending to cells of different lengths."""
    from sae_genomics.models import tx1

    class Chosen(tx1.Layout):
        def __init__(self, cell_ptr, device, *, grouped):
            super().__init__(cell_ptr, device, grouped=request.param)

    monkeypatch.setattr(tx1, "Layout", Chosen)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_array_of_the_fixtures(name, case, grouped):
    expected = np.load(FIXTURES / name / "expected.npz")
    model = load_folder(FIXTURES / name, with_drugs=case == "with_drug")
    tokens, real = collated(expected, case, model.tokeniser.pad_token_id)
    layers = range(model.info.n_layers)
    for hook in model.info.hooks:
        activations = model.forward_layers(tokens, layers, hook)
        for layer in layers:
            close(activations[layer], expected[f"{case}/{hook}/{layer}"][real], f"{hook} of layer {layer}")
    outputs = model.outputs(tokens)
    close(outputs.cell_emb, expected[f"{case}/cell_emb"], "cell_emb")
    close(outputs.expr_preds, expected[f"{case}/expr_preds"][real], "expr_preds")
    close(outputs.mvc_output, expected[f"{case}/mvc_output"][real], "mvc_output")
