"""Runs on other images are other rows: never averaged, never paired."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest

from bench.analysis.configurations import StoredRuns
from bench.analysis.summary import differences, tabulate
from bench.analysis.timings import clocks, same_but_length
from bench.published.tables import published_tables
from bench.spec import RunSpec
from bench.store.configuration_names import shortened
from bench.store.results import receipts
from tests.fixtures.runs import SCORES, SPEC, STARTED, receipt_of, store_at
from tests.fixtures.times import timed

BASE = replace(
    SPEC, method="atacnet", setting="hard", seen_defect="crack", precision="float32", batch_size=16,
    backbone="resnet50", stage=3, weights="a" * 64, external="textures:" + "b" * 64,
    method_source="mine:Net@" + "c" * 64, parameters={"lr": 1e-3}, masks="d" * 64,
    draw_seed=7,
)  # fmt: skip
"""A spec in which no field is empty."""
OTHER = "9" * 64
OLDER, NEWER = replace(SPEC, fingerprint="d" * 64), replace(SPEC, fingerprint="e" * 64)
CONTENT = {s: f"head_ct (content {s.fingerprint[:8]})" for s in (OLDER, NEWER)}


def changes_of(spec):
    """Yield, for each field but the seed, specs that differ in it alone."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name == "parameters":
            yield field.name, replace(spec, parameters={"lr": 1e-4})
        elif isinstance(value, str) and value.endswith("c" * 8):
            yield field.name, replace(spec, method_source="mine:Net@" + "c" * 40 + "d" * 24)
            yield field.name, replace(spec, method_source="mine:Other@" + "c" * 64)
        elif isinstance(value, str) and len(value) >= 64:
            yield field.name, replace(spec, **{field.name: value[:-1] + "9"})
            yield field.name, replace(spec, **{field.name: value[:-64] + OTHER})
        elif isinstance(value, str) and field.name not in ("kind", "setting"):
            yield field.name, replace(spec, **{field.name: "other"})
        elif isinstance(value, int) and field.name != "seed":
            yield field.name, replace(spec, **{field.name: value + 1})
    yield "setting", replace(spec, setting="general", seen_defect=None)
    yield "precision", replace(spec, precision=None)
    yield "masks", replace(spec, masks=None)
    yield "draw_seed", replace(spec, draw_seed=None)


def test_every_field_but_the_seed_is_changed():
    changed = {name for name, _ in changes_of(BASE)} | {"kind", "seed"}
    given = {f.name for f in fields(RunSpec) if getattr(BASE, f.name) is not None}
    assert changed == given


@pytest.mark.parametrize(("field", "other"), list(changes_of(BASE)))
def test_runs_that_differ_in_more_than_the_seed_never_share_a_cell(field, other):
    runs = [receipt_of(replace(spec, seed=seed)) for spec in (BASE, other) for seed in (0, 1)]
    cells = tabulate(runs, {}).cells
    assert len(cells) == 2, field
    assert all(set(by_seed) == {0, 1} for by_seed in cells.values())
    stored = StoredRuns(None, tuple(runs))
    shown = {(key, c.label): c.row for key, group in stored.groups.items() for c in group}
    assert set(shown.values()) == {replace(s, seed=0) for s in (BASE, other)}, field


def test_all_of_them_together_have_names_of_their_own():
    specs = [BASE, *(other for _, other in changes_of(BASE))]
    assert len(tabulate(map(receipt_of, specs), {}).cells) == len(specs)


def test_no_draws_are_averaged_and_plain_runs_keep_their_name():
    crossed = [replace(SPEC, seed=s, draw_seed=d) for d in range(3) for s in range(3)]
    table = tabulate(map(receipt_of, crossed), {})
    seeds = {column: sorted(by_seed) for (_, column), by_seed in table.cells.items()}
    assert seeds == {
        "shortcut": [0, 1, 2], "shortcut draw_seed=0": [1, 2], "shortcut draw_seed=1": [0, 2],
        "shortcut draw_seed=2": [0, 1],
    }  # fmt: skip
    assert tabulate([receipt_of(crossed[1])], {}).columns == ("shortcut draw_seed=0",)
    stored = StoredRuns(None, tuple(receipt_of(s) for s in crossed if s.draw_seed is not None))
    ((place, shots, method),) = stored.groups
    table_1 = published_tables()["atacnet_table1"]
    shown, *others = stored.configurations(place, shots, method, "auroc", table_1)
    assert len(others) == 2, "no plain run: a row for each draw"
    assert all("one draw of anomalies for all seeds: draw_seed" in c.departures[-1]
               for c in (shown, *others))  # fmt: skip
    plain = [receipt_of(replace(SPEC, image_size=32))]  # departs from what is stated
    stored = StoredRuns(None, (*stored.receipts, *plain))
    shown = stored.configurations(place, shots, method, "auroc", table_1)[0]
    assert shown.row.draw_seed is None


def test_a_timing_of_one_draw_is_beside_no_other():
    rows = {same_but_length(replace(SPEC, seed=9, draw_seed=d).row) for d in (None, 0, 1)}
    assert len(rows) == 3


