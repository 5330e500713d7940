"""First import of the server of processes.

It is imported nowhere else, for it changes the process. The source of what is loaded is kept (see
`bench.execution.loading`). The variables that the command has given the server for its start are
set back, so that a method's own processes get what the user has set. The server outlives a command
that was killed, and removes the folder of its sockets.
"""

import atexit
import json
import os
import shutil
import time

from bench.execution.engines.local import START
from bench.execution.loading import record_sources
from bench.registry import use_current_folder

record_sources()
_handed_over = json.loads(os.environ.pop(START, "{}"))
for _name, _value in _handed_over.get("variables", {}).items():
    if _value is None:
        os.environ.pop(_name, None)
    else:
        os.environ[_name] = _value
if _handed_over.get("current_folder"):
    use_current_folder()


def _remove_sockets(folder: str, command: int, server: int) -> None:
    """Remove a killed command's folder, once, and not in a fork."""
    if os.getpid() != server:
        return
    for _ in range(10):  # its pipes close a little before it is dead
        if os.getppid() != command:
            shutil.rmtree(folder, ignore_errors=True)
            return
        time.sleep(0.05)


if "sockets" in _handed_over:
    atexit.register(_remove_sockets, _handed_over["sockets"], os.getppid(), os.getpid())


def do_nothing() -> None:
    """Do nothing: the first process awaits the server's imports."""
