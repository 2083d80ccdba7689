"""Runs made by the store alone, so that these tests need neither workers nor MPI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hpckit.cli.main import cli
from hpckit.spec.load import load_file
from hpckit.spec.sweep import Sweep
from hpckit.store import manifest as manifests
from hpckit.store.block import make_block
from hpckit.store.columns import storable
from hpckit.store.create import create
from hpckit.store.fields import Piece, RankFile, assemble_fields
from hpckit.store.manifest import State
from hpckit.store.results import assemble
from hpckit.store.segments import SegmentWriter

FARM = '''
from hpckit import farm

@farm(attrs={"energy": {"units": "J"}})
def walk(task, T: float = 1.0, L: int = 8, name: str = "x"):
    """Walk."""
'''

SPMD = '''
from hpckit import spmd

@spmd(ntasks=2)
def flow(run, n: int = 4):
    """Flow."""
'''


@pytest.fixture
def hpckit(tmp_path):
    """Call a command on the runs under tmp_path, on a terminal of some width."""

    def call(*arguments: object, columns: int = 200):
        env = {"COLUMNS": str(columns), "HPCKIT_RUNS": str(tmp_path / "runs"), "TZ": "UTC"}
        return CliRunner(env=env).invoke(cli, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def new_run(tmp_path):
    """Make a run directory from the text of a job file."""

    def new(text: str, arguments: list[str], seed: int | None = None):
        job = tmp_path / "job.py"
        job.write_text(text)
        loaded = load_file(job)
        sweep = Sweep.from_args(loaded.job, arguments)
        return create(loaded, sweep, root=tmp_path / "runs", argv=["run", "job.py"], seed=seed)

    return new


@pytest.fixture
def make_farm(new_run):
    """Make a farm's run whose task i gave outcomes[i]: fields, an error's text, or None: missing.

    It has results.h5 unless tasks are missing.
    """

    def make(outcomes, *arguments: str, text: str = FARM, seed: int | None = None):
        run = new_run(text, list(arguments), seed)
        assert len(run.sweep) == len(outcomes)
        known = [index for index, outcome in enumerate(outcomes) if outcome is not None]
        results, errors = [], {}
        for position, index in enumerate(known):
            failed = isinstance(outcomes[index], str)
            if failed:
                errors[position] = outcomes[index]
            results.append(
                None if failed else {k: storable(k, v) for k, v in outcomes[index].items()}
            )
        times = np.full(len(known), 0.5)
        SegmentWriter(run.dir.segments).seal([make_block(known, results, errors, times, times, 7)])
        return _ended(run, len(known), len(errors), len(known) < len(outcomes))

    return make


@pytest.fixture
def make_fields(new_run):
    """Make an spmd run that saved fields, a name to an array and its dims, and recorded scalars."""

    def make(fields, records=None, *arguments: str, seed: int | None = None):
        run = new_run(SPMD, list(arguments), seed)
        file = RankFile(run.dir, 0)
        for name, (array, dims) in fields.items():
            array = np.asarray(array)
            units = {"units": "m"} if name == "u" else {}
            file.save(Piece.of(name, array, None, None, dims, units, 0), array)
        file.seal()
        final = _final(run.manifest, State.COMPLETED, ranks=2)
        pieces = list(file.pieces.values())
        assemble_fields(run.dir, pieces, records or {}, run.sweep[0], final.to_json())
        final.write(run.dir.manifest)
        return run.dir

    return make


def _ended(run, known, failed, missing):
    if missing:
        final = _final(run.manifest, State.INTERRUPTED, reason="interrupted")
    else:
        state = State.FAILED if failed else State.COMPLETED
        reason = f"{failed} of {known} tasks failed" if failed else None
        counts = {"done": known - failed, "failed": failed, "missing": 0}
        final = _final(run.manifest, state, reason=reason, counts=counts)
        assemble(run.dir, run.sweep, final.to_json(), run.job.attrs)
    final.write(run.dir.manifest)
    return run.dir


def _final(manifest, state, **changes):
    return manifest.updated(
        state=state,
        driver=None,
        engine=None if "ranks" in changes else "serial",
        workers=None if "ranks" in changes else 1,
        finished=manifests.now(),
        seconds=1.25,
        **changes,
    )


def tracebacks(message: str) -> str:
    """Return a traceback as a task leaves it."""
    return (
        "Traceback (most recent call last):\n"
        f'  File "{Path("job.py")}", line 6, in walk\n'
        "    raise ValueError(message)\n"
        f"ValueError: {message}"
    )


@pytest.fixture
def traceback_of():
    return tracebacks
