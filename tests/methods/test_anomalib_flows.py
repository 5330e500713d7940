"""FastFlow and CFlow against anomalib 2.7.0's, on the features of `anomalib_fixtures`.

Both sides have the same made-up parameters, ours the permutations that anomalib has drawn. Where
ours differs on purpose:

- FastFlow normalises features without weights by default; anomalib with (`layer_norm = "affine"`),
  which are one and zero here.
- CFlow's map is relative to the likeliest position of the normal images; anomalib's to that of the
  batch, and zero at the least anomalous pixel of the batch. Here ours takes the batch for normal.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.cflow import CFlow, fibers_of
from baselines.fastflow import FastFlow
from bench.detector import BackboneSource, Context, Seeds
from tests.campaigns.anomalib_fixtures import FLOWS, FOLDER, TESTED, FlowCase, parameter

FASTFLOW = [name for name, case in FLOWS.items() if case.method == "fastflow"]
CFLOW = [name for name, case in FLOWS.items() if case.method == "cflow"]


class Fixture:
    """The features of a case, and what anomalib makes of them."""

    def __init__(self, name: str) -> None:
        self.case: FlowCase = FLOWS[name]
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
            self._arrays = dict(stored)

    @property
    def tested(self) -> list[Tensor]:
        """The features, (N, channels, h, w) by layer."""
        return [torch.from_numpy(self._arrays[f"tested.{k}"]) for k in self.case.layers]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[f"anomalib.{name}"]


def filled(fixture: Fixture, detector: Any) -> Any:
    """Give a detector flows with the parameters and permutations of a case."""
    case = fixture.case
    detector.context = Context(
        "cpu", Seeds(0, "d", "c"), backbone=BackboneSource("resnet18", 3, None)
    )
    detector.size = case.size
    sides = [maps.shape[-1] for maps in fixture.tested]
    detector.flows = nn.ModuleList(map(detector.flow, case.channels, sides))
    for level, flow in enumerate(detector.flows):
        for step, block in enumerate(flow.blocks):
            prefix = f"{level}.module_list.{step}."
            for name, values in block.named_parameters():
                made_up = parameter(prefix + name, tuple(values.shape))
                values.data = torch.from_numpy(made_up)
            matrix = torch.from_numpy(fixture[prefix + "w_perm"])
            if case.soft:
                block.permutation.matrix.copy_(matrix)
            else:
                block.permutation.order.copy_(matrix.argmax(1))
                block.permutation.inverse.copy_(matrix.argmax(0))
    return detector


def fastflow(fixture: Fixture, layer_norm: str = "plain") -> FastFlow:
    case = fixture.case
    return filled(fixture, FastFlow(FastFlow.Parameters(
        flow_steps=case.steps, conv3x3_only=case.conv3x3_only, hidden_ratio=case.hidden_ratio,
        layer_norm=layer_norm,
    )))  # fmt: skip


def cflow(fixture: Fixture) -> CFlow:
    case = fixture.case
    permutation = "soft" if case.soft else "hard"
    return filled(fixture, CFlow(CFlow.Parameters(blocks=case.steps, permutation=permutation)))


def assert_close(ours: Tensor, theirs: NDArray[Any]) -> None:
    """Compare to 1e-5 of each value, and of the largest for those near zero."""
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max()
    )


@pytest.mark.parametrize("layer_norm", ["plain", "affine"])
@pytest.mark.parametrize("name", FASTFLOW)
def test_fastflows_latents_determinants_maps_and_scores(name: str, layer_norm: str) -> None:
    fixture = Fixture(name)
    detector = fastflow(fixture, layer_norm)
    for level, (flow, maps) in enumerate(zip(detector.flows, fixture.tested, strict=True)):
        z, log_det = flow(maps)
        assert_close(z, fixture[f"z.{level}"])
        assert_close(log_det, fixture[f"log_det.{level}"])
    assert_close(detector.maps(fixture.tested), fixture["map"])
    assert_close(detector.scores(fixture.tested), fixture["score"])


@pytest.mark.parametrize("name", CFLOW)
def test_cflows_latents_determinants_maps_and_scores(name: str) -> None:
    fixture = Fixture(name)
    detector = cflow(fixture)
    for level, (flow, maps) in enumerate(zip(detector.flows, fixture.tested, strict=True)):
        positions = maps[0, 0].numel()
        where = torch.arange(positions).repeat(TESTED)
        z, log_det = flow(fibers_of(maps), flow.places[where])
        assert_close(z, fixture[f"z.{level}"])
        assert_close(log_det, fixture[f"log_det.{level}"])
    detector.largest = torch.stack([g.amax() for g in detector.likelihoods(fixture.tested)])
    maps = detector.maps(fixture.tested)
    # Of a likelihood of size 1 that is an exponential: float32 there, float64 here.
    np.testing.assert_allclose((maps - maps.min()).detach(), fixture["map"], atol=1e-5)
    scores = detector.scores(fixture.tested) - maps.min()
    np.testing.assert_allclose(scores.detach(), fixture["score"], atol=1e-5)
