"""Geneformer's dictionaries as pickles: what is read of them, and that nothing in them runs."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.models import describe
from sae_genomics.models.geneformer.model import load_folder
from tests.models.geneformer_checkpoints import genes, make, medians_of, tokens_of


def config(folder: Path) -> ModelConfig:
    return ModelConfig(family="geneformer", path=folder, device="cpu")


# --- pickles ---


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *given: Any):
        self.call, self.given = call, given

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.given


def payloads(witness: Path) -> list[Any]:
    command = f"touch {witness}"
    return [
        Payload(os.system, command),
        {"ENSG1": Payload(os.system, command)},
        {"ENSG1": [1, {"deep": (Payload(eval, f"__import__('os').system({command!r})"),)}]},
        {Payload(exec, f"import os; os.system({command!r})"): 1},
        {"ENSG1": Payload(getattr, Payload(__import__, "os"), "system")},
        {"ENSG1": Payload(subprocess.Popen, ["touch", str(witness)])},
    ]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("number", range(6))
def test_a_pickle_runs_nothing(tmp_path: Path, protocol: int, number: int) -> None:
    make(tmp_path / "model")
    witness = tmp_path / "witness"
    content = pickle.dumps(payloads(witness)[number], protocol=protocol)
    (tmp_path / "model" / "token_dictionary.pkl").write_bytes(content)
    with pytest.raises(UserError, match="nothing of it was run") as caught:
        describe(config(tmp_path / "model"))
    assert str(caught.value).count("\n") == 0
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch WITNESS'\ntR.",
        b"(S'touch WITNESS'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0dtouch WITNESS\x85R.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nscalar\n(I1\nI2\ntR.",
        b"cnumpy.core.multiarray\nscalar\n}S'__class__'\nI1\nsb.",
        b"cnumpy\ndtype\n}S'x'\nI1\nsb.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"Pperson\n.",
        b"\x82\x01.",
        b"}",
        b"",
        b"not a pickle",
        b"\x80\x04]\x94.",
        pickle.dumps([("ENSG1", 1)]),
        pickle.dumps({"ENSG1": [1]}),
        pickle.dumps({"ENSG1": True}),
        pickle.dumps({"ENSG1": np.arange(3)}),
        pickle.dumps({"ENSG1": np.datetime64("2020")}),
        pickle.dumps({1: 2}),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_anything_but_strings_and_numbers_is_one_line(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "token_dictionary.pkl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        describe(config(tmp_path / "model"))
    assert str(caught.value).count("\n") == 0
    assert "token_dictionary.pkl" in str(caught.value)
    assert not (tmp_path / "WITNESS").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, float])
def test_numpys_numbers_are_read_as_they_are(tmp_path: Path, protocol: int, kind: type) -> None:
    make(tmp_path)
    medians = {gene: kind(level) for gene, level in medians_of().items()}
    tokens = {gene: np.int16(token) for gene, token in tokens_of("V2").items()}
    (tmp_path / "gene_median_dictionary.pkl").write_bytes(pickle.dumps(medians, protocol=protocol))
    (tmp_path / "token_dictionary.pkl").write_bytes(pickle.dumps(tokens, protocol=protocol))
    found = load_folder(tmp_path).folder.dictionaries
    assert found.medians == {gene: float(level) for gene, level in medians.items()}
    assert found.tokens == tokens_of("V2")
    assert {type(token) for token in found.tokens.values()} == {int}


def test_big_endian_scalars_and_old_module_names(tmp_path: Path) -> None:
    make(tmp_path)
    content = pickle.dumps({gene: np.float64(level) for gene, level in medians_of().items()}, protocol=2)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "gene_median_dictionary.pkl").write_bytes(old)
    assert load_folder(tmp_path).folder.dictionaries.medians == medians_of()
    one = np.array([2.5], dtype=">f8")[0]
    big = pickle.dumps({gene: np.array(2.5, dtype=">f8")[()] for gene in genes()})
    assert float(one) == 2.5
    (tmp_path / "gene_median_dictionary.pkl").write_bytes(big)
    assert set(load_folder(tmp_path).folder.dictionaries.medians.values()) == {2.5}
