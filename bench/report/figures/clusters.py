"""Figure 4: embeddings of three training versions by t-SNE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis import selection as choice
from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.selection import OURS
from bench.report.figures.figure import Figure, Kind, Numbers, Section, Sources, slug
from bench.report.figures.svg import ANOMALOUS, BLACK, NORMAL, legend, panels, plotting, svg
from bench.spec import Place, shots_of
from bench.store.artifacts import EMBEDDINGS
from bench.store.receipt import Receipt
from bench.text import listed, signed

_READING = (
    "The same test images as each version embeds them, by t-SNE (from the first two principal"
    " components, perplexity 30 or a third of the images, one fixed seed): neighbours stay"
    " neighbours, distances and sizes of groups mean nothing. The silhouette is that of normal"
    " against anomalous images in the space of the embeddings, not in this plane: 1 far apart, 0 no"
    " gap, below 0 mixed. Crosses do not count: anomalies that are labelled for training, and their"
    " copies."
)
VERSIONS = (
    ("CutMix (cross-entropy)", "cutmix", None),
    ("ATAC-Net, whole image only", OURS, "raw"),
    ("ATAC-Net", OURS, "attention"),
)
"""Name, method and view of the versions that the paper compares, each with pseudo anomalies."""
LEAST = 2
"""Images of each class; fewer make no cloud."""
MOST_IMAGES = 400
"""Images of a plot; of more, evenly spaced ones in the order of their names."""
GROUPS = (
    ("normal", "o", NORMAL), ("anomalous", "^", ANOMALOUS), ("labelled or its copy", "x", BLACK),
)  # fmt: skip


@dataclass(frozen=True)
class Cloud:
    """N images as one version embeds them."""

    values: NDArray[np.float32]
    """(N, D)."""
    group: NDArray[np.int64]
    """(N,), which of `GROUPS` each image belongs to."""
    kept: float = 1.0
    """Share of the embeddings' variance that the D principal components keep."""

    @property
    def silhouette(self) -> float:
        """Separation of the classes in D dimensions, -1 to 1.

        The mean over images of (b - a) / max(a, b), with a the mean distance to the image's own
        class and b that to the other one (Rousseeuw 1987). Images of the training do not count.
        """
        from sklearn.metrics import silhouette_score

        counts = self.group < 2
        return float(silhouette_score(self.values[counts].astype(float), self.group[counts]))

    def plane(self) -> NDArray[np.float64]:
        """Return the images in the plane (N, 2) by t-SNE."""
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

        values = np.pad(self.values.astype(float), ((0, 0), (0, 1)))  # there may be one column
        if not np.ptp(values, axis=0).any():
            return np.zeros((len(values), 2))
        perplexity = min(30.0, (len(values) - 1) / 3)
        tsne = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=0)
        with threadpool_limits(1):  # the order in which threads add up would show in every point
            plane: NDArray[np.float64] = tsne.fit_transform(values)
        return plane


def plans(sources: Sources) -> list[partial[Figure | None]]:
    """Plan a figure per place with embeddings, most shots first."""
    figures = []
    for place, several in choice.places(sources.stored).items():
        for shots in several:
            versions = versions_of(sources.stored, place, shots)
            if versions:
                where = f"{name_of(place)}, {shots_of(shots)}"
                figures.append(partial(_figure, sources, versions, where))
                break
    return figures


def versions_of(stored: StoredRuns, place: Place, shots: int) -> dict[str, Configuration]:
    """Return versions with embeddings; ATAC-Net's differ by view alone."""
    versions: dict[str, Configuration] = {}
    rest = None
    for name, method, view in reversed(VERSIONS):
        candidates = [
            embedded
            for c in choice.configurations(stored, place, shots, method)
            if (embedded := c.with_artifact(EMBEDDINGS))
            and (view is None or _is_version(c.row.parameters, view))
        ]
        alike = [
            c
            for c in candidates
            if method == OURS and choice.without_parameter(c.row, "view")[0] == rest
        ]
        if candidates:
            versions[name] = (alike or candidates)[0]
            if method == OURS:
                rest, _ = choice.without_parameter(versions[name].row, "view")
    return dict(reversed(versions.items()))


def _is_version(parameters: Mapping[str, Any], view: str) -> bool:
    """Whether parameters are those of the paper's version."""
    complete = all(parameters.get(name, True) for name in ("pseudo", "attention"))
    return complete and parameters.get("view") == view


