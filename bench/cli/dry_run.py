"""`bench run --dry-run`: the matrix, and the disk, memory and time it needs."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import fmean
from textwrap import fill

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.planning.matrix import PlannedRun
from bench.planning.plan import Folders, Missing, Plan, Run
from bench.planning.rehearsal import estimate_problem
from bench.planning.resources import (
    BYTES_OF_A_RUN,
    Memory,
    bytes_of_a_run,
    bytes_to_write,
    disk_space,
    memory_of,
    to_decode,
)
from bench.planning.rough_times import known_receipts, times_for
from bench.planning.runtime import RuntimeEstimate, RuntimeModel
from bench.planning.slots import Slot
from bench.planning.state import State
from bench.planning.variants import Variant, shared, variant_name, variant_of
from bench.spec import place_name, shots_of
from bench.store.artifacts import artifact_words, stored_artifacts
from bench.store.receipt import Receipt
from bench.store.results import Results
from bench.system.host import available_memory
from bench.text import counted, duration, gibibytes, gigabytes

RUN_MODULES = ("torchvision", "bench.execution.worker")
"""What a run's process imports before it begins."""
MARKS = {
    "s": "stale: made by older code of the method",
    "f": "failed earlier",
    "d": "stored but damaged",
    "m": "missing: data or weights are not here",
}
"""Marks before a number of runs in the matrix."""


@dataclass(frozen=True)
class Wanted:
    """A plan's runs, missing ones too, by variant."""

    plan: Plan

    @cached_property
    def members(self) -> dict[Hashable, list[Run | Missing]]:
        """Runs of each variant, a method's variants together."""
        by_variant: dict[Hashable, list[Run | Missing]] = defaultdict(list)
        runs: list[Run | Missing] = [*self.plan.runs, *self.plan.missing]
        methods = list(dict.fromkeys(run.planned.method.name for run in runs))
        for run in sorted(runs, key=lambda run: methods.index(run.planned.method.name)):
            by_variant[variant_of(run.planned).key].append(run)
        return by_variant

    @cached_property
    def variants(self) -> dict[Hashable, Variant]:
        """All variants by their keys."""
        return {key: variant_of(members[0].planned) for key, members in self.members.items()}

    @cached_property
    def common(self) -> dict[str, bool | int | float | str]:
        """Settings that all variants share."""
        return shared(self.variants.values())

    def name(self, variant: Variant) -> str:
        """Return a variant's display name."""
        return variant_name(variant, self.common)


def picture(
    state: State, results: Results, folders: Folders, slots: Sequence[Slot], width: int
) -> Iterator[Table | str]:
    """Yield tables and lines; import torch if needed."""
    wanted, tallies = Wanted(state.plan), _tallies(state)
    seen = {mark for tally in tallies.values() for mark, count in tally.items() if count}
    notes = [f"{mark} {text}" for mark, text in MARKS.items() if mark in seen]
    parts: list[Table | str] = [
        "all: " + " ".join(f"{k}={v}" for k, v in wanted.common.items()),
        "",
        _matrix(wanted, tallies, width),
        "; ".join(["stored/wanted", *notes]),
    ]
    needed = (state.todo or state.plan.missing) and slots  # a cluster's nodes are not known here
    needs = chain([""], _needs(state, wanted, results, folders, slots)) if needed else ()
    for part in chain(parts, needs):
        yield fill(part, width, subsequent_indent="  ") if isinstance(part, str) else part


# The matrix

_Row = tuple[str, str, int]
"""Dataset, category (and seen defect) and shots."""


def _tallies(state: State) -> dict[tuple[_Row, Hashable], Counter[str]]:
    """Count by row and variant: `wanted`, `stored`, and what has a mark."""
    tallies: dict[tuple[_Row, Hashable], Counter[str]] = defaultdict(Counter)
    stale = {r.run_id for r in state.stale}
    for run in state.plan.runs:
        tally = tallies[_row(run.planned, run.spec.seen_defect), variant_of(run.planned).key]
        tally["wanted"] += 1
        tally["stored"] += run.run_id in state.done
        for mark, ids in (("s", stale), ("f", state.failed), ("d", state.damaged)):
            if run.run_id in ids:
                tally[mark] += 1
    for missing in state.plan.missing:
        tally = tallies[
            _row(missing.planned, missing.planned.seen_defect), variant_of(missing.planned).key
        ]
        tally["wanted"] += 1
        tally["m"] += 1
    return tallies


