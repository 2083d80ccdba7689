#!/bin/bash
# ising: 21 tasks of a farm, shared by the 5 elements of an array
# Rendered by hpckit 0.1.0 for the site plain; `hpckit submit` gives it to sbatch.
#SBATCH --job-name=ising
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=1000M
#SBATCH --time=00:30:00
#SBATCH --output=/scratch/ann/runs/ising-20260101-120000-beef/logs/slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --array=0-4%3

set -eo pipefail

# What the programs find when they start.
export HPCKIT_WARNING=USR1@120

# However it ends, its exit status is left in a file: not every cluster remembers it.
exits=/scratch/ann/runs/ising-20260101-120000-beef/exits
trap 'echo "$?" > "$exits/${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' EXIT

# Slurm sends USR1 when the time is nearly up, and hpckit hears of it: it saves what there is
# and ends with status 75. The job then goes back to the queue, and on from there.
trap 'kill -USR1 "$program" 2> /dev/null || :' USR1
# TERM comes when the job is cancelled or must make way.
trap 'kill -TERM "$program" 2> /dev/null || :' TERM
# Its share of the tasks, 2 at a time. Where there is more than one array, the script is
# given the number of the first element.
/opt/env/bin/python -m hpckit exec /scratch/ann/runs/ising-20260101-120000-beef --session 1 --workers 2 \
    --element "$((${1:-0} + SLURM_ARRAY_TASK_ID))" &
program=$!
# A signal ends a wait, but not what is waited for.
until wait "$program"; ! kill -0 "$program" 2> /dev/null; do :; done
wait "$program" || status=$?
if [ "${status:-0}" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
    scontrol requeue "$SLURM_JOB_ID" || :
fi
exit "${status:-0}"
