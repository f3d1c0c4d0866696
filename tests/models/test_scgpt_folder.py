"""scGPT's folder: what is read, what is refused in one line, and what its tokens are."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import CountItems, SequenceItems
from sae_genomics.models import check_model, describe, load_model, untrained_model, vocabulary
from sae_genomics.models.scgpt.binning import bin_counts, quantiles, uniform_numbers
from sae_genomics.models.scgpt.folder import ScgptTokeniser
from sae_genomics.models.scgpt.model import load_folder
from sae_genomics.models.scgpt.tokenise import tokenise
from sae_genomics.tokens import pointers
from tests.models.test_scgpt_parity import FIXTURES, load

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def config(folder: Path | None, **settings: Any) -> ModelConfig:
    return ModelConfig(family="scgpt", path=folder, **settings)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a fixture's folder, with changes of args.json (None: left out) and of the state dict."""

    def copy(
        name: str = "torch_layout", args: dict[str, Any] | None = None, weights: Callable[[dict], dict] | None = None
    ) -> Path:
        folder = tmp_path / f"copy_{len(list(tmp_path.iterdir()))}"
        shutil.copytree(FIXTURES / name, folder)
        values = {**json.loads((folder / "args.json").read_text()), **(args or {})}
        (folder / "args.json").write_text(
            json.dumps({key: value for key, value in values.items() if value is not None})
        )
        if weights is not None:
            state = torch.load(folder / "best_model.pt", weights_only=True)
            torch.save(weights(state), folder / "best_model.pt")
        return folder

    return copy


