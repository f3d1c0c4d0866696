"""A folder of shared SAEs: written beside its name, loaded again by SAELens, and only then given the name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from sae_genomics import __version__
from sae_genomics.atomic import json_text, read_json, temporary_beside
from sae_genomics.content import content_hash
from sae_genomics.errors import UserError
from sae_genomics.report.files import annotation_files
from sae_genomics.sae.files import MEANS_FILES, SAE_FILES
from sae_genomics.sae.load import load_encoder
from sae_genomics.share.card import card
from sae_genomics.share.facts import Layer, Shared, public_name
from sae_genomics.share.page import page

MARK = "sae_genomics.json"  # says that a folder is ours, and which files are
FORMAT_VERSION = 1
_CHECKED_ROWS = 64
_TOLERANCE = 1e-5


def pack(shared: Shared, folder: Path, repository: str | None = None) -> None:
    """Write everything into an empty folder, and load each SAE again with SAELens.

    Raises RuntimeError where SAELens gives other features than the run's own code.
    """
    for layer in shared.layers:
        _sae(layer, folder / layer.name)
        _load_again(layer, folder / layer.name)
    _tables(shared, folder)
    (folder / "README.md").write_text(card(shared, repository), encoding="utf-8")
    (folder / "index.html").write_text(page(shared), encoding="utf-8")
    files = {
        path.relative_to(folder).as_posix(): content_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    mark = {
        "format_version": FORMAT_VERSION,
        "made_by": f"sae-genomics {__version__}",
        "run": shared.run.name,
        "files": files,
    }
    (folder / MARK).write_text(json_text(mark), encoding="utf-8")


@contextmanager
def in_place_of(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its name on leaving the block well. Raises UserError for a folder that is not ours."""
    refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging, before = temporary_beside(target), temporary_beside(target)
    staging.mkdir()
    try:
        yield staging
        if target.exists():
            os.replace(target, before)
        os.replace(staging, target)
    finally:
        if before.exists() and not target.exists():
            os.replace(before, target)
        for each in (staging, before):
            shutil.rmtree(each, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Raise UserError where something stands at `target` that this software did not make, or that holds more than that."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise UserError(f"--to: {target} is a file; name a folder")
    known = (read_json(target / MARK) or {}).get("files")
    if not isinstance(known, dict):
        raise UserError(f"--to: {target} is there and was not made by this script; name another folder, or remove it")
    others = [
        name
        for path in sorted(target.rglob("*"))
        if path.is_file() and (name := path.relative_to(target).as_posix()) not in {*known, MARK}
    ]
    if others:
        raise UserError(
            f"--to: {target} also holds {others[0]}, which this script did not write; move it, or name another folder"
        )


def _sae(layer: Layer, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in (*SAE_FILES, *MEANS_FILES):
        source = layer.folder / name
        if not source.is_file():
            continue
        if source.suffix == ".json":  # where an SAE was taken over from may be a path of this machine
            (folder / name).write_text(
                json.dumps(_public(json.loads(source.read_text(encoding="utf-8")))), encoding="utf-8"
            )
        else:
            shutil.copyfile(source, folder / name)


def _public(values: dict[str, Any]) -> dict[str, Any]:
    ours = (values.get("metadata") or {}).get("sae_genomics") or {}
    for holder in (values.get("from"), ours.get("published")):
        if isinstance(holder, dict) and isinstance(holder.get("name"), str):
            holder["name"] = public_name(holder["name"])
    return values


def _load_again(layer: Layer, folder: Path) -> None:
    """Features of SAELens' SAE beside those of the run's encoder, on rows about the decoder's own."""
    import sae_lens

    theirs, ours = sae_lens.SAE.load_from_disk(folder), load_encoder(layer.folder)
    rng = np.random.default_rng(0)
    rows = min(_CHECKED_ROWS, ours.d_sae)
    noise = torch.from_numpy(rng.standard_normal((rows, ours.d_in), dtype=np.float32))
    x = 3 * ours.W_dec[torch.from_numpy(rng.choice(ours.d_sae, rows, replace=False))] + 0.1 * noise + ours.b_dec
    with torch.no_grad():
        wanted = theirs.encode(x).numpy()
    token, feature, activation = ours.encode_sparse(x)
    found = np.zeros_like(wanted)
    found[token, feature] = activation
    scale = max(1.0, float(np.abs(wanted).max()))
    if not np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * scale):
        raise RuntimeError(f"SAELens gives other features of {folder.name} than this software")


def _tables(shared: Shared, folder: Path) -> None:
    """features and, where the run has them, annotations: Parquet, and tab-separated text."""
    features = pd.concat([layer.features for layer in shared.layers], ignore_index=True)
    features.to_parquet(folder / "features.parquet", index=False)
    _write_text(folder / "features.tsv", features)
    parquet, text = annotation_files(shared.run)
    if parquet.exists() and text.exists():
        numbers = [layer.number for layer in shared.layers]
        rows = pq.read_table(parquet, filters=[("layer", "in", numbers)])
        pq.write_table(rows, folder / parquet.name, compression="zstd")
        _write_text(folder / text.name, rows.to_pandas())
        shared.extra["tables"] = (parquet.name, text.name)


def _write_text(path: Path, rows: pd.DataFrame) -> None:
    """Without quotes: neither a tab nor a line break nor a quote stands within a value."""
    texts = {
        name: rows[name].astype("string").str.replace(r'[\t\r\n"]+', " ", regex=True)
        for name in rows.columns
        if rows[name].dtype == object or str(rows[name].dtype).startswith("str")
    }
    rows.assign(**texts).to_csv(path, sep="\t", index=False, lineterminator="\n")
