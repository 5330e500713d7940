"""What the stored runs answer, in a few sentences for the top of a page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from bench.analysis.configurations import REFERENCE, Configuration, StoredRuns
from bench.analysis.filling import shared_means
from bench.analysis.paired import written_difference
from bench.analysis.selection import OURS
from bench.analysis.statistics import Estimate, clipped, mean_interval, shared_difference
from bench.analysis.tables import Block, Cell, ReportTable, Row, each_once, labelled, named
from bench.analysis.verdict import LEAST_SEEDS
from bench.published.tables import Key, PublishedValue
from bench.report.figures import ablation
from bench.spec import Place
from bench.text import counted, joined, signed

MOST_PLACES = 3
"""Places or datasets that a sentence names."""
LEVEL = 0.05
Means = Mapping[str, float]
"""AUROC by method or by place."""


@dataclass(frozen=True)
class Answer:
    """A question that a reader comes with, and what the runs say."""

    question: str
    text: str


def answers(stored: StoredRuns, tables: Sequence[ReportTable]) -> list[Answer]:
    """Return the answers that the runs suffice for.

    Where nothing published was run, they are about the reader's own data.
    """
    ran = [table for table in tables if table.ran]
    if not any(table.is_published for table in ran):
        own = [_own_best(ran), *_labels(ran), _lacking(ran)]
        return [answer for answer in own if answer]
    return [
        *_published(tables),
        *_against_published(tables),
        *_zoomed(stored),
        *_best(tables),
        *_labels(tables),
    ]


def _published(tables: Sequence[ReportTable]) -> Iterator[Answer]:
    """Say how many published numbers were run, how, and with which verdicts."""
    cells = each_once(c for table in tables for c in table.cells() if c.published)
    run = [c for c in cells if c.difference is not None]
    if not run:
        return
    stated = sum(not c.departs for c in run)
    how = "none of them" if not stated else "all of them" if stated == len(run) else str(stated)
    text = f"{len(run)} of {len(cells)} were run, {how} as stated; {_verdicts(run)}."
    yield Answer("Do the published numbers hold?", text)


# ATAC-Net against the published numbers


def _against_published(tables: Sequence[ReportTable]) -> Iterator[Answer]:
    """Compare ATAC-Net with each published column; a number that tables share counts once."""
    seen: set[tuple[Key, PublishedValue | None]] = set()
    sentences = []
    for table in tables:
        for shots, _ in reversed(table.groups):
            cells = [c for c in table.cells() if (c.key.shots, c.key.method) == (shots, OURS)
                     and c.difference is not None and (c.key, c.published) not in seen]  # fmt: skip
            seen |= {(c.key, c.published) for c in cells}
            if cells:
                sentences.append(f"{_column(shots, cells)}; {_verdicts(cells)}.")
    if sentences:
        yield Answer(f"Does {named(OURS)} reach its published numbers?", " ".join(sentences))


def _column(shots: int, cells: Sequence[Cell]) -> str:
    gaps = {c.key.category: c.difference or 0.0 for c in cells}
    ours = fmean(c.ours.mean for c in cells if c.ours)
    published = fmean(float(c.published.value) for c in cells if c.published)
    below = sum(gap < 0 for gap in gaps.values())
    furthest = max(gaps, key=lambda category: abs(gaps[category]))
    numbers = f"{ours:.3f}, published {published:.3f}"
    if len(cells) == 1:
        return f"With {labelled(shots)}, {furthest}: {numbers} ({signed(gaps[furthest])})"
    return (
        f"With {labelled(shots)}, mean of {len(cells)} cells: {numbers}; below in {below} of"
        f" {len(cells)}, furthest on {furthest} ({signed(gaps[furthest])})"
    )


def _verdicts(cells: Sequence[Cell]) -> str:
    """Count verdicts in words, those as stated first."""
    counts = Counter((cell.departs, cell.word) for cell in cells)
    texts = [
        f"{number} {word}" + (" with departures" if departs else "")
        for (departs, word), number in sorted(counts.items())
    ]
    few = sum(bool(c.ours and c.ours.estimate.n < LEAST_SEEDS) for c in cells)
    reason = f" ({few} with fewer seeds than the {LEAST_SEEDS} that a verdict takes)" if few else ""
    return f"verdicts: {joined(texts)}{reason}"


# The zoomed view against its control


def _zoomed(stored: StoredRuns) -> Iterator[Answer]:
    label = ablation.VIEWS[ablation.ATTENTION]
    several = ablation.ablations(stored)
    pairs = [(a, c.gap) for a in several for c in a.comparisons if c.label == label]
    if not pairs:
        return
    pairs.sort(key=lambda pair: (pair[0].base != ablation.BASES[0], -pair[1].over_seeds.n))
    by_base: dict[str, list[str]] = {}
    for one, gap in pairs[:MOST_PLACES]:
        texts = by_base.setdefault(ablation.BASE_WORDS[one.base], [])
        texts.append(f"{one.where} {written_difference(gap)}")
    shown = ". ".join(f"Against {base}: {'; '.join(texts)}" for base, texts in by_base.items())
    tested = [gap for _, gap in pairs if gap.over_seeds.n > 1]
    clear = [gap.over_seeds.mean for gap in tested if gap.p < LEVEL]
    above, below = sum(mean > 0 for mean in clear), sum(mean < 0 for mean in clear)
    test = "One seed each: nothing is tested"
    if tested:
        total = counted(len(tested), "comparison")
        test = f"After Holm's correction it helps in {above} and harms in {below} of {total}"
        test += f". As one family: {ablation.family_of(several)}"
    yield Answer("Does the zoomed view help?", f"{test}. {shown}.")


# The best method of each dataset


def _best(tables: Sequence[ReportTable]) -> Iterator[Answer]:
    blocks = [(shots, block) for table in tables if table.name != "atacnet_table2"
              for block in table.blocks for shots in _most_shots(table, block)]  # fmt: skip
    leads = [lead for shots, block in blocks if (lead := _lead(block, shots))]
    if not leads:
        return
    shown = "; ".join(lead.text for lead in leads[:MOST_PLACES])
    more = f"; {len(leads) - MOST_PLACES} more in the tables" * (len(leads) > MOST_PLACES)
    starred, rows = sum(lead.starred for lead in leads), sum(lead.rows for lead in leads)
    test = f"A lead over all other methods holds by test in {starred} of {counted(rows, 'row')}."
    yield Answer("Which method is best?", f"Highest mean on {shown}{more}. {test}")


def _most_shots(table: ReportTable, block: Block) -> list[int]:
    """Return the largest number of labels at which two methods of a block ran; none without."""
    ran = [(shots, {c.key.method for row in block.rows for c in row.cells
                    if c.ours and c.key.shots == shots} - {REFERENCE})
           for shots, _ in table.groups]  # fmt: skip
    return sorted((shots for shots, methods in ran if len(methods) > 1), reverse=True)[:1]


class _Lead(NamedTuple):
    """Who leads a dataset, over the rows in which the most methods ran."""

    text: str
    starred: int
    rows: int


def _lead(block: Block, shots: int) -> _Lead | None:
    """Return the two highest methods of a dataset; None for one alone."""
    by_row = [(row, _at(row, shots)) for row in block.rows]
    most = max(len(means) for _, means in by_row)
    chosen = [(row, means) for row, means in by_row if len(means) == most]
    methods = set.intersection(*({*means} for _, means in chosen))
    means = {m: fmean(by[m] for _, by in chosen) for m in methods}
    first, *others = sorted(means.keys() - {REFERENCE}, key=lambda m: (-means[m], m))
    if not others:
        return None
    rows = f" ({len(chosen)} categories)" * (len(chosen) > 1)
    text = (
        f"{block.dataset}{rows}, {labelled(shots)}: {named(first)} {means[first]:.3f}"
        f" before {named(others[0])} {means[others[0]]:.3f}"
    )
    if means.get(REFERENCE, 0.0) >= means[first]:
        text += f", but {REFERENCE} has {means[REFERENCE]:.3f}"
    starred = sum(any(c.best and c.key.shots == shots for c in row.cells) for row, _ in chosen)
    return _Lead(text, starred, len(chosen))


def _at(row: Row, shots: int) -> Means:
    """Return the AUROC of the methods that ran in a row with so many labels."""
    return {c.key.method: c.ours.mean for c in row.cells if c.ours and c.key.shots == shots}


# The same of own data, of which nothing is published


def _own_best(tables: Sequence[ReportTable]) -> Answer | None:
    """Name the highest mean of each dataset with its interval over seeds; None without any."""
    leads = [lead for table in tables for block in table.blocks if (lead := _own_lead(block))]
    if not leads:
        return None
    shown = "; ".join(leads[:MOST_PLACES])
    more = f"; {len(leads) - MOST_PLACES} more in the tables" * (len(leads) > MOST_PLACES)
    reading = "In brackets 95 % intervals over seeds; methods of a row share their test images."
    return Answer("Which method is best?", f"Highest mean AUROC on {shown}{more}. {reading}")


def _own_lead(block: Block) -> str | None:
    """Rank the methods of a dataset at its most labels, those without labels among them."""
    cells = [c for row in block.rows for c in row.cells if c.ours]
    most = max((c.key.shots for c in cells), default=0)
    by_row = [{(c.key.method, c.key.shots): c.ours for c in row.cells
               if c.ours and c.key.shots in (0, most)} for row in block.rows]  # fmt: skip
    counts = [sum(method != REFERENCE for method, _ in by) for by in by_row]
    chosen = [by for by, n in zip(by_row, counts, strict=True) if by and n == max(counts)]
    if not chosen:
        return None
    shared = set.intersection(*({*by} for by in chosen))
    means = {which: _over_rows([by[which] for by in chosen]) for which in shared}
    ranked = sorted(means.keys(), key=lambda which: (-means[which].mean, which))
    methods = [which for which in ranked if which[0] != REFERENCE]
    texts = [_own_text(which, means[which]) for which in methods[:2]]
    some = f"{len(chosen)} of " * (len(chosen) < len(block.rows))
    rows = f" ({some}{len(block.rows)} categories)" * (len(block.rows) > 1)
    where = f"{block.dataset}{rows}, {labelled(most)}"
    if not texts:
        return f"{where}: {REFERENCE} alone, {_written(next(iter(means.values())))}"
    text = f"{where}: {' before '.join(texts)}"
    if len(texts) == 1:
        text += ", the only method"
    statistic = next((means[which] for which in ranked if which[0] == REFERENCE), None)
    if statistic is not None:
        above = "above" if means[methods[0]].mean > statistic.mean else "not above"
        text += f", {above} one image statistic ({REFERENCE} {_written(statistic)})"
    return text


def _over_rows(configurations: Sequence[Configuration]) -> Estimate:
    """Return the mean over rows of the seeds that all have; else of each row's mean."""
    by_seed = shared_means(configurations)
    return mean_interval(by_seed) if by_seed else Estimate(
        fmean(c.mean for c in configurations), 0, None
    )  # fmt: skip


