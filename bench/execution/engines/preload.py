"""What a Dask worker loads first: its end, for one that closes may hang for ever.

Seen with distributed 2026.8: a worker that its scheduler closes and that is asked to end meanwhile
is interrupted on the way, and then waits for a task that never ends.
"""

import os
import threading
import time
from typing import Any

GRACE = 10.0
"""Seconds that a closing worker has to end by itself."""
LOOK = 0.5
"""Seconds between two looks at a worker."""
CLOSING = ("closing", "closed", "failed")


def dask_setup(worker: Any) -> None:
    """Watch a worker from beside it; Dask calls this as the worker starts."""
    threading.Thread(target=end_with, args=(worker,), daemon=True).start()


def end_with(worker: Any) -> None:
    """End this process soon after the worker in it closes, whatever still waits."""
    while worker.status.name not in CLOSING:
        time.sleep(LOOK)
    time.sleep(GRACE)
    os._exit(0)
