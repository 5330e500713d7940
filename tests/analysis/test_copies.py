"""Whose data are a copy that is not the official one."""

from dataclasses import replace

from bench.analysis.copies import copy_reasons
from bench.analysis.provenance import _data
from bench.store.groups import Provenance
from tests.fixtures.runs import HERE, SPEC, bench, publish, receipt_of


def run(dataset, reason):
    receipt = receipt_of(replace(SPEC, dataset=dataset, category=dataset))
    about = Provenance({**receipt.provenance, "unofficial_copy": reason})
    return replace(receipt, provenance=about)


def test_an_own_dataset_is_no_copy_whatever_older_runs_recorded():
    runs = [
        run("mvtec_ad", "256x256 px, not 900x900"),
        run("mvtec_ad", "256x256 px, not 900x900"),
        run("head_ct", ""),
        run("nuts", "not in the catalogue"),
    ]
    assert copy_reasons(runs) == ["256x256 px, not 900x900"]
    assert copy_reasons(runs[3:]) == []
    assert [_data(r)[2] for r in runs[1:]] == ["256x256 px, not 900x900", "official", "own dataset"]


def test_a_run_on_an_own_dataset_is_shown_as_that(store, capsys):
    for spec in (SPEC, replace(SPEC, dataset="nuts", category="nuts")):
        publish(store, spec, provenance={**HERE, "unofficial_copy": "64x64 px, not 128x128"})
    for dataset, line in (("head_ct", "unofficial_copy"), ("nuts", "own dataset")):
        run_id = replace(SPEC, dataset=dataset, category=dataset).run_id
        code, out, _ = bench(capsys, "show", run_id, "--results", store.root)
        assert code == 0
        assert (line in out, "own dataset" in out) == (True, dataset == "nuts")
