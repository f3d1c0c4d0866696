"""An SAE of a release on the hub: which files it is, and their download into the hub's cache.

SAELens' directory of releases says where a name stands. Two layouts are read: SAELens' own (cfg.json, sae_weights.safetensors), and
that of Gemma Scope 2 (`conversion_func: gemma_3`: params.safetensors). Others hold pickles or NumPy archives, or another kind of SAE.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.hub_errors import Asked, readable_errors, token
from sae_genomics.progress import say
from sae_genomics.sae.published.sources import CFG, MEANS, WEIGHTS, Release

GEMMA_WEIGHTS = "params.safetensors"
_OWN, _GEMMA = "sae_lens", "gemma_3"


@dataclass(frozen=True)
class Place:
    """Where an SAE stands on the hub. path: its folder there. loader: SAELens' name of the layout. overrides: what SAELens sets in cfg.json.
    scale: the factor of expected_average_only_in that the directory has."""

    repository: str
    path: str
    loader: str = _OWN
    overrides: dict[str, Any] | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Downloaded:
    """Files of one SAE in the cache, all of one commit. cfg: as SAELens' loader makes it. means: with `sae.centre: unit` alone."""

    cfg: dict[str, Any]
    weights: Path
    means: Path | None
    commit: str
    place: Place


def place_of(text: str) -> Place:
    """`text`: RELEASE/ID or ORG/NAME/ID. Raises UserError for an id that a known release does not have, and for other layouts."""
    from sae_lens.loading.pretrained_saes_directory import (
        get_config_overrides,
        get_norm_scaling_factor,
        get_pretrained_saes_directory,
    )

    name, _, sae_id = text.partition("/")
    known = get_pretrained_saes_directory().get(name)
    if known is None:
        parts = text.split("/")
        return Place("/".join(parts[:2]), "/".join(parts[2:]))
    if sae_id not in known.saes_map:
        some = ", ".join(list(known.saes_map)[:4])
        raise UserError(f"sae.from: release {name} has no SAE {sae_id!r}; it has {len(known.saes_map)}, such as {some}")
    loader = known.conversion_func or _OWN
    if loader not in (_OWN, _GEMMA):
        raise UserError(
            f"sae.from: release {name} is stored in another format ({loader}), and only safetensors files in SAELens' format are read; "
            f"where SAELens reads it, SAE.from_pretrained({name!r}, {sae_id!r}).save_model('FOLDER') writes one for sae.from: FOLDER"
        )
    overrides = {key: value for key, value in get_config_overrides(name, sae_id).items() if key != "neuronpedia_id"}
    return Place(known.repo_id, known.saes_map[sae_id], loader, overrides, get_norm_scaling_factor(name, sae_id))


def download(release: Release, layer: int, revision: str | None, cache_dir: Path | None) -> Downloaded:
    """The SAE of a layer. revision: branch, tag or commit; default main. What is in the cache is not asked for again.

    Raises UserError where the hub cannot be reached, refuses, or lacks a file.
    """
    text = release.of_layer(layer)
    place, revision = place_of(text), revision or "main"
    wanted = f"{text}@{revision}" if revision != "main" else text
    options = f" --cache {shlex.quote(str(cache_dir))}" if cache_dir is not None else ""
    advice = (
        f"on a machine with network (a login node) run: python scripts/download_saes.py {shlex.quote(wanted)}{options}; "
        f"or give sae.from a folder that holds {CFG}"
    )
    asked = Asked(text, place.repository, revision, advice, "the revision behind @", "sae.from", cache_dir)
    with readable_errors(asked):
        if place.loader == _GEMMA:
            return _gemma(place, revision, cache_dir)
        cfg_file = _fetch(place, CFG, revision, cache_dir)
        commit = _commit(cfg_file, place, CFG)
        cfg = {**_json(cfg_file), **(place.overrides or {})}
        means = MEANS if _names_means(cfg) else None
        weights = _fetch(place, WEIGHTS, commit, cache_dir)
        return Downloaded(cfg, weights, _fetch(place, means, commit, cache_dir) if means else None, commit, place)


def _gemma(place: Place, revision: str, cache_dir: Path | None) -> Downloaded:
    """Gemma Scope 2: JumpReLU SAEs that do not subtract b_dec. The folder's name says layer and hook, as in SAELens' own loader."""
    from safetensors import safe_open

    found = re.search(r"layer_(\d+)", place.path)
    hooks = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z"}
    hook = next((name for key, name in hooks.items() if key in place.path), None)
    if found is None or hook is None:
        raise UserError(
            f"sae.from: {place.repository}/{place.path} is no SAE of one hook (a transcoder?), which is not computed here"
        )
    weights = _fetch(place, GEMMA_WEIGHTS, revision, cache_dir)
    with safe_open(weights, framework="np") as file:
        d_in, d_sae = file.get_slice("w_enc").get_shape()
    cfg = {
        "architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "apply_b_dec_to_input": False,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"model_name": place.repository.replace("gemma-scope-2", "gemma-3"), "hook_name": f"blocks.{found[1]}.{hook}",
                     "prepend_bos": True, "context_size": 1024},
    }  # fmt: skip
    return Downloaded(cfg, weights, None, _commit(weights, place, GEMMA_WEIGHTS), place)


def _fetch(place: Place, file: str, revision: str, cache_dir: Path | None) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name = f"{place.path}/{file}" if place.path else file
    cached = try_to_load_from_cache(place.repository, name, cache_dir=cache_dir, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    say(f"downloading {name} from {place.repository}, revision {revision}")
    try:
        path = hf_hub_download(place.repository, name, revision=revision, cache_dir=cache_dir, token=token())
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # the hub could not be asked
            raise
        raise EntryNotFoundError(name) from error
    return Path(path)


def _commit(file: Path, place: Place, name: str) -> str:
    """In the cache's layout a file is `snapshots/<commit>/<path>`."""
    depth = name.count("/") + (place.path.count("/") + 1 if place.path else 0)
    return file.parents[depth].name


def _json(path: Path) -> dict[str, Any]:
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"sae.from: {path} cannot be read: {error}") from None
    if not isinstance(cfg, dict):
        raise UserError(f"sae.from: {path} holds no settings of an SAE")
    return cfg


def _names_means(cfg: dict[str, Any]) -> bool:
    metadata = cfg.get("metadata")
    ours = metadata.get("sae_genomics") if isinstance(metadata, dict) else None
    return isinstance(ours, dict) and ours.get("unit_means") is not None
