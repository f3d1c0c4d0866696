#!/usr/bin/env bash
# Makes .venv in this repository and installs what requirements.txt lists. Quick when nothing changed; safe to interrupt,
# to repeat, to start twice at once, and to start while jobs run.
#   bash scripts/setup.sh                what a run needs
#   bash scripts/setup.sh --dev          what the tests need as well
#   bash scripts/setup.sh --if-missing   nothing where there is an environment, though it be of older requirements
# PYTHON=/path/to/python3.11 chooses the interpreter (3.10 to 3.12); SAE_GENOMICS_VENV=/path puts the environment into another
# folder, which must be new, empty, or made by this script: in any other folder nothing is written and nothing is deleted.
set -euo pipefail

# The folder holds
#   versions/NAME/                 whole environments; a complete one is never changed
#   current                        a link to the one in use, replaced by one rename
#   bin include lib pyvenv.cfg     links through `current`, so that .venv/bin/activate is where everybody looks for it
# An environment's scripts hold its absolute path. So each is built under its final name, and what changes is a link. Jobs
# start with the path of the version (slurm/lib/venv.sh): they import from it to their end, whatever `current` has become.

KEEP_DAYS=14 # a replaced version is removed by the first build after this many days: no job runs that long

say() { echo "setup: $*" >&2; }

fail() {
  echo "error: $*" >&2
  exit 2
}

requirements=(requirements.txt)
if_missing=""
case "${1:-}" in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 0
  ;;
--dev) requirements+=(requirements-dev.txt) ;;
--if-missing) if_missing=1 ;;
"") ;;
*) fail "setup.sh does not know $1; it takes --dev, --if-missing or nothing" ;;
esac

