"""Obtaining a dataset, against a server on loopback that does all that servers do."""

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.data import catalog
from bench.data.catalog import CategoryFacts, Dataset, SourceArchive
from bench.data.fetch import dataset as fetch
from bench.data.fetch import licences
from bench.data.fetch.transfer import RetryPolicy
from bench.data.folds import FoldManifest
from bench.data.layouts import list_category
from bench.data.listing import fingerprint
from bench.errors import MissingData, StoreError
from bench.system.digests import SETTLED, FingerprintCache

HURRY = RetryPolicy(connect=5, read=5, pause=0, fruitless=2, attempts=20)
IMPATIENT = replace(HURRY, connect=1, read=0.5)


def archive_bytes() -> bytes:
    """A dataset of one category in MVTec's layout, 300 kB of noise."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name in ("nut/train/good/0.png", "nut/test/good/1.png", "nut/test/bad/2.png", "more"):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return buffer.getvalue()


CONTENT = archive_bytes()
CHUNK = 1 << 14
"""What comes last and is not so much is lost when a connection breaks."""
HALF, FIFTH = (len(CONTENT) // n // CHUNK * CHUNK for n in (2, 5))


class Server(ThreadingHTTPServer):
    """Serves CONTENT in the way that the path names, and remembers what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        """The path and the Range of each request."""
        self.sent = 0
        self.go_on = threading.Event()

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/tiny.tar.xz"

    def handle_error(self, *_: Any) -> None:
        """Clients go away; that is what is tested."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        way = self.path.split("/")[1]
        self.server.asked.append((way, self.headers.get("Range", "")))
        self.close_connection = True
        assert self.headers["Accept-Encoding"] == "identity"
        getattr(self, way.replace("-", "_"))()

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, data: bytes) -> None:
        self.server.sent += len(data)  # first, since the client may be done before we are
        self.wfile.write(data)

    def start(self) -> int:
        """Answer a request for a part as the standard says."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        length = {"Content_Length": len(CONTENT) - first}
        if asked:
            said = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.head(206, Content_Range=said, **length)
        else:
            self.head(200, **length)
        return first

    def good(self) -> None:
        self.body(CONTENT[self.start() :])

    def no_ranges(self) -> None:
        self.head(200, Content_Length=len(CONTENT))
        self.body(CONTENT)

    def unsized(self) -> None:
        self.head(200)
        self.body(CONTENT)

    def chunked(self) -> None:
        self.head(200, Transfer_Encoding="chunked")
        for at in range(0, len(CONTENT), 1 << 16):
            piece = CONTENT[at : at + (1 << 16)]
            self.body(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.body(b"0\r\n\r\n")

    def cut(self) -> None:
        """Cut the first request in the middle."""
        first = self.start()
        self.body(CONTENT[first:] if first else CONTENT[:HALF])

    def cut_unsized(self) -> None:
        self.head(200)
        self.body(CONTENT[:HALF])

    def bits(self) -> None:
        """A fifth at a time."""
        first = self.start()
        self.body(CONTENT[first : first + FIFTH])

    def capped(self) -> None:
        """Answers with less than was asked for, as the standard allows."""
        first = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        piece = CONTENT[first : first + HALF]
        said = f"bytes {first}-{first + len(piece) - 1}/{len(CONTENT)}"
        if "Range" in self.headers:
            self.head(206, Content_Range=said, Content_Length=len(piece))
            self.body(piece)
        else:
            self.cut()

    def stalls(self) -> None:
        self.start()
        self.body(CONTENT[:1000])
        self.server.go_on.wait(20)

    def drip(self, data: bytes) -> None:
        """Send a byte now and then: every read brings something, and the end never comes."""
        for n in range(400):
            self.body(data[n % len(data) :][:1])
            if self.server.go_on.wait(0.05):
                return

    def trickles(self) -> None:
        self.drip(CONTENT[self.start() :])

    def trickles_after_half(self) -> None:
        first = self.start()
        self.body(CONTENT[first:HALF])
        self.drip(CONTENT[max(first, HALF) :])

    def recovers(self) -> None:
        """Down for four requests."""
        if len(self.server.asked) < 5:
            self.broken()
        else:
            self.good()

    def silent(self) -> None:
        self.server.go_on.wait(20)

    def slow(self) -> None:
        """Sends half, and the rest when it is told to."""
        first = self.start()
        self.body(CONTENT[first:HALF])
        self.server.go_on.wait(20)
        self.body(CONTENT[max(first, HALF) :])

    def longer(self) -> None:
        self.head(200, Content_Length=len(CONTENT) + 10)
        self.body(CONTENT)

    def shorter(self) -> None:
        self.head(200, Content_Length=len(CONTENT) - 10)
        self.body(CONTENT)

    def wrong(self) -> None:
        first = self.start()
        self.body(bytes(len(CONTENT) - first))

    def endless(self) -> None:
        self.head(200)
        for _ in range(100):
            self.body(bytes(1 << 16))

    def apology(self) -> None:
        self.head(200, Content_Type="text/html")
        self.body(b"<html>This link has expired</html>")

    def gone(self) -> None:
        self.head(404, Content_Length=5)
        self.body(b"gone\n")

    def broken(self) -> None:
        self.head(500, Content_Length=0)

    def moved(self) -> None:
        self.head(302, Location="/good/tiny.tar.xz", Content_Length=0)

    def moved_endlessly(self) -> None:
        self.head(302, Location="/good/tiny.tar.xz")
        for _ in range(100):
            self.body(bytes(1 << 16))

    def circle(self) -> None:
        self.head(302, Location=self.path, Content_Length=0)

    def to_file(self) -> None:
        self.head(302, Location="file:///etc/passwd", Content_Length=0)

    def wrong_range(self) -> None:
        """Sends the start and calls it the rest, or everything where no part is asked for."""
        if "Range" in self.headers:
            self.head(206, Content_Range=f"bytes 0-9/{len(CONTENT)}", Content_Length=10)
            self.body(CONTENT[:10])
        else:
            self.good()

    def no_such_range(self) -> None:
        self.head(416, Content_Length=0)

    def other_size(self) -> None:
        self.head(206, Content_Range=f"bytes {HALF}-{HALF + 9}/{HALF + 10}", Content_Length=10)
        self.body(bytes(10))

    def packed(self) -> None:
        data = gzip.compress(CONTENT)
        self.head(200, Content_Encoding="gzip", Content_Length=len(data))
        self.body(data)

    def nonsense(self) -> None:
        self.wfile.write(b"\0\xff nonsense\r\n\r\n")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def tiny(*urls: str) -> Dataset:
    return Dataset(
        name="tiny",
        title="Tiny",
        layout="mvtec",
        categories={"nut": CategoryFacts(1, 1, {"bad": 1}, None)},
        licence="CC0",
        licence_url="https://example.org/cc0",
        source="https://example.org/tiny",
        archive=SourceArchive(
            entries=("nut", "readme.txt"),
            unpacked=400_000,
            urls=urls or ("http://127.0.0.1:1/tiny.tar.xz",),
            bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        ),
    )


@dataclass
class Place:
    """Where a download goes."""

    cache: Path
    server: Server

    @property
    def part(self) -> Path:
        (lock,) = self.folder.glob("*.lock")
        return lock.with_suffix(".part")

    @property
    def folder(self) -> Path:
        return self.cache / "downloads"

    def begin(self, content: bytes) -> None:
        """Leave what a dead attempt left."""
        self.folder.mkdir(parents=True)
        digest = hashlib.sha256(CONTENT).hexdigest()[:16]
        (self.folder / f"{digest}-tiny.tar.xz.part").write_bytes(content)

    def download(self, *ways: str, policy: RetryPolicy = HURRY) -> list[str]:
        """Download, check, and return what was said."""
        said: list[str] = []
        dataset = tiny(*(self.server.url(w) if ":" not in w else w for w in ways))
        assert dataset.archive
        file = fetch.download(
            dataset, dataset.archive, self.folder, (), said.append, lambda a, b: None, policy
        )
        assert file.read_bytes() == CONTENT
        assert not list(self.folder.glob("*.part"))
        return said


@pytest.fixture
def place(cache: Path, server: Server) -> Place:
    return Place(cache, server)


# --- download -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["good", "no-ranges", "unsized", "chunked", "cut", "bits", "capped", "moved",
            "moved-endlessly", "wrong-range"],
)  # fmt: skip
@pytest.mark.parametrize("begun", [0, 1000], ids=["anew", "continued"])
def test_a_server_that_has_the_file_gives_it(place: Place, way: str, begun: int) -> None:
    if begun:
        place.begin(CONTENT[:begun])
    place.download(way)


