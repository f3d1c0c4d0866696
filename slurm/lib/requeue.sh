# shellcheck shell=bash
# Puts this job back into the queue, at most SAE_GENOMICS_MAX_REQUEUES times (Slurm counts them in SLURM_RESTART_COUNT).

requeue() {
  local count=${SLURM_RESTART_COUNT:-0} most=${SAE_GENOMICS_MAX_REQUEUES:-20} try state
  if ((count >= most)); then
    echo "stopped after saving for the $((count + 1))th time, the most the profile allows (max_requeues: $most); go on with bash slurm/resubmit_failed.sh" >&2
    return
  fi
  for try in 1 2 3 4 5; do # the controller may be restarting just now
    state=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null)
    if [[ $state == *JobState=CANCELLED* ]]; then
      echo "cancelled: saved, and not requeued" >&2
      return
    fi
    if scontrol requeue "$SLURM_JOB_ID"; then
      echo "saved and requeued: restart $((count + 1)) of at most $most" >&2
      sleep 60 # Slurm ends this script while it requeues the job; leaving first would look like a failure
      return
    fi
    sleep $((2 * try))
  done
  echo "saved, but scontrol requeue does not answer; go on with bash slurm/resubmit_failed.sh" >&2
}
