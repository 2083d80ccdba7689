"""The options of sbatch: on its command line, in variables, and in a script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fakes import options
from fakes.failures import Failure
from fakes.options import FLAG, MAYBE, VALUE

VALUES = """
account acctg-freq array bb bbf begin chdir cluster-constraint clusters comment constraint container
core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
distribution error exclude export export-file extra-node-info gid gpu-bind gpu-freq gpus
gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep
licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile
nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode
output partition power prefer priority profile qos reservation signal sockets-per-node switches
thread-spec threads-per-core time time-min tmp uid wait-all-nodes wckey wrap
"""
MAYBES = "exclusive get-user-env nice propagate"
FLAGS = """
contiguous help hold ignore-pbs no-kill no-requeue overcommit oversubscribe parsable quiet reboot
requeue spread-job test-only usage use-min-nodes verbose version wait
"""
LONGS = {
    name: kind
    for kind, names in ((VALUE, VALUES), (MAYBE, MAYBES), (FLAG, FLAGS))
    for name in names.split()
}
SHORTS = """
a=array A=account b=begin B=extra-node-info c=cpus-per-task C=constraint d=dependency D=chdir
e=error F=nodefile G=gpus h=help H=hold i=input J=job-name k=no-kill L=licenses m=distribution
M=clusters n=ntasks N=nodes o=output O=overcommit p=partition q=qos Q=quiet s=oversubscribe
S=core-spec t=time v=verbose V=version w=nodelist W=wait x=exclude
"""
VARIABLES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_DEPENDENCY": "dependency",
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_EXPORT": "export",
    "SBATCH_JOB_NAME": "job-name",
    "SBATCH_NO_REQUEUE": "no-requeue",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_OUTPUT": "output",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_SIGNAL": "signal",
    "SBATCH_TIMELIMIT": "time",
}
_PIECE = re.compile(
    r"(?P<space>\s+)|\\(?P<plain>\S?)|(?P<text>[^\s\\\"'#]+)|(?P<comment>#.*)"
    r'|"(?P<quoted>(?:[^"\\]|\\.)*)"'
    r"|'(?P<single_quoted>(?:[^'\\]|\\.)*)'|(?P<open>[\"'].*)"
)
READER = options.Reader("sbatch", LONGS, SHORTS, status=255)

Chosen = dict[str, str]


def settled(given: Iterable[tuple[str, str]]) -> Chosen:
    """Return the last value of each option; `requeue` is "0" for --no-requeue."""
    chosen: Chosen = {}
    for name, value in given:
        if name in ("requeue", "no-requeue"):
            chosen["requeue"] = "1" if name == "requeue" else "0"
        else:
            chosen[name] = value
    return chosen


def of_environment(variables: Mapping[str, str]) -> Chosen:
    """Return what variables say."""
    return settled((VARIABLES[name], variables[name]) for name in VARIABLES if name in variables)


def of_script(text: str, name: str) -> Chosen:
    """Return what the lines `#SBATCH` of a script say, up to its first command."""
    words: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#SBATCH"):
            words += _words(line[len("#SBATCH") :], f"{name}: line {number}")
        elif line.strip() and not line.strip().startswith("#"):
            break
    given, rest = READER.read(words)
    if rest:
        raise Failure(
            f"sbatch: error: Invalid directive found in batch script: {rest[0]}", status=255
        )
    return settled(given)


def _words(line: str, where: str) -> list[str]:
    """Split a line: a backslash takes what follows as it is, but for a space; `#` ends it."""
    words: list[str] = []
    word: str | None = None
    for match in _PIECE.finditer(f"{line} "):
        kind = match.lastgroup or ""
        if kind == "comment":
            break
        if kind == "open":
            what = f"Unmatched `{match[kind][0]}` in [{line.strip()}]"
            raise Failure(f"sbatch: fatal: {where}: {what}")
        if kind == "space":
            words, word = ([*words, word], None) if word is not None else (words, None)
        else:
            piece = match[kind]
            word = (word or "") + (re.sub(r"\\(.)", r"\1", piece) if "quoted" in kind else piece)
    return words if word is None else [*words, word]
