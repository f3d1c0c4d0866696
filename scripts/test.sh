#!/usr/bin/env bash
# Sets up .venv with the development tools on first use, then formats are checked, types are checked, and tests run.
#   bash scripts/test.sh                 everything this machine can run
#   bash scripts/test.sh tests/data -x   arguments go to pytest; the linters are left out
#   bash scripts/test.sh --avx2          what depends on the CPU, as if this one had no AVX-512; more arguments go to pytest
#   bash scripts/test.sh --plain         what kernels compute, by their plain versions; more arguments go to pytest
# TEST_WORKERS=N runs N test files side by side; default: three, or one on a single core, because some wait for a scheduler.
# REQUIRE_ALL=1 makes a missing Slurm, browser or linter a failure instead of a skip.
set -euo pipefail
typed_in=$PWD
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../slurm/lib/venv.sh
source slurm/lib/venv.sh

case "${1:-}" in
-h | --help)
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
  ;;
esac

venv=${SAE_GENOMICS_VENV:-$PWD/.venv}
[[ $venv == /* ]] || venv=$typed_in/$venv
SAE_GENOMICS_VENV=$venv bash scripts/setup.sh --dev
cores=$(env -u OMP_NUM_THREADS nproc) # which counts threads where that is set
workers=${TEST_WORKERS:-$((cores < 2 ? 1 : 3))}
# Files run side by side already: more threads than cores make every small matrix product slower.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
PATH="$(venv_folder "$venv")/bin:$PATH"
export PATH

if [[ ${1:-} == --avx2 ]]; then
  shift
  if [[ $(uname -m) != x86_64 ]]; then
    echo "--avx2 is left out: this is no x86-64 processor"
    exit 0
  fi
  set -a
  # shellcheck source=avx2.env
  source scripts/avx2.env
  set +a
  (($#)) && exec python -m pytest "$@"
  python scripts/smoke_test.py
  exec python -m pytest -q -n "$workers" -m "not slow" tests/kernels tests/models tests/activations tests/sae/test_step.py tests/core/test_cpu.py
fi
if [[ ${1:-} == --plain ]]; then
  shift
  export SAE_GENOMICS_PLAIN=1
  (($#)) && exec python -m pytest "$@"
  python scripts/smoke_test.py
  exec python -m pytest -q -n "$workers" -m "not slow" tests/kernels tests/models tests/associations tests/sae/test_step.py \
    tests/validation/test_enrichment.py tests/validation/test_savage.py tests/validation/test_network.py
fi
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
exec python -m pytest -n "$workers"
