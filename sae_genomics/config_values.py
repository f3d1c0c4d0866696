"""Values of settings that have forms of their own: layers and baselines as people write them."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

Hook = Literal["resid_post", "mlp_out", "attn_out"]
StorageDtype = Literal["float32", "float16", "bfloat16"]
Baseline = Literal["neurons", "pca", "ica", "untrained"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


def read_layers(value: Any) -> Any:
    """Accept `all`, one number, a list, or `0,6,11` as typed on a command line."""
    if isinstance(value, str) and value != "all":
        try:
            value = [int(part) for part in value.split(",") if part.strip()]
        except ValueError:
            raise ValueError("is 'all', a list of layer numbers, or a comma-separated one such as 0,6,11") from None
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, list):
        if not value:
            raise ValueError("names no layer")
        if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in value):
            raise ValueError("layers are numbers counted from 0")
        if len(set(value)) != len(value):
            raise ValueError("names a layer twice")
        return sorted(value)
    return value


def read_databases(value: Any) -> Any:
    """Accept `all`, a list, or `reactome,hpo` as typed on a command line."""
    if isinstance(value, str) and value != "all":
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise ValueError(f"{name!r} is no name of a database, such as reactome; the folder is paths.databases")
        if len(set(value)) != len(value):
            raise ValueError("names a database twice")
    return value


MIN_SCORES: dict[str, float] = {"open_targets": 0.5, "string": 0.7}


def read_min_score(value: Any) -> Any:
    """Accept a score for each source that is named, or `string=0.4,hpo=0.1` as typed; the others keep theirs."""
    if isinstance(value, str):
        parts = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): number.strip() for name, _, number in parts}
    if not isinstance(value, dict):
        raise ValueError("takes a score for each source, such as {string: 0.4}, or string=0.4 as typed")
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ValueError(f"{name!r} is no name of a database, such as string")
    return {**MIN_SCORES, **value}


def read_baselines(value: Any) -> Any:
    """Accept a list, or `neurons,pca` as typed on a command line; refuse what is not known, in one line."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        for name in value:
            if name not in BASELINES:
                raise ValueError(f"{name!r} is not known; the baselines are {', '.join(BASELINES)}")
        if len(set(value)) != len(value):
            raise ValueError("names a baseline twice")
        return [name for name in BASELINES if name in value]
    return value
