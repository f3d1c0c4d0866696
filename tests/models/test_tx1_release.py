"""Release folders that are damaged, or that ask for what the native backend does not compute; and the interface."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from sae_genomics import cpu
from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import CountItems
from sae_genomics.models import describe, load_model, resolve_layers, tokeniser_settings, vocabulary
from sae_genomics.models.tx1 import load_folder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "release"
    shutil.copytree(FIXTURES / "relu_70m_style", target, ignore=shutil.ignore_patterns("expected.npz"))
    return target


@pytest.fixture
def chem_folder(tmp_path):
    target = tmp_path / "release_3b"
    shutil.copytree(FIXTURES / "gelu_chem_3b_style", target, ignore=shutil.ignore_patterns("expected.npz"))
    return target


def load(folder, **settings):
    return load_model(ModelConfig(path=folder, device="cpu", **settings))


def change(folder, file, **values):
    """Set keys (`a__b` for nested ones) of a YAML file; ... removes one."""
    path = folder / file
    content = yaml.safe_load(path.read_text())
    for key, value in values.items():
        section = content
        *parents, last = key.split("__")
        for parent in parents:
            section = section[parent]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    path.write_text(yaml.safe_dump(content))


def refuses(folder, *fragments, **settings):
    with pytest.raises(UserError) as error:
        load(folder, **settings)
    message = str(error.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_no_such_folder(tmp_path):
    refuses(tmp_path / "nowhere", "no such model folder", "nowhere")


@pytest.mark.parametrize("name", ["model_config.yml", "collator_config.yml", "vocab.json", "model.safetensors"])
def test_a_file_is_missing(folder, name):
    (folder / name).unlink()
    refuses(folder, "incomplete", name)
    with pytest.raises(UserError, match=name):
        describe(ModelConfig(path=folder))


@pytest.mark.parametrize("content", ["a: [1, 2", "just text", "- a\n- b", "a: 1\n b: 2", b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["model_config.yml", "collator_config.yml"])
def test_unreadable_yaml(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses(folder, name)


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": "x"}', '{"a": null}'])
def test_unreadable_vocabulary(folder, content):
    (folder / "vocab.json").write_text(content)
    refuses(folder, "vocab.json")


def test_vocabulary_without_cls_or_beyond_the_table(folder):
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**ids, "GENE": 500}))
    refuses(folder, "vocab.json", "500", "vocab_size")
    del ids["<cls>"]
    (folder / "vocab.json").write_text(json.dumps(ids))
    refuses(folder, "<cls>")


@pytest.mark.parametrize("kept", [0, 5, 8, 1000, -1])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refuses(folder, "model.safetensors", "truncated")


def test_weights_that_are_not_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(5000))
    refuses(folder, "model.safetensors", "not a safetensors file")


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def test_tensor_of_another_shape(folder):
    name = "model.transformer_encoder.layers.1.up_proj.weight"
    edit_weights(folder, lambda weights: weights.update({name: torch.zeros(4, 48)}))
    refuses(folder, name, "[4, 48]", "[192, 48]")


def test_tensor_missing(folder):
    name = "model.transformer_encoder.layers.2.norm1.bias"
    edit_weights(folder, lambda weights: weights.pop(name))
    refuses(folder, name)


def test_tensor_that_the_config_does_not_account_for(folder):
    edit_weights(folder, lambda weights: weights.update({"model.extra.weight": torch.zeros(1)}))
    refuses(folder, "model.extra.weight")


def test_config_of_another_size(folder):
    change(folder, "model_config.yml", n_layers=4)
    refuses(folder, "layers.3", "model_config.yml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_config__attn_type", "multihead_attention"),
        ("attn_config__attn_impl", "magic"),
        ("attn_config__kv_n_heads", 3),
        ("norm_config__norm_type", "batchnorm"),
        ("norm_scheme", "sandwich"),
        ("transformer_activation", "softmax"),
        ("transformer_activation", 3),
        ("cell_emb_style", "w-pool"),
        ("expression_encoder__input_emb_style", "category"),
        ("expression_encoder__activation", "gegelu"),
        ("expression_encoder", ...),
        ("mvc__arch_style", "concat query"),
        ("mvc__query_activation", ...),
        ("n_heads", 5),
        ("d_model", "48"),
        ("d_model", ...),
        ("n_layers", 0),
        ("n_layers", True),
        ("expansion_ratio", 4.01),
        ("gene_encoder", "text"),
        ("gene_encoder", {"use_norm": True, "embeddings": {"esm": {}}}),
    ],
)
def test_architecture_that_is_not_computed(folder, key, value):
    change(folder, "model_config.yml", **{key: value})
    refuses(folder, "model_config.yml", key.split("__")[-1] if value != 4.01 else "expansion_ratio")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_length", ...),
        ("max_length", 1),
        ("keep_first_n_tokens", 0),
        ("num_bins", 2),
        ("pad_value", "x"),
        ("pad_token_id", ...),
    ],
)
def test_collator_that_is_not_followed(folder, key, value):
    change(folder, "collator_config.yml", **{key: value})
    refuses(folder, "collator_config.yml", key)


def test_unknown_names():
    with pytest.raises(UserError, match=r"tahoe-x2.*tahoe-x1-70m"):
        describe(ModelConfig(name="tahoe-x2"))
    with pytest.raises(UserError, match=r"nothing.*tx1"):
        describe(ModelConfig(family="nothing"))


def test_published_models_are_described_without_a_download(tmp_path):
    info = describe(ModelConfig(name="tahoe-x1-3b"), tmp_path)
    assert (info.n_layers, info.d_model, info.n_heads, info.max_length) == (32, 2560, 20, 2048)
    assert "3b-model" in info.identity
    assert not list(tmp_path.iterdir())


def test_layers(folder):
    info = describe(ModelConfig(path=folder))
    assert resolve_layers("all", info) == [0, 1, 2]
    assert resolve_layers([0, 2], info) == [0, 2]
    with pytest.raises(UserError, match=r"layer 3 is out of range.*3 layers, 0 to 2"):
        resolve_layers([1, 3], info)


def test_description(folder):
    info = describe(ModelConfig(path=folder))
    model = load(folder)
    assert model.info == info
    assert info.n_parameters == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert vocabulary(ModelConfig(path=folder)) == model.vocab
    assert tokeniser_settings(ModelConfig(path=folder)) == model.tokeniser
    assert len(model.vocab) == 120
    assert set(model.special_ids) == {"<pad>", "<cls>", "<eoc>"}


def test_identity_follows_the_content(folder):
    before = describe(ModelConfig(path=folder)).identity
    moved = folder.rename(folder.parent / "moved")
    assert describe(ModelConfig(path=moved)).identity == before
    edit_weights(moved, lambda weights: weights["model.flag_encoder.weight"].add_(1e-3))
    assert describe(ModelConfig(path=moved)).identity != before


# --- drugs ---


def test_a_drug_column_needs_a_chemical_encoder(folder):
    refuses(folder, "no chemical encoder", "drug_key", drug_key="drug")


def test_a_drug_column_needs_the_table_of_drugs(chem_folder):
    (chem_folder / "drug_to_id_pad.json").unlink()
    load(chem_folder)
    refuses(chem_folder, "drug_to_id_pad.json", drug_key="drug")


def test_drugs_and_model_go_together(chem_folder):
    counts, genes, rows = csr_matrix(np.eye(2, 120, dtype=np.float32)), np.arange(120), np.arange(2)
    without, with_drugs = load(chem_folder), load(chem_folder, drug_key="drug")
    with pytest.raises(UserError, match="drug_key"):
        without.tokenise(CountItems(rows, counts, genes, ["DMSO_TF", "DMSO_TF"]), 0)
    with pytest.raises(UserError, match="drug_key"):
        with_drugs.tokenise(CountItems(rows, counts, genes), 0)
    tokens = with_drugs.tokenise(CountItems(rows, counts, genes, ["Dinaciclib", "water"]), 0)
    np.testing.assert_array_equal(tokens.per_item["drug"], [4, 0])
    np.testing.assert_array_equal(tokens.token.reshape(2, 3)[:, :2], [[121, 123]] * 2)


# --- the pass ---


@pytest.fixture(scope="module")
def model():
    return load_folder(FIXTURES / "relu_70m_style")


@pytest.fixture(scope="module")
def batch(model):
    rng = np.random.default_rng(0)
    counts = (rng.random((7, 120)) < 0.4) * rng.integers(1, 30, (7, 120)).astype(np.float32)
    counts[3] = 0  # a cell without genes
    return model.tokenise(CountItems(np.arange(7), csr_matrix(counts), np.arange(120)), 0)


def test_the_pass_stops_after_the_deepest_wanted_layer(model, batch):
    ran = []
    blocks = model.network.transformer_encoder.layers
    handles = [block.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks)]
    found = model.forward_layers(batch, [1, 0], "mlp_out")
    for handle in handles:
        handle.remove()
    assert ran == [0, 1], "each layer once, none beyond"
    assert list(found) == [1, 0]
    assert found[0].shape == (len(batch), 48)


def test_one_layer_is_what_all_layers_give(model, batch):
    for hook in model.info.hooks:
        together = model.forward_layers(batch, [0, 1, 2], hook)
        for layer in range(3):
            torch.testing.assert_close(
                model.forward_layers(batch, [layer], hook)[layer], together[layer], rtol=0, atol=0
            )


def test_a_cell_does_not_depend_on_its_batch(model, batch):
    together = model.forward_layers(batch, [2], "resid_post")[2]
    for cell in range(batch.n_items):
        alone = model.forward_layers(batch.take([cell]), [2], "resid_post")[2]
        torch.testing.assert_close(
            alone, together[batch.item_ptr[cell] : batch.item_ptr[cell + 1]], rtol=1e-5, atol=1e-5
        )


def test_residual_stream_adds_up(model, batch):
    """Before the first block, the stream is what the blocks did not add: the same seen from every layer."""
    found = {hook: model.forward_layers(batch, [0, 1, 2], hook) for hook in model.info.hooks}
    for layer in (1, 2):
        total = found["resid_post"][layer - 1] + found["attn_out"][layer] + found["mlp_out"][layer]
        torch.testing.assert_close(found["resid_post"][layer], total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hook", ["resid_post", "mlp_out", "attn_out"])
def test_interventions(model, batch, hook):
    plain = model.outputs(batch)
    same = model.outputs(batch, hook=hook, interventions={1: lambda x: x.clone()})
    torch.testing.assert_close(same.expr_preds, plain.expr_preds, rtol=0, atol=0)
    seen = {}

    def halve(x):
        seen["shape"] = x.shape
        return x * 0.5

    changed = model.outputs(batch, hook=hook, interventions={1: halve})
    assert seen["shape"] == (len(batch), 48)
    assert (changed.expr_preds - plain.expr_preds).abs().max() > 1e-3
    # replacing the last layer's output by what another batch of cells has there gives that batch's predictions
    other = batch.take(np.arange(batch.n_items)[::-1])
    there = model.forward_layers(other, [2], "resid_post")[2]
    spliced = model.outputs(
        other.__class__(**{**vars(batch), "item_ptr": other.item_ptr}),
        hook="resid_post",
        interventions={2: lambda x: there},
    )
    torch.testing.assert_close(spliced.expr_preds, model.outputs(other).expr_preds)


def test_hidden_values_make_no_difference(model, batch):
    masked = (np.arange(len(batch)) % 3 == 1) & (batch.token < 120)
    changed = batch.__class__(
        **{**vars(batch), "per_token": {"value": np.where(masked, np.float32(17), batch.per_token["value"])}}
    )
    first, second = model.outputs(batch, masked=masked), model.outputs(changed, masked=masked)
    torch.testing.assert_close(first.expr_preds, second.expr_preds, rtol=0, atol=0)
    assert (first.expr_preds - model.outputs(batch).expr_preds).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(folder, model, batch, dtype):
    half = load_folder(folder, dtype=dtype)  # as it is asked for, also where the CPU has no instructions for it
    got = half.forward_layers(batch, [0, 2], "resid_post")
    expected = model.forward_layers(batch, [0, 2], "resid_post")
    for layer in (0, 2):
        assert got[layer].dtype == getattr(torch, dtype)
        error = (got[layer].float() - expected[layer]).norm() / expected[layer].norm()
        assert error < (2e-2 if dtype == "bfloat16" else 3e-3)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_computes_in_half_precision_where_the_cpu_does(folder, batch, dtype, there, monkeypatch):
    monkeypatch.setattr(cpu, "multiplies", lambda asked: there)
    (rows,) = load(folder, compute_dtype=dtype).forward_layers(batch, [0], "resid_post").values()
    assert rows.dtype == (getattr(torch, dtype) if there else torch.float32)


def test_no_gradients_are_kept(model, batch):
    assert not model.forward_layers(batch, [0], "resid_post")[0].requires_grad
    assert model.forward_layers(batch, [0], "resid_post")[0].is_inference()