def _own_text(which: tuple[str, int], estimate: Estimate) -> str:
    method, shots = which
    return f"{named(method)}{'' if shots else ' without labels'} {_written(estimate)}"


def _written(estimate: Estimate) -> str:
    """Write a mean AUROC with its interval, or that one seed has none."""
    if estimate.interval is None:
        return f"{estimate.mean:.3f}" + " of one seed" * (estimate.n == 1)
    low, high = clipped(estimate.interval)
    return f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"


def _lacking(tables: Sequence[ReportTable]) -> Answer | None:
    """Say what the runs of own data leave open; None where they leave nothing."""
    cells = [c for table in tables for c in table.cells()]
    ran = [c for c in cells if c.ours]
    lacks = []
    absent = [c for c in cells if not c.ours]
    if absent:
        first = absent[0].key
        example = f"{named(first.method)}, {labelled(first.shots)}, on {first.category}"
        lacks.append(f"{len(absent)} of {len(cells)} cells have no run, such as {example}")
    few = [c for c in ran if c.ours and not c.ours.seedless and c.ours.estimate.n < LEAST_SEEDS]
    if few:
        lacks.append(
            f"{len(few)} of the {len(ran)} that ran have fewer than {LEAST_SEEDS} seeds, too few"
            " for a test"
        )
    methods = {(c.key.method, bool(c.key.shots)) for c in ran if c.key.method != REFERENCE}
    if methods and len({labels for _, labels in methods}) == 1:
        other = "without" if next(iter(methods))[1] else "with"
        lacks.append(f"no method {other} labels ran, so nothing tells what labels are worth")
    if not lacks:
        return None
    text = "; ".join(lacks)
    return Answer("What is missing?", f"{text[0].upper()}{text[1:]}.")


