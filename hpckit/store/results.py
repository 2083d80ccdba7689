"""results.h5 of a farm, put together from what was sealed.

The sources are the segments and, after a resume, an earlier results.h5. The file is written
in windows of tasks, so that memory does not grow with the farm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from hpckit.store.arrays import array_files
from hpckit.store.atomic import remove_leftovers, replacing
from hpckit.store.block import TaskState
from hpckit.store.blockfile import (
    DETAILS,
    PARAMETER_ATTRIBUTE,
    BlockFile,
    BlockWriter,
    Schema,
)
from hpckit.store.columns import Column, from_values, storable
from hpckit.store.coverage import Coverage, cover
from hpckit.store.layout import (
    TEXT_TYPE,
    attach,
    create_variable,
    is_column,
    is_reduced,
    set_attributes,
)
from hpckit.store.links import layout, references_to_link
from hpckit.store.merging import Merge
from hpckit.store.newfile import new_file
from hpckit.store.reading import reading
from hpckit.store.reduction import write_reduction
from hpckit.store.rundir import RunDir
from hpckit.store.segments import list_segments, remove, remove_half_written

WINDOW_BYTES = 32 << 20
PARAMETER_ROWS = 1 << 18
MANIFEST = "hpckit/manifest"


class Parameters(Protocol):
    """The parameter points of a farm, as `hpckit.spec.sweep.Sweep` has them."""

    def __len__(self) -> int: ...

    def columns(self, indices: range, /) -> dict[str, list[Any]]:
        """Return the values of each parameter for some tasks."""
        ...


def task_states(run: RunDir, count: int) -> NDArray[np.int8]:
    """Return the state of each of a farm's tasks as far as it is sealed; shape (count,).

    Raises
    ------
    StoreError
        A sealed file does not read back.
    """
    return cover(_sealed(run), count, run.segments).state


def assemble(
    run: RunDir,
    parameters: Parameters,
    manifest_json: str,
    attributes: Mapping[str, Mapping[str, Any]],
    merge: Merge | None = None,
) -> dict[str, int]:
    """Write results.h5 from all that is sealed, then remove the segments it replaces.

    Parameters
    ----------
    attributes
        Units, long_name and the like, by the name of a returned field or a parameter.
    merge
        Makes one result of those of all tasks.

    Returns
    -------
    dict
        How many tasks are done, failed and missing.

    Raises
    ------
    StoreError
        A sealed file does not read back, or the new one cannot be written; the segments
        stay as they are.
    ReduceError
        Results cannot be merged; the segments stay as they are.
    """
    # Only what was there before: another writer may seal more meanwhile.
    segments, arrays = list_segments(run.segments), dict(array_files(run.segments))
    coverage, linked = _write(run, parameters, manifest_json, attributes, merge)
    unused = arrays.keys() - linked
    if (coverage.state == TaskState.MISSING).any():
        unused &= coverage.array_numbers()
    remove(segments)
    for number in unused:
        arrays[number].unlink(missing_ok=True)
    remove_half_written(run.segments)
    return coverage.counts()


def show_so_far(
    run: RunDir,
    parameters: Parameters,
    manifest_json: str,
    attributes: Mapping[str, Mapping[str, Any]],
    merge: Merge | None = None,
) -> None:
    """Write results.h5 from what is sealed by now, of a run that goes on; nothing is removed.

    Raises
    ------
    StoreError, ReduceError
        As `assemble`.
    """
    _write(run, parameters, manifest_json, attributes, merge)


def _write(
    run: RunDir,
    parameters: Parameters,
    manifest_json: str,
    attributes: Mapping[str, Mapping[str, Any]],
    merge: Merge | None,
) -> tuple[Coverage, set[int]]:
    """Write results.h5; return what it was made from, and the files of arrays it links to."""
    sealed = _sealed(run)
    coverage = cover(sealed, len(parameters), run.segments)
    remove_leftovers(run.results)
    with replacing(run.results) as path, new_file(path) as file:
        linked = _write_blocks(file, coverage, parameters, run)
        _write_parameters(file, parameters)
        if merge is not None:
            write_reduction(file, sealed, coverage.state, merge, set(file))
        embed_manifest(file, manifest_json)
        there = _variables(file)
        for name, given in attributes.items():
            if name in there:
                set_attributes(file[name], given)
    return coverage, linked


def attributes_of_none(results: Path, attributes: Iterable[str]) -> list[str]:
    """Return the names that are those of no variable, though some task has returned results.

    Raises
    ------
    StoreError
        The file does not read back.
    """
    with reading(results) as file:
        if not (BlockFile(file).state == TaskState.DONE).any():
            return []
        there = _variables(file)
    return [name for name in attributes if name not in there]


def embed_manifest(file: h5py.File, manifest_json: str) -> None:
    """Put the manifest into a results file: a scalar, since attributes end at 64 kB."""
    file.create_dataset(MANIFEST, data=manifest_json, dtype=TEXT_TYPE)


def _sealed(run: RunDir) -> list[Path]:
    paths = [run.results] if run.results.is_file() else []
    return paths + [segment.path for segment in list_segments(run.segments)]


def _write_blocks(
    file: h5py.File, coverage: Coverage, parameters: Parameters, run: RunDir
) -> set[int]:
    """Write all columns; return the numbers of the files of arrays that are linked to."""
    count = len(coverage.state)
    schema = coverage.schema()
    links = references_to_link(coverage, schema)
    writer = BlockWriter(
        file,
        count,
        Schema(schema.fields, schema.details, set(links)),
        _absent(coverage, schema),
        taken=parameters.columns(range(1)),
        links={n: layout(coverage, schema, n, refs, run.results) for n, refs in links.items()},
    )
    rows = max(WINDOW_BYTES // coverage.row_bytes(schema, links), 1)
    for start, stop in _windows(count, rows):
        block = coverage.resolved(coverage.block(schema, start, stop), schema, links)
        for name, references in links.items():
            window = references[start:stop]
            block.stored[name] = Column(window, window["file"] != 0)
        writer.write(start, block)
    writer.close()
    return {int(n) for refs in links.values() for n in np.unique(refs["file"])}


def _absent(coverage: Coverage, schema: Schema) -> set[str]:
    absent = set(schema.fields) if (coverage.state != TaskState.DONE).any() else set()
    absent |= coverage.incomplete(schema)
    if (coverage.state == TaskState.MISSING).any():
        absent |= {f"{DETAILS}/{name}" for name in schema.details}
    return absent


def _variables(file: h5py.File) -> set[str]:
    return {name for name, item in file.items() if is_column(item) or is_reduced(item)}


def _windows(count: int, rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _write_parameters(file: h5py.File, parameters: Parameters) -> None:
    count = len(parameters)
    names: list[str] = []
    for start, stop in _windows(count, PARAMETER_ROWS):
        for name, values in parameters.columns(range(start, stop)).items():
            column = from_values(_parameter_values(name, values))
            assert column is not None
            if start == 0:
                names.append(name)
                variable = create_variable(file, name, (count,), column.values.dtype, False)
                variable.attrs[PARAMETER_ATTRIBUTE] = 1
                attach(variable, [file["task"]])
            file[name][start:stop] = column.values
    if names:
        file.attrs["coordinates"] = " ".join(names)


def _parameter_values(name: str, values: list[Any]) -> list[Any]:
    if isinstance(values[0], Path):
        return [str(value) for value in values]
    if isinstance(values[0], float | int | bool | complex):
        return values
    return [storable(name, value) for value in values]