def refusal(folder: Path | None, ask: Callable[[ModelConfig], object] = check_model, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        ask(config(folder, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_describe_and_vocabulary() -> None:
    info = describe(config(FIXTURES / "torch_layout"))
    assert (info.family, info.name, info.n_layers, info.d_model, info.n_heads, info.max_length) == (
        "scgpt", "torch_layout", 2, 12, 2, 1200,
    )  # fmt: skip
    state = torch.load(FIXTURES / "torch_layout" / "best_model.pt", weights_only=True)
    assert info.n_parameters == sum(t.numel() for name, t in state.items() if not name.startswith("cls_decoder."))
    assert info.identity != describe(config(FIXTURES / "flash_layout")).identity
    first, last = (vocabulary(config(FIXTURES / name)) for name in ("flash_layout", "torch_layout"))
    assert len(first) == len(last) == 24
    assert (first["GENE0"], last["GENE0"]) == (3, 0)
    assert load_folder(FIXTURES / "flash_pre_norm").folder.special_ids["<eoc>"] == 26  # appended, as its task does


def test_describing_imports_no_torch() -> None:
    asked = (
        "import sys; from sae_genomics.config import ModelConfig; from sae_genomics.models import describe; "
        f"describe(ModelConfig(family='scgpt', path={str(FIXTURES / 'torch_layout')!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", asked], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"input_emb_style": "category"}, "input_emb_style: 'category'"),
        ({"input_emb_style": "scaling"}, "continuous"),
        ({"input_style": "log1p"}, "input_style: 'log1p'"),
        ({"cell_emb_style": "avg-pool"}, "cell_emb_style"),
        ({"fast_transformer_backend": "linear"}, "fast_transformer_backend"),
        ({"mvc_decoder_style": "sum query"}, "mvc_decoder_style"),
        ({"use_batch_labels": True}, "use_batch_labels: True"),
        ({"domain_spec_batchnorm": "dsbn"}, "domain_spec_batchnorm"),
        ({"embsize": None}, "embsize is missing"),
        ({"pad_value": None}, "pad_value is missing"),
        ({"nheads": 5}, "not a multiple of nheads 5"),
        ({"nlayers": "two"}, "nlayers: 'two' should be a whole number"),
        ({"n_bins": 1}, "n_bins"),
        ({"max_seq_len": 1}, "max_seq_len"),
        ({"pad_token": "<padding>"}, "'<padding>' is not in vocab.json"),
        ({"pre_norm": "yes"}, "pre_norm: 'yes' should be true or false"),
        ({"d_hid": 20}, "linear1.weight has shape [16, 12], args.json and vocab.json say [20, 12]"),
        ({"nlayers": 1}, "has transformer_encoder.layers.1.linear1.bias"),
        ({"nlayers": 3}, "lacks transformer_encoder.layers.2.self_attn.in_proj_weight"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(copied, args: dict[str, Any], words: str) -> None:
    folder = copied(args=args)
    said = refusal(folder)
    assert words in said
    assert str(folder) in said


def test_missing_and_unexpected_tensors_are_all_named(copied) -> None:
    def change(state: dict) -> dict:
        del state["decoder.fc.0.bias"], state["encoder.enc_norm.weight"], state["mvc_decoder.W.weight"]
        return {**state, "bn.weight": torch.ones(3), "pert_encoder.weight": torch.ones(3, 12)}

    said = refusal(copied(weights=change))
    for name in ("decoder.fc.0.bias", "encoder.enc_norm.weight", "mvc_decoder.W.weight", "bn.weight", "pert_encoder"):
        assert name in said
    assert "lacks" in said
    assert "has no place" in said


def test_heads_that_nothing_here_depends_on_may_be_there_or_not(copied) -> None:
    def without(state: dict) -> dict:
        return {name: t for name, t in state.items() if not name.startswith(("cls_decoder.", "mvc_decoder."))}

    def more(state: dict) -> dict:
        return {
            **state,
            "flag_encoder.weight": torch.ones(2, 12),
            "grad_reverse_discriminator.out_layer.bias": torch.ones(4),
        }

    _, tokens, _ = load("torch_layout")
    expected = load_folder(FIXTURES / "torch_layout").outputs(tokens)
    bare, full = (load_folder(copied(weights=change)).outputs(tokens) for change in (without, more))
    assert bare.from_cell is None
    for found in (bare, full):
        assert torch.equal(found.predicted, expected.predicted)
    assert torch.equal(full.from_cell, expected.from_cell)


def test_pre_norm_is_of_the_flash_layout_alone(copied) -> None:
    """torch's layer, which scGPT builds without flash-attn, is not told of pre_norm."""
    for name, same in (("torch_layout", True), ("flash_layout", False)):
        _, tokens, _ = load(name)
        post, pre = (load_folder(copied(name, {"pre_norm": value})) for value in (False, True))
        outputs = [model.outputs(tokens).predicted for model in (post, pre)]
        assert torch.equal(*outputs) == same


def test_a_file_that_could_run_code_is_not_read(copied, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    folder = copied()
    torch.save({"weight": Bad()}, folder / "best_model.pt")
    assert "could run code" in refusal(folder)
    (folder / "best_model.pt").write_bytes(pickle.dumps({"weight": Bad()}))
    assert "best_model.pt" in refusal(folder)
    assert not (tmp_path / "ran").exists()
    torch.save(torch.nn.Linear(2, 2), folder / "best_model.pt")
    assert "torch.save(model.state_dict()" in refusal(folder)
    torch.save({"epoch": 3}, folder / "best_model.pt")
    assert "state dict" in refusal(folder)
    whole = (FIXTURES / "torch_layout" / "best_model.pt").read_bytes()
    (folder / "best_model.pt").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refusal(folder)


@pytest.mark.parametrize("content", [b"hello", b"h", b"", b"PK\x03\x04" + bytes(40)])
def test_a_file_of_something_else_is_refused_in_one_line(copied, content: bytes) -> None:
    folder = copied("torch_layout")
    (folder / "best_model.pt").write_bytes(content)
    assert "was not made by torch.save" in refusal(folder, check_model)


def test_old_files_are_read_too(copied) -> None:
    folder = copied()
    state = torch.load(folder / "best_model.pt", weights_only=True)
    torch.save(state, folder / "best_model.pt", _use_new_zipfile_serialization=False)
    _, tokens, _ = load("torch_layout")
    expected = load_folder(FIXTURES / "torch_layout").outputs(tokens)
    assert torch.equal(load_folder(folder).outputs(tokens).predicted, expected.predicted)


def test_folders_that_are_not_one(tmp_path: Path, copied) -> None:
    assert "set model.path" in refusal(None)
    assert "set model.path" in refusal(None, describe, name="whole-human")
    assert "no such model folder" in refusal(tmp_path / "nowhere")
    folder = copied()
    (folder / "vocab.json").unlink()
    assert "no vocab.json" in refusal(folder)
    for text, words in (
        ("[1]", "JSON object"),
        ("{", "valid JSON"),
        ('{"a": 0, "b": 2}', "0 to 1"),
        ('{"a": "x"}', "'x'"),
    ):
        (folder / "vocab.json").write_text(text)
        assert words in refusal(folder)
    folder = copied()
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**ids, "ONE_MORE": len(ids)}))
    assert "encoder.embedding.weight has shape [27, 12]" in refusal(folder)
    assert "model.compile" in refusal(FIXTURES / "torch_layout", describe, compile=True)
    assert "model.drug_key" in refusal(FIXTURES / "torch_layout", describe, drug_key="drug")
    model = load_folder(FIXTURES / "torch_layout")
    with pytest.raises(UserError, match="reads cells"):
        model.tokenise(SequenceItems(np.arange(1), ["MK"]), 0)


