"""Whether timed runs have got slower, or need more memory, than on earlier nights.

A time alone says as much of the machine as of the code, and so does its ratio to the reference
pass, whose own time moves too: a method is slower where both are. One look is no proof: a second
set of timed runs has to say the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.analysis.configurations import StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.timings import TimedConfiguration, clocks
from bench.store.receipt import Receipt
from bench.store.results import Results

LEAST = 0.08
"""Share by which a time must have grown."""
OF_SPREAD = 4
"""Times the median absolute deviation of earlier nights by which it must have grown."""
MEMORY = 0.05
"""Share by which memory must have grown; it has no noise."""
NIGHTS = 10
"""Earlier nights that a time is compared with."""
TIMES = {"latency_s": "time of an image", "step_s": "time of a training step"}
PEAKS = {"peak_gpu_memory_bytes": "GPU memory", "peak_memory_bytes": "memory"}
MACHINE = ("device_name", "cpu", "cpu_features", "driver", "cuda", "torch", "threads")

Times = Mapping[str, Mapping[str, float]]
"""Medians over the rounds of each timed configuration, by its name."""


@dataclass(frozen=True)
class Slower:
    """A number of a timed configuration that has grown."""

    name: str
    """Of the configuration."""
    what: str
    growth: float
    """Share."""
    nights: int
    """How many earlier nights it is compared with."""
    confirmed: bool | None
    """Whether a second set of runs says the same; None without one."""

    def __str__(self) -> str:
        word = {None: ", not confirmed yet", False: ", not confirmed", True: ""}[self.confirmed]
        return f"{self.name}: {self.what} {self.growth:+.0%}{word}"


@dataclass(frozen=True)
class Night:
    """What is timed on one night."""

    machine: str
    """What numbers of two nights must share to be compared."""
    times: Times
    disturbed: tuple[str, ...] = ()
    """Configurations all of whose rounds something else disturbed."""


def night(results: Results, runs: Iterable[Receipt]) -> Night | None:
    """Return what the timed ones of some runs say; None without any, or of several machines."""
    stored = StoredRuns(results, tuple(r for r in runs if r.spec.kind == "timing"))
    machines = {_machine(receipt) for receipt in stored.timing}
    if len(machines) != 1:
        return None
    times, disturbed = {}, []
    for setup, rows in clocks(stored).items():
        for timed in rows.values():
            name = f"{timed.label} on {name_of(setup.place)}"
            if timed.disturbed:
                disturbed.append(name)
            times[name] = _numbers(timed)
    return Night(machines.pop(), times, tuple(sorted(disturbed)))


def _machine(receipt: Receipt) -> str:
    return ", ".join(str(receipt.provenance.get(name)) for name in MACHINE)


def _numbers(timed: TimedConfiguration) -> dict[str, float]:
    """Return medians over rounds: times, their ratios to the reference pass, and memory."""
    numbers = {}
    for name in TIMES:
        ratio = timed.over_yardstick(name)
        if ratio is not None:
            numbers[name] = median(timed.by_round(name).values())
            numbers[_ratio(name)] = ratio
    for name in PEAKS:
        peaks = [value for r in timed.rounds if (value := r.provenance.number(name)) is not None]
        if peaks:
            numbers[name] = float(median(peaks))
    return numbers


def _ratio(name: str) -> str:
    return f"{name} ratio"


def slower(now: Times, earlier: Sequence[Times], again: Times | None = None) -> list[Slower]:
    """Return what has grown since earlier nights; `again` is measured anew to confirm it."""
    grown = []
    for name, numbers in sorted(now.items()):
        nights = [times[name] for times in earlier[-NIGHTS:] if name in times]
        for what, growth in _grown(numbers, nights):
            confirmed = None
            if again is not None:
                confirmed = what in dict(_grown(again.get(name, {}), nights))
            grown.append(Slower(name, what, growth, len(nights), confirmed))
    return grown


def _grown(
    numbers: Mapping[str, float], nights: Sequence[Mapping[str, float]]
) -> Iterable[tuple[str, float]]:
    """Yield which numbers have grown and by what share."""
    for name, title in TIMES.items():
        growth, most = _growth(numbers, nights, name)
        of_ratio, most_of_ratio = _growth(numbers, nights, _ratio(name))
        if growth > most and of_ratio > most_of_ratio:
            yield title, growth
    for name, title in PEAKS.items():
        growth, _ = _growth(numbers, nights, name)
        if growth > MEMORY:
            yield title, growth
            break  # of both, that of the GPU


def _growth(
    numbers: Mapping[str, float], nights: Sequence[Mapping[str, float]], name: str
) -> tuple[float, float]:
    """Return the share by which a number has grown, and by which it may."""
    values = [night[name] for night in nights if name in night]
    if name not in numbers or not values:
        return 0.0, LEAST
    middle = median(values)
    spread = median(abs(value - middle) for value in values)
    return numbers[name] / middle - 1, max(LEAST, OF_SPREAD * spread / middle)


def history_of(lines: Iterable[Mapping[str, Any]], machine: str) -> list[Times]:
    """Return the times of earlier nights of one machine, oldest first."""
    return [line["times"] for line in lines if line.get("machine") == machine]
