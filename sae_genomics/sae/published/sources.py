"""What `sae.from` names: a folder of SAEs here, or a release on the hub; and which of its SAEs is a layer's.

Every command reads this file, so it imports neither torch nor SAELens. A folder holds one SAE (cfg.json, sae_weights.safetensors), or
one folder per layer: `layer_LL`, or folders whose cfg.json names the layer of its hook.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.checked_json import read_if_whole
from sae_genomics.content import content_hash
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded
from sae_genomics.hashes import hash_values
from sae_genomics.revisions import checked_revision

if TYPE_CHECKING:
    from sae_genomics.run import Run

CFG, WEIGHTS, MEANS = "cfg.json", "sae_weights.safetensors", "unit_means.safetensors"
FILES = (CFG, WEIGHTS, MEANS)  # of an SAE; only those with sae.centre: unit have means
ADOPTED_FILE = "adopted.json"  # beside an SAE that was taken over: where it is from
_DEEPEST = 2  # folders below the one that is named
_RELEASE = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.\-]*(/[\w.\-{}:=,+]+)+")
_LAYER = re.compile(r"\{layer(?::0(\d)d)?\}")
_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out|attn_out)")
_BLOCK = re.compile(r"(?:^|.*\.)(?:blocks|layers|layer|h)\.(\d+)(?:\.output)?")  # a module: its output is resid_post
_ANY_LAYER = re.compile(r"(?:blocks|layers|layer|h)\.(\d+)\b")


@dataclass(frozen=True)
class Release:
    """`sae.from: RELEASE/ID` or `ORG/NAME/ID`, with `@REVISION` behind it where one is asked for."""

    text: str
    """without the revision; may hold {layer}"""
    revision: str | None = None

    def of_layer(self, layer: int) -> str:
        """The text with the layer's number in place of `{layer}` or `{layer:02d}`."""
        return _LAYER.sub(lambda found: f"{layer:0{int(found[1] or 1)}d}", self.text)

    @property
    def is_per_layer(self) -> bool:
        return _LAYER.search(self.text) is not None


@dataclass(frozen=True)
class Hook:
    """Where an SAE reads: `name` as its cfg.json has it; hook and layer in our words, None where the name says neither."""

    name: str | None
    hook: str | None
    layer: int | None


def source_of(text: str) -> Path | Release:
    """The folder or release that `sae.from` names. Raises UserError for what is neither."""
    folder = expanded(text)
    if folder.is_dir():
        return folder
    name, _, revision = text.partition("@")
    if text.startswith((".", "/", "~")) or not _RELEASE.fullmatch(name):
        raise UserError(
            f"sae.from: there is no folder {text}; name a folder that holds {CFG} and {WEIGHTS}, or a release of the hub "
            "such as ORG/NAME/layer_03"
        )
    is_repository = name.count("/") == 1 and name.partition("/")[0] not in releases()
    try:  # a repository alone has a folder for each layer, as scripts/share_saes.py makes it
        return Release(f"{name}/layer_{{layer:02d}}" if is_repository else name, checked_revision(revision or None))
    except ValueError as problem:
        raise UserError(f"sae.from: the revision behind @ {problem}") from None


@cache
def releases() -> frozenset[str]:
    """Names of the releases in SAELens' directory, which have no slash. Its file is read as text: to import SAELens takes seconds."""
    from importlib.util import find_spec

    spec = find_spec("sae_lens")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        try:
            text = (Path(folder) / "pretrained_saes.yaml").read_text(encoding="utf-8")
        except OSError:
            continue
        return frozenset(re.findall(r"^([A-Za-z0-9][\w.\-]*):", text, re.MULTILINE))
    return frozenset()


def check_source(run: Run) -> None:
    """Raise UserError where `sae.from` cannot serve this run's layers. Nothing is downloaded."""
    text = run.config.sae.from_
    if text is None:
        return
    source = source_of(text)
    if isinstance(source, Path):
        for layer in run.layers:
            folder = folder_of_layer(source, layer, run.config.model.hook, run.layers)
            if folder.resolve() == run.sae_dir(layer).resolve():
                raise UserError(
                    f"sae.from: {folder} is where this run keeps its own SAEs; give the run another name with --set run.name={run.name}_2"
                )
    elif not source.is_per_layer and len(run.layers) > 1:
        raise _one_sae(text, run.layers, "write {layer} in it where the layer's number stands")


def folder_of_layer(folder: Path, layer: int, hook: str, layers: Iterable[int] = ()) -> Path:
    """The folder of a layer's SAE. layers: all that the run has. Raises UserError where there is none, or more than one."""
    layers = list(layers) or [layer]
    if (folder / CFG).is_file():
        if len(layers) > 1:
            raise _one_sae(str(folder), layers, "name a folder with one folder per layer")
        return _whole(folder)
    ours = folder / f"layer_{layer:02d}"
    if (ours / CFG).is_file():
        return _whole(ours)
    known = {each: hook_of(read_cfg(each)) for each in _with_sae(folder)}
    found = [each for each, at in known.items() if at.layer == layer]
    if len(found) > 1:  # of several hooks, the run's
        found = [each for each in found if known[each].hook == hook] or found
    if len(found) == 1:
        return _whole(found[0])
    if found:
        names = ", ".join(str(each.relative_to(folder)) for each in found[:4])
        raise UserError(
            f"sae.from: {folder} has {len(found)} SAEs of layer {layer} ({names}); name the folder of one of them"
        )
    there = sorted({at.layer for at in known.values() if at.layer is not None})
    has = (
        f"it has SAEs of layers {', '.join(map(str, there))}; set model.layers to these"
        if there
        else f"it holds no {CFG}"
    )
    raise UserError(f"sae.from: {folder} has no SAE of layer {layer}; {has}")


