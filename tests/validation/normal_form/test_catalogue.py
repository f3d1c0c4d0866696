"""configs/databases.yaml, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.catalogue import chosen, read_catalogue, reader_of

NAMES = [
    "open_targets",
    "hpo",
    "gwas_catalog",
    "disgenet",
    "monarch",
    "string",
    "omim",
    "orphanet",
    "clinvar",
    "gencc",
    "reactome",
    "go",
    "kegg",
    "trrust",
    "msigdb",
    "cellmarker",
    "panglaodb",
    "hgnc",
]
GOOD = "base:\n  title: T\n  licence: L\n  citation: C\n  files:\n    - {name: a.txt, url: 'https://x/a.txt'}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "databases.yaml"
    path.write_text(text)
    return path


def test_the_catalogue_has_every_source():
    catalogue = read_catalogue()
    assert sorted(catalogue) == sorted(NAMES)
    for name, entry in catalogue.items():
        assert set(entry.contains) <= set(NAMES) - {name}
        for file in entry.files:
            assert file.url.startswith("https://")
            assert "{" not in entry.resolved(file.name)
    assert catalogue["omim"].key == "OMIM_API_KEY"
    assert "{key}" in catalogue["omim"].files[0].url
    assert (catalogue["disgenet"].key, catalogue["disgenet"].key_header) == ("DISGENET_API_KEY", "Authorization")
    assert 1 / catalogue["kegg"].pause <= 3
    string = catalogue["string"]
    assert string.resolved(string.files[0].name) == "9606.protein.links.detailed.v12.0.txt.gz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("licence", "license"), "unknown key base.license; did you mean licence?"),
        (GOOD.replace("url:", "urll:"), r"unknown key base.files.0.urll; did you mean url\?"),
        (GOOD.replace("  citation: C\n", ""), "base.citation is missing"),
        (GOOD.replace("https://x", "ftp://x"), "base.files.0: the url of a.txt begins with neither"),
        (GOOD.replace("a.txt,", "../a.txt,"), "'../a.txt' is no plain file name"),
        (GOOD + "  unmapped_limit: 50\n", "base.unmapped_limit: Input should be less than or equal to 1"),
        (GOOD + "  key: K\n", "base: key: is used neither as {key} in a url nor by key_header"),
        (GOOD.replace("/a.txt'", "/{key}'"), "base: a url has {key}, and key: names no environment variable"),
        (GOOD.replace("base", "Bad-Name"), "'Bad-Name' is no name for a database"),
        (GOOD + GOOD, "base stands there twice"),
        (GOOD + "x: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        read_catalogue(written(tmp_path, text))


def test_names_that_are_asked_for(tmp_path):
    catalogue = read_catalogue(written(tmp_path, GOOD))
    assert catalogue["base"].version == "current"
    assert chosen(["base", "base"], catalogue) == ["base"]
    with pytest.raises(UserError, match=r"--only: 'bass' is no database of the catalogue; did you mean base\?"):
        chosen(["bass"], catalogue)


def test_readers_are_found_by_name():
    assert reader_of("hgnc").__module__ == "sae_genomics.validation.databases.hgnc"
    with pytest.raises(UserError, match=r"there is no reader; write validation/databases/nothing.py"):
        reader_of("nothing")
    with pytest.raises(UserError, match=r"builtin.py has no function read\(folder\)"):
        reader_of("builtin")
