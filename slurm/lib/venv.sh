# shellcheck shell=bash
# Where an environment that scripts/setup.sh made really is.

# venv_folder FOLDER prints the version that FOLDER/current names today, and FOLDER itself where it is a plain environment.
# What is started from the version's own folder goes on importing from there when setup.sh makes another version current.
venv_folder() {
  if [[ -f $1/current/.sae-genomics-complete ]]; then (cd -P "$1/current" && pwd); else printf '%s\n' "$1"; fi
}
