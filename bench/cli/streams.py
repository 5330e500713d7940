"""Standard streams that are closed, lose their reader or cannot show a character."""

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO


def prepare_streams() -> None:
    """Let no state of the standard streams end a command.

    A closed one counts as `/dev/null`. What nobody reads any more goes nowhere: the command goes on
    and ends with the exit code that it would have had. Characters outside of the terminal's
    encoding become `?`. A full disk is still an error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _silence(descriptor)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def restart_in_utf8() -> None:
    """Start the command again where Python takes file names for another encoding.

    Names enter fingerprints: another locale must not make other ids. What is printed keeps the
    locale's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    encoding = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:replace"} if sys.stdout else {}
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONUTF8": "1", **encoding})


def drop_output() -> None:
    """Silence stdout if it cannot be written, or Python's own end says so once more."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a test's stream has no descriptor
            _silence(sys.stdout.fileno())


class _Output(io.FileIO):
    """A descriptor whose reader may go."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a reader, a terminal has gone
                raise
            _silence(self.fileno())
            return memoryview(data).nbytes


def _silence(descriptor: int) -> None:
    """Let a descriptor lead to `/dev/null`."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)  # and processes inherit it
    if null != descriptor:
        os.close(null)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream on a descriptor that has the old one's encoding."""
    if stream is not None and stream not in (sys.__stdout__, sys.__stderr__):
        return stream  # a test's
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8",
        errors="replace" if descriptor == 1 else "backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
