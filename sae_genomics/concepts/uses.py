"""What the stage concepts leaves of vectors in use: thresholds, localisation, features that carry them, effects on predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sae_genomics.concepts.held_out import NullVectors, read_held_out
from sae_genomics.concepts.localisation import write_localisation
from sae_genomics.concepts.named import NamedConcepts
from sae_genomics.concepts.sparse import write_concept_features
from sae_genomics.concepts.tcav import write_tcav
from sae_genomics.concepts.thresholds import write_thresholds
from sae_genomics.concepts.vectors import ConceptVector
from sae_genomics.progress import stop_point
from sae_genomics.run import Run


def write_uses(
    run: Run,
    layer: int,
    named: NamedConcepts,
    vectors: Sequence[ConceptVector],
    null_vectors: Mapping[str, NullVectors],
) -> None:
    """Leave `files.USES_FILES` of a layer; its held-out items are read once. null_vectors: by concept, as in `HeldOut`."""
    held_out = replace(read_held_out(run, layer, named, vectors), null_vectors=null_vectors)
    for write in (write_thresholds, write_localisation, write_concept_features, write_tcav):
        stop_point()
        write(run, layer, held_out)
