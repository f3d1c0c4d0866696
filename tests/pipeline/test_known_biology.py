"""From a publisher's file to a row of feature_terms.parquet: every source on its whole way, counted by an independent reading."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_GENES, FEATURE_TERMS, GENE_TOKENS
from sae_genomics.config import parse_config
from sae_genomics.run import Run
from sae_genomics.validation.gene_sets import COLLECTIONS
from sae_genomics.validation.task import run_task
from scripts.download_databases import main
from tests.comparison.planted import gene_rows
from tests.pipeline import known_biology_files as files
from tests.validation.excerpts import excerpt, excerpts, needs

N_GENES, NOT_LISTABLE = 300, 9  # gene 9 has too few tokens
SOURCES = list(files.WITH_TERMS)


def sets_of(source: str) -> files.Sets:
    """Three terms; their sizes differ from source to source."""
    more = SOURCES.index(source) % 3 if source in SOURCES else 0
    return {term: list(range(20 * term, 20 * term + 10 + more)) for term in range(3)}


@dataclass
class Way:
    """What the way left. lists: feature -> numbers of its genes."""

    raw: Path
    databases: Path
    terms: pd.DataFrame
    collections: dict[str, dict[str, object]]
    lists: dict[int, set[int]]


def validated(
    folder: Path, lists: list[list[str]], symbols: list[str], listable: np.ndarray, **validation: object
) -> Path:
    """Run the stage validate on features with these lists; returns the folder of the layer."""
    values = {
        "run": {"name": "r"},
        "paths": {**{name: str(folder / name) for name in ("checkpoints", "results", "logs")}, "databases": str(folder / "databases")},
        "data": {"path": "unused.h5ad"},
        "associations": {"min_gene_tokens": 10},
        "validation": {"builtin": False, "shuffles": 1, "baselines": [], **validation},
    }  # fmt: skip
    run = Run(parse_config(values, "test"))
    run.__dict__.update(layers=[0], model_info=SimpleNamespace(name="toy", identity="m", n_layers=1))
    layer = run.layer_results(0)
    layer.mkdir(parents=True)
    generator = np.random.default_rng(1)
    tokens = np.where(listable, generator.integers(20, 90, len(symbols)), 9)
    expression = 1 + generator.random(len(symbols))
    table = {
        "gene_id": symbols,
        "gene_symbol": symbols,
        "n_tokens_stored": tokens,
        "mean_expression": expression,
        "n_tokens_untrained": tokens,
    }
    GENE_TOKENS.write(layer / GENE_TOKENS.file, pd.DataFrame(table))
    features = [
        gene_rows(f, np.arange(len(names))).assign(gene_id=names, gene_symbol=names) for f, names in enumerate(lists)
    ]
    FEATURE_GENES.write(layer / FEATURE_GENES.file, pd.concat(features))
    run_task(run, 0)
    return layer


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    folder = tmp_path_factory.mktemp("way")
    raw, databases = folder / "raw", folder / "databases"
    for source, (write, _) in files.WITH_TERMS.items():
        (raw / source).mkdir(parents=True)
        write(raw / source, sets_of(source))
    (raw / "hgnc").mkdir()
    files.write_hgnc(raw / "hgnc", N_GENES, sets_of("hgnc"))
    assert main(["--from", str(raw), "--to", str(databases)]) == 0
    generator = np.random.default_rng(0)
    lists = {
        f: {*range(20 * f, 20 * f + 8), files.NOT_MEMBER, *generator.choice(np.arange(100, 280), 11, False).tolist()}
        for f in range(3)
    }
    listable = np.arange(N_GENES) != NOT_LISTABLE
    symbols = [files.symbol(g) for g in range(N_GENES)]
    layer = validated(folder, [[files.symbol(g) for g in sorted(genes)] for genes in lists.values()], symbols, listable)
    said = json.loads(ANNOTATION_NULLS.fact(layer / ANNOTATION_NULLS.file, COLLECTIONS) or "[]")
    terms = FEATURE_TERMS.read(layer / FEATURE_TERMS.file)
    return Way(raw, databases, terms, {each["name"]: each for each in said}, lists)


def plain_reading(way: Way, source: str) -> files.Plain:
    read = files.read_hgnc if source == "hgnc" else files.WITH_TERMS[source][1]
    return read(way.raw / source)


@pytest.mark.parametrize("source", [*SOURCES, "hgnc"])
def test_the_normal_form_holds_what_the_file_says(way: Way, source: str) -> None:
    plain = plain_reading(way, source)
    assert sorted(map(len, plain.members.values())) == [len(genes) for genes in sets_of(source).values()]
    facts = json.loads((way.databases / source / "source.json").read_text())
    counts = facts["counts"]
    assert counts["rows_read"] == plain.rows
    assert counts["rows_read"] + counts["split"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["negative"] == len(plain.negative)
    assert counts["unmapped_genes"] == 0
    table = pd.read_parquet(way.databases / source / "terms.parquet")
    assert counts["statements"] == len(table)
    said = {
        negative: set(zip(rows["term_id"], rows["hgnc_id"].str.removeprefix("HGNC:").astype(int) - 1, strict=True))
        for negative, rows in table.groupby("negative")
    }
    assert said.get(True, set()) == plain.negative
    members = {(term, gene) for term, genes in plain.members.items() for gene in genes}
    assert said[False] == members | plain.left_out
    np.testing.assert_array_equal(
        table["gene_symbol"], "GENE" + (table["hgnc_id"].str.removeprefix("HGNC:").astype(int) - 1).astype(str)
    )


@pytest.mark.parametrize("source", [*SOURCES, "hgnc"])
def test_a_feature_gets_the_terms_of_its_genes(way: Way, source: str) -> None:
    plain = plain_reading(way, source)
    universe = plain.universe - {NOT_LISTABLE}
    rows = way.terms[way.terms["collection"] == source].set_index(["feature", "term_id"])
    for number, (term, genes) in enumerate(plain.members.items()):
        row = rows.loc[(number, term)]
        listed, members = way.lists[number] & universe, genes - {NOT_LISTABLE}
        assert (row["n_overlap"], row["n_term"]) == (8, len(members))
        assert (row["n_top"], row["n_background"]) == (len(listed), len(universe))
        assert set(row["genes"].split(",")) == {files.symbol(g) for g in members & listed}
        assert row["p_value"] == pytest.approx(
            stats.hypergeom.sf(7, len(universe), len(members), len(listed)), rel=1e-9
        )
        assert row["p_value"] == rows.loc[number, "p_value"].min()
        assert row["q_source"] < 0.05
        others = [other for other in plain.members if other != term]
        shared = {other: len(plain.members[other] & listed) for other in others}
        assert all(
            rows.loc[(number, other), "n_overlap"] == n for other, n in shared.items() if (number, other) in rows.index
        )
    assert way.collections[source]["n_fit"] >= 3


def test_a_network_is_read_pair_by_pair(way: Way, tmp_path: Path) -> None:
    pairs = [(1, 2, 900), (2, 1, 900), (1, 3, 151), (3, 1, 151), (4, 5, 999), (5, 4, 999)]
    folder = tmp_path / "raw" / "string"
    folder.mkdir(parents=True)
    text = {
        "links.detailed": "protein1 protein2 neighborhood fusion cooccurence coexpression experimental database textmining combined_score\n"
        + "".join(f"9606.ENSP{a} 9606.ENSP{b} 0 0 0 1 {s // 2} 0 1 {s}\n" for a, b, s in pairs),
        "physical.links": "protein1 protein2 combined_score\n9606.ENSP1 9606.ENSP2 300\n9606.ENSP2 9606.ENSP1 300\n",
        "info": "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n" + "".join(f"9606.ENSP{g}\t{files.symbol(g)}\t9\tx\n" for g in range(1, 6)),
        "aliases": "#string_protein_id\talias\tsource\n"
        + "".join(f"9606.ENSP{g}\t{files.ensembl(g)}\tEnsembl_HGNC_ensembl_gene_id\n" for g in range(1, 6)),
    }  # fmt: skip
    for name, content in text.items():
        (folder / f"9606.protein.{name}.v12.0.txt.gz").write_bytes(gzip.compress(content.encode()))
    files.write_hgnc(tmp_path / "raw" / "hgnc", N_GENES, {})
    assert main(["--from", str(tmp_path / "raw"), "--to", str(tmp_path / "to"), "--only", "string"]) == 0
    edges = pd.read_parquet(tmp_path / "to" / "string" / "edges.parquet")
    found = {
        (frozenset((row.source_gene_symbol, row.target_gene_symbol)), row.category): row.score
        for row in edges.itertuples()
    }
    plain = {(frozenset((files.symbol(a), files.symbol(b))), "functional"): score / 1000 for a, b, score in pairs}
    plain[frozenset(("GENE1", "GENE2")), "physical"] = 0.3
    assert found == pytest.approx(plain)
    assert len(edges) == len(plain)
    facts = json.loads((tmp_path / "to" / "string" / "source.json").read_text())
    assert facts["counts"]["edges"] == 4


def test_regulons_are_edges_too(way: Way) -> None:
    edges = pd.read_parquet(way.databases / "trrust" / "edges.parquet")
    plain = files.read_trrust(way.raw / "trrust")
    pairs = {(factor, files.symbol(gene)) for factor, genes in plain.members.items() for gene in genes}
    assert set(zip(edges["source_gene_symbol"], edges["target_gene_symbol"], strict=True)) == pairs
    assert len(edges) == len(pairs)
    assert (edges["sign"] == 1).all()


@needs(excerpts())
def test_real_excerpts_go_the_whole_way(tmp_path: Path) -> None:
    """Hallmark and Reactome as published: sizes counted in the GMT files, and a feature with a term's genes finds the term."""
    for source in ("msigdb", "reactome"):
        excerpt(source)
    assert main(["--from", str(excerpts()), "--to", str(tmp_path / "databases"), "--only", "msigdb", "reactome"]) == 0
    raw = {"msigdb": next(excerpt("msigdb").glob("*.gmt")), "reactome": next(excerpt("reactome").glob("*.gmt"))}
    plain = {source: [line.split("\t") for line in path.read_text().splitlines()] for source, path in raw.items()}
    facts = {source: json.loads((tmp_path / "databases" / source / "source.json").read_text()) for source in plain}
    for source, rows in plain.items():
        n_rows = sum(len([gene for gene in genes if gene]) for _, _, *genes in rows)
        assert facts[source]["counts"]["rows_read"] == n_rows
        assert facts[source]["counts"]["terms"] == len({row[0 if source == "msigdb" else 1] for row in rows})
    built = {source: pd.read_parquet(tmp_path / "databases" / source / "terms.parquet") for source in plain}
    wanted = {
        "msigdb": "HALLMARK_HYPOXIA",
        "reactome": next(row[1] for row in plain["reactome"] if 20 <= len(row) <= 40),
    }
    members = {
        source: set(table.loc[table["term_id"] == wanted[source], "gene_symbol"]) for source, table in built.items()
    }
    for source, rows in plain.items():
        written = next(set(row[2:]) for row in rows if wanted[source] in row[:2])
        # without a whole table of genes names stay as they are, but for those that the excerpt of HGNC knows
        assert len(members[source] & written) >= 0.9 * len(written)
    symbols = sorted({gene for table in built.values() for gene in table["gene_symbol"]})
    lists = [sorted(members[source])[:30] for source in plain]
    layer = validated(tmp_path, lists, symbols, np.ones(len(symbols), dtype=bool))
    terms = FEATURE_TERMS.read(layer / FEATURE_TERMS.file)
    for feature, source in enumerate(plain):
        rows = terms[(terms["feature"] == feature) & (terms["collection"] == source)].set_index("term_id")
        row = rows.loc[wanted[source]]
        universe = {gene.upper() for gene in built[source]["gene_symbol"]}  # as the test takes names
        assert (row["n_overlap"], row["n_term"]) == (len(lists[feature]), len(members[source]))
        assert row["n_background"] == len(universe)
        p = stats.hypergeom.sf(len(lists[feature]) - 1, len(universe), len(members[source]), len(lists[feature]))
        assert row["p_value"] == pytest.approx(p, rel=1e-9)
        assert row["q_value"] < 1e-10