def _one_sae(text: str, layers: Iterable[int], instead: str) -> UserError:
    return UserError(
        f"sae.from: {text} is one SAE, and the run has layers {', '.join(map(str, layers))}; set model.layers to its layer, or {instead}"
    )


def _with_sae(folder: Path) -> list[Path]:
    found = []
    for depth in range(1, _DEEPEST + 1):
        found += [path.parent for path in sorted(folder.glob("/".join(["*"] * depth) + f"/{CFG}"))]
    return found


def _whole(folder: Path) -> Path:
    if not (folder / WEIGHTS).is_file():
        others = [path.name for path in sorted(folder.glob("*")) if path.suffix in (".pt", ".bin", ".npz", ".pkl")]
        read = f"; {others[0]} is not read, because only safetensors files cannot run code" if others else ""
        raise UserError(f"sae.from: {folder} has {CFG} and no {WEIGHTS}{read}")
    return folder


def read_cfg(folder: Path) -> dict[str, Any]:
    """cfg.json of an SAE. Raises UserError where it cannot be read."""
    try:
        cfg = json.loads((folder / CFG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"sae.from: {folder / CFG} cannot be read: {error}") from None
    if not isinstance(cfg, dict):
        raise UserError(f"sae.from: {folder / CFG} holds no settings of an SAE")
    return cfg


def metadata_of(cfg: dict[str, Any]) -> dict[str, Any]:
    """What cfg.json says beside the SAE's own values; SAELens 5 and earlier kept it among them."""
    inner = cfg.get("metadata")
    return {**cfg, **inner} if isinstance(inner, dict) else cfg


def hook_of(cfg: dict[str, Any]) -> Hook:
    """Where an SAE reads. The input of block i (resid_pre) is the output of block i - 1."""
    known = metadata_of(cfg)
    name = known.get("hook_name") or known.get("hook_point")
    layer = known.get("hook_layer", known.get("hook_point_layer"))
    layer = layer if isinstance(layer, int) else None
    if not isinstance(name, str):
        return Hook(None, None, layer)
    if found := _HOOK.fullmatch(name):
        number, hook = int(found[1]), found[2]
        return Hook(name, "resid_post", number - 1) if hook == "resid_pre" and number else Hook(name, hook, number)
    if found := _BLOCK.fullmatch(name):
        return Hook(name, "resid_post", int(found[1]))
    found = _ANY_LAYER.search(name)
    return Hook(name, None, int(found[1]) if found else layer)


def identity(run: Run, layer: int) -> str:
    """What a layer's published SAE is, for the fingerprint of the stage's files: the content of a folder's files; a release's name and
    revision, because no command asks the hub. Once a release's SAE was taken over, it stays what it is.
    """
    text = run.config.sae.from_
    assert text is not None
    try:
        source = source_of(text)
        if isinstance(source, Release):
            return f"{source.of_layer(layer)}@{source.revision or ''}"
        folder = folder_of_layer(source, layer, run.config.model.hook, run.layers)
    except UserError:
        return "missing"  # `check_source` says so
    remembered = adopted(run, layer).get("files", {})
    return hash_values([[name, _hash(folder / name, remembered)] for name in FILES if (folder / name).is_file()])


def adopted(run: Run, layer: int) -> dict[str, Any]:
    """Where the SAE that lies in the run's own folder was taken from; empty where it was trained, or there is none."""
    return read_if_whole(run.sae_dir(layer) / ADOPTED_FILE) or {}


def file_state(path: Path) -> dict[str, Any]:
    """Path, size and time of a file: while these stay, its hash need not be computed again."""
    stat = path.stat()
    return {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _hash(path: Path, remembered: dict[str, Any]) -> str:
    state, known = file_state(path), remembered.get(path.name, {})
    if {name: known.get(name) for name in state} == state:
        return str(known["hash"])
    return hash_of(path)


def hash_of(path: Path) -> str:
    """Content hash of a file, computed once per process while its size and time stay."""
    state = file_state(path)
    return _hash_once(state["path"], state["size"], state["mtime_ns"])


@lru_cache(maxsize=4096)
def _hash_once(path: str, size: int, mtime_ns: int) -> str:
    return content_hash(Path(path))


def known_d_sae(run: Run) -> int | None:
    """Number of features of the first layer's published SAE, where its cfg.json is here; None where only the hub could tell."""
    text = run.config.sae.from_
    if text is None:
        return None
    folder = run.sae_dir(run.layers[0])
    try:
        source = source_of(text)
        if isinstance(source, Path):
            folder = folder_of_layer(source, run.layers[0], run.config.model.hook, run.layers)
        found = read_cfg(folder).get("d_sae")
    except UserError:
        return None
    return found if isinstance(found, int) and found > 0 else None
