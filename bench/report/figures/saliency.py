"""Figures 1 and 5: ATAC-Net's attention, crops and zoomed view."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.analysis import selection as choice
from bench.analysis.configurations import StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.selection import OURS
from bench.data.overlay import overlay
from bench.metrics import auroc
from bench.report.figures.figure import Figure, Kind, Section, Sources, slug
from bench.report.figures.sheet import Box, TextLine, Tile, coarse, cut, sheet, two_tone
from bench.report.pictures import Pictures
from bench.spec import RunSpec, shots_of
from bench.store.artifacts import EXPLANATIONS
from bench.store.groups import Metrics
from bench.store.receipt import Receipt
from bench.text import brief, listed, signed

MAPS = ("score", "attention", "grad_cam", "grad_cam_zoomed")
"""What a run must keep for these figures."""
HOT = 0.5
"""Share of a map's own highest value from which a cell counts as hot."""
READING_ZOOM = (
    "Grad-CAM of each view’s own score, one colour scale for both views of an image, and how the"
    " score changes from the whole image to the zoomed view (white frame). Images are chosen by"
    " that change among all anomalous test images, and the median of the normal ones. The share of"
    " a view in which the map exceeds half its maximum grows by itself where a crop is made around"
    " what is hot."
)
READING_CROPS = (
    "Score map (one colour scale for all test images), the cells where the attention, scaled to 0-1"
    " by itself, reaches the threshold, the tight box around them, and the zoomed view. Images are"
    " chosen by their score among all test images, right and wrong ones alike."
)
ARROW = "\N{RIGHTWARDS ARROW}"


@dataclass(frozen=True)
class Views:
    """What one run saw in the N images that count."""

    spec: RunSpec
    where: str
    """Its place and shots in words."""
    file: tuple[str, ...]
    label: NDArray[np.bool_]
    defect: tuple[str, ...]
    score: NDArray[np.float32]
    maps: dict[str, NDArray[np.float32]]
    boxes: NDArray[np.float32]
    raw: NDArray[np.float32]
    """(N,), score of the whole image."""
    zoomed: NDArray[np.float32]
    """(N,), score of the zoomed view."""
    held: tuple[float, float] | None = None
    """Share of a defect that the zoomed view holds, and by chance, where there are masks."""

    @cached_property
    def active(self) -> NDArray[np.bool_]:
        """(N, h, w): where the attention, scaled to 0-1, reaches the threshold."""
        low = self.maps["attention"].min((1, 2), keepdims=True)
        spread = self.maps["attention"].max((1, 2), keepdims=True) - low
        scaled = (self.maps["attention"] - low) / np.where(spread > 0, spread, np.nan)
        active: NDArray[np.bool_] = scaled >= self.threshold  # nowhere on a constant map
        return active

    @property
    def threshold(self) -> float:
        """The parameter of the run."""
        return float(self.spec.parameters.get("threshold", 0.4))

    def box(self, i: int) -> Box:
        """Return the zoomed view of an image as shares of it."""
        return cast("Box", tuple(float(v) for v in self.boxes[i].clip(0, 1)))

    def picture(self, i: int, pictures: Pictures | None) -> Image.Image | None:
        """Return an image, where it is at hand."""
        if pictures is None:
            return None
        s = self.spec
        file, content = self.file[i], s.fingerprint
        return pictures.picture(s.dataset, s.category, file, content, s.data_version)


Case = tuple[str, int]
"""Why an image is shown, and which."""


