"""A short campaign of kills; `nox -s campaigns` is the long one."""

from pathlib import Path

import pytest

from tests.campaigns.kill_campaign import TARGETS, campaign


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_whatever_is_killed_nothing_is_lost_or_invented_or_left_behind() -> None:
    with campaign(seed=1, seeds=1) as made:
        made.go(kills=len(TARGETS))
        assert made.kills == dict.fromkeys(TARGETS, 1)
        assert made.rounds >= 1
