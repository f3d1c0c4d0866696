"""Where everything of a run is: every artifact of the design, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_genomics.config import RunConfig
    from sae_genomics.stage import Stage

_ELSEWHERE = "checkpoints:"  # of what is large and belongs to a stage whose root is `results`


@dataclass
class RunPaths:
    """The paths of one run. A subclass moves some of them: to a node's own disk, to the folder of a sweep."""

    checkpoints: Path
    """What is large: activations and SAEs."""

    results: Path
    """Tables, figures, the report."""

    logs: Path
    """What tasks leave beside their results: heartbeats, attempts, jobs."""

    _activations: dict[str, Path] = field(default_factory=dict, repr=False)
    """Folders of activations, remembered: a large run asks for its hundred thousand files again and again."""

    @classmethod
    def of(cls, config: RunConfig, name: str) -> RunPaths:
        """Below the three folders of the config."""
        return cls(config.paths.checkpoints / name, config.paths.results / name, config.paths.logs / name)

    @property
    def prepare_dir(self) -> Path:
        """plan.json, units.parquet, and the tables of the data kind."""
        return self.results / "prepare"

    def tokens_file(self, shard: int) -> Path:
        return self._activations_dir("tokens") / f"shard_{shard:04d}.h5"

    def activations_file(self, layer: int, shard: int) -> Path:
        return self._activations_dir(f"layer_{layer:02d}") / f"shard_{shard:04d}.h5"

    def _activations_dir(self, name: str) -> Path:
        if name not in self._activations:
            self._activations[name] = self.checkpoints / "activations" / name
        return self._activations[name]

    def sae_dir(self, layer: int) -> Path:
        return self.checkpoints / "saes" / f"layer_{layer:02d}"

    def layer_results(self, layer: int) -> Path:
        return self.results / f"layer_{layer:02d}"

    def heartbeat_file(self, stage: Stage, unit: str) -> Path:
        return self.logs / "heartbeats" / f"{stage.name}_{unit}.json"

    def manifest_file(self, stage: Stage, unit: str) -> Path:
        return self.root_of(stage) / "manifests" / stage.name / f"{unit}.json"

    def root_of(self, stage: Stage) -> Path:
        """Where a stage's files are."""
        return self.checkpoints if stage.root == "checkpoints" else self.results

    def recorded_name(self, stage: Stage, path: Path) -> str:
        """What a stage's manifest calls one of its files: its name below the stage's root, or `checkpoints:NAME` below that one.

        A file elsewhere, such as a copy on a node's own disk, has its whole path: no manifest has that name.
        """
        for prefix, root in (("", self.root_of(stage)), (_ELSEWHERE, self.checkpoints)):
            if path.is_relative_to(root):
                return prefix + path.relative_to(root).as_posix()
        return str(path)

    def recorded_path(self, stage: Stage, name: str) -> Path:
        """The file that a stage's manifest calls so."""
        below = name.removeprefix(_ELSEWHERE)
        return self.root_of(stage) / name if below == name else self.checkpoints / below
