"""Stage extract: one shard of items through the model once, every requested layer's activations to HDF5."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.capture import ShardSink, Window
from sae_genomics.activations.extraction.cutting import cut_batches, cut_pieces, cut_windows
from sae_genomics.activations.extraction.summary import Summary
from sae_genomics.activations.extraction.tokenised import TokenisedShard, tokenised_shard
from sae_genomics.activations.extraction.unfinished import DamagedRows, Keeper
from sae_genomics.activations.extraction.workers import Workers
from sae_genomics.activations.format.dtypes import item_bytes
from sae_genomics.activations.format.store import ActivationWriter, Header
from sae_genomics.activations.format.token_store import write_tokens
from sae_genomics.atomic import UNFINISHED, atomic_path
from sae_genomics.errors import UserError
from sae_genomics.models import load_model, pick_device, used_dtype
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.stages import stage_named
from sae_genomics.tokens import ranges

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.run import Run

# All layers' rows of a window; two windows are held. Small ones let writing begin early, large ones hold more
# sequences of like length, which matters where attention is padded.
WINDOW_BYTES = {"cpu": 64 << 20, "mps": 256 << 20, "cuda": 1 << 30}
WORKER_BYTES = 256 << 20  # of a window where several workers fill it


def run_task(run: Run, task: int) -> None:
    """Leave the shard's tokens file and every requested layer's activations; those that are there already stay.

    Raises UserError when values overflow the storage dtype or too many rows are not finite, DamagedArtifact when the
    prepared files cannot be read, Interrupted at a signal: windows that are written are kept, and the next attempt goes on
    after them.
    """
    try:
        _extract(run, task)
    except DamagedRows as problem:
        say(f"extract shard {task}: what was kept is of no use ({problem}); the shard starts from the beginning")
        _extract(run, task)


def _extract(run: Run, task: int) -> None:
    stage = stage_named("extract")
    finished = run.finished_files(stage, task)
    layers = [layer for layer in run.layers if run.activations_file(layer, task) not in finished]
    write_token_file = run.tokens_file(task) not in finished
    if not layers and not write_token_file:
        Keeper(run, task, {}).forget()  # a kill may have come between the last file's name and the end
        return
    model = loaded_model(run)
    shard = tokenised_shard(run, model, task, finished)
    progress = Progress(
        f"extract shard {task}", len(shard.tokens) if layers else 0, "tokens", run.heartbeat_file(stage, task)
    )
    fingerprints = {path: run.fingerprint(stage, **parts) for path, parts in stage.files(run, task).items()}
    keeper = Keeper(run, task, {layer: fingerprints[run.activations_file(layer, task)] for layer in layers})
    with keeper, ExitStack() as files:
        if write_token_file:
            path = run.tokens_file(task)
            write_tokens(files.enter_context(atomic_path(path)), shard.stored(run, fingerprints[path], task))
        if layers:
            device = pick_device(run.config.model.device)
            writers = {}
            for layer in layers:
                path = run.activations_file(layer, task)
                header = Header(
                    fingerprint=fingerprints[path],
                    model=model.info.name,
                    model_identity=model.info.identity,
                    hook=run.config.model.hook,
                    layer=layer,
                    shard=task,
                    d_model=model.info.d_model,
                    dtype=run.config.activations.dtype,
                    compute_dtype=used_dtype(run.config.model, device),
                    sampled_by=shard.sampled_by,
                )
                unfinished = files.enter_context(atomic_path(path, UNFINISHED, keeper.refers_to))
                writers[layer] = ActivationWriter(
                    unfinished, header, len(shard.kept), run.config.activations.compression
                )
            summaries = capture(
                model,
                shard,
                writers,
                run.config.activations.batch_tokens,
                device,
                progress,
                run.config.model.hook,
                len(run.layers),
                keeper,
            )
            _check_finite(run, task, summaries)
    progress.finish(_padding(model) if layers else "")


def _padding(model: FoundationModel) -> str:
    """How much of what was computed was padding, of a model that counts it."""
    share = model.padding_share
    return "" if share is None else f"padding {share:.1%} of the tokens computed"


# --- the model, once a process ---

_model: tuple[tuple[object, ...], FoundationModel] | None = None


def loaded_model(run: Run, *, may_compile: bool = True) -> FoundationModel:
    """The run's model. The last one stays loaded, so that a process that does many shards loads it once.

    may_compile: False for a few batches, which end sooner than a compilation, whatever `model.compile` says.
    """
    global _model
    device = pick_device(run.config.model.device)
    if device.type == "cpu":
        use_allotted_cores()
    settings = run.pinned_model
    if not may_compile:
        settings = settings.model_copy(update={"compile": False})
    key = (
        run.model_info.identity,
        settings.backend,
        settings.compute_dtype,
        settings.compile,
        settings.drug_key is not None,
        str(device),
    )
    if _model is None or _model[0] != key:
        _model = None  # free the old one first
        model = load_model(settings, device, run.config.paths.cache)
        compiled = ", compiled" if settings.compile else ""
        say(
            f"extract: {model.info.name} on {device}, {used_dtype(settings, device)}{compiled}, {torch.get_num_threads()} CPU threads"
        )
        _model = (key, model)
    return _model[1]


def use_allotted_cores() -> None:
    """Let torch use as many threads as Slurm or OMP_NUM_THREADS allots, rather than all cores of the node."""
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return _use_threads(int(value))
    if hasattr(os, "sched_getaffinity"):
        _use_threads(len(os.sched_getaffinity(0)))


def _use_threads(count: int) -> None:
    # the number is the whole process', whose other threads may be in the middle of a product
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


# --- the forward passes ---


def capture(
    model: FoundationModel,
    shard: TokenisedShard,
    writers: dict[int, ActivationWriter],
    batch_tokens: int,
    device: torch.device,
    progress: Progress,
    hook: str,
    n_layers: int,
    keeper: Keeper | None = None,
) -> dict[int, Summary]:
    """Run a shard through the model once and write each layer's stored rows. Returns what each layer adds up to.

    n_layers: of the run. Windows are cut for so many, though some may be there already: where windows end decides which rows
    are added up together, and a layer that is made again alone must come out as it did beside the others, bit for bit.
    keeper: has the windows that an earlier attempt finished, and keeps those of this one; None: nothing is kept.
    """
    tokens = shard.tokens
    header = next(iter(writers.values())).header
    row_bytes = header.d_model * item_bytes(header.dtype) * n_layers
    lengths, stored_ptr = tokens.lengths, shard.stored_ptr
    stored_lengths = np.diff(stored_ptr)
    n_workers = _n_workers(model, len(tokens), batch_tokens, row_bytes)
    window_bytes = WINDOW_BYTES.get(device.type, WINDOW_BYTES["cpu"])
    if n_workers > 1:  # two windows, one of them being finished, keep all workers at work
        window_bytes = max(window_bytes, n_workers * _piece_tokens(model, batch_tokens) * row_bytes)
    windows = cut_windows(stored_lengths, window_bytes // row_bytes)
    most_rows = max((int(stored_ptr[window.stop] - stored_ptr[window.start]) for window in windows), default=0)
    is_kept = np.zeros(len(tokens), dtype=bool)
    is_kept[shard.kept] = True
    everything = bool(is_kept.all())

    def compute(sequences: npt.NDArray[np.int64], window: Window) -> None:
        stop_point()
        batch = tokens.take(sequences)
        activations = model.forward_layers(batch, list(writers), hook)
        if not everything:
            rows = tokens.rows_of(sequences)
            chosen = torch.from_numpy(np.flatnonzero(is_kept[rows]))
            activations = {layer: x[chosen.to(x.device)] for layer, x in activations.items()}
        with torch.inference_mode():
            window.put(activations, ranges(stored_ptr[sequences] - window.start, stored_lengths[sequences]))
        progress.advance(len(batch))

    with ShardSink(writers, most_rows, device, keeper) as sink, Workers(n_workers) as workers:
        n_done = 0
        if keeper is not None:
            cuts = [(window.start, window.stop) for window in windows]
            plan = [shard.content, cuts, device.type, batch_tokens, n_workers, model.piece_tokens]
            n_done, n_rows = keeper.go_on(plan, writers, sink.summaries)
            sink.begin_after(n_done, n_rows)
            if n_done:
                progress.skip(int(tokens.item_ptr[windows[n_done - 1].stop]))
        for cut in windows[n_done:]:
            first, last = int(stored_ptr[cut.start]), int(stored_ptr[cut.stop])
            window = sink.window(first, last - first)
            for sequences in _batches(model, lengths[cut], batch_tokens):
                done = workers.do(partial(compute, sequences + cut.start, window))
                if done is not None:
                    window.filled_by(done)
            sink.submit(window)
    return sink.summaries


def _n_workers(model: FoundationModel, n_tokens: int, batch_tokens: int, row_bytes: int) -> int:
    """Batches computed side by side: of models that are best given small ones, as many as cores and memory allow.

    n_tokens: of the shard, which may not have so many batches. row_bytes: of a stored token, all layers.
    """
    if model.piece_tokens is None:
        return 1
    piece = _piece_tokens(model, batch_tokens)
    most = min(batch_tokens, WORKER_BYTES // row_bytes) // piece
    return max(min(most, -(-n_tokens // piece), torch.get_num_threads()), 1)


def _piece_tokens(model: FoundationModel, batch_tokens: int) -> int:
    return min(batch_tokens, model.piece_tokens or batch_tokens)


def _batches(model: FoundationModel, lengths: npt.NDArray[np.int64], batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Sequences of each batch, large batches first: workers then end together."""
    if model.piece_tokens is None:
        return cut_batches(lengths, batch_tokens)
    pieces = cut_pieces(lengths, _piece_tokens(model, batch_tokens))
    return sorted(pieces, key=lambda piece: int(-lengths[piece].sum()))


def _check_finite(run: Run, shard: int, summaries: dict[int, Summary]) -> None:
    """Report rows that are not finite; refuse when they are more than the config allows."""
    allowed = run.config.activations.max_nonfinite_share
    for layer, summary in summaries.items():
        n_bad = len(summary.nonfinite)
        if not n_bad:
            continue
        share = n_bad / summary.n_rows
        count = f"{n_bad:,} of {summary.n_rows:,} rows ({share:.3%}) are not finite"
        if share > allowed:
            used = used_dtype(run.config.model, pick_device(run.config.model.device))
            hint = "set model.compute_dtype to float32, or" if used != "float32" else "check the model, or"
            raise UserError(
                f"extract shard {shard}, layer {layer}: {count}, more than activations.max_nonfinite_share = {allowed:g}; "
                f"{hint} raise that share to leave such rows out"
            )
        say(f"extract shard {shard}, layer {layer}: {count}; they are left out of everything that follows")
