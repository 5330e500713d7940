"""What the paper says in words: each claim, a test of it, and what the stored runs give."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.analysis.configurations import Configuration
from bench.analysis.epochs import gain_of, written_gain
from bench.analysis.labels import name_of
from bench.analysis.paired import written_difference
from bench.analysis.selection import (
    MOST_SEEDS,
    OURS,
    cells,
    configurations,
    places,
)
from bench.analysis.statistics import Estimate, mean_interval, paired_difference
from bench.analysis.thresholds import transfer
from bench.report.figures import ablation, clusters, saliency
from bench.report.figures.figure import Sources
from bench.spec import Place, RunSpec, shots_of
from bench.store.artifacts import EXPLANATIONS
from bench.text import counted

MOST_PLACES = 8
"""Places of a claim on a page, most shots first."""


@dataclass(frozen=True)
class Outcome:
    """What the runs of one place give for a claim."""

    where: str
    result: str
    basis: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper's text, and how it is tested."""

    text: str
    """As the paper says it, or its sense."""
    source: str
    """Where in the paper."""
    test: str
    """What is measured, and what would bear the claim out."""
    needs: str
    """What runs it takes, for a page that has none."""
    outcomes: tuple[Outcome, ...] = ()
    left_out: int = 0
    """Places that are not shown."""


def claims(sources: Sources) -> list[Claim]:
    """Return all claims, with what the stored runs give."""
    return [_with_outcomes(claim, measure(sources)) for claim, measure in _CLAIMS]


def _with_outcomes(claim: Claim, outcomes: Iterator[Outcome]) -> Claim:
    every = tuple(outcomes)
    left_out = max(0, len(every) - MOST_PLACES)
    return replace(claim, outcomes=every[:MOST_PLACES], left_out=left_out)


def written(estimate: Estimate, digits: int = 3) -> str:
    """Write a mean with its 95 % t-interval."""
    if estimate.interval is None:
        return f"{estimate.mean:.{digits}f}"
    low, high = estimate.interval
    return f"{estimate.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def basis(configuration: Configuration, seeds: int) -> str:
    """Write what a result rests on."""
    row, departs = configuration.row, len(configuration.departures)
    network = _network(row)
    stated = counted(departs, "departure") + " from Table 1’s protocol" if departs else "as stated"
    copy = "; unofficial copy" if configuration.unofficial_reasons else ""
    return f"{counted(seeds, 'seed')}; {network}; {stated}{copy}"


def _network(row: RunSpec) -> str:
    network = f"{row.backbone} to stage {row.stage}, {row.image_size} px"
    return f"{network}, version {row.method_version} of the method"


def _of_attention(
    sources: Sources, measure: Callable[[Sources, Configuration], tuple[str, str] | None]
) -> Iterator[Outcome]:
    """Yield what ATAC-Net's attention gives at each place, by the first configuration that can.

    `measure` returns result and basis; None where the runs of a configuration do not suffice.
    """
    for place, shots in cells(sources.stored):
        for configuration in configurations(sources.stored, place, shots, OURS):
            attends = configuration.row.parameters.get("view") == "attention"
            if attends and (measured := measure(sources, configuration)):
                yield Outcome(_where(place, shots), *measured)
                break


def _where(place: Place, shots: int) -> str:
    return f"{name_of(place)}, {shots_of(shots)}"


# The title


def _zoomed_view(sources: Sources) -> Iterator[Outcome]:
    several = ablation.ablations(sources.stored)
    together = ablation.family_of(several)
    for one in several:
        for comparison in one.comparisons:
            if comparison.label == ablation.VIEWS[ablation.ATTENTION]:
                gap = comparison.with_images(sources.stored).gap
                base = ablation.BASE_WORDS[one.base]
                yield Outcome(
                    one.where,
                    f"AUROC {written_difference(gap)}, against {base}",
                    f"{_network(one.rest)}; {together}",
                )


