"""First import of the server of processes: it makes it ready for methods.

It is imported nowhere else, for it changes the process: the source of what is loaded is kept (see
`bench.execution.loading`), and the variables that the command has given the server for its start
are set back, so that a method's own processes get what the user has set.
"""

import json
import os

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


def do_nothing() -> None:
    """Do nothing: the first process awaits the server's imports."""
