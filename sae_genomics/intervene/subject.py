"""What is edited: features of the layer's SAE, a concept of the run, or a direction from a file.

A concept is read as an encoder of one feature. Its score is s = h . v + b, v the concept's unit vector; above 0 the concept is more likely
there than not. So z = max(0, s), decode(z) = z v, and every edit of a feature is one of a concept too, by the same code.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.edits import Edit
from sae_genomics.concepts.vectors import FACTS_FILE, ConceptVector, read_vectors
from sae_genomics.errors import UserError
from sae_genomics.intervene.request import Request
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder, load_encoder

Ints = npt.NDArray[np.int64]
Kind = Literal["ablate", "scale", "clamp", "add"]


@dataclass(frozen=True)
class Subject:
    """encoder: in which the features, int64 [n], are latents; none for a direction, float32 [d_model]. name: for a reader."""

    encoder: Encoder
    features: Ints
    name: str
    direction: npt.NDArray[np.float32] | None = None

    @property
    def has_activations(self) -> bool:
        return self.direction is None

    def edit(self, request: Request, seed: int, turned: npt.NDArray[np.float32] | None = None) -> Edit:
        """The edit that is asked for. turned: in another direction, of the same length at each token."""
        amount = 1.0 if request.amount is None else request.amount
        if self.direction is not None:
            return Edit("add", None, amount, where="all", direction=self.direction, turned=turned, seed=seed)
        return Edit(
            cast("Kind", request.kind),
            self.features,
            0.0 if request.kind == "ablate" else amount,
            request.replacement,
            "all" if request.everywhere else "active",
            reference="p99" if request.reference == "p99" else "median",
            turned=turned,
            seed=seed,
        )


def subject_of(run: Run, request: Request) -> Subject:
    """Raises UserError for features, a concept or a direction that the layer does not have."""
    if request.direction is not None:
        vector = read_direction(request.direction, run.model_info.d_model)
        length = float(np.linalg.norm(vector))
        name = f"direction {request.direction.name} (length {length:.3g})"
        return Subject(_one(vector / length, 0.0), np.zeros(0, np.int64), name, vector)
    if request.concept is not None:
        found = _concept(run, request.layer, request.concept)
        return Subject(_one(found.vector, found.intercept), np.zeros(1, np.int64), f"concept {found.concept}")
    encoder = load_encoder(run.sae_dir(request.layer), "cpu")
    features = np.array(request.features, np.int64)
    beyond = features[(features < 0) | (features >= encoder.d_sae)]
    if len(beyond):
        raise UserError(
            f"--features {beyond[0]}: the SAE of layer {request.layer} has the features 0 to {encoder.d_sae - 1}"
        )
    named = ", ".join(map(str, features.tolist()))
    return Subject(encoder, features, f"feature{'' if len(features) == 1 else 's'} {named}")


def _one(vector: npt.NDArray[np.floating], intercept: float) -> Encoder:
    """An encoder of one feature, z = max(0, x . v + b), v of length 1."""
    v = torch.from_numpy(np.ascontiguousarray(vector, np.float32))
    zero = torch.zeros(1)
    return Encoder(
        "jumprelu", v[:, None].contiguous(), torch.tensor([float(intercept)]), v[None, :].contiguous(), torch.zeros(len(v)),
        threshold=zero, center=False,
    )  # fmt: skip


def _concept(run: Run, layer: int, wanted: str) -> ConceptVector:
    folder = run.layer_results(layer)
    if not (folder / FACTS_FILE).exists():
        raise UserError(
            f"--concept: run {run.name} has no concepts in layer {layer}; set concepts.enabled to true and run its stage concepts"
        )
    known = read_vectors(folder)
    found = [each for each in known if wanted in (each.concept, each.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"--concept {wanted}: {' and '.join(each.concept for each in found)} have this name; type the id"
        )
    names = {text.lower(): each.concept for each in known for text in (each.name, each.concept)}
    near = difflib.get_close_matches(wanted.lower(), names, n=6, cutoff=0.4)
    near += [text for text in names if wanted.lower() in text]
    close = list(dict.fromkeys(names[text] for text in near))[:3] or [each.concept for each in known[:3]]
    said = f"close ones are {', '.join(close)}" if close else "it has none"
    raise UserError(
        f"--concept {wanted}: layer {layer} of run {run.name} has no such concept; {said} (all: {folder / FACTS_FILE})"
    )


def read_direction(path: Path, d_model: int) -> npt.NDArray[np.float32]:
    """float32 [d_model] of a safetensors file: its only tensor, or the one named `direction`. Raises UserError for anything else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"--direction: no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            name = names[0] if len(names) == 1 else "direction"
            if name not in names:
                raise UserError(
                    f"--direction {path}: it has the tensors {', '.join(names) or 'none'}; name one of them `direction`"
                )
            vector = file.get_tensor(name).float().squeeze().numpy()
    except (SafetensorError, OSError) as error:
        raise UserError(f"--direction {path}: no safetensors file: {error}") from None
    if vector.shape != (d_model,):
        raise UserError(
            f"--direction {path}: its shape is {list(vector.shape)}, and the model's activations are [{d_model}]"
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise UserError(f"--direction {path}: it is {'all zeros' if np.isfinite(vector).all() else 'not finite'}")
    return np.ascontiguousarray(vector, np.float32)
