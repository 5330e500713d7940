"""Where runs write: access, room, and the kind of disk."""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.doctor.diagnosis import Finding, judge
from bench.planning.plan import Folders
from bench.planning.resources import BYTES_OF_A_RUN, to_decode
from bench.planning.state import State
from bench.system.files import sync_folder, write_synced

LITTLE_DISK = 10**9
FILE_SYSTEMS = {
    **dict.fromkeys(
        ("tmpfs", "ramfs"), "this is memory: gone after a restart, and runs have less of it"
    ),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "fuse.sshfs", "fuse.gcsfuse"),
        "over the network renames and flushes are as sound as the server: prefer a local disk",
    ),
}
"""Kinds of file systems that want a word."""


def written(folders: Folders) -> dict[str, Path]:
    """Return the folders that runs write to, by the option that names them."""
    return {"results": folders.results, "cache": folders.cache}


def check_write_access(name: str, folder: Path) -> Finding:
    """Do in a folder, or where it would be made, what the store and the cache do; leave nothing."""
    parent = _existing(folder)
    found, todo = f"{folder} can be written", ""
    if parent != folder:
        found += ", but is not made yet"
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-doctor-") as scratch:
            if _renames_over(Path(scratch)):
                found = f"in {parent} a folder can replace one that holds files"
                todo = f"results could vanish: name another folder with --{name}"
    except OSError as error:
        found = f"{parent} cannot be written ({error.strerror})"
        todo = f"mend that, or name another folder with --{name}"
    return judge("folders", name, found, todo, bad=True)


def _renames_over(scratch: Path) -> bool:
    """Write, flush and rename; return whether a rename replaced a folder that was not empty."""
    for folder in ("staged", "published"):
        (scratch / folder).mkdir()
        write_synced(scratch / folder / "new", b"bench doctor")
        os.rename(scratch / folder / "new", scratch / folder / "file")
    sync_folder(scratch)
    try:
        os.rename(scratch / "staged", scratch / "published")
    except OSError:
        return False
    return True


def bytes_needed(state: State, cache: Path) -> dict[str, int]:
    """Return what the runs that are left will add to each folder."""
    decoding = sum(d.bytes for d in to_decode(state.todo, cache))
    return {"results": len(state.todo) * BYTES_OF_A_RUN, "cache": decoding}


def check_disk(folders: Folders, needed: Mapping[str, int]) -> Iterator[Finding]:
    """Compare free space with what a suite needs, once for each file system."""
    shared: dict[int, list[str]] = defaultdict(list)
    places = {name: _existing(folder) for name, folder in written(folders).items()}
    for name, place in places.items():
        shared[place.stat().st_dev].append(name)
    for names in shared.values():
        free, kind = shutil.disk_usage(places[names[0]]).free, file_system(places[names[0]])
        wanted = sum(needed.get(name, 0) for name in names)
        found = f"{_size(free)} free for {' and '.join(names)}{f' on {kind}' if kind else ''}"
        found += f", {_size(wanted)} needed" if needed else ""
        todo = FILE_SYSTEMS.get(kind, "")
        if free < max(wanted, LITTLE_DISK):
            todo = f"make room, or name another folder with --{' and --'.join(names)}"
        yield judge("folders", "disk", found, todo, bad=free < wanted)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of file system that a folder lies on; empty where that is not known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    folder = folder.resolve()
    over = [
        (len(point.parts), kind)
        for _, where, kind, *_ in lines
        if folder.is_relative_to(point := Path(where.replace(r"\040", " ")))
    ]
    # Of several mounts on one point the last hides the others.
    return max(reversed(over), key=lambda found: found[0], default=(0, ""))[1]


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(f for f in (folder, *folder.parents) if os.path.exists(f))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