def _row(cell: PlannedRun, seen: str | None) -> _Row:
    name = place_name(cell.dataset, cell.category) + (f" seen={seen}" if seen else "")
    return cell.dataset, name, cell.shots


def _matrix(
    wanted: Wanted, tallies: Mapping[tuple[_Row, Hashable], Counter[str]], width: int
) -> Table:
    """Return categories against variants, or by dataset if too wide."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("data", no_wrap=True)
    table.add_column("shots", justify="right")
    for variant in wanted.variants.values():
        table.add_column(escape(wanted.name(variant)).replace(" ", "\n"), no_wrap=True)
    before = ""
    for row in dict.fromkeys(row for row, _ in tallies):
        _, name, shots = row
        cells = [_cell(tallies.get((row, key))) for key in wanted.variants]
        table.add_row(escape(name) if name != before else "", str(shots), *cells)
        before = name
    if Console(width=10_000).measure(table).maximum <= width:
        return table
    return _by_dataset(wanted, tallies)


def _by_dataset(wanted: Wanted, tallies: Mapping[tuple[_Row, Hashable], Counter[str]]) -> Table:
    sums: dict[tuple[Hashable, tuple[str, int]], Counter[str]] = defaultdict(Counter)
    columns: dict[tuple[str, int], set[str]] = defaultdict(set)
    for ((dataset, name, shots), key), tally in tallies.items():
        columns[dataset, shots].add(name)
        sums[key, (dataset, shots)].update(tally)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for (dataset, shots), categories in columns.items():
        many = f" ({len(categories)})" if len(categories) > 1 else ""
        table.add_column(f"{escape(dataset)}{many}\n{shots_of(shots)}", no_wrap=True)
    for key, variant in wanted.variants.items():
        cells = [_cell(sums.get((key, column))) for column in columns]
        table.add_row(escape(wanted.name(variant)), *cells)
    return table


def _cell(tally: Mapping[str, int] | None) -> str:
    if tally is None:
        return ""
    marks = [f"{mark}{tally[mark]}" for mark in MARKS if tally[mark]]
    style = "red" if tally["f"] or tally["d"] else "yellow" if tally["s"] else ""
    if not marks and tally["stored"] == tally["wanted"]:
        style = "green"
    text = " ".join([f"{tally['stored']}/{tally['wanted']}", *marks])
    return f"[{style}]{text}[/]" if style else text


# What is needed


def _needs(
    state: State, wanted: Wanted, results: Results, folders: Folders, slots: Sequence[Slot]
) -> Iterator[Table | str]:
    known = known_receipts(state, results)
    left = {r.run_id for r in state.todo}
    paces, anywhere = RuntimeModel(known, slots[0]), RuntimeModel(known)
    memory: list[Memory] = []
    guesses: dict[str, list[RuntimeEstimate | None]] = {}
    elsewhere = False
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("a run of", "to do", "time", "memory, estimated", "measured"):
        table.add_column(title, justify="left" if title == "a run of" else "right")
    for key, variant in wanted.variants.items():
        members = wanted.members[key]
        todo = [w for w in members if isinstance(w, Run) and w.run_id in left]
        missing = [w for w in members if isinstance(w, Missing)]
        if not todo and not missing:
            continue
        runs: list[Run | Missing] = [*todo, *missing]
        needed = memory_of(
            variant, runs, known, slots[0].device, folders.data, RUN_MODULES, state.keep
        )
        memory.append(needed)
        variant_guesses = guesses[wanted.name(variant)] = [paces.estimate(run) for run in todo]
        elsewhere |= None in variant_guesses and all(anywhere.estimate(run) for run in todo)
        seconds = [guess.seconds for guess in variant_guesses if guess]
        table.add_row(
            escape(wanted.name(variant)),
            str(len(todo)),
            duration(fmean(seconds)) if seconds else "unknown" if todo else "-",
            gibibytes(needed.estimated),
            gibibytes(needed.measured) if needed.measured else "-",
        )
    yield table
    yield ""
    yield from _memory_lines(memory, slots)
    if any(m.estimated is None for m in memory) and (problem := estimate_problem()):
        yield f"warning: {problem}"
    if state.todo:
        yield from _disk_lines(state, results, folders)
        yield from _time_lines(guesses, len(slots), elsewhere)
        if any(None in group for group in guesses.values()):
            yield from _rough_line(state.todo, known, slots)


def _memory_lines(memory: Iterable[Memory], slots: Sequence[Slot]) -> Iterator[str]:
    """Yield a device's memory need, and what is available."""
    likely = [m.likely for m in memory if m.likely is not None]
    if not likely:
        yield "memory: unknown; a first run will tell"
        return
    device = slots[0].device
    at_once = sum(s.device == device for s in slots)
    most = at_once * max(likely)
    runs = f"{at_once} runs at once take" if at_once > 1 else "a run takes"
    if device != "cpu":
        yield f"memory: {runs} up to {gibibytes(most)} of a GPU, estimated as for a CPU"
        return
    free = available_memory()
    available = f", {gibibytes(free)} available" if free is not None else ""
    yield f"memory: {runs} up to {gibibytes(most)}{available}"
    if free is not None and most > free:
        yield (
            f"warning: memory: {gibibytes(most)} needed, {gibibytes(free)} available; use fewer"
            " --slots, or a smaller batch_size or image_size"
        )