def test_only_what_is_missing_is_asked_for(place: Place) -> None:
    place.download("cut")
    assert place.server.asked == [("cut", ""), ("cut", f"bytes={HALF}-")]
    assert place.server.sent == len(CONTENT)


def test_a_server_is_asked_again_while_that_brings_something(place: Place) -> None:
    place.download("bits")
    assert len(place.server.asked) == -(-len(CONTENT) // FIFTH)
    assert place.server.sent == len(CONTENT)


REFUSED = {
    "stalls": "fails",
    "silent": "fails",
    "trickles": "is too slow",
    "cut-unsized": "ends too early",
    "longer": "has a file of",
    "shorter": "has a file of",
    "wrong": "another checksum",
    "endless": "sends too much",
    "apology": "ends too early",
    "gone": "answers 404",
    "broken": "answers 500",
    "circle": "TooManyRedirects",
    "to-file": "InvalidSchema",
    "packed": "does not send the file as it is",
    "nonsense": "fails",
    "http://127.0.0.1:1/tiny.tar.xz": "ConnectionError",
    "http://127.0.0.1:99999/tiny.tar.xz": "fails",
}


@pytest.mark.parametrize(("way", "said"), REFUSED.items(), ids=REFUSED)
def test_the_next_server_is_asked_when_one_fails(place: Place, way: str, said: str) -> None:
    assert any(said in line for line in place.download(way, "good", policy=IMPATIENT))
    assert place.server.asked[-1][0] == "good"


@pytest.mark.parametrize("way", [*REFUSED, "no-such-range", "other-size"])
def test_what_was_here_survives_a_server_that_fails(place: Place, way: str) -> None:
    place.begin(CONTENT[:HALF])
    place.download(way, "good", policy=IMPATIENT)
    assert place.server.asked[-1][0] == "good"
    if way not in ("wrong", "stalls"):
        assert place.server.asked[-1][1] == f"bytes={HALF}-"


def test_a_server_that_becomes_too_slow_is_left_with_what_it_gave(place: Place) -> None:
    place.download("trickles-after-half", "good", policy=IMPATIENT)
    assert place.server.asked == [
        ("trickles-after-half", ""),
        ("trickles-after-half", f"bytes={HALF}-"),
        ("good", f"bytes={HALF}-"),
    ]


def test_pauses_grow_so_that_an_outage_of_seconds_is_sat_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    place.download("recovers", policy=RetryPolicy())
    assert pauses == [2, 4, 8, 16]
    pauses.clear()
    shutil.rmtree(place.folder)
    with pytest.raises(MissingData):
        place.download("broken", policy=RetryPolicy(longest=5))
    assert pauses == [2, 4, 5, 5]


def test_all_failures_are_one_line_with_the_remedy(place: Place) -> None:
    place.begin(CONTENT[:HALF])
    with pytest.raises(MissingData) as caught:
        place.download("gone", "apology", "broken")
    text = str(caught.value)
    for word in ("404", "500", "https://example.org/tiny", "--archive FILE", "127.0.0.1"):
        assert word in text
    assert "\n" not in text
    assert place.part.read_bytes() == CONTENT[:HALF]


@pytest.mark.parametrize(
    "left",
    [bytes(HALF), bytes(len(CONTENT)), bytes(len(CONTENT) + 1)],
    ids=["half", "whole", "more"],
)
def test_a_bad_beginning_is_found_and_thrown_away(place: Place, left: bytes) -> None:
    place.begin(left)
    place.download("good")
    assert place.server.asked[-1] == ("good", "")


def test_a_whole_file_is_checked_and_used_without_asking(place: Place) -> None:
    place.begin(CONTENT)
    place.download("gone")
    place.download("gone")
    assert place.server.sent == 0
    (whole,) = place.folder.glob("*.xz")
    whole.write_bytes(CONTENT[:-1] + b"x")
    assert any("damaged" in line for line in place.download("good"))


def test_a_part_that_is_no_file_is_one_line(place: Place) -> None:
    place.begin(b"")
    (part,) = place.folder.iterdir()
    part.unlink()
    part.symlink_to("/tmp/nowhere")
    with pytest.raises(StoreError, match="cannot write"):
        place.download("good")
    part.unlink()
    part.mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        place.download("good")


def test_a_full_disk_keeps_what_there_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        if os.fstat(descriptor).st_size > HALF:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10_000])

    write = os.write
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        place.download("good")
    monkeypatch.undo()
    kept = place.part.stat().st_size
    assert kept > HALF
    place.download("good")
    assert place.server.asked[-1] == ("good", f"bytes={kept}-")


