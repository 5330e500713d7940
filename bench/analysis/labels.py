"""Names of runs, hardware, places and methods for people."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bench.published.tables import NAMES
from bench.spec import Place, RunSpec
from bench.store.receipt import Receipt
from bench.text import brief

_FIELDS = ("image_size", "resize", "precision", "batch_size", "backbone", "stage", "weights",
          "external", "method_version", "method_source", "data_version")  # fmt: skip
"""What a run can differ in beside its data, its seed and its method's parameters."""


class ConfigurationNames:
    """Names of configurations: the method, and settings that vary."""

    def __init__(self, specs: Iterable[RunSpec]) -> None:
        self._values: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
        for spec in specs:
            for key, value in self._settings(spec).items():
                self._values[spec.method][key].add(value)

    @staticmethod
    def _settings(spec: RunSpec) -> dict[str, Any]:
        values = {f: getattr(spec, f) for f in _FIELDS}
        if spec.weights is not None:
            values["weights"] = spec.weights[:8]
        if spec.method_source is not None:
            values["method_source"] = spec.method_source[-8:]
        if spec.external is not None:
            values["external"] = spec.external.partition(":")[0]
        hard = {"seen": spec.seen_defect} if spec.seen_defect else {}
        return {**spec.parameters, **values, **hard}

    def __call__(self, spec: RunSpec) -> str:
        """Return the name of a row."""
        varied = [
            f"{key}={value}"
            for key, value in self._settings(spec).items()
            if len(self._values[spec.method][key]) > 1
        ]
        return f"{spec.method} {' '.join(varied)}".strip()


def hardware(receipt: Receipt) -> str:
    """Return a run's processor or GPU, and its threads."""
    device, threads = receipt.provenance.device_name, receipt.provenance.threads
    if device == "cpu":
        device = receipt.provenance.cpu or "CPU"
    return f"{device}, {threads} thread" + "s" * (threads > 1)


def name_of(place: Place) -> str:
    """Return `dataset/category`, or a dataset without categories."""
    return brief(place[0] if place[0] == place[1] else f"{place[0]}/{place[1]}")


def method_name(method: str) -> str:
    """Return a method's published name."""
    return NAMES.get(method, brief(method))
