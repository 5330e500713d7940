"""Words that select runs: name patterns, seeds and shards."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from bench.errors import RequestError

_MOST_SEEDS = 1000
Shard = tuple[int, int]
"""Which shard, and of how many."""


def check_seeds(seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """Return a valid number of seeds, or seeds by name; raises RequestError."""
    if isinstance(seeds, tuple):
        if not seeds or len(seeds) > _MOST_SEEDS:
            raise RequestError(f"seeds are 1 to {_MOST_SEEDS} at once, not {len(seeds)}")
        return tuple(dict.fromkeys(seeds))
    if type(seeds) is not int or not 1 <= seeds <= _MOST_SEEDS:
        raise RequestError(
            f"seeds is how many: a whole number from 1 to {_MOST_SEEDS}, not {seeds!r:.80}"
        )
    return seeds


def read_seeds(text: str) -> int | tuple[int, ...]:
    """Read `3` (how many), `0-4` or `0,3` (which); raises RequestError."""
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"\d{1,9}(-\d{1,9})?", word, re.ASCII) for word in words):
        raise RequestError(
            f"--seeds takes how many (3), or which ones (0-4 or 0,3), not {text!r:.80}"
        )
    if len(words) == 1 and "-" not in text:
        return int(text)
    seeds: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise RequestError(f"--seeds {text:.80}: {word} is empty; the smaller seed comes first")
        seeds += span[: _MOST_SEEDS + 1]
    checked = check_seeds(tuple(seeds))
    assert isinstance(checked, tuple)
    return checked


def read_shard(text: str) -> Shard:
    """Read `2/8`; raises RequestError."""
    match = re.fullmatch(r"\s*(\d{1,6})/(\d{1,6})\s*", text, re.ASCII)
    shard, count = (int(match[1]), int(match[2])) if match else (1, 0)
    if shard > count or not count:
        raise RequestError(
            f"--shard takes I/N such as 2/8, with I from 0 to N (N/N is 0/N), not {text!r:.80}"
        )
    return shard, count


def in_shard(run_id: str, shard: Shard) -> bool:
    """Whether a run is of a shard: by its id alone, whatever is stored."""
    index, count = shard
    return int(run_id, 16) % count == index % count


def is_pattern(name: str) -> bool:
    """Whether a name stands for all that fit it."""
    return any(character in name for character in "*?[")


def with_names(
    patterns: tuple[str, ...] | None, known: Iterable[str], what: str
) -> tuple[str, ...] | None:
    """Replace patterns by the known names that fit them; raises RequestError where none does."""
    if patterns is None or not any(map(is_pattern, patterns)):
        return patterns
    among = list(dict.fromkeys(known))
    names: dict[str, None] = {}
    for pattern in patterns:
        fitting = [n for n in among if fnmatchcase(n, pattern)] if is_pattern(pattern) else []
        if is_pattern(pattern) and not fitting:
            raise RequestError(f"no {what} fits {pattern!r:.80}; there are: {', '.join(among)}")
        names |= dict.fromkeys(fitting or [pattern])
    return tuple(names)
