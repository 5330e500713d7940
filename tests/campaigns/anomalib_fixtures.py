"""Records what anomalib's models make of small features, for ours to agree with.

`python -m tests.campaigns.anomalib_fixtures --python VENV/bin/python`, where that environment holds
anomalib 2.7.0, writes `tests/fixtures/anomalib/*.npz` anew: made-up features of a few dozen
pictures, and what anomalib's PaDiM, PatchCore, FastFlow and CFlow remember and say of them. In its
models only the network is replaced, by one that hands on these features; what comes after is its
own, its random choices and all, which are recorded too. The flows' parameters are made up on both
sides. The other interpreter runs this same file, isolated from the project.
"""

import argparse
import math
import os
import subprocess
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "fixtures" / "anomalib"
VERSION = "2.7.0"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """What a fixture is made with."""

    method: str
    size: int
    """Side of the pictures that the features are said to be of."""
    normals: int
    channels: tuple[int, ...]
    """Of the stages, 1 to 3 of PaDiM, 2 and 3 of PatchCore; stage s has size / 2 ** (s + 1)."""
    kept: int = 0
    """PaDiM: channels that are chosen."""
    coreset: float = 0.0
    """PatchCore: share of the patches that is kept; chosen without a projection."""
    neighbours: int = 0
    """PatchCore: of the nearest memory, that weigh the score."""

    @property
    def layers(self) -> list[str]:
        """Torchvision's names of the stages."""
        return [f"layer{stage}" for stage in range(4 - len(self.channels), 4)]


CASES = {
    "padim-few-images": Case("padim", 32, 12, (4, 8, 12), kept=16),
    "padim-many-images": Case("padim", 32, 40, (4, 6, 8), kept=10),
    "patchcore": Case("patchcore", 64, 24, (12, 20), coreset=0.1, neighbours=9),
    "patchcore-unweighted": Case("patchcore", 64, 8, (6, 8), coreset=0.25, neighbours=1),
    "patchcore-tiny-bank": Case("patchcore", 64, 3, (6, 8), coreset=0.03, neighbours=9),
}
"""Both forms of PaDiM's Gaussian, both scores of PatchCore, and fewer memories than neighbours."""
TESTED = 4


@dataclass(frozen=True)
class FlowCase:
    """What a fixture of a flow is made with."""

    method: str
    channels: tuple[int, ...]
    """Of the stages, 1 to 3 of FastFlow, 2 and 3 of CFlow."""
    steps: int
    conv3x3_only: bool = False
    hidden_ratio: float = 1.0
    """FastFlow's, as above."""
    soft: bool = False
    """CFlow: whether permutations are rotations."""
    size: int = 64

    @property
    def layers(self) -> list[str]:
        """Torchvision's names of the stages."""
        return [f"layer{stage}" for stage in range(4 - len(self.channels), 4)]


FLOWS = {
    "fastflow": FlowCase("fastflow", (5, 8, 12), steps=3, hidden_ratio=0.5),
    "fastflow-3x3": FlowCase("fastflow", (6, 7, 10), steps=2, conv3x3_only=True),
    "cflow-hard": FlowCase("cflow", (9, 12), steps=2),
    "cflow-soft": FlowCase("cflow", (8, 13), steps=3, soft=True),
}


