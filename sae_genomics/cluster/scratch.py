"""Training from a node's own disk: a layer's activations are copied there first, where they fit."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, fields
from pathlib import Path

from sae_genomics.cluster.lock import user_name
from sae_genomics.errors import UserError
from sae_genomics.paths import RunPaths
from sae_genomics.progress import Progress, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stage import Stage

ROOM_LEFT = 0.05  # share of the scratch disk that stays free for others
_BLOCK = 1 << 24
_copying = threading.Lock()  # layers trained at once: what one copies is no longer free for the next


@dataclass(frozen=True, eq=False)
class StagedStage(Stage):
    """A layer stage that reads its layer's activations from a node-local copy, and removes the copy when it ends.

    scratch: a folder; variables in it, such as $TMPDIR, are those of the node it runs on.
    """

    scratch: str = ""

    def call(self, run: Run, task: int) -> None:
        """Copy, work, clean up. Works on the shared files where the scratch folder is missing or too small, and says so."""
        layer = run.layers[task]
        folder = self._folder(run, layer)
        if folder is None:
            return super().call(run, task)
        try:
            with _copying:
                stop_point()
                copied = self._copied(run, task, folder)
            if copied:
                return super().call(run.with_paths(StagedPaths.of_layer(run.paths, layer, folder)), task)
            return super().call(run, task)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, run: Run, layer: int) -> Path | None:
        root = Path(os.path.expandvars(self.scratch))
        if "$" in str(root) or not root.is_dir() or not os.access(root, os.W_OK):
            say(f"scratch {self.scratch}: no such folder on this node; reading from {run.checkpoints}")
            return None
        # Named for the job: after it was killed and requeued, it finds and removes what it left.
        return (
            root
            / f"sae_genomics-{user_name()}-{run.name}-layer_{layer:02d}-{os.environ.get('SLURM_JOB_ID', os.getpid())}"
        )

    def _copied(self, run: Run, task: int, folder: Path) -> bool:
        """Copy the layer's shards; returns whether they fitted."""
        layer = run.layers[task]
        shutil.rmtree(folder, ignore_errors=True)
        sources = [
            path
            for shard in range(run.n_shards)
            for path in (run.tokens_file(shard), run.activations_file(layer, shard))
        ]
        total = sum(path.stat().st_size for path in sources)
        disk = shutil.disk_usage(folder.parent)
        if total > disk.free - ROOM_LEFT * disk.total:
            say(
                f"scratch {folder.parent}: {disk.free:,} bytes free do not hold {total:,}; reading from {run.checkpoints}"
            )
            return False
        progress = Progress(
            f"{self.name} layer {layer}: copying to {folder.parent}", total / 1e6, "MB", run.heartbeat_file(self, task)
        )
        for source in sources:
            _copy(source, folder / source.relative_to(run.checkpoints), progress)
        progress.finish()
        return True


@dataclass
class StagedPaths(RunPaths):
    """Activations of one layer are read from another folder; everything else, writing included, is as before."""

    layer: int = -1
    folder: Path = Path()

    @classmethod
    def of_layer(cls, paths: RunPaths, layer: int, folder: Path) -> StagedPaths:
        return cls(paths.checkpoints, paths.results, paths.logs, layer=layer, folder=folder)

    def tokens_file(self, shard: int) -> Path:
        return self._staged(super().tokens_file(shard))

    def activations_file(self, layer: int, shard: int) -> Path:
        path = super().activations_file(layer, shard)
        return self._staged(path) if layer == self.layer else path

    def _staged(self, path: Path) -> Path:
        return self.folder / path.relative_to(self.checkpoints)


def with_scratch(stage: Stage, scratch: str | None) -> Stage:
    """The stage, reading through `scratch` where it is one that reads its activations again and again."""
    if not scratch or not stage.reads_repeatedly:
        return stage
    return StagedStage(**{field.name: getattr(stage, field.name) for field in fields(Stage)}, scratch=scratch)


def _copy(source: Path, target: Path, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(source, "rb") as reading, open(target, "wb") as writing:
            while block := reading.read(_BLOCK):
                writing.write(block)
                progress.advance(len(block) / 1e6)
                stop_point()
    except OSError as error:
        raise UserError(
            f"copying {source} to {target}: {error.strerror}; set scratch: null in the cluster profile"
        ) from None
