"""scGPT's folder as its training leaves it: args.json, vocab.json and best_model.pt; the small files are read without torch.

Field names and defaults are those of scgpt 0.2.4 (`tasks/cell_emb.py`, `model/model.py`). What that code does not run for an
embedding, or what is not computed here, is refused by name; keys that it reads for training alone are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import folder_identity
from sae_genomics.models.model_folder import read_object, require_files

ARGS, VOCAB, WEIGHTS = "args.json", "vocab.json", "best_model.pt"
FILES = (ARGS, VOCAB, WEIGHTS)
SPECIAL = ("<pad>", "<cls>", "<eoc>")  # appended in this order by its embedding task where vocab.json lacks them
ONLY = {  # key of args.json: the values that are computed, None where the key may be left out
    "input_emb_style": ("continuous", None),
    "input_style": ("binned", None),
    "cell_emb_style": ("cls", None),
    "fast_transformer_backend": ("flash", None),
    "mvc_decoder_style": ("inner product", "inner product, detach", None),
    "use_batch_labels": (False, None),
    "INPUT_BATCH_LABELS": (False, None),
    "domain_spec_batchnorm": (False, None),
    "DSBN": (False, None),
}


@dataclass(frozen=True)
class ScgptTokeniser:
    """How the model wants its tokens."""

    cls_id: int
    """Vocabulary id of `<cls>`, which every cell begins with."""
    pad_id: int
    """Vocabulary id of padding; only the reference backend pads."""
    pad_value: float
    """The value of `<cls>` (and of padding): as the embedding task has it, `pad_value` of args.json."""
    mask_value: float
    """The value that stands where a token's own is hidden."""
    n_bins: int
    """Values are 0 to n_bins - 1; a gene above zero has 1 or more."""
    max_length: int
    """Tokens of the longest cell, `<cls>` included; a cell with more genes is sampled."""
    n_special: int = 1
    """Special tokens of each cell."""


@dataclass(frozen=True)
class ScgptFolder:
    """A model folder whose small files have been read."""

    folder: Path
    vocab: dict[str, int]
    """Gene name -> id, special tokens left out."""
    special_ids: dict[str, int]
    """Name of a special token -> id."""
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    pre_norm: bool
    """`pre_norm` of args.json. Only scGPT's layer for flash-attn reads it: see `network.Block`."""
    has_mvc: bool | None
    """`MVC` of args.json: whether training had the decoder from the cell's embedding; None where it is not said."""
    tokeniser: ScgptTokeniser

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of all its files."""
        return ModelInfo(
            family="scgpt", name=name, n_layers=self.n_layers, d_model=self.d_model, n_heads=self.n_heads,
            max_length=self.tokeniser.max_length, n_parameters=self._n_parameters(),
            identity=folder_identity(self.folder, FILES),
        )  # fmt: skip

    def _n_parameters(self) -> int:
        """Of all that is computed here; other heads of the checkpoint are not counted, because its header is not read for this."""
        d, d_mlp = self.d_model, self.d_mlp
        embedding = self.vocab_size * d + 2 * d
        value = 2 * d + (d * d + d) + 2 * d
        block = 4 * (d * d + d) + (d * d_mlp + d_mlp) + (d_mlp * d + d) + 4 * d
        decoder = 2 * (d * d + d) + d + 1
        mvc = (2 * d * d + d) if self.has_mvc else 0
        return embedding + value + self.n_layers * block + decoder + mvc


def read_folder(folder: Path) -> ScgptFolder:
    """Read and check args.json and vocab.json; best_model.pt must be there, and is not opened.

    Raises UserError for missing or unreadable files, and for a model that is not computed here.
    """
    require_files(folder, FILES, ", ".join(FILES))
    args = read_object(folder / ARGS)
    for key, known in ONLY.items():
        if args.get(key) not in known:
            raise UserError(
                f"{folder / ARGS}: {key}: {args[key]!r} is not computed by model.family scgpt, which knows "
                f"{' and '.join(repr(value) for value in known if value is not None)}; use another checkpoint"
            )
    ids = _read_ids(folder / VOCAB)
    pad_token = args.get("pad_token", "<pad>")
    if pad_token not in ids:
        raise UserError(f"{folder / ARGS}: pad_token: {pad_token!r} is not in vocab.json; are both of one model?")
    d_model, n_heads = _whole(folder, args, "embsize"), _whole(folder, args, "nheads")
    if d_model % n_heads:
        raise UserError(f"{folder / ARGS}: embsize {d_model} is not a multiple of nheads {n_heads}")
    special_ids = {token: number for token, number in ids.items() if token.startswith("<") and token.endswith(">")}
    special_ids[pad_token] = ids[pad_token]
    tokeniser = ScgptTokeniser(
        cls_id=ids["<cls>"],
        pad_id=ids[pad_token],
        pad_value=_number(folder, args, "pad_value"),
        mask_value=_number(folder, args, "mask_value", -1),
        n_bins=_whole(folder, args, "n_bins", 51, least=3),
        max_length=_whole(folder, args, "max_seq_len", 1200, least=2),
    )
    return ScgptFolder(
        folder=folder,
        vocab={token: number for token, number in ids.items() if token not in special_ids},
        special_ids=special_ids,
        vocab_size=len(ids),
        d_model=d_model,
        n_layers=_whole(folder, args, "nlayers"),
        n_heads=n_heads,
        d_mlp=_whole(folder, args, "d_hid"),
        pre_norm=_flag(folder, args, "pre_norm") or False,
        has_mvc=_flag(folder, args, "MVC"),
        tokeniser=tokeniser,
    )


def _read_ids(path: Path) -> dict[str, int]:
    """Token -> id, with the special tokens that the embedding task would append. Raises UserError for ids with gaps."""
    ids = read_object(path)
    wrong = next((token for token, number in ids.items() if type(number) is not int), None)
    if wrong is not None:
        raise UserError(f"{path}: the id of {wrong!r} is {ids[wrong]!r}, not a whole number; copy or download it again")
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(
            f"{path}: its {len(ids):,} ids are not 0 to {len(ids) - 1:,}, each once; copy or download it again"
        )
    for token in SPECIAL:
        ids.setdefault(token, len(ids))
    return ids


def _whole(folder: Path, args: dict[str, Any], key: str, default: int | None = None, *, least: int = 1) -> int:
    value = args.get(key, default)
    if value is None:
        raise UserError(f"{folder / ARGS}: {key} is missing; is it the args.json of a pretrained scGPT?")
    if type(value) is not int or value < least:
        raise UserError(f"{folder / ARGS}: {key}: {value!r} should be a whole number of {least} or more")
    return value


def _number(folder: Path, args: dict[str, Any], key: str, default: float | None = None) -> float:
    value = args.get(key, default)
    if value is None:
        raise UserError(f"{folder / ARGS}: {key} is missing; is it the args.json of a pretrained scGPT?")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{folder / ARGS}: {key}: {value!r} should be a number")
    return float(value)


def _flag(folder: Path, args: dict[str, Any], key: str) -> bool | None:
    value = args.get(key)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{folder / ARGS}: {key}: {value!r} should be true or false")
    return value