# Methods with labels against those without


def _labels(tables: Sequence[ReportTable]) -> Iterator[Answer]:
    rows = dict(_both_kinds(tables))
    if not rows:
        return
    free = _highest([without for without, _, _ in rows.values()])
    trained = _highest([with_labels for _, with_labels, _ in rows.values()])
    if free is None or trained is None:
        return
    shots = max(shots for _, _, shots in rows.values())
    values = [(w[free], t[trained]) for w, t, _ in rows.values()]
    above = sum(one > two for one, two in values)
    gap = shared_difference(*(dict(enumerate(column)) for column in zip(*values, strict=True)))
    assert gap is not None, "there is a row"
    spread = ""
    if gap.interval is not None:
        spread = f" [{signed(gap.interval[0])}, {signed(gap.interval[1])}] over rows"
    yield Answer(
        "Labels or no labels?",
        f"Mean of {counted(len(rows), 'row')}, on the same test images: {named(free)} without"
        f" labels {fmean(one for one, _ in values):.3f}, {named(trained)} with up to {shots}"
        f" {fmean(two for _, two in values):.3f}; difference {signed(gap.mean)}{spread}, the one"
        f" without labels above in {above} of {len(rows)}. Each is the highest of its kind by these"
        " same numbers.",
    )


def _both_kinds(
    tables: Sequence[ReportTable],
) -> Iterator[tuple[Place, tuple[Means, Means, int]]]:
    """Yield rows where methods of both kinds ran, on the images that all of them test."""
    for table in tables:
        if table.whole_sets:
            continue
        for row in table.rows:
            without = _at(row, 0)
            shots = max((c.key.shots for c in row.cells if c.ours), default=0)
            trained = {m: v for m, v in _at(row, shots).items() if m != REFERENCE}
            if without and trained and shots:
                key = row.cells[0].key
                yield (key.dataset, key.category), (without, trained, shots)


def _highest(rows: Sequence[Means]) -> str | None:
    """Return the method that ran in all rows and has the highest mean; None for none."""
    methods = sorted(set.intersection(*({*means} for means in rows)))
    return max(methods, key=lambda m: fmean(means[m] for means in rows), default=None)
