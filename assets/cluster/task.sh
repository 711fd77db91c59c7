#!/bin/bash
# One task of an array: one fold of one experiment, begun or continued.
#
#   task.sh INDEX        INDEX 0 ... experiments x folds - 1; without it Kubernetes' JOB_COMPLETION_INDEX
#
# The first tasks are fold 1 of every experiment, the next fold 2, and so on: a pre-training is usually done before the
# second fold asks for it. A task that comes earlier waits, and the folds share the one pre-training of their run.
#
#   DATA           shards of the cohort (needed)
#   RUNS           folder for the runs, one for each experiment, on a file system that all tasks share (needed)
#   PRETRAIN_DATA  shards of the other cohort; needed for the rows with transfer, or with --set transfer=yes in OPTIONS
#   EXPERIMENTS    names, with spaces between them; default: the twelve rows of the paper
#   FOLDS          default 10
#   OPTIONS        further options of train.py, as "--precision auto --encoder-weights vgg19.h5"
#   PYTHON         default python
set -eu

index=${1:-${JOB_COMPLETION_INDEX:?task.sh: the number of the task is missing}}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folds=${FOLDS:-10}
default="baseline dice dice-otsu dice-otsu-transfer dice-mining dice-mining-transfer focal-tversky focal-tversky-otsu"
default="$default focal-tversky-otsu-transfer focal-tversky-mining focal-tversky-mining-transfer"
default="$default focal-tversky-otsu-transfer-augmented"
read -ra experiments <<< "${EXPERIMENTS:-$default}"
read -ra options <<< "${OPTIONS:-}"

# 10#: a number that begins with a zero is not one of base 8.
if ! [[ $index =~ ^[0-9]+$ ]] || ((index = 10#$index, index >= ${#experiments[@]} * folds)); then
    echo "task.sh: there are tasks 0 to $((${#experiments[@]} * folds - 1)), not $index" >&2
    exit 2
fi
experiment=${experiments[index % ${#experiments[@]}]}
fold=$((index / ${#experiments[@]} + 1))
transfer=no
[[ $experiment != *-transfer* ]] || transfer=yes
# As `--set transfer=...` in OPTIONS changes it.
[[ ! ${OPTIONS:-} =~ transfer=(yes|no) ]] || transfer=${BASH_REMATCH[1]}
if [[ $transfer == yes ]]; then
    options+=(--pretrain-data "${PRETRAIN_DATA:?task.sh: $experiment needs PRETRAIN_DATA}")
fi

echo "task $index: $experiment, fold $fold"
exec "${PYTHON:-python}" "$project/train.py" --data "${DATA:?}" --run "${RUNS:?}/$experiment" --experiment "$experiment" \
    --fold "$fold" --folds "$folds" --resume "${options[@]}"
