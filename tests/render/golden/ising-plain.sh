#!/bin/bash
# ising: a farm of 21 tasks
# Rendered by hpckit 0.1.0 for the site plain; sbatch runs it as it is.
#SBATCH --job-name=ising
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=500M
#SBATCH --time=00:30:00
#SBATCH --output=ising-%j.out

set -eo pipefail

# All tasks in this one allocation, 1 at a time.
/opt/env/bin/python -m hpckit run /home/ann/jobs/ising.py "T=linspace(1.5,3.5,21)" --workers 1
