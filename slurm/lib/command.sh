# shellcheck shell=bash
# For the commands a person types: an environment to run them in, made on first use, and CONFIG as they meant it.

repository=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=venv.sh
source "$repository/slurm/lib/venv.sh"

# SAE_GENOMICS_PYTHON names a Python that has the package already (a conda environment, say); then no .venv is made.
run_command() {
  local command=$1 python=${SAE_GENOMICS_PYTHON:-} argument arguments=()
  shift
  if [[ -n ${SAE_GENOMICS_VENV:-} && $SAE_GENOMICS_VENV != /* ]]; then export SAE_GENOMICS_VENV=$PWD/$SAE_GENOMICS_VENV; fi
  if [[ -z $python ]]; then
    bash "$repository/scripts/setup.sh" "$(setup_option "$command" "$@")"
    python=$(venv_folder "${SAE_GENOMICS_VENV:-$repository/.venv}")/bin/python
  fi
  # Relative paths count from where they were typed; everything else counts from the repository.
  for argument in "$@"; do
    if [[ $argument != -* && $argument != /* && -f $argument ]]; then argument=$PWD/$argument; fi
    arguments+=("$argument")
  done
  cd "$repository" || return
  exec "$python" -m sae_genomics.cli "$command" ${arguments[@]+"${arguments[@]}"}
}

# A command that only looks never builds an environment where there is one.
setup_option() {
  local word
  for word in "$@"; do
    case $word in status | -h | --help | --dry-run) echo --if-missing && return ;; esac
  done
}
