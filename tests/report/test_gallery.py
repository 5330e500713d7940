"""Which figures there are of stored runs, what they say, and that they hold no pixels unasked."""

import re
from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.configurations import StoredRuns
from bench.report.figures import ranks
from bench.report.figures import scores as score_figures
from bench.report.figures.clusters import VERSIONS
from bench.report.gallery import SECTIONS, draw_figures
from bench.report.pictures import Pictures
from bench.store.archive import pack
from bench.store.open import open_results
from bench.store.results import receipts
from tests.fixtures.figures import HOSTILE, checked
from tests.fixtures.gallery import (
    AUGMENTED,
    CUTMIX,
    FILES,
    KINDS,
    LABEL,
    RAW,
    ROLE,
    TRAINED,
    filled,
    publish,
    scores,
    sources_of,
)
from tests.fixtures.runs import SPEC, TOOK, receipt_of, staged, store_at


@pytest.fixture
def store(tmp_path):
    return filled(tmp_path / "results")


def all_of(results, pictures=None):
    return list(draw_figures(sources_of(results, pictures)))


def one_of(results, begins, pictures=None):
    (found,) = [d for d in all_of(results, pictures) if d.slug.startswith(begins)]
    return found


def test_every_figure_has_a_key_of_its_own_a_section_words_and_a_safe_picture(store):
    found = all_of(store, Pictures(None))
    keys = [d.slug for d in found]
    assert len(keys) == len({*keys})
    assert all(re.fullmatch("[a-z0-9-]+", k) for k in keys)
    sections = [d.section for d in found]
    assert [*dict.fromkeys(sections)] == [
        "ablation", "zoom", "crops", "clusters", "scores", "shots", "defects",
    ]  # fmt: skip
    assert sections == sorted(sections, key=[s.key for s in SECTIONS].index)
    for drawing in found:
        checked(drawing.svg)
        assert drawing.title
        assert re.search(r"\d\.\d\d", drawing.alt), drawing.alt
        assert re.search(r"\d", drawing.note), drawing.note
        assert len(drawing.note) < 300, "numbers stand in a table"
        for table in drawing.numbers:
            assert table.rows
            assert {len(row) for row in table.rows} == {len(table.columns)}
            assert any(re.search(r"\d", value) for value in table.rows[0][1:])
        assert drawing.numbers
        assert "weave" in drawing.title + drawing.alt
    ids = re.findall(r' id="([^"]*)"', "".join(d.svg for d in found))
    assert len(ids) == len({*ids}), "an id twice on a page"


def test_the_same_runs_give_the_same_bytes_from_a_folder_and_an_archive(store, tmp_path):
    pack(store, tmp_path / "archive")
    drawn = all_of(store, Pictures(None))
    points = [figure.points() for figure in drawn if figure.points]
    assert points
    for results in (store, open_results(tmp_path / "archive")):
        again = all_of(results, Pictures(None))
        assert again == drawn
        assert [figure.points() for figure in again if figure.points] == points


def test_without_runs_there_are_no_figures(tmp_path):
    assert all_of(store_at(tmp_path / "none")) == []
    only = store_at(tmp_path / "only", SPEC)
    assert all_of(only) == [], "the reference method alone is nothing to look at"


def test_the_zoom_says_what_it_holds_of_defects_where_they_are_marked(store):
    assert "of a defect" not in str(one_of(store, "zoom-").numbers)
    marked = store_at(store.root.parent / "marked")
    publish(marked, TRAINED, metrics={"box_recall": 0.527, "box_recall_by_chance": 0.441}, seed=0)
    assert one_of(marked, "zoom-").numbers[1].rows[-2:] == (
        ("share of a defect’s pixels that the zoomed view holds, mean", "53%"),
        ("the same of a box of its size at a random place", "44%"),
    )


def test_no_pixels_of_images_without_the_data(store):
    theirs = replace(TRAINED, dataset="mine", category="mine", fingerprint="f" * 64)
    publish(store, theirs, seed=7)
    for pictures in (None, Pictures(None)):
        by_key = {d.slug: d for d in all_of(store, pictures)}
        for kind in ("zoom", "crops"):
            drawing = by_key[f"{kind}-mine-10-shots"]
            assert "image/jpeg" not in drawing.svg
            assert "image/png" in drawing.svg
            assert "their maps stand alone" in drawing.note
            has = "image/jpeg" in by_key[f"{kind}-synthetic-weave-10-shots"].svg
            assert has == (pictures is not None)


