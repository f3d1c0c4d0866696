"""The list of architectures, and what reading it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sae_genomics.config import RunConfig
from sae_genomics.errors import UserError
from sae_genomics.sae.architectures import ARCHITECTURES, architecture_named

ROOT = Path(__file__).parents[2]


def test_docs_list_them_all() -> None:
    table = re.findall(
        r"^\| `(\w+)` \| (.+) \| (?:SAELens )?`(\w+)` \|$", (ROOT / "docs/training.md").read_text(), re.M
    )
    assert table == [(each.name, each.description, each.saved_as) for each in ARCHITECTURES]


def test_looking_at_a_run_imports_no_torch() -> None:
    """Every command reads the config, and with it the list."""
    code = (
        "import sys; from sae_genomics.config import parse_config; "
        "parse_config({'data': {'path': 'x'}, 'sae': {'architecture': 'jumprelu'}}, 'c'); "
        "assert 'sae_genomics.sae.architectures.jumprelu' in sys.modules; "
        "print(sorted({'torch', 'numba', 'sae_lens'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["TopK", "", None, 5])
def test_an_unknown_name_is_told_which_there_are(name: object) -> None:
    with pytest.raises(UserError, match="the architectures are topk, batchtopk, matryoshka and jumprelu") as refused:
        architecture_named(name)
    assert str(refused.value).endswith("did you mean topk?") == (name == "TopK")


def test_a_section_of_a_config_keeps_its_name() -> None:
    for architecture in ARCHITECTURES:
        config = RunConfig.model_validate({"data": {"path": "x"}, "sae": {"architecture": architecture.name}})
        assert type(config.sae) is architecture.section
        assert architecture.in_words(config.sae) == "k = 32"
