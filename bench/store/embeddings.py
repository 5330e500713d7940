"""Embeddings of a run's tested images, in few dimensions.

What a detector's `embed` returns has hundreds of dimensions; a run keeps its first principal
components, from which plots start. They lie outside of a run's identity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.store.parquet import packed, unpacked

COMPONENTS = 50
"""The most that are kept."""
SCHEMA = pa.schema({
    "file": pa.string(),
    "values": pa.list_(pa.float32()),
    "kept": pa.float64(),
})  # fmt: skip


@dataclass(frozen=True)
class Embeddings:
    """Features of a run's N images, ordered like its scores."""

    file: tuple[str, ...]
    values: NDArray[np.float32]
    """(N, d), the first d principal components, 1 <= d <= `COMPONENTS`, the largest first."""
    kept: float
    """Their share of the features' variance, 0 to 1."""

    def table(self) -> Any:
        """Return the embeddings as a `pyarrow.Table` of `SCHEMA`."""
        ends = np.arange(len(self.file) + 1, dtype=np.int32) * self.values.shape[1]
        values = pa.ListArray.from_arrays(ends, pa.array(self.values.ravel(), pa.float32()))
        shares = pa.array(np.full(len(self.file), self.kept))
        columns = [pa.array(self.file, pa.string()), values, shares]
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: Any) -> "Embeddings":
        """Read a table of `SCHEMA`; raises ValueError."""
        if not table.schema.equals(SCHEMA) or any(c.null_count for c in table.columns):
            raise ValueError(f"embeddings have columns {', '.join(table.column_names)}")
        lists = table["values"].combine_chunks()
        lengths = set(lists.value_lengths().to_pylist())
        values, shares = lists.flatten(), table["kept"].to_numpy()
        if len(lengths) != 1 or 0 in lengths or len(set(shares.tolist())) != 1:
            raise ValueError("embeddings differ in length")
        values = values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
        if not np.isfinite(values).all() or not 0 <= shares[0] <= 1:
            raise ValueError("embeddings hold values that are not finite, or a share that is none")
        return cls(tuple(table["file"].to_pylist()), values, float(shares[0]))


def embeddings_bytes(embeddings: Embeddings) -> bytes:
    """Return the bytes of a run's embeddings.parquet."""
    return packed(embeddings.table())


def read_embeddings(content: bytes) -> Embeddings:
    """Read the bytes of embeddings.parquet; raises ValueError."""
    return Embeddings.from_table(unpacked(content))
