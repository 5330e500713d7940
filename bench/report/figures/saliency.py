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
from bench.data.overlay import outlined, overlay
from bench.metrics import auroc
from bench.report.figures.figure import Figure, Kind, Numbers, Section, Sources, slug
from bench.report.figures.sheet import Bar, Box, TextLine, Tile, coarse, cut, sheet, two_tone
from bench.report.pictures import Pictures
from bench.spec import RunSpec, shots_of
from bench.store.artifacts import EXPLANATIONS
from bench.store.groups import Metrics
from bench.store.receipt import Receipt
from bench.text import brief, signed

MAPS = ("score", "attention", "grad_cam", "grad_cam_zoomed")
"""What a run must keep for these figures."""
HOT = 0.5
"""Share of a map's own highest value from which a cell counts as hot."""
READING_ZOOM = (
    "Grad-CAM of each view’s own score, in colours up to the view’s own maximum, and how the score"
    " changes from the whole image to the zoomed view (white frame). A green line encloses the true"
    " defect where the data mark it. Images are chosen by that change among all anomalous test"
    " images, and the median of the normal ones. The share of a view in which the map exceeds half"
    " its maximum grows by itself where a crop is made around what is hot."
)
READING_CROPS = (
    "Score map (one colour scale for all test images), the cells where the attention, scaled to 0-1"
    " by itself, reaches the threshold (white), the tight box around them, and the zoomed view. A"
    " green line encloses the true defect where the data mark it. Images are chosen by their score"
    " among all test images, right and wrong ones alike."
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

    def defect_mask(self, i: int, pictures: Pictures | None) -> Image.Image | None:
        """Return the mask of an image's defect, where it is at hand."""
        if pictures is None or not self.label[i]:
            return None
        s = self.spec
        return pictures.mask(s.dataset, s.category, self.file[i], s.fingerprint)


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
    scored = {"the whole image": views.raw, "the zoomed view": views.zoomed, "both": views.score}
    by_view = ", ".join(f"{auroc(s, views.label):.3f} by {name}" for name, s in scored.items())
    note = f"AUROC {by_view}. Seed {views.spec.seed}.{_lack(views, cases, pictures)}"
    name, title = slug("zoom", where), f"The zoomed view on {where}"
    svg = sheet(*zoom_layout(views, cases, pictures), alt)
    return Figure(name, "zoom", title, note, alt, svg, (_shown(views, cases), _effects(views)))


def _shown(views: Views, cases: Sequence[Case]) -> Numbers:
    """Return the scores of the images that are shown."""
    return Numbers(
        ("image", "file", "whole image", "zoomed view", "change"),
        tuple(
            (why, brief(views.file[i]), f"{views.raw[i]:.2f}", f"{views.zoomed[i]:.2f}",
             signed(float(views.zoomed[i] - views.raw[i]), 2))
            for why, i in cases
        ),
    )  # fmt: skip


def _effects(views: Views) -> Numbers:
    """Return what the zoom does over all test images."""
    change = views.zoomed.astype(float) - views.raw
    rows = [
        (f"mean change of the score, {(views.label == anomalous).sum()} {kind} images",
         signed(change[views.label == anomalous].mean(), 2))
        for anomalous, kind in ((True, "anomalous"), (False, "normal"))
    ]  # fmt: skip
    rows += [
        (f"share of {view} in which the map exceeds half its maximum, median of the anomalous",
         f"{np.median(hot(views.maps[name])[views.label]):.0%}")
        for view, name in (("the image", "grad_cam"), ("the zoomed view", "grad_cam_zoomed"))
    ]  # fmt: skip
    if views.held:
        box, random = views.held
        rows.append(("share of a defect’s pixels that the zoomed view holds, mean", f"{box:.0%}"))
        rows.append(("the same of a box of its size at a random place", f"{random:.0%}"))
    return Numbers(("over all test images", "value"), tuple(rows))


def hot(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each map's share of cells above half its maximum."""
    highest = maps.max((1, 2), keepdims=True)
    share: NDArray[np.float64] = ((maps >= HOT * highest) & (highest > 0)).mean((1, 2))
    return share


def zoom_layout(
    views: Views, cases: Sequence[Case], pictures: Pictures | None
) -> tuple[int, list[Tile], list[TextLine], list[Bar]]:
    """Lay out rows of words, whole image and zoomed view; return their height, too."""
    side, step, columns = 112, 136, (128, 248)
    words = [TextLine(columns[0], 12, "whole image"), TextLine(columns[1], 12, "zoomed view")]
    tiles = []
    for row, (why, i) in enumerate(cases):
        y = 20 + row * step
        picture, mask, box = (
            views.picture(i, pictures),
            views.defect_mask(i, pictures),
            views.box(i),
        )
        zoomed, defect = (None if p is None else cut(p, box) for p in (picture, mask))
        for x, name, image, marked, frame in (
            (columns[0], "grad_cam", picture, mask, box),
            (columns[1], "grad_cam_zoomed", zoomed, defect, None),
        ):
            values = views.maps[name][i]
            top = float(values.max())
            tiles.append(_tile(x, y, side, image, values, top, frame, marked))
            words.append(TextLine(x, y + side + 12, f"maximum {top:.2g}", size=9))
        lines = (brief(_kind(views, i), 18), f"{views.raw[i]:.2f} {ARROW} {views.zoomed[i]:.2f}",
                 signed(float(views.zoomed[i] - views.raw[i]), 2))  # fmt: skip
        words.append(TextLine(0, y + 14, why, bold=True))
        words += [TextLine(0, y + 32 + 16 * n, line) for n, line in enumerate(lines)]
    bottom = 20 + len(cases) * step
    bar = Bar(columns[0], bottom + 2, columns[1] + side - columns[0], "0", "maximum of the view")
    return bottom + 30, tiles, words, [bar]


def _tile(
    x: int,
    y: int,
    side: int,
    picture: Image.Image | None,
    values: NDArray[np.float32],
    top: float,
    box: Box | None = None,
    defect: Image.Image | None = None,
) -> Tile:
    """Return a map over its picture with the defect's outline, or alone without one."""
    if picture is None:
        return Tile(x, y, side, coarse(values, top), False, box)
    drawn = overlay(_square(picture, side), values, top)
    return Tile(x, y, side, _with_outline(drawn, defect), True, box)


def _with_outline(picture: Image.Image, defect: Image.Image | None) -> Image.Image:
    return picture if defect is None else outlined(picture, defect)


def _square(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture as a square, as networks see it."""
    return picture.resize((2 * side, 2 * side), Image.Resampling.BILINEAR)


# Figure 5


def _crops(views: Views, pictures: Pictures | None) -> Figure:
    cases, where = crop_cases(views), views.where
    captions = "; ".join(_caption(views, *case) for case in cases)
    alt = f"What ATAC-Net crops on {where}: {captions}."
    note = (
        f"Threshold of the attention {views.threshold:g}. Seed {views.spec.seed}."
        f"{_lack(views, cases, pictures)}"
    )
    numbers = Numbers(
        ("image", "file", "score", "ranked above"),
        tuple(
            (why, brief(views.file[i]), f"{views.score[i]:.2f}", _above(views, i))
            for why, i in cases
        ),
    )
    svg = sheet(*crop_layout(views, cases, pictures), alt)
    return Figure(slug("crops", where), "crops", f"Crops on {where}", note, alt, svg, (numbers,))


def _caption(views: Views, why: str, i: int) -> str:
    kind = f" ({brief(views.defect[i], 16)})" if views.label[i] else ""
    return f"{why}{kind}, {views.score[i]:.2f}, above {_above(views, i)}"


def _above(views: Views, i: int) -> str:
    """Count the images of the other class with a lower score."""
    others = views.score[~views.label if views.label[i] else views.label]
    name = "normals" if views.label[i] else "anomalies"
    return f"{int((views.score[i] > others).sum())} of {len(others)} {name}"


def crop_layout(
    views: Views, cases: Sequence[Case], pictures: Pictures | None
) -> tuple[int, list[Tile], list[TextLine], list[Bar]]:
    """Lay out rows of image, map, attention, box and crop; return their height, too."""
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
        square, mask = _square(picture, side), views.defect_mask(i, pictures)
        crop = _square(cut(picture, box), side)
        tiles += [
            Tile(0, y, side, _with_outline(square, mask), True),
            _tile(across, y, side, picture, views.maps["score"][i], top, defect=mask),
            Tile(2 * across, y, side, active, False),
            Tile(3 * across, y, side, square, True, box),
            Tile(4 * across, y, side, _with_outline(crop, mask and cut(mask, box)), True),
        ]
    names = ("image", "score map", "attention", "box", "crop") if columns else (
        "score map", "attention and box")  # fmt: skip
    words = [TextLine(n * across, 10, name, bold=True, size=10) for n, name in enumerate(names)]
    words += [
        TextLine(0, 26 + row * step, _caption(views, *case), size=10)
        for row, case in enumerate(cases)
    ]
    bottom = 30 + len(cases) * step
    return bottom + 28, tiles, words, [Bar(0, bottom, 2 * across, "score 0", f"{top:.3g}")]


def _kind(views: Views, i: int) -> str:
    return views.defect[i] if views.label[i] else "normal"


def _lack(views: Views, cases: Sequence[Case], pictures: Pictures | None) -> str:
    """Say why pictures lack, where they do."""
    if any(views.picture(i, pictures) is None for _, i in cases):
        return " The images are not at hand (--data), so their maps stand alone."
    return ""


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
