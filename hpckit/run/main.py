"""One rank of an spmd run, from its start to its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from hpckit.errors import HpckitError, Interrupted, StoreError
from hpckit.run.gpu.between import tell_of_gpu
from hpckit.run.gpu.wish import Wish
from hpckit.run.logs import capture_descriptors
from hpckit.run.notice import Notice, TimeIsUp
from hpckit.run.ranks import end_mpi, library_version, start_mpi
from hpckit.run.spmd import Run as RankContext
from hpckit.run.tracebacks import own_traceback
from hpckit.run.usage import usage
from hpckit.store import create
from hpckit.store import manifest as manifests
from hpckit.store.create import Run
from hpckit.store.failure import Failure, read_failure
from hpckit.store.gpus import accounts, remove_accounts
from hpckit.store.lock import join_ranks
from hpckit.store.logs import BoundedLog
from hpckit.store.manifest import Manifest, State
from hpckit.store.progress import Publisher, Report, silent
from hpckit.store.provenance import software_inside
from hpckit.store.rundir import RunDir
from hpckit.variables import DRIVER


def run_rank(open_run: Callable[[], Run], report: Report = silent) -> tuple[RunDir, int]:
    """Run the job function as one rank of those that were launched with it.

    Parameters
    ----------
    open_run
        Makes or reopens the run; called on rank 0 alone, the others open what it made.

    Returns
    -------
    RunDir
        Where the results are. A rank that fails does not return: it ends all ranks.
    int
        This rank's number.

    Raises
    ------
    TimeIsUp
        On all ranks, after a checkpoint: MPI has been ended in good order.
    """
    notice = Notice.from_environment()
    with notice.heeded():
        return _run_rank(open_run, report, notice)


def _run_rank(open_run: Callable[[], Run], report: Report, notice: Notice) -> tuple[RunDir, int]:
    begun = time.monotonic()
    world = start_mpi()
    stopped: TimeIsUp | None = None
    directory: RunDir | None = None
    context: RankContext | None = None
    terminal = os.dup(2)
    try:
        run = _shared(open_run, world)
        directory = run.dir
        # Rank 0 still speaks to the terminal, where there is one.
        speaks = world.Get_rank() == 0 and run.manifest.submission is None
        forward = os.dup(1) if speaks else None
        capture_descriptors(rank_log(directory, world.Get_rank()), forward)
        context = RankContext(
            world,
            directory,
            run.sweep[0],
            run.manifest.job.seed,
            Publisher(directory.progress, report),
            notice,
            Wish.of(run.job.resources, Path(run.manifest.job.source), run.dir),
        )
        body: Any = run.job.body
        returned = body(context, **context.params)
        if returned is not None and context.rank == 0:
            print(f"hpckit: {run.job.name} returned a value, which is not kept: use run.save")
        _finish(run, context, begun)
    except TimeIsUp as stop:
        stopped = stop
        if world.Get_rank() == 0:
            _stop(run, begun)
        world.Barrier()
    except BaseException as error:
        refused = context is None or not context.has_worked
        _fail(world, directory, _told(error, directory, refused=refused), terminal)
    sys.stdout.flush()
    rank = int(world.Get_rank())
    end_mpi()
    if stopped is not None:
        raise stopped
    assert directory is not None
    return directory, rank


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
        if world.Get_rank() != 0:
            world.Barrier()  # Rank 0 tells it, and ends all.
        raise told
    if run is not None:
        return run
    directory = RunDir(Path(told))
    join_ranks(directory)
    return create.reopen(directory)


def rank_log(directory: RunDir, rank: int) -> BoundedLog:
    """Return the log of a rank."""
    return BoundedLog(directory.log(f"rank-{rank:05d}"))


def _finish(run: Run, context: RankContext, begun: float) -> None:
    """Seal all ranks' fields, then let rank 0 put results.h5 together."""
    from hpckit.run.checkpoint import Checkpoints
    from hpckit.store.fields import assemble_fields
    from hpckit.store.parallel import is_parallel, pack_together

    tell_of_gpu()
    own = list(context.seal().values())
    pieces = context.comm.gather(own, root=0)
    left = context.comm.gather(context.left_to_root, root=0)
    if context.rank == 0:
        final = _final(run, context, begun)
        _require_root_saved(left, {piece.name for piece in own})
        every = [piece for rank in pieces for piece in rank]
        assemble_fields(run.dir, every, context.records, context.params, final.to_public_json())
    if is_parallel(context.comm):
        pack_together(run.dir, context.comm, own)
    if context.rank == 0:
        final.write(run.dir.manifest)
        run.dir.progress.unlink(missing_ok=True)
        remove_accounts(run.dir.gpus)
        Checkpoints(run.dir, context.comm).remove()
    context.comm.Barrier()