def test_no_download_begins_without_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place.cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=HALF))
    with pytest.raises(StoreError, match="make room, or name another folder with --cache"):
        place.download("good")
    shutil.rmtree(place.folder)
    place.begin(CONTENT[:-HALF])
    place.download("good")


CHILD = """
import sys
from pathlib import Path
from tests.data.fetch.test_dataset import tiny
from bench.data.fetch.download import download
from bench.data.fetch.transfer import RetryPolicy
from dataclasses import replace
url, folder, size, sha = sys.argv[1:]
dataset = tiny(url)
archive = replace(dataset.archive, bytes=int(size), sha256=sha)
print(download(dataset, archive, Path(folder), (), print, lambda a, b: None,
                     RetryPolicy()), flush=True)
"""


def child(place: Place, way: str) -> subprocess.Popen[bytes]:
    sha = hashlib.sha256(CONTENT).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, place.server.url(way), str(place.folder), str(len(CONTENT)),
         sha], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE,
    )  # fmt: skip


INTERRUPTED = """
import signal, sys
from dataclasses import replace
from tests.data.fetch.test_dataset import tiny
from bench.cli import main
from bench.data import catalog
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
url, size, sha, *arguments = sys.argv[1:]
card = tiny(url)
archive = replace(card.archive, bytes=int(size), sha256=sha)
catalog.DATASETS["tiny"] = replace(card, archive=archive)
main(["data", "fetch", "tiny", "--accept-licence", *arguments])
"""


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def test_a_killed_download_is_continued(place: Place) -> None:
    with child(place, "slow") as process:
        until(lambda: [p for p in place.folder.glob("*.part") if p.stat().st_size >= HALF])
        process.kill()
    assert place.part.read_bytes() == CONTENT[:HALF]
    place.download("good")
    assert place.server.asked == [("slow", ""), ("good", f"bytes={HALF}-")]


