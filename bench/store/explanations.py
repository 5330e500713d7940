"""Explanations of a run: maps, boxes, parts of scores.

They are what a detector's `explain` returned, on its own coarse grids, and lie outside of a run's
identity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.errors import MethodError
from bench.store.parquet import packed, unpacked

SIDES = ("left", "top", "right", "bottom")
EXTENTS = ("_height", "_width")
"""What a map's two columns of its size end in, and its own name therefore must not."""


@dataclass(frozen=True)
class Explanations:
    """Explanations of a run's N images, ordered like its scores."""

    file: tuple[str, ...]
    maps: Mapping[str, NDArray[np.float32]]
    """(N, h, w) each, by name, higher = more anomalous; the first is the one to draw."""
    boxes: NDArray[np.float32] | None
    """(N, 4): left, top, right, bottom of the zoomed view as shares of the image."""
    parts: Mapping[str, NDArray[np.float32]]
    """(N,) each: the terms that the score is made of."""

    def table(self) -> Any:
        """Return the explanations as a `pyarrow.Table`."""
        boxes = self.boxes
        return pa.table({
            "file": pa.array(self.file, pa.string()),
            **box_columns(len(self.file), boxes, pa.float32()),
            **part_and_map_columns(self.parts, self.maps),
        })  # fmt: skip

    @classmethod
    def from_table(cls, table: Any) -> "Explanations":
        """Read what `table` returned; raises ValueError."""
        try:
            names = table.column_names
            map_names = [
                n for n in names
                if n.startswith("map_") and all(f"{n}{extent}" in names for extent in EXTENTS)
            ]  # fmt: skip
            maps = {n.removeprefix("map_"): _map(table, n) for n in map_names}
            part_names = [n for n in names if n.startswith("part_")]
            parts = {n.removeprefix("part_"): _floats(table[n]) for n in part_names}
            boxed = [table[f"box_{side}"] for side in SIDES]
            boxes = None
            if any(column.null_count < len(table) for column in boxed):
                boxes = np.stack([_floats(column) for column in boxed], axis=1)
            explanations = cls(tuple(table["file"].to_pylist()), maps, boxes, parts)
            same_schema = explanations.table().schema.equals(table.schema)
            sound = same_schema and maps and None not in explanations.file
        except (KeyError, TypeError, AttributeError, pa.ArrowException):
            sound = False
        if not sound:
            columns = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
            raise ValueError(f"explanations have columns {columns}")
        return explanations


def joined(parts: Sequence[Explanations]) -> Explanations:
    """Return the explanations of several parts as one; raises MethodError if they differ."""
    first = parts[0]
    shapes = {n: m.shape[1:] for n, m in first.maps.items()}
    for part in parts:
        alike = {n: m.shape[1:] for n, m in part.maps.items()} == shapes
        if not alike or part.parts.keys() != first.parts.keys():
            raise MethodError("explain() must return the same maps and parts for all images")
        if (part.boxes is None) != (first.boxes is None):
            raise MethodError("explain() must return boxes for all images, or for none")
    boxes = [part.boxes for part in parts if part.boxes is not None]
    return Explanations(
        tuple(name for part in parts for name in part.file),
        {name: np.concatenate([part.maps[name] for part in parts]) for name in first.maps},
        np.concatenate(boxes) if boxes else None,
        {name: np.concatenate([part.parts[name] for part in parts]) for name in first.parts},
    )


def _floats(column: Any) -> NDArray[np.float32]:
    """Return a column of finite float32; raises ValueError."""
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column
    if values.dtype != np.float32 or column.null_count or not np.isfinite(values).all():
        raise ValueError("explanations hold values that are not finite")
    floats: NDArray[np.float32] = values
    return floats


def _map(table: Any, name: str) -> NDArray[np.float32]:
    """Return the maps of one name, (N, h, w)."""
    height, width = (table[f"{name}{extent}"].unique().to_pylist() for extent in EXTENTS)
    lists = table[name].combine_chunks()
    if len(height) != 1 or len(width) != 1 or lists.null_count:
        raise ValueError(f"explanations hold maps of several sizes in {name}")
    values = lists.flatten()
    lengths = set(lists.value_lengths().to_pylist())
    if lengths != {height[0] * width[0]} or min(height[0], width[0]) < 1 or values.null_count:
        raise ValueError(f"explanations hold maps of another size than they say in {name}")
    flat = values.to_numpy(zero_copy_only=False)
    if flat.dtype != np.float32 or not np.isfinite(flat).all():
        raise ValueError("explanations hold values that are not finite")
    maps: NDArray[np.float32] = flat.reshape(len(table), height[0], width[0])
    return maps


def box_columns(count: int, boxes: NDArray[Any] | None, kind: Any) -> dict[str, Any]:
    """Return the columns of `boxes` (N, 4), null without boxes."""
    return {
        f"box_{side}": pa.nulls(count, kind) if boxes is None else pa.array(boxes[:, i], kind)
        for i, side in enumerate(SIDES)
    }


def part_and_map_columns(
    parts: Mapping[str, NDArray[np.float32]], maps: Mapping[str, NDArray[np.float32]]
) -> dict[str, Any]:
    """Return a column for each part, three for each map:

    values as lists, height, width.
    """
    columns: dict[str, Any] = {f"part_{name}": pa.array(part) for name, part in parts.items()}
    for name, values in maps.items():
        count, height, width = values.shape
        ends = np.arange(count + 1, dtype=np.int32) * (height * width)
        columns[f"map_{name}"] = pa.ListArray.from_arrays(ends, pa.array(values.ravel()))
        for extent, size in zip(EXTENTS, (height, width), strict=True):
            columns[f"map_{name}{extent}"] = pa.array(np.full(count, size, np.int64))
    return columns


def explanations_bytes(explanations: Explanations) -> bytes:
    """Return the bytes of a run's explanations.parquet."""
    return packed(explanations.table())


def read_explanations(content: bytes) -> Explanations:
    """Read the bytes of explanations.parquet; raises ValueError."""
    return Explanations.from_table(unpacked(content))
