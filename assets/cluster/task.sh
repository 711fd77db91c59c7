#!/bin/bash
# One task of an array: trains one fold of one experiment, or continues it.
#
#   task.sh INDEX        INDEX 0 ... experiments x folds - 1 (default: JOB_COMPLETION_INDEX of Kubernetes)
#
# The first tasks are fold 1 of every experiment, the next are fold 2, and so on: a pre-training is usually done before
# the second fold needs it. A task that comes earlier waits. The folds of a run share one pre-training.
#
#   DATA           shards of the cohort (required)
#   RUNS           folder for the runs, one per experiment, on a file system that all tasks share (required)
#   PRETRAIN_DATA  shards of the other cohort; required for rows with transfer, or with --set transfer=yes in OPTIONS
#   EXPERIMENTS    names separated by spaces (default: the twelve rows of the paper)
#   FOLDS          number of folds (default 10)
#   OPTIONS        more options of `doubleunet-bs train`, such as "--precision auto"
#   PYTHON         Python with this package installed (default python)
set -eu

index=${1:-${JOB_COMPLETION_INDEX:?task.sh: the task number is missing}}
folds=${FOLDS:-10}
default="baseline dice dice-otsu dice-otsu-transfer dice-mining dice-mining-transfer focal-tversky focal-tversky-otsu"
default="$default focal-tversky-otsu-transfer focal-tversky-mining focal-tversky-mining-transfer"
default="$default focal-tversky-otsu-transfer-augmented"
read -ra experiments <<< "${EXPERIMENTS:-$default}"
read -ra options <<< "${OPTIONS:-}"

# 10#: a number with a leading zero is not octal.
if ! [[ $index =~ ^[0-9]+$ ]] || ((index = 10#$index, index >= ${#experiments[@]} * folds)); then
    echo "task.sh: task $index does not exist: give 0 to $((${#experiments[@]} * folds - 1))" >&2
    exit 2
fi
experiment=${experiments[index % ${#experiments[@]}]}
fold=$((index / ${#experiments[@]} + 1))
transfer=no
[[ $experiment != *-transfer* ]] || transfer=yes
# `--set transfer=...` in OPTIONS changes that.
[[ ! ${OPTIONS:-} =~ transfer=(yes|no) ]] || transfer=${BASH_REMATCH[1]}
if [[ $transfer == yes ]]; then
    options+=(--pretrain-data "${PRETRAIN_DATA:?task.sh: $experiment needs PRETRAIN_DATA}")
fi

# A task that was stopped continues its fold. `--resume` refuses one that has not begun.
if [[ -n $(ls -A "${RUNS:?}/$experiment/$(printf fold_%02d "$fold")" 2> /dev/null) ]]; then
    options+=(--resume)
fi

echo "task $index: $experiment, fold $fold"
exec "${PYTHON:-python}" -m doubleunet_bs train --data "${DATA:?}" --run "${RUNS:?}/$experiment" --experiment "$experiment" \
    --fold "$fold" --folds "$folds" "${options[@]}"
