"""Which gene sets a list of genes is enriched in: the test of the stage validate for any list, without a run.

    python scripts/annotate.py CD3D CD3E CD3G CD247 LCK
    python scripts/annotate.py my_genes.txt --background measured_genes.txt
    python scripts/annotate.py clusters.gmt --databases databases --tsv > terms.tsv
    python scripts/annotate.py my_genes.txt --config configs/demo.yaml --background results/demo/layer_03/gene_tokens.parquet
    python scripts/annotate.py fold_changes.tsv --ranking --score log2FoldChange

A FILE holds one gene per line, or the first column of a table holds them; each set of a GMT file is a list of its own. Genes may be
symbols, also old ones, or Ensembl, HGNC or Entrez ids where HGNC's table is downloaded. The gene sets are the built-in ones and every
database in --databases. No network is used and nothing is written. Exit codes: 0 done, 2 something you can fix.

With --ranking, FILE is a table of genes and scores, highest first unless --ascending is given; a file whose name ends in .rnk is
one without it. Then all genes of the ranking are compared, and validation.test savage asks whether the genes of a set stand high in it.

Give --background with a list: the genes that could have been in the list, such as all that were measured. Without it, every gene that makes a protein
counts, and genes that are expressed at all look enriched in what expressed genes do. docs/known_biology.md says more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.annotate.choice_of_background import listable_genes
from sae_genomics.annotate.enrich import enrich
from sae_genomics.annotate.gene_files import gene_lists
from sae_genomics.annotate.ranking import Ranking, enrich_ranking, is_ranking, ranked_genes, read_ranking
from sae_genomics.annotate.show import as_json, as_text, as_tsv, head
from sae_genomics.annotate.symbols import read_symbols
from sae_genomics.config import PathsConfig, ValidationConfig, load_config
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.file_keys import expanded
from sae_genomics.guard import guarded
from sae_genomics.progress import say
from sae_genomics.validation.databases import load_collections

SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genes", nargs="+", metavar="GENE|FILE", help="genes, or files of genes")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="take validation.* and paths.databases from this config"
    )
    parser.add_argument(
        "--databases",
        type=Path,
        metavar="FOLDER",
        help="downloaded databases; default: paths.databases of the config, else databases",
    )
    parser.add_argument(
        "--background",
        type=Path,
        metavar="FILE",
        help="genes that could have been listed: one per line, or a run's gene_tokens.parquet; default: all genes that make proteins",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"rows of each list, 0 for all with p <= 0.05; default: {SHOWN}, and 0 with --tsv and --json",
    )
    parser.add_argument(
        "--ranking", action="store_true", help="the file is a ranking: a gene and a score per line (.rnk: always)"
    )
    parser.add_argument(
        "--score",
        default="",
        metavar="COLUMN",
        help="heading or number of the column of scores, where there are several",
    )
    parser.add_argument("--ascending", action="store_true", help="the lowest score of the ranking stands first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--tsv", action="store_true", help="a table with a line of column names")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.top is not None and arguments.top < 0:
        raise UserError("--top takes a number from 0 on")
    config = load_config(arguments.config) if arguments.config else None
    settings = config.validation if config else ValidationConfig()
    databases = expanded(arguments.databases or (config.paths if config else PathsConfig()).databases)
    if arguments.databases and not databases.is_dir():
        raise UserError(
            f"--databases: {databases} is no folder; scripts/download_databases.py --to {databases} makes it"
        )
    ranking = _ranking(arguments)
    lists, symbols = gene_lists(arguments.genes) if ranking is None else {}, read_symbols(databases)
    collections = load_collections(settings, databases)
    narrowed = ranking is None or arguments.background is not None
    background = listable_genes(arguments.background, symbols, collections, settings, config) if narrowed else None
    whole = arguments.json or arguments.tsv
    top = arguments.top if arguments.top is not None else 0 if whole else SHOWN
    best = 0 if whole and not top else top
    if ranking is not None:
        background, table = ranked_genes(ranking, symbols, background)
        table["score"] *= -1 if arguments.ascending else 1
        answer = enrich_ranking(ranking.name, table, background, collections, settings, best)
        if ranking.n_without:
            say(f"{ranking.n_without:,} genes without a score are left out")
    else:
        assert background is not None
        current = {name: list(dict.fromkeys(symbols.current(genes))) for name, genes in lists.items()}
        answer = enrich(current, background, collections, settings, best)
    if arguments.json:
        print(as_json(answer, background.said, collections, top), end="")
    elif arguments.tsv:
        for line in head(answer, background.said, collections):
            say(line)
        print(as_tsv(answer, top), end="")
    else:
        print(as_text(answer, background.said, collections, top, settings.fdr), end="")
    return EXIT_DONE


def _ranking(arguments: argparse.Namespace) -> Ranking | None:
    """The ranking that is asked for; None where the words are lists."""
    rankings = [word for word in arguments.genes if is_ranking(word)]
    if not arguments.ranking and not rankings:
        if arguments.score or arguments.ascending:
            raise UserError("--score and --ascending are about a ranking; give --ranking too")
        return None
    if len(arguments.genes) != 1:
        raise UserError("one ranking at a time, and no lists beside it: the genes of a ranking are its background")
    path = Path(arguments.genes[0])
    if not path.is_file():
        raise UserError(f"no such file: {path}; name a table of genes and scores")
    return read_ranking(path, arguments.score)


if __name__ == "__main__":
    sys.exit(main())
