"""The enrichment tests, by name; `validation.test` chooses one.

A further test is a file in this folder and a line in the list. Another package names its own as an entry point in the group
`sae_genomics.enrichment_tests`, or calls `register`. A test is imported when it is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.installed import add, loaded, with_installed

if TYPE_CHECKING:
    from sae_genomics.validation.enrichment_test import EnrichmentTest

GROUP = "sae_genomics.enrichment_tests"
TESTS: dict[str, str] = with_installed(GROUP, {
    "fisher": "sae_genomics.validation.enrichment_tests.fisher:FISHER",
    "savage": "sae_genomics.validation.enrichment_tests.savage:SAVAGE",
})  # fmt: skip


def register(name: str, where: str) -> None:
    """Add a test. where: `module:NAME` of its `EnrichmentTest`. Raises ValueError when the name is taken."""
    add(TESTS, name, where)


def enrichment_test_named(name: str) -> EnrichmentTest:
    """The test of that name. Raises UserError listing the names there are."""
    if name not in TESTS:
        raise UserError(f"validation.test: {name!r} is not known; set it to {' or '.join(TESTS)}")
    test: EnrichmentTest = loaded(TESTS[name], f"validation.test: {name}")
    return test
