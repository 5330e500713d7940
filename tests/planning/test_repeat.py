"""The suite that asks for a stored run again."""

from dataclasses import replace

import pytest

from bench.planning.matrix import Selection, expand
from bench.planning.plan import Folders, plan_runs
from bench.planning.repeat import suite_of
from bench.planning.suite import read_suite
from bench.weights import KNOWN

SUITE = """
methods = ["atacnet", "padim", "shortcut"]
data = ["synthetic/washer"]
shots = [1, 10]
seeds = 2
draw_seeds = 2
[set]
image_size = 64
weights = "none"
external = "none"
"""


def test_the_suite_of_a_run_asks_for_that_run_alone(tmp_path, warm_cache, registry):
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)

    def planned(text, seeds=None):
        (tmp_path / "s.toml").write_text(text)
        suite = read_suite(str(tmp_path / "s.toml"))
        return plan_runs(expand(suite, Selection(seeds=seeds), registry, tmp_path), folders).runs

    runs = planned(SUITE) + planned(SUITE.replace("draw_seeds = 2", 'setting = "hard"'))
    assert len(runs) > 20
    for run in runs:
        (again,) = planned(suite_of(run.spec), (run.spec.seed,))
        assert again.run_id == run.run_id, suite_of(run.spec)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (next(k.sha256 for k in KNOWN if k.stages == 3), 'weights = "imagenet"'),
        ("5" * 64, '# weights = "FILE": the file whose sha256 begins with 55555555'),
        ("none", 'weights = "none"'),
    ],
)
def test_weights_are_named_as_a_suite_names_them(plan, weights, said):
    assert said in suite_of(replace(plan.runs[0].spec, weights=weights)).splitlines()
