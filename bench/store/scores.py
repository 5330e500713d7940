"""Scores of a run's tested images, and their metrics."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench import metrics
from bench.store.parquet import packed, unpacked
from bench.system.files import write_synced
from bench.system.untrusted import os_reason

SCHEMA = pa.schema({
    "file": pa.string(),
    "label": pa.int8(),
    "defect": pa.string(),
    "role": pa.string(),
    "score": pa.float32(),
})  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Scores of a run's test fold; every field has N values."""

    file: Sequence[str]
    label: NDArray[np.bool_]
    """Whether the image shows a defect."""
    defect: Sequence[str]
    role: Sequence[str]
    """`test`, or why the image does not count: see `bench.data.splits.Split`."""
    score: NDArray[np.float32]

    def digest(self) -> str:
        """Return the sha256 over names and little-endian float32 scores."""
        digest = hashlib.sha256("\n".join(self.file).encode())
        digest.update(self.score.astype("<f4").tobytes())
        return digest.hexdigest()

    def counted(self) -> NDArray[np.bool_]:
        """Return whether each image counts, (N,)."""
        return np.array([role == "test" for role in self.role], bool)

    def metrics(self, *, full: bool, threshold: float | None = None) -> dict[str, float]:
        """Return AUROC and AP of the images that count, and accuracy at a threshold.

        With `full` also those of the whole test fold, for methods that train on no anomaly (Table
        2's print). Raises ValueError where only one class is left.
        """
        counted = self.counted()
        values = _metrics(self.score[counted], self.label[counted], threshold)
        if full:
            of_all = _metrics(self.score, self.label, threshold)
            values |= {f"{name}_full": value for name, value in of_all.items()}
        return values

    def gap(self, other: "Scores") -> float | None:
        """Return the largest score difference; None for other images."""
        if self.file != other.file:
            return None
        return float(np.abs(self.score.astype(float) - other.score).max(initial=0.0))

    def table(self) -> Any:
        """Return the scores as a `pyarrow.Table` of `SCHEMA`."""
        columns = [self.file, self.label.astype(np.int8), self.defect, self.role, self.score]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: Any) -> "Scores":
        """Read a table of `SCHEMA`; raises ValueError."""
        if not table.schema.equals(SCHEMA) or any(c.null_count for c in table.columns):
            raise ValueError(f"scores have columns {', '.join(table.column_names)}")
        label = table["label"].to_numpy()
        if not np.isin(label, (0, 1)).all():
            raise ValueError("labels of scores are 0 or 1")
        return cls(
            file=tuple(table["file"].to_pylist()),
            label=label.astype(bool),
            defect=tuple(table["defect"].to_pylist()),
            role=tuple(table["role"].to_pylist()),
            score=table["score"].to_numpy(),
        )


def _metrics(
    score: NDArray[np.float32], label: NDArray[np.bool_], threshold: float | None
) -> dict[str, float]:
    values = {
        "auroc": metrics.auroc(score, label),
        "ap": metrics.average_precision(score, label),
    }
    if threshold is not None:
        values["mean_class_accuracy"] = metrics.mean_class_accuracy(score, label, threshold)
    return values


def write_scores(path: Path, scores: Scores) -> None:
    """Write a run's scores.parquet; raises OSError."""
    write_synced(path, packed(scores.table()))


def read_scores(path: Path) -> Scores:
    """Read a run's scores.parquet; raises ValueError."""
    try:
        return Scores.from_table(unpacked(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path} does not read: {os_reason(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
