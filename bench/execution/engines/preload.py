"""What a Dask worker loads first: its end, for one that closes may hang for ever.

Seen with distributed 2026.8: asked to end while it closes, a worker waits for a task that does not.
"""

import os
import threading
from typing import Any

GRACE = 10.0
"""Seconds that a closing worker has to end by itself."""


def dask_teardown(worker: Any) -> None:
    """End this process soon, whatever still waits; Dask calls it as the worker closes."""
    last = threading.Timer(GRACE, os._exit, (0,))
    last.daemon = True
    last.start()
