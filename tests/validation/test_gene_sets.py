import gzip

import numpy as np
import pytest

from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.databases import load_collections
from sae_genomics.validation.gene_sets import NoSetFits, membership, read_gmt

GOOD = "set one\tsource\tCD3D\tCD3E\tCD3D\n\n# a remark\nset two\t\tLYZ,1.0\tCD14,0.5\t\t\n"


def test_gmt_as_people_write_it(tmp_path):
    path = tmp_path / "mine.v2.gmt"
    path.write_text(GOOD)
    collection = read_gmt(path)
    assert collection.name == "mine.v2"
    assert [gene_set.term for gene_set in collection.sets] == ["set one", "set two"]
    assert collection.sets[0].genes == ("CD3D", "CD3E")
    assert collection.sets[1].genes == ("LYZ", "CD14")
    packed = tmp_path / "mine.gmt.gz"
    packed.write_bytes(gzip.compress(GOOD.replace("\n", "\r\n").encode("utf-8-sig")))
    assert read_gmt(packed).name == "mine"
    assert read_gmt(packed).sets == collection.sets


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no gene sets"),
        (b"\n# only remarks\n", "holds no gene sets"),
        (b"a\tb\tX\njust a name\n", "line 2: not a gene set"),
        (b"a\tb\tX\nname\tsource\n", "line 2: not a gene set"),
        (b"\tsource\tX\n", "line 1: not a gene set"),
        (b"a\tb\tX\nc\td\tY\na\tb\tZ\n", "line 3: gene set 'a' stands on line 1 already"),
        (b"a\tb\tX\n\xff\xfe\tb\tX\n", "line 2: not UTF-8"),
        (b"\x1f\x8bbroken", "cannot read gene-set file"),
    ],
)
def test_malformed_files_are_refused_in_one_line_with_file_and_line(tmp_path, content, message):
    path = tmp_path / "bad.gmt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_gmt(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no such gene-set file: .*none\.gmt"):
        read_gmt(tmp_path / "none.gmt")
    with pytest.raises(UserError, match="is a folder"):
        read_gmt(tmp_path)


def test_files_of_one_name_and_no_files_at_all_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.gmt").write_text(GOOD)
    paths = [tmp_path / folder / "same.gmt" for folder in ("a", "b")]
    with pytest.raises(UserError, match="two gene-set collections are called 'same'"):
        load_collections(ValidationConfig(gmt=paths))
    with pytest.raises(UserError, match="no gene sets to test"):
        load_collections(ValidationConfig(builtin=False))
    only = load_collections(ValidationConfig(builtin=False, gmt=paths[:1]))
    assert [collection.name for collection in only] == ["same"]


def test_membership_counts_background_genes_alone_in_any_case_of_letters(tmp_path):
    path = tmp_path / "s.gmt"
    path.write_text("mixed\t\tCd3d\tCD3E\tNOT_THERE\nbig\t\tA1\tA2\tA3\tA4\nsmall\t\tCD3E\n")
    symbols = np.array(["cd3e", "CD3D", "A1", "A2", "A3", "A4", "CD3E", "unrelated"], object)
    members = membership([read_gmt(path)], symbols, 2, 3)
    assert members.term.tolist() == ["mixed"]
    assert members.collection.tolist() == ["s"]
    assert members.background.tolist() == ["A1", "A2", "A3", "A4", "CD3D", "CD3E", "UNRELATED"]
    assert members.set_sizes.tolist() == [2]
    assert members.positions(["Cd3D", "none", "A1", "CD3D"]).tolist() == [4, -1, 0, 4]
    assert members.symbols[members.positions(["cd3e"])[0]] == "cd3e"
    everything = membership([read_gmt(path)], symbols, 1, 10)
    assert everything.term.tolist() == ["mixed", "big", "small"]
    np.testing.assert_array_equal(everything.matrix.toarray().sum(axis=0), [2, 4, 1])


def test_sets_that_share_nothing_with_the_data_are_refused_with_examples_of_both(tmp_path):
    path = tmp_path / "mouse.gmt"
    path.write_text("a\t\tENSMUSG1\tENSMUSG2\tENSMUSG3\n")
    symbols = np.array(["CD3D", "CD3E", "ENSMUSG1"], object)
    with pytest.raises(NoSetFits, match=r"ENSMUSG1.*CD3D.*set data\.symbol_key") as none:
        membership([read_gmt(path)], symbols[:2], 1, 100)
    assert "min_set_size" not in str(none.value), "no size would help"
    with pytest.raises(NoSetFits, match=r"set validation\.min_set_size to 1 or less"):
        membership([read_gmt(path)], symbols, 2, 100)
