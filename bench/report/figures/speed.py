"""AUROC against inference time on one machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from bench.analysis import selection as choice
from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.labels import method_name, name_of
from bench.analysis.statistics import Estimate, estimated, mean_interval
from bench.analysis.timings import (
    LATENCY,
    Machine,
    Span,
    TimedConfiguration,
    clocks,
    milliseconds,
    over_rounds,
    same_but_length,
)
from bench.report.figures.figure import Figure, Kind, Numbers, Section, slug
from bench.report.figures.svg import draw_interval, legend, legend_top, marks, panels, plotting, svg
from bench.spec import Place, RunSpec
from bench.text import brief, counted, listed

_READING = (
    "Left is faster, up is better; time on a logarithmic axis. Time is that of one image at a time,"
    " from decoded pixels to the score: the median over rounds, with the 95 % t-interval of their"
    " mean, or of a single round by bootstrap. AUROC is of the same variant trained in full, on the"
    " test set without the labelled anomalies, so that all methods score the same images: mean over"
    " seeds with its 95 % t-interval, averaged over the categories named. Timing runs themselves"
    " are trained for a few steps, and no AUROC of theirs is shown. Of each method the variant is"
    " shown that has the most categories, of equal ones that which departs least from the paper’s"
    " stated protocol. Machines are never mixed."
)
_LEAST_METHODS = 2
Mark = Mapping[str, Any]
"""Colour, marker and stroke of a method."""


@dataclass(frozen=True)
class Point:
    """One method: AUROC, and seconds an image."""

    auroc: Estimate
    time: Span
    precision: str
    """Of its accuracy runs, where that is another than the clock's."""


Both = Mapping[Place, tuple[TimedConfiguration, Configuration]]
"""Of one variant: where it was timed, and run to the end."""


def plans(stored: StoredRuns) -> list[partial[Figure]]:
    """Plan a figure per machine that timed two methods that ran."""
    shown_by: dict[Machine, tuple[dict[str, Point], list[Place], list[str]]] = {}
    timed = clocks(stored)
    for machine in dict.fromkeys(clock.machine for clock in timed):
        rows = {
            clock.place: rows_of
            for clock, rows_of in timed.items()
            if clock.machine == machine and stored.place.is_preferred(next(iter(rows_of)))
        }
        methods = {r.method for rows_of in rows.values() for r in rows_of}
        by_method = {m: both for m in sorted(methods, key=choice.order)
                     if (both := _both(stored, m, rows))}  # fmt: skip
        shown, places = common(by_method)
        if len(shown) >= _LEAST_METHODS:
            points = {method_name(m): _point(by_method[m], places, machine) for m in shown}
            out = [method_name(m) for m in sorted(methods, key=choice.order) if m not in shown]
            shown_by[machine] = points, places, out
    names = list(dict.fromkeys(name for points, _, _ in shown_by.values() for name in points))
    look = dict(zip(names, marks(names), strict=True))  # the same on every machine
    return [partial(_figure, machine, *shown, look) for machine, shown in shown_by.items()]


def _both(
    stored: StoredRuns, method: str, timed: Mapping[Place, Mapping[RunSpec, TimedConfiguration]]
) -> dict[Place, tuple[TimedConfiguration, Configuration]]:
    """Return a method's timed and full runs, of one variant."""
    variants: dict[RunSpec, dict[Place, tuple[TimedConfiguration, Configuration]]] = {}
    for place, rows in timed.items():
        for timing in (t for row, t in rows.items() if row.method == method and t.span(LATENCY)):
            alike = same_but_length(timing.row)
            configurations = choice.configurations(stored, place, timing.row.shots, method)
            same = [c for c in configurations if same_but_length(c.row) == alike]
            same.sort(key=lambda c: c.row.precision != timing.row.precision)  # stable
            if same:
                variants.setdefault(same[0].variant, {}).setdefault(place, (timing, same[0]))
    return min(variants.items(), key=lambda item: _rank(*item))[1] if variants else {}


def _rank(variant: RunSpec, both: Both) -> tuple[int, int, str]:
    return -len(both), sum(len(c.departures) for _, c in both.values()), variant.run_id


def common(by_method: Mapping[str, Both]) -> tuple[list[str], list[Place]]:
    """Return the most methods that share a place, and shared places."""
    places = choice.ranked(place for both in by_method.values() for place in both)
    if not places:
        return [], []
    most = max(places, key=lambda place: sum(place in both for both in by_method.values()))
    shown = [m for m, both in by_method.items() if most in both]
    return shown, [p for p in places if all(p in by_method[m] for m in shown)]


