"""hpckit init: a new project folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from hpckit.errors import UsageError


@click.command(help="Make a new project folder with three jobs that run.")
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Copy the template project."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already: give the name of a new or empty folder")
    try:
        (folder / "jobs").mkdir(parents=True)
        for item in files("hpckit.cli").joinpath("project").iterdir():
            if item.is_file():
                place = folder if item.name == "README.md" else folder / "jobs"
                (place / item.name).write_bytes(item.read_bytes())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    click.echo(f"made {folder} with a farm (pi), an MPI program (heat) and a command (primes)")
    click.echo(f"try: cd {folder} && hpckit run pi darts=1000,10000 repeat=10")
