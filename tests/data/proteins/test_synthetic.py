"""The demo's synthetic proteins: patterns as PROSITE writes them, spans that match them, decoys that do not."""

import csv
import gzip
import itertools
import re
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

from sae_genomics.data.kinds import kind_named
from sae_genomics.data.labelled import LabelledItems
from sae_genomics.data.proteins.labels import Labels
from sae_genomics.data.proteins.notes import on_annotation
from sae_genomics.data.proteins.settings import ProteinsSection
from sae_genomics.data.proteins.synthetic.baselines import Counts, neighbour_loss
from sae_genomics.data.proteins.synthetic.composition import RESIDUES, SWISSPROT_PERCENT, background, draw, text
from sae_genomics.data.proteins.synthetic.drawing import break_one, descend, draw_chances, make_profile
from sae_genomics.data.proteins.synthetic.patterns import PATTERNS, Element, parse_element
from sae_genomics.data.proteins.synthetic.reading import read_proteins
from sae_genomics.data.proteins.synthetic.writing import FOLDER, make_proteins, write_proteins
from sae_genomics.data.split import split_items
from sae_genomics.errors import UserError

BY_ACCESSION = {pattern.accession: pattern for pattern in PATTERNS}


def rows_of(name):
    with gzip.open(FOLDER / name, "rt") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def shipped():
    return read_proteins(FOLDER / "proteins.fasta.gz", FOLDER / "labels.tsv.gz", "family")


@pytest.fixture(scope="module")
def sequence_of(shipped):
    return dict(zip(shipped.accessions, shipped.sequences, strict=True))


@pytest.mark.parametrize(
    ("written", "element"),
    [
        ("C", Element("C", 1, 1)),
        ("x", Element(RESIDUES, 1, 1)),
        ("x(2,4)", Element(RESIDUES, 2, 4)),
        ("[LIVM](3)", Element("LIVM", 3, 3)),
        ("{GP}", Element("ACDEFHIKLMNQRSTVWY", 1, 1)),
    ],
)
def test_elements_of_a_pattern(written, element):
    assert parse_element(written) == element


@pytest.mark.parametrize("written", ["", "c", "x(2", "[]", "x{2}", "C-x"])
def test_what_is_no_element(written):
    with pytest.raises(ValueError, match="no element"):
        parse_element(written)


# Made up for this test: sequences that the published patterns do and do not describe.
@pytest.mark.parametrize(
    ("accession", "matching", "other"),
    [
        ("PS00028", "CAACAAALAAAAAAAAHAAAH", "CAACAAALAAAAAAAAHAAAA"),
        ("PS00028", "CAAAACAAALAAAAAAAAHAAAAAH", "CAACAAAAAAAAAAAAHAAAH"),
        ("PS00017", "GAAAAGKS", "GAAAAGRS"),
        ("PS00018", "DADADGAIEAAEF", "DWDADGAIEAAEF"),
        ("PS00108", "LAHADLKAANLLL", "LAHAELKAANLLL"),
        ("PS50158", "CAACAAAAHAAAAC", "CAACAAAAHAAAC"),
        ("PS00039", "LLDEADRAL", "LLDEAHRAL"),
    ],
)
def test_regular_expressions(accession, matching, other):
    pattern = BY_ACCESSION[accession]
    assert pattern.regex.fullmatch(matching)
    assert not pattern.anywhere.search(other)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.accession)
def test_what_is_drawn_from_a_pattern_matches_it_and_its_decoys_do_not(pattern):
    generator = np.random.default_rng(0)
    profile = make_profile(pattern, generator)
    for _ in range(20):
        chances, element = draw_chances(profile, generator)
        for member in descend(chances, 0.5, 5, generator):
            assert pattern.regex.fullmatch(text(member))
        for member in descend(break_one(profile, chances, element, generator), 0.5, 5, generator):
            assert not pattern.regex.fullmatch(text(member))


def test_residues_are_drawn_by_their_chances():
    drawn = draw(np.tile(background(), (1000, 1)), 100, np.random.default_rng(0))
    share = np.bincount(drawn.ravel(), minlength=20) / drawn.size
    np.testing.assert_allclose(share, background(), atol=0.004)


