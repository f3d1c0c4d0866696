"""What a reader is told the data are: the nouns of the data kind, and the few phrases that nouns alone do not give."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sae_genomics.artifacts import Inference
from sae_genomics.artifacts.concepts import OF_GENE_SETS
from sae_genomics.data.cells.settings import NOUNS as CELLS
from sae_genomics.data.kind import Nouns
from sae_genomics.run import Run

_PLAIN_NAME = re.compile("[a-z]{3,}(_[a-z]+)*")
_OF_CELLS = re.compile(r"\bitems?\b|(?<=their )unit\b")
_ANY_KIND = re.compile(r"\b(items?|cells?|labels?|types?|tokens?)\b")


@dataclass(frozen=True)
class Wording:
    """What one data kind is called."""

    kind: str
    """name of the data kind: cells, proteins"""
    nouns: Nouns
    type: str
    """short for nouns.label, within text that is about labels"""
    types: str
    every_token: str
    """what every token of the input is, after `every`"""
    token_is: str
    """what the glossary says that one token is"""
    hidden: str
    """what the model predicts when it is measured, after `hidden`"""
    single_unit: str
    """one unit as a rival of one feature"""
    name_labels: str
    """how to give labels"""
    change_labels: str
    """the setting that gives labels"""
    name_groups: str
    """how to give groups"""
    weighed: str
    """what a unit's score sums up over its tokens"""
    find_example: str
    """what the dashboard's search box says after the names of what it finds"""


CELL_WORDING = Wording(
    kind="cells",
    nouns=CELLS,
    type="type",
    types="types",
    every_token="gene of every cell",
    token_is="one expressed gene of one cell, as the model sees it",
    hidden="genes",
    single_unit="single gene",
    name_labels="Name the column of `obs` that holds the annotation in `data.cell_type_key`.",
    change_labels="data.cell_type_key",
    name_groups=(
        "cells of one donor are alike, so these numbers look surer than they are: if `obs` has a column of donors, samples or batches, "
        "name it in `data.group_key`."
    ),
    weighed="activation × expression",
    find_example='e.g. CD79A or "CD4" for exactly that',
)


def sequence_wording(kind: str, nouns: Nouns) -> Wording:
    """The wording of a kind whose items are sequences of tokens."""
    return Wording(
        kind=kind,
        nouns=nouns,
        type=nouns.label,
        types=nouns.labels,
        every_token=f"{nouns.token} of every {nouns.item}",
        token_is=f"one position of one {nouns.item}, as the model sees it",
        hidden=nouns.tokens,
        single_unit=nouns.unit,
        name_labels="Name a table of them in `data.labels` and its column in `data.label_key`.",
        change_labels="data.label_key",
        name_groups=(
            f"related {nouns.items} are alike, so these numbers look surer than they are: if the table of labels has a column of "
            "families or clusters, name it in `data.group_key`."
        ),
        weighed="activation",
        find_example='in "quotes" for exactly that',
    )


def wording_of(run: Run) -> Wording:
    """The wording of a run's data kind. A column of labels that has a plain name gives labels their noun: `family`, `families`."""
    if run.kind.name == CELL_WORDING.kind:
        return CELL_WORDING
    nouns, key = run.kind.nouns, getattr(run.config.data, "label_key", None)
    if key and _PLAIN_NAME.fullmatch(key):
        noun = key.replace("_", " ")
        nouns = replace(nouns, label=noun, labels=_many(noun))
    return sequence_wording(run.kind.name, nouns)


def _many(noun: str) -> str:
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    if noun.endswith(("ss", "x", "ch", "sh")):
        return noun + "es"
    return noun if noun.endswith("s") else noun + "s"


def in_nouns(inference: Inference, wording: Wording) -> Inference:
    """What is said of cells, or of items, tokens and labels of any kind, with the nouns of this one."""
    nouns = wording.nouns
    if wording.kind == CELL_WORDING.kind:  # what is said of cells alone has their nouns
        own = {"item": nouns.item, "items": nouns.items, "unit": nouns.unit}
        return inference.worded(lambda text: _OF_CELLS.sub(lambda found: own[found.group()], text))
    nouns_of = {
        "item": nouns.item,
        "items": nouns.items,
        "cell": nouns.item,
        "cells": nouns.items,
        "label": nouns.label,
    }
    nouns_of |= {
        "labels": nouns.labels,
        "type": nouns.label,
        "types": nouns.labels,
        "token": nouns.token,
        "tokens": nouns.tokens,
    }
    said = replace(inference, unit=inference.unit.replace(OF_GENE_SETS, ""))
    return said.worded(lambda text: _ANY_KIND.sub(lambda match: nouns_of[match.group()], text))


def first_upper(text: str) -> str:
    """`Gene token` of `gene token`; the rest is left as it is."""
    return text[:1].upper() + text[1:]


def a(noun: str) -> str:
    """`a family`, `an amino acid`."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
