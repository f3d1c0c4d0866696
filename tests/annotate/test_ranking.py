"""scripts/annotate.py --ranking: the numbers of the test, which tables it takes, and which it refuses."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_genomics.annotate.ranking import read_ranking
from sae_genomics.artifacts import GENE_TOKENS
from sae_genomics.errors import UserError
from scripts.annotate import main

N, SET = 60, 12


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three sets of GENE0 to GENE59: the first is tied to the scores of `scores`, the second to their other end."""
    sets = {"high": range(SET), "low": range(N - SET, N), "any": range(3, N, 5)}
    (tmp_path / "sets.gmt").write_text(
        "".join(f"{name}\tx\t" + "\t".join(f"GENE{g}" for g in genes) + "\n" for name, genes in sets.items())
    )
    file = tmp_path / "c.yaml"
    file.write_text(
        f"data: {{path: x.h5ad}}\npaths: {{databases: {tmp_path / 'none'}}}\n"
        f"validation: {{builtin: false, gmt: [{tmp_path / 'sets.gmt'}], min_set_size: 5, top_genes: 10, background: listable}}\n"
    )
    return file


def scores(seed: int = 3) -> np.ndarray:
    """Rounded, so that some are equal; below zero, too."""
    generator = np.random.default_rng(seed)
    return np.round(
        generator.normal(size=N) + np.where(np.arange(N) < SET, 1.2, 0) - np.where(np.arange(N) >= N - SET, 1.2, 0), 1
    )


def write(path: Path, values: np.ndarray, head: str = "") -> Path:
    path.write_text(head + "".join(f"GENE{i}\t{value}\n" for i, value in enumerate(values)))
    return path


def annotate(capsys: pytest.CaptureFixture[str], *words: object) -> pd.DataFrame:
    assert main([*map(str, words), "--tsv"]) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out), sep="\t", keep_default_na=False)


def savage(values: np.ndarray) -> np.ndarray:
    """Rank by rank: the mean, over the ranks of equal values, of 1/r + ... + 1/N."""
    by_rank = [sum(1 / j for j in range(r, len(values) + 1)) for r in range(1, len(values) + 1)]
    falling = sorted(values, reverse=True)
    return np.array([np.mean([by_rank[r] for r in range(len(values)) if falling[r] == value]) for value in values])


@pytest.mark.parametrize("ascending", [False, True])
def test_p_is_that_of_random_draws_and_the_mean_score_is_plain(tmp_path, config, capsys, ascending) -> None:
    values = scores()
    path = write(tmp_path / "mine.rnk", values)
    rows = annotate(capsys, path, "--config", config, "--top", 3, *["--ascending"] * ascending).set_index("term")
    expected = savage(-values if ascending else values)
    generator = np.random.default_rng(0)
    draws = np.array([expected[generator.permutation(N)[:SET]].sum() for _ in range(40_000)])
    for name, genes in {"high": range(SET), "low": range(N - SET, N), "any": range(3, N, 5)}.items():
        observed = expected[list(genes)]
        assert rows.loc[name, "mean_score"] == pytest.approx(observed.mean(), rel=1e-9)
        p = float(np.mean(draws >= observed.sum() - 1e-9)) if len(observed) == SET else None
        assert rows.loc[name, "p_value"] == pytest.approx(p, rel=0.15, abs=4e-4)
        above = [f"GENE{g}" for g in sorted(genes, key=lambda g: (-expected[g], g)) if expected[g] > 1]
        assert rows.loc[name, "leading_genes"] == ",".join(above)
        assert rows.loc[name, "n_background"] == N
    assert rows["p_value"].idxmin() == ("low" if ascending else "high")
    q = rows["p_value"].sort_values() * 3 / np.arange(1, 4)
    assert rows.loc[q.index, "q_value"].to_numpy() == pytest.approx(q[::-1].cummin()[::-1].to_numpy(), rel=1e-9)


def test_only_the_order_counts(tmp_path, config, capsys) -> None:
    """Any growing function of the scores gives the same, and so does another order of the lines."""
    values = scores()
    one = annotate(capsys, write(tmp_path / "a.rnk", values), "--config", config, "--top", 3)
    two = annotate(capsys, write(tmp_path / "b.rnk", np.exp(5 * values)), "--config", config, "--top", 3)
    lines = (tmp_path / "a.rnk").read_text().splitlines()
    (tmp_path / "c.rnk").write_text("\n".join(lines[::-1]) + "\n")
    three = annotate(capsys, tmp_path / "c.rnk", "--config", config, "--top", 3)
    for other in (two, three):
        columns = ["term", "mean_score", "p_value", "q_value"]
        pd.testing.assert_frame_equal(one[columns], other[columns])


