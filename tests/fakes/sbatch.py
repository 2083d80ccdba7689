"""The command sbatch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fakes import clock, hosts
from fakes.admission import Refused, admit
from fakes.failures import Failure
from fakes.folder import SILENCE, Folder
from fakes.jobs import Job
from fakes.request import Request
from fakes.sbatch_options import READER, Chosen, of_environment, of_script, settled
from fakes.scheduling import changing

UNHEARD = "Socket timed out on send/recv operation"
WRAP = "#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{}\n"


def main(argv: list[str]) -> int:
    """Queue a script."""
    folder = Folder.current()
    given, words = READER.read(argv, mixed=False)
    typed = settled(given)
    text = _script(typed, words)
    name = Path(words[0]).name if words else "wrap" if "wrap" in typed else "sbatch"
    chosen = {
        "job-name": name,
        **of_script(text, words[0] if words else name),
        **of_environment(os.environ),
        **typed,
    }
    request = Request(chosen, words, " ".join(["sbatch", *argv]))
    is_test = "test-only" in chosen
    prefix = "allocation failure: " if is_test else "sbatch: error: Batch job submission failed: "
    folder.reach(prefix + SILENCE)
    try:
        return _test(folder, request) if is_test else _submit(folder, request, text)
    except Refused as refused:
        raise Failure(*refused.lines, prefix + str(refused)) from None


def _script(typed: Chosen, words: list[str]) -> str:
    """Return the script, if it looks like one."""
    if "wrap" in typed:
        if words:
            what = "Script arguments not permitted with --wrap option"
            raise Failure(f"sbatch: error: {what}", status=255)
        return WRAP.format(typed["wrap"])
    try:
        raw = Path(words[0]).read_bytes() if words else os.fdopen(0, "rb").read()
    except OSError:
        raise Failure(f"sbatch: error: Unable to open file {words[0]}") from None
    text = os.fsdecode(raw)
    if lines := _trouble(text):
        raise Failure(*(f"sbatch: error: {line}" for line in lines))
    return text


def _trouble(text: str) -> list[str]:
    """Tell in sbatch's words why something is no script."""
    if not text:
        return ["Batch script is empty!"]
    if not text.startswith("#!"):
        return [
            "This does not look like a batch script.  The first",
            "line must start with #! followed by the path to an interpreter.",
            "For instance: #!/bin/sh",
        ]
    if "\r\n" in text:
        return [
            "Batch script contains DOS line breaks (\\r\\n)",
            "instead of expected UNIX line breaks (\\n).",
        ]
    return []


def _test(folder: Folder, request: Request) -> int:
    """Say when it would start; the real one uses up a number too."""
    with changing(folder) as ledger:
        data = admit(ledger, request)
        number = folder.next_ids()
    nodes = hosts.show(data["nodes"][: data["node_count"]])
    when = clock.stamp(time.time())
    what = f"{request.cpus} processors on nodes {nodes} in partition {data['partition']}"
    raise Failure(f"sbatch: Job {number} to start at {when} using {what}", status=0)


def _submit(folder: Folder, request: Request, text: str) -> int:
    with changing(folder) as ledger:
        data = admit(ledger, request)
        number = folder.next_ids()
        _keep(folder.spool(number), text)
        ledger.add(Job({"id": number, **data}))
    if folder.has("unheard"):
        # The controller has queued it, but its answer got lost.
        raise Failure(f"sbatch: error: Batch job submission failed: {UNHEARD}")
    print(number if "parsable" in request.chosen else f"Submitted batch job {number}")
    return 0


def _keep(spool: Path, text: str) -> None:
    """Copy the script and the environment: what becomes of them later does not matter."""
    spool.mkdir(parents=True, exist_ok=True)
    script = spool / "slurm_script"
    script.write_bytes(os.fsencode(text))
    script.chmod(0o700)
    (spool / "environment.json").write_text(json.dumps(dict(os.environ)))
