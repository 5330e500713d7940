"""Names of runs, hardware, places and methods for people."""

from bench.published.tables import NAMES
from bench.spec import Place, place_name
from bench.store.receipt import Receipt
from bench.text import brief


def hardware(receipt: Receipt) -> str:
    """Return a run's processor or GPU, and its threads."""
    device, threads = receipt.provenance.device_name, receipt.provenance.threads
    if device == "cpu":
        device = receipt.provenance.cpu or "CPU"
    return f"{device}, {threads} thread" + "s" * (threads > 1)


def name_of(place: Place) -> str:
    """Return `dataset/category`, or a dataset without categories."""
    name, bracket, remark = place_name(*place).partition(" (")
    return brief(name) + brief(bracket + remark)


def method_name(method: str) -> str:
    """Return a method's published name."""
    return NAMES.get(method, brief(method))
