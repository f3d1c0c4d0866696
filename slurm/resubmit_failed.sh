#!/usr/bin/env bash
# Submits failed and missing tasks again, and dependent tasks; nothing else.
#   bash slurm/resubmit_failed.sh [CONFIG] [--stage STAGE] [--only-oom] [--mem 64G] [--time 12:00:00] [--dry-run]
set -euo pipefail
# shellcheck source=lib/command.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/command.sh"
run_command resubmit "$@"
