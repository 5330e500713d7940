"""Methods ranked across datasets."""

from collections.abc import Mapping
from functools import partial
from itertools import combinations
from statistics import fmean

from bench.analysis import selection as choice
from bench.analysis.configurations import REFERENCE, Configuration, StoredRuns
from bench.analysis.labels import method_name
from bench.analysis.statistics import Ranking, ranking
from bench.report.figures.figure import Figure, Kind, Numbers, Section, slug
from bench.report.figures.svg import BLUE, label_rows, panels, plotting, svg
from bench.spec import Place, RunSpec, shots_of
from bench.text import listed, p_text, p_words

_READING = (
    "Mean rank of each method’s AUROC over datasets and categories, 1 is best; one configuration of"
    " each method, the same everywhere. Friedman’s test that all are alike, then each pair by"
    " Wilcoxon’s signed-rank test, p adjusted by Holm over all pairs; a bar joins methods of which"
    f" no pair differs at 0.05. {REFERENCE} is not ranked."
)
LEAST_PLACES = 10
_LEAST_METHODS = 3
_LEVEL = 0.05


def plans(stored: StoredRuns) -> list[partial[Figure]]:
    """Plan a ranking per number of shots with enough places."""
    figures = []
    for shots in sorted({s for _, s, _ in stored.groups} - {0}, reverse=True):
        by_method = _by_method(stored, shots)
        complete = complete_places({m: frozenset(by_place) for m, by_place in by_method.items()})
        if complete:
            figures.append(partial(_figure, shots, by_method, *complete))
    return figures


def _by_method(stored: StoredRuns, shots: int) -> dict[str, dict[Place, Configuration]]:
    """Return each method's configurations by place, of one variant."""
    methods = {m for _, s, m in stored.groups if s in (0, shots)} - {REFERENCE}
    by_method = {}
    for method in sorted(methods, key=choice.order):
        variants: dict[RunSpec, dict[Place, Configuration]] = {}
        for place, s, m in stored.groups:
            if m == method and s in (0, shots):
                for configuration in choice.configurations(stored, place, s, m):
                    row = configuration.row
                    if row.setting == "general" and stored.place.is_preferred(row):
                        variants.setdefault(configuration.variant, {}).setdefault(
                            place, configuration
                        )
        if variants:
            by_method[method] = min(variants.items(), key=lambda item: _rank(*item))[1]
    return by_method


def _rank(variant: RunSpec, by_place: Mapping[Place, Configuration]) -> tuple[int, int, str]:
    return -len(by_place), sum(len(c.departures) for c in by_place.values()), variant.run_id


def complete_places(
    by_method: Mapping[str, frozenset[Place]],
) -> tuple[list[Place], list[str]] | None:
    """Return the most places that three methods share, and their methods.

    None where it has fewer than ten. Of equally large sets, the one that more methods have.
    """
    best: tuple[int, int] = (LEAST_PLACES - 1, 0)
    complete = None
    for three in combinations(by_method, _LEAST_METHODS):
        shared = frozenset.intersection(*(by_method[m] for m in three))
        methods = [m for m, places in by_method.items() if shared <= places]
        if (len(shared), len(methods)) > best and len(shared) >= LEAST_PLACES:
            best = (len(shared), len(methods))
            complete = sorted(shared), methods
    return complete


def _figure(
    shots: int,
    by_method: Mapping[str, Mapping[Place, Configuration]],
    places: list[Place],
    methods: list[str],
) -> Figure:
    chosen = {m: [by_method[m][p] for p in places] for m in methods}
    result = ranking(
        {
            method_name(m): [fmean(c.by_seed.values()) for c in configurations]
            for m, configurations in chosen.items()
        }
    )
    seeds = sorted({len(c.receipts) for configurations in chosen.values() for c in configurations})
    out = [f"{method_name(m)} ({len(by_method[m].keys() & {*places})} of {len(places)})"
           for m in by_method if m not in methods]  # fmt: skip
    ranks = listed([f"{m} {rank:.2f}" for m, rank in result.ranks.items()])
    pairs = listed([f"{a} against {b} {p_words(p)}" for (a, b), p in result.pairs.items()])
    note = f"Means over {' or '.join(map(str, seeds))} seeds. Friedman: {p_words(result.p)}." + (
        f" Kept out for missing places: {listed(out)}." if out else ""
    )
    title = f"Ranks across {result.datasets} datasets and categories, {shots_of(shots)}"
    name = slug("ranks", shots_of(shots))
    alt = f"Mean ranks: {ranks}. Friedman: {p_words(result.p)}. Holm-adjusted p: {pairs}."
    return Figure(name, "ranks", title, note, alt, plot(result, alt), (_numbers(result),))


def _numbers(result: Ranking) -> Numbers:
    """Return mean ranks, with the adjusted p of each pair."""
    p = {frozenset(pair): p_text(value) for pair, value in result.pairs.items()}
    return Numbers(
        ("method", "mean rank", *(f"p against {m}" for m in result.ranks)),
        tuple(
            (m, f"{rank:.2f}", *(p.get(frozenset((m, other)), "") for other in result.ranks))
            for m, rank in result.ranks.items()
        ),
    )


def alike(result: Ranking) -> list[tuple[str, str]]:
    """Return ends of the longest ranges in which no pair differs."""
    names = list(result.ranks)
    p = {frozenset(pair): value for pair, value in result.pairs.items()}
    spans: list[tuple[int, int]] = []
    for i in range(len(names)):
        j = i
        while j + 1 < len(names) and all(
            p[frozenset((names[k], names[j + 1]))] >= _LEVEL for k in range(i, j + 1)
        ):
            j += 1
        if j > i and not (spans and spans[-1][1] >= j):
            spans.append((i, j))
    return [(names[i], names[j]) for i, j in spans]


def plot(result: Ranking, alt: str) -> str:
    """Draw mean ranks, with bars that join methods alike."""
    bars = alike(result)
    with plotting(alt) as plt:
        figure, (axis,) = panels(plt, 0.42 * len(result.ranks) + 0.14 * len(bars), left=0.15)
        label_rows(axis, [f"{method}: {rank:.2f}" for method, rank in result.ranks.items()])
        for y, rank in enumerate(result.ranks.values()):
            axis.plot([1, len(result.ranks)], [y, y], color="0.85", linewidth=0.8, zorder=0)
            axis.plot([rank], [y], "o", color=BLUE, markersize=5)
        bottom = len(result.ranks) - 0.6
        for i, (first, last) in enumerate(bars):
            at = bottom + 0.3 * i
            axis.plot([result.ranks[first] - 0.04, result.ranks[last] + 0.04], [at, at],
                      color="0.2", linewidth=2.5)  # fmt: skip
        axis.set_ylim(bottom + 0.3 * len(bars), -0.75)
        axis.set(xlabel="mean rank, 1 is best", xlim=(0.9, len(result.ranks) + 0.1))
        return svg(figure, alt)


SECTION = Section(
    "ranks", "Ranks over datasets", _READING, {"ranks": Kind(4, lambda s: plans(s.stored))}
)
