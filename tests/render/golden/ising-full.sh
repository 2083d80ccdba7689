#!/bin/bash
# ising: a farm of 21 tasks
# Rendered by hpckit 0.1.0 for the site full; sbatch runs it as it is.
#SBATCH --job-name=ising
#SBATCH --partition=main
#SBATCH --account=abc123
#SBATCH --qos=normal
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=8000M
#SBATCH --time=00:30:00
#SBATCH --output=ising-%j.out

set -eo pipefail

# What the programs find when they start.
module load gcc/13.2
module load openmpi/5.0
source /etc/profile.d/site.sh
export UCX_TLS=self,sm,rc
export NOTE="it's \$HOME; \`id\`"

# All tasks in this one allocation, 16 at a time.
/opt/env/bin/python -m hpckit run /home/ann/jobs/ising.py "T=linspace(1.5,3.5,21)" --workers 16