def test_untrained_weights_are_those_that_training_begins_with() -> None:
    for name in ("torch_layout", "flash_layout"):
        made, again, other = (untrained_model(config(FIXTURES / name), CPU, seed) for seed in (1, 1, 2))
        state = made.network.state_dict()
        assert all(torch.equal(again.network.state_dict()[key], state[key]) for key in state)
        assert not torch.equal(other.network.encoder.embedding.weight, made.network.encoder.embedding.weight)
        assert float(made.network.encoder.embedding.weight.abs().max()) <= 0.1
        for key in state:
            if "layers.1." in key:
                assert torch.equal(state[key], state[key.replace("layers.1.", "layers.0.")])
        assert bool(made.network.blocks[0].self_attn.Wqkv.bias.any()) == (name == "flash_layout")
        _, tokens, _ = load(name)
        trained = load_model(config(FIXTURES / name), CPU).forward_layers(tokens, [1], "resid_post")[1]
        assert not torch.allclose(made.forward_layers(tokens, [1], "resid_post")[1], trained)


# --- binning and tokens


def digitised(x: np.ndarray, uniform: np.ndarray, n_bins: int) -> np.ndarray:
    """scGPT's rule for one cell, by NumPy's own quantile and digitize."""
    edges = np.quantile(x, np.linspace(0, 1, n_bins - 1))
    left, right = np.digitize(x, edges), np.digitize(x, edges, right=True)
    return np.ceil(uniform * (right - left) + left)


@pytest.mark.parametrize("n_bins", [3, 5, 9, 33, 51, 65])
def test_values_are_numpys_bins(n_bins: int) -> None:
    generator = np.random.default_rng(n_bins)
    cells = [
        generator.poisson(1.5, 400) + 1.0, generator.lognormal(0, 4, 333), np.ones(17), np.array([3.0]), np.zeros(0),
        np.round(generator.lognormal(0, 1, 999), 2) + 0.01, np.array([1e-30, 1e30, 2.0]), np.arange(1, n_bins), np.zeros(0),
    ]  # fmt: skip
    cells = [cell.astype(np.float32) for cell in cells]
    ptr = pointers(np.array([len(cell) for cell in cells]))
    counts, uniform = np.concatenate(cells), generator.random(ptr[-1])
    uniform[::7] = 0
    found = bin_counts(counts, ptr, uniform, n_bins)
    levels = np.linspace(0, 1, n_bins - 1)
    for number, cell in enumerate(cells):
        at = slice(ptr[number], ptr[number + 1])
        if len(cell):
            np.testing.assert_array_equal(found[at], digitised(cell, uniform[at], n_bins))
            np.testing.assert_array_equal(quantiles(counts, ptr, levels)[number], np.quantile(cell, levels))
    assert len(bin_counts(counts[:0], ptr[:1], uniform[:0], n_bins)) == 0


def cells(seed: int, n_cells: int = 12, n_genes: int = 60) -> csr_matrix:
    generator = np.random.default_rng(seed)
    share = np.append(np.linspace(0.05, 1, n_cells - 1), 0)[:, None]
    counts = np.where(generator.random((n_cells, n_genes)) < share, generator.poisson(2, (n_cells, n_genes)) + 1, 0)
    return csr_matrix(counts.astype(np.float32))


