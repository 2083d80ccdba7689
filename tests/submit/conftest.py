"""Tests of submission use the fake Slurm, which needs no root."""

from fakes.fixtures import *  # noqa: F403
