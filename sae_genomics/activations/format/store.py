"""The HDF5 files of activations: one per layer and shard.

`docs/activations.md` lists datasets and attributes. Every dataset of numbers is cut into chunks of about 1 MiB of whole
rows, each with a Fletcher-32 checksum that is verified on reading, so damage is found where it is, and named.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from sae_genomics.activations.format.dtypes import DISK_DTYPES, item_bytes, to_float32
from sae_genomics.activations.format.hdf5 import CHUNK_BYTES, damage, growing, open_file
from sae_genomics.activations.format.output import OutputFile
from sae_genomics.errors import DamagedArtifact, UserError

if TYPE_CHECKING:
    from sae_genomics.kernels.plain.chunks import Chunks

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a layer's file says of itself.

    fingerprint: of the run, stage, shard and layer that made it.
    model, model_identity: the model's name, and the hash of its checkpoint.
    hook: resid_post | mlp_out | attn_out. layer: counted from 0. shard: number of the items' shard.
    d_model: numbers a row. dtype: float32 | float16 | bfloat16 (stored as uint16).
    compute_dtype: arithmetic of the forward pass; empty in files that were written before it was recorded.
    sampled_by: what drew the stored tokens where not all are stored, as in TokenShard.
    """

    fingerprint: str
    model: str
    model_identity: str
    hook: str
    layer: int
    shard: int
    d_model: int
    dtype: str
    compute_dtype: str = ""
    sampled_by: str = "token"  # of files that were written before it was recorded

    @property
    def hook_name(self) -> str:
        """The place in the model, as SAELens writes it."""
        return f"blocks.{self.layer}.hook_{self.hook}"


