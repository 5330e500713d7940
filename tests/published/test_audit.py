"""Each finding, pinned to the figures that a reader found by hand in the tables."""

from decimal import Decimal

import pytest

from bench.published.tables import Key, published_tables
from tests.fixtures.audit import FOUND, evidence


def rows(key):
    return [line.partition(":")[0] for line in FOUND[key].evidence]


# Means


def test_the_wrong_mean_stands_in_three_papers():
    line = (
        "mean of SAOE, ten shots: published 0.926, its rows give 0.92533; their rounding gives it"
        " in 0.8 % of cases"
    )
    assert evidence("atacnet_table1-inherited-dra_table1") == [line]
    assert evidence("dra_table1-means") == [line]
    assert "10 of 11" in FOUND["dra_table1-means"].text
    assert "has SAOE's mean at ten shots as 0.926 too" in FOUND["dra-mean"].text


def test_spades_means_are_of_pixels():
    assert [line.rpartition(" ")[2] for line in evidence("atacnet_table2-pixels-spade")] == [
        "0.9294",
        "0.9757",
    ]
    assert "over textures and objects" in FOUND["atacnet_table2-pixels-spade"].text
    assert "restated" in FOUND["atacnet_table2-pixels-spade"].confidence


def test_means_that_do_not_fit_each_other():
    spade, padim = evidence("atacnet_table2-at-odds")
    assert spade.endswith("give 0.960 over all, published 0.854")
    assert padim.endswith("give 0.970 over all, published 0.948")


def test_means_of_the_sources():
    assert FOUND["spade_paper_pixels-means"].text == (
        "The published mean does not follow from its rows."
    )
    assert evidence("spade_paper_pixels-means") == [
        "mean of SPADE: published 0.965, its rows give 0.96027; their rounding cannot give it"
    ]
    assert evidence("ahl_table7-means") == [], "the rounding of its rows gives each"


def test_printed_means_that_were_read_are_those_of_the_table():
    published = {
        k.method: str(p.value)
        for k, p in published_tables()["atacnet_table2"].cells.items()
        if k.category == "mean"
    }
    told = dict(line.split(":", 1) for line in evidence("table2-own-means"))
    for name, method in (
        ("Patch-SVDD", "patchsvdd"),
        ("SPADE", "spade"),
        ("MemSeg", "memseg"),
        ("PaDiM, Wide ResNet-50", "padim"),
        ("PatchCore, Wide ResNet-50", "patchcore"),
    ):
        assert told[name].endswith(f"{published[method]} here")
    assert evidence("table2-padim-means")[0] == "published 0.959 and 0.975"


# Copies


@pytest.mark.parametrize(
    ("key", "count", "unequal"),
    [
        ("table1-copied-devnet-dra-saoe", "100 of 102 numbers (106 of 108 with the means)",
         ["leather, SAOE, one shot: published 0.993, there 0.996",
          "brain_mri, SAOE, one shot: published 0.532, there 0.531"]),
        ("table2-copied-spade", "15 of 15 ", []),
        ("table2-copied-patchsvdd", "15 of 15 ", []),
        ("table2-copied-padim", "12 of 15 ", ["carpet, PaDiM: published 0.988, there 0.995",
         "leather, PaDiM: published 0.996, there 1.000",
         "bottle, PaDiM: published 0.991, there 0.999"]),
        ("table2-copied-patchcore", "12 of 15 ", ["wood, PatchCore: published 0.991, there 0.989",
         "pill, PatchCore: published 0.920, there 0.924",
         "zipper, PatchCore: published 0.985, there 0.982"]),
        ("table2-copied-atacnet", "15 of 15 numbers (16 of 16 with the means)", []),
    ],
)  # fmt: skip
def test_copied_columns_are_told_with_what_differs(key, count, unequal):
    found = FOUND[f"atacnet_{key}"]
    assert found.text.startswith(count)
    assert list(found.evidence) == unequal


