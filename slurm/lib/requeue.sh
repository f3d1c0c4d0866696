# shellcheck shell=bash
# Puts this job back into the queue, at most SAE_GENOMICS_MAX_REQUEUES times (Slurm counts them in SLURM_RESTART_COUNT).
# A job that somebody cancelled stays cancelled. While a job is being ended Slurm calls it COMPLETING whatever the cause;
# only the other fields tell a preemption or a time limit from a scancel. An array task is named by its index: the id of
# an array's last task is the whole array's, and scontrol would show, or requeue, all of it.

requeue() {
  local again=${go_on:-${SAE_GENOMICS_RESUBMIT:-bash slurm/resubmit_failed.sh}} count=${SLURM_RESTART_COUNT:-0} most=${SAE_GENOMICS_MAX_REQUEUES:-20} try job
  local id=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
  if ((count >= most)); then
    echo "stopped after saving for the $((count + 1)). time, the most the profile allows (max_requeues: $most); go on with $again" >&2
    return
  fi
  for try in 1 2 3 4 5; do # the controller may be restarting just now
    job=$(scontrol --oneliner show job "$id" 2>/dev/null)
    if [[ $job =~ Restarts=([0-9]+) ]] && ((BASH_REMATCH[1] > count)); then
      echo "saved; Slurm requeues it by itself: restart $((count + 1)) of at most $most" >&2
      return
    fi
    if [[ $job == *JobState=COMPLETING* && $job != *PreemptTime=[0-9]* && $job != *Reason=TimeLimit* ]] || [[ $job == *JobState=CANCELLED* ]]; then
      echo "cancelled: saved, and not requeued" >&2
      return
    fi
    if scontrol requeue "$id"; then
      echo "saved and requeued: restart $((count + 1)) of at most $most" >&2
      [[ $job == *JobState=COMPLETING* ]] || wait_for_the_end
      return
    fi
    sleep $((2 * try))
  done
  echo "saved, but scontrol requeue does not work here; go on with $again" >&2
}

# Slurm ends a running script while it requeues the job: leaving first would look like a failure, and not leaving when told
# would keep the node for KillWait, 30 s as a rule. The caller had TERM ignored until here.
wait_for_the_end() {
  trap : TERM
  sleep 60 &
  wait $!
}
