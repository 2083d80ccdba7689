"""Tracebacks as those see them who wrote the job."""

from __future__ import annotations

import traceback
from pathlib import Path

OWN = str(Path(__file__).parent)


def own_traceback(error: BaseException) -> str:
    """Return the traceback from the job's own first frame on, without hpckit's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
