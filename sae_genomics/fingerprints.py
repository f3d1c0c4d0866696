"""What a stage's result depends on, as a hash: of settings and of the input's content, never of time or folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sae_genomics import owner
from sae_genomics.file_keys import FILE_KEYS, contents
from sae_genomics.hashes import hash_values

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.stage import Stage

PUBLISHED = "published SAEs"  # what `sae.from` counts as: the stage's files say whose, by their content (`sae.files`)


class Fingerprints:
    """Of one run. They are remembered: a run has many files, and its settings do not change."""

    def __init__(self, run: Run):
        self._run = run
        self._bases: dict[str, str] = {}  # stage -> its base

    def config_values(self, stage: Stage) -> dict[str, Any]:
        """`section.key` -> value for every key that the stage's result depends on."""
        values: Mapping[str, Mapping[str, Any]] = self._run.config.model_dump(mode="json")
        chosen: dict[str, Any] = {}
        for key in stage.keys:
            section, _, name = key.partition(".")
            names = [name] if name else list(values[section])
            for each in names:
                full = f"{section}.{each}"
                value = values[section][each]
                if full in stage.ignores:
                    continue
                if full in FILE_KEYS:
                    files = contents(full, value, values["paths"])
                    if files or full not in owner.LATER_KEYS:  # without files, such a key changes nothing
                        chosen[full] = files
                elif not owner.is_ignored(self._run, full, value):
                    chosen[full] = PUBLISHED if full == "sae.from" else value
        return chosen

    def inputs(self, stage: Stage) -> dict[str, str]:
        """The bases of the stages before it."""
        return {need.name: self.base(need) for need in stage.needs_in(self._run)}

    def base(self, stage: Stage) -> str:
        """Hash of the stage's name, format version, config values and its inputs' bases."""
        if stage.name not in self._bases:
            roots = {} if stage.needs else self._run.content_hashes
            values = self.config_values(stage)
            self._bases[stage.name] = hash_values(stage.name, stage.version, values, self.inputs(stage), roots)
        return self._bases[stage.name]

    def of_file(self, stage: Stage, parts: Mapping[str, Any]) -> str:
        """Of one file: the stage's base and what distinguishes the file (shard, layer, hook)."""
        return hash_values(self.base(stage), dict(parts))
