"""What can be said of the planted model: it has no files. Imported to print a status: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_values
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.planted import truth
from sae_genomics.models.tx1_tokenise import TokeniserSettings

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

READS = "cells"
VERSION = 1  # of the network's formulas; what is planted is part of the model's identity anyway
CLS, FIRST_GENE = 1, 2  # vocabulary ids; 0 is kept for padding
HOOKS = ("resid_post",)


@dataclass(frozen=True)
class SmallFiles:
    """What other families read from files."""

    vocab: dict[str, int]
    tokeniser: TokeniserSettings


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """See `sae_genomics.models.describe`. Raises UserError for settings that this family has no use for."""
    for key, unwanted in (
        ("name", model.name not in (None, "planted")),
        ("path", model.path is not None),
        ("revision", model.revision is not None),
        ("backend", model.backend != "native"),
        ("compile", model.compile),
        ("drug_key", model.drug_key is not None),
        ("hook_modules", model.hook_modules is not None),
    ):
        if unwanted:
            raise UserError(f"model.{key} is not for model.family planted, which has one model; leave model.{key} out")
    if model.hook not in HOOKS:
        raise UserError(f"model.hook: {model.hook} is not there in model.family planted; set model.hook to {HOOKS[0]}")
    planted = (truth.FEATURES, truth.PROGRAMMES, truth.D_MODEL, truth.N_LAYERS, truth.N_GENES, truth.SEED)
    return ModelInfo(
        "planted", "planted", truth.N_LAYERS, truth.D_MODEL, 1, small_files(model).tokeniser.max_length, 0,
        hash_values(VERSION, repr(planted), truth.FOLD, truth.STRENGTH), hooks=HOOKS,
    )  # fmt: skip


def small_files(model: ModelConfig, cache_dir: Path | None = None) -> SmallFiles:
    """The vocabulary, and how the model wants its tokens: `<cls>` and every expressed gene with its count."""
    vocab = {gene: FIRST_GENE + number for number, gene in enumerate(truth.GENES)}
    settings = TokeniserSettings(
        cls_token_id=CLS, pad_token_id=0, pad_value=0.0, do_binning=False, max_length=truth.N_GENES + 1
    )
    return SmallFiles(vocab, settings)
