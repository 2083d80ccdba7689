"""From a reference to a loaded job: find the file, execute or read it, and take the job out."""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from hpckit.errors import HpckitError, SpecError, UsageError
from hpckit.spec.command import Command
from hpckit.spec.job import Job
from hpckit.spec.messages import listed, one_line, shown, suggestion
from hpckit.spec.toml import command_job

SUFFIXES = (".py", ".toml")
PACKAGE = "hpckit.jobs"


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job and the file it came from.

    Attributes
    ----------
    job
        The job itself.
    source
        Absolute path of the file that the user named.
    text
        What stood in it, line ends included.
    sha256
        Hex digest of the text in UTF-8.
    """

    job: Job
    source: Path
    text: str
    sha256: str

    def with_gpus(self, gpus_per_task: int | None) -> LoadedJob:
        """Return the job with another number of GPUs a task, if one is given."""
        if gpus_per_task is None:
            return self
        asked = self.job.resources.updated(gpus_per_task=gpus_per_task, ntasks_per_gpu=None)
        return replace(self, job=self.job.on(asked))


def load_job(ref: str) -> LoadedJob:
    """Load a job by the path of its file, or by its name.

    Parameters
    ----------
    ref
        A path; or a name, looked up as ``NAME.py`` and ``NAME.toml`` in the current directory, in
        ``jobs`` below it, and among the jobs that come with hpckit.

    Raises
    ------
    UsageError
        If there is no such file.
    SpecError
        If the file does not make exactly one job.
    """
    try:
        found = _found(ref)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{shown(ref)} cannot be a job file: {why}") from None
    return load_file(found)


def load_file(path: Path, source: Path | None = None) -> LoadedJob:
    """Load a job from a file, as if it stood somewhere else.

    Parameters
    ----------
    path
        What is read, such as a run's copy of the job file.
    source
        Where it came from: ``__file__``, tracebacks and imports of sibling modules are those of
        this path. None stands for `path` itself.

    Raises
    ------
    UsageError
        If the file cannot be read.
    SpecError
        If it does not import, or has no job or several; with its own line number.
    """
    path = Path(path)
    source = (path if source is None else Path(source)).absolute()
    data = _read(path)
    text = data.decode()
    if source.suffix == ".toml":
        job = command_job(text, source)
    elif source.suffix == ".py":
        job = _only_job(_execute(data, source), source)
    else:
        raise SpecError(
            f"a job file ends in {listed(SUFFIXES, 'or')}, not in {source.suffix!r}", file=source
        )
    return LoadedJob(job, source, text, hashlib.sha256(data).hexdigest())


def _found(ref: str) -> Path:
    path = Path(ref).expanduser()
    if path.is_file():
        return path
    if path.name != ref or path.suffix in SUFFIXES:
        raise UsageError(_no_file(path))
    return _named(ref)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(_no_file(path)) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError("is not UTF-8 text; save it as UTF-8", file=path, line=line) from None
    return data


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path}: is a directory; name the job file in it ({listed(SUFFIXES, 'or')})"
    near = [str(file) for folder in (path.parent, Path("jobs")) for file in _job_files(folder)]
    return f"{path}: no such job file" + suggestion(str(path), near)


def _named(name: str) -> Path:
    for folder in _folders():
        found = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
        found = [path for path in found if path.is_file()]
        if len(found) == 2:
            raise UsageError(f"{name}: both {found[0]} and {found[1]} are there; name one of them")
        if found:
            return found[0]
    shelves = [folder for folder in _folders() if folder != Path()]
    known = sorted({path.stem for folder in shelves for path in _job_files(folder)})
    raise UsageError(
        f"no job {name!r}: neither {name}.py nor {name}.toml is in ., in ./jobs or among hpckit's"
        f" own jobs; there are {listed(known) if known else 'none'}{suggestion(name, known)}"
    )


def _folders() -> Iterator[Path]:
    yield Path()
    yield Path("jobs")
    spec = importlib.util.find_spec(PACKAGE)
    yield from map(Path, (spec and spec.submodule_search_locations) or ())


def _job_files(folder: Path) -> Iterator[Path]:
    for suffix in SUFFIXES:
        yield from (p for p in folder.glob(f"*{suffix}") if not p.name.startswith(("_", ".")))


def _execute(data: bytes, source: Path) -> ModuleType:
    module = ModuleType(f"hpckit_job_{source.stem}")
    module.__file__ = str(source)
    lines = data.decode().splitlines(keepends=True)
    # With no time of change, linecache shows the text that ran, even where the file has changed.
    linecache.cache[str(source)] = (len(data), None, lines, str(source))
    if sys.path[:1] != [str(source.parent)]:
        sys.path.insert(0, str(source.parent))
    with _registered(module), _own_line(source):
        exec(compile(data, str(source), "exec", dont_inherit=True), vars(module))
    return module


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """Keep the module in `sys.modules`, where dataclasses look for it, unless it fails."""
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield
    except BaseException:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        raise


@contextmanager
def _own_line(source: Path) -> Iterator[None]:
    """Turn whatever a job file raises into one line that names the file and its own line."""
    try:
        yield
    except SpecError as error:
        if error.file is not None:
            raise
        line, _ = _lines(error, source)
        raise SpecError(error.problem, key=error.key, file=source, line=line) from None
    except HpckitError as error:
        line, _ = _lines(error, source)
        raise SpecError(str(error), file=source, line=line) from error
    except (Exception, SystemExit) as error:
        line, elsewhere = _lines(error, source)
        problem = f"does not import: {_reason(error)}{elsewhere}"
        raise SpecError(problem, file=source, line=line) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return one_line(error)


def _lines(error: BaseException, source: Path) -> tuple[int | None, str]:
    """Find the deepest line within the job file, and where the error arose if deeper than that."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(frame.filename, frame.lineno) for frame in frames]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    own = [index for index, (name, _) in enumerate(places) if name == str(source)]
    if not own:
        return None, ""
    deepest, last = places[own[-1]][1], places[-1]
    in_a_file = own[-1] < len(places) - 1 and Path(last[0]).is_absolute()
    return deepest, f" (at {last[0]}:{last[1]})" if in_a_file else ""


def _only_job(module: ModuleType, source: Path) -> Job:
    jobs = list({id(v): v for v in vars(module).values() if isinstance(v, Job)}.values())
    # A job imported from another file is not this file's, unless it has no other.
    jobs = [job for job in jobs if _made_in(job, module)] or jobs
    if not jobs:
        raise SpecError(
            "no job in it; put @farm or @spmd (from hpckit) before one function", file=source
        )
    if len(jobs) > 1:
        names = listed(f"{job.name!r}" for job in jobs)
        raise SpecError(f"{len(jobs)} jobs in it, {names}; keep one a file", file=source)
    return jobs[0]


def _made_in(job: Job, module: ModuleType) -> bool:
    body = job.body
    return not isinstance(body, Command) and body.__module__ == module.__name__
