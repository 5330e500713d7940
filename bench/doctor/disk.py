"""Folders that runs write to: access, space and file system."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.doctor.diagnosis import Diagnosis, diagnose
from bench.planning.plan import Folders
from bench.planning.resources import disk_space
from bench.system.files import READ_ONLY, nearest_existing, sync_folder, write_synced
from bench.system.host import kernel_text
from bench.text import gigabytes

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
"""Warnings by kind of file system."""


def check_write_access(name: str, folder: Path) -> Diagnosis:
    """Try the store's operations in a folder; leave nothing."""
    parent = nearest_existing(folder)
    text, todo = f"{folder} can be written", ""
    if parent != folder:
        text += ", but is not made yet"
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-doctor-") as scratch:
            if _renames_over(Path(scratch)):
                text = f"in {parent} a folder can replace one that holds files"
                todo = f"results could vanish: name another folder with --{name}"
    except OSError as error:
        readable = folder == parent and os.access(folder, os.R_OK | os.X_OK)
        if name == "cache" and readable and error.errno in READ_ONLY:
            text = f"{folder} can be read, not written ({error.strerror})"
            todo = "enough where all images are prepared; else name another folder with --cache"
            return diagnose("folders", name, text, todo)
        text = f"{parent} cannot be written ({error.strerror})"
        todo = f"fix that, or name another folder with --{name}"
    return diagnose("folders", name, text, todo, bad=True)


def _renames_over(scratch: Path) -> bool:
    """Return whether a rename replaces a folder that is not empty."""
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


def check_disk(folders: Folders, needed: Mapping[str, int]) -> Iterator[Diagnosis]:
    """Compare free and needed space of file systems."""
    for disk in disk_space(folders, needed):
        kind = file_system(disk.folder)
        text = f"{gigabytes(disk.free)} free for {' and '.join(disk.options)}"
        text += f" on {kind}" if kind else ""
        text += f", {gigabytes(disk.needed)} needed" if needed else ""
        todo = FILE_SYSTEMS.get(kind, "")
        if disk.free < max(disk.needed, LITTLE_DISK):
            todo = f"make room, or name another folder with --{' and --'.join(disk.options)}"
        yield diagnose("folders", "disk", text, todo, bad=disk.free < disk.needed)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return a folder's file system; empty if unknown."""
    try:
        lines = [line.split() for line in kernel_text(mounts).splitlines()]
    except OSError:
        return ""
    folder = folder.resolve()
    candidates = [
        (len(point.parts), kind)
        for _, mount, kind, *_ in lines
        if folder.is_relative_to(point := Path(mount.replace(r"\040", " ")))
    ]
    # Of several mounts on one point the last hides the others.
    return max(reversed(candidates), key=lambda entry: entry[0], default=(0, ""))[1]
