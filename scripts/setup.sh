#!/usr/bin/env bash
# Makes .venv beside this repository and installs what requirements.txt lists. Quick when nothing changed; safe to
# interrupt, to repeat and to start twice at once.
#   bash scripts/setup.sh          what a run needs
#   bash scripts/setup.sh --dev    what the tests need as well
# PYTHON=/path/to/python3.11 chooses the interpreter (3.10 to 3.12); SAE_GENOMICS_VENV=/path puts the environment elsewhere.
set -euo pipefail

say() { echo "setup: $*" >&2; }

fail() {
  echo "error: $*" >&2
  exit 2
}

requirements=(requirements.txt)
case "${1:-}" in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 0
  ;;
--dev) requirements+=(requirements-dev.txt) ;;
"") ;;
*) fail "setup.sh does not know $1; it takes --dev or nothing" ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${SAE_GENOMICS_VENV:-$PWD/.venv}
stamp=$venv/.sae-genomics-installed   # written last: one line for each set of requirements that is complete
unfinished=$venv/.sae-genomics-unfinished
lock=$venv/.sae-genomics-lock

fingerprint() { cat "$@" pyproject.toml <(pwd) | cksum; }
is_ready() {
  [[ -x $venv/bin/python && ! -e $unfinished ]] && grep -qxF "$(fingerprint "${requirements[@]}")" "$stamp" 2>/dev/null
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
  for candidate in python3 python3.12 python3.11 python3.10 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null && suits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 with venv found; load one (module load python/3.11), install one" \
    "(apt install python3-venv, conda create -n py311 python=3.11), or set PYTHON=/path/to/python3.11"
}

is_ready && exit 0

if ! mkdir -p "$venv" 2>/dev/null || ! { : >>"$lock"; } 2>/dev/null; then
  fail "cannot write $venv; set SAE_GENOMICS_VENV to a folder that you may write"
fi
exec 9>>"$lock" # pip inherits the lock: where this script is killed, the next one waits for the pip that lives on
if command -v flock >/dev/null && ! flock --nonblock 9 2>/dev/null; then
  say "another setup of $venv is at work; waiting for it"
  flock 9 || say "this file system cannot lock; going on without"
fi
is_ready && exit 0

started=$SECONDS
if [[ -e $unfinished ]] || ! grep -qF "$venv" "$venv/bin/pip" 2>/dev/null || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
  python=$(find_python)
  [[ -e $unfinished ]] && say "an earlier setup was cut short; starting afresh"
  say "making $venv with $("$python" --version)"
  touch "$unfinished"
  find "$venv" -mindepth 1 -maxdepth 1 ! -name '.sae-genomics-*' -exec rm -rf {} +
  "$python" -m venv "$venv" || fail "$python -m venv failed, see above; on Debian: apt install python3-venv"
fi
touch "$unfinished"
rm -f "$stamp"

say "installing ${requirements[*]} into $venv (PyTorch is large: some minutes the first time)"
arguments=()
for file in "${requirements[@]}"; do arguments+=(-r "$file"); done
if ! "$venv/bin/python" -m pip install --disable-pip-version-check "${arguments[@]}" >&2 ||
  ! "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --editable . >&2; then
  rm -f "$unfinished" # pip ended by itself: what it installed so far is whole
  fail "pip could not install, see above; the same command tries again"
fi

{
  fingerprint requirements.txt
  fingerprint "${requirements[@]}"
} >"$stamp.new"
mv "$stamp.new" "$stamp"
rm -f "$unfinished"
say "$venv is ready after $((SECONDS - started)) s"
