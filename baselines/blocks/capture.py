"""Training steps on CUDA, captured once and replayed: one launch where there were a thousand."""

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3
"""Steps before the captured one. They are real ones: nothing has to be undone."""


class CapturedStep:
    """A step that runs as it is at first, and from then on as a CUDA graph.

    The step must copy nothing from the host, have static shapes and keep its tensors where they
    are. If it cannot be captured, a warning says so and it goes on as it is.
    """

    def __init__(self, step: Callable[[], None], device: str) -> None:
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    @property
    def succeeded(self) -> bool:
        """Whether steps are replayed."""
        return self._graph is not None

    def __call__(self) -> None:
        """Make one step."""
        self._calls += 1
        if self._calls == WARM_UP + 1:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._run_aside()

    def _run_aside(self) -> None:
        """Run on the stream of the capture, where its memory and its gradients then belong."""
        present = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            self._step()
        present.wait_stream(self._stream)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Return the graph of a step, which capturing alone does not make; None if it fails."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._step()
        except RuntimeError as error:
            first = str(error).partition("\n")[0]
            warnings.warn(f"steps ran one by one, they cannot be captured: {first}", stacklevel=2)
            return None
        return graph
