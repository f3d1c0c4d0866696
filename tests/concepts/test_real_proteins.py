"""Concept vectors of real proteins, where these are at hand; they are not part of the repository.

The bundled protein model has seen synthetic proteins only. The C2H2 zinc finger is one of the patterns in them.
"""

from __future__ import annotations

import csv
import gzip

import pytest

from sae_genomics.artifacts.concepts import CONCEPT_VECTORS
from sae_genomics.artifacts.localisation import CONCEPT_LOCALISATION
from sae_genomics.concepts.task import run_task
from sae_genomics.config import parse_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.data.proteins.conftest import FIXTURE

pytestmark = pytest.mark.skipif(not FIXTURE.is_dir(), reason="the real proteins are not at hand")

LAYER, FINGER, OTHERS = 2, "PF00096", 110


@pytest.fixture(scope="module")
def finger(tmp_path_factory):
    """The rows of the zinc finger in the tables of a small run: all proteins with a finger, and some others."""
    folder = tmp_path_factory.mktemp("real")
    with open(FIXTURE / "spans.tsv", newline="") as file:
        spans = list(csv.DictReader(file, delimiter="\t"))
    with_finger = {span["accession"] for span in spans if span["concept"] == FINGER}
    with gzip.open(FIXTURE / "proteins.fasta.gz", "rt") as file:
        records = file.read().removeprefix(">").split("\n>")
    others = [text for text in records if text.split()[0] not in with_finger]
    kept = [text for text in records if text.split()[0] in with_finger] + others[:: len(others) // OTHERS]
    (folder / "p.fasta").write_text("".join(f">{text.rstrip()}\n" for text in kept))
    names = {text.split()[0] for text in kept}
    rows = ["\t".join(span.values()) for span in spans if span["accession"] in names]
    (folder / "s.tsv").write_text("\n".join(["\t".join(spans[0]), *rows]) + "\n")
    values = {
        "run": {"name": "real"},
        "paths": {"checkpoints": str(folder / "c"), "results": str(folder / "r"), "logs": str(folder / "l")},
        "data": {"kind": "proteins", "path": str(folder / "p.fasta"), "spans": str(folder / "s.tsv"), "heldout_fraction": 0.5},
        "model": {"family": "esm2", "name": "demo", "layers": [LAYER], "device": "cpu"},
        "activations": {"items_per_shard": 400},
        "sae": {"steps": 20, "batch_tokens": 256, "k": 4, "device": "cpu"},
        "concepts": {"kinds": ["span"], "draws": 39, "bootstraps": 100, "tcav_items": 0},
    }  # fmt: skip
    run = Run(parse_config(values, "test"))
    execute(run, stage_named("prepare"), 0)
    execute(run, stage_named("extract"), 0)
    execute(run, stage_named("train"), 0)
    run_task(run, 0)
    tables = {}
    for table in (CONCEPT_VECTORS, CONCEPT_LOCALISATION):
        frame = table.read(run.layer_results(LAYER) / table.file)
        tables[table.file] = frame[frame["concept"] == f"span:{FINGER}"].iloc[0]
    return tables[CONCEPT_VECTORS.file], tables[CONCEPT_LOCALISATION.file]


def test_a_real_zinc_finger_is_told_beyond_chance_and_composition(finger):
    vector, _ = finger
    assert vector["p_value"] == 1 / 40
    assert vector["auroc"] > 0.9
    assert vector["auroc"] > vector["auroc_composition"] > 0.8


def test_a_real_zinc_finger_is_found_above_the_floor_and_below_the_ceiling(finger):
    _, where = finger
    assert where["iou_random_high"] < where["iou_low"] < where["iou"] < where["iou_ceiling"]
