"""The files of an SAE that we write ourselves, byte for byte beside those that SAELens' own classes write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sae_lens
import torch

from sae_genomics.sae.export import save_sae
from sae_genomics.sae.load import CFG_FILE, WEIGHTS_FILE, Encoder

METADATA = {
    "model_name": "toy",
    "hook_name": "blocks.1.hook_resid_post",
    "prepend_bos": True,
    "sae_genomics": {"layer": 1, "widths": (3, 7)},
}


def made(architecture: str, center: bool) -> Encoder:
    draw = torch.Generator().manual_seed(3)
    shapes = {"W_enc": (5, 7), "b_enc": (7,), "W_dec": (7, 5), "b_dec": (5,)}
    tensors = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    own = {"k": 3} if architecture == "topk" else {"threshold": torch.rand(7, generator=draw)}
    return Encoder(architecture=architecture, **tensors, **own, center=center)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
@pytest.mark.parametrize("center", [True, False])
def test_they_are_saelens_own(architecture: str, center: bool, tmp_path: Path) -> None:
    encoder = made(architecture, center)
    save_sae(tmp_path / "ours", encoder, METADATA)
    kind, config = {
        "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig), "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig),
    }[architecture]  # fmt: skip
    own = {"k": encoder.k} if architecture == "topk" else {}
    metadata = sae_lens.saes.sae.SAEMetadata(**METADATA)
    theirs = kind(config(d_in=5, d_sae=7, apply_b_dec_to_input=center, metadata=metadata, **own))
    names = ["W_enc", "b_enc", "W_dec", "b_dec", *(["threshold"] if architecture == "jumprelu" else [])]
    theirs.load_state_dict({name: getattr(encoder, name) for name in names})
    theirs.save_model(tmp_path / "theirs")
    assert (tmp_path / "ours" / WEIGHTS_FILE).read_bytes() == (tmp_path / "theirs" / WEIGHTS_FILE).read_bytes()
    cfg, expected = (json.loads((tmp_path / folder / CFG_FILE).read_text()) for folder in ("ours", "theirs"))
    del cfg["metadata"]["sae_genomics"]["weights"]
    assert json.dumps(cfg) == json.dumps(expected)

    x = torch.randn(11, 5)
    loaded = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    torch.testing.assert_close(loaded.encode(x), theirs.encode(x), rtol=0, atol=0)


def test_saving_does_not_import_saelens(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.sae.test_saelens_files import made; from sae_genomics.sae.export import save_sae; from pathlib import Path;"
        "[sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] == 'sae_lens'];"
        f"save_sae(Path({str(tmp_path)!r}), made('topk', True), {{}}); assert 'sae_lens' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
