"""The contract between the harness and a method; the only module of bench that a method imports.

The harness owns data, seeds, devices, timing, metrics and files. A method owns its mathematics:
a class with the attributes and the two functions of `Detector`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import MethodError as MethodError
from bench.seeding import Seeds as Seeds


@dataclass(frozen=True)
class Samples:
    """N images of one category with what their files said."""

    images: NDArray[np.uint8]
    """(N, 3, S, S), RGB, resized."""
    names: tuple[str, ...]
    """Paths relative to the dataset's folder."""
    width: NDArray[np.int64]
    """(N,), of the file, in pixels, before resizing."""
    height: NDArray[np.int64]
    mode: tuple[str, ...]
    """Pillow's name of the file's pixel format: L, P, RGB, RGBA ..."""
    bytes: NDArray[np.int64]
    """(N,), size of the file."""
    masks: NDArray[np.bool_] | None = None
    """(N, S, S), where the defect is: of the labelled anomalies, for a method with `masks` in
    `settings`; else None."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TrainingSet:
    """What a method may learn from: normal images and the labelled anomalies (k, or none)."""

    normal: Samples
    anomalous: Samples


@dataclass(frozen=True)
class BackboneSource:
    """Which pre-trained network a run uses, and from which file."""

    name: str
    """torchvision's name: resnet18, resnet50, wide_resnet50_2, mobilenet_v2."""
    stage: int
    """Deepest stage to build, 1 to 4; stage s has stride 2**(s + 1)."""
    file: Path | None
    """State dict under torchvision's names (.pth or .safetensors); None: random initialisation."""
    strides: str = "v1.5"
    """`v1`: the bottlenecks' stride sits on the first 1x1 convolution; `v1.5`: on the 3x3."""


@dataclass(frozen=True)
class Explanation:
    """What a method saw in N images, on its own coarse grids."""

    maps: Mapping[str, NDArray[np.float32]]
    """(N, h, w) each, by name, higher = more anomalous; the first is the one to draw."""
    boxes: NDArray[np.float32] | None = None
    """(N, 4): left, top, right, bottom of the zoomed view as shares of the image."""
    parts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """(N,) each: the terms that the score is made of."""


def parameter(
    default: Any,
    *,
    choices: tuple[Any, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """Declare a parameter with the values it can take, so that a request is refused early.

    `choices` lists them; `least`, `above` (exclusive) and `most` bound a number.
    """
    limits = {"choices": choices, "least": least, "above": above, "most": most}
    return field(default=default, metadata={k: v for k, v in limits.items() if v not in (None, ())})


def _ignore(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Context:
    """What the harness gives to `fit`."""

    device: str
    """`cpu`, `cuda` or `cuda:i`."""
    seeds: Seeds
    """Sub-seeds by purpose: `context.seeds["init"]`; see `bench.seeding.PURPOSES`."""
    precision: str = "float32"
    """`float32`, or `bfloat16` for autocast of the backbone."""
    batch_size: int = 16
    backbone: BackboneSource | None = None
    external: NDArray[np.uint8] | None = None
    """(M, 3, S, S), RGB, from outside the category, for a method with `external` in `settings`."""
    score_batch_size: int = 32
    """Images scored at once; it touches the last digits of a score and nothing else."""
    progress: Callable[[int, int, float], None] = field(default=_ignore)
    """`progress(epoch, epochs, loss)`: call it with epoch 0 before the first step."""
    after_epoch: Callable[[int, Any], None] | None = None
    """Where it is set, a method that trains in epochs calls `after_epoch(epoch, self)` after each,
    from 1 on, ready to score; the call leaves the state of all generators as it was."""
    record: Callable[[str, bool | int | float | str], None] = field(default=_ignore)
    """`record(name, value)`: keep a fact about the run beside its result, say optimiser_steps.

    Of `normal_threshold`, a score that a method fixes on normal training images, the run keeps the
    accuracy on the test images (`bench.metrics.mean_class_accuracy`). `graphed` and `layout`, how
    steps ran on a GPU, count as the environment where two runs are compared."""


class Detector(Protocol):
    """A method. It is built once a run, inside a seeded process of its own.

    What it can do beside is found by the presence of these functions; one that raises
    NotImplementedError counts as absent:

    - `embed(samples) -> (N, D) float32`: features for a t-SNE plot;
    - `explain(samples) -> Explanation`: maps, boxes and the parts of the score;
    - `state() -> {name: array}` and `load_state(arrays, context)`: a saved model. A detector that
      was not fitted but loaded gives the same scores; its context has no weights file;
    - `rehearse(size, context)`: one training step on an arbitrary batch of the context's size of
      (3, size, size) images, for the harness to learn what memory `fit` will need;
    - `memory(normals, size, context) -> int`: the bytes that `fit` and `score` will hold at once,
      for so many normal images of a side and beside them. A run that has no room for it is refused
      before it begins.

    `score` and `explain` must give of a part of the images what they give of it among all, since
    the harness may hand over images in parts. A generator that one of them makes inside must be
    seeded for each image anew; the harness sees none but the global and the detector's own.

    A class with `seedless = True` says that nothing in it is random: unless it is timed, one seed
    is run of it.
    """

    name: ClassVar[str]
    """[a-z0-9_-]+, as in tables."""
    version: ClassVar[int]
    """Raised by hand when the method's numbers change; part of the run's identity."""
    supervision: ClassVar[str | Mapping[str, Mapping[str, str]]]
    """`weak` (normal images and k labelled anomalies) or `unsupervised` (normal images); where a
    parameter decides, `{parameter: {value: one of these}}` for all of its values."""
    settings: ClassVar[frozenset[str]]
    """Which of `precision`, `batch_size`, `backbone`, `external` (images from elsewhere) and
    `masks` (of the labelled anomalies) it uses; only these enter its identity."""
    Parameters: ClassVar[type]
    """A frozen dataclass of bool, int, float or str fields, every one with a default; `parameter`
    says which values it can take."""

    def __init__(self, parameters: Any) -> None: ...

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Learn from the training set."""

    def score(self, samples: Samples) -> NDArray[np.float32]:
        """Return (N,) float32 anomaly scores, higher = more anomalous."""
