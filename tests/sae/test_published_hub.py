"""Releases that SAELens knows, on a local hub: the same features as `SAE.from_pretrained`, with the directory's own scaling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_genomics.errors import UserError
from sae_genomics.sae.published.hub import place_of
from sae_genomics.sae.published.sources import Release, releases, source_of
from tests.hub_server import COMMIT, Hub, run
from tests.sae.published_saes import planted_weights, saved

GPT2 = "gpt2-small-mlp-tm/blocks.0.hook_mlp_out"  # its entry in the directory has a norm_scaling_factor
GEMMA = "gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_small"
COMPARE = """
import json, sys, torch
from sae_lens import SAE
from sae_genomics.sae.published.convert import convert, is_scaled, read_tensors, settings_of
from sae_genomics.sae.published.hub import download
from sae_genomics.sae.published.sources import hook_of, source_of
text = sys.argv[1] if len(sys.argv) > 1 else {text!r}
found = download(source_of(text), 0, None, None)
cfg = settings_of(found.cfg, text)
scale = found.place.scale if is_scaled(cfg) else 1.0
encoder = convert(cfg, read_tensors(found.weights, cfg), scale)
release, _, sae_id = text.partition("/")
theirs = SAE.from_pretrained(release, sae_id)
x = torch.randn(200, encoder.d_in, generator=torch.Generator().manual_seed(2)) * 2
wanted = theirs.encode(x)
got = torch.zeros_like(wanted)
token, feature, activation = encoder.encode_sparse(x)
got[torch.from_numpy(token), torch.from_numpy(feature).long()] = torch.from_numpy(activation)
at = hook_of(cfg)
print(json.dumps({{"error": float((got - wanted).detach().abs().max()), "active": int((wanted > 0).sum()), "scale": scale,
                  "commit": found.commit, "hook": at.hook, "layer": at.layer, "center": encoder.center}}))
"""


@pytest.fixture
def serve() -> Iterator[list[Hub]]:
    servers: list[Hub] = []
    yield servers
    for each in servers:
        each.closing.set()
        each.shutdown()
        each.server_close()


def weights() -> dict[str, torch.Tensor]:
    directions = torch.nn.functional.normalize(torch.randn(24, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    return planted_weights(directions)


def compared(text: str, hub: Hub, home: Path) -> dict[str, Any]:
    done = run(COMPARE.format(text=text), hub.url, home)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_release_with_a_scaling_factor_of_its_own(serve: list[Hub], tmp_path: Path) -> None:
    place = place_of(GPT2)
    assert place.scale == pytest.approx(1.049317316132615)
    saved(tmp_path, "standard", weights(), normalize_activations="expected_average_only_in",
          metadata={"model_name": "gpt2-small", "hook_name": "blocks.0.hook_mlp_out"})  # fmt: skip
    files = {f"{place.path}/{name}": (tmp_path / name).read_bytes() for name in ("cfg.json", "sae_weights.safetensors")}
    serve.append(Hub(files, place.repository))
    found = compared(GPT2, serve[0], tmp_path / "home")
    assert found["error"] < 1e-5, found
    assert found["active"] > 500, found
    assert (found["hook"], found["layer"], found["scale"]) == ("mlp_out", 0, place.scale)
    assert found["commit"] == COMMIT

    asked = len(serve[0].requests)
    script = run(["scripts/download_saes.py", GPT2], serve[0].url, tmp_path / "home")
    assert script.returncode == 0, script.stderr
    assert COMMIT in script.stdout
    assert len(serve[0].requests) == asked, "what is in the cache is not asked for again"


def test_gemma_scope_2(serve: list[Hub], tmp_path: Path) -> None:
    place = place_of(GEMMA)
    tensors = {
        {"W_enc": "w_enc", "W_dec": "w_dec"}.get(name, name): tensor.contiguous() for name, tensor in weights().items()
    }
    save_file({**tensors, "threshold": torch.linspace(0.1, 1, 24)}, tmp_path / "params.safetensors")
    data = (tmp_path / "params.safetensors").read_bytes()
    serve.append(Hub({f"{place.path}/params.safetensors": data}, place.repository))
    found = compared(GEMMA, serve[0], tmp_path / "home")
    assert found["error"] < 1e-5, found
    assert found["active"] > 100, found
    assert (found["hook"], found["layer"], found["center"]) == ("resid_post", 12, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gemma-scope-2b-pt-res-canonical/layer_0/width_16k/canonical", "is stored in another format"),
        ("gpt2-small-res-jb/blocks.99.hook_resid_pre", "has no SAE 'blocks.99.hook_resid_pre'"),
    ],
)
def test_releases_that_are_not_read(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        place_of(text)


def test_no_network_is_one_line_that_says_what_to_type(tmp_path: Path) -> None:
    done = run(
        ["scripts/download_saes.py", "someone/saes", "--layers", "3"],
        "http://127.0.0.1:9",
        tmp_path,
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2
    assert "scripts/download_saes.py someone/saes/layer_03;" in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr


def test_what_sae_from_names(tmp_path: Path) -> None:
    assert source_of(str(tmp_path)) == tmp_path
    assert source_of("someone/saes") == Release("someone/saes/layer_{layer:02d}")
    assert source_of("someone/saes@v1") == Release("someone/saes/layer_{layer:02d}", "v1")
    assert source_of(GPT2) == Release(GPT2)
    many = source_of("gpt2-small-res-jb/blocks.{layer}.hook_resid_pre")
    assert isinstance(many, Release)
    assert many.is_per_layer
    assert many.of_layer(7).endswith("blocks.7.hook_resid_pre")
    two = source_of("someone/saes/l{layer:03d}")
    assert isinstance(two, Release)
    assert two.of_layer(7) == "someone/saes/l007"
    assert {"gpt2-small-res-jb", "gemma-scope-2-4b-it-res"} <= releases()
