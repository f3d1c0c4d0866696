"""The section `data` of a run over proteins, and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from sae_genomics.data.kind import DataSection, Nouns
from sae_genomics.errors import UserError
from sae_genomics.section import also

if TYPE_CHECKING:
    from sae_genomics.config import RunConfig

NOUNS = Nouns(
    item="protein", items="proteins", unit="amino acid", units="amino acids", token="residue", tokens="residues",
    label="label", labels="labels", group="group", groups="groups", span="span", spans="spans",
)  # fmt: skip

_ASSETS = Path(__file__).parents[2] / "assets"
# data.path -> its folder, and the files in it of sequences, spans and labels
BUILTIN = {"builtin:demo_proteins": (_ASSETS / "demo_proteins", "proteins.fasta.gz", "spans.tsv.gz", "labels.tsv.gz")}


class ProteinsSection(DataSection):
    """The proteins, and how they are read."""

    kind: str = Field("proteins", description="cells | proteins | text; see docs/kinds.md")
    path: str = Field(description="a FASTA or JSONL file, plain or .gz, or builtin:demo_proteins")
    spans: str | None = Field(
        None, description="a table of spans with the columns accession, start, end, concept, name; or JSONL"
    )
    labels: str | None = Field(None, description="a table of labels: the column accession, and one column per label")
    label_key: str | None = Field(None, description="column of labels that features are compared with")
    group_key: str | None = Field(
        None, description="column of groups (family or cluster); a group is held out whole or not at all"
    )
    max_proteins: int | None = Field(
        None,
        ge=1,
        validation_alias=also("max_proteins", "max_items", "max_cells"),
        description="use a random subset of this many proteins; default: all",
    )
    window_overlap: int = Field(
        128,
        ge=0,
        description="a protein that is longer than the model is read in windows; neighbouring windows share this many residues",
    )
    heldout_fraction: float = Field(0.2, ge=0.0, lt=1.0, description="share of proteins that no SAE is trained on")


def proteins_section(config: RunConfig) -> ProteinsSection:
    """The section `data` of a run over proteins."""
    assert isinstance(config.data, ProteinsSection)
    return config.data


@dataclass(frozen=True)
class InputFiles:
    """sequences: FASTA or JSONL. spans, labels: None where the config names none."""

    sequences: Path
    spans: Path | None
    labels: Path | None

    @property
    def named(self) -> dict[str, Path]:
        """Those that there are."""
        all_of_them = {"path": self.sequences, "spans": self.spans, "labels": self.labels}
        return {name: path for name, path in all_of_them.items() if path is not None}


def input_files(data: ProteinsSection) -> InputFiles:
    """The files that the config names, absolute. Raises UserError when one is not there."""
    names: dict[str, str | Path | None] = {"path": data.path, "spans": data.spans, "labels": data.labels}
    if data.path.startswith("builtin:"):
        if data.path not in BUILTIN:
            raise UserError(f"data.path: no data set {data.path}; there is {', '.join(BUILTIN)}")
        folder, sequences, spans, labels = BUILTIN[data.path]
        names = {
            "path": folder / sequences,
            "spans": data.spans or folder / spans,
            "labels": data.labels or folder / labels,
        }
    found = {key: None if name is None else _existing(f"data.{key}", Path(name)) for key, name in names.items()}
    assert found["path"] is not None
    return InputFiles(found["path"], found["spans"], found["labels"])


def _existing(key: str, name: Path) -> Path:
    path = name.expanduser().absolute()
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder; name a file in it")
    if not path.exists():
        raise UserError(f"{key}: no such file: {path}")
    return path
