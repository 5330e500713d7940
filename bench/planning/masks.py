"""Masks that the pixel metrics of planned runs need."""

from collections.abc import Iterable, Iterator

from bench.data.decode import upright_size
from bench.data.listing import Listing
from bench.data.masks import find_masks, first_of, has_masks, mask_problems
from bench.planning.plan import Run
from bench.spec import place_name
from bench.system.untrusted import one_line


def mask_lines(runs: Iterable[Run]) -> Iterator[str]:
    """Yield a line for each category without pixel metrics, and why.

    `runs` are those that are to keep maps. Masks are decoded, of images the size is read.
    """
    listings = {(r.spec.dataset, r.spec.category): r.listing for r in runs if measured(r)}
    for place, listing in listings.items():
        if problem := _problem(listing):
            yield f"no pixel metrics of {place_name(*place)}: {problem}"


def measured(run: Run) -> bool:
    """Whether a run that keeps maps is measured by masks."""
    return "explain" in run.planned.method.abilities


def _problem(listing: Listing) -> str:
    """Return why a category's masks cannot be used; empty where they can, or none can be."""
    root = listing.root
    masks = find_masks(root, listing.files)
    expected = [mask.expected for mask in masks if mask.expected]
    if not expected:
        return ""
    if not has_masks(masks):
        return f"there are no masks; the first belongs at {one_line(expected[0])}"
    problems = mask_problems(root, listing.files, lambda file: upright_size(root / file.path))
    return first_of(problems) if problems else ""