def test_what_a_copied_column_says_of_itself_is_told():
    found = FOUND["atacnet_table1-copied-devnet-dra-saoe"].text
    assert "ResNet-18, 448 or 224 px" in found
    assert "standard deviations published there are left out" in found
    assert "standard deviations" not in FOUND["atacnet_table2-copied-spade"].text
    assert "ResNet-18, 448 or 224 px" in FOUND["table1-protocol"].text
    assert "restated" in FOUND["atacnet_table2-copied-patchsvdd"].confidence


def test_anomaly_types_are_those_of_the_datasets():
    found = FOUND["atacnet_table1-anomaly-types"]
    assert "in 17 of 17 rows; over MVTec AD they sum to 73" in found.text
    assert not found.evidence


# Claims


def test_others_beat_it_in_its_own_table():
    text = FOUND["atacnet_table1-beaten"].text
    assert "in 13 of 17 at one shot and in 13 of 17 at ten shots" in text
    assert rows("atacnet_table1-beaten") == [
        "one shot, carpet",
        "one shot, grid",
        "one shot, pill",
        "one shot, screw",
        "ten shots, carpet",
        "ten shots, wood",
        "ten shots, capsule",
        "ten shots, toothbrush",
    ]
    assert "DevNet 0.999, DRA 0.998" in evidence("atacnet_table1-beaten")[5]


def test_it_has_the_highest_means_of_table_1_as_the_text_says():
    cells = published_tables()["atacnet_table1"].cells
    for shots in (1, 10):
        by_method = {
            k.method: p.value for k, p in cells.items() if k.category == "mean" and k.shots == shots
        }
        assert max(by_method, key=by_method.__getitem__) == "atacnet"


def test_against_dra_it_wins_ties_and_loses():
    one, ten = (FOUND[f"atacnet_table1-duel-dra-{s}"] for s in (1, 10))
    assert "10 won, 1 tied, 4 lost; the mean lead is 0.019" in one.text
    assert "is 0.008 for the mean and up to 0.068 for a category (transistor)" in one.text
    assert "6 of the 10 wins" in one.text
    assert list(one.evidence) == ["within it: leather, tile, wood, zipper, hazelnut, metal_nut"]
    assert "8 won, 4 tied, 3 lost; the mean lead is 0.014" in ten.text
    assert "is 0.003 for the mean and up to 0.027 for a category (carpet)" in ten.text


def test_toothbrush_gains_next_to_nothing():
    found = FOUND["atacnet_table1-gain-toothbrush"]
    assert "gains 0.015 from ten times the labels, every other method 0.107 or more" in found.text
    assert "CutMix column, which pastes too, is the best" in found.text
    assert "CutMix: 0.594 to 0.901" in found.evidence
    assert [k for k in FOUND if "-gain-" in k] == ["atacnet_table1-gain-toothbrush"]


def test_it_is_lowest_on_two_categories():
    text = FOUND["atacnet_table2-lowest"].text
    assert "lowest of the six methods on carpet and toothbrush" in text
    assert "in 6 of 15 categories" in text
    told = evidence("atacnet_table2-lowest")
    assert "capsule: ATAC-Net 0.934, PatchCore 0.982, MemSeg 0.993" in told
    assert "transistor: ATAC-Net 0.969, PaDiM 0.976, PatchCore 1.000, MemSeg 0.986" in told
    assert rows("atacnet_table2-lowest") == [
        "carpet",
        "capsule",
        "pill",
        "transistor",
        "cable",
        "toothbrush",
    ]


def test_the_columns_of_table_2_have_different_test_sets():
    told = evidence("atacnet_table2-test-sets")
    assert "toothbrush: 20 of 30 anomalous test images are left" in told
    assert "transistor: 30 of 40 anomalous test images are left" in told


def test_inference_times_are_told_as_what_they_are():
    assert evidence("atacnet_table2-times") == [
        "Patch-SVDD 480 ms, SPADE 339 ms, PaDiM 319 ms, PatchCore 225 ms, MemSeg 32 ms, "
        "ATAC-Net 29 ms"
    ]
    read = FOUND["table2-times"]
    assert "31.3 frames a second" in read.text  # 1000 / 31.3 = 32
    assert "SPADE 660 ms, PaDiM 190 ms; published here 339 and 319" in read.evidence[0]
    assert read.confidence == "restated by others"


