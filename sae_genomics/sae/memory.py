"""How much memory training takes, and how many layers of a task are therefore trained at once.

One SAE's steps seldom fill a data-centre GPU: they are short, and between them the processor prepares the next. Several layers'
fill it better, as long as all of them fit. On a CPU one layer's kernels use every core already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_genomics.activations.format.dtypes import item_bytes
from sae_genomics.activations.reading.batches import MEMORY_BYTES, POOL_ROWS
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.kernels.plain import triton_sparse
from sae_genomics.models import pick_device
from sae_genomics.sae import load, torch_step
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.cost import DENSE_NUMBERS
from sae_genomics.sae.evaluate import EVALUATE_ROWS
from sae_genomics.sae.spec import Spec, make_spec

if TYPE_CHECKING:
    from sae_genomics.run import Run

_MARGIN = 1.15  # of an allocator's gaps, and of what is not counted
_CONTEXT_BYTES = 128 << 20  # a stream's workspaces in CUDA's libraries
_BATCHES_AHEAD = 8
_PROCESS_BYTES = 3 << 30  # of the host's memory: Python, torch, CUDA's own


@dataclass(frozen=True)
class Needs:
    """Bytes that one layer's training takes at its largest. device: of the GPU. host: of the machine, beside the GPU's."""

    device: int
    host: int


def training_needs(spec: Spec, row_bytes: int) -> Needs:
    """An upper estimate, about twice of what is counted, of what training by `TorchStep` or `DenseStep` takes on a GPU.

    With P = 2 d_sae d_in + 2 d_sae + d_in parameters, T rows a step, L nested dictionaries, and 4 bytes a number:

        weights, two moments, gradients                      4 P
        an update's temporaries, or the folded encoder's     2 P
        pre-activations, scores and their copies, of the     4 H, H = min(T d_sae, HIDDEN_ELEMENTS)
          rows that are encoded at once                      (a dense step keeps 12 T d_sae for its gradient)
        or those of the evaluation, where they are more      3 min(4 096 d_sae, the encoder's HIDDEN_ELEMENTS)
        rows, reconstructions, errors and gradients          T d_in (8 + 3 L)

    and beside these 112 bytes for each active entry, of which there are T (1.5 k + d_in / 2), what is gathered at once, 2 bytes
    a parameter for a bfloat16 copy, and a margin.

    row_bytes: of a stored activation row; the host holds POOL_ROWS of them or MEMORY_BYTES, half as many in order, some batches,
    and twice what a checkpoint is written from.
    """
    rows, d_in, d_sae = spec.batch_rows, spec.d_in, spec.d_sae
    parameters = 2 * d_sae * d_in + 2 * d_sae + d_in
    numbers = parameters * 6
    dense = architecture_named(spec.architecture).dense
    encoded = DENSE_NUMBERS * rows * d_sae if dense else 4 * min(rows * d_sae, torch_step.HIDDEN_ELEMENTS)
    numbers += max(encoded, 3 * min(EVALUATE_ROWS * d_sae, load.HIDDEN_ELEMENTS))
    numbers += rows * d_in * (8 + 3 * len(spec.widths)) + 3 * triton_sparse.GATHER_ELEMENTS
    entries = rows * (1.5 * spec.k + d_in / 2)
    low = 2 * parameters if spec.compute_dtype != "float32" else 0
    device = _MARGIN * (4 * numbers + 112 * entries + low) + _CONTEXT_BYTES
    pool = min(POOL_ROWS * row_bytes, MEMORY_BYTES)
    host = 1.5 * pool + _BATCHES_AHEAD * 4 * rows * d_in + 2 * 3 * 4 * parameters
    return Needs(int(device), int(host))


def model_bytes(run: Run) -> int:
    """The model that `loss_recovered` splices into, and a batch of cells in it; 0 where that is left out."""
    if not run.config.sae.loss_recovered_cells:
        return 0
    info, settings = run.model_info, run.config.model
    parameters = info.n_parameters or 12 * info.d_model**2 * info.n_layers + 60_000 * info.d_model
    batch = run.config.activations.batch_tokens * info.d_model * 4 * 16
    return int(parameters * item_bytes(settings.compute_dtype)) + batch


def means_bytes(run: Run) -> int:
    """The mean activation of each gene (`measure_means`): float64 sums, and float32 means twice while they are made of these."""
    try:
        n_units = len(run.kind.read_units(run))
    except (OSError, DamagedArtifact):  # not prepared yet
        return 0
    return 16 * n_units * int(run.model_info.d_model)


def layers_at_once(run: Run, n_layers: int) -> int:
    """How many of n_layers to train at once: `sae.layers_at_once`, else as many as fit the GPU's free memory and the host's.

    1 on a CPU, where one layer keeps all cores busy. Settings that do not fit the data or the machine are left to the tasks to tell.
    """
    config = run.config.sae
    if config.layers_at_once is not None:
        return config.layers_at_once
    try:
        device = pick_device(config.device)
        spec = make_spec(config, run.model_info.d_model, config.batch_tokens, 0)
    except UserError:
        return 1
    if device.type != "cuda":
        return 1
    row_bytes = run.model_info.d_model * item_bytes(run.config.activations.dtype)
    needs = training_needs(spec, row_bytes)
    host_bytes = needs.host + means_bytes(run)
    torch.cuda.empty_cache()  # what earlier tasks of this process left
    device_bytes = torch.cuda.mem_get_info(device)[0] - model_bytes(run)
    return max(1, min(n_layers, device_bytes // needs.device, (host_memory() - _PROCESS_BYTES) // host_bytes))


def host_memory() -> int:
    """Bytes of memory that this process may use: what Slurm allots it, or what the machine has."""
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "")
    if megabytes.isdigit() and int(megabytes) > 0:  # 0: all of the node
        return int(megabytes) << 20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