def _point(both: Both, places: Sequence[Place], machine: Machine) -> Point:
    configurations = [both[p][1] for p in places]
    seeds = sorted(set.intersection(*({*c.by_seed} for c in configurations)))
    by_seed = [fmean(c.by_seed[s] for c in configurations) for s in seeds]
    apart = Estimate(fmean(c.estimate.mean for c in configurations), 0, None)
    precision = configurations[0].row.precision or machine.precision
    return Point(
        mean_interval(by_seed) if seeds else apart,
        mean_time([both[p][0] for p in places]),
        "" if precision == machine.precision else precision,
    )


def mean_time(timings: Sequence[TimedConfiguration]) -> Span:
    """Return the mean latency over places, round by round."""
    spans = [span for timed in timings if (span := timed.span(LATENCY))]
    if len(spans) == 1:
        return spans[0]
    by_place = [timed.by_round(f"{LATENCY}_s") for timed in timings]
    shared = sorted(set.intersection(*({*seconds} for seconds in by_place)))
    if not shared:
        return Span(fmean(span.middle for span in spans), None, 0)
    return over_rounds([fmean(seconds[number] for seconds in by_place) for number in shared], None)


def _figure(
    machine: Machine, points: Mapping[str, Point], places: Sequence[Place], out: list[str],
    look: Mapping[str, Mark],
) -> Figure:  # fmt: skip
    where = listed([name_of(p) for p in places])
    summary = "; ".join(f"{m}: {_in_words(point)}" for m, point in points.items())
    note = f"On {where}."
    if out:
        note += f" Timed on this machine, but without such runs there: {listed(out)}."
    title = f"AUROC against inference time on {brief(str(machine), 120)}"
    alt = f"{title}, {where}. {summary}."
    numbers = Numbers(_COLUMNS, tuple((m, *_row(point)) for m, point in points.items()))
    svg = plot(points, look, alt)
    return Figure(slug("time", machine), "time", title, note, alt, svg, (numbers,))


_COLUMNS = ("method", "AUROC", "one image, ms", "rounds")


def _row(point: Point) -> tuple[str, str, str]:
    """Return AUROC, time and rounds."""
    other = f" in {point.precision}" if point.precision else ""
    seeds = point.auroc.n
    auroc = estimated(point.auroc) if seeds else f"{point.auroc.mean:.3f} (no seed in common)"
    return f"{auroc}{other}", milliseconds(point.time), str(point.time.rounds)


def _in_words(point: Point) -> str:
    auroc, time, rounds = _row(point)
    return f"AUROC {auroc} at {time} ms, {counted(int(rounds), 'round')}"


def plot(points: Mapping[str, Point], look: Mapping[str, Mark], alt: str) -> str:
    """Draw a mark per method with its intervals."""
    with plotting(alt) as plt:
        columns = min(3, len(points))
        figure, (axis,) = panels(plt, 2.2, left=0.62, top=legend_top(len(points)))
        for method, point in points.items():
            x, y, mark = 1e3 * point.time.middle, point.auroc.mean, look[method]
            axis.plot([x], [y], markersize=5.5, label=method, **{**mark, "linestyle": "none"})
            draw_interval(axis, x, point.auroc.interval, mark["color"], upright=True)
            if point.time.interval is not None:
                ends = 1e3 * np.clip(point.time.interval, 1e-9, None)
                axis.plot(ends, [y, y], color=mark["color"], linewidth=1)
        middles = [1e3 * point.time.middle for point in points.values()]
        low, high = min(middles) / 1.5, max(middles) * 1.5
        axis.set(xlabel="one image, ms", ylabel="AUROC", xscale="log", xlim=(low, high))
        axis.set_xticks(ticks(low, high))
        axis.minorticks_off()
        axis.xaxis.set_major_formatter("{x:g}")
        axis.locator_params(axis="y", nbins=5)
        legend(figure, axis, columns)
        return svg(figure, alt)


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers within the range of a logarithmic axis."""
    digits = (1, 1.5, 2, 3, 5, 7) if high < 12 * low else (1, 2, 5) if high < 200 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [t for p in powers for d in digits if low <= (t := d * 10.0**p) <= high]


SECTION = Section(
    "time", "AUROC against inference time", _READING, {"time": Kind(4, lambda s: plans(s.stored))}
)