def test_a_table_gives_each_content_a_row_and_overwrites_no_seed(tmp_path):
    better = replace(SCORES, score=SCORES.score[::-1].copy())
    store = store_at(tmp_path, *(replace(OLDER, seed=s) for s in range(3)))
    store_at(tmp_path, *(replace(NEWER, seed=s) for s in range(2)), scores=better)
    table = tabulate(receipts(store), {})
    assert [row for row, _ in table.rows] == [CONTENT[OLDER], CONTENT[NEWER]]
    by_row = {row: list(by_seed.values()) for ((row, _), _), by_seed in table.cells.items()}
    assert by_row == {CONTENT[OLDER]: [0.75] * 3, CONTENT[NEWER]: [0.0] * 2}


def test_no_difference_is_paired_over_different_images():
    rival = replace(NEWER, method="padim")
    runs = [receipt_of(replace(s, seed=i)) for s in (OLDER, rival) for i in range(3)]
    assert differences(tabulate(runs, {}), "shortcut", None) == {}
    both = StoredRuns(None, (timed(OLDER, 0.1), timed(rival, 0.1)))
    assert [len(rows) for rows in clocks(both).values()] == [1, 1]


def finished(spec, hours):
    moment = STARTED + timedelta(hours=hours)
    return receipt_of(spec, started_at=moment, finished_at=moment)


def plain(stored):
    """Return the content that keeps the place's name."""
    return [spec for spec in (OLDER, NEWER) if stored.place.is_preferred(spec)]


def test_the_content_of_the_newest_run_keeps_the_name_of_the_place():
    runs = (finished(replace(OLDER, seed=1), 1), finished(OLDER, 2), finished(NEWER, 3))
    stored = StoredRuns(None, runs)
    assert plain(stored) == [NEWER]
    assert stored.place(NEWER) == ("head_ct", "head_ct")
    assert stored.place(OLDER) == ("head_ct", "head_ct (content dddddddd)")
    assert stored.place.others(NEWER) == ["content dddddddd"]


def test_the_content_in_the_data_folder_goes_before_the_newest_run():
    runs = (finished(OLDER, 1), finished(NEWER, 2))
    asked = []

    def present(*data):
        asked.append(data)
        return OLDER.fingerprint

    assert plain(StoredRuns(None, runs, present)) == [OLDER]
    assert asked == [("head_ct", "head_ct")]
    assert StoredRuns(None, runs[:1], present).place(OLDER) == ("head_ct", "head_ct")
    assert len(asked) == 1, "one content asks for no look into the folder"


def test_a_newer_version_of_the_data_goes_before_all():
    runs = (finished(replace(OLDER, data_version=2), 1), finished(NEWER, 2), finished(OLDER, 3))
    stored = StoredRuns(None, runs, lambda *_: NEWER.fingerprint)
    assert stored.place(OLDER)[1] == "head_ct (content dddddddd, data version 1)"
    assert stored.place(replace(OLDER, data_version=2))[1] == "head_ct"


def test_receipts_that_do_not_say_when_they_were_made_count():
    old = [replace(receipt_of(s), started_at=None, finished_at=None, schema=1)
           for s in (OLDER, NEWER, replace(OLDER, seed=1))]  # fmt: skip
    assert plain(StoredRuns(None, tuple(old))) == [OLDER], "the one of more runs"
    assert plain(StoredRuns(None, (*old, finished(NEWER, 1)))) == [NEWER]


def test_a_digest_is_shortened_as_far_as_it_stays_apart():
    one, other = "a" * 12 + "b" * 52, "a" * 12 + "c" * 52
    assert shortened(one, (one, other)) == "a" * 12 + "b"
    assert shortened(one, (one,)) == "a" * 8
    assert shortened("ab", ("ab", "abc")) == "ab"


def test_external_images_of_each_place_make_no_column_of_their_own():
    """`mvtec_ad` gives each category the others' images: a digest for each place."""
    plain = replace(BASE, draw_seed=None)
    runs = [
        receipt_of(replace(plain, category=c, external="mvtec_ad:" + d * 64, seed=s))
        for c, d in (("one", "1"), ("two", "2"))
        for s in range(2)
    ]
    assert tabulate(runs, {}).columns == ("atacnet",)
    turned = receipt_of(replace(plain, category="one", external="mvtec_ad:" + "3" * 64 + ":turned"))
    columns = tabulate([*runs, turned], {}).columns
    assert set(columns) == {
        "atacnet", "atacnet external mvtec_ad 11111111", "atacnet external mvtec_ad 33333333",
    }  # fmt: skip


def test_a_variant_keeps_the_source_of_external_images():
    one, two = (
        StoredRuns(None, (receipt_of(replace(BASE, external=f"{name}:" + "1" * 64)),))
        for name in ("textures", "mvtec_ad")
    )
    variants = {c.variant for s in (one, two) for (group,) in [s.groups.values()] for c in group}
    assert len(variants) == 2
