# shellcheck shell=bash
# For the commands a person types: an environment to run them in, made on first use, and CONFIG as they meant it.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# SAE_GENOMICS_PYTHON names a Python that has the package already (a conda environment, say); then no .venv is made.
run_command() {
  local command=$1 python=${SAE_GENOMICS_PYTHON:-} argument arguments=()
  shift
  if [[ -z $python ]]; then
    bash "$repository/scripts/setup.sh"
    python=${SAE_GENOMICS_VENV:-$repository/.venv}/bin/python
  fi
  # Relative paths count from where they were typed; everything else counts from the repository.
  for argument in "$@"; do
    if [[ $argument != -* && $argument != /* && -f $argument ]]; then argument=$PWD/$argument; fi
    arguments+=("$argument")
  done
  cd "$repository" || return
  exec "$python" -m sae_genomics.cli "$command" ${arguments[@]+"${arguments[@]}"}
}
