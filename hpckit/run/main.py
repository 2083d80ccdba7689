"""One rank of an spmd run, from its start to its end."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hpckit.errors import HpckitError
from hpckit.run.logs import capture_descriptors
from hpckit.run.ranks import NTASKS_VARIABLE, end_mpi, library_version, start_mpi
from hpckit.run.spmd import Run as RankContext
from hpckit.run.usage import usage
from hpckit.store import create
from hpckit.store import manifest as manifests
from hpckit.store.create import Run
from hpckit.store.failure import Failure, read_failure
from hpckit.store.logs import BoundedLog
from hpckit.store.manifest import State
from hpckit.store.progress import Publisher, Report, silent
from hpckit.store.rundir import RunDir


def run_rank(open_run: Callable[[], Run], report: Report = silent) -> RunDir:
    """Run the job function as one rank of those that were launched with it.

    Parameters
    ----------
    open_run
        Makes or reopens the run; called on rank 0 alone, the others open what it made.

    Returns
    -------
    RunDir
        Where the results are. A rank that fails does not return: it ends all ranks.
    """
    begun = time.monotonic()
    world = start_mpi()
    directory: RunDir | None = None
    terminal = os.dup(2)
    try:
        run = _shared(open_run, world)
        directory = run.dir
        # Rank 0 still speaks to the terminal.
        forward = os.dup(1) if world.Get_rank() == 0 else None
        capture_descriptors(rank_log(directory, world.Get_rank()), forward)
        context = RankContext(
            world,
            directory,
            run.sweep[0],
            run.manifest.job.seed,
            Publisher(directory.progress, report),
        )
        body: Any = run.job.body
        body(context, **context.params)
        _finish(run, context, begun)
    except BaseException as error:
        _fail(world, directory, error, terminal)
    sys.stdout.flush()
    end_mpi()
    return directory


def _shared(open_run: Callable[[], Run], world: Any) -> Run:
    """Open the run on rank 0 first: it may have to be made."""
    run = None
    told: str | HpckitError = ""
    if world.Get_rank() == 0:
        try:
            run = open_run()
            told = str(run.dir.path)
        except HpckitError as error:
            told = error
    told = world.bcast(told, root=0)
    if isinstance(told, HpckitError):
        raise told
    return run or create.reopen(RunDir(Path(told)))


def rank_log(directory: RunDir, rank: int) -> BoundedLog:
    """Return the log of a rank."""
    return BoundedLog(directory.log(f"rank-{rank:05d}"))


def _finish(run: Run, context: RankContext, begun: float) -> None:
    """Seal all ranks' fields, then let rank 0 put results.h5 together."""
    pieces = context.comm.gather(list(context.seal().values()), root=0)
    if context.rank == 0:
        from hpckit.store.fields import assemble_fields

        environment = {**run.manifest.environment, "mpi": library_version()}
        final = manifests.read(run.dir.manifest).updated(
            state=State.COMPLETED,
            driver=None,
            ranks=context.size,
            finished=manifests.now(),
            seconds=run.manifest.seconds + time.monotonic() - begun,
            counts={"done": 1},
            usage=usage(),
            environment=environment,
        )
        every = [piece for rank in pieces for piece in rank]
        assemble_fields(run.dir, every, context.records, context.params, final.to_json())
        final.write(run.dir.manifest)
        run.dir.progress.unlink(missing_ok=True)
        shutil.rmtree(run.dir.checkpoint, ignore_errors=True)
    context.comm.Barrier()


def _fail(world: Any, directory: RunDir | None, error: BaseException, terminal: int) -> NoReturn:
    """Say why, and end all ranks: the others may wait for this one for ever."""
    known = isinstance(error, HpckitError)
    text = f"hpckit: {error}" if known else _own_traceback(error)
    code = error.exit_code if isinstance(error, HpckitError) else 1
    left = None
    if directory is not None:
        Failure(world.Get_rank(), text, code).leave(directory.failure)
        rank_log(directory, world.Get_rank()).write(f"{text}\n".encode())
        left = read_failure(directory.failure)
    if left is None or NTASKS_VARIABLE not in os.environ:
        # Nobody shows the failure after all that the ranks print.
        os.write(terminal, f"{text}\n".encode(errors="replace"))
    # The pump of this rank's output is a thread, and Abort leaves it no time.
    time.sleep(0.1)
    if world.Get_size() > 1:
        world.Abort(code)
    os._exit(code)


def _own_traceback(error: BaseException) -> str:
    """Return the traceback from the job's own first frame on."""
    trace = error.__traceback__
    own = str(Path(__file__).parent)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
