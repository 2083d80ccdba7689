#!/bin/bash
# cavity: an MPI program on 4 ranks
# Rendered by hpckit 0.1.0 for the site plain; sbatch runs it as it is.
#SBATCH --job-name=cavity
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=cavity-%j.out

set -eo pipefail

# What the programs find when they start.
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MKL_NUM_THREADS=1
export NUMBA_NUM_THREADS=1

# One program on 4 ranks. Each counts its fellows before it begins.
srun --cpus-per-task=1 /opt/env/bin/python -m hpckit exec /home/ann/jobs/cavity.py n=64