def test_crops_name_the_cases_that_the_rule_chooses(store):
    crops = one_of(store, "crops", Pictures(None))
    of = scores(0)
    counted = [i for i, role in enumerate(ROLE) if role == "test"]
    best = max((i for i in counted if LABEL[i]), key=lambda i: of.score[i])
    worst = min((i for i in counted if LABEL[i]), key=lambda i: of.score[i])
    alarm = max((i for i in counted if not LABEL[i]), key=lambda i: of.score[i])
    beaten = sum(bool(of.score[best] > of.score[i]) for i in range(4))
    told = (
        f"highest-scored anomaly ({KINDS[best]}), {of.score[best]:.2f}, above {beaten} of 4 normals"
    )
    assert told in crops.alt
    assert f"lowest-scored anomaly ({KINDS[worst]}), {of.score[worst]:.2f}" in crops.alt
    assert f"highest-scored normal, {of.score[alarm]:.2f}" in crops.alt
    for i in (best, worst, alarm):
        assert FILES[i] in str(crops.numbers)
    assert FILES[9] not in str(crops.numbers), "it was drawn for training"


def test_runs_that_keep_other_maps_give_no_such_figure(tmp_path):
    there = store_at(tmp_path)
    publish(there, TRAINED, seed=0, zoomed=False)
    assert not [d for d in all_of(there) if d.section in ("zoom", "crops")]


def test_clusters_set_the_three_versions_beside_each_other_on_one_seed(store):
    drawing = one_of(store, "clusters")
    order = [drawing.alt.index(name) for name in ("CutMix", "whole image only", "and ATAC-Net")]
    assert order == sorted(order)
    assert drawing.note.startswith("9 test images;")
    assert [row[0] for row in drawing.numbers[0].rows] == [name for name, *_ in VERSIONS]
    assert "not stored" not in str(drawing.numbers)
    assert "Seed 0." in drawing.note
    assert "No run of" not in drawing.note


def test_too_few_images_make_no_clusters(tmp_path):
    there = store_at(tmp_path)
    few = replace(scores(), role=("duplicate",) * 3 + ("test",) * 6 + ("drawn",))
    publish(there, TRAINED, few, seed=0)
    assert not [d for d in all_of(there) if d.section == "clusters"]


def test_a_version_without_embeddings_is_named(tmp_path):
    there = store_at(tmp_path, CUTMIX)
    publish(there, TRAINED, seed=0)
    drawing = one_of(there, "clusters")
    expected = "No run of CutMix (cross-entropy) and ATAC-Net, whole image only keeps embeddings."
    assert expected in drawing.note
    assert sorted(row[1] == "not stored" for row in drawing.numbers[0].rows) == [False, True, True]


def test_the_numbers_are_those_of_the_receipts(store):
    drawing = one_of(store, "roc-synthetic-weave-10-shots")
    found = [
        r.metrics.auroc
        for r in receipts(store)
        if r.spec.shots == 10 and r.spec.parameters.get("view") == "attention"
    ]
    assert f"ATAC-Net {np.mean(found):.3f} (2 seeds)" in drawing.alt


def test_the_ablation_by_hand(store):
    def of(view):
        return np.array([
            next(r.metrics.auroc for r in receipts(store)
                 if r.spec.seed == seed and r.spec.parameters.get("view") == view
                 and r.spec.shots == 10 and r.spec.method == "atacnet")
            for seed in range(2)
        ])  # fmt: skip

    gaps = of("attention") - of("raw_augmented")
    half = 12.7062 * gaps.std(ddof=1) / 2**0.5  # the t-quantile of one degree of freedom
    mean, low, high = gaps.mean(), gaps.mean() - half, gaps.mean() + half
    alt = one_of(store, "abl").alt
    assert f"box of the attention {mean:+.3f} [{low:+.3f}, {high:+.3f}], with images [" in alt


def test_the_ablation_shows_what_the_attention_block_and_a_random_box_do(store):
    other = {"view": "random"}, {"attention": False}, {"view": "random", "attention": False}
    for i, changes in enumerate(other):
        spec = replace(TRAINED, parameters={**TRAINED.parameters, "attention": True, **changes})
        publish(store, spec, scores(40 + i))
    drawing = one_of(store, "abl")
    rows = re.findall(r"(?:: |; )([^;:]+?) [+-]\d", drawing.alt)
    assert rows == [
        "box of the attention", "box of that size, random place", "no second view",
        "box of the attention, no attention block",
        "box of that size, random place, no attention block",
        "box of the attention against the random one",
    ]  # fmt: skip
    first = {
        (p.get("view"), p.get("attention")): r.metrics.auroc
        for r in receipts(store)
        if r.spec.seed == 0 and r.spec.shots == 10
        for p in [r.spec.parameters]
    }
    gap = first["attention", None] - first["random", True]
    assert f"against the random one {gap:+.3f}, 1 seed" in drawing.alt