def test_an_interrupted_fetch_says_that_it_can_be_continued(place: Place, tmp_path: Path) -> None:
    sha = hashlib.sha256(CONTENT).hexdigest()
    arguments = ["--data", str(tmp_path / "data"), "--cache", str(place.cache)]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, place.server.url("slow"), str(len(CONTENT)), sha,
         *arguments], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        until(lambda: [p for p in place.folder.glob("*.part") if p.stat().st_size >= HALF])
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert said == b"bench: stopped; the same command continues\n"
    assert process.returncode == 130
    place.download("good")
    assert place.server.asked == [("slow", ""), ("good", f"bytes={HALF}-")]


def test_two_downloads_at_once_are_one(place: Place) -> None:
    with child(place, "slow") as first:
        until(lambda: place.server.asked)
        with child(place, "good") as second:
            assert second.stdout
            assert b"waiting" in second.stdout.readline()
            place.server.go_on.set()
            outputs = [p.communicate()[0].splitlines() for p in (first, second)]
    assert outputs[0][-1] == outputs[1][-1]
    assert Path(os.fsdecode(outputs[0][-1])).read_bytes() == CONTENT
    assert place.server.asked == [("slow", "")]


# --- the whole way --------------------------------------------------------------------------------


@dataclass
class Desk:
    """A command line in an empty folder."""

    data: Path
    cache: Path
    capsys: pytest.CaptureFixture[str]

    def fetch(self, *arguments: object) -> tuple[int, str, str]:
        command = ["data", "fetch", "--data", self.data, "--cache", self.cache, *arguments]
        try:
            main([str(word) for word in command])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        assert err.count("\n") == (1 if code == 2 else 0)
        assert (code, bool(err)) in ((0, False), (1, False), (2, True))
        assert not list(self.data.glob(".bench-fetch-*"))
        return code, out, err

    def refuses(self, said: str, *arguments: object) -> None:
        code, _, err = self.fetch(*arguments)
        assert code == 2
        assert said in err