def _disk_lines(state: State, results: Results, folders: Folders) -> Iterator[str]:
    """Yield what runs will write, and whether there is room."""
    decoding = to_decode(state.todo, folders.cache)
    images = sum(d.images for d in decoding)
    like = [i for i, r in state.done.items() if state.keep <= stored_artifacts(r)]
    stored = bytes_of_a_run(results, like)
    each = stored or BYTES_OF_A_RUN
    needed = bytes_to_write(decoding, len(state.todo), each)
    basis = f"{'as stored runs are' if stored else 'about'} {each / 1000:.0f} kB a run"
    if state.keep and not stored:
        basis += f", and its {artifact_words(state.keep)}"
    count = counted(images, "image")
    cache = f"{gigabytes(needed['cache'])} for {count} to decode" if images else "nothing"
    yield f"disk: cache {cache}; results {gigabytes(needed['results'])} ({basis})"
    for room in disk_space(folders, needed):
        names = " and ".join(room.options)
        yield f"disk: {gigabytes(room.free)} free for {names}"
        if room.needed > room.free:
            options = " or ".join(f"--{o}" for o in room.options)
            yield (
                f"warning: disk: {gigabytes(room.needed)} needed for {names},"
                f" {gigabytes(room.free)} free; make room, or name another folder with {options}"
            )


def _rough_line(
    todo: Sequence[Run], known: Iterable[Receipt], slots: Sequence[Slot]
) -> Iterator[str]:
    """Yield how long all runs roughly take, by reference runs."""
    times = times_for(known, slots[0])
    expected = times.time_left(todo, len(slots))
    if expected and expected.rough:
        at_once = f" in {len(slots)} slots" if len(slots) > 1 else ""
        yield f"time: {expected} for all{at_once}, {times.basis(todo)}"


def _time_lines(
    guesses: Mapping[str, Sequence[RuntimeEstimate | None]], slots: int, elsewhere: bool
) -> Iterator[str]:
    """Yield how long runs will take, and which are unknown."""
    known = [g for group in guesses.values() for g in group if g]
    if known:
        notes = ["by stored runs"]
        if any(g.other_parameters for g in known):
            notes.append("some with other parameters")
        if any(g.other_machine for g in known):
            notes.append("some from another machine")
        at_once = f" in {slots} slots" if slots > 1 else ""
        seconds = sum(g.seconds for g in known) / slots
        yield f"time: about {duration(seconds)}{at_once}, {', '.join(notes)}"
    unknown = [name for name, group in guesses.items() if None in group]
    if unknown:
        other = "some are stored, but of another device or number of threads"
        why = other if elsewhere else "none is stored"
        yield f"time: unknown for {', '.join(unknown)}: {why}; a first run will tell"
