#!/bin/bash
# Experiments x folds as a Slurm array job. From the project's folder:
#
#   export DATA=/scratch/shards PRETRAIN_DATA=/scratch/prostate RUNS=/scratch/runs PYTHON=/scratch/venv/bin/python
#   mkdir -p logs
#   sbatch --array=0-119%16 --gpus-per-task=1 --cpus-per-task=4 --mem=24G --time=12:00:00 assets/cluster/slurm_array.sh
#
# 0-119 are the twelve rows of the paper in ten folds, at most sixteen at a time. task.sh says what the numbers mean and
# what else can be set. Slurm requeues a task that is preempted or loses its node. A task that reaches its time limit saves
# its state two minutes before and requeues itself. To continue a task that was killed without warning, run
# `scontrol requeue JOB_TASK` or the same sbatch line again: finished folds are skipped, others continue.
#
#SBATCH --job-name=doubleunet-bs
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=logs/%A_%a.txt

# Slurm runs a copy of this script from its spool folder.
project=${PROJECT:-$SLURM_SUBMIT_DIR}
srun bash "$project/assets/cluster/task.sh" "$SLURM_ARRAY_TASK_ID"
code=$?
if [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
    # Stopped by the signal with its state saved (130), or before anything began or by a second signal (143).
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