def test_the_introductions_factor_is_counted():
    text = FOUND["introduction-ratio"].text
    assert "60 (toothbrush) to 391 (hazelnut)" in text
    assert "14 of 17 sets at one shot, and 6 to 39 at ten" in text


def test_one_number_is_above_four_of_five_columns():
    """The published numbers in what was measured are those of Table 1."""
    cells = published_tables()["atacnet_table1"].cells
    for line, place, best in zip(
        evidence("table1-one-number"), ("brain_mri", "head_ct"), (0.761, 0.805), strict=True
    ):
        for name, method in (
            ("DevNet", "devnet"),
            ("DRA", "dra"),
            ("SAOE", "saoe"),
            ("CutMix", "cutmix"),
            ("ATAC-Net", "atacnet"),
        ):
            value = cells[Key(place, place, 1, method, "image_auroc")].value
            assert f"{name} {value}" in line
            assert (value > best) == (method == "atacnet")
        assert f"{best:.3f}" in line


# Runs again


def test_the_same_code_differs_between_papers():
    text = FOUND["ahl_table7-rerun-gap"].text
    assert "of 68, 44 are within 0.01, 7 differ by more than 0.05, the widest by 0.367" in text
    assert rows("ahl_table7-rerun-gap") == [
        "screw, DevNet, one shot",
        "brain_mri, DevNet, one shot",
        "tile, DevNet, one shot",
        "toothbrush, DevNet, ten shots",
        "toothbrush, DRA, ten shots",
        "grid, DevNet, ten shots",
        "transistor, DRA, one shot",
    ]
    assert rows("ahl_table7-rerun-rivals-1") == ["carpet", "grid", "pill", "screw", "brain_mri"]
    assert rows("ahl_table7-rerun-rivals-10") == [
        "carpet",
        "grid",
        "wood",
        "toothbrush",
        "head_ct",
    ]
    assert "at one shot." in FOUND["ahl_table7-rerun-mean"].text
    assert evidence("ahl_table7-rerun-mean")[0] == "one shot: AHL(DRA) 0.901, ATAC-Net 0.901"


def test_what_a_third_party_measured_stands_beside_what_is_printed():
    cells = published_tables()["dra_table1"].cells
    for line in evidence("dra-rerun"):
        place = line.partition(":")[0]
        dataset = place if place in ("brain_mri", "head_ct") else "mvtec_ad"
        value = cells[Key(dataset, place, 10, "dra", "image_auroc")].value
        assert f"published {value}" in line
    assert "toothbrush: 0.838, with ResNet-50 0.825" in evidence("dra-rerun")[-1]
    assert "68 of 155 tumour and 12 of 98 normal" in FOUND["dra-files"].text


def test_slips_of_a_source_are_told():
    assert "0.978 in its Table 1 and 0.988 in its Table 7" in FOUND["ahl-slips"].text
    dra = published_tables()["ahl_table7"].cells[
        Key("head_ct", "head_ct", 10, "dra", "image_auroc")
    ]
    assert dra.value == Decimal("0.988")


# Text


def test_equation_12_is_worked_out():
    k = 10
    assert [k - abs(dev) for dev in (1, 10, 20, 100)] == [9, 0, -10, -90]
    assert evidence("equation-12") == [
        "k - |dev| with k = 10: 9 at dev 1, 0 at 10, -10 at 20, -90 at 100"
    ]


def test_what_is_only_remembered_or_unsure_stays_out():
    """MemSeg's numbers by category, and a citation that the scan may have damaged."""
    everything = " ".join(
        [f.text for f in FOUND.values()] + [line for f in FOUND.values() for line in f.evidence]
    )
    for what in ("[mem]", "9 of 15", "[1]", "Grad-CAM"):
        assert what not in everything
