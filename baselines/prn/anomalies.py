"""PRN's training batches: normal images, extended anomalies, simulated anomalies, with masks.

An extended anomaly is a labelled one as it is, or changed and pasted onto a normal image. All
images of a batch at once; every random number comes from a CPU generator.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from baselines.blocks.backbone import normalise
from baselines.blocks.batches import Stream, generator
from baselines.blocks.plan import Plan
from baselines.blocks.pseudo_anomaly import draw_angles, turn
from baselines.blocks.synthesis import ROTATION, Synthesis, changed, draw_changes, foregrounds
from bench.detector import Context, Samples

PIECES = 8
"""Pieces of a mask that move by themselves; of more, the smallest move with the eighth."""
INSIDE = 2 / 3
"""Least share of a mask on the foreground for it to be pasted in its own place."""
TURN = 90.0
"""Normal images turn by up to so many degrees."""

Batch = tuple[Tensor, Tensor]
"""(B, 3, H, W) float32, normalised, channels last; (B, H, W) bool, where anomalies are."""


class Extension:
    """Pastes labelled anomalies, changed, onto normal images."""

    def __init__(
        self, anomalous: Samples, rng: torch.Generator, device: str, plan: Plan | None = None
    ) -> None:
        assert anomalous.masks is not None
        self.images = torch.from_numpy(anomalous.images).to(device)
        self.pieces = torch.from_numpy(pieces_of(anomalous.masks)).to(device)
        self._rng, self._plan = rng, plan or Plan(device)

    def real(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return labelled anomalies (n, 3, H, W) in [0, 1] and their masks (n, H, W)."""
        return self.images[which].float() / 255, self.pieces[which].any(1)

    def pasted(self, which: Tensor, targets: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets (n, 3, H, W) in [0, 1] with anomalies, and the masks of these (n, H, W).

        `foreground` (n, H, W) says where objects are. Where two thirds of a changed mask lie there
        it stays in its place, else each of its pieces moves to a random point there.
        """
        sources, pieces = self._changed(self.images[which].float() / 255, self.pieces[which])
        masks = pieces.any(1)
        pixels = masks.sum((1, 2)).clamp(min=1)
        stays = (masks & foreground).sum((1, 2)) > INSIDE * pixels
        moves = self._points(foreground, pieces.shape[1]) - middles(pieces)
        moves = moves.masked_fill(stays.view(-1, 1, 1), 0)
        result, marked = targets, torch.zeros_like(masks)
        for piece, move in zip(pieces.unbind(1), moves.unbind(1), strict=True):
            here = moved(piece.unsqueeze(1), move)[:, 0]
            result = torch.where(here.unsqueeze(1), moved(sources, move), result)
            marked = marked | here
        return result, marked

    def _changed(self, images: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Change images in three of ten ways each; the tenth turns them with their pieces."""
        chosen, strengths, angles = self._plan.take(self._draw_changes, len(images))
        both = torch.cat([changed(images, chosen, strengths), pieces.float()], 1)
        both = torch.where(chosen[:, -1].view(-1, 1, 1, 1), turn(both, angles), both)
        return both[:, :3], both[:, 3:] > 0.5

    def _draw_changes(self, n: int) -> tuple[Tensor, ...]:
        return *draw_changes(n, self._rng), *draw_angles(n, ROTATION, self._rng)

    def _points(self, foreground: Tensor, count: int) -> Tensor:
        """Draw points of each foreground (n, H, W): (n, count, 2) long, row and column."""
        n, _, width = foreground.shape
        reached = foreground.flatten(1).cumsum(1)
        (shares,) = self._plan.take(self._draw_points, n, count)
        ranks = (shares * reached[:, -1:]).floor().long() + 1
        index = torch.searchsorted(reached, ranks).clamp(max=reached.shape[1] - 1)
        return torch.stack([index // width, index % width], 2)

    def _draw_points(self, n: int, count: int) -> tuple[Tensor, ...]:
        return (torch.rand(n, count, generator=self._rng),)


def pieces_of(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected pieces of masks (N, H, W), largest first: (N, P, H, W), P <= 8.

    Pixels that touch at a corner are connected. A mask of fewer pieces has empty ones.
    """
    per_mask = []
    for mask in masks:
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        ranks = np.zeros(count + 1, np.int64)
        ranks[1 + np.argsort(-sizes, kind="stable")] = 1 + np.arange(count)
        per_mask.append(np.minimum(ranks[labels], PIECES))
    ranked = np.stack(per_mask)
    most = max(1, int(ranked.max()))
    return ranked[:, None] == np.arange(1, most + 1)[:, None, None]


def middles(pieces: Tensor) -> Tensor:
    """Return the mean row and column of each piece (n, P, H, W): (n, P, 2) long."""
    rows, columns = pieces.sum(3), pieces.sum(2)  # pixels of each row, of each column
    pixels = rows.sum(2).clamp(min=1)
    return torch.stack(
        [
            (line * torch.arange(line.shape[2], device=line.device)).sum(2) // pixels
            for line in (rows, columns)
        ],
        2,
    )


def moved(maps: Tensor, by: Tensor) -> Tensor:
    """Return maps (n, C, H, W) moved by rows and columns (n, 2); zero where nothing came."""
    n, channels, height, width = maps.shape
    down, across = by.view(n, 2, 1, 1).unbind(1)
    rows = torch.arange(height, device=maps.device).view(1, -1, 1) - down
    columns = torch.arange(width, device=maps.device).view(1, 1, -1) - across
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    index = index.flatten(1).unsqueeze(1).expand(-1, channels, -1)
    return maps.flatten(2).gather(2, index).view(maps.shape) * inside.unsqueeze(1)


class Batches:
    """Holds the training images on the device and makes batches of them.

    Half of a batch (or one more) is normal. Of the rest half (or one more) are extended anomalies,
    where there are labelled ones, and the others simulated. As in the published epoch of N normal
    images, the first of each N / 2 extended ones are `copies` of each labelled anomaly.
    """

    def __init__(
        self,
        normal: NDArray[np.uint8],
        labelled: Samples | None,
        context: Context,
        *,
        foreground: str,
        copies: int,
        turned: float,
        plan: Plan | None = None,
    ) -> None:
        self._plan = plan or Plan(context.device)
        self._images = torch.from_numpy(normal).to(context.device)
        self._foregrounds = torch.from_numpy(foregrounds(normal, foreground)).to(context.device)
        self._rng, batches = generator(context, "augment"), generator(context, "batches")
        external = context.external
        outside = None if external is None else torch.from_numpy(external).to(context.device)
        drawn = generator(context, "external")
        self._synthesis = Synthesis(self._rng, outside, drawn, self._plan)
        self._turned, self._copies = turned, copies
        self._normal, self._sources, self._targets = (
            Stream(len(normal), batches) for _ in range(3)
        )
        made = context.batch_size // 2
        self._normals = context.batch_size - made
        self._extended = 0
        if labelled is not None:
            self._extended = (made + 1) // 2
            self._labelled = len(labelled)
            self._extension = Extension(labelled, self._rng, context.device, self._plan)
            self._items = Stream(max(1, len(normal) // 2), batches)
        self._simulated = made - self._extended

    def __call__(self) -> Batch:
        """Return a batch: normal images, extended anomalies, simulated anomalies."""
        picked, foreground = self._pick(self._normal, self._normals)
        parts = [(self._turn(picked, foreground)[0], torch.zeros_like(foreground))]
        if self._extended:
            parts.append(self._extend())
        if self._simulated:
            sources = self._pick(self._sources, self._simulated)
            parts.append(self._synthesis(*self._turn(*sources)))
        images, masks = (torch.cat(part) for part in zip(*parts, strict=True))
        return normalise(images).contiguous(memory_format=torch.channels_last), masks

    def _pick(self, stream: Stream, count: int) -> tuple[Tensor, Tensor]:
        """Return the next normal images of a stream in [0, 1] and where their objects are."""
        (which,) = self._plan.take(_draw_next, stream, count)
        return self._images[which].float() / 255, self._foregrounds[which]

    def _turn(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate a share of images, with their foregrounds."""
        chosen, angles = self._plan.take(self._draw_turns, len(images))
        both = torch.cat([images, foreground.unsqueeze(1).float()], 1)
        both = torch.where(chosen, turn(both, angles), both)
        return both[:, :3], both[:, 3] > 0.5

    def _draw_turns(self, n: int) -> tuple[Tensor, ...]:
        chosen = torch.rand(n, 1, 1, 1, generator=self._rng) < self._turned
        return chosen, *draw_angles(n, TURN, self._rng)

    def _extend(self) -> tuple[Tensor, Tensor]:
        """Return extended anomalies and their masks."""
        which, as_is = self._plan.take(self._draw_extended)
        targets = self._pick(self._targets, self._extended)
        real, pasted = self._extension.real(which), self._extension.pasted(which, *targets)
        as_is = as_is.view(-1, 1, 1)
        return (
            torch.where(as_is.unsqueeze(1), real[0], pasted[0]),
            torch.where(as_is, real[1], pasted[1]),
        )

    def _draw_extended(self) -> tuple[Tensor, Tensor]:
        """Draw labelled anomalies, (n,) long, and which are shown as they are, (n,) bool."""
        items = self._items.take(self._extended)
        any_of = torch.randint(self._labelled, (self._extended,), generator=self._rng)
        as_is = items < self._copies * self._labelled
        return torch.where(as_is, items % self._labelled, any_of), as_is


def _draw_next(stream: Stream, count: int) -> tuple[Tensor, ...]:
    return (stream.take(count),)
