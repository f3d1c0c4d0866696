"""scGPT's native backend against what scgpt 0.2.4 computed (tests/fixtures/scgpt_parity/README.md), and against torch's own encoder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sae_genomics.items import CountItems
from sae_genomics.models import tokeniser_settings
from sae_genomics.models.scgpt.binning import bin_counts
from sae_genomics.models.scgpt.model import Scgpt, load_folder
from sae_genomics.tokens import Tokens, pointers

FIXTURES = Path(__file__).parents[1] / "fixtures" / "scgpt_parity"
CASES = ("torch_layout", "flash_layout", "flash_pre_norm")


def load(name: str, dtype: str = "float32") -> tuple[Scgpt, Tokens, Any]:
    """The model, its tokens of the fixture's cells with the values that the package gave them, and the fixture."""
    expected = np.load(FIXTURES / name / "expected.npz")
    model = load_folder(FIXTURES / name, dtype=dtype)
    items = CountItems(np.arange(6) * 3, csr_matrix(expected["counts"]), expected["gene_ids"])
    tokens = model.tokenise(items, seed=1)
    real = expected["gene"] != model.folder.tokeniser.pad_id
    tokens.per_token["value"][:] = expected["expr"][real]  # ties are spread by other random numbers
    return model, tokens, expected


def close(got: torch.Tensor, expected: np.ndarray, what: str) -> None:
    """1e-5 relative: to each element where it is not small, to the array's scale elsewhere."""
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=what)


