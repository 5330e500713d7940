"""Predictions of a saved model, and their files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import decode_image
from bench.data.overlay import captioned, overlay
from bench.errors import DataError, MethodError, RequestError, StoreError
from bench.execution.thresholds import DEFECT, OwnScores
from bench.store.explanations import EXTENTS, SIDES, Explanations, box_columns, part_and_map_columns
from bench.system.files import staged_folder
from bench.system.untrusted import one_line, os_reason

MAX_ROWS = 40
"""Rows of the printed table; the file has all."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for a part of all images, N of them."""

    files: tuple[Path, ...]
    width: NDArray[np.int64]
    """(N,), of the files, in pixels."""
    height: NDArray[np.int64]
    scores: NDArray[np.float32]
    """(N,), higher = more anomalous; comparable within one run only."""
    explanation: Explanations | None
    rows: tuple[int, ...]
    """The places of the N images among all files of the part."""
    problems: Mapping[int, tuple[Path, str]]
    """The other files, which do not decode, and why, by their places."""

    def boxes(self) -> NDArray[np.float64] | None:
        """Return zoomed views (N, 4): left, top, right, bottom in pixels."""
        if self.explanation is None or self.explanation.boxes is None:
            return None
        size = np.column_stack([self.width, self.height] * 2)
        return np.asarray(self.explanation.boxes * size, np.float64)

    def table(self, test: OwnScores) -> Any:
        """Return a row for each file: its score, rank and verdict, or its problem."""
        import pyarrow as pa

        columns: dict[str, Any] = {
            "file": pa.nulls(len(self.files), pa.string()),
            "width": self.width,
            "height": self.height,
            "score": self.scores,
            "rank": test.ranks(self.scores),
            "verdict": pa.array(test.verdicts(self.scores), pa.string()),
            **box_columns(len(self.files), self.boxes(), pa.float64()),
        }
        if (explanation := self.explanation) is not None:
            columns |= part_and_map_columns(explanation.parts, explanation.maps)
        index = dict(zip(self.rows, range(len(self.rows)), strict=True))
        order = range(len(self.rows) + len(self.problems))
        table = pa.table(columns).take(pa.array([index.get(i) for i in order], pa.int64()))
        files = [self.problems[i][0] if i in self.problems else self.files[index[i]] for i in order]
        problems = [self.problems[i][1] if i in self.problems else None for i in order]
        table = table.set_column(0, "file", pa.array(map(one_line, files), pa.string()))
        return table.append_column("problem", pa.array(problems, pa.string()))


@dataclass(frozen=True)
class Prediction:
    """One image's score, and where it lies among the run's own."""

    file: Path
    score: float
    rank: float
    """The share of the run's normal test images with a lower score."""
    verdict: str | None
    """`ok` or `defect`; None without a threshold."""
    box: NDArray[np.float64] | None


@dataclass
class Summary:
    """What became of all images."""

    images: int = 0
    """How many have a score."""
    highest: list[Prediction] = field(default_factory=list)
    """Up to `MAX_ROWS` of them, the highest score first."""
    defects: int = 0
    """How many are above the threshold."""
    problems: list[str] = field(default_factory=list)
    """A line for each file that does not decode."""
    overlays: bool = False
    """Whether there are overlays."""

    def add(self, part: Predictions, test: OwnScores) -> None:
        """Count in a part."""
        boxes, verdicts = part.boxes(), test.verdicts(part.scores)
        ranks = test.ranks(part.scores).tolist()
        rows = [
            Prediction(file, float(part.scores[i]), ranks[i], verdicts[i],
                       None if boxes is None else boxes[i])
            for i, file in enumerate(part.files)
        ]  # fmt: skip
        self.highest = sorted([*self.highest, *rows], key=lambda row: -row.score)[:MAX_ROWS]
        self.defects += verdicts.count(DEFECT)
        self.images += len(part.files)
        self.problems += [text for _, text in part.problems.values()]


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a predictions.parquet without its maps, part by part."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [n for n in file.schema_arrow.names if not n.startswith("map_")]
    for group in _groups(path, names):
        yield from group.to_pylist()


