"""Local slots: processes forked from a warm server.

The server (`multiprocessing`'s fork server) has imported torch and the methods, so isolation costs
milliseconds. It is started before anything touches CUDA. Each child holds the reading end of a
pipe whose writing end only the command has: when the command goes, by whatever way, the pipe closes
and the child ends itself and its own children.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.errors import RequestError
from bench.execution.engines.engine import TIME_LIMIT, Ended
from bench.execution.engines.sockets import open_socket_folder
from bench.execution.messages import Message, decode_message
from bench.planning.slots import Slot
from bench.system.path import current_folder, safe_environment, safe_path
from bench.system.untrusted import os_reason

START = "BENCH_SERVER_START"
"""Variable of what a server is handed for its start, in JSON."""
_SERVER = "bench.execution.engines.server"
_TRIES = 3
_UNKNOWN = 255
"""What `multiprocessing` gives as exit code where the fork server is not there to tell."""


@dataclass
class _Running:
    process: Any
    slot: Slot
    lifeline: Connection
    progress: Connection
    started: float
    server: int
    """Process id of the fork server that it came from."""


class LocalEngine:
    """Context manager that runs processes in slots."""

    def __init__(self, slots: Sequence[Slot], preload: Sequence[str], timeout: float | None):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ.setdefault("PYTHONHASHSEED", "0")
        self._context = multiprocessing.get_context("forkserver")
        # The server imports these once. `__main__` is left out: a child must not run the command.
        self._context.set_forkserver_preload([_SERVER, *preload])
        self._free = list(slots)
        self._running: dict[str, _Running] = {}
        self._timeout = timeout

    def __enter__(self) -> "LocalEngine":
        """Start the server and wait for its imports."""
        self._fork(f"{_SERVER}:do_nothing", ()).join()
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._running):
            self._end(key)

    @property
    def free(self) -> list[Slot]:
        """Slots that wait for work."""
        return list(self._free)

    @property
    def running(self) -> bool:
        """Whether any process is under way."""
        return bool(self._running)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes under way."""
        return [r.process.pid for r in self._running.values()]

    def start(self, key: str, target: str, argument: Any, slot: Slot) -> None:
        """Start `module:function` in a free slot.

        It is called with (argument, lifeline, progress, started).
        """
        self._free.remove(slot)
        child_lifeline, lifeline = self._context.Pipe(duplex=False)
        progress, child_progress = self._context.Pipe(duplex=False)
        started = time.monotonic()
        arguments = (argument, child_lifeline, child_progress, started)
        process = self._fork(target, arguments)
        child_lifeline.close()
        child_progress.close()
        self._running[key] = _Running(process, slot, lifeline, progress, started, _server())

    def _fork(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Fork a process from the server, restarted if gone.

        Raises RequestError where that does not help.
        """
        for _ in range(_TRIES):
            process = self._context.Process(target=_call, args=(list(sys.path), target, arguments))
            try:
                with _main_hidden(), _interrupts_deferred(), _safe_start():
                    process.start()
                return process
            except (OSError, EOFError) as error:  # the server went at this very moment
                trouble = error
                time.sleep(0.1)
        reason = os_reason(trouble) if isinstance(trouble, OSError) else repr(trouble)
        raise RequestError(f"no process can be started on this machine: {reason}")

    def events(self, timeout: float = 0.5) -> Iterator[tuple[str, Message] | Ended]:
        """Yield messages and ends of runs within `timeout` seconds."""
        watched: dict[Any, str] = {}
        for key, running in self._running.items():
            watched[running.process.sentinel] = key
            if not running.progress.closed:
                watched[running.progress] = key
        ready = wait(list(watched), timeout)
        for source in ready:
            if isinstance(source, Connection):
                yield from self._messages(watched[source], source)
        for key in [watched[s] for s in ready if not isinstance(s, Connection)]:
            running = self._running[key]
            if not running.progress.closed:
                yield from self._messages(key, running.progress)
            yield self._end(key)
        if self._timeout is not None:
            now = time.monotonic()
            late = [k for k, r in self._running.items() if now - r.started > self._timeout]
            for key in late:
                yield self._end(key, TIME_LIMIT)

    def stop(self, key: str, why: str) -> Ended:
        """End a process that has gone wrong."""
        return self._end(key, why)

    def _messages(self, key: str, progress: Connection) -> Iterator[tuple[str, Message]]:
        try:
            while progress.poll():
                yield key, decode_message(progress.recv_bytes())
        except (EOFError, OSError, ValueError):
            progress.close()

    def _end(self, key: str, stopped: str = "") -> Ended:
        """Kill a process and its group; free its slot."""
        running = self._running.pop(key)
        pid = running.process.pid
        # The group is the child's own once it has begun, and may outlive it where a method forked.
        for kill in (os.killpg, os.kill) if running.process.is_alive() else (os.killpg,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        running.process.join(10)
        running.lifeline.close()
        running.progress.close()
        self._free.append(running.slot)
        seconds = time.monotonic() - running.started
        exit_code = running.process.exitcode
        gone = not stopped and exit_code == _UNKNOWN and _gone(running.server)
        lost = "the server of processes" if gone else ""
        limit = self._timeout if stopped == TIME_LIMIT and self._timeout is not None else 0.0
        return Ended(key, exit_code, seconds, stopped, lost, limit)


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold back interrupts, so that no started process inherits one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _server() -> int:
    """Return the fork server's process id, private to `multiprocessing`."""
    return int(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]


def _gone(server: int) -> bool:
    """Whether a fork server has ended; does not reap it.

    A dying process lets go of its pipes some time before it is dead, so it is waited for a little.
    """
    for _ in range(20):
        try:
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
        except ChildProcessError:  # reaped already, and another one has taken its place
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def _safe_start() -> Iterator[None]:
    """Start a server with the safe path.

    By itself it begins with the current folder. Before CPython 3.12.8 and 3.13.1 it forgets the
    path that it is handed (python/cpython#117378), so that it gets it by its variables. From then
    on it takes `sys.path`, where another `bench` could come before one that is found otherwise.
    """
    path, variables = sys.path[:], safe_environment()
    before = {name: os.environ.get(name) for name in variables}
    safe = safe_path()
    handed_over = {
        "variables": before,
        "current_folder": current_folder() in path,
        "sockets": str(open_socket_folder()),
    }
    try:
        sys.path[:] = safe
        os.environ |= {**variables, START: json.dumps(handed_over)}
        yield
    finally:
        sys.path[:] = path
        os.environ.pop(START)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _call(path: list[str], target: str, arguments: tuple[Any, ...]) -> None:
    """Import and call a function in the child, with the command's path."""
    importlib.import_module(_SERVER)  # in case that the server could not import it
    sys.path[:] = path
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(*arguments)


class _main_hidden:
    """Keep `multiprocessing` from importing `__main__` in children."""

    def __enter__(self) -> None:
        main = sys.modules["__main__"]
        self._kept = {n: getattr(main, n) for n in ("__spec__", "__file__") if hasattr(main, n)}
        for name in self._kept:
            setattr(main, name, None) if name == "__spec__" else delattr(main, name)

    def __exit__(self, *_: object) -> None:
        for name, value in self._kept.items():
            setattr(sys.modules["__main__"], name, value)
