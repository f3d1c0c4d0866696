#!/usr/bin/env bash
# What is done, running, queued and failed, and the command to type next.
#   bash slurm/status.sh [CONFIG] [--watch] [--json] [--set SECTION.KEY=VALUE]
set -euo pipefail
# shellcheck source=lib/command.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/command.sh"
run_command status "$@"
