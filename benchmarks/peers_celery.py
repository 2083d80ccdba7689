"""Tasks for celery's own workers: ``celery -A peers_celery worker --concurrency 2``."""

from __future__ import annotations

import os

import peers
from celery import Celery

URL = os.environ.get("HPCKIT_BROKER")

app = Celery("peers", broker=URL, backend=URL)
app.conf.worker_prefetch_multiplier = 64

same = app.task(peers.same)
spin = app.task(peers.spin)
