from dataclasses import replace

import pytest

from bench.store.groups import Provenance
from bench.store.tuning import Tuned, tuned_settings, tuned_text, tuning_seeds
from tests.fixtures.runs import SPEC, receipt_of


def receipt(text):
    run = receipt_of(SPEC)
    return replace(run, provenance=Provenance({**run.provenance, "tuned": text}))


def test_tuned_settings_are_read_as_written():
    tuned = {"lr": Tuned((0,), "training loss"), "epochs": Tuned((1, 2), "training loss")}
    stored = receipt(tuned_text(tuned))
    assert tuned_settings(stored) == tuned
    assert tuning_seeds(stored) == {0, 1, 2}


def test_runs_without_tuned_settings_have_none():
    assert tuned_text({}) == ""
    assert tuning_seeds(receipt_of(SPEC)) == tuning_seeds(receipt("")) == frozenset()


@pytest.mark.parametrize("text", ["{", "3", '{"lr": 3}', '{"lr": {"seeds": 2, "by": "x"}}', "[]"])
def test_what_cannot_be_read_counts_as_none(text):
    assert tuned_settings(receipt(text)) == {}