def made_up(case: Case | FlowCase, count: int, seed: int, shift: float = 0.0) -> Arrays:
    """Return features (count, channels, h, w) float32 by layer, >= 0 as those of a network are.

    All pictures share what is at a position; `shift` moves every second one away in a quarter.
    """
    shared, own = np.random.RandomState(0), np.random.RandomState(seed)
    found = {}
    for layer, channels in zip(case.layers, case.channels, strict=True):
        side = case.size // 2 ** (int(layer[-1]) + 1)
        values = shared.normal(size=(channels, side, side))
        values = values + 0.5 * own.normal(size=(count, channels, side, side))
        values[1::2, :, : side // 2, : side // 2] += shift
        found[layer] = np.maximum(values, 0).astype(np.float32)
    return found


def parameter(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the made-up values of a flow's parameter by anomalib's name of it."""
    values = np.random.RandomState(zlib.crc32(name.encode())).normal(size=shape)
    if name.endswith("global_scale"):
        values = 2 * math.log(math.exp(5) - 1) + 0.3 * values
    elif name.endswith("weight"):
        values /= math.sqrt(values[0].size)
    else:
        values *= 0.3
    return values.astype(np.float32)


def recorded(case: Case) -> Arrays:
    """Return the features of a case and what anomalib makes of them; torch's seed is set."""
    normal, tested = made_up(case, case.normals, 1), made_up(case, TESTED, 2, shift=1.5)
    said = (_padim if case.method == "padim" else _patchcore)(case, normal, tested)
    given = {f"normal.{k}": v for k, v in normal.items()}
    given |= {f"tested.{k}": v for k, v in tested.items()}
    return given | {f"anomalib.{k}": np.asarray(v) for k, v in said.items()}


def _network(layers: Arrays, listed: bool = False) -> Any:
    """Return a module that gives these features whatever it is shown, by name or `listed`."""
    import torch

    class Given(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            assert len(images) == len(next(iter(layers.values())))
            maps = {name: torch.from_numpy(values) for name, values in layers.items()}
            return list(maps.values()) if listed else maps

    return Given()


def _shown(case: Case | FlowCase, count: int) -> Any:
    import torch

    return torch.zeros(count, 3, case.size, case.size)


def _padim(case: Case, normal: Arrays, tested: Arrays) -> dict[str, Any]:
    import torch
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel("resnet18", case.layers, pre_trained=False, n_features=case.kept)
    model.idx = torch.randperm(sum(case.channels))[: case.kept]
    model.feature_extractor = _network(normal)
    model.train()
    model(_shown(case, case.normals))
    model.fit()
    model.eval()
    model.feature_extractor = network = _network(tested)
    shown = _shown(case, TESTED)
    found = model(shown)
    gaussian = [model.gaussian.mean, model.gaussian.inv_covariance]
    distance = model.anomaly_map_generator.compute_distance(
        model.generate_embedding(network(shown)), gaussian
    )
    return {
        "chosen": model.idx, "mean": model.gaussian.mean, "distance": distance[:, 0],
        "score": found.pred_score[:, 0], "map": found.anomaly_map[:, 0],
    }  # fmt: skip


def _patchcore(case: Case, normal: Arrays, tested: Arrays) -> dict[str, Any]:
    import torch
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(case.layers, "resnet18", False, num_neighbors=case.neighbours)
    model.feature_extractor = _network(normal)
    model.train()
    patches = model(_shown(case, case.normals))
    # A third dimension keeps it from projecting the patches.
    picks = KCenterGreedy(patches.unsqueeze(2), case.coreset).select_coreset_idxs()
    model.memory_bank = patches[picks]
    model.eval()
    model.feature_extractor = network = _network(tested)
    shown = _shown(case, TESTED)
    found = model(shown)
    pooled = {k: model.feature_pooler(v) for k, v in network(shown).items()}
    queries = model.reshape_embedding(model.generate_embedding(pooled))
    distance, index = model.nearest_neighbors(queries, 1)
    return {
        "picks": torch.tensor(picks), "bank": model.memory_bank,
        "distance": distance.view(TESTED, -1), "index": index.view(TESTED, -1),
        "score": found.pred_score, "map": found.anomaly_map[:, 0],
    }  # fmt: skip


def recorded_flow(case: FlowCase) -> Arrays:
    """Return the features of a case and what anomalib's flows make of them."""
    tested = made_up(case, TESTED, 2, shift=1.5)
    said = (_fastflow if case.method == "fastflow" else _cflow)(case, tested)
    arrays = {f"tested.{k}": v for k, v in tested.items()}
    return arrays | {f"anomalib.{k}": np.asarray(v) for k, v in said.items()}


def _filled(flows: Any) -> dict[str, Any]:
    """Give flows their made-up parameters; return the permutations that they have drawn."""
    import torch

    drawn = {}
    for name, values in flows.named_parameters():
        if values.requires_grad:
            values.copy_(torch.from_numpy(parameter(name, tuple(values.shape))))
        elif name.endswith("w_perm"):
            drawn[name] = values.flatten(1).clone()
    return drawn


def _fastflow(case: FlowCase, tested: Arrays) -> dict[str, Any]:
    from anomalib.models.image.fastflow.torch_model import FastflowModel, create_fast_flow_block
    from torch import nn

    model = FastflowModel((case.size, case.size), "resnet18", pre_trained=False)
    shapes = [list(maps.shape[1:]) for maps in tested.values()]
    model.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
    model.fast_flow_blocks = nn.ModuleList(
        create_fast_flow_block(shape, case.conv3x3_only, case.hidden_ratio, case.steps)
        for shape in shapes
    )
    drawn = _filled(model.fast_flow_blocks)
    model.feature_extractor = _network(tested, listed=True)
    z, log_det = model.train()(_shown(case, TESTED))
    found = model.eval()(_shown(case, TESTED))
    said = {f"z.{i}": v for i, v in enumerate(z)}
    said |= {f"log_det.{i}": v for i, v in enumerate(log_det)}
    return drawn | said | {"score": found.pred_score[:, 0], "map": found.anomaly_map[:, 0]}


def _cflow(case: FlowCase, tested: Arrays) -> dict[str, Any]:
    import torch
    from anomalib.models.image.cflow.torch_model import CflowModel
    from anomalib.models.image.cflow.utils import cflow_head, positional_encoding_2d
    from torch import nn

    model = CflowModel("resnet18", case.layers, pre_trained=False)
    model.decoders = nn.ModuleList(
        cflow_head(model.condition_vector, case.steps, 1.9, channels, case.soft)
        for channels in case.channels
    )
    drawn = _filled(model.decoders)
    model.encoder = _network(tested)
    said = {}
    for level, maps in enumerate(tested.values()):
        place = positional_encoding_2d(model.condition_vector, *maps.shape[2:])
        rows = torch.from_numpy(maps).permute(0, 2, 3, 1).flatten(0, 2)
        places = place.permute(1, 2, 0).flatten(0, 1).repeat(TESTED, 1)
        said[f"z.{level}"], said[f"log_det.{level}"] = model.decoders[level](rows, [places])
    found = model(_shown(case, TESTED))
    return drawn | said | {"score": found.pred_score, "map": found.anomaly_map}


def record(folder: Path) -> None:
    """Write the fixtures, in the interpreter that has anomalib."""
    import torch

    if metadata.version("anomalib") != VERSION:
        raise SystemExit(f"anomalib {metadata.version('anomalib')}, not {VERSION}")
    torch.set_num_threads(1)
    for name, case in CASES.items():
        torch.manual_seed(0)
        with torch.inference_mode():
            arrays = recorded(case)
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    for name, flow in FLOWS.items():
        torch.manual_seed(0)
        np.random.seed(0)  # scipy's, which draws rotations
        with torch.no_grad():
            arrays = recorded_flow(flow)
        np.savez_compressed(folder / f"{name}.npz", **arrays)


def main() -> None:
    """Have the other interpreter record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="the interpreter that has anomalib")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return
    if not options.python:
        parser.error("--python is needed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [options.python, "-I", __file__, "--record", str(FOLDER)]
    subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
