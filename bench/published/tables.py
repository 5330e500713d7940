"""The numbers in print: tables with their sources, as `bench/published/*.csv` hold them."""

import csv
import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.text import shots_in_words

FOLDER = Path(__file__).parent
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
"""MVTec AD's categories that are textures; the others are objects."""
MEANS = ("mean", "mean_texture", "mean_object")
"""What stands for a category where a mean over categories is printed."""
NAMES = {
    "devnet": "DevNet", "dra": "DRA", "saoe": "SAOE", "cutmix": "CutMix", "atacnet": "ATAC-Net",
    "flos": "FLOS", "mlep": "MLEP", "kdad": "KDAD", "ahl_dra": "AHL(DRA)",
    "patchsvdd": "Patch-SVDD", "spade": "SPADE", "padim": "PaDiM", "patchcore": "PatchCore",
    "memseg": "MemSeg",
}  # fmt: skip
"""Methods as they are written in print."""
FIELDS = ("title", "citation", "where", "confidence", "states", "margin")
OPTIONAL = ("heads", "protocol", "methods", "not_comparable", "datasets", "metrics")
"""Parts of a table's card in `sources.toml`; the optional ones are tables, empty if left out."""


@dataclass(frozen=True)
class Key:
    """What a printed number is the number of."""

    dataset: str
    category: str
    shots: int
    """Labelled anomalies; 0 for methods that use none."""
    method: str
    """Nothing where the number is of the data alone."""
    metric: str
    """`image_auroc` or `pixel_auroc` as fractions of one, `inference_ms` or `defect_types`."""


@dataclass(frozen=True)
class Printed:
    """A number as printed: a Decimal, since its digits count."""

    value: Decimal
    std: Decimal | None
    """Standard deviation over runs, where one is printed."""


@dataclass(frozen=True)
class PrintedTable:
    """A table in print and where it stands."""

    name: str
    title: str
    citation: str
    where: str
    """Where in the source a number stands, with `{row}` and `{column}`."""
    heads: Mapping[str, str]
    """What the source calls a category, where that is not its name here."""
    confidence: str
    """How the numbers were read."""
    states: str
    """What the source says of how they were made."""
    margin: float
    """By how much AUROC a run of our own may differ and still reproduce a number."""
    protocol: Mapping[str, Any]
    """The settings that the source states, by their names here."""
    methods: Mapping[str, Mapping[str, Any]]
    """The parameters that belong to that protocol, by method."""
    not_comparable: Mapping[str, str]
    """Why a cell cannot be what is printed, by `dataset method`."""
    datasets: Mapping[str, str]
    """What departs from the source for every run on a dataset."""
    metrics: Mapping[str, str]
    """Which of a run's metrics stands against a method's column, where it is not `auroc`."""
    copied: tuple[tuple[str, tuple[str, ...]], ...]
    """Tables, and the methods whose columns are thought to be copied from there."""
    cells: Mapping[Key, Printed]

    def rows(self, method: str, shots: int, metric: str = "image_auroc") -> dict[Key, Decimal]:
        """Return a column without its means."""
        return {
            key: printed.value
            for key, printed in self.cells.items()
            if (key.method, key.shots, key.metric) == (method, shots, metric)
            and key.category not in MEANS
        }

    def place(self, key: Key) -> str:
        """Say where in its source a number stands: table, row and column."""
        row = self.heads.get(key.category, key.category.replace("_", " "))
        column = NAMES.get(key.method, "number of anomaly types")
        if key.shots:
            column += f" at {shots_in_words(key.shots)}"
        return self.where.format(row=row, column=column)

    def metric(self, method: str) -> str:
        """Return which of a run's metrics stands against a method's column: `auroc_full` where the
        printed numbers are of whole test sets, else `auroc`, without the labelled anomalies.
        """
        return self.metrics.get(method, "auroc")

    def columns(self) -> Iterator[tuple[int, str]]:
        """Give shots and method of each column of image AUROC, as they are printed."""
        yield from dict.fromkeys(
            (k.shots, k.method) for k in self.cells if k.metric == "image_auroc"
        )


def averages(mean: str, category: str) -> bool:
    """Whether a printed mean (`mean`, `mean_texture` or `mean_object`) is over a category too."""
    return mean == "mean" or (category in TEXTURES) == (mean == "mean_texture")


@functools.cache
def published() -> Mapping[str, PrintedTable]:
    """Read all tables, by name."""
    cards = tomllib.loads((FOLDER / "sources.toml").read_text())
    return {name: _table(name, card) for name, card in cards.items()}


def pixel_level(key: Key) -> tuple[str, Printed] | None:
    """Return the pixel AUROC that is printed for a cell of image AUROC, and the table's title."""
    wanted = replace(key, metric="pixel_auroc")
    found = ((t.title, t.cells[wanted]) for t in published().values() if wanted in t.cells)
    return next(found, None)


def _table(name: str, card: Mapping[str, Any]) -> PrintedTable:
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        cells = {
            Key(r["dataset"], r["category"], int(r["shots"]), r["method"], r["metric"]): Printed(
                Decimal(r["value"]), Decimal(r["std"]) if r["std"] else None
            )
            for r in csv.DictReader(file)
        }
    return PrintedTable(
        name=name,
        **{k: card[k] for k in FIELDS},
        **{k: card.get(k, {}) for k in OPTIONAL},
        copied=tuple((c["table"], tuple(c["methods"])) for c in card.get("copied", ())),
        cells=cells,
    )
