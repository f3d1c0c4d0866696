"""Accumulator `labels`: each item's largest activation of each feature against the items' labels (cell types, families)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.artifacts import Inference
from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.baselines import add_gene_values, add_unit_shares
from sae_genomics.associations.cell_sums import add_sampled
from sae_genomics.associations.cell_types import (
    UnitTests,
    best_types,
    best_units,
    compare_units,
    empty_baselines,
    empty_cell_types,
    feature_cell_types,
    inference,
)
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.data.kind import Nouns
from sae_genomics.progress import stop_point

_KINDS = {"neurons": "neuron", "pca": "pca", "ica": "ica"}  # in the table of baselines


def in_words(text: str, nouns: Nouns) -> str:
    """A sentence about cells and their types, about the items and labels of another kind of data."""
    nouns_of = {
        "cells": nouns.items, "cell": nouns.item, "the type's": f"the {nouns.label}'s", "type": nouns.label, "types": nouns.labels,
        "n_cells": "n_items",
    }  # fmt: skip
    pattern = "|".join(rf"\b{re.escape(word)}\b" for word in sorted(nouns_of, key=len, reverse=True))
    return re.sub(pattern, lambda match: nouns_of[match.group()], text)


class Labels(Accumulator):
    """Every feature against every label, and the best feature of each label beside the best unit of each baseline."""

    def __init__(self, layer: Layer):
        self.layer, self.sample = layer, layer.sample
        n, d_sae = len(layer.sample), layer.encoder.d_sae
        self.feature_items = layer.stack.enter_context(ColumnStore(n, d_sae, layer.folder))
        self.unit_items = layer.stack.enter_context(ColumnStore(n, len(layer.units), layer.folder))

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        if len(self.sample):
            first = block.tokens.first_item
            sampled = self.sample.row[first : first + block.tokens.n_items]
            add_sampled(self.feature_items, block.item_rows.result(), sampled)
            if not self.layer.run.kind.units_are_genes:
                add_unit_shares(self.unit_items, block.tokens, sampled)
        return ()

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        layer = self.layer
        stop_point()
        if not len(self.sample):
            layer.write(layer.tables.feature_labels, empty_cell_types())
            layer.write(layer.tables.label_baselines, empty_baselines())
            return features.assign(best_cell_type=None, best_cell_type_auroc=np.nan, best_cell_type_q_value=np.nan)
        tests = compare_units(self.feature_items, self.sample)
        about = inference(tests, layer.run.config.data.group_key)
        labels = feature_cell_types(tests)
        baselines = self._baselines(tests)
        if not layer.run.kind.units_are_genes:
            nouns = layer.run.kind.nouns
            about = Inference(in_words(about.unit, nouns), in_words(about.n, nouns), in_words(about.null, nouns))
            for frame in (labels, baselines):
                for column in ("unit_of_inference", "untested"):
                    frame[column] = frame[column].map(lambda text: in_words(text, nouns), na_action="ignore")
        layer.write(layer.tables.feature_labels, labels, inference=about)
        layer.write(layer.tables.label_baselines, baselines, inference=about)
        layer.features_inference = about
        return pd.concat([features, best_types(tests, labels["q_value"].to_numpy(np.float64))], axis=1)

    def _baselines(self, features: UnitTests) -> pd.DataFrame:
        layer, numbers = self.layer, np.arange(len(features.auroc_train))
        parts = [best_units(features, "feature", numbers, numbers.astype(str).astype(object))]
        if layer.run.kind.units_are_genes:
            add_gene_values(layer.run, self.unit_items, self.sample)
        single = compare_units(self.unit_items, self.sample)
        kind = "gene" if layer.run.kind.units_are_genes else "unit"
        parts.append(best_units(single, kind, layer.units.token, layer.units.unit_name))
        for name, baseline in layer.linear.items():
            stop_point()
            if baseline.units.n_units:
                tests = compare_units(baseline.cells, self.sample)
                parts.append(best_units(tests, _KINDS[name], np.arange(baseline.units.n_units), baseline.units.names))
        if layer.untrained is not None:
            parts.append(layer.untrained.best)
        parts = [part for part in parts if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else empty_baselines()
