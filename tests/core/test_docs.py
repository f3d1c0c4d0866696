"""What the documentation names is there: links, tests and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "QUICK_START.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tests_that_reliability_names_are_there() -> None:
    words = re.findall(r"`([\w/]+\.py|test_\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    content, named = "", 0
    for word in words:
        if word.endswith(".py"):
            content = (ROOT / ("" if word.startswith("tests/") else "tests") / word).read_text()
        else:
            assert f"def {word}(" in content, word
            named += 1
    assert named > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_ours_that_are_named_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    names = set(re.findall(r"`((?:[\w.]+/)*\w+\.(?:py|sh|env))(?:: [\w.]+)?`", text))
    ours = [
        f"/{path.relative_to(ROOT).as_posix()}"
        for folder in ("sae_genomics", "scripts", "slurm", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.*")
    ]
    placeholder = re.compile("FAMILY|STAGE|NAME|0N_")
    wanted = sorted(name for name in names if not placeholder.search(name))
    assert [name for name in wanted if not any(path.endswith(f"/{name}") for path in ours)] == []
