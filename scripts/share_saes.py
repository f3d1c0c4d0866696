"""Pack a finished run's SAEs for others: SAELens' format, a card with every number beside chance, tables of features, and a page.

    python scripts/share_saes.py results/my_run --to shared/my_run
    python scripts/share_saes.py configs/my_run.yaml --to hub:ORG/NAME --private --layers 0,3

RUN is the folder of a run's results or its config file; every stage of it must be done. Each SAE is loaded again with SAELens before the
folder gets its name, or the hub its commit. The key of the hub is read from the environment variable HF_TOKEN, never from a file.
Exit codes: 0 done, 2 something you can fix. docs/sharing.md says more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.guard import guarded
from sae_genomics.progress import say
from sae_genomics.share.facts import read, run_of
from sae_genomics.share.pack import in_place_of, pack, refuse_foreign
from sae_genomics.share.upload import needs_token, repository_of, upload
from sae_genomics.stages import register_installed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="results/<run>, or the config file of a run")
    parser.add_argument("--to", required=True, metavar="FOLDER|hub:ORG/NAME", help="where the SAEs go")
    parser.add_argument("--layers", metavar="0,3", help="layers to share; default: all of the run")
    parser.add_argument("--private", action="store_true", help="a new repository of the hub is private")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="as for the run itself",
    )
    arguments = parser.parse_args(argv)
    register_installed()
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    repository = repository_of(arguments.to) if arguments.to.startswith("hub:") else None
    if repository is not None:
        needs_token()
    elif arguments.private:
        raise UserError("--private is for hub:ORG/NAME; a folder is as private as you keep it")
    else:
        refuse_foreign(Path(arguments.to))
    shared = read(run_of(arguments.run, arguments.overrides), _layers(arguments.layers))
    names = ", ".join(str(each.number) for each in shared.layers)
    if repository is None:
        with in_place_of(Path(arguments.to)) as folder:
            pack(shared, folder)
        say(f"layers {names} of run {shared.run.name}: {arguments.to}; SAELens gives the same features")
        return EXIT_DONE
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "shared"
        folder.mkdir()
        pack(shared, folder, repository)
        commit = upload(folder, repository, arguments.private, f"SAEs of run {shared.run.name}, layers {names}")
    say(f"layers {names} of run {shared.run.name}: {repository}, commit {commit}")
    return EXIT_DONE


def _layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--layers {text}: write numbers with commas between them, such as 0,3") from None


if __name__ == "__main__":
    sys.exit(main())