@pytest.fixture
def desk(
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    monkeypatch.setitem(catalog.DATASETS, "tiny", tiny(server.url("gone"), server.url("good")))
    monkeypatch.setattr(fetch, "RetryPolicy", lambda: HURRY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Desk(tmp_path / "data", cache, capsys)


def test_a_dataset_comes_from_the_second_address(desk: Desk, server: Server) -> None:
    code, out, _ = desk.fetch("tiny", "--accept-licence")
    assert code == 0
    for word in ("Tiny", "CC0 https://example.org/cc0", "https://example.org/tiny", "404", "100 %"):
        assert word in out
    files = list_category(catalog.DATASETS["tiny"], "nut", desk.data, desk.cache).files
    assert len(files) == 3
    assert sorted(p.name for p in desk.data.iterdir()) == ["licences.json", "tiny"]
    assert "tiny.tar.xz may be deleted once tiny is in place" in out
    assert [p.name for p in (desk.data / "tiny").iterdir()] == ["nut"]
    assert (desk.data / "tiny").stat().st_mode & 0o555 == 0o555
    desk.refuses("`bench data verify tiny`, or move it away", "tiny")
    shutil.rmtree(desk.data / "tiny")
    sent = server.sent
    assert desk.fetch("tiny")[0] == 0
    assert server.sent == sent


def test_mirrors_go_first(desk: Desk, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "tiny.tar.xz"
    file.write_bytes(CONTENT)
    nowhere = (tmp_path / "nowhere").as_uri()
    code, out, _ = desk.fetch(
        "tiny",
        "--accept-licence",
        "--mirror",
        "file:///a%00b",
        "--mirror",
        nowhere,
        "--mirror",
        file.as_uri(),
    )
    assert code == 0
    assert out.count("cannot be read") == 2
    assert "deleted" not in out  # it is the user's own
    assert server.asked == []
    shutil.rmtree(desk.data / "tiny")
    desk.fetch("tiny", "--mirror", server.url("no-ranges"))
    assert [way for way, _ in server.asked] == ["no-ranges"]


def test_a_password_in_a_mirror_is_not_shown(desk: Desk, server: Server) -> None:
    url = server.url("gone").replace("http://", "http://me:secret@")
    code, out, err = desk.fetch("tiny", "--accept-licence", "--mirror", url)
    assert code == 0
    assert "secret" not in out + err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "cannot fetch 'nosuch': it is not one of"),
        (["../x"], "cannot fetch '../x'"),
        (["synthetic"], "there is nothing to fetch"),
        (["tiny"], "give --accept-licence"),
        (["tiny", "--mirror", "ftp://x/y"], "--mirror takes"),
        (["tiny", "--mirror", "x"], "--mirror takes"),
        (["tiny", "--mirror", "http://["], "--mirror takes"),
        (["tiny", "--mirror", "file://elsewhere/x"], "--mirror takes"),
        (["tiny", "--mirror", "http://x", "--archive", "x"], "--mirror is for"),
        (["head_ct", "--mirror", "http://x"], "--mirror is for"),
        (["tiny", "--archive", "nowhere"], "there is no archive nowhere"),
        (["tiny", "--archive", "."], ". is not a regular file"),
        (["tiny", "--archive", "/dev/null"], "/dev/null is not a regular file"),
        (["head_ct"], "https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage"),
        (["brain_mri"], "bench data fetch brain_mri --archive FILE"),
    ],
)
def test_a_bad_request_is_one_line(desk: Desk, arguments: list[str], said: str) -> None:
    desk.refuses(said, *arguments)
    assert not desk.data.exists()