def check_new(out: Path) -> None:
    """Raise RequestError where a folder to write is there already."""
    if os.path.lexists(out):
        raise RequestError(
            f"{one_line(out)} is there already: remove it, or name another with --out"
        )


def write_predictions(
    files: Sequence[Path],
    parts: Iterable[Predictions],
    out: Path,
    test: OwnScores,
    *,
    overlays: bool,
) -> Summary:
    """Write predictions.parquet and overlays to a new folder, part by part.

    `parts` are the predictions of `files`, in their order; `test` ranks them. Raises RequestError
    where the folder is there already, StoreError where it cannot be written.
    """
    check_new(out)
    summary = Summary()
    try:
        with staged_folder(out, ".predictions-") as staging:
            table = staging / "predictions.parquet"
            first_map = _write_parts(parts, table, summary, test)
            if overlays and first_map:
                (staging / "overlays").mkdir()
                _draw(files, table, first_map, staging / "overlays", summary)
                summary.overlays = True
    except OSError as error:
        raise StoreError(f"cannot write {one_line(out)}: {os_reason(error)}") from error
    return summary


def _write_parts(
    parts: Iterable[Predictions], path: Path, summary: Summary, test: OwnScores
) -> str:
    """Write the parts; return the first map's column, if any."""
    import pyarrow.parquet as pq

    writer = None
    with path.open("xb") as file:
        try:
            for part in parts:
                table = part.table(test)
                writer = writer or pq.ParquetWriter(file, table.schema)
                if not table.schema.equals(writer.schema):
                    raise MethodError(
                        "explain() must return the same maps and parts for all images"
                    )
                writer.write_table(table)
                summary.add(part, test)
        finally:
            if writer:
                writer.close()
        file.flush()
        os.fsync(file.fileno())
    names = writer.schema.names if writer else []
    return next((n for n in names if n.startswith("map_") and not n.endswith(EXTENTS)), "")


def overlay_name(index: int, file: Path) -> str:
    """Return a unique name for an image's overlay."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in file.stem)
    return f"{index:05d}_{plain[:80]}.png"


def _draw(
    files: Sequence[Path], table: Path, first_map: str, folder: Path, summary: Summary
) -> None:
    """Draw images with their first map, on one scale."""
    import pyarrow.compute as pc

    height, width = (f"{first_map}{extent}" for extent in EXTENTS)
    columns = [first_map, height, width, "score", "rank", "verdict"]
    columns += [f"box_{side}" for side in SIDES]
    maxima = (pc.max(pc.list_flatten(group[first_map])) for group in _groups(table, [first_map]))
    top = max(maximum.as_py() for maximum in maxima)
    left = iter(enumerate(files))
    for group in _groups(table, columns):
        rows = zip(group[first_map], group.drop_columns(first_map).to_pylist(), strict=True)
        for (values, row), (i, file) in zip(rows, left, strict=False):
            if not values.is_valid:  # the file did not decode
                continue
            try:
                image: Image.Image = decode_image(file)[0]
            except DataError as error:  # it has gone or changed since
                summary.problems.append(str(error))
                continue
            score_map = values.values.to_numpy().reshape(row[height], row[width])
            sides = [row[f"box_{side}"] for side in SIDES]
            box = None if None in sides else np.array(sides)
            picture = overlay(image, score_map, top, box)
            words = f"{row['verdict']}  " if row["verdict"] else ""
            words += f"score {row['score']:.4g}, above {row['rank']:.1%} of normal test images"
            scale = f"{first_map.removeprefix('map_')} map"
            captioned(picture, scale, top, words).save(folder / overlay_name(i, file))


def _groups(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the row groups of a file as tables."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            yield file.read_row_group(i, columns=list(columns))
