"""Published tables with their sources, read from `bench/published/*.csv`."""

import csv
import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.registry import METHODS
from bench.text import shots_in_words

FOLDER = Path(__file__).parent
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
"""MVTec AD's categories that are textures; the others are objects."""
MEANS = ("mean", "mean_texture", "mean_object")
"""Names that stand for a category in a mean over categories."""
NAMES = {
    **{name: entry.title for name, entry in METHODS.items()},
    "flos": "FLOS",
    "mlep": "MLEP",
    "kdad": "KDAD",
    "ahl_dra": "AHL(DRA)",
    "cavga_ru": "CAVGA-Ru",
    "cavga_du": "CAVGA-Du",
    "cavga_rw": "CAVGA-Rw",
    "cavga_dw": "CAVGA-Dw",
}
"""Methods as papers write them."""
FIELDS = ("title", "citation", "where", "confidence", "states", "margin")
OPTIONAL = ("heads", "protocol", "methods", "chosen", "not_comparable", "datasets", "metrics")
"""Parts of a table's card in `sources.toml`; the optional ones are tables, empty if left out.
So may be `runs`."""


@dataclass(frozen=True)
class Key:
    """What a published number measures."""

    dataset: str
    category: str
    shots: int
    """Labelled anomalies; 0 for methods that use none, and where the source counts in shares."""
    method: str
    """Empty where the number describes the data alone."""
    metric: str
    """`image_auroc`, `pixel_auroc` or `mean_class_accuracy` as fractions of one, `inference_ms` or
    `defect_types`."""


@dataclass(frozen=True)
class PublishedValue:
    """A published number; a Decimal, to keep its digits."""

    value: Decimal
    std: Decimal | None
    """Standard deviation over runs, where one is reported."""


def half_unit(number: Decimal) -> Decimal:
    """Return half a unit of a number's last digit."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "a published number is finite"
    return Decimal(5).scaleb(exponent - 1)


@dataclass(frozen=True)
class PublishedTable:
    """A published table and its source."""

    name: str
    title: str
    citation: str
    where: str
    """Template of a number's place in the source, with `{row}` and `{column}`."""
    heads: Mapping[str, str]
    """The source's names of categories, where they differ from ours."""
    confidence: str
    """How the numbers were read."""
    states: str
    """What the source says about how they were obtained."""
    margin: float
    """How far the AUROC of our run may be off and still reproduce a number."""
    protocol: Mapping[str, Any]
    """Settings and parameters that the source states for all methods, by our names."""
    methods: Mapping[str, Mapping[str, Any]]
    """What it states of one method, or leaves as that method's authors published it."""
    chosen: Mapping[str, Any]
    """Ours where it is silent."""
    not_comparable: Mapping[str, str]
    """Why a cell cannot be compared with its number, by `dataset method`."""
    datasets: Mapping[str, str]
    """Departures of every run on a dataset from the source."""
    metrics: Mapping[str, str]
    """Our metric to compare a method's column with, where it is not `auroc`."""
    copied: tuple[tuple[str, tuple[str, ...]], ...]
    """Tables, and the methods whose columns are probably copied from there."""
    cells: Mapping[Key, PublishedValue]
    runs: int | None = None
    """How many runs its means and standard deviations are of, where it says so."""

    def rows(self, method: str, shots: int, metric: str = "image_auroc") -> dict[Key, Decimal]:
        """Return a column without its means."""
        return {
            key: published.value
            for key, published in self.cells.items()
            if (key.method, key.shots, key.metric) == (method, shots, metric)
            and key.category not in MEANS
        }

    def stated(self, method: str) -> dict[str, Any]:
        """Return settings and parameters that the source states of a method."""
        return {**self.protocol, **self.methods.get(method, {})}

    def place(self, key: Key) -> str:
        """Return a number's table, row and column."""
        row = self.heads.get(key.category, key.category.replace("_", " "))
        column = NAMES.get(key.method, "number of anomaly types")
        if key.shots:
            column += f" at {shots_in_words(key.shots)}"
        return self.where.format(row=row, column=column)

    def metric(self, method: str) -> str:
        """Return our metric to compare a method's column with.

        `auroc_full` where the published numbers are of full test sets, else `auroc`, without the
        labelled anomalies.
        """
        return self.metrics.get(method, "auroc")

    def columns(self) -> Iterator[tuple[int, str]]:
        """Yield shots and method of each image AUROC column."""
        yield from dict.fromkeys(
            (k.shots, k.method) for k in self.cells if k.metric == "image_auroc"
        )


def averages(mean: str, category: str) -> bool:
    """Whether a mean of `MEANS` includes a category."""
    return mean == "mean" or (category in TEXTURES) == (mean == "mean_texture")


@functools.cache
def published_tables() -> Mapping[str, PublishedTable]:
    """Return all published tables by name."""
    cards = tomllib.loads((FOLDER / "sources.toml").read_text(encoding="utf-8"))
    return {name: _table(name, card) for name, card in cards.items()}


def pixel_level(key: Key) -> tuple[str, PublishedValue] | None:
    """Return a published pixel AUROC and its table's title."""
    pixel_key = replace(key, metric="pixel_auroc")
    tables = (table for table in published_tables().values() if pixel_key in table.cells)
    return next(((table.title, table.cells[pixel_key]) for table in tables), None)


def _table(name: str, card: Mapping[str, Any]) -> PublishedTable:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        cells = {
            Key(
                r["dataset"], r["category"], int(r["shots"]), r["method"], r["metric"]
            ): PublishedValue(Decimal(r["value"]), Decimal(r["std"]) if r["std"] else None)
            for r in csv.DictReader(file)
        }
    return PublishedTable(
        name=name,
        **{k: card[k] for k in FIELDS},
        **{k: card.get(k, {}) for k in OPTIONAL},
        copied=tuple((c["table"], tuple(c["methods"])) for c in card.get("copied", ())),
        cells=cells,
        runs=card.get("runs"),
    )
