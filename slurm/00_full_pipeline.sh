#!/usr/bin/env bash
# The whole pipeline: every task that is not done is submitted to Slurm in dependent job arrays where sbatch is at hand,
# and runs on this machine, in the same order, where it is not. Typing it again goes on where it stopped.
#   bash slurm/00_full_pipeline.sh [CONFIG] [--dry-run] [--local | --slurm] [--from STAGE] [--set SECTION.KEY=VALUE]
# CONFIG defaults to configs/demo.yaml; --help tells the rest. .venv is set up on first use (see scripts/setup.sh).
set -euo pipefail
# shellcheck source=lib/command.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/command.sh"
run_command pipeline "$@"
