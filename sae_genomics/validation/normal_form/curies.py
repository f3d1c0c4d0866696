"""Ids of terms as CURIEs, `MONDO:0008383`, from the ways in which databases write them."""

from __future__ import annotations

import pandas as pd

# The prefixes of databases that do not write them as everybody else does.
_PREFIXES = {"Orphanet": "ORPHA", "ORPHANET": "ORPHA", "NCIt": "NCIT"}


def curies(ids: pd.Series) -> pd.Series:
    """CURIEs from ids with an underscore (`EFO_0000676`), addresses (`http://www.ebi.ac.uk/efo/EFO_0000676`), doubled prefixes
    (`MONDO:MONDO:0013342`) and CURIEs; other text stays as it is, without blanks around it."""
    parts = ids.str.strip().str.replace(r"^https?://.*[/#]", "", regex=True)
    parts = parts.str.replace(r"^([A-Za-z]+):(?=\1[:_])", "", regex=True)
    halves = parts.str.extract(r"^([A-Za-z]+)[:_](.+)$").fillna("")
    return (halves[0].replace(_PREFIXES) + ":" + halves[1]).where(halves[0] != "", parts)