def _figure(sources: Sources, versions: Mapping[str, Configuration], where: str) -> Figure | None:
    shared = set.intersection(*({*version.by_seed} for version in versions.values()))
    if not shared:  # no seed has them all: the last version is the paper's own
        versions = dict([list(versions.items())[-1]])
        shared = {*next(iter(versions.values())).by_seed}
    seed = min(shared)
    clouds = clouds_of(sources, [version.run(seed) for version in versions.values()])
    if len(clouds) < len(versions) or not has_classes(clouds[0]):
        return None
    by_name = dict(zip(versions, clouds, strict=True))
    silhouettes = listed([f"{name} {signed(c.silhouette, 2)}" for name, c in by_name.items()])
    missing = [name for name, *_ in VERSIONS if name not in versions]
    counted = int((clouds[0].group < 2).sum())
    total, shown = len(clouds[0].values), len(thinned(clouds[0]).values)
    share = floor(1000 * min(c.kept for c in clouds)) / 10
    note = (
        f"{counted} test images; the stored components of the embeddings hold {share}% of their"
        f" variance or more. Seed {seed}."
        + (f" Of {total} images {shown} evenly spaced ones are drawn." if shown < total else "")
        + (f" No run of {listed(missing)} keeps embeddings." if missing else "")
    )
    alt = f"t-SNE of test images on {where}. Silhouette of normal against anomalous: {silhouettes}."
    name, title = slug("clusters", where), f"Embeddings on {where}"
    rows = [(v, signed(c.silhouette, 2), f"{c.kept:.1%}") for v, c in by_name.items()]
    rows += [(version, "not stored", "") for version in missing]
    numbers = Numbers(("version", "silhouette", "variance kept"), tuple(rows))
    planes = {version: thinned(cloud).plane() for version, cloud in by_name.items()}
    drawn, points = plot(by_name, planes, alt), partial(_points, by_name, planes)
    return Figure(name, "clusters", title, note, alt, drawn, (numbers,), points)


def _points(clouds: Mapping[str, Cloud], planes: Mapping[str, NDArray[np.float64]]) -> Numbers:
    """Return where each image that is drawn lies in the plane."""
    rows = tuple(
        (version, GROUPS[group][0], f"{x:.4f}", f"{y:.4f}")
        for version, cloud in clouds.items()
        for group, (x, y) in zip(thinned(cloud).group, planes[version], strict=True)
    )
    return Numbers(("version", "images", "x", "y"), rows)


def has_classes(cloud: Cloud) -> bool:
    """Whether both classes have enough images to make a cloud."""
    return bool(min(np.bincount(cloud.group, minlength=2)[:2]) >= LEAST)


def clouds_of(sources: Sources, runs: Sequence[Receipt]) -> list[Cloud]:
    """Return embeddings of shared images, in one order."""
    embeddings = [sources.stored.results.embeddings(r.run_id) for r in runs]
    indices = [{f: i for i, f in enumerate(e.file)} if e else {} for e in embeddings]
    scores = sources.reader.scores(runs[0])
    rows = [i for i, f in enumerate(scores.file) if all(f in index for index in indices)]
    group = np.where(scores.counted(), scores.label.astype(int), 2)[rows]
    return [
        Cloud(e.values[[index[scores.file[i]] for i in rows]], group, e.kept)
        for e, index in zip(embeddings, indices, strict=True)
        if e
    ]


def thinned(cloud: Cloud) -> Cloud:
    """Return at most `MOST_IMAGES` evenly spaced images."""
    n = len(cloud.values)
    if n <= MOST_IMAGES:
        return cloud
    rows = np.linspace(0, n - 1, MOST_IMAGES).round().astype(int)
    return Cloud(cloud.values[rows], cloud.group[rows], cloud.kept)


def plot(clouds: Mapping[str, Cloud], planes: Mapping[str, NDArray[np.float64]], alt: str) -> str:
    """Draw a panel per version, groups by shape and colour."""
    down = -(-len(clouds) // 2)
    with plotting(alt) as plt:
        figure, axes = panels(plt, 1.6, down, min(2, len(clouds)), left=0.1, top=0.25,
                              above=0.35, beside=0.15)  # fmt: skip
        for axis in axes[len(clouds) :]:
            axis.set_axis_off()
        for axis, (version, cloud) in zip(axes, clouds.items(), strict=False):
            few, plane = thinned(cloud), planes[version]
            for i, (group, marker, colour) in enumerate(GROUPS):
                axis.plot(*plane[few.group == i].T, marker, color=colour, label=group, markersize=3,
                          markeredgewidth=0.8, linestyle="none", fillstyle="none")  # fmt: skip
            axis.set_title(f"{version}\nsilhouette {signed(cloud.silhouette, 2)}")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)  # distances from an axis mean nothing
        legend(figure, axes[0], 3)
        return svg(figure, alt)


SECTION = Section(
    "clusters",
    "Embeddings of three training versions (Figure 4)",
    _READING,
    {"clusters": Kind(5, plans)},
)
