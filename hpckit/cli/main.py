"""The command `hpckit`: which commands there are, and how errors end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from hpckit import __version__
from hpckit.early import note_early
from hpckit.errors import HpckitError
from hpckit.variables import WARNING

COMMANDS = {
    "run": "Run a job here, in the foreground.",
    "submit": "Submit a job to a cluster's scheduler.",
    "render": "Print the batch script of a job; `sbatch` runs it as it is.",
    "worker": "Work for drivers that have the engine celery, until Ctrl-C.",
    "exec": "Run one rank of a job, or a whole farm, under whatever started it.",
    "resume": "End what is missing of a run.",
    "retry": "Do the failed tasks of a farm again, and those that are missing.",
    "wait": "Wait until a run has ended, and say how.",
    "cancel": "End a run before its time; what is sealed stays.",
    "rerun": "Repeat a run from its manifest, and say whether it is the same.",
    "ls": "List the runs.",
    "status": "Say how far a run is.",
    "logs": "Print what a run's tasks or ranks printed.",
    "show": "Show a run and its results as a table.",
    "plot": "Draw how a farm went on: tasks ended, tasks at work, workers.",
    "digest": "Print a hash of a run's results.",
    "diff": "Say what differs between two runs.",
    "efficiency": "Compare what a submitted run used with what it asked for.",
    "export": "Write a run for others: as an RO-Crate.",
    "pack": "Copy the fields of an spmd run into results.h5 itself.",
    "site": "The facts of a cluster.",
    "gpu": "GPUs: those that are here, what a run did on them, kernels for them.",
    "image": "Apptainer images: build, look into, check, lock.",
    "init": "Make a new project folder with three jobs that run.",
}
"""Each command, and its line in the help: it lies in `hpckit.cli.NAME` as `command`."""

HIDDEN = frozenset({"pilot"})
"""What only batch scripts call."""

MODULES = {"exec": "execute"}


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a run's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command called `name`."""
        if name not in COMMANDS and name not in HIDDEN:
            return None
        module = import_module(f"hpckit.cli.{MODULES.get(name, name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpckit")
def cli() -> None:
    """Take a Python function or a command to a reproducible cluster job.

    A job file runs unchanged here and under mpirun; its results are one results.h5, which opens
    in xarray.
    """


def main() -> NoReturn:
    """Run the command line: exit 0 good, 1 failed, 2 bad usage, 3 failed tasks, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    warning = os.environ.get(WARNING, "").partition("@")[0]
    if warning in ("USR1", "USR2"):
        note_early(getattr(signal, f"SIG{warning}"))
    try:
        code = cli.main(standalone_mode=False, prog_name="hpckit")
    except HpckitError as error:
        _end(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.UsageError as error:
        _end(f"{error.format_message()} (see {_help_of(error.ctx)})", 2)
    except click.ClickException as error:
        _end(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end("interrupted", 130)
    except SystemExit as end:
        code = end.code
    _leave(code if isinstance(code, int) else 0)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _help_of(context: click.Context | None) -> str:
    return f"`{context.command_path if context else 'hpckit'} --help`"


def _end(message: str, code: int) -> NoReturn:
    click.echo(f"hpckit: {message}", err=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    others = set(threading.enumerate()) - {threading.main_thread()}
    if any(not thread.daemon for thread in others):
        # A thread cannot be ended: its task would hold this process for as long as it takes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
