# shellcheck shell=bash
# Sets the array `python`: how to start Python on a compute node. The cluster profile chooses, through variables that the
# submitter sets; without any, the repository's .venv is used.
#   SAE_GENOMICS_ENVIRONMENT   venv (default) | conda | modules | apptainer
#   SAE_GENOMICS_MODULES       modules to load first, separated by spaces, whatever the environment
#   SAE_GENOMICS_VENV          the venv's folder                  (venv; default: .venv of the repository)
#   SAE_GENOMICS_CONDA         a conda environment, name or folder (conda)
#   SAE_GENOMICS_PYTHON        the interpreter                    (venv; modules, apptainer: default python3)
#   SAE_GENOMICS_IMAGE         the .sif file                      (apptainer)
#   SAE_GENOMICS_BINDS         extra binds, separated by commas   (apptainer)
#   SAE_GENOMICS_NV            1 for --nv                         (apptainer)
# Expects `root`, the repository. Ends the script with exit code 2 and one line when the environment is not there.

no_environment() {
  echo "error: on $(hostname): $*; see the environment section of the cluster profile" >&2
  exit 2
}

if [[ -n ${SAE_GENOMICS_MODULES:-} ]]; then
  # `module` is a shell function that only login shells have everywhere.
  for init in "${LMOD_PKG:-/nonexistent}/init/bash" "${MODULESHOME:-/nonexistent}/init/bash" \
    /etc/profile.d/lmod.sh /etc/profile.d/modules.sh /usr/share/lmod/lmod/init/bash /usr/share/modules/init/bash; do
    type module >/dev/null 2>&1 && break
    # shellcheck disable=SC1090
    [[ -r $init ]] && source "$init"
  done
  type module >/dev/null 2>&1 || no_environment "modules are wanted ($SAE_GENOMICS_MODULES) but there is no module command"
  for each in $SAE_GENOMICS_MODULES; do
    module load "$each" || no_environment "module load $each failed"
  done
fi

case "${SAE_GENOMICS_ENVIRONMENT:-venv}" in
venv)
  # shellcheck source=venv.sh
  source "${root:?}/slurm/lib/venv.sh"
  python=("${SAE_GENOMICS_PYTHON:-$(venv_folder "${SAE_GENOMICS_VENV:-$root/.venv}")/bin/python}")
  type -P "${python[0]}" >/dev/null || no_environment "no Python in ${python[0]%/bin/python}: make it with bash scripts/setup.sh, on a file system that compute nodes see"
  ;;
conda)
  environment=${SAE_GENOMICS_CONDA:-}
  [[ -n $environment ]] || no_environment "environment conda names no conda environment"
  conda=${CONDA_EXE:-$(type -P conda || true)}
  if [[ -x $conda ]]; then
    # Activated, not `conda run`: that wrapper does not pass signals on.
    set +u
    # shellcheck disable=SC1091
    source "$("$conda" info --base)/etc/profile.d/conda.sh"
    conda activate "$environment" || no_environment "conda activate $environment failed"
    set -u
    python=("$CONDA_PREFIX/bin/python")
  else
    [[ -x $environment/bin/python ]] || no_environment "conda was not found; load its module (modules:) or give the environment's folder"
    python=("$environment/bin/python")
  fi
  ;;
modules)
  python=("${SAE_GENOMICS_PYTHON:-python3}")
  type -P "${python[0]}" >/dev/null || no_environment "${python[0]} was not found after loading ${SAE_GENOMICS_MODULES:-no modules}"
  ;;
apptainer)
  container=$(type -P apptainer || type -P singularity || true)
  [[ -n $container ]] || no_environment "neither apptainer nor singularity was found"
  [[ -r ${SAE_GENOMICS_IMAGE:-} ]] || no_environment "no image at ${SAE_GENOMICS_IMAGE:-(none given)}"
  # A path with a comma cannot be bound; the repository and the working folder come along wherever they are.
  python=("$container" exec --bind "$root" --bind "$PWD" --pwd "$PWD")
  [[ -n ${SAE_GENOMICS_BINDS:-} ]] && python+=(--bind "$SAE_GENOMICS_BINDS")
  [[ ${SAE_GENOMICS_NV:-} == 1 ]] && python+=(--nv)
  python+=("$SAE_GENOMICS_IMAGE" "${SAE_GENOMICS_PYTHON:-python3}")
  ;;
*) no_environment "no environment called $SAE_GENOMICS_ENVIRONMENT" ;;
esac

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# PyTorch and BLAS take the cores that the job was given, not those that the node has.
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-${OMP_NUM_THREADS:-1}}"
