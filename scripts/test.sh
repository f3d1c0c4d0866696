#!/usr/bin/env bash
# Sets up .venv with the development tools on first use, then formats are checked, types are checked, and tests run.
#   bash scripts/test.sh                 everything this machine can run
#   bash scripts/test.sh tests/data -x   arguments go to pytest; the linters are left out
# REQUIRE_ALL=1 makes a missing Slurm, browser or linter a failure instead of a skip.
set -euo pipefail
typed_in=$PWD
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../slurm/lib/venv.sh
source slurm/lib/venv.sh

case "${1:-}" in
-h | --help)
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
  ;;
esac

venv=${SAE_GENOMICS_VENV:-$PWD/.venv}
[[ $venv == /* ]] || venv=$typed_in/$venv
SAE_GENOMICS_VENV=$venv bash scripts/setup.sh --dev
# Two cores and several worker processes: oversubscribed threads make every small matrix product slower.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" TOKENIZERS_PARALLELISM=false
PATH="$(venv_folder "$venv")/bin:$PATH"
export PATH

if (($#)); then
  exec python -m pytest "$@"
fi
ruff format --check .
ruff check .
mypy
if command -v shellcheck >/dev/null; then
  git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck --external-sources --source-path=SCRIPTDIR
elif [[ -n "${REQUIRE_ALL:-}" ]]; then
  echo "shellcheck is required (REQUIRE_ALL=1) and not installed" >&2
  exit 1
fi
exec python -m pytest
