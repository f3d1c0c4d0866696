"""A shard's documents, as the stages after `prepare` read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.data.labelled import items_file
from sae_genomics.data.text.settings import text_section
from sae_genomics.data.text.tables import ITEMS, documents_file
from sae_genomics.data.units import Units
from sae_genomics.errors import DamagedArtifact
from sae_genomics.items import TextItems

if TYPE_CHECKING:
    from sae_genomics.run import Run


def read_documents(run: Run, indices: npt.NDArray[np.int64]) -> TextItems:
    """Texts of some documents: only their bytes are read.

    indices: int64, ascending rows of items.parquet. Raises DamagedArtifact when the copy is not what `prepare` wrote.
    """
    items = ITEMS.read(items_file(run), ["item", "start", "stop"]).iloc[indices]
    path = documents_file(run)
    texts = []
    try:
        with open(path, "rb") as file:
            for start, stop in zip(items["start"].tolist(), items["stop"].tolist(), strict=True):
                file.seek(start)
                data = file.read(stop - start)
                if len(data) != stop - start:
                    raise DamagedArtifact(f"{path} is cut short", path)
                texts.append(data.decode("utf-8"))
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None
    rows = items["item"].to_numpy(np.int64)
    return TextItems(rows, texts, Units.read(run.units_file).token, text_section(run.config).max_tokens)
