"""What one run found and what it was tested with, read from its results and its gene sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_TERMS, GENE_TOKENS
from sae_genomics.config import RunConfig, load_config
from sae_genomics.data.kinds import kind_named
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded
from sae_genomics.paths import RunPaths
from sae_genomics.validation.background import background_of
from sae_genomics.validation.databases import load_collections
from sae_genomics.validation.gene_sets import COLLECTIONS, Membership, NoSetFits

KEY = ["collection", "term_id"]
_READ = ["feature", *KEY, "q_matched", "explained_by"]


@dataclass(frozen=True)
class RunTerms:
    """One run."""

    name: str
    """of the run; of its folder too where two runs have one name"""
    model: str
    folder: Path
    layers: tuple[int, ...]
    terms: pd.DataFrame
    """terms that were tested: collection, term_id, term, n_term"""
    genes: npt.NDArray[np.object_]
    """symbols [genes], upper case"""
    matrix: sparse.csr_matrix
    """csr [genes, terms], 1 for a member"""
    found: pd.DataFrame
    """terms that were found: layer, collection, term_id, n_features, q_matched (the best)"""
    n_annotated: dict[int, int]
    """layer -> features that have one of the found terms"""
    versions: dict[str, str]
    """collection -> version of its database, as it was when the run was validated"""


def read_runs(paths: Sequence[Path]) -> list[RunTerms]:
    """Read the runs. paths: results/<run>, or the config file of a run. Raises UserError for one that has nothing to compare."""
    runs = [read_run(path) for path in paths]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise UserError("a run is named twice; name two or more different runs")
    often = Counter(run.name for run in runs)
    return [replace(run, name=str(run.folder)) if often[run.name] > 1 else run for run in runs]


def read_run(path: Path) -> RunTerms:
    """Read one run."""
    config, folder = _config_of(path)
    if not kind_named(config.data.kind).units_are_genes:
        raise UserError(f"{path}: its data are {config.data.kind}, and gene sets say something about genes alone")
    layers = sorted(
        int(file.parent.name.removeprefix("layer_"))
        for file in folder.glob(f"layer_*/{FEATURE_TERMS.file}")
        if file.parent.name.removeprefix("layer_").isdigit()
    )
    if not layers:
        raise UserError(f"{folder} has no layer_*/{FEATURE_TERMS.file}; run the stage validate of this run first")
    members = _members(config, folder / f"layer_{layers[0]:02d}", path)
    of_features = {layer: _of_features(folder, layer, config.validation.fdr) for layer in layers}
    found = pd.concat([_found(layer, terms) for layer, terms in of_features.items()], ignore_index=True)
    return RunTerms(
        config.run.name or folder.name,
        str(config.model.path or config.model.name or "demo"),
        folder,
        tuple(layers),
        pd.DataFrame({"collection": members.collection, "term_id": members.term_id, "term": members.term,
                      "n_term": members.set_sizes}),
        members.background,
        members.matrix,
        found,
        {layer: int(terms["feature"].nunique()) for layer, terms in of_features.items()},
        _versions(folder, layers[0]),
    )  # fmt: skip


def _config_of(path: Path) -> tuple[RunConfig, Path]:
    """The settings of a run, and the folder of its results."""
    if path.is_dir():
        file = path / "config.yaml"
        if not file.is_file():
            raise UserError(
                f"{path} has no config.yaml; name the config file of the run, or run its stage report first"
            )
        return load_config(file), path
    config = load_config(path)
    return config, RunPaths.of(config, config.run.name or "run").results


def _members(config: RunConfig, folder: Path, path: Path) -> Membership:
    """The gene sets that the features of a run were tested with. All layers of a run store the same tokens, so one layer tells."""
    collections = load_collections(config.validation, expanded(config.paths.databases))
    try:
        members = background_of("features", GENE_TOKENS.read(folder / GENE_TOKENS.file), collections, config).members
    except NoSetFits as nothing:
        raise UserError(f"{path}: {nothing}") from None
    said = json.loads(ANNOTATION_NULLS.fact(folder / ANNOTATION_NULLS.file, COLLECTIONS) or "[]")
    then = {each["name"]: int(each["n_fit"]) for each in said}
    now = {each.name: int((members.collection == each.name).sum()) for each in collections}
    if then != now:
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        raise UserError(
            f"{path}: its gene sets are not those that it was validated with ({', '.join(changed)}); run its stage validate again"
        )
    return members


def _of_features(folder: Path, layer: int, fdr: float) -> pd.DataFrame:
    """The rows of feature_terms.parquet that are found, and that no more specific term explains."""
    terms = FEATURE_TERMS.read(folder / f"layer_{layer:02d}" / FEATURE_TERMS.file, _READ)
    return terms[(terms["q_matched"] < fdr) & (terms["explained_by"].fillna("") == "")]


def _found(layer: int, terms: pd.DataFrame) -> pd.DataFrame:
    found = terms.groupby(KEY, as_index=False).agg(n_features=("feature", "nunique"), q_matched=("q_matched", "min"))
    return found.assign(layer=layer)[["layer", *KEY, "n_features", "q_matched"]]


def _versions(folder: Path, layer: int) -> dict[str, str]:
    said = ANNOTATION_NULLS.fact(folder / f"layer_{layer:02d}" / ANNOTATION_NULLS.file, COLLECTIONS)
    return {each["name"]: str(each.get("version", "")) for each in json.loads(said or "[]")}
