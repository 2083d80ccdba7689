"""hpckit site: the facts of a cluster."""

from __future__ import annotations

import re

import click

from hpckit.errors import UsageError


@click.group(help="The facts of a cluster.")
def command() -> None:
    """Hold the commands about sites."""


@command.command(help="Write a site file from what this cluster's Slurm says of itself.")
@click.argument("name", default="default")
@click.option("--print", "to_stdout", is_flag=True, help="Print it, and write nothing.")
def init(name: str, to_stdout: bool) -> None:
    """Survey the cluster."""
    from hpckit.render.site import site_toml
    from hpckit.spec.site import site_folder
    from hpckit.store.atomic import explained
    from hpckit.submit.survey import survey

    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"{name!r} cannot be a site's name: letters, digits and _ . - are allowed")
    text = site_toml(survey(name))
    if to_stdout:
        click.echo(text, nl=False)
        return
    path = site_folder() / f"{name}.toml"
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError(f"{path}: is there already: move it away, or give a name") from None
    click.echo(f"wrote {path}: look through it, and add your account where you have one")
