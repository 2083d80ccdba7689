#!/bin/bash
# cavity: an MPI program on 32 ranks
# Rendered by hpckit 0.1.0 for the site full; sbatch runs it as it is.
#SBATCH --job-name=cavity
#SBATCH --partition=main
#SBATCH --account=abc123
#SBATCH --qos=normal
#SBATCH --nodes=2
#SBATCH --ntasks=32
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --output=cavity-%j.out

set -eo pipefail

# What the programs find when they start.
module load gcc/13.2
module load openmpi/5.0
source /etc/profile.d/site.sh
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MKL_NUM_THREADS=1
export NUMBA_NUM_THREADS=1
export UCX_TLS=self,sm,rc
export NOTE="it's \$HOME; \`id\`"

# One program on 32 ranks. Each counts its fellows before it begins.
srun --mpi=pmix --cpus-per-task=1 /opt/env/bin/python -m hpckit exec /home/ann/jobs/cavity.py n=64
