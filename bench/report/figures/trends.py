"""AUROC by number of labelled anomalies and by defect."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bench.analysis import selection as choice
from bench.analysis.configurations import REFERENCE, Configuration, StoredRuns
from bench.analysis.labels import method_name, name_of
from bench.analysis.statistics import Estimate, clipped, estimated, mean_interval
from bench.metrics import auroc
from bench.report.figures.figure import Figure, Kind, Numbers, Section, Sources, slug
from bench.report.figures.svg import (
    PALETTE,
    draw_interval,
    label_rows,
    legend,
    legend_top,
    marks,
    panels,
    plotting,
    svg,
)
from bench.spec import Place, RunSpec, shots_of
from bench.store.scores import Scores
from bench.text import brief, counted, listed

READING_SHOTS = (
    "Mean over seeds with its 95 % t-interval, over labelled anomalies in training: k shots are the"
    " first k of a seed’s ten, so the test set stays the same. Of each method the configuration is"
    " shown that ran with the most numbers of shots, of equal ones that which departs least from"
    " the paper’s stated protocol."
)
READING_DEFECTS = (
    "Each type of defect against the same normal test images: mean over seeds with its 95 %"
    " t-interval, the hardest type of the first method on top. n is the number of images at the"
    f" lowest seed, of at most {choice.MOST_SEEDS}; few images make a coarse number. {choice.RULE}"
)
MOST_TYPES = 12
MOST_METHODS = len(PALETTE)
By = Mapping[str, Mapping[int, Estimate]]
"""An estimate by method, and then by shots or by the place of a defect type in the list."""


# Against shots


def by_shots(sources: Sources) -> list[partial[Figure]]:
    """Plan AUROC against shots per place with several numbers."""
    figures = []
    for place, shots in choice.places(sources.stored).items():
        if len(shots) > 1:
            values = _same_configuration(sources.stored, place, shots)
            if any(len(v) > 1 for m, v in values.items() if m != REFERENCE):
                figures.append(partial(_shots, place, values))
    return figures


def _same_configuration(
    stored: StoredRuns, place: Place, shots: Sequence[int]
) -> dict[str, dict[int, Estimate]]:
    """Return AUROC by method and shots, in one configuration each."""
    methods = {m for p, s, m in stored.groups if p == place and s in shots}
    by_method = {}
    for method in sorted(methods, key=choice.order)[:MOST_METHODS]:
        rows: dict[RunSpec, dict[int, Configuration]] = {}
        for s in shots:
            for configuration in choice.configurations(stored, place, s, method):
                rows.setdefault(replace(configuration.row, shots=0), {})[s] = configuration
        best = min(rows.items(), key=lambda item: _rank(*item))[1]
        by_method[method_name(method)] = {
            s: mean_interval(list(best[s].by_seed.values())) for s in sorted(best)
        }
    return by_method


def _rank(row: RunSpec, by_shots: Mapping[int, Configuration]) -> tuple[int, int, int, str]:
    runs = sum(len(c.receipts) for c in by_shots.values())
    return -len(by_shots), min(len(c.departures) for c in by_shots.values()), -runs, row.run_id


def _shots(place: Place, values: By) -> Figure:
    where = name_of(place)
    name, title = slug("shots", where), f"AUROC against shots on {where}"
    summary = "; ".join(
        f"{m}: {listed([f'{estimated(e)} with {shots_of(s)}' for s, e in v.items()])}"
        for m, v in values.items()
    )
    most = max(e.n for by in values.values() for e in by.values())
    note = f"Over {counted(most, 'seed')}{' at most' if most > 1 else ''}."
    alt = f"AUROC against shots on {where}. {summary}."
    ticks = sorted({s for by in values.values() for s in by})
    numbers = _numbers(values, "labelled", {s: shots_of(s) for s in ticks})
    return Figure(name, "shots", title, note, alt, shots_plot(values, alt), (numbers,))


def _numbers(values: By, what: str, names: Mapping[int, str]) -> Numbers:
    """Return a row per name and method; what `names` are is the first column's title."""
    rows = [
        (name, method, f"{e.mean:.3f}", *_ends(e), str(e.n))
        for i, name in names.items()
        for method, by in values.items()
        if (e := by.get(i))
    ]
    return Numbers((what, "method", "AUROC", "from", "to", "seeds"), tuple(rows))


def _ends(estimate: Estimate) -> tuple[str, str]:
    """Write the ends of an interval, clipped to [0, 1]; nothing for none."""
    if estimate.interval is None:
        return "", ""
    low, high = clipped(estimate.interval)
    return f"{low:.3f}", f"{high:.3f}"


