"""hpckit where cards are: those of a software driver, since the machine need not have any."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

from hpckit_here import Hpckit

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("HPCKIT_GPU_ENV", "")).absolute()
PYTHON = FOLDER / "bin" / "python"
SOFTWARE = FOLDER / "software-gpu"
WRAPPER = ROOT / "tests" / "gpu" / "software" / "bin"


def toolkit() -> Path:
    """Return the folder of the CUDA toolkit."""
    (found,) = FOLDER.glob("lib/python3*/site-packages/nvidia/cu[0-9]*")
    return found


def variables(kernels: Path) -> dict[str, str]:
    """Return what makes a process see two cards of the software driver."""
    cuda = toolkit()
    path = [WRAPPER, cuda / "bin", FOLDER / "bin", os.environ["PATH"]]
    return {
        "PATH": os.pathsep.join(map(str, path)),
        "LD_LIBRARY_PATH": f"{SOFTWARE}:{cuda}/lib",
        "SOFTWARE_GPUS": "2",
        "HPCKIT_KERNELS": str(kernels),
    }


class OnCards(Hpckit):
    """Runs hpckit on so many cards of the software driver.

    Attributes
    ----------
    variables
        That its processes have; tests change them.
    """

    def __init__(self, directory: Path, kernels: Path) -> None:
        super().__init__(directory)
        self.variables = variables(kernels)
        # Cards that no other test has.
        self.variables["SOFTWARE_GPU_HOST"] = secrets.token_hex(7)

    def start(self, *arguments, env=None) -> subprocess.Popen[str]:
        """Start hpckit."""
        argv = [str(PYTHON), "-m", "hpckit", *map(str, arguments)]
        return self.popen(argv, {**self.variables, **(env or {})})

    def python(self, text: str, *arguments: object) -> str:
        """Run a program in the same environment; return what it prints."""
        argv = [str(PYTHON), "-c", text, *map(str, arguments)]
        process = self.popen(argv, self.variables)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        return stdout
