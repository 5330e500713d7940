"""A short campaign of damages; `nox -s campaigns` is the long one."""

from tests.campaigns.corruption_campaign import campaign


def test_whatever_is_damaged_is_found_and_healed_and_changes_no_number() -> None:
    with campaign(seed=1, seeds=1) as made:
        made.go(damages=16)
        assert sum(made.done.values()) >= 16
        assert len(made.done) >= 3