def test_the_background_narrows_the_ranking(tmp_path, config, capsys) -> None:
    values = scores()
    (tmp_path / "some.txt").write_text("".join(f"GENE{i}\n" for i in range(0, 50)) + "GENE999\n")
    path = write(tmp_path / "a.rnk", values)
    narrowed = annotate(capsys, path, "--config", config, "--top", 3, "--background", tmp_path / "some.txt")
    alone = annotate(capsys, write(tmp_path / "b.rnk", values[:50]), "--config", config, "--top", 3)
    columns = ["term", "mean_score", "p_value", "n_background"]
    pd.testing.assert_frame_equal(narrowed[columns], alone[columns])
    assert (
        main([str(path), "--config", str(config), "--background", str(tmp_path / "some.txt"), "--json", "--top", "3"])
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["lists"][0]["not_in_background"] == [f"GENE{i}" for i in range(50, N)]
    leading = {each["term"]: each["leading_genes"] for each in said["terms"]}
    assert set(leading["high"]) <= {f"GENE{g}" for g in range(SET)}
    assert len(leading["high"]) > 5
    assert not any("" in genes for genes in leading.values())


def test_expression_is_taken_into_account_where_the_background_tells_it(tmp_path, config, capsys) -> None:
    """Scores that follow expression within every bin of it say nothing that expression does not say."""
    n = 400
    generator = np.random.default_rng(1)
    expression = np.sort(generator.gamma(2.0, size=n))[::-1]
    tokens = np.linspace(5_000, 100, n).astype(np.int64)
    table = pd.DataFrame(dict.fromkeys(GENE_TOKENS.schema.names, 0), index=range(n))
    names = [f"GENE{i}" for i in range(n)]
    table = table.assign(gene_id=names, gene_symbol=names, n_tokens_stored=tokens, mean_expression=expression)
    path = tmp_path / "gene_tokens.parquet"
    GENE_TOKENS.write(path, table)
    (tmp_path / "sets.gmt").write_text("expressed\tx\t" + "\t".join(f"GENE{i}" for i in range(0, 40, 2)) + "\n")
    by_expression = np.log(expression) + generator.normal(scale=0.3, size=n)
    rows = annotate(
        capsys, write(tmp_path / "a.rnk", by_expression), "--config", config, "--top", 3, "--background", path
    )
    assert rows.loc[0, "p_value"] < 1e-6 < 1e-2 < rows.loc[0, "p_matched"]


@pytest.mark.parametrize(
    ("text", "name", "column"),
    [
        ("TP53\t1.5\nMYC\t-2\nNA\t3e-2\n", "a.rnk", ""),
        ("TP53,1.5\r\nMYC,-2\r\nNA,3e-2\r\n", "a.csv", ""),
        ("# a comment\nTP53 1.5\nMYC -2\nNA 3e-2\n", "a.txt", ""),
        ('"gene","score"\n"TP53","1.5"\n"MYC","-2"\n"NA","3e-2"\n', "a.csv", ""),
        ("baseMean\tsymbol\tlog2FoldChange\n9\tTP53\t1.5\n8\tMYC\t-2\n7\tNA\t3e-2\n", "a.tsv", "log2FoldChange"),
        ("TP53\tx\t1.5\nMYC\ty\t-2\nNA\tz\t3e-2\n", "a.tsv", "3"),
        ("TP53\t1.5\nMYC\t-2\nNA\t3e-2\nEGFR\tNA\nKRAS\tnan\nHRAS\t\n", "a.rnk", ""),
    ],
)  # fmt: skip
def test_tables(tmp_path: Path, text: str, name: str, column: str) -> None:
    raw = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name == "a.csv" else b"\xef\xbb\xbf" + raw)
    ranking = read_ranking(tmp_path / name, column)
    assert (ranking.name, ranking.genes, ranking.scores.tolist()) == ("a", ["TP53", "MYC", "NA"], [1.5, -2.0, 0.03])
    assert ranking.n_without == (3 if "EGFR" in text else 0)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", "", "holds no genes"),
        ("TP53\nMYC\n", "", "a ranking has one gene and one score per line"),
        ("TP53\t1\nMYC\tmuch\n", "", "line 2: the score 'much' is no number"),
        ("# x\nTP53\t1\nMYC\n", "", "line 3: 1 columns, and the scores are in column 2"),
        ("TP53\t1\n\t2\n", "", "line 2: no gene"),
        ("TP53\t1\nMYC\t1\n", "", "2 genes have 1 different scores"),
        ("gene\tfold\tp\nTP53\t1\t2\n", "", r"which column has the scores\? Name one with --score: fold, p"),
        ("gene\tfold\tp\nTP53\t1\t2\n", "q", "no column 'q'; its columns are gene, fold, p"),
        ("TP53\t1\nMYC\t2\n", "7", "no column '7'; it has 2 columns and no heading"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, column: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_ranking(tmp_path / "a.tsv", column)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.rnk", "TP53"], "one ranking at a time"),
        (["none.rnk"], "no such file"),
        (["TP53", "--ascending"], "give --ranking too"),
        (["TP53", "--score", "2"], "give --ranking too"),
        (["a.rnk", "--background", "other.txt"], "is in --background; do both name genes alike"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, monkeypatch, config, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.rnk", scores())
    (tmp_path / "other.txt").write_text("ENSG00000141510\nENSG00000136997\n")
    assert main([*words, "--config", str(config)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
