"""Fixtures of tests of methods."""

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch.utils._python_dispatch import _get_current_dispatch_mode


@pytest.fixture(autouse=True, scope="session")
def _networks_made_once() -> Iterator[None]:
    """Copy a network that was made from the same state of the random numbers: the same bits."""
    get_model = torchvision.models.get_model

    @functools.lru_cache(maxsize=6)
    def made(name: str, state: bytes) -> tuple[Any, Any]:
        return get_model(name, weights=None), torch.get_rng_state()

    def copied(name: str, weights: None = None) -> Any:
        if _get_current_dispatch_mode() is not None:  # tensors are faked or counted
            return get_model(name, weights=None)
        network, state_after = made(name, torch.get_rng_state().numpy().tobytes())
        torch.set_rng_state(state_after)
        return copy.deepcopy(network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", copied)
        yield
