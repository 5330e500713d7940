"""The folder of the sockets: short, private, gone when its command is."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from multiprocessing.process import current_process
from pathlib import Path

import pytest

from bench.doctor.machine import check_processes
from bench.errors import RequestError
from bench.execution.engines import sockets
from bench.execution.engines.sockets import open_socket_folder


@pytest.fixture
def short():
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as folder:
        yield Path(folder)


@pytest.fixture
def parents(monkeypatch: pytest.MonkeyPatch):
    """Give folders that may hold sockets; this process has none yet."""
    monkeypatch.delitem(current_process()._config, "tempdir", raising=False)  # type: ignore[attr-defined]

    def give(*folders: Path) -> None:
        monkeypatch.setattr(sockets, "_parents", lambda: map(str, folders))

    return give


def test_the_folder_is_private_and_made_once(short, parents):
    parents(short)
    folder = open_socket_folder()
    assert folder.parent == short
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert open_socket_folder() == folder


def test_where_no_socket_fits_the_next_folder_is_taken(tmp_path, short, parents):
    long = tmp_path / ("x" * 90)
    long.mkdir(parents=True)
    (tmp_path / "file").touch()
    parents(long, tmp_path / "missing", tmp_path / "file", short)
    assert open_socket_folder().parent == short
    assert not list(long.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EPERM])
@pytest.mark.parametrize("refused", ["folder", "socket"])
def test_a_folder_that_cannot_be_written_is_passed_over(
    short, tmp_path, parents, monkeypatch, number, refused
):
    """And a file system that holds no sockets."""
    mkdtemp, bad = tempfile.mkdtemp, str(tmp_path)

    def refusing(prefix, dir):
        if dir == bad and refused == "folder":
            raise OSError(number, os.strerror(number), dir)
        return mkdtemp(prefix=prefix, dir=dir)

    class Socket(socket.socket):
        def bind(self, address):
            if address.startswith(bad) and refused == "socket":
                raise OSError(number, os.strerror(number))
            super().bind(address)

    monkeypatch.setattr(tempfile, "mkdtemp", refusing)
    monkeypatch.setattr(socket, "socket", Socket)
    parents(tmp_path, short)
    assert open_socket_folder().parent == short
    assert not list(tmp_path.iterdir())


def test_one_line_says_that_no_folder_will_do(tmp_path, parents):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    parents(long, tmp_path / "missing")
    with pytest.raises(RequestError) as caught:
        open_socket_folder()
    message = str(caught.value)
    assert message.isprintable()
    assert (
        f"{long}: AF_UNIX path too long; {tmp_path}/missing: No such file or directory" in message
    )
    assert "set TMPDIR to a folder with a short path that can be written" in message


def test_the_folder_for_temporary_files_comes_first(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert list(sockets._parents())[:3] == [tempfile.gettempdir(), "/run/user/1", "/tmp"]

    def none_usable():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    assert list(sockets._parents())[:2] == ["/run/user/1", "/tmp"]


def test_a_killed_command_leaves_no_folder(short):
    code = (
        "import os, signal\n"
        "from bench.execution.engines.local import LocalEngine\n"
        "with LocalEngine([], ['bench.execution.engines.local'], None):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    long = short / ("x" * 60)
    long.mkdir()
    environment = {**os.environ, "TMPDIR": str(long), "XDG_RUNTIME_DIR": str(short)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        if [*short.iterdir()] == [long] and not [*long.iterdir()]:
            return
        time.sleep(0.05)
    pytest.fail(f"left: {[*short.rglob('*')]}")


def test_the_doctor_says_where_sockets_are_and_why_a_process_does_not_start(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    answer = {"process": {"seconds": 0.21, "sockets": "/tmp/bench-sockets-1"}}
    (diagnosis,) = check_processes(answer)
    assert (diagnosis.state, diagnosis.found) == ("ok", "one starts in 0.2 s, sockets in /tmp")
    monkeypatch.setenv("TMPDIR", "/scratch/me")
    (diagnosis,) = check_processes(answer)
    assert diagnosis.found.endswith("sockets in /tmp, since TMPDIR=/scratch/me cannot hold them")
    (diagnosis,) = check_processes({"process": {"error": "no process can be started"}})
    assert (diagnosis.state, diagnosis.found) == ("bad", "no process can be started")
    assert not list(check_processes({"error": "no torch"}))
