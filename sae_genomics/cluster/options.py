"""Which sbatch options a profile may give, and which it may not, because the run's jobs are found and chained by them.

sbatch reads its arguments with getopt: `--job-name=x`, `--job-name x`, `--job-n=x`, `-J x`, `-Jx` and `-HJx` all mean the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from sae_genomics.errors import UserError

_JOBS = "the run's jobs are found by it"
_LOGS = "the status reads the logs where paths.logs puts them"
_ID = "the job's id is read from sbatch's answer"
# Option: its short form, and why a profile cannot give it.
_RESERVED = {
    "job-name": ("J", _JOBS),
    "comment": ("", _JOBS),
    "array": ("a", "the stage's tasks are the array"),
    "dependency": ("d", "the stages are chained by it"),
    "clusters": ("M", f"{_JOBS}, on this cluster alone"),
    "parsable": ("", _ID),
    "quiet": ("Q", _ID),
    "test-only": ("", f"{_ID}, and with this one there is no job"),
    "wait": ("W", "sbatch would not come back before the job has ended"),
    "wrap": ("", "the stage has a script of its own"),
    "output": ("o", _LOGS),
    "error": ("e", _LOGS),
    "chdir": ("D", "paths in the config count from the folder where the command was typed"),
    "help": ("h", _ID),
    "usage": ("", _ID),
    "version": ("V", _ID),
}
_SHORT = {short: name for name, (short, _) in _RESERVED.items() if short}
_SHORT_WITHOUT_VALUE = "HkOsvI"  # more of them may share a dash
_FLAGS = frozenset(
    {
        "hold", "no-kill", "overcommit", "oversubscribe", "verbose", "contiguous", "requeue", "no-requeue", "reboot",
        "spread-job", "use-min-nodes", "disable-stdout-job-summary", "ignore-pbs",
    }
)  # fmt: skip
_OPTIONAL_VALUE = frozenset({"nice", "exclusive", "get-user-env", "propagate", "immediate"})  # only ever after '='
# The same by way of the environment; what stands on our command line is stronger than the environment is left out.
_VARIABLES = {"SBATCH_ARRAY_INX": "array", "SBATCH_CLUSTERS": "clusters", "SBATCH_WAIT": "wait"}


def check_extra(words: Sequence[str]) -> None:
    """Raise ValueError, naming the word, for an option that is ours to give, and for a word that sbatch takes as its script."""
    value_follows = False
    for word in words:
        if value_follows and not word.startswith("-"):
            value_follows = False
            continue
        if not word.startswith("-"):
            raise ValueError(f"{word!r} belongs to no option; write an option and its value as --name=value")
        for name in _options_in(word):
            if name in _RESERVED:
                raise ValueError(f"{word} ({_both(name)}) cannot be set here, because {_RESERVED[name][1]}; remove it")
        value_follows = _wants_value(word)


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError for a variable that makes sbatch do what a profile may not ask for either."""
    for variable, name in _VARIABLES.items():
        if environment.get(variable):
            raise UserError(
                f"the environment variable {variable} means sbatch --{name}, which cannot be set, because {_RESERVED[name][1]}; "
                f"type: unset {variable}"
            )


def names_of(words: Sequence[str]) -> set[str]:
    """The long names, as typed, of the options among these words."""
    return {re.split(r"[=\s]", word[2:])[0] for word in words if word.startswith("--") and word != "--"}


def replaced(ours: str, words: Sequence[str]) -> bool:
    """Whether these words set an option of ours, spelled out or abbreviated; --no-requeue sets --requeue."""
    return any(ours.startswith(name) or name == f"no-{ours}" for name in names_of(words))


def _options_in(word: str) -> Iterator[str]:
    """Long names of what getopt may read out of one word; an abbreviation counts as whatever reserved name it begins."""
    if word.startswith("--"):
        typed = "".join(names_of([word]))
        yield next((name for name in _RESERVED if typed and name.startswith(typed)), typed)
        return
    for letter in word[1:]:
        yield _SHORT.get(letter, letter)
        if letter not in _SHORT_WITHOUT_VALUE:
            return


def _wants_value(word: str) -> bool:
    """Whether the next word may be this one's value."""
    if word.startswith("--"):
        typed = "".join(names_of([word]))
        return "=" not in word and typed not in _FLAGS | _OPTIONAL_VALUE
    return word[-1] not in _SHORT_WITHOUT_VALUE and (len(word) == 2 or set(word[1:-1]) <= set(_SHORT_WITHOUT_VALUE))


def _both(name: str) -> str:
    short = _RESERVED[name][0]
    return f"--{name}, -{short}" if short else f"--{name}"
