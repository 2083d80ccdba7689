#!/bin/bash
# cavity: an MPI program on 4 ranks
# Rendered by hpckit 0.1.0 for the site other; `hpckit submit` gives it to sbatch.
#SBATCH --job-name=cavity
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=/scratch/ann/runs/cavity-20260101-120000-beef/logs/slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --exclude="n[1-2],n4"
#SBATCH --exclusive
#SBATCH --constraint="a b"

set -eo pipefail

# What the programs find when they start.
export HPCKIT_WARNING=USR1@120
export HPCKIT_NTASKS=4
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MKL_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

# However it ends, its exit status is left in a file: not every cluster remembers it.
exits=/scratch/ann/runs/cavity-20260101-120000-beef/exits
trap 'echo "$?" > "$exits/$SLURM_JOB_ID"' EXIT

# Slurm sends USR1 when the time is nearly up, and hpckit hears of it: it saves what there is
# and ends with status 75. The job then goes back to the queue, and on from there.
trap 'kill -USR1 "$program" 2> /dev/null || :' USR1
# TERM comes when the job is cancelled or must make way.
trap 'kill -TERM "$program" 2> /dev/null || :' TERM
# One program on 4 ranks. Each counts its fellows before it begins.
mpiexec -n 4 /opt/env/bin/python -m hpckit exec /scratch/ann/runs/cavity-20260101-120000-beef --session 1 &
program=$!
# A signal ends a wait, but not what is waited for.
until wait "$program"; ! kill -0 "$program" 2> /dev/null; do :; done
wait "$program" || status=$?
if [ "${status:-0}" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
    scontrol requeue "$SLURM_JOB_ID" || :
fi
exit "${status:-0}"
