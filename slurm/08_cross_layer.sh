#!/usr/bin/env bash
#SBATCH --job-name=sae-cross_layer
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Stage 08. slurm/00_full_pipeline.sh submits it with what the cluster profile asks for; by hand, from the repository:
#   sbatch slurm/08_cross_layer.sh configs/demo.yaml        or, as an array: sbatch --array=0-3 slurm/08_cross_layer.sh configs/demo.yaml
exec bash "${SAE_GENOMICS_ROOT:-${SLURM_SUBMIT_DIR:-.}}/slurm/lib/stage.sh" cross_layer "$@"