# Figure 3


def _threshold(sources: Sources, configuration: Configuration) -> tuple[str, str] | None:
    margin = configuration.row.parameters.get("margin")
    runs = list(sources.reader.tested(configuration))
    moved = transfer(runs, float(margin) if margin else None)
    if moved is None:
        return None
    half = f", {written(moved.half_margin)} at half the margin" if moved.half_margin else ""
    low, high = moved.best
    result = (
        f"balanced error {written(moved.own)} at the best threshold of the test images themselves,"
        f" {written(moved.other)} at that of another seed{half}; the best thresholds lie between"
        f" {low:.2g} and {high:.2g}"
    )
    return result, basis(configuration, len(runs))


# Figure 5


def _localisation(sources: Sources, configuration: Configuration) -> tuple[str, str] | None:
    centred = configuration.with_metric("box_recall_centred")
    if centred is None:
        return None
    metrics = [r.metrics for r in centred.receipts]
    held = [m.share("box_recall") for m in metrics]
    gap = paired_difference(held, [m.share("box_recall_centred") for m in metrics])
    hits = mean_interval([m.share("pointing") for m in metrics])
    chance = np.mean([m.share("pointing_by_chance") for m in metrics])
    result = (
        f"the box holds {written(mean_interval(held))} of a defect’s pixels, {written(gap)} more"
        f" than a centred box of its size; the highest point of the score map lies on the defect in"
        f" {written(hits)} of the images, by chance {chance:.3f}"
    )
    return result, basis(centred, len(metrics))


# Figure 4


def _clusters(sources: Sources) -> Iterator[Outcome]:
    for place, several in places(sources.stored).items():
        for shots in several:
            versions = clusters.versions_of(sources.stored, place, shots)
            if len(versions) == len(clusters.VERSIONS):
                yield from _silhouettes(sources, versions, _where(place, shots))
                break


def _silhouettes(
    sources: Sources, versions: dict[str, Configuration], where: str
) -> Iterator[Outcome]:
    shared = sorted(set.intersection(*({*c.by_seed} for c in versions.values())))[:MOST_SEEDS]
    by_seed = []
    for seed in shared:
        clouds = clusters.clouds_of(sources, [c.run(seed) for c in versions.values()])
        if len(clouds) == len(versions) and clusters.has_classes(clouds[0]):
            by_seed.append([cloud.silhouette for cloud in clouds])
    if not by_seed:
        return
    values = np.array(by_seed)
    each = ", ".join(
        f"{name} {written(mean_interval(column.tolist()), 2)}"
        for name, column in zip(versions, values.T, strict=True)
    )
    last = values[:, -1:] - values[:, :-1]
    gaps = " and ".join(
        f"{written(mean_interval(column.tolist()), 2)} above {name}"
        for name, column in zip(versions, last.T, strict=False)
    )
    *_, ours = versions.values()
    yield Outcome(where, f"silhouettes {each}; ATAC-Net lies {gaps}", basis(ours, len(values)))


# Figure 1


def _density(sources: Sources, configuration: Configuration) -> tuple[str, str] | None:
    explained = configuration.with_artifact(EXPLANATIONS)
    receipts = explained.receipts[:MOST_SEEDS] if explained else ()
    read = (saliency.views_of(receipt, sources) for receipt in receipts)
    seen = [views for views in read if views is not None and views.label.any()]
    if not explained or not seen:
        return None
    zoomed = [float(saliency.hot(v.maps["grad_cam_zoomed"])[v.label].mean()) for v in seen]
    cropped = [float(hot_in_box(v.maps["grad_cam"], v.boxes)[v.label].mean()) for v in seen]
    result = (
        f"{np.mean(zoomed):.3f} of the zoomed view is hot, {np.mean(cropped):.3f} of the same crop"
        f" of the whole image’s map: difference {written(paired_difference(zoomed, cropped))}"
    )
    return result, basis(explained, len(seen))


