"""Reproducible SVG from matplotlib, safe for a strict policy."""

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Any

from bench.analysis.statistics import clipped

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
)  # fmt: skip
"""Okabe and Ito's palette, told apart by all common kinds of sight."""
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 3)), ":")
"""Shapes and strokes go with the colours: none tells a thing alone."""
SLOTS = {
    "ATAC-Net": 0, "DevNet": 1, "DRA": 2, "SAOE": 3, "CutMix": 4, "shortcut": 6, "SPADE": 8,
    "PaDiM": 9, "PatchCore": 10, "MemSeg": 11, "Patch-SVDD": 12,
}  # fmt: skip
"""Methods that look the same in every figure."""
NORMAL, ANOMALOUS = BLUE, VERMILION
WIDTH = 3.7
"""Inches of a figure; as many as a phone shows without shrinking its letters."""
_PRINTS: ContextVar[dict[str, dict[str, bytes]]] = ContextVar("prints")
_STYLE: dict[str, Any] = {
    "pdf.fonttype": 42,  # letters of their own, embedded
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollars is a name
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 7,
}


def marks(methods: Iterable[str]) -> list[dict[str, Any]]:
    """Return each method's colour, marker and stroke.

    Beyond seven a colour comes again with another marker and stroke, for 49 methods at most.
    """
    names = list(methods)
    taken = {SLOTS.get(n) for n in names}
    free = (i for i in range(49) if i not in taken)
    slots = [SLOTS[n] if n in SLOTS else next(free) for n in names]
    shapes = [(i + 3 * (i // 7)) % 7 for i in slots]
    return [{"color": PALETTE[i % 7], "marker": MARKERS[shape], "linestyle": LINES[shape]}
            for i, shape in zip(slots, shapes, strict=True)]  # fmt: skip


@contextmanager
def plotting(salt: str) -> Iterator[Any]:
    """Yield pyplot in our style; `salt` makes ids unique."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style: Any = {**_STYLE, "svg.hashsalt": salt}
    with plt.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # browsers have fonts of their own
        yield plt


def panels(
    plt: Any, height: float, down: int = 1, across: int = 1, *, left: float = 0.57,
    top: float = 0.1, above: float = 0.0, beside: float = 0.35,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """Return a figure and its axes; measures are in inches.

    An axis is `height` high, with `above` over each for a title and `beside` between two; `top`
    holds a legend. Places are reckoned here: matplotlib would draw all text twice to find them.
    """
    right, bottom = 0.1, 0.45
    total = top + down * (above + height) + (down - 1) * 0.25 + bottom
    width = (WIDTH - left - right - (across - 1) * beside) / across
    figure, axes = plt.subplots(down, across, figsize=(WIDTH, total), squeeze=False)
    figure.subplots_adjust(
        left / WIDTH, bottom / total, 1 - right / WIDTH, 1 - (top + above) / total,
        beside / width, (above + 0.25) / height,
    )  # fmt: skip
    return figure, list(axes.flat)


def legend(figure: Any, axis: Any, columns: int) -> None:
    """Put an axis's legend on top of its figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", ncols=columns, borderpad=0, borderaxespad=0.4
    )


def legend_top(labels: int) -> float:
    """Return inches on top of a figure that hold a legend in three columns."""
    return 0.1 + 0.17 * -(-labels // 3)


def draw_interval(
    axis: Any, at: float, interval: tuple[float, float] | None, colour: Any, *, upright: bool
) -> None:
    """Draw an interval of AUROC, clipped to [0, 1]; nothing for none."""
    if interval is not None:
        ends, position = clipped(interval), [at, at]
        axis.plot(*((position, ends) if upright else (ends, position)), color=colour, linewidth=1)


def label_rows(axis: Any, labels: Sequence[str]) -> None:
    """Write a label above each row, the first on top.

    It hides what stands at `zorder` 0, say a line through all rows, and lies under the data.
    """
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for y, label in enumerate(labels):
        position = {"transform": axis.get_yaxis_transform(), "va": "bottom", "zorder": 1}
        axis.text(0.0, y - 0.2, label, bbox=ground, **position)
    axis.set_ylim(len(labels) - 0.6, -0.75)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def svg(figure: Any, alt: str) -> str:
    """Return a figure as one <svg>, within `plotting`, and close it.

    Matplotlib writes style attributes; they become presentation attributes.
    """
    import matplotlib.pyplot as plt

    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    for_print = _for_print(figure)
    plt.close(figure)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^<>!?]+>", lambda match: _tag(match[0]), text)
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    text = text.replace("> <", "><").replace("<defs></defs>", "")
    text = text.removeprefix("<svg")
    fonts = {*re.findall(r' font-family="[^"]*"', text)}
    if len(fonts) == 1:  # it is said once, not at each word
        (font,) = fonts
        text = font + text.replace(font, "")
    drawn = f'<svg {head(alt)} stroke-linejoin="round"{text}'
    if for_print:
        _PRINTS.get()[drawn] = for_print
    return drawn


def _for_print(figure: Any) -> dict[str, bytes]:
    """Return a figure as PDF and PNG, where `prints` collects them."""
    if _PRINTS.get(None) is None:
        return {}
    prints = {}
    for form, options in (("pdf", {"metadata": {"CreationDate": None}}), ("png", {"dpi": 300})):
        sink = io.BytesIO()
        figure.savefig(sink, format=form, **options)
        prints[form] = sink.getvalue()
    return prints


@contextmanager
def prints() -> Iterator[dict[str, dict[str, bytes]]]:
    """Collect what is drawn as PDF and PNG, by its SVG."""
    collected: dict[str, dict[str, bytes]] = {}
    token = _PRINTS.set(collected)
    try:
        yield collected
    finally:
        _PRINTS.reset(token)


def head(alt: str) -> str:
    """Return the attributes that make an <svg> one picture with a text."""
    return f'role="img" aria-label="{escape(alt)}"'


def _tag(tag: str) -> str:
    tag = re.sub(r' style="([^"]*)"', _attributes, tag)
    tag = re.sub(r' id="[\w.]+_\d+"', "", tag)  # alike in every figure, and never referred to
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag.replace(' "', '"'))


def _attributes(match: re.Match[str]) -> str:
    """Turn `fill: none; font: 8px 'x', y` into attributes."""
    pairs = [part.partition(":")[::2] for part in match[1].split(";") if part.strip()]
    attributes: dict[str, str] = {}
    for name, value in ((n.strip(), v.strip()) for n, v in pairs):
        if name == "font":
            size, _, family = value.partition(" ")
            attributes |= {"font-size": size, "font-family": family}
        else:
            attributes[name] = value
    return "".join(f' {name}="{value}"' for name, value in attributes.items())