def test_shots_and_types_are_shown_where_there_are_several(store, tmp_path):
    assert "with 1 shot and" in one_of(store, "shots").alt
    assert "cut (n=3)" in one_of(store, "defects").alt
    assert "stain (n=2)" in one_of(store, "defects").alt
    single = store_at(tmp_path / "single", TRAINED)  # of fixture scores with one type
    assert {d.section for d in all_of(single)} == {"scores"}


def place(i):
    return {"dataset": "mvtec_ad", "category": f"c{i}"}


def test_ranks_come_with_ten_places_and_name_who_is_kept_out(tmp_path):
    there = store_at(tmp_path)
    for i in range(10):
        methods = ("atacnet", "devnet", "dra", "shortcut") + (("saoe",) if i else ())
        for shift, method in enumerate(methods):
            spec = replace(TRAINED, **place(i), method=method, parameters={})
            publish(there, spec, scores(i, shift=1.5 * shift))
            if method == "devnet":  # another way to run it, at one place only
                publish(there, replace(spec, parameters={"lr": 2e-4}) if i == 3 else
                        replace(spec, seed=1), scores(i, shift=1.5))  # fmt: skip
        if i == 8:
            assert not ranks.plans(StoredRuns(there, tuple(receipts(there))))
    (plan,) = ranks.plans(StoredRuns(there, tuple(receipts(there))))
    drawing = plan()
    assert "Kept out for missing places: SAOE (9 of 10)." in drawing.note
    assert drawing.title.startswith("Ranks across 10 datasets")
    assert re.search(r"Mean ranks: DRA 1\.\d\d, DevNet \d\.\d\d and ATAC-Net", drawing.alt)


def test_the_room_of_a_page_is_kept_and_what_is_left_out_is_said(tmp_path, monkeypatch):
    kinds = score_figures.SECTION.kinds
    monkeypatch.setitem(kinds, "histograms", kinds["histograms"]._replace(most=2))
    there = store_at(tmp_path, *(replace(TRAINED, **place(i)) for i in range(5)))
    found = [d for d in all_of(there) if d.slug.startswith("scores")]
    assert [d.slug for d in found] == [f"scores-mvtec-ad-c{i}-10-shots" for i in range(2)]
    assert "left out" not in found[0].note
    assert found[1].note.endswith("3 more figures of this kind could be drawn of these runs and are"
                                  " left out.")  # fmt: skip


def test_a_full_page_stays_below_four_megabytes(tmp_path):
    """Each kind of figure at its largest, as often as there is room for it."""
    there = store_at(tmp_path)
    methods = ("atacnet", "devnet", "dra", "saoe", "cutmix", "shortcut")
    for method in methods:
        for seed in range(2):
            spec = replace(TRAINED, method=method, seed=seed)
            publish(there, spec, seed=seed)
            publish(there, replace(spec, shots=1))
        timing = replace(TRAINED, method=method, kind="timing")
        taken = {**TOOK, "latency_s": 0.1, "latency_low_s": 0.09, "latency_high_s": 0.2}
        there.publish(staged(there, timing, scores()), receipt_of(timing, scores(), timings=taken))
    publish(there, RAW, seed=5)
    publish(there, AUGMENTED)
    kinds = {"scores": "histograms"}
    largest: dict[str, int] = {}
    for drawing in all_of(there, Pictures(None)):
        kind = drawing.slug.partition("-")[0]
        whole = len(drawing.svg) + len(drawing.note) + len(drawing.alt)
        largest[kinds.get(kind, kind)] = max(largest.get(kinds.get(kind, kind), 0), whole)
    most = {name: kind.most for s in SECTIONS for name, kind in s.kinds.items()}
    assert most.keys() - largest.keys() == {"ranks"}
    assert sum(most[kind] * size for kind, size in largest.items()) < 4e6


def test_hostile_names_stay_names(tmp_path):
    of = replace(scores(), file=tuple(f"{HOSTILE}{i}" for i in range(10)),
                 defect=tuple(d if d == "good" else HOSTILE + d for d in KINDS))  # fmt: skip
    named = replace(TRAINED, dataset=HOSTILE, category=HOSTILE + "/")
    methods = (named, replace(named, method=HOSTILE), replace(named, shots=1))
    there = store_at(tmp_path, *methods, scores=of)
    found = all_of(there)
    assert {d.section for d in found} >= {"scores", "shots", "defects"}
    for drawing in found:
        assert "<script" not in checked(drawing.svg)
        assert "<img" not in drawing.svg
        assert re.fullmatch("[a-z0-9-]+", drawing.slug)


def test_names_that_differ_only_in_what_a_key_leaves_out_have_two_keys(tmp_path):
    names = [replace(TRAINED, dataset=d, category=d) for d in ("a_b", "a-b")]
    keys = [d.slug for d in all_of(store_at(tmp_path, *names)) if d.slug.startswith("roc")]
    assert keys == ["roc-a-b-10-shots", "roc-a-b-10-shots-2"]
