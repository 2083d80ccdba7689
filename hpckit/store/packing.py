"""Virtual fields of a results.h5: whether their sources are there, and how they become plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py

from hpckit.errors import StoreError
from hpckit.store.arrays import array_files
from hpckit.store.atomic import replacing
from hpckit.store.blockfile import STORED
from hpckit.store.layout import attach, regions
from hpckit.store.newfile import new_file
from hpckit.store.reading import reading
from hpckit.store.rundir import RunDir

WINDOW_BYTES = 32 << 20
"""About how much is copied at a time."""


def missing_sources(path: Path) -> list[Path]:
    """Return the files that virtual datasets of a results file point at and that are not there.

    One that is damaged, or lacks what it should hold, counts as not there.

    Raises
    ------
    StoreError
        The results file itself does not read back.
    """
    needed: dict[Path, dict[str, int]] = {}
    with reading(path) as file:
        for item in file.values():
            if isinstance(item, h5py.Dataset) and item.is_virtual:
                for source in item.virtual_sources():
                    held = needed.setdefault(path.parent / source.file_name, {})
                    values = source.vspace.get_select_npoints()
                    held[source.dset_name] = held.get(source.dset_name, 0) + values
    return [source for source, held in sorted(needed.items()) if not _holds(source, held)]


def require_sources(path: Path) -> None:
    """Check that no virtual dataset would read as fill values.

    Raises
    ------
    StoreError
        A file of a rank is missing, or the results file itself does not read back.
    """
    missing = missing_sources(path)
    if missing:
        raise StoreError(
            f"{path}: {len(missing)} of the files that hold its fields are missing or damaged, "
            f"the first is {missing[0]}: bring them back beside it, or run the job again"
        )


Fill = Callable[[Path, list[str]], None]
"""Writes the values of some fields into a results file that has them empty."""


def pack(run: RunDir, fill: Fill | None = None) -> list[str]:
    """Copy virtual fields into results.h5 itself, remove what held them, return the names.

    Parameters
    ----------
    fill
        In place of a copy by this process alone.

    Raises
    ------
    StoreError
        A source is missing, or the packed file cannot be written; nothing is changed then.
    """
    require_sources(run.results)
    with h5py.File(run.results, "r") as file:
        virtual = [name for name, item in file.items() if getattr(item, "is_virtual", False)]
    if not virtual:
        return []
    with replacing(run.results) as path:
        with h5py.File(run.results, "r") as source, new_file(path) as target:
            # Scales first again, so that every attachment finds its scale.
            for name in sorted(source, key=lambda n: not getattr(source[n], "is_scale", False)):
                transfer(source, target, name, empty=fill is not None and name in virtual)
            if STORED in target:
                del target[STORED]
            for key, value in source.attrs.items():
                target.attrs[key] = value
        if fill is not None:
            fill(path, virtual)
    remove_rank_files(run, set())
    for _, path in array_files(run.segments):
        path.unlink(missing_ok=True)
    return virtual


def remove_rank_files(run: RunDir, kept: set[int]) -> None:
    """Remove the ranks' files, an earlier attempt's too, but for those that are linked to."""
    linked = {run.rank_fields(rank) for rank in kept}
    for path in run.segments.glob("rank-*"):
        if path not in linked:
            path.unlink(missing_ok=True)


def _holds(path: Path, needed: Mapping[str, int]) -> bool:
    """Tell whether a file holds datasets of these names and at least these sizes, in values."""
    try:
        with reading(path) as file:
            return all(n in file and file[n].size >= size for n, size in needed.items())
    except StoreError:
        return False


def transfer(source: h5py.File, target: h5py.File, name: str, *, empty: bool = False) -> None:
    """Copy a variable, or a group, into another file that has the scales of its axes."""
    item = source[name]
    if isinstance(item, h5py.Group):
        source.copy(name, target)
        return
    scales = (
        [axis[0].name if len(axis) else None for axis in item.dims] if not item.is_scale else []
    )
    settings = _allocated() if empty else None
    variable = target.create_dataset(
        name, item.shape, item.dtype, track_order=item.is_scale, dcpl=settings
    )
    if not empty:
        _copy_values(item, variable)
    for key, value in item.attrs.items():
        if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid"):
            variable.attrs[key] = value
    if item.is_scale:
        label = item.attrs.get("NAME", name.encode())
        variable.make_scale(label.decode() if isinstance(label, bytes) else str(label))
    attach(variable, [target[scale] for scale in scales if scale is not None])


def _allocated() -> h5py.h5p.PropDCID:
    """Return what gives a dataset its place in the file at once.

    Otherwise the first rank to open it would allocate it, and wait for all others to join in.
    """
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return settings


def _copy_values(item: h5py.Dataset, variable: h5py.Dataset) -> None:
    for region in regions(item.shape, item.dtype.itemsize, WINDOW_BYTES):
        variable[region] = item[region]
