"""Ids of terms in one way of writing."""

from __future__ import annotations

import pandas as pd
import pytest

from sae_genomics.validation.normal_form.curies import curies


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("MONDO_0008383", "MONDO:0008383"), ("EFO_0000676", "EFO:0000676"), ("MONDO:0008383", "MONDO:0008383"),
        ("MONDO:MONDO:0013342", "MONDO:0013342"), ("HP:HP_0000118", "HP:0000118"), ("Orphanet_183", "ORPHA:183"),
        ("Orphanet:183", "ORPHA:183"), ("OTAR_0000020", "OTAR:0000020"), ("UMLS_C0400966", "UMLS:C0400966"),
        ("http://www.ebi.ac.uk/efo/EFO_0007991", "EFO:0007991"), (" http://www.orpha.net/ORDO/Orphanet_183", "ORPHA:183"),
        ("http://example.org/ontology#HP_0000118", "HP:0000118"), ("", ""), ("12345", "12345"), ("R-HSA-1", "R-HSA-1"),
    ],
)  # fmt: skip
def test_curies(written: str, expected: str) -> None:
    assert curies(pd.Series([written], index=[7])).to_dict() == {7: expected}


def test_nothing() -> None:
    assert curies(pd.Series([], dtype=object)).tolist() == []
