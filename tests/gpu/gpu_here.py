"""hpckit where cards are: those of a software driver, since the machine need not have any."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

from hpckit_here import Hpckit

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("HPCKIT_GPU_ENV", "")).absolute()
SOFTWARE = FOLDER / "software-gpu"
WRAPPER = Path(__file__).parent / "software" / "bin"


def toolkit() -> Path:
    """Return the folder of the CUDA toolkit."""
    (found,) = FOLDER.glob("lib/python3*/site-packages/nvidia/cu[0-9]*")
    return found


class OnCards(Hpckit):
    """Runs hpckit on so many cards of the software driver.

    Attributes
    ----------
    variables
        That its processes have; tests change them.
    """

    def __init__(self, directory: Path, kernels: Path) -> None:
        super().__init__(directory)
        cuda = toolkit()
        path = [WRAPPER, cuda / "bin", FOLDER / "bin", os.environ["PATH"]]
        self.variables = {
            "PATH": os.pathsep.join(map(str, path)),
            "LD_LIBRARY_PATH": f"{SOFTWARE}:{cuda}/lib",
            "SOFTWARE_GPUS": "2",
            # Cards that no other test has.
            "SOFTWARE_GPU_HOST": secrets.token_hex(7),
            "HPCKIT_KERNELS": str(kernels),
        }

    def start(self, *arguments, env=None) -> subprocess.Popen[str]:
        """Start hpckit."""
        argv = [str(FOLDER / "bin" / "python"), "-m", "hpckit", *map(str, arguments)]
        return self.popen(argv, {**self.variables, **(env or {})})

    def python(self, text: str, *arguments: object) -> str:
        """Run a program in the same environment; return what it prints."""
        argv = [str(FOLDER / "bin" / "python"), "-c", text, *map(str, arguments)]
        process = self.popen(argv, self.variables)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        return stdout