def test_background_is_the_published_composition(shipped):
    """Outside of spans and decoys the residues are background, half of it of flexible composition, with some repeats."""
    covered = defaultdict(list)
    for row in rows_of("spans.tsv.gz"):
        covered[row["accession"]].append((int(row["start"]) - 1, int(row["end"])))
    for row in rows_of("labels.tsv.gz"):
        for start, end in re.findall(r":(\d+)-(\d+)", row["decoy_spans"]):
            covered[row["accession"]].append((int(start) - 1, int(end)))
    counts = Counter()
    for accession, sequence in zip(shipped.accessions, shipped.sequences, strict=True):
        free = np.ones(len(sequence), dtype=bool)
        for start, stop in covered[accession]:
            free[start:stop] = False
        counts.update(np.array(list(sequence))[free].tolist())
    total = sum(counts.values())
    assert set(counts) == set(RESIDUES)
    for residue, percent in SWISSPROT_PERCENT.items():
        assert 0.5 < 100 * counts[residue] / total / percent < 2, residue
    assert np.corrcoef([counts[residue] for residue in RESIDUES], background())[0, 1] > 0.85


def test_every_span_matches_its_pattern(sequence_of):
    rows = rows_of("spans.tsv.gz")
    assert len(rows) > 5000
    for row in rows:
        domain = sequence_of[row["accession"]][int(row["start"]) - 1 : int(row["end"])]
        pattern = BY_ACCESSION[row["concept"]]
        assert pattern.regex.fullmatch(domain), row
        assert row["name"] == pattern.name


def test_no_decoy_matches_its_pattern(sequence_of):
    n = 0
    for row in rows_of("labels.tsv.gz"):
        decoys = re.findall(r"(\w+):(\d+)-(\d+)", row["decoy_spans"])
        assert len(decoys) == int(row["decoys"])
        for concept, start, end in decoys:
            assert not BY_ACCESSION[concept].anywhere.search(sequence_of[row["accession"]][int(start) - 1 : int(end)])
            n += 1
    assert n > 1000


def test_nothing_matches_that_is_not_annotated(sequence_of):
    spans = defaultdict(list)
    for row in rows_of("spans.tsv.gz"):
        spans[row["accession"], row["concept"]].append((int(row["start"]) - 1, int(row["end"])))
    for accession, sequence in sequence_of.items():
        for pattern in PATTERNS:
            for match in pattern.anywhere.finditer(sequence):
                start, end = match.span(1)
                assert any(start < stop and first < end for first, stop in spans[accession, pattern.accession])


def test_sizes(shipped):
    assert 1200 <= len(shipped.sequences) <= 1600
    lengths = [len(sequence) for sequence in shipped.sequences]
    assert min(lengths) >= 60
    assert max(lengths) <= 400
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


def test_every_concept_is_in_held_out_and_in_training_families(shipped):
    groups = np.array(shipped.groups)
    heldout = split_items(len(groups), groups, 0.25, 0, groups=groups)
    np.testing.assert_array_equal(heldout, split_items(len(groups), None, 0.25, 0, groups=groups))
    assert 0.2 < heldout.mean() < 0.3
    inside, outside = set(groups[heldout]), set(groups[~heldout])
    assert not inside & outside
    family_of = dict(zip(shipped.accessions, shipped.groups, strict=True))
    families = defaultdict(set)
    for row in rows_of("spans.tsv.gz"):
        families[row["concept"]].add(family_of[row["accession"]])
    assert set(families) == set(BY_ACCESSION)
    for concept, of_it in families.items():
        assert len(of_it & inside) >= 2, concept
        assert len(of_it & outside) >= 5, concept


def test_it_says_that_it_is_synthetic():
    with gzip.open(FOLDER / "proteins.fasta.gz", "rt") as file:
        headers = [line for line in file if line.startswith(">")]
    assert all(re.fullmatch(r">SYN\d{5} synthetic; family SF\d{3}; \d+ planted domains\n", line) for line in headers)


def test_a_run_over_them_says_so_too():
    def said(path):
        run = SimpleNamespace(kind=kind_named("proteins"), config=SimpleNamespace(data=ProteinsSection(path=path)))
        return on_annotation(run, Labels({}, "labels.tsv"), LabelledItems(None, None, None, np.zeros(3, bool)))

    assert "synthetic" in said("builtin:demo_proteins")[0]
    assert not any("synthetic" in note for note in said("mine.fasta"))


