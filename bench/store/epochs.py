"""Scores of a run's tested images after each epoch of its training.

They say what an epoch chosen on the test images would have given; results are of the last epoch
alone. They lie outside of a run's identity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.metrics import auroc
from bench.store.parquet import packed, unpacked
from bench.store.scores import Scores

SCHEMA = pa.schema({
    "file": pa.string(),
    "epochs": pa.list_(pa.int64()),
    "scores": pa.list_(pa.float32()),
})  # fmt: skip


@dataclass(frozen=True)
class ScoresByEpoch:
    """Scores of a run's N images after E epochs, ordered like its scores."""

    file: tuple[str, ...]
    epochs: tuple[int, ...]
    """Rising, from 1 on."""
    scores: NDArray[np.float32]
    """(E, N), higher = more anomalous."""

    def auroc(self, scores: Scores) -> dict[int, float]:
        """Return the AUROC of the images that count, by epoch.

        `scores` are the run's, whose labels and roles hold. Raises ValueError for other images.
        """
        if self.file != tuple(scores.file):
            raise ValueError("scores by epoch are of other images than the scores")
        counted = scores.counted()
        values = [auroc(row[counted], scores.label[counted]) for row in self.scores]
        return dict(zip(self.epochs, values, strict=True))

    def table(self) -> Any:
        """Return the scores as a `pyarrow.Table` of `SCHEMA`."""
        images, count = len(self.file), len(self.epochs)
        ends = np.arange(images + 1, dtype=np.int32) * count
        epochs = pa.array(np.tile(np.array(self.epochs, np.int64), images), pa.int64())
        scores = pa.array(self.scores.T.ravel(), pa.float32())
        columns = [
            pa.array(self.file, pa.string()),
            pa.ListArray.from_arrays(ends, epochs),
            pa.ListArray.from_arrays(ends, scores),
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: Any) -> "ScoresByEpoch":
        """Read a table of `SCHEMA`; raises ValueError."""
        if not table.schema.equals(SCHEMA) or any(c.null_count for c in table.columns):
            raise ValueError(f"scores by epoch have columns {', '.join(table.column_names)}")
        epochs = {tuple(entry) for entry in table["epochs"].to_pylist()}
        if len(epochs) != 1:
            raise ValueError("scores by epoch are of several lists of epochs")
        (known,) = epochs
        lists = table["scores"].combine_chunks()
        values = lists.flatten()
        if None in known or [*known] != sorted({*known}) or not known or known[0] < 1:
            raise ValueError("scores by epoch are of epochs that do not rise from 1 on")
        if {*lists.value_lengths().to_pylist()} != {len(known)} or values.null_count:
            raise ValueError("scores by epoch differ in length")
        scores = values.to_numpy(zero_copy_only=False).reshape(len(table), -1).T
        if not np.isfinite(scores).all():
            raise ValueError("scores by epoch hold values that are not finite")
        return cls(tuple(table["file"].to_pylist()), known, scores)


def epochs_bytes(by_epoch: ScoresByEpoch) -> bytes:
    """Return the bytes of a run's epochs.parquet."""
    return packed(by_epoch.table())


def read_epochs(content: bytes) -> ScoresByEpoch:
    """Read the bytes of epochs.parquet; raises ValueError."""
    return ScoresByEpoch.from_table(unpacked(content))
