"""Masks that the pixel metrics of planned runs need."""

from collections.abc import Iterable, Iterator, Mapping

from bench.data.decode import upright_size
from bench.data.listing import Listing
from bench.data.masks import find_masks, first_of, has_masks, mask_problems
from bench.planning.plan import Run
from bench.spec import place_name
from bench.store.receipt import Receipt
from bench.system.untrusted import one_line


def mask_lines(runs: Iterable[Run]) -> Iterator[str]:
    """Yield a line for each category without pixel metrics, and why.

    `runs` are those that are to keep maps. Masks are decoded, of images the size is read.
    """
    listings = {(r.spec.dataset, r.spec.category): r.listing for r in runs if measured(r)}
    for place, listing in listings.items():
        if problem := _problem(listing):
            yield f"no pixel metrics of {place_name(*place)}: {problem}"


def lost_mask_lines(runs: Iterable[Run], done: Mapping[str, Receipt]) -> Iterator[str]:
    """Yield a line for each category whose stored pixel metrics have no masks any more."""
    listings = {
        (r.spec.dataset, r.spec.category): r.listing
        for r in runs
        if r.run_id in done and done[r.run_id].metrics.masks_sha256 is not None
    }
    for place, listing in listings.items():
        if not has_masks(find_masks(listing.root, listing.files)):
            yield f"masks of {place_name(*place)} are gone: the stored pixel metrics stay"


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