def _stop(run: Run, begun: float) -> None:
    """Give the run back to the scheduler, which will go on with it."""
    manifest = manifests.read(run.dir.manifest)
    seconds = manifest.seconds + time.monotonic() - begun
    waiting = manifest.updated(state=State.SUBMITTED, driver=None, seconds=seconds)
    waiting.write(run.dir.manifest)


def _final(run: Run, context: RankContext, begun: float) -> Manifest:
    return manifests.read(run.dir.manifest).ended(
        State.COMPLETED,
        None,
        time.monotonic() - begun,
        ranks=context.size,
        counts={"done": 1},
        usage=usage(),
        gpus=[*run.manifest.gpus, *accounts(run.dir.gpus)],
        environment={
            **run.manifest.environment,
            **software_inside(),
            "mpi": library_version(),
        },
    )


def _require_root_saved(left: Sequence[set[str]], saved: set[str]) -> None:
    from hpckit.store.pieces import FieldError

    for rank, names in enumerate(left):
        for name in sorted(names - saved):
            raise FieldError(
                f"field {name!r}: rank {rank} saved it without an offset, and rank 0, whose array "
                "would be kept, did not save it: save it on rank 0, or give offset and shape"
            )


def _fail(world: Any, directory: RunDir | None, told: tuple[str, int], terminal: int) -> NoReturn:
    """Say why, and end all ranks: the others may wait for this one for ever."""
    text, code = told
    own = Failure(world.Get_rank(), text, code)
    left = None
    if directory is not None:
        own.leave(directory.failure)
        left = read_failure(directory.failure)
        rank_log(directory, own.rank).write(f"{text}\n".encode())
    if left is None or (left == own and DRIVER not in os.environ):
        # Nobody shows the failure after all that the ranks print.
        os.write(terminal, f"{text}\n".encode(errors="replace"))
        if directory is not None:
            _record_end(directory, own)
    # The pump of this rank's output is a thread, and Abort leaves it no time.
    time.sleep(0.1)
    if world.Get_size() > 1:
        world.Abort(code)
    os._exit(code)


def _told(error: BaseException, directory: RunDir | None, *, refused: bool) -> tuple[str, int]:
    """Return what to say of an error, and the exit code that it means.

    A program that refuses what it was given does so before it works.
    """
    if isinstance(error, KeyboardInterrupt):
        hint = f"; go on with: hpckit resume {directory.path}" if directory else ""
        return f"hpckit: interrupted{hint}", Interrupted.exit_code
    if not isinstance(error, HpckitError):
        return own_traceback(error), 1
    return f"hpckit: {error}", error.exit_code if refused else 1


def _record_end(directory: RunDir, failure: Failure) -> None:
    """Write how the run ended, where no other process watches it.

    A scheduler that interrupts its own job may start it again: it knows how that ended.
    """
    interrupted = failure.exit_code == Interrupted.exit_code
    if interrupted and manifests.read(directory.manifest).submission is not None:
        return
    state = State.INTERRUPTED if interrupted else State.FAILED
    reason = failure.text.splitlines()[-1].removeprefix("hpckit: ")
    with suppress(StoreError):
        ended = manifests.read(directory.manifest).ended(state, reason, 0.0)
        ended.write(directory.manifest)
