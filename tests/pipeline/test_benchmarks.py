"""Every benchmark runs, on sizes that say nothing about speed, and ends with the object that others read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
KEYS = {"name", "unit", "ours", "peer", "peer_name", "ratio", "limit", "share_of_limit"}
SMALL = {
    "association": "--tokens 256 --d-in 32 --d-sae 128 --k 4 --genes 50 --tokens-per-cell 30 --loop-tokens 32 --repeats 1",
    "cross_layer": "--tokens 500 --features 64 --k 4 --layers 3 --threads 1",
    "esm2_extraction": "--shape tiny --proteins 12 --repeats 1 --threads 1",
    "geneformer_extraction": "--shape tiny --cells 12 --repeats 1 --threads 1",
    "extraction": "--shape tiny --cells 4 --repeats 1 --threads 1",
    "enrichment": "--lists 20 --sets 50 --genes 1000 --repeats 1",
    "enrichment_ranking": "--units 8 --sets 40 --genes 500",
    "interventions": "--d-model 64 --layers 3 --d-sae 64 --k 8 --items 4 --tokens 30 --features 4 --loop-features 1 --rounds 1 --plain-loop",
    "kernels": "--small --rounds 1 --only adam",
    "kills": "--kills 1 --disturb 0.6",
    "memory": "--cells 300,600",
    "recovery": "--steps 20",
    "scgpt_extraction": "--shape tiny --cells 12 --repeats 1 --threads 1",
    "text_extraction": "--shape tiny --documents 12 --repeats 1 --threads 1",
    "store": "--rows 20000 --d-model 32 --shards 4 --batch-rows 256 --memory 200000 --compression",
    "tokenise": "--cells 50 --repeats 1",
    "training": "--d-in 32 --d-sae 128 --k 4 --tokens 64 --rounds 1",
}
WITHOUT_PEER = {
    "extraction",
    "kills",
    "tokenise",
    "recovery",
    "enrichment_ranking",
}  # of extraction and tokenise it lives in an environment of its own; those of rankings are no dependency


def test_every_kernel_is_measured_or_said_not_to_be():
    spec = importlib.util.spec_from_file_location("kernels_benchmark", BENCHMARKS / "kernels.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    plain = BENCHMARKS.parent / "sae_genomics" / "kernels" / "plain"
    files = {path.stem for path in plain.glob("[a-z]*.py")}
    assert {*benchmark.KERNELS, *benchmark.NO_BENCHMARK} == files
    assert not set(benchmark.KERNELS) & set(benchmark.NO_BENCHMARK)


def test_all_are_here():
    helpers = {"reference_extraction", "extraction_peer"}
    assert {path.stem for path in BENCHMARKS.glob("*.py")} - helpers == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_last_line_is_an_object(name):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALL[name].split(), "--json"],
        capture_output=True, text=True, timeout=600, cwd=BENCHMARKS.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) >= KEYS
    assert found["ours"] >= 0
    if name not in WITHOUT_PEER:
        assert found["peer"] > 0
        assert found["ratio"] == pytest.approx(found["ours"] / found["peer"], rel=0.01)
