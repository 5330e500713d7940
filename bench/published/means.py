"""Printed means beside the means of the rows they stand under."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from bench.published.findings import Finding, computed, mean_of
from bench.published.tables import MEANS, NAMES, TEXTURES, Key, PrintedTable, averages
from bench.text import joined


@dataclass(frozen=True)
class CheckedMean:
    """A printed mean and its rows."""

    key: Key
    printed: Decimal
    rows: tuple[Decimal, ...]

    @property
    def recomputed(self) -> Decimal:
        """The mean of the rows."""
        return _mean(self.rows)

    @property
    def follows(self) -> bool:
        """Whether it is the printed one to rounding; a half may be rounded either way."""
        half = Decimal(5).scaleb(self.printed.as_tuple().exponent - 1)  # type: ignore[operator]
        return abs(self.recomputed - self.printed) <= half

    def __str__(self) -> str:
        return f"{mean_of(self.key)}: printed {self.printed}, its rows give {self.recomputed:.5f}"


def _mean(values: tuple[Decimal, ...]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def means(table: PrintedTable) -> list[CheckedMean]:
    """Recompute every printed mean of a table over the rows that stand there."""
    return [
        CheckedMean(key, printed.value, _rows(table, key, key.metric))
        for key, printed in table.cells.items()
        if key.category in MEANS
    ]


def _rows(table: PrintedTable, key: Key, metric: str) -> tuple[Decimal, ...]:
    rows = table.rows(key.method, key.shots, metric).items()
    return tuple(
        value
        for row, value in rows
        if row.dataset == key.dataset and averages(key.category, row.category)
    )


def _wrong(table: PrintedTable) -> list[CheckedMean]:
    return [m for m in means(table) if not m.follows]


def recomputed(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Say of each table how many of its means follow from its rows."""
    for table in tables.values():
        checked, wrong = means(table), _wrong(table)
        if not checked:
            continue
        right = len(checked) - len(wrong)
        text = f"{right} of {len(checked)} printed means follow from their rows, to rounding."
        if len(checked) == 1:
            text = f"The printed mean {'follows' if right else 'does not follow'} from its rows."
        yield computed("means", [table], text, map(str, wrong))


def inherited(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Find means that do not follow and stand alike in the table that the column comes from."""
    for table in tables.values():
        for name, _ in table.copied:
            there = {(m.key, m.printed) for m in _wrong(tables[name])}
            shared = [m for m in _wrong(table) if (m.key, m.printed) in there]
            if shared:
                other = tables[name]
                text = (f"A mean that does not follow from its rows stands alike in {other.title}: "
                        "it came with the column.")  # fmt: skip
                yield computed(f"inherited-{name}", [table, other], text, map(str, shared))


def of_pixels(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Find printed image-level means that are the means of pixel-level rows elsewhere."""
    for table in tables.values():
        for other in tables.values():
            found: dict[str, list[tuple[CheckedMean, Decimal]]] = {}
            for wrong in _wrong(table):
                pixels = _rows(other, wrong.key, "pixel_auroc")
                if pixels and round(_mean(pixels), 3) == wrong.printed and other is not table:
                    found.setdefault(wrong.key.method, []).append((wrong, _mean(pixels)))
            for method, cases in found.items():
                over = joined(m.key.category.replace("mean_", "") + "s" for m, _ in cases)
                text = (
                    f"The printed means of {NAMES[method]} over {over} are those of pixel-level "
                    "AUROCs, though the rows above them are image-level."
                )
                lines = [f"{m}; pixel-level rows give {pixel:.4f}" for m, pixel in cases]
                yield computed(f"pixels-{method}", [table, other], text, lines)


def at_odds(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Find means over textures and objects that cannot both hold beside the mean over all."""
    for table in tables.values():
        printed = {(k.category, k.method): p.value for k, p in table.cells.items()
                   if k.category in MEANS}  # fmt: skip
        lines, methods = [], []
        for method in dict.fromkeys(m for c, m in printed if c == "mean_texture"):
            texture, thing, whole = (
                printed[c, method] for c in ("mean_texture", "mean_object", "mean")
            )
            implied = (len(TEXTURES) * texture + (15 - len(TEXTURES)) * thing) / 15
            if abs(implied - whole) > Decimal("0.001"):
                methods.append(NAMES[method])
                lines.append(f"{NAMES[method]}: {texture} over 5 textures and {thing} over 10 "
                             f"objects give {implied:.3f} over all, printed {whole}")  # fmt: skip
        if lines:
            text = (f"The printed means of {joined(methods)} over textures and over objects do "
                    "not fit the printed mean over all.")  # fmt: skip
            yield computed("at-odds", [table], text, lines)
