"""Shuffled training batches from the activation store, against the disk itself and against SAELens' cached activations.

    python benchmarks/store.py [--rows N] [--json]

All sides read the same numbers from the same disk, each time evicted from the page cache first. The limit is a plain
sequential read of our files. The peer is what SAELens does with activations cached on disk: slices of an Arrow dataset
through its mixing buffer. `--compression` adds what the HDF5 filters cost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch

from sae_genomics.activations.format.dtypes import as_disk, torch_dtype
from sae_genomics.activations.format.store import ActivationWriter, Header, open_activations
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.rows import RowSet, ShardRows

CELL_ROWS = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000, help="default: %(default)s")
    parser.add_argument("--d-model", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--shards", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--batch-rows", type=int, default=2048, help="default: %(default)s")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument(
        "--memory", type=int, default=256 << 20, help="bytes of the shuffling buffer; default: %(default)s"
    )
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--compression", action="store_true", help="measure the HDF5 filters too")
    parser.add_argument("--no-peer", action="store_true", help="leave SAELens out")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="store-", dir=arguments.folder) as folder:
        result = compare(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    rows, n_bytes, write_rate = write_shards(folder / "ours", arguments, "none")
    files = [shard.path for shard in rows.shards]
    disk, seconds, in_order = float("inf"), float("inf"), float("inf")
    with ShuffledBatches(rows, arguments.batch_rows, 0, memory_bytes=arguments.memory) as batches:
        for _ in range(5):  # by turns, as the disk may have other users
            disk = min(disk, evicted(files, lambda: read_plainly(files), 1))
            in_order = min(in_order, evicted(files, lambda: read_in_order(rows), 1))
            evicted(files, lambda: next_rows(batches, rows.n_rows // 2), 1)  # what was read in the meantime is used up
            seconds = min(seconds, evicted(files, lambda: next_rows(batches, rows.n_rows), 1))
    limit, ours, plain = n_bytes / disk, n_bytes / seconds, n_bytes / in_order
    memory = n_bytes / best(lambda: second_epoch_in_memory(rows, arguments.batch_rows))
    print(f"write {gb(write_rate)}; {arguments.rows:,} rows of {arguments.d_model} x {arguments.dtype}")
    print(f"read in order, checksums verified {gb(plain)}; disk's sequential read {gb(limit)}")
    print(f"shuffled batches from disk {gb(ours)}, {ours / limit:.0%} of the disk; from memory {gb(memory)}")
    result: dict[str, object] = {
        "name": "shuffled_batches", "unit": "bytes/s", "ours": ours, "limit": limit, "share_of_limit": ours / limit,
        "rows_per_s": arguments.rows / seconds, "in_memory": memory, "in_order": plain, "write": write_rate,
        "peer": None, "peer_name": "SAELens cached activations and mixing buffer", "ratio": None,
        "rows": arguments.rows, "d_model": arguments.d_model, "dtype": arguments.dtype, "shards": arguments.shards,
    }  # fmt: skip
    if not arguments.no_peer:
        peer = peer_rate(folder / "peer", arguments)
        print(f"{result['peer_name']} {gb(peer)}: ours is {ours / peer:.1f} x")
        result |= {"peer": peer, "ratio": ours / peer}
    if arguments.compression:
        result["compression"] = {name: compressed(folder / name, arguments, name) for name in ("lz4", "zstd")}
    return result


def compressed(folder: Path, arguments: argparse.Namespace, name: str) -> dict[str, float]:
    rows, n_bytes, write_rate = write_shards(folder, arguments, name)
    files = [shard.path for shard in rows.shards]
    size = sum(path.stat().st_size for path in files)
    read_rate = n_bytes / evicted(files, lambda: read_in_order(rows))
    print(f"{name}: {size / n_bytes:.0%} of the size, write {gb(write_rate)}, read in order {gb(read_rate)}")
    return {"size": size / n_bytes, "write": write_rate, "read": read_rate}


def numbers(arguments: argparse.Namespace, shard: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shard)
    x = torch.randn(arguments.rows // arguments.shards, arguments.d_model, generator=generator)
    return x.to(torch_dtype(arguments.dtype))


def write_shards(folder: Path, arguments: argparse.Namespace, compression: str) -> tuple[RowSet, int, float]:
    """Files of random numbers; the rows to draw, their bytes, and bytes written a second (flushed)."""
    folder.mkdir()
    shards, n_bytes, seconds = [], 0, 0.0
    for number in range(arguments.shards):
        x = numbers(arguments, number)
        path = folder / f"shard_{number:04d}.h5"
        header = Header("", "random", "", "resid_post", 0, number, arguments.d_model, arguments.dtype)
        start = time.perf_counter()
        writer = ActivationWriter(path, header, len(x), compression)
        writer.write(0, as_disk(x))
        writer.finish(np.empty(0, dtype=np.int64), np.zeros(arguments.d_model), 1.0)
        flush(path)
        seconds += time.perf_counter() - start
        n_bytes += x.numel() * x.element_size()
        cell_ptr = np.append(np.arange(0, len(x), CELL_ROWS), len(x))
        with open_activations(path) as file:
            chosen = np.ones(len(cell_ptr) - 1, dtype=bool)
            shards.append(ShardRows(path, cell_ptr, chosen, file.nonfinite_rows, file.chunk_rows))
            row_bytes = file.row_bytes
    return RowSet(shards, arguments.d_model, arguments.dtype, row_bytes), n_bytes, n_bytes / seconds


def next_rows(batches: ShuffledBatches, n_rows: int) -> None:
    for _ in range(round(n_rows / batches.batch_rows)):
        next(batches)


def second_epoch_in_memory(rows: RowSet, batch_rows: int) -> float:
    with ShuffledBatches(rows, batch_rows, 0, memory_bytes=rows.n_bytes) as batches:
        next(batches)
        start = time.perf_counter()
        n_batches = rows.n_rows // batch_rows
        for _ in range(n_batches):
            next(batches)
        return (time.perf_counter() - start) * rows.n_rows / (n_batches * batch_rows)


def read_in_order(rows: RowSet) -> None:
    for shard in rows.shards:
        with open_activations(shard.path) as file:
            for start in range(0, file.n_rows, 16 * file.chunk_rows):
                file.rows(start, min(start + 16 * file.chunk_rows, file.n_rows))


def read_plainly(files: list[Path]) -> None:
    buffer = bytearray(8 << 20)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def peer_rate(folder: Path, arguments: argparse.Namespace) -> float:
    """Bytes a second of an epoch the way SAELens reads cached activations (training/activations_store.py)."""
    from datasets import Array2D, Dataset, Features, concatenate_datasets, disable_progress_bars, load_from_disk
    from sae_lens.training.mixing_buffer import mixing_buffer

    disable_progress_bars()
    features = Features({"x": Array2D(shape=(CELL_ROWS, arguments.d_model), dtype="float32")})
    parts = []
    for number in range(arguments.shards):
        x = numbers(arguments, number).float()
        x = x[: len(x) // CELL_ROWS * CELL_ROWS].reshape(-1, CELL_ROWS, arguments.d_model)
        Dataset.from_dict({"x": x.numpy()}, features=features).save_to_disk(str(folder / str(number)))
        parts.append(load_from_disk(str(folder / str(number))))
    files = list(folder.rglob("*.arrow"))
    for path in files:
        flush(path)
    dataset = concatenate_datasets(parts)
    dataset.set_format(type="torch", columns=["x"], dtype=torch.float32)
    n_bytes = len(dataset) * CELL_ROWS * arguments.d_model * 4
    buffer_rows = arguments.memory // (arguments.d_model * 4)

    def slices(cells: int = 32) -> Iterator[torch.Tensor]:
        for start in range(0, len(dataset), cells):
            yield dataset[start : start + cells]["x"].reshape(-1, arguments.d_model)

    def epoch() -> None:
        for _ in mixing_buffer(buffer_rows, arguments.batch_rows, slices()):
            pass

    return n_bytes / evicted(files, epoch)


def evicted(files: list[Path], work: Callable[[], object], repeats: int = 3) -> float:
    """Least seconds of `work` over some repeats, the files (flushed) not in the page cache before each."""
    seconds = []
    for _ in range(repeats):
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def best(work: Callable[[], float], repeats: int = 3) -> float:
    return min(work() for _ in range(repeats))


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def gb(rate: float) -> str:
    return f"{rate / 1e9:.2f} GB/s"


if __name__ == "__main__":
    sys.exit(main())
