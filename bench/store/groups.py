"""Groups of values in a receipt, such as metrics."""

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from bench.source import Standing, loaded_files_changed, standing

Plain = bool | int | float | str | None
_PLAIN = frozenset({bool, int, float, str, type(None)})
OTHER_FORM = "run.json has another form"


class Values(Mapping[str, Plain]):
    """Plain values by name, in recorded order.

    The names that a subclass declares are attributes too: None where a run has no such value and
    the declared type allows it. Whatever else was recorded is kept, and written again.
    """

    __slots__ = ("_values",)
    _known: ClassVar[dict[str, frozenset[type]]] = {}
    _required: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        cls._known = {name: _types(hint) for name, hint in inspect.get_annotations(cls).items()}
        cls._required = frozenset(n for n, types in cls._known.items() if type(None) not in types)
        for name in cls._known:
            setattr(cls, name, _attribute(name, name in cls._required))

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def checked(cls, values: Any) -> Self:
        """Return the group, types checked; raises ValueError."""
        if type(values) is not dict or not cls._required <= values.keys():
            raise ValueError(OTHER_FORM)
        allowed = cls._known.get
        for name, value in values.items():
            if type(value) not in allowed(name, _PLAIN):
                raise ValueError(OTHER_FORM)
        return cls(values)

    @classmethod
    def readable(cls, values: Any) -> Self:
        """Return the group of what has its declared type; the rest counts as absent."""
        entries = values.items() if type(values) is dict else ()
        return cls({n: v for n, v in entries if type(v) in cls._known.get(n, _PLAIN)})

    def __getitem__(self, name: str) -> Plain:
        value: Plain = self._values[name]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"

    def number(self, name: str) -> float | None:
        """Return a number by name, else None."""
        value = self._values.get(name)
        return value if type(value) in (int, float) else None


def _types(hint: Any) -> frozenset[type]:
    """Return the types that an annotation allows; float allows int."""
    union = isinstance(hint, types.UnionType)
    allowed = frozenset(typing.get_args(hint) if union else (hint,))
    return allowed | {int} if float in allowed else allowed


def _attribute(name: str, required: bool) -> property:
    if required:
        return property(lambda group: group._values[name])
    return property(lambda group: group._values.get(name))


class Metrics(Values):
    """Quality of the scores, 0 to 1 each."""

    __slots__ = ()

    auroc: float
    ap: float
    auroc_full: float | None
    """Over the whole test fold, of methods that train on no anomaly."""
    ap_full: float | None
    mean_class_accuracy: float | None
    """At the threshold that the method fixed on normal training images, where it did."""
    mean_class_accuracy_full: float | None
    pixel_auroc: float | None
    box_recall: float | None
    """Share of a defect that the zoomed view holds."""
    box_recall_by_chance: float | None
    box_recall_centred: float | None
    pointing: float | None
    """How often the highest point of the map lies on the defect."""
    pointing_by_chance: float | None
    masks_sha256: str | None
    """Of the masks that pixel metrics were made with, see `bench.data.masks.masks_digest`; None
    where there are none, and of runs before the digest was kept."""
    scores_sha256: str

    @classmethod
    def checked(cls, values: Any) -> Self:
        """Return the group; AUROC and AP must be shares."""
        metrics = super().checked(values)
        if not all(type(m) is float and 0 <= m <= 1 for m in (metrics.auroc, metrics.ap)):
            raise ValueError(OTHER_FORM)
        return metrics

    def share(self, name: str) -> float:
        """Return a metric by name; raises KeyError."""
        value = self.number(name)
        if value is None:
            raise KeyError(name)
        return float(value)


PIXEL_METRICS = (
    "pixel_auroc", "box_recall", "box_recall_by_chance", "box_recall_centred", "pointing",
    "pointing_by_chance", "masks_sha256",
)  # fmt: skip
"""Metrics that follow from maps and masks, not from scores."""


class SplitCounts(Values):
    """How many images of each part of the split."""

    __slots__ = ()

    train_normal: int | None
    train_left_out: int | None
    """Training images that show the picture of a test image."""
    train_near_copies: int | None
    """Of these, the ones of other pixels; None of runs before near copies were looked for."""
    test_normal: int | None
    test_anomalous: int | None
    test_duplicates_left_out: int | None
    """Test images that show the picture of a drawn anomaly."""
    test_near_copies: int | None
    """Of these, the ones of other pixels."""
    pictures: int | None
    """Different pictures of the category's files: duplicates and near copies are one."""
    scored: int


class Timings(Values):
    """Seconds of a run's phases, and a timing run's measurements."""

    __slots__ = ()

    setup_s: float
    fit_s: float
    score_s: float
    measure_s: float | None
    first_step_s: float | None
    """From the command's request to the first training step."""
    latency_s: float | None
    """One image from decoded pixels to its score, the median."""
    latency_p95_s: float | None
    latency_file_s: float | None
    throughput_per_s: float | None
    throughput_file_per_s: float | None
    explain_latency_s: float | None
    step_s: float | None

    @property
    def phases_s(self) -> float:
        """Sum of all phases before publishing, without artifacts."""
        return self.setup_s + self.fit_s + self.score_s + (self.measure_s or 0)


class Provenance(Values):
    """Software and hardware of a run; no part of its id."""

    __slots__ = ()

    hostname: str | None
    os: str | None
    cpu: str | None
    cpu_features: str | None
    """Family, model and a digest of the abilities of a processor."""
    cpu_count: int | None
    memory_bytes: int | None
    python: str | None
    bench: str | None
    torch: str | None
    torchvision: str | None
    numpy: str | None
    pillow: str | None
    pyarrow: str | None
    commit: str | None
    dirty: str | None
    """`yes`, `no`, or nothing without a checkout."""
    source_sha256: str | None
    """Of the method's source, see `bench.source.source_hash`."""
    also_loaded: str | None
    """Files that a method from outside has loaded beside what its id covers: JSON."""
    device: str | None
    """`cpu` or `cuda:i`."""
    device_name: str
    """Of the GPU, else `cpu`."""
    threads: int
    score_batch_size: int
    weights_title: str | None
    strides: str | None
    unofficial_copy: str
    """Why the images are no official copy; empty where they are."""
    seedless: bool | None
    """Whether nothing in the method is random."""
    tuned: str | None
    """Settings that the results of seeds have chosen, see `bench.store.tuning`."""
    driver: str | None
    cuda: str | None
    cudnn: str | None
    graphed: bool | None
    """Whether training steps were captured and replayed, on a GPU."""
    layout: str | None
    """Of images and weights in training, on a GPU."""
    load_average: float | None
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    artifacts_peak_memory_bytes: int | None
    """With the maps and whatever else was kept; None where nothing was."""
    artifacts_peak_gpu_memory_bytes: int | None
    fit_memory_bytes: int | None
    score_memory_bytes: int | None
    other_cpu_share: float | None
    other_gpu_processes: int | None
    mhz_low: float | None
    mhz_high: float | None
    disturbed: str | None
    """What else ran while a timing run measured."""

    def standing(self, path: str) -> Standing:
        """Compare the code of `package.module:Class` with today's."""
        if self.also_loaded and loaded_files_changed(path.partition(":")[0], self.also_loaded):
            return Standing(stale=True)
        return standing(path, self.source_sha256, self.device or "")


@dataclass(frozen=True, slots=True)
class Drawn:
    """An anomalous image that was drawn for training."""

    file: str
    defect: str
    pixels_sha256: str
