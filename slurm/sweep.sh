#!/usr/bin/env bash
#SBATCH --job-name=sae-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# SAEs of a sweep, one array task each. scripts/sweep.py submits it with what the cluster profile asks for in stage train.
exec bash "${SAE_GENOMICS_ROOT:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib/stage.sh" sweep "$@"
