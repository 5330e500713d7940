"""Numbers, units and lists in words."""

import difflib
import hashlib
import math
import textwrap
from collections.abc import Iterable
from datetime import datetime

from bench.system.untrusted import one_line

LONGEST = 40
"""Characters of a name from outside that a figure has room for."""


def shots_in_words(number: int) -> str:
    """Return a number of labelled anomalies in words."""
    return {1: "one shot", 10: "ten shots"}.get(number, f"{number} shots")


def joined(words: Iterable[str]) -> str:
    """Return words as a list; raises ValueError for none."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def brief(text: str, longest: int = LONGEST) -> str:
    """Return an outside name on one line, shortened for figures.

    Names that begin alike are told apart by what is put in place of the rest.
    """
    line = one_line(text).encode(errors="backslashreplace").decode()
    if len(line) <= longest:
        return line
    mark = hashlib.sha256(line.encode()).hexdigest()[:4]
    return f"{line[: longest - 5]}\N{HORIZONTAL ELLIPSIS}{mark}"


def wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Wrap text to lines with indents, paths never broken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def meant(name: str, known: Iterable[str]) -> str:
    """Return a question after a name that is nearly a known one, else nothing."""
    by_case = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), list(by_case), 1, 0.7)
    name_meant = by_case[near[0]] if near else name
    return f" (did you mean {name_meant}?)" if name_meant != name else ""


def counted(number: int, what: str) -> str:
    """Return a number of things in words, as 1 run or 2 runs."""
    return f"{number} {what}" + "s" * (number != 1)


def p_words(p: float) -> str:
    """Write a p value with its letter."""
    text = p_text(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def p_text(p: float) -> str:
    """Return a p value of three decimals, or that it is below the least of them."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign."""
    rounded = round(value, digits) or 0.0  # no minus zero
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def listed(words: list[str]) -> str:
    """Write words as a list; nothing for none."""
    return joined(words) if words else ""


def duration(seconds: float | None) -> str:
    """Write seconds as 8 s, 3 min or 2.5 h; unknown as ?."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def date_of(moment: datetime | None, *, short: bool = True) -> str | None:
    """Write a moment in UTC, to the minute or the second; None for none."""
    if moment is None:
        return None
    written = moment.replace(tzinfo=None).isoformat(" ", "minutes" if short else "seconds")
    return written if short else f"{written}Z".replace(" ", "T")


def hours(seconds: float) -> str:
    """Write a limit of time as it was given: 40 s, 90 min or 24 h."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{round(seconds, 1):g} s"


def gibibytes(count: int | None) -> str:
    """Write bytes of memory; unknown where there are none."""
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"


def gigabytes(count: int) -> str:
    """Write bytes on a disk."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def spanned(middle: float, interval: tuple[float, float] | None) -> str:
    """Write a positive number with its interval, clipped at zero."""
    if interval is None:
        return figures(middle)
    low, high = (figures(max(0.0, end), middle) for end in interval)
    return f"{figures(middle)} ({low} to {high})"


def figures(value: float, like: float | None = None) -> str:
    """Write three significant digits, or the decimals that `like` has."""
    size = float(f"{value if like is None else like:.3g}")
    decimals = 2 - math.floor(math.log10(size)) if size > 0 else 0
    return f"{value:.{min(max(decimals, 0), 4)}f}"


def compact(value: float) -> str:
    """Write a number with three digits at most, thousands in full."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def exact(value: float | None) -> str:
    """Write a number with all its digits; nothing for none."""
    return "" if value is None else repr(value)