def zoom_cases(views: Views) -> list[Case]:
    """Choose images by how the zoom changed their score."""
    change = views.zoomed - views.raw
    by_change = _sorted(views.file, -change)
    anomalous = [i for i in by_change if views.label[i]]
    normal = [i for i in by_change if not views.label[i]]
    least = anomalous[-1]
    return _once([
        ("largest gain" if change[anomalous[0]] > 0 else "smallest loss", anomalous[0]),
        ("median change", anomalous[len(anomalous) // 2]),
        ("largest loss" if change[least] < 0 else "smallest gain", least),
        ("median normal", normal[len(normal) // 2]),
    ])  # fmt: skip


def crop_cases(views: Views) -> list[Case]:
    """Choose anomalies and normal images by score."""
    by_score = _sorted(views.file, -views.score)
    anomalous = [i for i in by_score if views.label[i]]
    normal = [i for i in by_score if not views.label[i]]
    return _once([
        ("highest-scored anomaly", anomalous[0]),
        ("median anomaly", anomalous[len(anomalous) // 2]),
        ("lowest-scored anomaly", anomalous[-1]),
        ("highest-scored normal", normal[0]),
        ("median normal", normal[len(normal) // 2]),
    ])  # fmt: skip


def _sorted(file: Sequence[str], values: NDArray[np.float32]) -> list[int]:
    """Return indices by value, of equal ones by file name."""
    return sorted(range(len(file)), key=lambda i: (float(values[i]), file[i]))


def _once(cases: Sequence[Case]) -> list[Case]:
    """Leave out repeated images."""
    first: dict[int, str] = {}
    for why, i in cases:
        first.setdefault(i, why)
    return [(why, i) for i, why in first.items()]


# Planning


def _plans(
    draw: Callable[[Views, Pictures | None], Figure], sources: Sources
) -> list[partial[Figure | None]]:
    """Plan a figure per place with ATAC-Net's explanations."""
    return [partial(_figure, draw, r, sources) for r in _explained(sources.stored)]


def _explained(stored: StoredRuns) -> list[Receipt]:
    """Return each place's best run with the attention's box."""
    runs = []
    for place, several in choice.places(stored).items():
        explained = [
            shown.receipts[0]
            for shots in several
            for c in choice.configurations(stored, place, shots, OURS)
            if c.row.parameters.get("view") == "attention"
            and (shown := c.with_artifact(EXPLANATIONS))
        ]
        runs += explained[:1]
    return runs


def views_of(receipt: Receipt, sources: Sources) -> Views | None:
    """Return what a run saw; None for an incomplete record."""
    stored, scores = (
        sources.stored.results.explanations(receipt.run_id),
        sources.reader.scores(receipt),
    )
    if stored is None or stored.boxes is None or tuple(stored.file) != tuple(scores.file):
        return None
    if not {*MAPS} <= stored.maps.keys() or not {"raw", "zoomed"} <= stored.parts.keys():
        return None
    rows = [int(i) for i in np.flatnonzero(scores.counted())]
    place = sources.stored.place(receipt.spec)
    return Views(
        spec=receipt.spec,
        where=f"{name_of(place)}, {shots_of(receipt.spec.shots)}",
        file=tuple(scores.file[i] for i in rows),
        label=scores.label[rows],
        defect=tuple(scores.defect[i] for i in rows),
        score=scores.score[rows],
        maps={name: stored.maps[name][rows] for name in MAPS},
        boxes=stored.boxes[rows],
        raw=stored.parts["raw"][rows],
        zoomed=stored.parts["zoomed"][rows],
        held=_held(receipt.metrics),
    )


def _held(metrics: Metrics) -> tuple[float, float] | None:
    if metrics.box_recall is None or metrics.box_recall_by_chance is None:
        return None
    return metrics.box_recall, metrics.box_recall_by_chance


def _figure(
    draw: Callable[[Views, Pictures | None], Figure], receipt: Receipt, sources: Sources
) -> Figure | None:
    """Draw what a run saw; None for an incomplete record."""
    views = views_of(receipt, sources)
    return None if views is None else draw(views, sources.pictures)


# Figure 1


def _zoom(views: Views, pictures: Pictures | None) -> Figure:
    cases, where = zoom_cases(views), views.where
    scores = "; ".join(
        f"{why} ({_kind(views, i)}) {views.raw[i]:.2f} to {views.zoomed[i]:.2f}" for why, i in cases
    )
    alt = f"Grad-CAM of the whole image and of the zoomed view on {where}. Scores: {scores}."
    note = (
        f"Scores of the whole image and the zoomed view: {scores}."
        f" {_what_the_zoom_does(views)} Seed {views.spec.seed}. {_shown(views, cases, pictures)}"
    )
    name = slug("zoom", where)
    tiles, words, height = zoom_layout(views, cases, pictures)
    return Figure(name, "zoom", f"The zoomed view on {where}", note, alt,
                   sheet(height, tiles, words, alt))  # fmt: skip


def _what_the_zoom_does(views: Views) -> str:
    """Compare both views over all test images in sentences."""
    scored = {"the whole image": views.raw, "the zoomed view": views.zoomed, "both": views.score}
    by_view = ", ".join(f"{auroc(s, views.label):.3f} by {name}" for name, s in scored.items())
    change = views.zoomed.astype(float) - views.raw
    one, two = (np.median(hot(views.maps[m])[views.label]) for m in ("grad_cam", "grad_cam_zoomed"))
    held = ""
    if views.held:
        held = (
            f" The zoomed view holds {views.held[0]:.0%} of a defect’s pixels, in the mean over the"
            f" anomalous images; a box of its size at a random place {views.held[1]:.0%}."
        )
    return (
        f"AUROC {by_view}. Mean change of the score: {signed(change[views.label].mean(), 2)} of"
        f" {views.label.sum()} anomalous images, {signed(change[~views.label].mean(), 2)} of"
        f" {(~views.label).sum()} normal ones. Share of the view in which the map exceeds half its"
        f" maximum, median of the anomalous images: {one:.0%} to {two:.0%}.{held}"
    )


def hot(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each map's share of cells above half its maximum."""
    highest = maps.max((1, 2), keepdims=True)
    share: NDArray[np.float64] = ((maps >= HOT * highest) & (highest > 0)).mean((1, 2))
    return share


def zoom_layout(
    views: Views, cases: Sequence[Case], pictures: Pictures | None
) -> tuple[list[Tile], list[TextLine], int]:
    """Lay out rows of words, whole image and zoomed view."""
    side, step, first, second = 112, 122, 128, 248
    words = [TextLine(first, 12, "whole image"), TextLine(second, 12, "zoomed view")]
    tiles = []
    for row, (why, i) in enumerate(cases):
        y = 20 + row * step
        full, zoomed = views.maps["grad_cam"][i], views.maps["grad_cam_zoomed"][i]
        top = float(max(full.max(), zoomed.max()))
        picture, box = views.picture(i, pictures), views.box(i)
        view = None if picture is None else cut(picture, box)
        tiles += [
            _tile(first, y, side, picture, full, top, box),
            _tile(second, y, side, view, zoomed, top),
        ]
        lines = (brief(_kind(views, i), 18), f"{views.raw[i]:.2f} {ARROW} {views.zoomed[i]:.2f}",
                 signed(float(views.zoomed[i] - views.raw[i]), 2))  # fmt: skip
        words.append(TextLine(0, y + 14, why, bold=True))
        words += [TextLine(0, y + 32 + 16 * n, line) for n, line in enumerate(lines)]
    return tiles, words, 20 + len(cases) * step


def _tile(
    x: int,
    y: int,
    side: int,
    picture: Image.Image | None,
    values: NDArray[np.float32],
    top: float,
    box: Box | None = None,
) -> Tile:
    """Return a map over its picture, or alone without one."""
    if picture is None:
        return Tile(x, y, side, coarse(values, top), False, box)
    return Tile(x, y, side, overlay(_square(picture, side), values, top), True, box)


def _square(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture as a square, as networks see it."""
    return picture.resize((2 * side, 2 * side), Image.Resampling.BILINEAR)


# Figure 5


def _crops(views: Views, pictures: Pictures | None) -> Figure:
    cases, where = crop_cases(views), views.where
    captions = "; ".join(_caption(views, *case) for case in cases)
    alt = f"What ATAC-Net crops on {where}: {captions}."
    note = (
        f"{captions}. Threshold of the attention {views.threshold:g}. Seed {views.spec.seed}."
        f" {_shown(views, cases, pictures)}"
    )
    tiles, words, height = crop_layout(views, cases, pictures)
    return Figure(slug("crops", where), "crops", f"Crops on {where}", note, alt,
                   sheet(height, tiles, words, alt))  # fmt: skip


def _caption(views: Views, why: str, i: int) -> str:
    others = views.score[~views.label if views.label[i] else views.label]
    above = int((views.score[i] > others).sum())
    others_name = "normals" if views.label[i] else "anomalies"
    kind = f" ({brief(views.defect[i], 16)})" if views.label[i] else ""
    return f"{why}{kind}, {views.score[i]:.2f}, above {above} of {len(others)} {others_name}"


def crop_layout(
    views: Views, cases: Sequence[Case], pictures: Pictures | None
) -> tuple[list[Tile], list[TextLine], int]:
    """Lay out rows of image, map, attention, box and crop."""
    side, across, step = 66, 73, 88
    top = float(views.maps["score"].max())
    tiles, columns = [], 0
    for row, (_, i) in enumerate(cases):
        y = 30 + row * step
        picture, box = views.picture(i, pictures), views.box(i)
        active = two_tone(views.active[i])
        if picture is None:
            tiles.append(_tile(0, y, side, None, views.maps["score"][i], top))
            tiles.append(Tile(across, y, side, active, False, box))
            continue
        columns = 5
        square = _square(picture, side)
        tiles += [
            Tile(0, y, side, square, True),
            _tile(across, y, side, picture, views.maps["score"][i], top),
            Tile(2 * across, y, side, active, False),
            Tile(3 * across, y, side, square, True, box),
            Tile(4 * across, y, side, _square(cut(picture, box), side), True),
        ]
    names = ("image", "score map", "attention", "box", "crop") if columns else (
        "score map", "attention and box")  # fmt: skip
    words = [TextLine(n * across, 10, name, bold=True, size=10) for n, name in enumerate(names)]
    words += [
        TextLine(0, 26 + row * step, _caption(views, *case), size=10)
        for row, case in enumerate(cases)
    ]
    return tiles, words, 30 + len(cases) * step


def _kind(views: Views, i: int) -> str:
    return views.defect[i] if views.label[i] else "normal"


def _shown(views: Views, cases: Sequence[Case], pictures: Pictures | None) -> str:
    """Name the files, and why pictures lack."""
    files = listed([brief(views.file[i]) for _, i in cases])
    if any(views.picture(i, pictures) is None for _, i in cases):
        return f"Files: {files}. The images are not at hand (--data), so their maps stand alone."
    return f"Files: {files}."


ZOOM = Section(
    "zoom",
    "What the zoom changes (Figure 1)",
    READING_ZOOM,
    {"zoom": Kind(5, partial(_plans, _zoom))},
)
CROPS = Section(
    "crops",
    "What the attention crops (Figure 5)",
    READING_CROPS,
    {"crops": Kind(5, partial(_plans, _crops))},
)
