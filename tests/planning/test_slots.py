"""Slots: parallel jobs spread over devices and cores."""

import pytest

from bench.errors import RequestError
from bench.planning.slots import slots_for
from bench.system.host import cpu_count


@pytest.mark.parametrize(
    ("device", "slots", "gpus", "wanted"),
    [
        ("auto", 1, 0, ["cpu"]),
        ("auto", 1, 2, ["cuda:0", "cuda:1"]),
        ("cpu", 3, 2, ["cpu", "cpu", "cpu"]),
        ("cuda", 2, 2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("cuda:1", 1, 2, ["cuda:1"]),
    ],
)
def test_slots_are_spread_over_the_devices_and_share_the_cores(
    device: str, slots: int, gpus: int, wanted: list[str]
) -> None:
    found = slots_for(device, slots, gpus)
    assert [s.device for s in found] == wanted
    assert {s.threads for s in found} == {max(1, cpu_count() // len(wanted))}


@pytest.mark.parametrize(
    ("device", "gpus"), [("cuda", 0), ("cuda:2", 2), ("gpu", 1), ("cuda:x", 1)]
)
def test_a_device_that_is_not_there_is_refused(device: str, gpus: int) -> None:
    with pytest.raises(RequestError, match=f"--device {device}"):
        slots_for(device, 1, gpus)


def test_a_name_that_is_no_device_is_not_taken_for_a_missing_gpu() -> None:
    for device, why in (("cpuu", "no such device"), ("cuda:1", "torch sees 1 GPU;")):
        with pytest.raises(RequestError, match=f"--device {device}: {why}"):
            slots_for(device, 1, 1)


def test_no_slots_are_refused() -> None:
    with pytest.raises(RequestError, match="--slots"):
        slots_for("cpu", 0, 0)