@pytest.fixture(params=["kernel or one by one", "padded"])
def padded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of attending to cells of different lengths: that of a CPU, and that of an accelerator."""
    from sae_genomics.models.scgpt import model

    if request.param == "padded":

        class Padded(model.Sequences):
            def __init__(self, ptr: Any, device: Any, *, padded: bool):
                super().__init__(ptr, device, padded=True)

        monkeypatch.setattr(model, "Sequences", Padded)


@pytest.mark.usefixtures("padded")
@pytest.mark.parametrize("name", CASES)
def test_every_array_of_the_fixtures(name: str) -> None:
    model, tokens, expected = load(name)
    for hook in model.info.hooks:
        found = model.forward_layers(tokens, range(model.info.n_layers), hook)
        for layer in range(model.info.n_layers):
            close(found[layer], expected[f"{hook}/{layer}"], f"{hook} of layer {layer}")
    last = model.forward_layers(tokens, [model.info.n_layers - 1], "resid_post")[model.info.n_layers - 1]
    close(last, expected["fused"], "torch's fused path")
    masked = expected["masked"][expected["gene"] != model.folder.tokeniser.pad_id]
    for case, hidden in (("plain", None), ("hidden", masked)):
        outputs = model.outputs(tokens, masked=hidden)
        close(outputs.predicted, expected[f"{case}/mlm_output"], "predictions")
        if f"{case}/mvc_output" in expected:
            close(outputs.from_cell, expected[f"{case}/mvc_output"], "predictions from the cell")
        else:
            assert outputs.from_cell is None
    close(model.outputs(tokens).cell_emb, expected["cell_emb"], "cell embeddings")
    loss = model.masked_loss(tokens, masked, "resid_post")
    wanted = (expected["hidden/mlm_output"].astype(float) - tokens.per_token["value"]) ** 2
    np.testing.assert_allclose(loss[masked], wanted[masked], rtol=1e-4)
    assert not loss[~masked].any()


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_values_are_the_collators(name: str) -> None:
    model, tokens, expected = load(name)
    real = expected["gene"] != model.folder.tokeniser.pad_id
    np.testing.assert_array_equal(tokens.token, expected["gene"][real])
    np.testing.assert_array_equal(tokens.lengths, real.sum(1))
    np.testing.assert_array_equal(tokens.position, np.nonzero(real)[1])
    np.testing.assert_array_equal(tokens.item, np.repeat(np.arange(6) * 3, real.sum(1)))
    assert (expected["expr"][:, 0] == model.folder.tokeniser.pad_value).all()
    counts = expected["counts"][:, expected["gene_ids"] >= 0]
    values = bin_counts(counts[counts > 0], pointers((counts > 0).sum(1)), expected["uniform"], 51)
    np.testing.assert_array_equal(values, expected["expr"][real][~tokens.special])
    assert len(np.unique(values)) > 30


def test_predictions_do_not_depend_on_the_sequences_beside() -> None:
    model, tokens, _ = load("flash_layout")
    together = model.forward_layers(tokens, [1], "resid_post")[1]
    for cell in range(tokens.n_items):
        alone = model.forward_layers(tokens.take([cell]), [1], "resid_post")[1]
        close(alone, together[torch.from_numpy(tokens.rows_of([cell]))].numpy(), f"cell {cell}")


def torch_encoder(d_model: int, n_heads: int, d_mlp: int, n_layers: int) -> nn.TransformerEncoder:
    """Torch's own, with layers and norms that differ."""
    layer = nn.TransformerEncoderLayer(d_model, n_heads, d_mlp, 0.2, batch_first=True)
    encoder = nn.TransformerEncoder(layer, n_layers).eval().requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.add_(1)
    return encoder


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_larger_model_is_torchs_encoder(tmp_path: Path, fused: bool, prefix: str) -> None:
    """Widths for which a CPU has kernels, many cells, pieces; the peer is nn.TransformerEncoder with its fused path and without."""
    torch.manual_seed(0)
    d_model, n_genes = 64, 700
    peer = torch_encoder(d_model, 2, 96, 3)
    write_small_files(tmp_path, n_genes, d_model)
    weights = made_weights(peer, n_genes, d_model)
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "best_model.pt")
    model = load_folder(tmp_path)
    generator = np.random.default_rng(0)
    counts = generator.poisson(generator.gamma(0.4, 2, (30, n_genes)) * generator.uniform(0.1, 1, (30, 1)))
    tokens = model.tokenise(CountItems(np.arange(30), csr_matrix(counts.astype(np.float32)), np.arange(n_genes)), 0)
    model.piece_tokens = 1000
    found = model.forward_layers(tokens, [0, 2], "resid_post")
    value = torch.from_numpy(tokens.per_token["value"])[:, None]
    gene = nn.functional.layer_norm(
        weights["encoder.embedding.weight"][torch.from_numpy(tokens.token).long()], [d_model]
    )
    first = nn.functional.linear(
        value, weights["value_encoder.linear1.weight"], weights["value_encoder.linear1.bias"]
    ).relu()
    second = nn.functional.linear(first, weights["value_encoder.linear2.weight"], weights["value_encoder.linear2.bias"])
    rows = (gene + nn.functional.layer_norm(second, [d_model])).split(tokens.lengths.tolist())
    x = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(x.shape[1]) < torch.from_numpy(tokens.lengths)[:, None]
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        for n_layers, layer in ((1, 0), (3, 2)):
            part = copy.deepcopy(peer)
            part.layers, part.num_layers = part.layers[:n_layers], n_layers
            with torch.inference_mode():
                expected = part(x, src_key_padding_mask=~real)
            close(found[layer], expected[real[:, : expected.shape[1]]].numpy(), f"layer {layer}")
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def write_small_files(folder: Path, n_genes: int, d_model: int) -> None:
    """args.json and vocab.json of the larger model."""
    args = json.loads((FIXTURES / "torch_layout" / "args.json").read_text())
    args |= {"embsize": d_model, "nheads": 2, "d_hid": 96, "nlayers": 3, "MVC": False}
    (folder / "args.json").write_text(json.dumps(args))
    tokens = [*(f"G{number}" for number in range(n_genes)), "<pad>", "<cls>", "<eoc>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))


def made_weights(encoder: nn.TransformerEncoder, n_genes: int, d_model: int) -> dict[str, torch.Tensor]:
    """A state dict around torch's encoder, with norms of the embedding that change nothing."""
    ones, zeros = torch.ones(d_model), torch.zeros(d_model)
    square = {f"decoder.fc.{n}.weight": torch.randn(d_model, d_model) for n in (0, 2)}
    return {
        **{f"transformer_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()},
        "encoder.embedding.weight": torch.randn(n_genes + 3, d_model),
        "encoder.enc_norm.weight": ones, "encoder.enc_norm.bias": zeros,
        "value_encoder.linear1.weight": torch.randn(d_model, 1), "value_encoder.linear1.bias": torch.randn(d_model),
        "value_encoder.linear2.weight": torch.randn(d_model, d_model) / 8, "value_encoder.linear2.bias": zeros,
        "value_encoder.norm.weight": ones, "value_encoder.norm.bias": zeros, **square,
        "decoder.fc.0.bias": zeros, "decoder.fc.2.bias": zeros, "decoder.fc.4.weight": torch.randn(1, d_model),
        "decoder.fc.4.bias": torch.zeros(1),
    }  # fmt: skip


def test_settings_are_there_for_prepare() -> None:
    from sae_genomics.config import ModelConfig

    settings = tokeniser_settings(ModelConfig(family="scgpt", path=FIXTURES / "flash_layout"))
    assert (settings.max_length, settings.n_special) == (1200, 1)
