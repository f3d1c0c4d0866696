"""How much of held-out tokens' variance k active components explain: features, beside PCA, ICA and random directions.

    explained = 1 - sum over tokens ||x - x'||^2 / sum over tokens ||x - m||^2,   m: mean of the training tokens

x is what the SAE reads (with `sae.centre: unit` the unit's mean is gone for every method). x' has k components per token:

    features       the k strongest active features (activation times decoder norm), with the encoder's activations
    pca            m and the first k principal components, the same ones for every token
    pca_per_token  m and those k of all principal components that suit the token best
    ica            m and the k strongest of all independent components of the token
    random         as pca_per_token, of a random orthonormal basis: what a choice of k per token gives without any learning

k is 1, 2, 4 ... up to the number of features that are active in a token. The interval is a bootstrap over items, or over groups.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from sae_genomics.artifacts.modules import VARIANCE
from sae_genomics.associations.components import PrincipalComponents, of_independent, principal_components
from sae_genomics.cross_layer.activations import load_both, sample_inputs, sample_tokens
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder

_BOOTSTRAPS = 500
_MOST_ITEMS = 2_000
_MOST_KS = 8

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Errors = dict[tuple[str, int], Floats]


@dataclass(frozen=True)
class Basis:
    """Directions and how a token's coefficients come about: coefficients = (x - center) @ analysis.T, x' = center + coefficients @ atoms.

    analysis, atoms: float64 [n, d_in]. center: float64 [d_in].
    """

    analysis: Floats
    atoms: Floats
    center: Floats

    @staticmethod
    def of_pca(found: PrincipalComponents) -> Basis:
        return Basis(found.directions, found.directions, found.center)

    @staticmethod
    def of_ica(found: PrincipalComponents, directions: Rows) -> Basis:
        """directions: float [n, d_in], of independent components: a rotation of the standardised principal ones, whatever their length."""
        loadings = directions.astype(np.float64) @ found.directions.T
        return Basis(directions.astype(np.float64), np.linalg.pinv(loadings).T @ found.directions, found.center)

    @staticmethod
    def random(center: Floats, generator: np.random.Generator) -> Basis:
        directions = np.linalg.qr(generator.standard_normal((len(center), len(center))))[0]
        return Basis(directions, directions, center)


def levels(l0: int) -> list[int]:
    """1, 2, 4 ... and l0; the smallest are left out where they are many."""
    found = [1 << power for power in range(31) if 1 << power < l0]
    return [*found, max(l0, 1)][-_MOST_KS:]


def feature_errors(x: Rows, encoder: Encoder, ks: Sequence[int]) -> Errors:
    """Squared error of each token, float64 [tokens], with the k strongest features. x: float32 [tokens, d_in], as the SAE reads it."""
    token, feature, value = encoder.encode_sparse(x)
    weights = encoder.W_dec.float().cpu().numpy()
    strength = value * np.linalg.norm(weights, axis=1)[feature]
    order = np.lexsort((-strength, token))
    first = np.searchsorted(token, np.arange(len(x) + 1))
    rank = np.empty(len(token), dtype=np.int64)
    rank[order] = np.arange(len(token)) - first[token[order]]
    bias = encoder.b_dec.float().cpu().numpy()
    errors = {}
    for k in ks:
        used = rank < k
        active = csr_matrix((value[used], (token[used], feature[used])), shape=(len(x), len(weights)))
        errors["features", k] = np.square((x - bias) - active @ weights, dtype=np.float64).sum(axis=1)
    return errors


def basis_errors(x: Rows, name: str, basis: Basis, ks: Sequence[int], fixed: bool = False) -> Errors:
    """The same with k components of a basis: the first of all (fixed), or the k of largest contribution of each token."""
    shifted = x - basis.center
    coefficients = shifted @ basis.analysis.T
    n = coefficients.shape[1]
    strength = np.abs(coefficients) * np.linalg.norm(basis.atoms, axis=1)
    order = np.argsort(-strength, axis=1, kind="stable")
    errors = {}
    for k in ks:
        if fixed:
            kept = np.where(np.arange(n) < k, coefficients, 0.0)
        else:
            kept = np.zeros_like(coefficients)
            best = order[:, :k]
            np.put_along_axis(kept, best, np.take_along_axis(coefficients, best, axis=1), axis=1)
        errors[name, k] = np.square(shifted - kept @ basis.atoms).sum(axis=1)
    return errors


def explained(
    errors: Errors, total: Floats, unit: npt.NDArray[np.int64], generator: np.random.Generator
) -> pd.DataFrame:
    """One row per method and k with explained_heldout, low and high.

    total: float64 [tokens], squared distances from the training mean. unit: int64 [tokens], item or group, from 0: what the bootstrap draws.
    """
    n = int(unit.max()) + 1
    times = generator.multinomial(n, np.full(n, 1 / n), size=_BOOTSTRAPS).astype(np.float64)
    of_unit = np.bincount(unit, total, n)
    rows = []
    for (method, k), error in errors.items():
        drawn = 1 - (times @ np.bincount(unit, error, n)) / np.maximum(times @ of_unit, 1e-300)
        low, high = np.quantile(drawn, [0.025, 0.975]) if n > 1 else (np.nan, np.nan)
        share = 1 - error.sum() / total.sum() if total.sum() > 0 else np.nan
        rows.append({"method": method, "k": k, "explained_heldout": share, "low": low, "high": high})
    return pd.DataFrame(rows)


def write_variance(run: Run, device: torch.device, advance: Callable[[float], None]) -> None:
    """Leave variance.parquet; without rows where no item is held out. advance: told of each layer that is done."""
    path, n_tokens = run.results / "cross_layer" / VARIANCE.file, run.config.cross_layer.variance_tokens
    items, units = run.kind.read_items(run, ["heldout", "group"]), run.kind.read_units(run)
    held = items["heldout"].to_numpy(bool)
    if not held.any() or held.all():
        empty = VARIANCE.schema.empty_table().to_pandas()
        VARIANCE.write(path, empty, note="no item is held out: nothing can be explained that was not trained on")
        return
    fit, score = (sample_tokens(run, units, which, _MOST_ITEMS, n_tokens) for which in (~held, held))
    item = np.concatenate([each.item for each in score])
    grouped = bool(items["group"].notna().any())
    of_token = items["group"].to_numpy(object)[item] if grouped else item
    unit = np.unique(of_token.astype(str) if grouped else of_token, return_inverse=True)[1].astype(np.int64)
    parts = []
    for layer in run.layers:
        stop_point()
        encoder, _ = load_both(run, layer, device)
        train, x = (np.concatenate(list(sample_inputs(run, layer, encoder, each))) for each in (fit, score))
        seed = np.random.SeedSequence([run.config.run.seed, zlib.crc32(b"cross_layer variance"), layer])
        parts.append(layer_variance(train, x, unit, encoder, seed).assign(layer=layer))
        advance(1)
    table = pd.concat(parts, ignore_index=True)
    table["n_tokens"], table["n_items"] = len(item), len(np.unique(item))
    table["n_groups"] = pd.array([len(np.unique(unit)) if grouped else None] * len(table), dtype="Int64")
    VARIANCE.write(path, table)


def layer_variance(
    train: Rows, x: Rows, unit: npt.NDArray[np.int64], encoder: Encoder, seed: np.random.SeedSequence
) -> pd.DataFrame:
    """Every method on one layer. train, x: float32 [tokens, d_in], training and held-out tokens as the SAE reads them."""
    generator = np.random.default_rng(seed)
    rows, _, _ = encoder.encode_sparse(x)
    ks = levels(round(len(rows) / max(len(x), 1)))
    errors = feature_errors(x, encoder, ks)
    n_components = {"features": encoder.d_sae}
    with threadpool_limits(1):  # small products: several threads take longer over them, and round differently
        principal = principal_components(train)
        independent, _ = of_independent(principal, train, int(seed.generate_state(1)[0]), stop_point)
    center = train.mean(axis=0, dtype=np.float64)
    bases = {
        "pca": Basis.of_pca(principal),
        "pca_per_token": Basis.of_pca(principal),
        "random": Basis.random(center, generator),
    }
    if independent.directions is not None and independent.n_components:
        bases["ica"] = Basis.of_ica(principal, independent.directions)
    for name, basis in bases.items():
        stop_point()
        errors |= basis_errors(x, name, basis, ks, fixed=name == "pca")
        n_components[name] = len(basis.atoms)
    total = np.square(x - center).sum(axis=1)
    table = explained(errors, total, unit, generator)
    return table.assign(n_components=table["method"].map(n_components))
