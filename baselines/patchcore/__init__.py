"""PatchCore: a coreset of normal patch features, an image by its patch farthest from them.

Reproduces: Roth et al., CVPR 2022 (arXiv 2106.08265), which ATAC-Net's Table 2 quotes. A patch is
described by stages 2 and 3 on the grid of stage 2, each averaged over 3 x 3 positions (eqs. 1-4).
Of the features of all normal images a greedy k-centre coreset stays, chosen on random projections
to 128 dimensions (algorithm 1). The score of an image is the largest distance of one of its patches
to the coreset (eqs. 5-6), weighted down where the nearest memory lies in a dense region (eq. 7).

Defaults: 10 % of the patches, the paper's middle choice. ATAC-Net's text says ResNet-50 and 224 px;
its numbers come from a Wide ResNet-50 (suite `table2-published`). `embedding = "pooled"` is what
the authors' code does: the 3 x 3 x channels values of a patch are averaged down to 1024 by adaptive
pooling, and so are the two stages joined. `embedding = "joined"` averages each channel over the
positions and joins all of them, as anomalib does, whose numbers Table 2 prints.

Chosen here: images are resized whole (the paper resizes to 256 px and crops 224); 9 neighbours in
eq. 7, as anomalib has it, for the paper names no number and its authors' code leaves the weight out
(`neighbours = 1`); the first pick of the coreset and the projection come from the run's seed. Where
there are more than 524,288 patches (668 images of 224 px), so many of them are drawn by that seed,
and the coreset is a share of these.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.blocks.frozen import CHUNK, FrozenMethod, channels_of, smoothed
from baselines.patchcore.coreset import k_centre_greedy
from baselines.patchcore.farthest import Farthest
from bench.detector import BackboneSource, Context, parameter

STAGES = (2, 3)
MOST = 1 << 19
"""Patches that compete for the coreset, 668 images of 224 px; of more, a random sample does.

The greedy choice takes about the 1.85th power of their number in time."""
POOLED = 1024
"""Dimensions that the authors' code pools a patch to."""