SETTINGS = ScgptTokeniser(cls_id=60, pad_id=61, pad_value=-2, mask_value=-1, n_bins=51, max_length=31)


def test_tokens_depend_on_the_cell_its_row_and_the_seed_alone() -> None:
    counts, gene = cells(0), np.arange(60, dtype=np.int32)
    rows = np.arange(12) * 5
    together = tokenise(CountItems(rows, counts, gene), SETTINGS, 3)
    for cell in range(12):
        alone = tokenise(CountItems(rows[[cell]], counts[[cell]], gene), SETTINGS, 3)
        part = together.take([cell])
        np.testing.assert_array_equal(alone.token, part.token)
        np.testing.assert_array_equal(alone.per_token["value"], part.per_token["value"])
    # the order of the input's columns changes which unit a gene is, and nothing that the model sees
    order = np.random.default_rng(1).permutation(60)
    turned = tokenise(CountItems(rows, counts[:, order], gene[order]), SETTINGS, 3)
    for cell in range(12):
        one, other = together.take([cell]), turned.take([cell])
        assert dict(zip(one.token, one.per_token["value"], strict=True)) == dict(
            zip(other.token, other.per_token["value"], strict=True)
        )
        np.testing.assert_array_equal(order[other.unit[1:]], other.token[1:])
    for rows_too, seed in ((rows + 1, 3), (rows, 4)):
        other = tokenise(CountItems(rows_too, counts, gene), SETTINGS, seed)
        assert not np.array_equal(other.token, together.token)
        assert not np.array_equal(other.per_token["value"], together.per_token["value"])


def test_a_cell_with_too_many_genes_is_sampled_after_it_is_binned() -> None:
    counts, gene = cells(1), np.arange(60, dtype=np.int32)
    gene[7] = -1  # not in the vocabulary: neither a token nor part of the bins
    cut = tokenise(CountItems(np.arange(12), counts, gene), SETTINGS, 0)
    whole = tokenise(CountItems(np.arange(12), counts, gene), ScgptTokeniser(60, 61, -2, -1, 51, 1000), 0)
    assert cut.lengths.max() == 31
    np.testing.assert_array_equal(cut.token[cut.item_ptr[:-1]], 60)
    assert (cut.per_token["value"][cut.item_ptr[:-1]] == -2).all()
    assert cut.lengths[-1] == 1  # nothing is expressed
    for cell in range(12):
        some, every = cut.take([cell]), whole.take([cell])
        value = dict(zip(every.token, every.per_token["value"], strict=True))
        dense = counts[cell].toarray()[0]
        dense[7] = 0
        expressed = np.flatnonzero(dense)
        np.testing.assert_array_equal(every.token[1:], expressed)
        assert len(some) == min(len(expressed), 30) + 1
        assert all(value[token] == other for token, other in zip(some.token, some.per_token["value"], strict=True))
        uniform = uniform_numbers(0, np.array([cell]), np.array([len(expressed)]), expressed)
        if len(expressed):
            np.testing.assert_array_equal(every.per_token["value"][1:], digitised(dense[expressed], uniform, 51))
            assert every.per_token["value"][1:].min() >= 1
    assert (np.diff(cut.token[cut.item_ptr[-3] + 1 : cut.item_ptr[-2]]) > 0).all()
    assert any(cut.take([9]).token[1:] > 40)  # drawn, not the first ones


def test_random_numbers_are_uniform() -> None:
    drawn = uniform_numbers(0, np.arange(100), np.full(100, 1000), np.tile(np.arange(1000), 100))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared with 19 degrees of freedom: 45 is one in a thousand
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn[:-1000], drawn[1000:])[0, 1]) < 0.02


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="rows"):
        tokenise(CountItems(np.arange(3), cells(0), np.arange(60, dtype=np.int32)), SETTINGS, 0)
    with pytest.raises(ValueError, match="gene ids"):
        tokenise(CountItems(np.arange(12), cells(0), np.arange(9, dtype=np.int32)), SETTINGS, 0)
