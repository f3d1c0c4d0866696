#!/usr/bin/env bash
#SBATCH --job-name=sae-stage
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Any stage by its name, for those that have no script of their own: slurm/00_full_pipeline.sh submits it; by hand, from the repository:
#   sbatch slurm/stage.sh STAGE configs/demo.yaml        or, as an array: sbatch --array=0-3 slurm/stage.sh STAGE configs/demo.yaml
exec bash "${SAE_GENOMICS_ROOT:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib/stage.sh" "$@"
