#!/usr/bin/env bash
# What every batch script turns into: bash slurm/lib/stage.sh STAGE CONFIG [arguments of sae_genomics.cluster.worker],
# and bash slurm/lib/stage.sh sweep FILE for the SAEs of a sweep.
# Starts Python in the profile's environment, passes on the signals that Slurm sends before it ends a job (USR1 before
# the time limit, TERM at preemption), and requeues the job when the stage has saved its work and left with exit code 75.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
stage=$1
shift
# shellcheck source=environment.sh
source "$root/slurm/lib/environment.sh"

program=(sae_genomics.cluster.worker "$stage")
if [[ $stage == sweep ]]; then
  program=(sae_genomics.cluster.sweep_worker)
  # shellcheck disable=SC2034 # requeue.sh prints it
  go_on="the same scripts/sweep.py command"
fi

child=""
signalled=""
asked_to_stop=""
# shellcheck disable=SC2317 # called by the trap
pass_on() {
  signalled=1
  asked_to_stop=1
  [[ -n $child ]] && kill -USR1 "$child" 2>/dev/null
}
trap pass_on USR1 TERM

"${python[@]}" -m "${program[@]}" "$@" &
child=$!
while :; do # a trap interrupts wait: only a wait without one gives the child's own exit code
  signalled=""
  wait "$child"
  code=$?
  [[ -n $signalled ]] || break
done
trap '' USR1 TERM
# A signal that came before Python could listen ended it, and may have reached it before this script: nothing was begun,
# so nothing is lost. Bash forgets the code of a child that ends in the very moment of a trap (-1, in older ones 127):
# beginning again is right then too, what is done is found done.
((code == 138 || code == 143)) && code=75
[[ -n $asked_to_stop ]] && ((code < 0 || code == 127)) && code=75

note="$(date '+%F %T') $(hostname): $stage, job ${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-none}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}, ended with exit code $code"
((code > 128)) && note+=" (signal $((code - 128)))"
echo "$note" >&2

if ((code == 75)) && [[ -n ${SLURM_JOB_ID:-} ]]; then
  # shellcheck source=requeue.sh
  source "$root/slurm/lib/requeue.sh"
  requeue
fi
exit "$code"
