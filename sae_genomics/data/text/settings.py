"""The section `data` of a run over text, and what a reader calls its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sae_genomics.data.kind import DataSection, Nouns
from sae_genomics.section import also

if TYPE_CHECKING:
    from sae_genomics.config import RunConfig

NOUNS = Nouns(
    item="document", items="documents", unit="word piece", units="word pieces", token="token", tokens="tokens",
    label="label", labels="labels", group="group", groups="groups", span="span", spans="spans",
)  # fmt: skip


class TextSection(DataSection):
    """The documents, and how they are read."""

    kind: str = Field("text", description="cells | proteins | text; see docs/kinds.md")
    path: str = Field(
        description="a JSONL file, a text file with one document per line (both plain or .gz), or a folder of .txt files"
    )
    text_key: str = Field("text", min_length=1, description="key of a JSONL object that holds the text")
    id_key: str | None = Field(
        None, description="key of a JSONL object that names the document; default: its line, or the file's name"
    )
    label_key: str | None = Field(
        None, description="key of labels that features are compared with (language, condition); folder, for a folder"
    )
    group_key: str | None = Field(
        None, description="key of groups (author, source); a group is held out whole or not at all"
    )
    max_documents: int | None = Field(
        None,
        ge=1,
        validation_alias=also("max_documents", "max_items", "max_cells"),
        description="use a random subset of this many documents; default: all",
    )
    max_tokens: int | None = Field(
        None,
        ge=2,
        description="a document is cut behind so many tokens, special ones included; default: the model's longest sequence",
    )
    heldout_fraction: float = Field(0.2, ge=0.0, lt=1.0, description="share of documents that no SAE is trained on")


def text_section(config: RunConfig) -> TextSection:
    """The section `data` of a run over text."""
    assert isinstance(config.data, TextSection)
    return config.data
