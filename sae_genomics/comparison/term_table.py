"""Every term that one of the runs found, and in which layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sae_genomics.comparison.run_terms import KEY, RunTerms


def term_table(runs: Sequence[RunTerms]) -> pd.DataFrame:
    """One row per term that is found in a layer of a run, most widely found first.

    Columns: collection, term_id, term, n_runs (runs that found it), n_tested (runs that tested it), n_layers, q_matched (the best of
    all), then for each run and layer `RUN:LAYER`: number of features that have the term; 0 where it was tested and not found,
    null where it was not tested.
    """
    found = pd.concat([run.found.assign(run=run.name) for run in runs], ignore_index=True)
    names = pd.concat([run.terms[[*KEY, "term"]] for run in runs]).drop_duplicates(KEY)
    table = (
        found.groupby(KEY, as_index=False)
        .agg(n_runs=("run", "nunique"), n_layers=("layer", "size"), q_matched=("q_matched", "min"))
        .merge(names, on=KEY, how="left")
    )
    table["term"] = table["term"].fillna(table["term_id"])
    keys = pd.MultiIndex.from_frame(table[KEY])
    tested = {run.name: keys.isin(pd.MultiIndex.from_frame(run.terms[KEY])) for run in runs}
    table["n_tested"] = sum(each.astype(int) for each in tested.values())
    counts = {}
    for run in runs:
        for layer in run.layers:
            of_layer = run.found[run.found["layer"] == layer].set_index(KEY)["n_features"]
            column = of_layer.reindex(keys).astype("Int64").reset_index(drop=True)
            counts[f"{run.name}:{layer}"] = column.mask(column.isna().to_numpy() & tested[run.name], 0)
    table = pd.concat([table, pd.DataFrame(counts)], axis=1)
    order = ["n_runs", "n_layers", "q_matched", *KEY]
    table = table.sort_values(order, ascending=[False, False, True, True, True], ignore_index=True)
    return table[[*KEY, "term", "n_runs", "n_tested", "n_layers", "q_matched", *counts]]
