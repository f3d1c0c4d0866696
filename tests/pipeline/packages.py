"""Somebody else's package, installed for the commands of a test: its modules, and the entry points that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, modules: Mapping[str, str], entry_points: Mapping[str, str]) -> dict[str, str]:
    """Write a package into `folder`; returns the environment in which it is installed.

    modules: path of each file in it -> its text. entry_points: group -> a line `name = value`.
    """
    information = folder / "brought-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    groups = "".join(f"[{group}]\n{line}\n" for group, line in entry_points.items())
    (information / "entry_points.txt").write_text(groups)
    for name, text in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
    }
