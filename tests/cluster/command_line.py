"""The command `tests/cluster/slurm`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cluster.configuration import NODES, Limits
from cluster.errors import ClusterError
from cluster.whole import Cluster

Action = Callable[[argparse.Namespace], None]
NODE_ACTIONS = {
    "cut": "cut a node's network",
    "heal": "join it again",
    "kill": "kill a node with all that runs on it",
    "start": "start a node that was killed",
}


def main() -> int:
    """Do what the command line says."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = _parser().parse_args()
    try:
        arguments.do(arguments)
    except ClusterError as error:
        print(f"slurm: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slurm", description="A real Slurm cluster, here.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Action, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(do=do)
        return added

    up = command("up", _up, "bring the cluster up")
    up.add_argument("state", nargs="?", type=Path, metavar="STATE_DIR", help="an empty folder")
    up.add_argument("--max-array-size", type=int, default=Limits.max_array_size)
    up.add_argument("--max-submit-jobs", type=int, default=Limits.max_submit_jobs)
    down = command("down", lambda given: Cluster.down(given.pid), "end and remove all of it")
    for shared in (up, down):
        shared.add_argument("--for", type=int, dest="pid", help="share it, for a process's time")
    command("env", _env, "print what a shell must export: eval it")
    command("status", _status, "say what runs")
    for name, what in NODE_ACTIONS.items():
        action = command(name, _node_action, what)
        action.set_defaults(action=name)
        action.add_argument("node", choices=NODES)
    control = command("ctl", _controller, "stop or start the controller")
    control.add_argument("action", choices=("stop", "start"))
    return parser


def _up(given: argparse.Namespace) -> None:
    limits = Limits(given.max_array_size, given.max_submit_jobs)
    print(Cluster.up(given.state, limits, given.pid).state)


def _env(given: argparse.Namespace) -> None:
    for name, value in Cluster.find().env().items():
        print(f"export {name}={shlex.quote(value)}")


def _status(given: argparse.Namespace) -> None:
    cluster = Cluster.find()
    print(f"{cluster.state}, for {', '.join(cluster.users())}")
    for name, runs in cluster.running().items():
        print(f"  {name:<12}{'runs' if runs else 'does not run'}")
    if cluster.daemons.is_running("controller"):
        print(cluster.daemons.client("sinfo", "-N", "-l"), end="")


def _node_action(given: argparse.Namespace) -> None:
    getattr(Cluster.find(), given.action)(given.node)


def _controller(given: argparse.Namespace) -> None:
    cluster = Cluster.find()
    {"stop": cluster.stop_controller, "start": cluster.start_controller}[given.action]()
