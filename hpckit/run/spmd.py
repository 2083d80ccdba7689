"""What a program of N ranks sees: its communicator, its results, its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpckit.run.context import stream
from hpckit.run.gpu.between import on_host, tell_of_gpu
from hpckit.run.notice import Notice, TimeIsUp
from hpckit.run.ranks import local_rank
from hpckit.store.progress import Publisher
from hpckit.store.rundir import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from hpckit.run.gpu.card import Gpu
    from hpckit.run.gpu.wish import Wish
    from hpckit.store.fields import Piece, RankFile


class Run:
    """One rank of an spmd run, as the job function gets it.

    Attributes
    ----------
    comm
        The mpi4py communicator of all ranks.
    rank, size
        This rank's number in it, and how many there are.
    params
        The values of all parameters.
    records
        Scalars by name and step, as far as they were recorded.
    has_worked
        Whether the program has saved, recorded or checkpointed anything in this session.
    left_to_root
        The fields that this rank saved whole, so that rank 0's are the ones to keep.
    """

    def __init__(
        self,
        comm: Any,
        directory: RunDir,
        params: dict[str, Any],
        seed: int,
        publisher: Publisher,
        notice: Notice,
        wish: Wish,
    ) -> None:
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.params = params
        self.records: dict[str, dict[int, float]] = {}
        self.has_worked = False
        self.left_to_root: set[str] = set()
        self._directory = directory
        self._seed = seed
        self._publisher = publisher
        self._notice = notice
        self._wish = wish
        self._file: RankFile | None = None

    @cached_property
    def local_rank(self) -> int:
        """The rank's number among those on its node; collective at its first use."""
        return local_rank(self.comm)

    @property
    def has_gpu(self) -> bool:
        """Whether the job asks for GPUs."""
        return self._wish.count > 0

    @property
    def gpu(self) -> Gpu:
        """The rank's GPU: see docs/gpu.md; collective at its first use.

        Raises
        ------
        LaunchError
            None can be had, or the job does not ask for one.
        """
        from hpckit.run.gpu.held import card_here
        from hpckit.run.gpu.wish import require

        return card_here(require(self._wish), self.local_rank)

    @cached_property
    def rng(self) -> np.random.Generator:
        """The rank's own random stream; checkpoints hold its state."""
        return stream(self._seed, self.rank)

    def save(
        self,
        name: str,
        array: ArrayLike,
        *,
        offset: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        dims: Sequence[str] | None = None,
        units: str | None = None,
        long_name: str | None = None,
    ) -> None:
        """Put this rank's block of a field into results.h5.

        Parameters
        ----------
        array
            The block; numbers or bools, on the host or on the rank's GPU.
        offset, shape
            Where it begins in the whole field, and the whole's shape. Without an offset the
            array is the whole field, and rank 0's is taken.
        dims
            A name an axis. A one-dimensional field named as its dimension is its coordinate.
        units, long_name
            Attributes that xarray puts on plots.

        Raises
        ------
        hpckit.store.pieces.FieldError
            The block does not lie inside the whole, or its type cannot be stored.
        StoreError
            The disk is full, say.
        """
        import numpy as np

        from hpckit.store.fields import Piece

        self.has_worked = True
        block = np.asarray(on_host(array))
        named = {"units": units, "long_name": long_name}
        attributes = {key: text for key, text in named.items() if text is not None}
        piece = Piece.of(name, block, offset, shape, dims, attributes, self.rank)
        if offset is None and self.rank != 0:
            self.left_to_root.add(name)
        else:
            self._rank_file().save(piece, block)

    def record(self, name: str, value: float, step: int | None = None) -> None:
        """Note a scalar; rank 0's values are kept, along the dimension ``step``.

        Parameters
        ----------
        step
            The default is one more than the last one of that name.
        """
        self.has_worked = True
        series = self.records.setdefault(name, {})
        series[next(reversed(series), -1) + 1 if step is None else int(step)] = float(value)

    def checkpoint(self, *, step: int, **values: Any) -> None:
        """Write what the program needs to go on from here; collective, and safe on return.

        If the scheduler has given notice that the time is nearly up, the program ends with it:
        the job goes back to the queue, and on from this checkpoint.

        Parameters
        ----------
        step
            A count that grows.
        values
            Arrays and scalars of this rank: numbers, bools or text; arrays may be on its GPU.

        Raises
        ------
        TypeError
            A value is of another type.
        StoreError
            On all ranks, if one cannot write; the checkpoint before stays in force.
        """
        from hpckit.run.checkpoint import Checkpoints

        self.has_worked = True
        state = {
            "rng": self.rng.bit_generator.state,
            "records": {n: list(s.items()) for n, s in self.records.items()},
        }
        held = {name: on_host(value) for name, value in values.items()}
        Checkpoints(self._directory, self.comm).write(int(step), held, state)
        tell_of_gpu()
        if self.must_stop():
            raise TimeIsUp(f"the time is nearly up: stopped at step {step}")

    def must_stop(self) -> bool:
        """Tell whether the time is nearly up, so that a checkpoint is due; collective.

        All ranks get the same answer: yes, once the scheduler has given notice to one of them.
        """
        if self._notice.signum is None:
            return False
        return bool(self.comm.allreduce(int(self._notice.has_come)))

    def restore(self) -> dict[str, Any] | None:
        """Return the last checkpoint's values and ``step``; None at a first start. Collective.

        The random stream and the records are set back to where they stood.
        """
        from hpckit.run.checkpoint import Checkpoints

        found = Checkpoints(self._directory, self.comm).read()
        if found is None:
            return None
        values, state = found
        self.rng.bit_generator.state = state["rng"]
        self.records = {n: {int(k): v for k, v in s} for n, s in state["records"].items()}
        return values

    def progress(self, done: int, total: int) -> None:
        """Tell how far the program is; rank 0's word counts."""
        if self.rank == 0:
            self._publisher.publish(int(done), 0, int(total))

    def log(self, message: object) -> None:
        """Write a line to this rank's log; rank 0's are shown too."""
        print(message, flush=True)

    def seal(self) -> Mapping[str, Piece]:
        """Seal what this rank saved and return its pieces; hpckit calls it at the end."""
        if self._file is None:
            return {}
        self._file.seal()
        return self._file.pieces

    def _rank_file(self) -> RankFile:
        if self._file is None:
            from hpckit.store.fields import RankFile

            self._file = RankFile(self._directory, self.rank)
        return self._file
