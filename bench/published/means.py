"""Published means, checked against the means of their rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from bench.published.findings import Finding, computed, mean_of
from bench.published.tables import (
    MEANS,
    NAMES,
    TEXTURES,
    Key,
    PublishedTable,
    averages,
    half_unit,
)
from bench.text import joined

IMPROBABLE = 0.05
_STEP = Decimal("0.000005")


@dataclass(frozen=True)
class CheckedMean:
    """A published mean and its rows."""

    key: Key
    published: Decimal
    rows: tuple[Decimal, ...]

    @property
    def recomputed(self) -> Decimal:
        """The mean of the rows."""
        return _mean(self.rows)

    @property
    def follows(self) -> bool:
        """Whether the rows give it, by their rounding in 5 % of cases or more."""
        return self.probability >= IMPROBABLE

    @cached_property
    def probability(self) -> float:
        """How often the rows give it, if each was rounded and may have been any such number.

        1 where the mean of the rows as published rounds to it. A row of 1.000 is taken as exact.
        """
        half = half_unit(self.published)
        if abs(self.recomputed - self.published) <= half:
            return 1.0
        return _probability(self.rows, self.published, half)

    def __str__(self) -> str:
        text = (
            f"{mean_of(self.key)}: published {self.published}, its rows give {self.recomputed:.5f}"
        )
        if self.probability == 0:
            return f"{text}; their rounding cannot give it"
        return f"{text}; their rounding gives it in {100 * self.probability:.1f} % of cases"


def _probability(rows: Sequence[Decimal], published: Decimal, half: Decimal) -> float:
    """Return how often the mean of rows, uniform within their rounding, rounds to a number.

    By convolution on a grid, which is exact to its step.
    """
    import numpy as np

    sums, low = np.ones(1), Decimal(0)
    for row in rows:
        unit = half_unit(row) if row < 1 else Decimal(0)
        low += row - unit
        cells = round(2 * unit / _STEP) or 1
        sums = np.convolve(sums, np.full(cells, 1 / cells))
    rounded = sum(row < 1 for row in rows)
    values = float(low) + float(_STEP) * (np.arange(len(sums)) + rounded / 2)
    within = np.abs(values / len(rows) - float(published)) <= float(half)
    return float(sums[within].sum())


def _mean(values: tuple[Decimal, ...]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def means(table: PublishedTable) -> list[CheckedMean]:
    """Recompute a table's means from its rows."""
    return [
        CheckedMean(key, published.value, _rows(table, key, key.metric))
        for key, published in table.cells.items()
        if key.category in MEANS
    ]


def _rows(table: PublishedTable, key: Key, metric: str) -> tuple[Decimal, ...]:
    rows = table.rows(key.method, key.shots, metric).items()
    return tuple(
        value
        for row, value in rows
        if row.dataset == key.dataset and averages(key.category, row.category)
    )


def _wrong(table: PublishedTable) -> list[CheckedMean]:
    return [m for m in means(table) if not m.follows]


def recomputed(tables: Mapping[str, PublishedTable]) -> Iterator[Finding]:
    """Count means that follow from their rows."""
    for table in tables.values():
        checked, wrong = means(table), _wrong(table)
        if not checked:
            continue
        right = len(checked) - len(wrong)
        text = (
            f"{right} of {len(checked)} published means follow from their rows, the rounding of"
            " the mean and of the rows allowed for."
        )
        if len(checked) == 1:
            text = f"The published mean {'follows' if right else 'does not follow'} from its rows."
        yield computed("means", [table], text, map(str, wrong))


def copied_means(tables: Mapping[str, PublishedTable]) -> Iterator[Finding]:
    """Find wrong means that were copied with their column."""
    for table in tables.values():
        for name, _ in table.copied:
            other = tables[name]
            wrong_in_source = {(m.key, m.published) for m in _wrong(other)}
            shared = [m for m in _wrong(table) if (m.key, m.published) in wrong_in_source]
            if shared:
                text = (
                    f"A mean that its rows hardly give stands alike in {other.title}: "
                    "it came with the column."
                )
                yield computed(f"inherited-{name}", [table, other], text, map(str, shared))


def pixel_means(tables: Mapping[str, PublishedTable]) -> Iterator[Finding]:
    """Find image-level means copied from pixel-level rows."""
    for table in tables.values():
        for other in tables.values():
            by_method: dict[str, list[tuple[CheckedMean, Decimal]]] = {}
            for wrong in _wrong(table):
                pixels = _rows(other, wrong.key, "pixel_auroc")
                if pixels and round(_mean(pixels), 3) == wrong.published and other is not table:
                    by_method.setdefault(wrong.key.method, []).append((wrong, _mean(pixels)))
            for method, cases in by_method.items():
                over = joined(m.key.category.replace("mean_", "") + "s" for m, _ in cases)
                text = (
                    f"The published means of {NAMES[method]} over {over} are those of pixel-level "
                    "AUROCs, though the rows above them are image-level."
                )
                lines = [f"{m}; pixel-level rows give {pixel:.4f}" for m, pixel in cases]
                yield computed(f"pixels-{method}", [table, other], text, lines)


def conflicting_means(tables: Mapping[str, PublishedTable]) -> Iterator[Finding]:
    """Find partial means that contradict the overall mean."""
    for table in tables.values():
        published = {
            (key.category, key.method): number.value
            for key, number in table.cells.items()
            if key.category in MEANS
        }
        lines, methods = [], []
        for method in dict.fromkeys(m for c, m in published if c == "mean_texture"):
            textures = published["mean_texture", method]
            objects = published["mean_object", method]
            overall = published["mean", method]
            implied = (len(TEXTURES) * textures + (15 - len(TEXTURES)) * objects) / 15
            if abs(implied - overall) > Decimal("0.001"):
                methods.append(NAMES[method])
                lines.append(
                    f"{NAMES[method]}: {textures} over 5 textures and {objects} over 10 "
                    f"objects give {implied:.3f} over all, published {overall}"
                )
        if lines:
            text = (
                f"The published means of {joined(methods)} over textures and over objects do "
                "not fit the published mean over all."
            )
            yield computed("at-odds", [table], text, lines)
