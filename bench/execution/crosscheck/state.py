"""Our detectors' states by the names that torchvision and anomalib use."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def network_of(state: Mapping[str, NDArray[Any]], backbone: str) -> Arrays:
    """Return a detector's network by torchvision's names."""
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    network = {}
    for key, array in state.items():
        if key.startswith("features.blocks."):
            block, _, rest = key.removeprefix("features.blocks.").partition(".")
            mobile = backbone.startswith("mobilenet")
            name = f"features.{block}" if mobile else names[int(block)]
            network[f"{name}.{rest}"] = np.ascontiguousarray(array)
    return network


def flows_of(state: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return a detector's flows by anomalib's names, `norm.` before those of normalisations.

    A permutation is a matrix there, whether hard or soft: output channel i is row i of the input.
    """
    flows: Arrays = {}
    for key, array in state.items():
        if not key.startswith("flows."):
            continue
        level, part, rest = key.removeprefix("flows.").split(".", 2)
        if part == "norm":
            flows[f"norm.{level}.{rest}"] = array
            continue
        step, _, name = rest.partition(".")
        block = f"{level}.module_list.{step}."
        if not name.startswith("permutation."):
            flows[block + name] = array
        elif not name.endswith(".inverse"):
            matrix = np.eye(len(array), dtype=np.float32)[array] if array.ndim == 1 else array
            flows[block + "w_perm"], flows[block + "w_perm_inv"] = matrix, matrix.T
    return flows