def test_the_shipped_files_are_what_the_generator_writes(tmp_path):
    write_proteins(make_proteins(), tmp_path)
    for name in ("proteins.fasta.gz", "spans.tsv.gz", "labels.tsv.gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress((FOLDER / name).read_bytes())
    once = (tmp_path / "proteins.fasta.gz").read_bytes()
    write_proteins(make_proteins(), tmp_path)
    assert (tmp_path / "proteins.fasta.gz").read_bytes() == once


def test_another_seed_gives_other_proteins():
    one, other = make_proteins(4, 1), make_proteins(4, 2)
    assert [text(p.residues) for p in one] != [text(p.residues) for p in other]


def test_members_of_a_family_are_alike_and_families_are_not(shipped):
    """Of members of nearly one length, many positions agree; between families they agree as chance has it."""

    def shared(a, b):
        return len({a[i : i + 5] for i in range(len(a) - 4)} & {b[i : i + 5] for i in range(len(b) - 4)}) / len(a)

    of_family = defaultdict(list)
    for family, sequence in zip(shipped.groups, shipped.sequences, strict=True):
        of_family[family].append(sequence)
    families = sorted(of_family)
    within = np.mean([shared(*of_family[family][:2]) for family in families])
    between = np.mean([shared(of_family[a][0], of_family[b][0]) for a, b in itertools.pairwise(families)])
    assert within > 0.05
    assert between < within / 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("MKV\n", "no header stands before"),
        (">\nMKV\n", "header without a name"),
        ('{"sequence": "MKV"}\n', "holds JSON"),
    ],
)
def test_files_that_are_no_fasta(tmp_path, content, message):
    file = tmp_path / "x.fasta"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_proteins(file, None, None)


def test_labels_that_do_not_fit(tmp_path):
    fasta, labels = tmp_path / "x.fasta", tmp_path / "x.tsv"
    fasta.write_text(">a one\nMK\nV\n>b\nMM\n")
    assert read_proteins(fasta, None, None).sequences == ["MKV", "MM"]
    labels.write_text("accession\tfamily\na\tF\n")
    with pytest.raises(UserError, match="no family for b"):
        read_proteins(fasta, labels, "family")
    with pytest.raises(UserError, match="no column 'cluster'"):
        read_proteins(fasta, labels, "cluster")
    with pytest.raises(UserError, match="no such file"):
        read_proteins(tmp_path / "none.fasta", None, None)
    fasta.write_text(">a one\nMK\n>a two\nMM\n")
    with pytest.raises(UserError, match="accession a comes more than once"):
        read_proteins(fasta, labels, "family")


def test_neighbours_tell_a_residue_where_they_do():
    """In 0 1 2 0 1 2 ... the neighbours tell everything; where both are hidden they tell nothing."""
    counts = Counts.of([np.tile([0, 1, 2], 1000)], 3)
    rows = np.array([[0, 1, 2, 0, 1, 2, 0]])
    hidden = np.zeros_like(rows, dtype=bool)
    hidden[0, 4] = True
    frequency, neighbours = neighbour_loss(counts, rows, hidden)[:, 0]
    assert frequency == pytest.approx(np.log(3), abs=1e-3)
    assert neighbours < 0.02
    hidden[0, 3:6] = True
    frequency, neighbours = neighbour_loss(counts, rows, hidden)[:, 1]
    assert neighbours == pytest.approx(frequency)


def test_new_families_may_have_the_domains_of_other_proteins():
    """The free positions of a domain prefer the same residues as in the other proteins; the families are new."""

    def preferred(proteins):
        counts = np.zeros((len(PATTERNS), len(RESIDUES)))
        for protein in proteins:
            for start, stop, pattern in protein.spans:
                counts[pattern] += np.bincount(protein.residues[start:stop], minlength=len(RESIDUES))
        return counts / counts.sum(axis=1, keepdims=True)

    one, same, other = (make_proteins(40, *seeds) for seeds in ((1, None), (2, 1), (2, None)))
    assert not {text(p.residues) for p in one} & {text(p.residues) for p in same}
    far = np.abs(preferred(one) - preferred(other)).sum(axis=1)
    near = np.abs(preferred(one) - preferred(same)).sum(axis=1)
    assert near.mean() < 0.7 * far.mean()
