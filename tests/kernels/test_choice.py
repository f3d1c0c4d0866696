"""Every kernel has a plain version of the same name and arguments, and the switch and the machine choose between them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numba
import pytest

from sae_genomics import kernels
from sae_genomics.errors import UserError
from sae_genomics.kernels import choice
from sae_genomics.kernels.choice import KERNELS, instead_of, plain_asked


def sample(x: int) -> str:
    return f"plain {x}"


plain_sample = sample


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kernel of a file that the switch can name."""
    monkeypatch.setattr(choice, "KERNELS", {})
    monkeypatch.setattr(choice, "_files", lambda asked: frozenset(asked.split(",")))
    monkeypatch.delenv("SAE_GENOMICS_PLAIN", raising=False)

    def sample(x: int) -> str:
        return f"fast {x}"

    return instead_of(plain_sample)(sample)


def test_the_switch_turns_all_kernels_off(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(3) == "fast 3"
    for value, expected in (("1", "plain 3"), ("0", "fast 3"), ("", "fast 3"), ("all", "plain 3")):
        monkeypatch.setenv("SAE_GENOMICS_PLAIN", value)
        assert chosen(3) == expected


def test_the_switch_turns_off_the_kernels_of_one_file(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_GENOMICS_PLAIN", "test_choice,adam")
    assert chosen(3) == "plain 3"
    monkeypatch.setenv("SAE_GENOMICS_PLAIN", "adam")
    assert chosen(3) == "fast 3"


def test_a_switch_that_names_no_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAE_GENOMICS_PLAIN", "no_such_kernel")
    with pytest.raises(UserError, match="no kernel 'no_such_kernel'; set it to 1 for all"):
        plain_asked("adam")


def test_loops_do_not_run_in_the_interpreter(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert chosen(3) == "plain 3"


def test_what_does_not_compile_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "KERNELS", {})
    monkeypatch.delenv("SAE_GENOMICS_PLAIN", raising=False)
    calls = []

    def sample(x: int) -> str:
        calls.append(x)
        raise numba.core.errors.LoweringError("no such instruction\nmore lines")

    chosen = instead_of(plain_sample)(sample)
    assert [chosen(3), chosen(4)] == ["plain 3", "plain 4"]
    assert calls == [3]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "its plain version is used; it does not compile here: no such instruction" in said


def test_both_versions_take_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "KERNELS", {})

    def sample(y: int) -> str:
        return f"fast {y}"

    with pytest.raises(TypeError, match="another name or other arguments"):
        instead_of(plain_sample)(sample)


def test_every_file_of_plain_versions_has_its_file_of_kernels() -> None:
    """The two folders have files of the same names, and every kernel's versions stand in them."""
    found = {module.name for module in pkgutil.iter_modules(kernels.__path__)}
    plain = importlib.import_module("sae_genomics.kernels.plain")
    for module in pkgutil.iter_modules(plain.__path__):
        assert module.name in found
        importlib.import_module(f"sae_genomics.kernels.{module.name}")
    for name, kernel in KERNELS.items():
        file = name.partition(".")[0]
        assert kernel.fast.__module__ == f"sae_genomics.kernels.{file}", name
        assert kernel.plain.__module__ == f"sae_genomics.kernels.plain.{file}", name
