"""Which runs used a copy of a dataset that is not the official one."""

from collections.abc import Iterable

from bench.data.catalog import is_own
from bench.store.receipt import Receipt


def copy_reasons(receipts: Iterable[Receipt]) -> list[str]:
    """Return why the data of runs are not official, each reason once.

    An own dataset is nobody's copy, though older runs on one have a reason recorded.
    """
    catalogued = (r for r in receipts if not is_own(r.spec.dataset))
    return sorted({r.provenance.unofficial_copy for r in catalogued} - {""})
