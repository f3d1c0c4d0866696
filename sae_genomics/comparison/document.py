"""The comparison of runs as one Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sae_genomics.comparison.pairs import ANY
from sae_genomics.comparison.run_terms import RunTerms
from sae_genomics.report.markdown import count, escape, table

SHOWN = 40  # terms; terms.tsv has all
SHOWN_PAIRS = 30  # of layers; pairs.tsv has all
_METHOD = """A term counts as found when a feature has it at `q_matched` below the run's `validation.fdr` and no more specific term explains it.
Terms that share at least half of their genes are one family, because a pathway and its near copies are one discovery. A family is found
where one of its terms is.

*By chance* is the number of families that both runs would find if each found as many families of the same source and of similar size, and
had nothing to do with the other. The number is a sum of hypergeometric ones, so p is exact. q is Benjamini-Hochberg over all rows of this
table and the next. Runs on the same cells share the data as well as the biology: a small p says that they find the same terms, and not why."""


def document(runs: Sequence[RunTerms], pairs: pd.DataFrame, terms: pd.DataFrame) -> str:
    """Markdown."""
    parts = [
        f"# Known biology in {len(runs)} runs",
        _first_paragraph(pairs, terms, len(runs)),
        "## Runs", _runs(runs),
        *_other_versions(runs),
        "## What two runs share", _METHOD,
        _pairs(pairs[pairs["layer_a"] == ANY], layers=False),
        "### Layer by layer", _layers(pairs[pairs["layer_a"] != ANY]),
        "## Terms found", _terms(runs, terms),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _first_paragraph(pairs: pd.DataFrame, terms: pd.DataFrame, n_runs: int) -> str:
    by_all = int((terms["n_runs"] == n_runs).sum())
    sentences = [f"{count(len(terms))} terms are found in at least one run, {count(by_all)} of them in all {n_runs}."]
    for row in pairs[pairs["layer_a"] == ANY].itertuples():
        names = f"{escape(row.run_a)} and {escape(row.run_b)}"
        if not (row.families_a and row.families_b):
            sentences.append(
                f"{names} cannot be compared, because one of them finds no term that both were tested with."
            )
            continue
        more = "more than chance gives" if row.q_value < 0.05 else "not more than chance may give"
        sentences.append(
            f"{names} share {count(row.families_shared)} families of terms; {row.families_by_chance:.1f} "
            f"are expected by chance (p = {row.p_value:.2g}): {more}."
        )
    return " ".join(sentences)


def _runs(runs: Sequence[RunTerms]) -> str:
    header = ["run", "model", "layer", "terms tested", "terms found", "features with a term"]
    rows = []
    for run in runs:
        for layer in run.layers:
            found = run.found[run.found["layer"] == layer]
            rows.append([
                escape(run.name), escape(run.model), str(layer), count(len(run.terms)), count(len(found)),
                count(run.n_annotated[layer]),
            ])  # fmt: skip
    return table(header, rows, right=(2, 3, 4, 5))


def _other_versions(runs: Sequence[RunTerms]) -> list[str]:
    """A sentence on collections that the runs have in different versions."""
    names = dict.fromkeys(name for run in runs for name in run.versions)
    versions = {name: {run.versions[name] for run in runs if name in run.versions} for name in names}
    differ = [name for name, found in versions.items() if len(found) > 1]
    missing = [name for name in names if any(name not in run.versions for run in runs)]
    lines = []
    if differ:
        lines.append(f"The runs used different versions of {escape(', '.join(differ))}.")
    if missing:
        lines.append(
            f"Not every run was tested with {escape(', '.join(missing))}. Only terms that both runs were tested with count in a pair."
        )
    return [" ".join(lines)] if lines else []


def _pairs(pairs: pd.DataFrame, layers: bool) -> str:
    header = ["run A", "run B", "families tested", "A", "B", "both", "by chance (95 %)", "p", "q", "terms of both"]

    def name(run: str, layer: str) -> str:
        return f"{escape(run)}, layer {layer}" if layers else escape(run)

    rows = [
        [
            name(row.run_a, row.layer_a), name(row.run_b, row.layer_b), count(row.families_tested), count(row.families_a),
            count(row.families_b), count(row.families_shared),
            f"{row.families_by_chance:.1f} ({row.by_chance_low} to {row.by_chance_high})", f"{row.p_value:.2g}", f"{row.q_value:.2g}",
            f"{count(row.terms_shared)} ({row.terms_by_chance:.1f} by chance)",
        ]
        for row in pairs.itertuples()
    ]  # fmt: skip
    return table(header, rows, right=range(2, 10))


def _layers(pairs: pd.DataFrame) -> str:
    """The pairs of layers in which both find something, smallest p first."""
    both = pairs[(pairs["families_a"] > 0) & (pairs["families_b"] > 0)]
    shown = both.sort_values("p_value", kind="stable").head(SHOWN_PAIRS)
    said = f"{count(len(both))} of {count(len(pairs))} pairs of layers have terms on both sides"
    said += f"; the {SHOWN_PAIRS} with the smallest p are shown." if len(shown) < len(both) else "."
    return f"{said} `pairs.tsv` has all." + (f"\n\n{_pairs(shown, layers=True)}" if len(shown) else "")


def _terms(runs: Sequence[RunTerms], terms: pd.DataFrame) -> str:
    header = ["source", "term", *(f"{escape(run.name)}: layers" for run in runs), "best q"]
    rows = []
    for record in terms.head(SHOWN).to_dict("records"):
        layers = [
            ", ".join(str(layer) for layer in run.layers if pd.notna(n := record[f"{run.name}:{layer}"]) and n > 0)
            for run in runs
        ]
        tested = [any(pd.notna(record[f"{run.name}:{layer}"]) for layer in run.layers) for run in runs]
        cells = [found or ("–" if known else "not tested") for found, known in zip(layers, tested, strict=True)]
        rows.append([escape(record["collection"]), escape(record["term"]), *cells, f"{record['q_matched']:.2g}"])
    more = f"\n\nThe first {SHOWN} of {count(len(terms))}; `terms.tsv` has all." if len(terms) > SHOWN else ""
    return table(header, rows) + more if rows else "No term is found in any run."
