"""From an attention map to the zoomed view: map -> box -> crop (ATAC-Net, section on cropping).

Boxes are float tensors (B, 4): left, top, right, bottom as shares of the image in [0, 1], their
edges on the borders of map cells unless padded.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def boxes_from_maps(
    maps: Tensor, threshold: float = 0.4, padding: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Box the active cells of each map (B, h, w); return boxes (B, 4) and fallbacks (B,) bool.

    A map is scaled to 0-1 by its own minimum and maximum; cells >= threshold are active; the box
    is the tightest around all of them, so at least one cell, widened on each side by `padding` of
    its own side. A map that is constant or not finite gives the whole image, and a fallback.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = (maps - low) / (high - low)
    active = scaled >= threshold
    fallback = ~active.flatten(1).any(1)  # 0 / 0 and inf / inf are NaN, which is never >= threshold
    left, right = _extent(active.any(1))
    top, bottom = _extent(active.any(2))
    boxes = torch.stack([left, top, right, bottom], 1)
    side = (boxes[:, 2:] - boxes[:, :2]) * padding
    boxes = torch.cat([boxes[:, :2] - side, boxes[:, 2:] + side], 1).clamp(0, 1)
    return torch.where(fallback.unsqueeze(1), whole_boxes(boxes), boxes), fallback


def _extent(active: Tensor) -> tuple[Tensor, Tensor]:
    """First and one-past-last active cell of (B, n) as shares of n."""
    n = active.shape[1]
    cells = torch.arange(n, device=active.device)
    first = torch.where(active, cells, n).amin(1)
    last = torch.where(active, cells, -1).amax(1)
    return first / n, (last + 1) / n


def whole_boxes(boxes: Tensor) -> Tensor:
    """Return as many boxes of the whole image, (B, 4)."""
    return torch.cat([torch.zeros_like(boxes[:, :2]), torch.ones_like(boxes[:, 2:])], 1)


def centre_boxes(boxes: Tensor) -> Tensor:
    """Move boxes (B, 4) to the centre of the image; sizes stay."""
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([0.5 - half, 0.5 + half], 1)


def draw_corners(n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw where n boxes lie, (n, 2) float32 in [0, 1), on the CPU."""
    return (torch.rand(n, 2, generator=generator),)


def random_boxes(boxes: Tensor, corners: Tensor) -> Tensor:
    """Move boxes (B, 4) to places inside the image; sizes stay.

    `corners` (B, 2) in [0, 1) are the shares of the room on the left and above.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    corner = corners * (1 - size)
    return torch.cat([corner, corner + size], 1)


def zoom(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut boxes (B, 4) out of images (B, C, H, W) and resize each to H x W, bilinearly.

    Equals cropping whole pixels and `interpolate(..., align_corners=False)`: edges between pixels
    are rounded to the nearest one and nothing outside the box is mixed in. No gradient.
    """
    height, width = images.shape[2:]
    with torch.no_grad():
        left, right = (boxes[:, ::2] * width).round().unbind(1)
        top, bottom = (boxes[:, 1::2] * height).round().unbind(1)
        right, bottom = torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)
        x = _sample_places(left, right, width)
        y = _sample_places(top, bottom, height)
        grid = torch.stack(
            [x.unsqueeze(1).expand(-1, height, -1), y.unsqueeze(2).expand(-1, -1, width)], 3
        )
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _sample_places(start: Tensor, stop: Tensor, pixels: int) -> Tensor:
    """Where `pixels` outputs sample [start, stop) (B,): (B, pixels) in grid_sample's [-1, 1]."""
    centres = (torch.arange(pixels, device=start.device) + 0.5) / pixels
    points = start.unsqueeze(1) + centres * (stop - start).unsqueeze(1)
    # Half a pixel inside the box, bilinear weights reach no pixel beyond it.
    points = points.clamp(start.unsqueeze(1) + 0.5, stop.unsqueeze(1) - 0.5)
    return points * 2 / pixels - 1
