"""report.md, "What is missing": tasks not done, files not readable, and what to type."""

from __future__ import annotations

import shlex
from pathlib import Path

from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import code, escape, table
from sae_genomics.report.missing import Unfinished, by_stage, grouped

_SHOWN_FAILURES = 25


def missing(contents: Contents) -> str:
    """Tasks that are not done, files that cannot be read, and the commands that fix it."""
    total = sum(contents.done.values()) + len(contents.unfinished)
    if not contents.unfinished and not contents.problems:
        return f"## What is missing\n\nNothing: all {total} tasks before this report are done."
    parts = ["## What is missing"]
    if contents.unfinished:
        parts.append(f"{len(contents.unfinished)} of {total} tasks are not done.")
        parts += _unfinished(contents.unfinished)
        parts.append(
            f"This runs exactly what is missing, and writes this report anew:\n\n```bash\n{contents.resume}\n```"
        )
    damaged = [each for each in contents.problems if isinstance(each.what, Path)]
    others = [each for each in contents.problems if not isinstance(each.what, Path)]
    if damaged:
        lines = [f"- {code(each.what)}: {escape(each.message)}" for each in damaged]
        paths = " ".join(shlex.quote(str(path)) for path in dict.fromkeys(each.what for each in damaged))
        parts.append("These finished files could not be read:\n\n" + "\n".join(lines))
        parts.append(f"Remove them and they are made again:\n\n```bash\nrm -f {paths}\n{contents.resume}\n```")
    if others:
        lines = [f"- {each.what}: {escape(each.message)}" for each in others]
        parts.append("These parts of the report could not be made from the results:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _unfinished(tasks: list[Unfinished]) -> list[str]:
    own = [task for task in tasks if not task.waits_for]
    waiting = [task for task in tasks if task.waits_for]
    parts = []
    if own:
        rows = [
            (
                task.stage,
                task.unit.replace("_", " "),
                task.status,
                escape(task.why),
                escape(task.reason) or "no trace found",
            )
            for task in own[:_SHOWN_FAILURES]
        ]
        parts.append(table(("Stage", "Task", "State", "Why", "Last attempt"), rows))
        if len(own) > _SHOWN_FAILURES:
            rest = by_stage(own[_SHOWN_FAILURES:])
            named = "; ".join(f"{name}: {grouped([task.unit for task in group])}" for name, group in rest)
            parts.append(f"And {len(own) - _SHOWN_FAILURES} more: {escape(named)}.")
    if waiting:
        named = "; ".join(
            f"{name} ({'its one task' if group[0].unit == 'run' else escape(grouped([task.unit for task in group]))})"
            for name, group in by_stage(waiting)
        )
        parts.append(f"Waiting for tasks before them: {named}.")
    return parts
