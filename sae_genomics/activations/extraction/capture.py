"""Activations of one shard on their way from the model to its files.

The model's rows come batch by batch in an order of its own. They are laid into a window: a buffer a layer, on the
model's device, that holds consecutive rows of the shard. A full window is summed up, copied to the host and written by
a thread while the next one is computed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.summary import Summary
from sae_genomics.activations.extraction.unfinished import Keeper, Kept, KeptLayer
from sae_genomics.activations.format.dtypes import as_disk, torch_dtype
from sae_genomics.activations.format.store import ActivationWriter
from sae_genomics.errors import Interrupted, UserError

_WINDOWS = 2  # one is filled while the other is written


class Window:
    """Buffers for consecutive rows of every layer.

    rows: layer -> [max_rows, d_model] in the storage dtype on the model's device.
    peaks: layer -> float32 [max_rows], the largest absolute value the model gave in each row; NaN where it gave NaN.
    """

    def __init__(self, layers: Sequence[int], max_rows: int, d_model: int, dtype: torch.dtype, device: torch.device):
        self.device = device
        self.rows = {layer: torch.empty(max_rows, d_model, dtype=dtype, device=device) for layer in layers}
        self.peaks = {layer: torch.empty(max_rows, dtype=torch.float32, device=device) for layer in layers}
        self.on_host = device.type == "cpu"
        self.host = (
            self.rows
            if self.on_host
            else {
                layer: torch.empty(max_rows, d_model, dtype=dtype, pin_memory=device.type == "cuda") for layer in layers
            }
        )
        self.start = self.n_rows = 0
        self._fillers: list[Future[None]] = []
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._filled = torch.cuda.Event() if device.type == "cuda" else None

    def open(self, start: int, n_rows: int) -> None:
        """Begin to collect the shard's rows start to start + n_rows."""
        self.start, self.n_rows = start, n_rows
        self._fillers = []

    def filled_by(self, filler: Future[None]) -> None:
        """Some rows are put by work that may still be going on."""
        self._fillers.append(filler)

    def wait_until_filled(self) -> None:
        """Wait until all rows are put. Raises what putting them raised."""
        for filler in self._fillers:
            filler.result()

    def put(self, activations: Mapping[int, torch.Tensor], index: npt.NDArray[np.int64]) -> None:
        """Lay a batch's rows down. activations: layer -> [n, d_model]; index: int64 [n], rows of the window.

        Several threads may put different rows at a time.
        """
        if not len(index):
            return
        at = torch.from_numpy(index).to(self.device, non_blocking=True)
        for layer, x in activations.items():
            peaks = torch.maximum(x.amax(dim=1), -x.amin(dim=1))  # fifty times faster here than an infinity norm
            self.peaks[layer].index_copy_(0, at, peaks.float())
            self.rows[layer].index_copy_(0, at, x.to(self.rows[layer].dtype))

    def add_up(self, layer: int, summary: Summary) -> None:
        """Add the window's rows to a layer's summary, and blank rows that are not finite.

        Raises UserError when the model's value was finite and is not in the storage dtype.
        """
        rows, peaks = self.rows[layer][: self.n_rows], self.peaks[layer][: self.n_rows]
        summary.n_rows += self.n_rows
        if not self.n_rows:
            return
        largest = peaks.max()  # NaN when any is
        if not bool(torch.isfinite(largest.to(rows.dtype))):
            finite = torch.isfinite(peaks)
            # rounding keeps order, so a row overflows exactly when its peak does
            if bool((finite & ~torch.isfinite(peaks.to(rows.dtype))).any()):
                raise _Overflow(float(peaks[finite].max()))
            bad = torch.nonzero(~finite).flatten()
            rows.index_fill_(0, bad, float("nan"))
            summary.nonfinite_rows.append(bad.cpu().numpy() + self.start)
            rows = rows[finite]
        # in float64 where it costs nothing: the sum is then the same for any number of threads, but for its last bits
        summary.total += rows.sum(dim=0, dtype=torch.float64 if self.on_host else torch.float32).double().cpu().numpy()
        norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).double()
        summary.total_squared_norm += float(norms @ norms)

    def seal(self) -> None:
        """All rows are put: on CUDA, remember where in the computing stream that is."""
        if self._filled is not None:
            self._filled.record(torch.cuda.current_stream(self.device))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work on the sealed window beside the computation of the next one: on CUDA, in a stream of its own."""
        if self.stream is None or self._filled is None:
            yield
            return
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self._filled)
            yield
            self.stream.synchronize()

    def bring_home(self) -> None:
        """Copy to the host, where the writer finds the rows once `aside` is left."""
        if not self.on_host:
            for layer, rows in self.rows.items():
                self.host[layer][: self.n_rows].copy_(rows[: self.n_rows], non_blocking=self.stream is not None)


class _Overflow(Exception):
    """A finite value of this size became infinite in the storage dtype."""


class ShardSink:
    """Takes a shard's windows and writes them in a thread of its own.

    Use as a context manager: on leaving well all is written and every file finished; on an exception all are abandoned.

    writers: layer -> writer. max_rows: rows a window holds. keeper: keeps finished windows for the next attempt; None: nobody.
    """

    def __init__(
        self,
        writers: Mapping[int, ActivationWriter],
        max_rows: int,
        device: torch.device,
        keeper: Keeper | None = None,
    ):
        self.writers = dict(writers)
        self._keeper = keeper
        self._windows_written = self._rows_written = 0
        self._between_windows = True  # every layer has the same windows
        headers = [writer.header for writer in self.writers.values()]
        d_model, dtype = headers[0].d_model, headers[0].dtype
        self.summaries = {layer: Summary(np.zeros(d_model), 0.0, []) for layer in self.writers}
        self._dtype = dtype
        self._free: queue.Queue[Window] = queue.Queue()
        for _ in range(_WINDOWS):
            self._free.put(Window(list(self.writers), max_rows, d_model, torch_dtype(dtype), device))
        self._full: queue.Queue[Window | None] = queue.Queue()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="activation writer", daemon=True)
        # files are on the disk before they get their names, which would take long if all of it were left to the end
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="activation flusher")
        self._flushing: Future[None] | None = None

    def begin_after(self, n_windows: int, n_rows: int) -> None:
        """The first windows are written already, by what an earlier attempt kept."""
        self._windows_written, self._rows_written = n_windows, n_rows

    def window(self, start: int, n_rows: int) -> Window:
        """An empty window for the shard's rows start to start + n_rows, as soon as one is free."""
        window = self._free.get()
        self._raise_problem()
        window.open(start, n_rows)
        return window

    def submit(self, window: Window) -> None:
        """Hand a window to the writer, filled or about to be."""
        window.seal()
        self._full.put(window)

    def _work(self) -> None:
        while (window := self._full.get()) is not None:
            if self._problem is None:
                try:
                    window.wait_until_filled()
                    self._write(window)
                except BaseException as error:
                    self._problem = error
            self._free.put(window)

    @torch.inference_mode()
    def _write(self, window: Window) -> None:
        self._between_windows = False
        with window.aside():
            for layer, summary in self.summaries.items():
                try:
                    window.add_up(layer, summary)
                except _Overflow as overflow:
                    raise UserError(
                        f"shard {self.writers[layer].header.shard}, layer {layer}: an activation of size {overflow.args[0]:.4g} does not fit {self._dtype}; set "
                        f"activations.dtype to {'bfloat16 or float32' if self._dtype == 'float16' else 'float32'}"
                    ) from None
            window.bring_home()
        for layer, writer in self.writers.items():
            writer.write(window.start, as_disk(window.host[layer][: window.n_rows]))
        self._windows_written += 1
        self._rows_written += window.n_rows
        self._between_windows = True
        if self._flushing is None or self._flushing.done():
            is_due = self._keeper is not None and self._keeper.is_due()
            self._flushing = self._flusher.submit(self._flush, self._written() if is_due else None)

    def _flush(self, written: Kept | None) -> None:
        for writer in self.writers.values():
            writer.to_disk()
        if written is not None and self._keeper is not None:
            self._keeper.save(written)

    def _written(self) -> Kept | None:
        """What could be gone on from now; None where HDF5 alone knows where rows lie."""
        layers = {}
        for layer, writer in self.writers.items():
            written, summary = writer.written(), self.summaries[layer]
            if written is None:
                return None
            layers[layer] = KeptLayer(
                writer.path, *written, summary.total.copy(), summary.total_squared_norm, summary.nonfinite
            )
        return Kept(self._windows_written, self._rows_written, layers)

    def _keep(self) -> None:
        """Keep all finished windows: the shard is interrupted."""
        if self._keeper is None:
            return
        written = self._written() if self._between_windows and self._windows_written else None
        if written is not None:
            self._flush(written)
        self._keeper.say_what_is_kept(next(iter(self.writers.values())).n_rows)

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    def __enter__(self) -> ShardSink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        if error is not None and not interrupted:
            self._problem = self._problem or error  # what waits need not be written any more
        self._full.put(None)
        self._thread.join()
        self._flusher.shutdown()
        try:
            if interrupted or isinstance(self._problem, Interrupted):
                self._keep()
            if error is None:
                self._raise_problem()
                for layer, writer in self.writers.items():
                    summary = self.summaries[layer]
                    writer.finish(summary.nonfinite, summary.mean, summary.mean_squared_norm)
        finally:
            for writer in self.writers.values():
                writer.close()
