"""What is wrong with a config, in one line that says what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from sae_genomics.data.kinds import KINDS, kind_named
from sae_genomics.errors import UserError
from sae_genomics.sae.architectures import ARCHITECTURES
from sae_genomics.section import Section


def first_problem(error: ValidationError, kind: str, architecture: str, sections: Mapping[str, type[Section]]) -> str:
    """The first problem as one sentence, unknown keys (the usual slip) before others.

    kind: of the data that the config is for. architecture: of its SAEs. sections: of such a config, by name.
    """
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        for section, choice in (("data", f"data.kind {kind}"), ("sae", f"sae.architecture {architecture}")):
            if location[0] == section and len(location) == 2 and (others := _others_with(*location)):
                have = "have" if others[1:] else "has"
                return f"unknown key {key} for {choice}; {choice.split()[0]} {' and '.join(others)} {have} it"
        known = key_names(sections) if len(location) > 1 else list(sections)
        # The right key in the wrong section comes before a similar key of the same one.
        near = [name for name in known if len(location) > 1 and name.split(".")[-1] == location[-1]][:1]
        near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        section = location[0]
        hint = f"did you mean {near[0]}?" if near else _known_hint(section, known)
        return f"unknown key {key}; {hint}"
    if problem["type"] == "missing":
        return (
            f"{key} is missing; add it, or pass --set {key}=..."
            if len(location) > 1
            else f"the section {key}: is missing"
        )
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not location or message.startswith(f"{key}."):  # what a section's own check says names the key already
        return message
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":  # a problem of the section as a whole
        return f"{key}: {message}"
    location = [part for part in location if part in key and not part.startswith(("literal[", "list[", "function-"))]
    return f"{'.'.join(location)} = {_short(problem['input'])}: {message[0].lower()}{message[1:]}"


def _known_hint(section: str, known: list[str]) -> str:
    names = [name.split(".")[-1] for name in known if name.startswith(section + ".")] or known
    return "known: " + ", ".join(names)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def key_names(sections: Mapping[str, type[Section]]) -> list[str]:
    """All `section.key` names."""
    return [f"{name}.{key}" for name, section in sections.items() for key in section.shown_names()]


def _others_with(section: str, key: str) -> list[str]:
    """The kinds of data, or the architectures, whose section has that key."""
    if section == "sae":
        return [each.name for each in ARCHITECTURES if key in each.section.all_names()]
    found = []
    for kind in KINDS:
        with suppress(UserError):  # a kind that is not installed
            found += [kind] if key in kind_named(kind).section.all_names() else []
    return found
