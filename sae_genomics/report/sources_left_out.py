"""Which databases no gene set was tested of, and why: not downloaded, without a key, not asked for, without a gene set that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_genomics.config import RunConfig
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded
from sae_genomics.report.markdown import code, escape, listing, table
from sae_genomics.validation.normal_form.catalogue import CATALOGUE, Entry, read_catalogue
from sae_genomics.validation.normal_form.obtain import GENES
from sae_genomics.validation.normal_form.schema import SOURCE_FILE, read_source

HEADER = ("Left out", "Why")
NOT_DOWNLOADED = "not downloaded"


def left_out(config: RunConfig, collections: Sequence[Mapping[str, Any]]) -> str:
    """A line or a table; empty where nothing was left out, and for an installation without the catalogue of databases.

    collections: `gene_sets.described` of those that were tested.
    """
    if not CATALOGUE.exists():
        return ""
    entries = {name: entry for name, entry in read_catalogue().items() if name != GENES}
    folder = expanded(config.paths.databases)
    reasons = {
        name: reason for name, entry in entries.items() if (reason := _reason(name, entry, folder, config, collections))
    }
    absent = [name for name, reason in reasons.items() if reason == NOT_DOWNLOADED]
    command = code(
        f"python scripts/download_databases.py --only {' '.join(absent)} --to {config.paths.databases}", in_table=True
    )
    if len(reasons) == len(entries) and not any((folder / name).exists() for name in entries):
        fetch = f"python scripts/download_databases.py --to {config.paths.databases}"
        return (
            f"No database was tested, because none is in {code(config.paths.databases)}. {code(fetch)} fetches "
            f"{listing([escape(entry.title) for entry in entries.values()])}."
        )
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(f"{reason}; {command} fetches them" if reason == NOT_DOWNLOADED else reason, []).append(
            name
        )
    rows = [(listing([escape(entries[name].title) for name in names]), reason) for reason, names in by_reason.items()]
    return f"Sources that no gene set was tested of:\n\n{table(HEADER, rows)}" if rows else ""


def _reason(name: str, entry: Entry, folder: Path, config: RunConfig, collections: Sequence[Mapping[str, Any]]) -> str:
    """Why a database was not tested, as Markdown; empty where it was."""
    tested = next((each for each in collections if each["name"] == name), None)
    if tested is not None:
        none = f"none of its {tested['n_sets']:,} gene sets has enough genes of the data"
        return "" if tested["n_fit"] else none
    if not (folder / name / SOURCE_FILE).exists():
        if entry.key:
            return (
                f"not downloaded; it needs an access key in the environment variable {code(entry.key, in_table=True)}"
            )
        return NOT_DOWNLOADED
    wanted = config.validation.databases
    if wanted != "all" and name not in wanted:
        return f"{code('validation.databases', in_table=True)} does not name it"
    try:
        counts = read_source(folder / name).get("counts") or {}
    except UserError as error:
        return escape(error)
    if not counts.get("statements"):
        return "it has pairs of genes and no gene sets" if counts.get("edges") else "none of its rows could be used"
    return "downloaded after the test; type the pipeline's command again"