def _selection(sources: Sources, configuration: Configuration) -> tuple[str, str] | None:
    gain = gain_of(configuration, sources.stored)
    if gain is None:
        return None
    return f"the best epoch on the test lies {written_gain(gain)} above the last", basis(
        configuration, gain.gain.n
    )


def hot_in_box(maps: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of each box (N, 4) where a map (N, h, w) exceeds half its maximum there.

    A cell counts by how much of it lies in the box; the maximum is over cells that lie in it by
    half or more, or over all that it touches where there is none.
    """
    down, across = (
        _overlap(boxes[:, side::2], cells)
        for side, cells in zip((1, 0), maps.shape[1:], strict=True)
    )
    cover = down[:, :, None] * across[:, None, :]
    inside = cover >= 0.5
    inside |= ~inside.any((1, 2), keepdims=True) & (cover > 0)
    top = np.where(inside, maps, -np.inf).max((1, 2), keepdims=True)
    hot = (maps >= saliency.HOT * top) & (top > 0)
    share: NDArray[np.float64] = (hot * cover).sum((1, 2)) / cover.sum((1, 2))
    return share


def _overlap(sides: NDArray[np.float32], cells: int) -> NDArray[np.float64]:
    """Return (N, cells), how much of each cell lies between two sides (N, 2), shares of all."""
    edges = np.arange(cells + 1) / cells
    low, high = sides[:, :1].astype(float), sides[:, 1:].astype(float)
    length = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    covered: NDArray[np.float64] = length.clip(min=0) * cells
    return covered


_MAPS = "runs of ATAC-Net with --save-maps"
_CLAIMS: tuple[tuple[Claim, Callable[[Sources], Iterator[Outcome]]], ...] = (
    (
        Claim(
            "“Zoomed view works better for anomaly detection”",
            "title",
            "AUROC with the attention’s box against the whole image at the same cost, paired by"
            " seed. The section on the ablation has the other rows.",
            "ATAC-Net with other views (bench run --suite ablation)",
        ),
        _zoomed_view,
    ),
    (
        Claim(
            "“an easy-to-determine threshold”",
            "on Figure 3",
            "Balanced error of the test images at a threshold that was found elsewhere. A threshold"
            " that is easy to determine carries over from seed to seed, or is known before.",
            "two seeds or more of ATAC-Net",
        ),
        partial(_of_attention, measure=_threshold),
    ),
    (
        Claim(
            "The box highlights the anomalous region",
            "Figure 5",
            "Share of a defect’s pixels in the attention’s box, against a centred box of its size;"
            " and the pointing game of the score map.",
            f"{_MAPS} on images with masks",
        ),
        partial(_of_attention, measure=_localisation),
    ),
    (
        Claim(
            "Attention-based cropping “helps better distinguish between anomalies and normal"
            " samples”",
            "Figure 4",
            "Silhouette of normal against anomalous test images in the space of the embeddings, of"
            " the three versions on one set of images, paired by seed.",
            "all three versions with --save-maps (bench run --suite figures)",
        ),
        _clusters,
    ),
    (
        Claim(
            "“The density of the saliency map increases as the model receives a zoomed object”",
            "Figure 1",
            "Share of the zoomed view in which its own Grad-CAM exceeds half its maximum, against"
            " the same crop of the whole image’s Grad-CAM: to crop around what is hot raises the"
            " density by itself. Mean over anomalous test images, paired by seed.",
            _MAPS,
        ),
        partial(_of_attention, measure=_density),
    ),
    (
        Claim(
            "The models are compared by their AUROC on the test images; neither a validation set"
            " nor a rule for the epoch is named",
            "Section 4",
            "AUROC of the best epoch on the test images against the last epoch: what a choice on"
            " the test would add to a published number.",
            "runs of ATAC-Net with --keep-epochs",
        ),
        partial(_of_attention, measure=_selection),
    ),
)
