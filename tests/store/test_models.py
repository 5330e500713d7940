"""Models on disk: what is written is read back, and nothing else is."""

import os

import numpy as np
import pytest

from bench.store.models import model_bytes, read_model


def test_a_model_keeps_names_shapes_types_and_strides() -> None:
    arrays = {
        "a.weight": np.arange(24.0, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        "count": np.array(3, np.int64),
        "pool": np.zeros((0, 3), np.uint8),
    }
    found = read_model(model_bytes(arrays))
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\xff" * 8, os.urandom(64)],
    ids=["empty", "zeros", "ones", "noise"],
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is no model"):
        read_model(content)
