"""Ontologies as obo files: terms, their parents, and replaced ids."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import obonet
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.hierarchy import ancestors, closes_circle
from sae_genomics.validation.normal_form.text_tables import opened


@dataclass(frozen=True)
class Ontology:
    """One file, and of it the terms of one ontology.

    file: its name. version: its data-version without `hp/releases/` or `releases/`; empty where it has none.
    terms: index term_id; name (text), obsolete (bool), subsets (tuples of text).
    parents: term_id, parent_id, relation; both are terms of the file, and no term is above itself.
    dangling: the same columns, for parents that are not in the file. cyclic: parents left out because they close a circle.
    current: old id (an alt_id, or an obsolete id with one replacement) -> current id.
    """

    file: str
    version: str
    terms: pd.DataFrame
    parents: pd.DataFrame
    dangling: pd.DataFrame
    cyclic: int
    current: dict[str, str]

    def resolved(self, ids: pd.Series) -> pd.Series:
        """The ids of today: old ones are replaced, all others stay as they are."""
        return ids.map(self.current).fillna(ids)

    def known(self, ids: pd.Series) -> npt.NDArray[np.bool_]:
        """Which ids are terms of the file, obsolete ones included."""
        return ids.isin(self.terms.index).to_numpy()

    def obsolete(self, ids: pd.Series) -> npt.NDArray[np.bool_]:
        """Which ids are obsolete terms."""
        return ids.isin(self.terms.index[self.terms["obsolete"]]).to_numpy()

    def names(self, ids: pd.Series) -> pd.Series:
        """The name of each term; an id that is not in the file is its own name."""
        return ids.map(self.terms["name"]).fillna(ids)

    def in_subset(self, subset: str) -> list[str]:
        """Terms that the file puts into a subset."""
        return [term for term, subsets in self.terms["subsets"].items() if subset in subsets]

    def below(self, root: str) -> pd.Index:
        """Terms that have `root` above them, without itself. The root need not be in the file: its id is enough."""
        ids, above = ancestors(pd.concat([self.parents, self.dangling]))
        if root not in ids:
            return pd.Index([], dtype=object)
        rows = above[:, ids.get_loc(root)].nonzero()[0]
        return ids[rows].difference([root]).intersection(self.terms.index)

    def notes(self) -> list[str]:
        """What a person should know of the hierarchy; nothing where it is whole."""
        sentences = []
        if len(self.dangling):
            total = len(self.parents) + len(self.dangling) + self.cyclic
            sentences.append(
                f"the hierarchy of {self.file} is broken: {len(self.dangling):,} of {total:,} parents are not in the file; "
                f"what is above them cannot be known"
            )
        if self.cyclic:
            sentences.append(
                f"the hierarchy of {self.file} has circles: {self.cyclic:,} parents that close one were left out"
            )
        return sentences


def read_ontology(path: Path, prefix: str, relations: Sequence[str] = ("is_a",)) -> Ontology:
    """Read an obo file. prefix: of the ids that count (`GO`); stanzas of other ontologies are left out.

    relations: those that lead to a parent. Raises UserError for a file that is damaged or has no such terms.
    """
    # The parser warns through the root logger of keys that old files lack; they are not needed here.
    logging.getLogger("obonet.read").setLevel(logging.ERROR)
    with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", errors="strict") as text:
        try:
            graph = obonet.read_obo(text, ignore_obsolete=False)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not utf-8 text ({error.reason}); fetch it again") from None
        except (ValueError, KeyError, IndexError) as error:
            # A stanza that is cut off has no id, or a line without a colon.
            raise UserError(f"{path} is damaged, or not an obo file: {str(error)[:120]}; fetch it again") from None
    begin = f"{prefix}:"
    data: dict[str, dict[str, Any]] = {
        node: facts for node, facts in graph.nodes(data=True) if facts and node.startswith(begin)
    }
    if not data:
        raise UserError(f"{path} has no terms of {prefix}: it is cut off, or another ontology")
    terms = pd.DataFrame({
        "name": [facts.get("name", term) for term, facts in data.items()],
        "obsolete": [facts.get("is_obsolete") == "true" for facts in data.values()],
        "subsets": [tuple(facts.get("subset", ())) for facts in data.values()],
    }, index=pd.Index(list(data), name="term_id", dtype=object))  # fmt: skip
    edges = pd.DataFrame(
        (edge for edge in graph.edges(keys=True) if edge[2] in relations and edge[0] in data),
        columns=["term_id", "parent_id", "relation"], dtype=object,
    )  # fmt: skip
    edges = edges[edges["parent_id"].str.startswith(begin)].reset_index(drop=True)
    there = edges["parent_id"].isin(terms.index)
    circular = closes_circle(edges)
    version = re.sub(r"^(\w+/)?releases/", "", str(graph.graph.get("data-version") or "")).strip("/")
    return Ontology(
        file=path.name,
        version=version,
        terms=terms,
        parents=edges[there & ~circular].reset_index(drop=True),
        dangling=edges[~there].reset_index(drop=True),
        cyclic=int((there & circular).sum()),
        current=_current(data),
    )


def _current(data: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Old id -> id of today. A term that is in use is never replaced, whatever names it as an alternative."""
    in_use = {term for term, facts in data.items() if facts.get("is_obsolete") != "true"}
    one_step = {old: term for term in in_use for old in data[term].get("alt_id", ()) if old not in in_use}
    one_step |= {
        term: facts["replaced_by"][0]
        for term, facts in data.items()
        if term not in in_use and len(facts.get("replaced_by", ())) == 1
    }
    return {old: new for old in one_step if (new := _last(old, one_step)) in in_use}


def _last(old: str, one_step: dict[str, str]) -> str:
    """Follow replacements to their end; a circle of them ends where it began."""
    seen: set[str] = set()
    while old in one_step and old not in seen:
        seen.add(old)
        old = one_step[old]
    return old
