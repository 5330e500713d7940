"""Digests of files, read once and remembered."""

import hashlib
import os
import time

import pytest

from bench.system.digests import SETTLED, FingerprintCache, SealedCache


def later(monkeypatch):
    """Let the clock go on until changes of now have settled."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * SETTLED)


def test_a_file_is_read_once_as_long_as_its_size_and_times_stay(bottle, cache, monkeypatch):
    _, now = bottle
    later(monkeypatch)
    digests = FingerprintCache(cache)
    before = now(digests)
    digests.save()
    with monkeypatch.context() as closed:
        closed.setattr(hashlib, "file_digest", None)
        assert now() == before


def test_a_change_is_seen_also_where_the_time_is_put_back(bottle, cache, monkeypatch):
    folder, now = bottle
    later(monkeypatch)
    digests = FingerprintCache(cache)
    before = now(digests)
    digests.save()
    path = folder / "train" / "good" / "000.png"
    stat = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert now() != before


def test_what_changed_a_moment_ago_is_not_kept(bottle, cache):
    _, now = bottle
    digests = FingerprintCache(cache)
    now(digests)
    digests.save()
    assert not (cache / "sha256.json").exists()


@pytest.mark.parametrize("content", ["", "{", '{"a": 3}', "[]", "[" * 10**5, "9" * 5000, "\0"])
def test_a_damaged_cache_of_digests_is_made_again(bottle, cache, content):
    _, now = bottle
    before = now()
    cache.mkdir(exist_ok=True)
    (cache / "sha256.json").write_text(content)
    assert now() == before


def test_any_flipped_bit_in_the_cache_of_digests_changes_no_fingerprint(bottle, cache, monkeypatch):
    _, now = bottle
    later(monkeypatch)
    digests = FingerprintCache(cache)
    before = now(digests)
    digests.save()
    file = cache / "sha256.json"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.unlink()
        file.write_bytes(damaged)
        assert now() == before


def test_two_that_save_one_after_the_other_keep_each_others_entries(cache):
    one, other = (SealedCache(cache / "some.json", "some") for _ in range(2))
    assert one.get("a") is other.get("b") is None
    one.put("a", 1)
    other.put("b", 2)
    one.save()
    other.save()
    again = SealedCache(cache / "some.json", "some")
    assert (again.get("a"), again.get("b")) == (1, 2)