def shots_plot(values: By, alt: str) -> str:
    """Draw a line per method over evenly spaced shots."""
    ticks = sorted({s for by in values.values() for s in by})
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, 2.0, top=legend_top(len(values)))
        for i, ((method, by), mark) in enumerate(zip(values.items(), marks(values), strict=True)):
            beside = 0.06 * (i - (len(values) - 1) / 2)  # so that intervals do not hide each other
            x = [ticks.index(s) + beside for s in by]
            axis.plot(x, [e.mean for e in by.values()], markersize=4, linewidth=1.2, label=method,
                      **mark)  # fmt: skip
            for at, estimate in zip(x, by.values(), strict=True):
                draw_interval(axis, at, estimate.interval, mark["color"], upright=True)
        axis.set_xticks(range(len(ticks)), [str(s) for s in ticks])
        axis.set(xlabel="labelled anomalies", ylabel="AUROC", xlim=(-0.4, len(ticks) - 0.6))
        legend(figure, axis, min(3, len(values)))
        return svg(figure, alt)


# By type of defect


def by_defect(sources: Sources) -> list[partial[Figure]]:
    """Plan AUROC by defect type per place, with most shots."""
    figures = []
    for place, shots in choice.places(sources.stored).items():
        first = choice.best_configurations(sources.stored, place, shots[0])[0]
        scores = sources.reader.scores
        if first.row.method != REFERENCE and len(_types(scores(first.receipts[0]))) > 1:
            figures.append(partial(_defects, sources, place, shots[0]))
    return figures


def _types(scores: Scores) -> dict[str, int]:
    """Return the counting images' defect types, with their number."""
    images = zip(scores.defect, scores.label, scores.role, strict=True)
    counts = Counter(defect for defect, label, role in images if label and role == "test")
    return dict(sorted(counts.items()))


def defect_auroc(scores: Scores, defect: str) -> float | None:
    """Return one defect type's AUROC; None where no image counts."""
    chosen = scores.counted() & (~scores.label | (np.array(scores.defect) == defect))
    if not scores.label[chosen].any():
        return None
    return auroc(scores.score[chosen], scores.label[chosen])


def _over_seeds(runs: Sequence[Scores], defect: str) -> Estimate | None:
    values = [value for scores in runs if (value := defect_auroc(scores, defect)) is not None]
    return mean_interval(values) if values else None


def _defects(sources: Sources, place: Place, shots: int) -> Figure:
    configurations = choice.best_configurations(sources.stored, place, shots)
    shown = configurations[:MOST_METHODS]
    runs = {
        method_name(w.row.method): [
            sources.reader.scores(r) for r in w.receipts[: choice.MOST_SEEDS]
        ]
        for w in shown
    }
    types = _types(next(iter(runs.values()))[0])
    most = sorted(types, key=lambda d: (-types[d], d))[:MOST_TYPES]
    values = {
        method: {d: e for d in most if (e := _over_seeds(scores, d))}
        for method, scores in runs.items()
    }
    first = next(iter(values.values()))
    hardest_first = sorted(most, key=lambda d: (first[d].mean, d))
    labels = [f"{brief(d)} (n={types[d]})" for d in hardest_first]
    rows = {m: {hardest_first.index(d): e for d, e in by.items()} for m, by in values.items()}
    where = f"{name_of(place)}, {shots_of(shots)}"
    name, title = slug("defects", where), f"AUROC by type of defect on {where}"
    summary = "; ".join(
        f"{label}: {listed([f'{m} {by[i].mean:.3f}' for m, by in rows.items() if i in by])}"
        for i, label in enumerate(labels)
    )
    left_out = len(types) - len(most)
    seeds = max(len(scores) for scores in runs.values())
    note = f"Over {counted(seeds, 'seed')}." + choice.left_out(configurations, shown)
    note += f" {left_out} types with fewer images are left out." if left_out else ""
    alt = f"AUROC by type of defect on {where}. {summary}."
    numbers = _numbers(rows, "defects", dict(enumerate(labels)))
    return Figure(name, "defects", title, note, alt, defects_plot(rows, labels, alt), (numbers,))


def defects_plot(rows: By, labels: Sequence[str], alt: str) -> str:
    """Draw a row per defect type, a mark per method."""
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, 0.5 * len(labels), left=0.15, top=legend_top(len(rows) + 1))
        for i, ((method, by), mark) in enumerate(zip(rows.items(), marks(rows), strict=True)):
            below = 0.09 * i - 0.1  # under the row's label
            y = [row + below for row in by]
            axis.plot([e.mean for e in by.values()], y, markersize=4.5, label=method, alpha=0.85,
                      **{**mark, "linestyle": "none"})  # fmt: skip
            for at, estimate in zip(y, by.values(), strict=True):
                draw_interval(axis, at, estimate.interval, mark["color"], upright=False)
        axis.axvline(0.5, color="0.6", linewidth=0.7, linestyle=":", zorder=0, label="chance")
        label_rows(axis, labels)
        axis.set_ylim(len(labels) - 0.4, -0.75)
        axis.set_xlabel("AUROC")
        legend(figure, axis, min(3, len(rows) + 1))
        return svg(figure, alt)


SHOTS = Section(
    "shots", "AUROC against labelled anomalies", READING_SHOTS, {"shots": Kind(20, by_shots)}
)
DEFECTS = Section(
    "defects", "AUROC by defect type", READING_DEFECTS, {"defects": Kind(20, by_defect)}
)
