#!/bin/bash
# cavity: an MPI program on 4 ranks
# Rendered by hpckit 0.1.0 for the site other; sbatch runs it as it is.
#SBATCH --job-name=cavity
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --output=cavity-%j.out

set -eo pipefail

# What the programs find when they start.
export OMP_NUM_THREADS=2
export OPENBLAS_NUM_THREADS=2
export MKL_NUM_THREADS=2
export NUMBA_NUM_THREADS=2

# One program on 4 ranks. Each counts its fellows before it begins.
mpiexec -n 4 /opt/env/bin/python -m hpckit exec /home/ann/jobs/cavity.py
