"""hpckit image: build images, look into them, and see that they will do."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click

from hpckit.cli.options import F, json_option
from hpckit.errors import UsageError

SCHEMA = "org.label-schema.usage"
"""How Apptainer's notes on a recipe begin, which the JSON has."""

EXTRAS = ("mpi", "dask", "analysis", "jobs")
"""Of hpckit, in the reference image."""


T = TypeVar("T")


def variant_option(function: F) -> F:
    """Add --variant."""
    choice = click.Choice(["openmpi", "mpich", "cuda"])
    told = "Of the reference image  [default: openmpi]"
    return click.option("--variant", type=choice, help=told)(function)


def _instead(variant: str | None, given: T, name: str) -> T:
    """Return what is given in place of hpckit's own, of which no variant is then to be chosen."""
    if given and variant is not None:
        raise UsageError(f"--variant chooses among hpckit's own locks: leave it, or {name}")
    return given


@click.group(help="Apptainer images: build, look into, check, lock.")
def command() -> None:
    """Work with images."""


@command.command(help="Build an image  [default: the reference image of this hpckit].")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("hpckit.sif"),
              show_default=True, help="The image.")  # fmt: skip
@click.option("--base", help="An image, a registry's NAME:TAG, or debootstrap.")
@variant_option
@click.option("--lock", "locked", type=click.Path(path_type=Path), help="Its wheels.")
@json_option
def build(
    recipe: Path | None,
    output: Path,
    base: str | None,
    variant: str | None,
    locked: Path | None,
    as_json: bool,
) -> None:
    """Build an image from a recipe."""
    from hpckit.image.build import DEFAULT, build_image, own_lock, own_recipe
    from hpckit.units import Memory

    def report(line: str) -> None:
        click.echo(line, err=True)

    chosen = variant or DEFAULT
    wheels = _instead(variant, locked, "--lock") or own_lock(chosen)
    made = build_image(recipe or own_recipe(chosen), wheels, output, base, report)
    if as_json:
        click.echo(made.model_dump_json(indent=1))
        return
    click.echo(f"{made.path}: {Memory(made.size)}, sha256 {made.sha256}")


@command.command(help="Say what is in an image.")
@click.argument("image", type=click.Path(path_type=Path))
@json_option
def info(image: Path, as_json: bool) -> None:
    """Look into an image."""
    from dataclasses import asdict

    from hpckit.image.info import look_inside
    from hpckit.store.image import ImageRecord
    from hpckit.units import Memory

    record = ImageRecord.of(image)
    inside = look_inside(record)
    if as_json:
        told = {**record.model_dump(exclude={"apptainer"}), **asdict(inside)}
        click.echo(json.dumps(told, indent=1))
        return
    rows = {
        "image": record.path,
        "sha256": record.sha256,
        "size": str(Memory(record.size)),
        "Python": inside.python or "none",
        "hpckit": inside.hpckit or f"none ({inside.trouble})",
        "MPI": inside.mpi or "none",
        **{name: value for name, value in record.labels.items() if not name.startswith(SCHEMA)},
    }
    for name, value in rows.items():
        click.echo(f"{name:10}  {value}")
    for name, found in (inside.packages or {}).items():
        click.echo(f"  {name} {found}")


@command.command(help="Test an image, and say what to change; exit code 1 if it will not do.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--ranks", type=click.IntRange(1), default=2, show_default=True, help="To try.")
@click.option("--site", help="Whose scheduler is to start them: a site's name or TOML file.")
@click.option("--gpu", is_flag=True, help="See that it finds the GPU's libraries.")
@json_option
def check(image: Path, ranks: int, site: str | None, gpu: bool, as_json: bool) -> None:
    """Check an image."""
    from hpckit.image.check import Level
    from hpckit.image.check import check as findings
    from hpckit.spec.site import load_site
    from hpckit.store.image import ImageRecord
    from hpckit.submit.local import find_mpiexec

    record, launcher = ImageRecord.of(image), None
    with suppress(UsageError):
        launcher = find_mpiexec()
    found = []
    where = load_site(site) if site is not None else None
    for finding in findings(record, launcher, where, ranks, gpu=gpu):
        found.append(finding)
        if not as_json:
            click.echo(f"{finding.level:7}  {finding.text}")
    if as_json:
        told = [{"level": str(f.level), "text": f.text} for f in found]
        click.echo(json.dumps(told, indent=1))
    sys.exit(int(any(finding.level is Level.FAILED for finding in found)))


@command.command(help="Renew the lock of an image: its wheels, each with its hash.")
@click.argument("requirements", nargs=-1)
@variant_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="  [default: hpckit's own]")
def lock(requirements: tuple[str, ...], variant: str | None, output: Path | None) -> None:
    """Resolve requirements; hpckit's own, and those of its extras, without any."""
    from hpckit.image.build import DEFAULT, FURTHER, own_lock, require_writable
    from hpckit.image.lock import own_requirements, resolve
    from hpckit.store.atomic import write_bytes

    if requirements and output is None:
        raise UsageError("a lock of your own needs a file of its own: give -o FILE")
    wanted = _instead(variant, requirements, "requirements")
    chosen = variant or DEFAULT
    path = output or own_lock(chosen)
    require_writable(path)
    text = resolve(wanted or own_requirements(EXTRAS, FURTHER[chosen]))
    write_bytes(path, text.encode())
    click.echo(f"{path}: {len(text.splitlines()) - 1} wheels")
