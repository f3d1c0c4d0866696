"""Concept vectors as files: `concepts.safetensors` holds the numbers, `concepts.json` says what they are.

The score of an activation x [d_model], as the model gives it (nothing subtracted), is x . vector + intercept. It is above 0 where the
regression says that the concept is more likely present than absent, with both sides weighted alike. `scale` times the score is the log odds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.atomic import atomic_path
from sae_genomics.checked_json import read_checked_json, write_checked_json
from sae_genomics.concepts.section import Kind
from sae_genomics.errors import DamagedArtifact

VECTORS_FILE, FACTS_FILE = "concepts.safetensors", "concepts.json"
FORMAT_VERSION = 1
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ConceptVector:
    """One concept's direction in a layer's activations."""

    concept: str
    """its id, as in every table: `label:CD19+ B`"""
    kind: Kind
    name: str
    """what people call it"""
    vector: Floats
    """[d_model], of length 1"""
    intercept: float
    """the score is x . vector + intercept"""
    scale: float = 1.0
    """log odds per unit of the score"""

    def scores(self, x: npt.NDArray[np.floating[Any]]) -> Floats:
        """The score of each row: float32 [T]. x: [T, d_model]."""
        scores: Floats = np.asarray(x @ self.vector + np.float32(self.intercept), np.float32)
        return scores


def write_vectors(folder: Path, vectors: Sequence[ConceptVector], d_model: int, facts: Mapping[str, Any]) -> None:
    """Write both files, each atomically. facts: what else is known of them (layer, hook, settings), JSON-able."""
    from safetensors.numpy import save_file

    stacked = np.stack([each.vector for each in vectors]) if vectors else np.zeros((0, d_model), np.float32)
    tensors = {
        "vectors": np.ascontiguousarray(stacked, np.float32),
        "intercepts": np.array([each.intercept for each in vectors], np.float32),
        "scales": np.array([each.scale for each in vectors], np.float32),
    }
    with atomic_path(folder / VECTORS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format_version": str(FORMAT_VERSION)})
    described = [{"concept": each.concept, "kind": each.kind, "name": each.name} for each in vectors]
    write_checked_json(
        folder / FACTS_FILE,
        {"format_version": FORMAT_VERSION, "d_model": d_model, **facts, "concepts": described},
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """What `concepts.json` says. Raises DamagedArtifact where it is not there, or not as it was written."""
    facts = read_checked_json(folder / FACTS_FILE)
    if facts is None:
        raise DamagedArtifact(f"{folder / FACTS_FILE} is not there; run the stage concepts again", folder / FACTS_FILE)
    return facts


def read_vectors(folder: Path) -> list[ConceptVector]:
    """The vectors of a layer's folder, in the order of its tables. Raises DamagedArtifact naming a file that cannot be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    described, path = read_facts(folder)["concepts"], folder / VECTORS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}; run the stage concepts again", path) from None
    if len(tensors["vectors"]) != len(described):
        raise DamagedArtifact(f"{path} and {FACTS_FILE} do not belong together; run the stage concepts again", path)
    return [
        ConceptVector(each["concept"], each["kind"], each["name"], vector, float(intercept), float(scale))
        for each, vector, intercept, scale in zip(
            described, tensors["vectors"], tensors["intercepts"], tensors["scales"], strict=True
        )
    ]