class PatchCore(FrozenMethod):
    """Scores an image by its patch farthest from a coreset of normal patches."""

    name = "patchcore"
    version = 1
    memory_of = ("bank",)
    _search: Farthest | None = None

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """The reading above."""

        coreset: float = parameter(0.1, above=0, most=1)
        """Share of the normal patches that the coreset takes."""
        projection: int = parameter(128, least=0)
        """Dimensions in which the coreset is chosen; 0: in all."""
        embedding: str = parameter("pooled", choices=("pooled", "joined"))
        neighbours: int = parameter(9, least=1)
        """Of the nearest memory, itself among them, that eq. 7 asks; 1: no weight."""
        sigma: float = parameter(4.0, above=0)
        """Of the blur of the map, in pixels; the score does not see it."""

    def stages(self, source: BackboneSource) -> tuple[int, ...]:
        """Read stages 2 and 3."""
        return STAGES

    def remember(self, features: Iterable[list[Tensor]], count: int) -> None:
        """Choose the coreset and hold its patches.

        Where it is chosen on projections, only these are ever held of all patches.
        """
        images = self._images(features)
        first = next(images)
        each, d = first.shape
        total = min(count * each, MOST)
        picks = max(1, int(self.parameters.coreset * total))
        rng = torch.Generator().manual_seed(self.context.seeds["init"])
        begin = int(torch.randint(total, (), generator=rng))
        directions = self._directions(d, rng)
        rows = self._rows(count, each, rng)
        points = first.new_empty(total, d if directions is None else directions.shape[1])
        start = 0
        for own, image in zip(rows, itertools.chain([first], images), strict=True):
            projected = image if directions is None else image @ directions.to(image.device)
            points[start : start + len(own)] = projected[own.to(image.device)]
            start += len(own)
        chosen = k_centre_greedy(points, picks, begin)
        if directions is None:
            self.bank = points[chosen]
        else:
            del points
            places = [own + i * each for i, own in enumerate(rows)]
            chosen = torch.cat(places).to(chosen.device)[chosen]
            self.bank = first.new_empty(picks, d)
            for i, image in zip(range(count), self._images(features), strict=True):
                own = chosen // each == i
                self.bank[own] = image[chosen[own] % each]
        self.context.record("bank_vectors", len(self.bank))
        self.context.record("bank_bytes", self.bank.nbytes)

    def _rows(self, count: int, each: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return which patches of each image compete for the coreset: all, or a sample."""
        if count * each <= MOST:
            return (torch.arange(each),) * count
        sample = torch.randperm(count * each, generator=rng)[:MOST].sort().values
        self.context.record("coreset_candidates", MOST)
        counts = torch.bincount(sample // each, minlength=count)
        return (sample % each).split(counts.tolist())

    def _images(self, features: Iterable[list[Tensor]]) -> Iterator[Tensor]:
        """Yield the patches (P, D) of one image after the other.

        What they are made of takes more memory than they do.
        """
        for maps in features:
            for i in range(len(maps[0])):
                yield self.embedded([m[i : i + 1] for m in maps])[0]

    def _directions(self, d: int, rng: torch.Generator) -> Tensor | None:
        """Return directions (D, fewer) that keep distances about as they are; None: all of D."""
        few = self.parameters.projection
        return torch.randn(d, few, generator=rng) / math.sqrt(few) if 0 < few < d else None

    def embedded(self, maps: list[Tensor]) -> Tensor:
        """Return the patch features of a batch, (B, h x w, D), h and w of stage 2."""
        size = maps[0].shape[-2:]
        around = self._pooled if self.parameters.embedding == "pooled" else _averaged
        levels = [around(level) for level in maps]
        levels = [
            level if level.shape[-2:] == size
            else F.interpolate(level, size, mode="bilinear", align_corners=False)
            for level in levels
        ]  # fmt: skip
        joined = torch.cat(levels, 1).flatten(2).mT
        return joined if self.parameters.embedding == "joined" else _pooled(joined)

    def _pooled(self, level: Tensor) -> Tensor:
        """Pool the 3 x 3 neighbourhoods of a level to `POOLED` values, (B, POOLED, h, w)."""
        around = F.unfold(level, 3, padding=1).mT
        return _pooled(around).mT.unflatten(2, level.shape[-2:])

    def distances(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance of patches (B, P, D) to the bank and the nearest memory, (B, P)."""
        distance, index = self._farthest.bank.nearest(patches.flatten(0, 1), 1)
        return distance.view(patches.shape[:2]), index.view(patches.shape[:2])

    def maps(self, features: list[Tensor]) -> Tensor:
        """Return the distances at the size of the image, blurred."""
        distance, _ = self.distances(self.embedded(features))
        grid = distance.unflatten(1, features[0].shape[-2:])
        return smoothed(grid, self.size, self.parameters.sigma)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the distance of the farthest patch, weighted."""
        patches = self.embedded(features)
        score, farthest, memory = self._farthest(patches)
        if min(self.parameters.neighbours, len(self.bank)) == 1:
            return score
        each = torch.arange(len(patches), device=patches.device)
        return score * self._weight(patches[each, farthest], memory)

    @property
    def _farthest(self) -> Farthest:
        """The search of the bank, made once for it."""
        if self._search is None or self._search.bank.vectors is not self.bank:
            self._search = Farthest(self.bank)
        return self._search

    def _weight(self, patch: Tensor, memory: Tensor) -> Tensor:
        """Return eq. 7's factor of patches (B, D) whose nearest memories are given by index."""
        few = min(self.parameters.neighbours, len(self.bank))
        _, around = self._farthest.bank.nearest(self.bank[memory], few)
        distance = (patch.unsqueeze(1) - self.bank[around]).square().sum(2).sqrt()
        return 1 - distance.softmax(1)[:, 0]

    def memory(self, normals: int, size: int, context: Context) -> int:
        """Return the bytes of the projections of all patches, the coreset, and a batch."""
        assert context.backbone is not None
        channels = channels_of(context.backbone.name, STAGES)
        d = sum(channels) if self.parameters.embedding == "joined" else POOLED
        positions = math.ceil(size / 8) ** 2
        patches = min(normals * positions, MOST)
        few = self.parameters.projection
        coreset = self.parameters.coreset * d
        # The coreset is held twice to be searched, once it has been chosen.
        floats = coreset + max(coreset, few if 0 < few < d else d)
        # Unfolded neighbourhoods are copied into the order in which they are pooled.
        batch = CHUNK * positions * (2 * 9 * channels[0] + 3 * POOLED)
        return 4 * int(patches * floats + batch)


def _averaged(level: Tensor) -> Tensor:
    """Average each channel of a level over 3 x 3 neighbours, beyond the edges zeros."""
    return F.avg_pool2d(level, 3, 1, 1)


def _pooled(values: Tensor) -> Tensor:
    """Pool the last dimension to `POOLED` values."""
    return F.adaptive_avg_pool1d(values.flatten(0, 1).unsqueeze(1), POOLED).view(
        *values.shape[:-1], POOLED
    )
