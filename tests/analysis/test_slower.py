"""Times of a night beside earlier ones."""

import pytest

from bench.analysis.slower import slower

STEADY = {"latency_s": 0.010, "latency_s ratio": 2.0, "peak_memory_bytes": 1e9}
EARLIER = [
    {"devnet": {**STEADY, "latency_s": 0.010 + shift, "latency_s ratio": 2.0 + 100 * shift}}
    for shift in (-0.0001, 0.0, 0.0001)
]


def now(**changes):
    return {"devnet": {**STEADY, **changes}}


def grown(times, again=None, earlier=EARLIER):
    return [(s.what, s.confirmed) for s in slower(times, earlier, again)]


TWICE = {"latency_s": 0.020, "latency_s ratio": 4.0}


def test_time_and_ratio_must_both_have_grown():
    assert grown(now()) == []
    assert grown(now(latency_s=0.020)) == [], "the machine is slower, the method is not"
    assert grown(now(**{"latency_s ratio": 4.0})) == [], "the reference pass is quicker"
    assert grown(now(**TWICE)) == [("time of an image", None)]


def test_a_second_look_confirms_or_does_not():
    assert grown(now(**TWICE), now(**TWICE)) == [("time of an image", True)]
    assert grown(now(**TWICE), now()) == [("time of an image", False)]
    assert grown(now(**TWICE), {}) == [("time of an image", False)]


@pytest.mark.parametrize(("growth", "alarms"), [(1.07, 0), (1.10, 1)])
def test_a_time_may_grow_by_8_percent(growth, alarms):
    times = now(latency_s=0.010 * growth, **{"latency_s ratio": 2.0 * growth})
    assert len(grown(times)) == alarms


def test_it_may_grow_by_more_where_earlier_nights_differ_more():
    restless = [now(latency_s=x, **{"latency_s ratio": 200 * x}) for x in (0.009, 0.010, 0.011)]
    times = {"latency_s": 0.013, "latency_s ratio": 2.6}
    assert grown(now(**times), earlier=restless) == []
    assert len(grown(now(**times))) == 1


def test_memory_has_no_noise_and_that_of_a_gpu_comes_first():
    assert grown(now(peak_memory_bytes=1.04e9)) == []
    assert grown(now(peak_memory_bytes=1.06e9)) == [("memory", None)]
    both = now(peak_memory_bytes=2e9, peak_gpu_memory_bytes=2e9)
    earlier = [now(peak_gpu_memory_bytes=1e9)]
    assert grown(both, earlier=earlier) == [("GPU memory", None)]


def test_without_earlier_nights_nothing_is_said():
    assert grown(now(**TWICE), earlier=[]) == []
    assert grown({"other": TWICE}) == []
    assert (
        str(slower(now(**TWICE), EARLIER)[0]) == "devnet: time of an image +100%, not confirmed yet"
    )
