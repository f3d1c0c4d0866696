"""Lists of genes as people have them: typed, one per line, in a column of a table, or as GMT."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

from sae_genomics.errors import UserError
from sae_genomics.validation.gene_sets import read_gmt

TYPED = "genes"  # the name of a list that was typed
HEADINGS = {
    "gene",
    "genes",
    "symbol",
    "symbols",
    "gene_symbol",
    "gene_name",
    "gene_id",
    "ensembl_id",
    "hgnc_symbol",
    "name",
}
_LIKE_A_FILE = re.compile(r"[/\\]|\.(?:txt|tsv|csv|gmt|gz|list)$", re.IGNORECASE)
Lists = dict[str, list[str]]  # name of a list -> its genes as written, distinct, in order


def gene_lists(words: Sequence[str]) -> Lists:
    """What was typed: files of genes, genes, or both. Genes that are typed are one list; each file is one, and each set of a GMT file.

    Raises UserError for a file that is not there or holds no genes.
    """
    lists: Lists = {}
    typed: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_file():
            for name, genes in _of_file(path).items():
                if name in lists:
                    raise UserError(f"two lists are called {name!r}; rename a file or a set")
                lists[name] = genes
        elif _LIKE_A_FILE.search(word):
            raise UserError(f"no such file: {word}; name a file with one gene per line, or genes")
        else:
            typed += [part for part in re.split(r"[\s,;]+", word) if part]
    if typed:
        lists = {TYPED: list(dict.fromkeys(typed)), **lists}
    return lists


def read_genes(path: Path) -> list[str]:
    """The genes of a text file: the first word of each line, or all words where a line alone holds them.

    Empty lines and lines that begin with # are passed over, and so is a heading such as `gene`. Columns end at a tab or a comma.
    Raises UserError.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1:
        genes = [part for part in re.split(r"[\s,;]+", lines[0]) if part]
    else:
        genes = [re.split(r"[\t,; ]", line, maxsplit=1)[0].strip("\"'") for line in lines]
    if genes and genes[0].lower() in HEADINGS:
        genes = genes[1:]
    genes = [gene for gene in dict.fromkeys(genes) if gene]
    if not genes:
        raise UserError(f"{path} holds no genes; write one gene per line")
    return genes


def _of_file(path: Path) -> Lists:
    if path.name.removesuffix(".gz").endswith(".gmt"):
        return {each.term: list(each.genes) for each in read_gmt(path).sets}
    return {path.name.removesuffix(".gz").rpartition(".")[0] or path.name: read_genes(path)}


def read_text(path: Path) -> str:
    """The text of a file, gzipped or not. Raises UserError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; write one gene per line") from None