def test_an_archive_with_a_known_checksum_must_have_it(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "tiny.tar.xz"
    for content, said in ((CONTENT[:-1], "bytes"), (CONTENT[:-1] + b"x", "sha256 differs")):
        file.write_bytes(content)
        desk.refuses(said, "tiny", "--accept-licence", "--archive", file)
    file.write_bytes(CONTENT)
    assert desk.fetch("tiny", "--archive", file)[0] == 0
    assert not list(desk.cache.glob("downloads/*"))


def test_nothing_is_overwritten(desk: Desk, server: Server) -> None:
    desk.data.mkdir()
    (desk.data / "tiny").symlink_to("nowhere")
    desk.refuses("exists: check it with", "tiny", "--accept-licence")
    assert server.asked == []


def test_what_the_dead_left_is_cleared_and_nothing_else(desk: Desk) -> None:
    (desk.data / ".bench-fetch-dead" / "tiny").mkdir(parents=True)
    (desk.data / ".staging-mine").mkdir()
    assert desk.fetch("tiny", "--accept-licence")[0] == 0
    assert [p.name for p in desk.data.glob(".*")] == [".staging-mine"]


@contextmanager
def held(
    folder: Path, then: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Hold the lock of a folder until somebody waits for it, and do something before that ends."""
    flock = fcntl.flock
    lock = os.open(folder, os.O_RDONLY)
    flock(lock, fcntl.LOCK_EX)

    def finished_meanwhile(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            then()
            flock(lock, fcntl.LOCK_UN)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finished_meanwhile)
    yield
    os.close(lock)


def test_a_second_fetch_waits_and_then_finds_it_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    licences.record_acceptance(tiny(), desk.data, print)
    with held(desk.data, (desk.data / "tiny").mkdir, monkeypatch):
        code, out, err = desk.fetch("tiny")
    assert code == 2
    assert "waiting" in out
    assert "exists" in err


@pytest.mark.parametrize("free", [len(CONTENT), 10**9 + HALF], ids=["neither", "not for both"])
def test_without_room_to_unpack_nothing_is_downloaded(
    desk: Desk, server: Server, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    usage = shutil.disk_usage(desk.data.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    (card,) = [catalog.DATASETS["tiny"]]
    assert card.archive
    big = replace(card, archive=replace(card.archive, unpacked=10**9))
    monkeypatch.setitem(catalog.DATASETS, "tiny", big)
    desk.refuses("needs 1.0 GB: make room", "tiny", "--accept-licence")
    assert server.asked == []


def test_what_is_downloaded_already_needs_no_room_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.fetch("tiny", "--accept-licence")[0] == 0
    shutil.rmtree(desk.data / "tiny")
    usage = shutil.disk_usage(desk.data.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=400_000))
    assert desk.fetch("tiny")[0] == 0


@pytest.mark.parametrize("blocked", ["data", "cache"])
def test_a_folder_that_cannot_be_written_is_one_line(desk: Desk, blocked: str) -> None:
    (desk.data.parent / blocked).write_text("a file, which root cannot write into either")
    code, _, err = desk.fetch("tiny", "--accept-licence")
    assert code == 2
    assert "cannot write" in err


def test_an_archive_of_something_else_leaves_nothing(desk: Desk, server: Server) -> None:
    card = catalog.DATASETS["tiny"]
    other = replace(card, categories={"bolt": CategoryFacts(1, 1, {"bad": 1}, None)})
    catalog.DATASETS["tiny"] = other  # the fixture puts it back
    desk.refuses("is not Tiny: it needs nut, readme.txt", "tiny", "--accept-licence")
    assert not (desk.data / "tiny").exists()


def test_counts_are_compared_and_images_only_hashed_where_that_tells_something(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(FingerprintCache, "sha256", never)
    card = catalog.DATASETS["tiny"]
    catalog.DATASETS["tiny"] = replace(
        card, categories={"nut": CategoryFacts(2, 1, {"bad": 1}, None)}
    )
    desk.refuses("(nut has 1 of 2 normal training images)", "tiny", "--accept-licence")
    catalog.DATASETS["tiny"] = card
    assert desk.fetch("tiny")[0] == 0


# --- licences -------------------------------------------------------------------------------------


def test_an_acceptance_is_recorded_and_not_asked_again(desk: Desk) -> None:
    desk.refuses("give --accept-licence", "tiny")
    assert not desk.data.exists()
    desk.fetch("tiny", "--accept-licence")
    record = json.loads((desk.data / "licences.json").read_text())["tiny"]
    assert record.keys() == {"licence", "url", "accepted", "bench"}
    assert record["accepted"].endswith("+00:00")
    shutil.rmtree(desk.data / "tiny")
    assert "Licence" not in desk.fetch("tiny")[1]
    shutil.rmtree(desk.data / "tiny")
    catalog.DATASETS["tiny"] = replace(catalog.DATASETS["tiny"], licence="CC BY")
    desk.refuses("give --accept-licence", "tiny")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"tiny": []}', b'{"tiny": {"licence": []}}', b"\xff\xfe",
     b"[" * 100_000, b'{"other": 1, "tiny": "CC0"}', b"1" * 10_000, b" " * (2 << 20)],
    ids=range(11),
)  # fmt: skip
def test_a_damaged_record_is_asked_anew(desk: Desk, content: bytes) -> None:
    desk.data.mkdir()
    (desk.data / "licences.json").write_bytes(content)
    desk.refuses("give --accept-licence", "tiny")
    assert licences.is_accepted(tiny(), desk.data) is False
    said: list[str] = []
    licences.record_acceptance(tiny(), desk.data, said.append)
    assert licences.is_accepted(tiny(), desk.data)
    kept = desk.data / "licences.json.damaged"
    if content != b'{"tiny": {"licence": []}}':
        assert kept.read_bytes() == content
        assert str(kept) in said[0]


def test_every_damaged_record_is_kept(desk: Desk) -> None:
    desk.data.mkdir()
    file = desk.data / "licences.json"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        licences.record_acceptance(tiny(), desk.data, print)
    assert {p.read_bytes() for p in desk.data.glob("*.damaged*")} == {b"one", b"two"}
    assert licences.is_accepted(tiny(), desk.data)


def test_other_acceptances_are_kept(desk: Desk) -> None:
    licences.record_acceptance(replace(tiny(), name="other"), desk.data, print)
    licences.record_acceptance(tiny(), desk.data, print)
    assert licences.is_accepted(replace(tiny(), name="other"), desk.data)


def test_two_acceptances_at_once_are_both_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(tiny(), name="other")
    licences.record_acceptance(other, desk.data, print)
    record = (desk.data / "licences.json").read_bytes()
    (desk.data / "licences.json").unlink()
    with held(desk.data, lambda: (desk.data / "licences.json").write_bytes(record), monkeypatch):
        licences.record_acceptance(tiny(), desk.data, print)
    assert licences.is_accepted(tiny(), desk.data)
    assert licences.is_accepted(other, desk.data)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_record_that_is_no_file_is_moved_aside(desk: Desk, make: Callable[[Path], None]) -> None:
    desk.data.mkdir()
    make(desk.data / "licences.json")
    assert desk.fetch("tiny", "--accept-licence")[0] == 0
    assert (desk.data / "licences.json.damaged").exists()
    assert (desk.data / "licences.json").is_file()


def test_where_nobody_can_answer_the_option_is_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as it is for `bench data fetch tiny <&-`
    desk.refuses("give --accept-licence", "tiny")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("y\n", 2), ("\n", 2), ("no\n", 2)])
def test_on_a_terminal_the_word_is_asked_for(
    desk: Desk, typed: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    got, out, err = desk.fetch("tiny")
    assert got == code
    assert "Type yes to accept" in out
    assert ("was not accepted: nothing is done" in err) == bool(code)
    assert desk.data.exists() == (not code)


# --- archives that take an account ----------------------------------------------------------------


BRAIN = {f"yes/Y{n}.jpg": b"tumor%d" % n for n in range(3)} | {
    f"no/{n}.jpg": b"normal%d" % n for n in range(3)
}


def zip_of(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


@pytest.fixture
def brain(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Brain-MRI with six images, one of them a test normal."""
    manifest = FoldManifest({}, {}, {"no/0.jpg"})
    monkeypatch.setattr("bench.data.layouts.read_manifest", lambda _: manifest)
    card = replace(
        catalog.BRAIN_MRI, categories={"brain_mri": CategoryFacts(2, 1, {"tumor": 3}, None)}
    )
    for name, content in BRAIN.items():
        file = tmp_path / "official/brain_mri" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    listing = list_category(card, "brain_mri", tmp_path / "official", desk.cache)
    card = replace(card, fingerprint=fingerprint(listing, FingerprintCache(desk.cache)))
    monkeypatch.setitem(catalog.DATASETS, "brain_mri", card)
    return card


LAYOUTS = {
    "at the top, with a shrunken copy": BRAIN
    | {f"brain_tumor_dataset/{name}": b"small" for name in BRAIN},
    "one folder deep": {f"archive/{name}": content for name, content in BRAIN.items()},
    "one folder deep, with less at the top": {"yes/Y0.jpg": b"small"}
    | {f"archive/{name}": content for name, content in BRAIN.items()},
}


@pytest.mark.parametrize("members", LAYOUTS.values(), ids=LAYOUTS)
def test_a_zip_downloaded_by_hand_is_taken(
    desk: Desk, brain: Dataset, tmp_path: Path, members: dict[str, bytes]
) -> None:
    file = zip_of(tmp_path / "archive.zip", members)
    desk.refuses("give --accept-licence", "brain_mri", "--archive", file)
    code, out, _ = desk.fetch("brain_mri", "--archive", file, "--accept-licence")
    assert code == 0
    assert "kaggle" in out
    home = desk.data / "brain_mri"
    there = {p.relative_to(home).as_posix(): p.read_bytes() for p in home.rglob("*.jpg")}
    assert there == BRAIN
    assert sorted(p.name for p in home.iterdir()) == ["no", "yes"]
    assert "is the official copy of Brain-MRI" in desk.fetch("brain_mri")[1]
    desk.refuses("exists", "brain_mri", "--archive", file)


def test_another_copy_is_refused_with_what_differs(
    desk: Desk, brain: Dataset, tmp_path: Path
) -> None:
    fewer = {name: content for name, content in BRAIN.items() if name != "no/2.jpg"}
    other = BRAIN | {"no/2.jpg": b"another"}
    for members, said in (
        (fewer, "(brain_mri has 1 of 2 normal training images)"),
        (other, "(as many images, but other content)"),
        ({"x": b""}, "is not Brain-MRI: it needs yes, no"),
        (
            {name.replace("yes/", "yes/x/"): content for name, content in BRAIN.items()},
            "is not Brain-MRI: brain_mri at brain_mri has no anomalous test images",
        ),
        ({"yes/../../x": b""}, "leads out"),
    ):
        file = zip_of(tmp_path / "archive.zip", members)
        desk.refuses(said, "brain_mri", "--archive", file, "--accept-licence")
        assert not (desk.data / "brain_mri").exists()
    file.write_bytes(b"no zip")
    desk.refuses("neither a zip nor a tar that is plain", "brain_mri", "--archive", file)


def test_what_was_put_there_by_hand_is_checked(
    desk: Desk, brain: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)
    shutil.copytree(tmp_path / "official", desk.data)
    code, out, _ = desk.fetch("brain_mri")
    assert code == 0
    assert "is the official copy" in out
    assert f"Licence: {brain.licence} {brain.source}" in " ".join(out.split())
    assert str(desk.data / "brain_mri/yes/Y0.jpg") in FingerprintCache(desk.cache)._known
    (desk.data / "brain_mri/yes/Y0.jpg").unlink()
    code, out, _ = desk.fetch("brain_mri")
    assert code == 1
    assert "an unofficial copy: brain_mri has 2 of 3 anomalous images" in out
    shutil.rmtree(desk.data / "brain_mri/yes")
    desk.refuses("brain_mri/yes and", "brain_mri")


@pytest.mark.parametrize("prefix", ["", "head_ct/"])
def test_the_real_head_ct_comes_out_of_a_zip(
    desk: Desk, shared: Path, tmp_path: Path, prefix: str
) -> None:
    source = shared / "data/head_ct"
    members = {f"{prefix}head_ct/{p.name}": p.read_bytes() for p in source.glob("head_ct/*.png")}
    members["labels.csv"] = (source / "labels.csv").read_bytes()
    file = zip_of(tmp_path / "archive.zip", members)
    assert desk.fetch("head_ct", "--archive", file, "--accept-licence")[0] == 0
    assert len(list(desk.data.glob("head_ct/head_ct/*.png"))) == 200
    assert (desk.data / "head_ct/labels.csv").is_file()