class ActivationWriter:
    """One layer's file of one shard, rows written in order and `finish`ed with what they add up to.

    path: a temporary name; the caller makes it atomic.
    compression: none | zstd | lz4 (both lossless, after shuffling bytes; need hdf5plugin to read too).
    """

    def __init__(self, path: Path, header: Header, n_rows: int, compression: str = "none"):
        # compiled code, which reading a header does not need
        from sae_genomics.kernels.chunks import checksums_alone, chunk_writer

        self.path, self.header, self.n_rows = path, header, n_rows
        plugin = _compression_filter(compression)
        row_bytes = header.d_model * item_bytes(header.dtype)
        chunk_rows = min(max(CHUNK_BYTES // row_bytes, 1), max(n_rows, 1))
        self._output = OutputFile(path)
        self._file = h5py.File(self._output, "w", rdcc_nbytes=2 * chunk_rows * row_bytes)
        self._rows = self._file.create_dataset(
            "activations",
            shape=(n_rows, header.d_model),
            maxshape=(None, header.d_model),
            dtype=DISK_DTYPES[header.dtype],
            chunks=(chunk_rows, header.d_model),
            fletcher32=True,
            fill_time="never",
            track_times=False,
            **plugin,
        )
        self._chunks = chunk_writer(self._rows, self._output) if checksums_alone(self._rows) else None
        self._nonfinite = growing(self._file, "nonfinite_rows", np.int64, 0)
        self._written = 0

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Store rows from `start` on, where the last ones ended. rows: [n, d_model], C-contiguous, in the dtype on disk.

        Raises OSError naming the file.
        """
        if start != self._written:
            raise ValueError(f"rows from {start} on are not the next ones: {self._written} are written")
        if self._chunks is not None:
            self._chunks.write(start, rows)
        elif len(rows):
            self._rows.write_direct(rows, dest_sel=np.s_[start : start + len(rows)])
        self._written += len(rows)
        self._output.check()

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Rows of a chunk, columns."""
        rows, columns = self._rows.chunks
        return int(rows), int(columns)

    def written(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]] | None:
        """Where the chunks written so far lie in the file, and a copy of the rows after them; None where HDF5 alone knows."""
        if self._chunks is None or self._chunks.offsets is None:
            return None
        return np.array(self._chunks.offsets, dtype=np.int64), self._chunks.tail(self._written)

    def to_disk(self) -> None:
        """Wait until the rows written so far are on the disk; another thread may write meanwhile, and raises what fails here."""
        self._output.to_disk()

    def finish(
        self, nonfinite_rows: npt.NDArray[np.int64], mean: npt.NDArray[np.float64], mean_squared_norm: float
    ) -> None:
        """Add the attributes and close. The statistics are over finite rows; see docs/activations.md."""
        self._nonfinite.resize(nonfinite_rows.shape)
        self._nonfinite[...] = nonfinite_rows
        self._rows.attrs["dtype"] = self.header.dtype
        self._file.attrs.update(
            format_version=FORMAT_VERSION,
            **asdict(self.header),
            hook_name=self.header.hook_name,
            n_rows=self.n_rows,
            n_nonfinite=len(nonfinite_rows),
            mean=mean.astype(np.float32),
            mean_squared_norm=float(mean_squared_norm),
        )
        self.close()
        self._output.check()

    def close(self) -> None:
        """Close; a file that was not finished is of no use. Never fails on a full disk."""
        self._file.close()
        self._output.close()


def _compression_filter(name: str) -> dict[str, Any]:
    if name == "none":
        return {}
    plugins = _plugins(f"activations.compression: {name}")
    chosen = plugins.Zstd(clevel=1) if name == "zstd" else plugins.LZ4()
    return {"shuffle": True, **chosen}


def _plugins(wanted_by: str) -> Any:
    try:
        import hdf5plugin
    except ImportError:
        raise UserError(f"{wanted_by} needs hdf5plugin; pip install hdf5plugin") from None
    return hdf5plugin


class ActivationFile:
    """A layer's activations of one shard, open for reading. Closes as a context manager.

    header: what the file says of itself. n_rows, d_model, dtype: as stored.
    mean: float32 [d_model], mean_squared_norm: mean of the rows' squared L2 norms; both over finite rows.
    nonfinite_rows: int64, ascending; these rows hold NaN and belong to no computation.
    chunk_rows: rows that are read together.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = open_file(self.path, FORMAT_VERSION)
        try:
            with damage(self.path, "its attributes cannot be read"):
                attributes = self._file.attrs
                newer = {"compute_dtype", "sampled_by"}
                names = set(Header.__dataclass_fields__) - (newer - set(attributes))
                self.header = Header(**{name: _plain(attributes[name]) for name in names})
                self._rows = self._file["activations"]
                self.n_rows, self.d_model = (int(size) for size in self._rows.shape)
                self.dtype = self.header.dtype
                self.chunk_rows = int(self._rows.chunks[0])
                self.mean: npt.NDArray[np.float32] = np.asarray(attributes["mean"], dtype=np.float32)
                self.mean_squared_norm = float(attributes["mean_squared_norm"])
                self.nonfinite_rows: npt.NDArray[np.int64] = self._file["nonfinite_rows"][:]
            if self._rows.id.get_create_plist().get_nfilters() > 1:
                _plugins(f"{self.path} is compressed: reading it")
        except BaseException:
            self._file.close()
            raise

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored."""
        return self.d_model * item_bytes(self.dtype)

    @property
    def n_nonfinite(self) -> int:
        return len(self.nonfinite_rows)

    def rows(self, start: int, stop: int, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Rows start to stop as float32 [stop - start, d_model]. Raises DamagedArtifact naming file and rows."""
        if self.dtype == "float32":
            return self.stored_rows(start, stop, out)
        return to_float32(self.stored_rows(start, stop), self.dtype, out)

    def stored_rows(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The same in the dtype on disk, bfloat16 as uint16."""
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"rows {start} to {stop} of {self.n_rows} in {self.path}")
        if out is None:
            out = np.empty((stop - start, self.d_model), dtype=self._rows.dtype)
        read = start  # the rows before are in `out`
        if out.dtype == self._rows.dtype and out.flags.c_contiguous:
            for number in range(-(-start // self.chunk_rows), stop // self.chunk_rows):
                first, last = number * self.chunk_rows, (number + 1) * self.chunk_rows
                if self._chunks.read(number, out[first - start : last - start]):
                    self._read(read, first, out[read - start : first - start])
                    read = last
        self._read(read, stop, out[read - start :])
        return out

    def expect(self, start: int, stop: int) -> None:
        """Let the operating system begin to read rows start to stop, while the caller is busy with others."""
        self._chunks.expect(start // self.chunk_rows, -(-stop // self.chunk_rows))

    @cached_property
    def _chunks(self) -> Chunks:
        from sae_genomics.kernels.chunks import chunks_of  # compiled code, which a look at the header does not need

        return chunks_of(self._rows)

    def _read(self, start: int, stop: int, out: npt.NDArray[Any]) -> None:
        """Rows start to stop by HDF5: parts of chunks, compressed ones, damaged ones."""
        if stop > start:
            try:
                self._rows.read_direct(out, source_sel=np.s_[start:stop])
            except (OSError, RuntimeError) as error:
                first, last = self._damaged_rows(start, stop)
                raise DamagedArtifact(
                    f"{self.path} is damaged: rows {first:,} to {last - 1:,} of {self.n_rows:,} cannot be read",
                    self.path,
                ) from error

    def _damaged_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The first chunk among the rows that cannot be read."""
        for first in range(start - start % self.chunk_rows, stop, self.chunk_rows):
            last = min(first + self.chunk_rows, self.n_rows)
            try:
                self._rows[first:last]
            except (OSError, RuntimeError):
                return first, last
        return start, stop

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ActivationFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_activations(path: Path) -> ActivationFile:
    """Open a layer's activations of one shard. Raises DamagedArtifact naming the file when it cannot be."""
    return ActivationFile(path)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
