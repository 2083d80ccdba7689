"""Some ranks in an image, for trial: on this machine, or as a site starts them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from hpckit import __version__
from hpckit.errors import UsageError
from hpckit.render.container import Container, exports, kept_patterns, kept_variables
from hpckit.render.launcher import launcher_variables, mpiexec_argv
from hpckit.render.script import Script, directives, rank_launch, render
from hpckit.spec.resources import Resources
from hpckit.spec.site import Site
from hpckit.store.image import ImageRecord
from hpckit.units import Walltime
from hpckit.variables import NTASKS

PROBE_SECONDS = 60.0
QUEUE_SECONDS = 600.0
"""What a site gets to begin with the trial and end it."""

WALLTIME = Walltime(120)

PROBE = """
from hpckit.run.ranks import end_mpi, start_mpi
print("ranks", start_mpi().Get_size())
end_mpi()
"""


def try_here(image: ImageRecord, mpiexec: str, ranks: int) -> str | None:
    """Start ranks on this machine; return why they do not find each other, None if they do."""
    container = Container(image, (Path.cwd(),))
    argv = mpiexec_argv(mpiexec, ranks, _probe(container))
    environment = {
        **launcher_variables(1, is_root=os.geteuid() == 0),
        **kept_variables(os.environ),
        NTASKS: str(ranks),
    }
    try:
        ended = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not within {PROBE_SECONDS:g} s: launcher and library may not be of one kind"
    return _judged(ended.returncode, ended.stdout, ended.stderr, ranks)


def try_on(site: Site, image: ImageRecord, ranks: int) -> str | None:
    """Have a site's scheduler start ranks, by a script as those of jobs.

    Returns
    -------
    str or None
        Why they do not find each other; None if they do.

    Raises
    ------
    SpecError
        No partition takes them, or a template does not render.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="hpckit-check-") as name:
        folder = Path(name)
        script, output = folder / "job.sh", folder / "output"
        script.write_text(_script(site, image, ranks, output))
        argv = ["sbatch", "--parsable", "--wait", str(script)]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting:
            try:
                _, stderr = waiting.communicate(timeout=QUEUE_SECONDS)
            except BaseException as error:
                waiting.kill()
                job, _ = waiting.communicate()
                subprocess.run(["scancel", job.strip().partition(";")[0]], check=False)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return f"not within {QUEUE_SECONDS:g} s in the queue"
        said = output.read_text(errors="replace") if output.exists() else stderr
        return _judged(waiting.returncode, said, said, ranks)


def _script(site: Site, image: ImageRecord, ranks: int, output: Path) -> str:
    asked = Resources(ntasks=ranks, walltime=WALLTIME)
    container = Container(image, (Path.cwd(),), site.binds)
    script = Script(
        template="spmd.sh",
        title=f"hpckit image check: {ranks} ranks for trial",
        directives=directives("check", asked, site, site.partition_for(asked), str(output)),
        launch=rank_launch(site, asked, _probe(container)),
        variables={NTASKS: str(ranks), **exports(container), **site.environment},
        kept=kept_patterns(container, site.environment),
    )
    return render(script, site, __version__)


def _probe(container: Container) -> list[str]:
    return container.argv(["python3", "-c", PROBE])


def _judged(code: int, stdout: str, stderr: str, ranks: int) -> str | None:
    told = re.findall(r"^ranks (\d+)$", stdout, re.MULTILINE)
    if code == 0 and told == [str(ranks)] * ranks:
        return None
    if set(told) == {"1"} and ranks > 1:
        return "each believes itself alone: the launcher is of another MPI"
    lines = [line for line in stderr.splitlines() if line.strip()]
    best = next((line for line in lines if "LaunchError: " in line), lines[-1] if lines else "")
    return best.partition("LaunchError: ")[2] or best or "they say nothing"


def require_slurm(site: Site) -> None:
    """See that a site's scheduler can be asked from here.

    Raises
    ------
    UsageError
        It cannot.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(f"--site {site.name}: there is no sbatch here: ask on the cluster")