typed_in=$PWD
cd -P "$(dirname "${BASH_SOURCE[0]}")/.." # the physical path: the same by whatever link the repository was reached
venv=${SAE_GENOMICS_VENV:-$PWD/.venv}
[[ $venv == /* ]] || venv=$typed_in/$venv
marker=$venv/.sae-genomics-environment # written first: the folder is ours
lock=$venv/.sae-genomics-lock
complete=.sae-genomics-complete # written last into a version: the repository, the version's folder, one line for each set of requirements
replaced=.sae-genomics-replaced # its time is when another version took over
# What earlier editions of this script left in a folder that was one plain environment.
plain_complete=$venv/.sae-genomics-installed
plain_unfinished=$venv/.sae-genomics-unfinished

refuse_what_is_not_ours() {
  local known way="set SAE_GENOMICS_VENV to a new or an empty folder, or SAE_GENOMICS_PYTHON to a Python that has the requirements"
  for known in / "${HOME:-/}" "$PWD"; do
    [[ ! $venv -ef $known ]] || fail "SAE_GENOMICS_VENV=$venv: an environment needs a folder for itself; $way"
  done
  [[ -e $venv || ! -L $venv ]] || fail "$venv is a link to nothing; make the folder it names, or $way"
  [[ -e $venv ]] || return 0
  [[ -d $venv ]] || fail "$venv is no folder; $way"
  [[ ! -f $marker && ! -f $plain_complete && ! -f $plain_unfinished ]] || return 0
  [[ -z $(ls -A "$venv" 2>&1) ]] || fail "$venv was not made by this script and is not empty; nothing in it was changed; $way"
}

# Of pyproject.toml, only what an installation reads: a setting of a linter is no reason to build an environment.
fingerprint() { cat "$@" <(awk '/^\[/ { read_it = /^\[(build-system|project|tool\.setuptools)/ } read_it' pyproject.toml) | cksum; }

is_complete() { [[ -x $1/bin/python && -f $1/$complete ]]; }

# Neither the repository nor the environment was moved or copied since: both are still the folders of these names.
is_in_its_place() {
  local repository folder
  { IFS= read -r repository && IFS= read -r folder; } <"$1/$complete" && [[ $repository -ef $PWD && $folder -ef $1 ]]
}

suits_today() { is_complete "$1" && grep -qxF "$(fingerprint "${requirements[@]}")" "$1/$complete" && is_in_its_place "$1"; }

is_plain() { [[ -x $venv/bin/python && ! -L $venv/bin && -f $plain_complete && ! -e $plain_unfinished ]]; }

is_linked() { [[ $venv/bin -ef $venv/current/bin && $venv/lib -ef $venv/current/lib && $venv/pyvenv.cfg -ef $venv/current/pyvenv.cfg ]]; }

is_usable() { is_plain || { is_complete "$venv/current" && is_linked; }; }

is_ready() {
  if is_plain; then
    grep -qxF "$(cat "${requirements[@]}" pyproject.toml <(pwd) | cksum)" "$plain_complete"
  else
    suits_today "$venv/current" && is_linked
  fi
}

# A pyenv or module shim may exist for a version that does not run, and Debian splits ensurepip off: try each for real.
suits() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 with venv and ensurepip"
    echo "$PYTHON"
    return
  fi
  # The Python of the environment before goes first: what still runs in that one finds modules of its own Python.
  for candidate in "$venv/bin/python" python3 python3.12 python3.11 python3.10 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null && suits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 with venv found; load one (module load python/3.11), install one" \
    "(apt install python3-venv, conda create -n py311 python=3.11), or set PYTHON=/path/to/python3.11"
}

# Makes a version the one that is used. One rename does it, so that there is never no environment.
use() {
  local version=$1 before=$venv/current name aside
  [[ $before -ef $version || ! -f $before/$complete ]] || touch "$before/$replaced"
  rm -f "$version/$replaced"
  ln -sfn "versions/${version##*/}" "$venv/current.new"
  "$version/bin/python" -c 'import os, sys; os.replace(*sys.argv[1:])' "$venv/current.new" "$venv/current"
  aside=$venv/versions/plain-${version##*/}
  for name in bin include lib lib64 pyvenv.cfg; do
    [[ -e $version/$name && ! $venv/$name -ef $venv/current/$name ]] || continue
    if [[ -e $venv/$name && ! -L $venv/$name ]]; then # an earlier edition's environment, which filled the folder itself
      mkdir -p "$aside"
      mv "$venv/$name" "$aside/$name"
    fi
    ln -sfn "current/$name" "$venv/$name"
  done
  rm -f "$plain_complete" "$plain_unfinished"
  [[ ! -d $aside ]] || say "the environment of before is kept in $aside; delete that folder when no job uses it"
}

# Only folders of versions/ that say of themselves that they are ours. What a build left that was cut short can only be told
# from a build at work by the lock; without a lock, by its age.
remove_old_versions() {
  local version
  for version in "$venv"/versions/*/; do
    version=${version%/}
    if [[ -f $version/$complete ]]; then
      [[ -n $(find "$version/$replaced" -mtime "+$((KEEP_DAYS - 1))" 2>/dev/null) ]] || continue
      [[ ! $version -ef $venv/current ]] || continue
      say "removing $version, replaced more than $KEEP_DAYS days ago"
    elif [[ -f $version/.sae-genomics-building ]]; then
      [[ -n $locked || -n $(find "$version/.sae-genomics-building" -mtime +0) ]] || continue
      say "an earlier setup was cut short; starting afresh"
    else
      continue
    fi
    rm -rf "$version"
  done
}

refuse_what_is_not_ours
is_ready && exit 0
if [[ -n $if_missing ]] && is_usable; then
  say "$venv was made from other requirements than this repository has now, and is used as it is; renew it with: bash scripts/setup.sh"
  exit 0
fi

python=$(find_python) # before anything is written
if ! mkdir -p "$venv" 2>/dev/null || ! { : >>"$marker" && : >>"$lock"; } 2>/dev/null; then
  fail "cannot write $venv; set SAE_GENOMICS_VENV to a folder that you may write"
fi
exec 9>>"$lock" # pip inherits the lock: where this script is killed, the next one waits for the pip that lives on
locked=""
if command -v flock >/dev/null; then
  if flock --nonblock 9 2>/dev/null; then
    locked=1
  else
    say "another setup of $venv is at work; waiting for it"
    if flock 9; then locked=1; else say "this file system cannot lock; going on without"; fi
  fi
fi
is_ready && exit 0

for version in "$venv"/versions/*/; do # one from before a change that was taken back, or that a killed setup could not link
  if suits_today "${version%/}"; then
    use "${version%/}"
    say "$venv is ready: ${version%/} suits again"
    exit 0
  fi
done

started=$SECONDS
[[ -e $plain_unfinished ]] && say "an earlier setup was cut short; starting afresh"
remove_old_versions
new=$venv/versions/$(date +%Y%m%d-%H%M%S)-$$
say "making $new with $("$python" --version)"
mkdir -p "$new"
touch "$new/.sae-genomics-building"
"$python" -m venv "$new" || fail "$python -m venv failed, see above; on Debian: apt install python3-venv"

say "installing ${requirements[*]} (PyTorch is large: some minutes the first time)"
arguments=()
for file in "${requirements[@]}"; do arguments+=(-r "$file"); done
if ! "$new/bin/python" -m pip install --disable-pip-version-check "${arguments[@]}" >&2 ||
  ! "$new/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --editable . >&2; then
  rm -rf "$new"
  fail "pip could not install, see above; the same command tries again"
fi

{
  printf '%s\n' "$PWD" "$new"
  fingerprint requirements.txt
  fingerprint "${requirements[@]}"
} >"$new/$complete.new"
mv "$new/$complete.new" "$new/$complete"
rm "$new/.sae-genomics-building"
use "$new"
say "$venv is ready after $((SECONDS - started)) s"
