"""The embeddings of one run: where its method sees each tested image, in few dimensions.

What a detector's `embed` returns has hundreds of dimensions; a run keeps its first principal
components, from which plots start. They lie outside of a run's identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.errors import MethodError
from bench.files import write_synced
from bench.parquet import packed, unpacked

COMPONENTS = 50
"""The most that are kept."""
SCHEMA = pa.schema({
    "file": pa.string(),
    "values": pa.list_(pa.float32()),
    "kept": pa.float64(),
})  # fmt: skip


@dataclass(frozen=True)
class Embeddings:
    """The features of the N images that a run has scored, in the order of its scores."""

    file: tuple[str, ...]
    values: NDArray[np.float32]
    """(N, d), the first d principal components, 1 <= d <= `COMPONENTS`, the largest first."""
    kept: float
    """Their share of the features' variance, 0 to 1."""

    def table(self) -> Any:
        """Return the embeddings as a `pyarrow.Table` of `SCHEMA`."""
        ends = np.arange(len(self.file) + 1, dtype=np.int32) * self.values.shape[1]
        values = pa.ListArray.from_arrays(ends, pa.array(self.values.ravel(), pa.float32()))
        kept = np.full(len(self.file), self.kept)
        columns = [pa.array(self.file, pa.string()), values, pa.array(kept)]
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: Any) -> "Embeddings":
        """Read a `pyarrow.Table` of `SCHEMA`; raises ValueError for any other."""
        if not table.schema.equals(SCHEMA) or any(c.null_count for c in table.columns):
            raise ValueError(f"embeddings have columns {', '.join(table.column_names)}")
        lists = table["values"].combine_chunks()
        lengths = set(lists.value_lengths().to_pylist())
        values, kept = lists.flatten(), table["kept"].to_numpy()
        if len(lengths) != 1 or 0 in lengths or len(set(kept.tolist())) != 1:
            raise ValueError("embeddings differ in length")
        values = values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
        if not np.isfinite(values).all() or not 0 <= kept[0] <= 1:
            raise ValueError("embeddings hold values that are not finite, or a share that is none")
        return cls(tuple(table["file"].to_pylist()), values, float(kept[0]))


def project(file: Sequence[str], features: Any) -> Embeddings:
    """Return the first principal components of what `embed` returned for these N images.

    A component points to where its largest loading is positive. Features without any variance give
    one component of zeros. Raises MethodError unless they are (N, D) finite floats.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exact = _checked(features, len(file)).astype(np.float64)
        centred = exact - exact.mean(axis=0)
        if not np.isfinite(centred).all():
            raise MethodError("embed() returned values that are too large to be centred")
        scores, loadings, shares = _components(centred)
        values = scores.astype(np.float32)
    if not np.isfinite(values).all():
        raise MethodError("embed() returned values that are too large for float32")
    count = max(1, min(COMPONENTS, int((shares > 0).sum())))
    turned = loadings[np.arange(count), np.abs(loadings[:count]).argmax(axis=1)] < 0
    values = np.where(turned, -values[:, :count], values[:, :count]) + np.float32(0)  # no -0
    kept = min(1.0, float(shares[:count].sum())) if shares.any() else 1.0
    return Embeddings(tuple(file), values, kept)


def _components(
    centred: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return scores (N, r), loadings (r, D) and shares of the variance (r,), the largest first.

    What is zero but for rounding has the share 0.
    """
    left, sizes, loadings = np.linalg.svd(centred, full_matrices=False)
    sizes = np.where(sizes > sizes[0] * max(centred.shape) * np.finfo(float).eps, sizes, 0.0)
    variances = (sizes / (sizes[0] or 1.0)) ** 2
    return left * sizes, loadings, variances / (variances.sum() or 1.0)


def _checked(features: Any, expected: int) -> NDArray[Any]:
    """Return a method's features as they are; raises MethodError unless (N, D) finite floats."""
    plain = type(features) is np.ndarray
    if not plain or features.dtype.kind != "f":
        found = features.dtype if plain else type(features).__name__
        raise MethodError(f"embed() must return an array of floats, not {found}")
    if features.ndim != 2 or len(features) != expected or not features.size:
        raise MethodError(f"embed() must return shape ({expected}, D), not {features.shape}")
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise MethodError(f"embed() returned {bad} of {expected} rows that are not finite")
    checked: NDArray[Any] = features
    return checked


def embeddings_bytes(embeddings: Embeddings) -> bytes:
    """Return the bytes of a run's embeddings.parquet."""
    return packed(embeddings.table())


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write a run's embeddings.parquet; raises OSError where the disk refuses."""
    write_synced(path, embeddings_bytes(embeddings))


def read_embeddings(content: bytes) -> Embeddings:
    """Read the bytes of a run's embeddings.parquet; raises ValueError where it is not one."""
    return Embeddings.from_table(unpacked(content))
