"""Whose run a name is: the record beside the results (`run.json`), and why another config, data set or model is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.checked_json import read_if_whole, write_checked_json
from sae_genomics.config_values import MIN_SCORES
from sae_genomics.data.kinds import DEFAULT_KIND
from sae_genomics.errors import UserError, not_as_written
from sae_genomics.progress import say

if TYPE_CHECKING:
    from sae_genomics.models.pins import Pin
    from sae_genomics.run import Run


def recorded(run: Run) -> dict[str, Any]:
    """The record of the run; empty when there is none, or a damaged one."""
    return read_if_whole(_file(run)) or {}


def recorded_pin(run: Run) -> Pin | None:
    """The commit of a published model that the run recorded."""
    from sae_genomics.models.pins import Pin

    return Pin.from_record(recorded(run).get("weights"))


def say_if_damaged(run: Run) -> None:
    """One line where the record is there and cannot be believed."""
    file = _file(run)
    if file.exists() and read_if_whole(file) is None:
        say(f"{not_as_written(file)}; the next task that ends writes it again")


def refuse_another(run: Run) -> None:
    """Raises UserError when the recorded run of this name has another config, data set or model."""
    known = recorded(run)
    if known and (other := _other_owner(known, _record(run), run.kind.nouns.items)):
        raise UserError(
            f"run name {run.name!r} is used already {other}; "
            f"give this one its own with --set run.name={run.name}_2, or pass --overwrite to take the name over"
        )


def record(run: Run) -> None:
    """Write the record, unless it says just this."""
    today = {**_record(run), "n_items": run.n_items}
    if recorded(run) != today:
        write_checked_json(_file(run), today)


def remembered_hash(run: Run) -> str | None:
    """The content hash of the input, where the record has it of these very files."""
    known = recorded(run)
    found = known.get("identities", {}).get("data") if _same_files(run, known) else None
    return str(found) if found else None


def remembered_items(run: Run) -> int | None:
    """How many items the run uses, where the record has counted them: in these very files, under these settings of the data."""
    known = recorded(run)
    count = known.get("n_items")
    if not isinstance(count, int) or not _same_files(run, known):
        return None
    then, now = (
        {key: value for key, value in values.items() if key.startswith("data.")}
        for values in (known["values"], _deciding_values(run))
    )
    return count if then == now else None


def _same_files(run: Run, known: dict[str, Any]) -> bool:
    """Whether the input files have the paths, sizes and times that the record has: then they need not be read again."""
    files = {key: value for key, value in known.items() if key in DATA_FILES}
    return bool(files) and files == data_files(run.data_files)


def _file(run: Run) -> Path:
    return run.results / "run.json"


def _record(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "config_file": str(run.config_file) if run.config_file else None,
        **data_files(run.data_files),
        "model": run.model_info.name,
        "identities": run.content_hashes,
        **({"weights": run.pin.to_record()} if run.pin is not None else {}),
        "values": _deciding_values(run),
    }


DATA_FILES = ("data_file", "further_data_files")


def data_files(files: Sequence[Path]) -> dict[str, Any]:
    """What the record keeps of the input files: while this is as it was, they need not be read again to tell what they hold."""
    found = []
    for path in files:
        stat = os.stat(path)
        found.append({"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})
    return {"data_file": found[0], **({"further_data_files": found[1:]} if found[1:] else {})}


# Keys that decide where and how fast a run goes, never what comes out.
IGNORED_KEYS = frozenset(
    {
        "model.device", "model.compile", "model.path", "model.name", "model.revision", "model.layers",
        "activations.batch_tokens", "sae.device", "sae.checkpoint_every_seconds", "sae.log_every", "sae.layers_per_task", "sae.layers_at_once",
        "sae.gpus_per_task", "sae.loggers", "associations.batch_tokens",
    }
)  # fmt: skip


# Keys that came after runs had been made, and the value with which they change nothing: a run that lacks them is the same run.
LATER_KEYS: dict[str, Any] = {
    "data.kind": DEFAULT_KIND,
    "model.hook_modules": None,
    "sae.from": None,
    "associations.top_examples": 10,
    "associations.concept_f1": 0.3,
    "associations.random_directions": 256,
    "validation.test": "fisher",
    "concepts.label_columns": [],
    "causal.ablation": "zero",
    "cross_layer.attribution_pairs": "adjacent",
    "cross_layer.untrained_tokens": 20_000,
    "concepts.confound_columns": [],
    "validation.sources": [],
    "validation.databases": "all",
    "validation.network": "all",
    "validation.network_draws": 10_000,
    "validation.regulons": "all",
    "validation.rewirings": 200,
    "validation.background": "source",
    "validation.min_score": MIN_SCORES,
    "validation.all_terms": False,
    "validation.expression_evidence": False,
}


def is_ignored(run: Run, key: str, value: Any) -> bool:
    """Whether a setting, `section.key`, has no part in what comes out. Files of the input have, by their content alone."""
    section, _, name = key.partition(".")
    if key in IGNORED_KEYS or (section == "data" and name in run.kind.input_keys):
        return True
    return key in LATER_KEYS and bool(value == LATER_KEYS[key])


def _deciding_values(run: Run) -> dict[str, Any]:
    """Settings that decide what comes out."""
    values = run.config.model_dump(mode="json")
    deciding = {
        f"{section}.{key}": value
        for section, keys in values.items()
        if section not in ("run", "paths", "cluster")
        for key, value in keys.items()
        if not is_ignored(run, f"{section}.{key}", value)
    }
    return dict(json.loads(json.dumps(deciding)))  # as it reads back from the record


def _other_owner(known: dict[str, Any], record: dict[str, Any], items: str) -> str | None:
    """Why the recorded owner of a name is not this one; None when it is. items: what the run is made of, such as `cells`."""
    if reason := _other_weights(known, record):
        return reason
    for kind, where in (("data", "data_file"), ("model", "model")):
        if known["identities"][kind] != record["identities"][kind] and known[where] != record[where]:
            then = known[where]["path"] if kind == "data" else known[where]
            if kind == "model" or then != record[where]["path"]:
                return f"with other {items if kind == 'data' else 'model'}: {then}"
    changed = _changed(known["values"], record["values"])
    if known["config_file"] != record["config_file"] and changed:
        return f"by {known['config_file'] or 'another config'}, which differs in {', '.join(changed[:3])}"
    return None


def _other_weights(known: dict[str, Any], record: dict[str, Any]) -> str | None:
    """Why the recorded owner used other weights of the same published model; None when it did not, and where today's are not known."""
    then, now = (each.get("weights", {}).get("commit") for each in (known, record))
    if known["model"] != record["model"] or now is None or then == now:
        return None
    return f"with other model weights: {known['model']} at {f'commit {then}' if then else 'a commit that was not recorded'}"


def _changed(then: dict[str, Any], now: dict[str, Any]) -> Sequence[str]:
    return [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
