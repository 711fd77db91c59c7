#!/bin/bash
# Experiments x folds as a Slurm array job. From the project's folder:
#
#   export DATA=/scratch/shards PRETRAIN_DATA=/scratch/prostate RUNS=/scratch/runs PYTHON=/scratch/venv/bin/python
#   mkdir -p logs
#   sbatch --array=0-119%16 --gpus-per-task=1 --cpus-per-task=4 --mem=24G --time=12:00:00 assets/cluster/slurm_array.sh
#
# 0-119 are the twelve rows of the paper in ten folds, at most sixteen at a time; see task.sh for what the numbers mean and
# what else can be set. A task that ends before its time, by preemption or with its node, is put in the queue again by Slurm;
# one that reaches its time limit saves its state two minutes before and queues itself. What was killed without warning
# is submitted again, `scontrol requeue JOB_TASK` or the same sbatch line: finished folds are recognised, others continue.
#
#SBATCH --job-name=doubleunet-bs
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=logs/%A_%a.txt

# The script itself runs from a copy in Slurm's spool folder.
project=${PROJECT:-$SLURM_SUBMIT_DIR}
srun bash "$project/assets/cluster/task.sh" "$SLURM_ARRAY_TASK_ID"
code=$?
if [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
    # Stopped by the signal, with its state saved; 143: before anything was begun, or by a second signal.
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
