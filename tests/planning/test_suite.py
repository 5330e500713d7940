import re
from collections import Counter

import pytest

from bench.analysis.regress import LEAST_PAIRS
from bench.data.catalog import DATASETS, MVTEC_AD
from bench.errors import RequestError
from bench.planning.matrix import Selection, expand, select
from bench.planning.suite import read_suite, suite_names
from bench.registry import METHODS
from bench.store.tuning import Tuned
from tests.fixtures.suites import SMALL, of

# Suites that come with the project


@pytest.mark.parametrize("name", suite_names())
def test_a_packaged_suite_expands_to_different_cells_of_known_data(name, registry, tmp_path):
    suite = read_suite(name)
    cells = expand(suite, Selection(), registry, tmp_path)
    assert suite.description
    assert {c.dataset for c in cells} <= DATASETS.keys()
    run = (
        "kind", "method", "parameters", "settings", "dataset", "category", "shots", "seed",
        "draw_seed",
    )  # fmt: skip
    keys = of(cells, *run)
    assert len({repr(k) for k in keys}) == len(cells)


STATED = {"image_size": 224, "batch_size": 16, "backbone": "resnet50", "stage": 4,
          "precision": "float32", "weights": "imagenet", "resize": "bilinear"}  # fmt: skip
THEIRS = STATED | {"image_size": 448, "batch_size": 48, "backbone": "resnet18"}
LENGTH = {"epochs": 30, "steps_per_epoch": 0, "lr_step": 10, "lr_gamma": 0.1, "rotation": 180.0,
          "clip": 1.0, "weight_decay": 1e-5}  # fmt: skip
FULL = LENGTH | {"steps_per_epoch": 20, "scales": 2, "lr": 2e-4}


@pytest.mark.parametrize(
    ("suite", "method", "settings", "parameters"),
    [
        ("table1", "devnet", STATED, {
            **LENGTH, "lr": 2e-4, "margin": 5.0, "scales": 1, "pseudo": False,
        }),
        ("table1", "dra", STATED, {
            **LENGTH, "lr": 2e-4, "margin": 5.0, "scales": 1, "sampler": "halves",
            "reference_set": "fixed",
        }),
        ("table1", "saoe", STATED | {"external": "textures"}, {
            **LENGTH, "lr": 2e-4, "scales": 1, "sampler": "halves",
        }),
        ("table1", "cutmix", STATED, {**LENGTH, "lr": 1e-3}),
        ("table1", "atacnet", STATED, {
            **LENGTH, "lr": 1e-3, "margin": 10.0, "pseudo": True, "view": "attention",
        }),
        ("table1", "shortcut", {"image_size": 224}, {}),
        ("table1-published", "devnet", THEIRS, FULL | {
            "epochs": 50, "margin": 5.0, "pseudo": False,
        }),
        ("table1-published", "dra", THEIRS, FULL | {
            "margin": 5.0, "sampler": "thirds", "reference_set": "redrawn",
        }),
        ("table1-published", "saoe", THEIRS | {"external": "mvtec_ad"}, FULL | {
            "sampler": "thirds",
        }),
    ],
)  # fmt: skip
def test_table_1_runs_each_method_as_it_is_stated_or_published(
    suite, method, settings, parameters, registry, tmp_path
):
    for cell in expand(read_suite(suite), Selection(methods=(method,)), registry, tmp_path):
        assert settings.items() <= cell.settings.items()
        assert parameters.items() <= cell.parameters.items()
        assert cell.setting == "general"


@pytest.mark.parametrize(
    ("suite", "methods", "seeds"),
    [
        ("table1", {"devnet", "dra", "saoe", "cutmix", "atacnet", "shortcut"}, 5),
        ("table1-published", {"devnet", "dra", "saoe", "shortcut"}, 3),
    ],
)
def test_table_1_runs_these_methods_on_17_categories(suite, methods, seeds, registry, tmp_path):
    cells = expand(read_suite(suite), Selection(), registry, tmp_path)
    assert {c.method.name for c in cells} == methods
    assert {c.shots for c in cells} == {1, 10}
    assert {c.dataset for c in cells} == {"mvtec_ad", "brain_mri", "head_ct"}
    assert len(cells) == len(methods) * 17 * 2 * seeds


def test_the_ablation_has_every_row_and_what_the_claim_must_beat_on_every_axis(registry, tmp_path):
    cells = expand(read_suite("ablation"), Selection(seeds=1), registry, tmp_path)
    assert Counter(c.method.name for c in cells) == {"atacnet": 17 * 18, "shortcut": 17}
    found = {}
    for cell in (c for c in cells if c.dataset == "head_ct" and c.method.name == "atacnet"):
        told = cell.parameters
        axis = cell.settings["stage"], told["margin"], told["pseudo"], told["attention"]
        found.setdefault(axis, set()).add(told["view"])
        assert {k: told[k] for k in LENGTH} == LENGTH
    rows = {"raw", "raw_augmented", "random", "centre", "attention"}
    claim = {"raw_augmented", "random", "attention"}
    assert found == {
        (4, 10.0, True, True): rows, (3, 10.0, True, True): rows,
        (4, 10.0, True, False): {"attention"}, (3, 10.0, True, False): {"attention"},
        (4, 5.0, True, True): claim, (4, 10.0, False, True): claim,
    }  # fmt: skip


@pytest.mark.parametrize("suite", ["ablation", "ablation-stage3", "ablation-cpu"])
def test_an_ablation_has_every_row_at_each_place_and_no_control_that_is_an_identity(
    suite, registry, tmp_path
):
    cells = expand(read_suite(suite), Selection(seeds=1), registry, tmp_path)
    rows = {}
    for cell in (c for c in cells if c.method.name == "atacnet"):
        place = cell.dataset, cell.category
        rows.setdefault(place, set()).add((cell.parameters["view"], cell.parameters["attention"]))
    views = {(view, True) for view in ("raw", "raw_augmented", "random", "centre", "attention")}
    assert rows
    assert all(present == views | {("attention", False)} for present in rows.values())


TUNED = """
methods = ["atacnet", "shortcut"]
data = ["synthetic/weave"]
shots = [10]
[set.atacnet]
lr = 2e-4
[tuned]
lr = { seeds = [0, 2], by = "training loss" }
"""


def test_what_results_have_chosen_goes_with_the_runs_it_concerns(registry, tmp_path):
    (tmp_path / "mine.toml").write_text(TUNED)
    suite = read_suite(str(tmp_path / "mine.toml"))
    cells = expand(suite, Selection(), registry, tmp_path)
    tuned = {c.method.name: c.tuned for c in cells}
    assert tuned == {"atacnet": {"lr": Tuned((0, 2), "training loss")}, "shortcut": {}}
    changed = select(suite, Selection(overrides=("lr=1e-3",)))
    other = expand(changed, Selection(), registry, tmp_path)
    assert all(not cell.tuned for cell in other)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("tuned = 3", "tuned must be a table"),
        ("[tuned]\nlr = 2", "tuned.'lr' must be"),
        ('[tuned]\nlr = { seeds = [], by = "loss" }', "tuned.'lr' must be"),
        ("[tuned]\nlr = { seeds = [0], by = 3 }", "tuned.'lr' must be"),
        ('[tuned]\nlr = { seeds = [-1], by = "loss" }', "whole numbers from 0 on"),
    ],
)
def test_tuned_settings_in_another_form_are_refused(table, complaint, tmp_path):
    (tmp_path / "mine.toml").write_text(f'methods = ["atacnet"]\ndata = ["synthetic"]\n{table}\n')
    with pytest.raises(RequestError, match=re.escape(complaint)):
        read_suite(str(tmp_path / "mine.toml"))


def test_the_nightly_runs_are_of_every_method_with_probes_and_timing(registry, tmp_path):
    cells = expand(read_suite("nightly"), Selection(), registry, tmp_path)
    accuracy = [c for c in cells if c.kind == "accuracy"]
    assert {c.method.name for c in accuracy} == METHODS.keys()
    table1 = {c.method.name for c in expand(read_suite("table1"), Selection(), registry, tmp_path)}
    by_method = Counter(c.method.name for c in accuracy if c.parameters.get("epochs") != 2)
    assert by_method == {m: 3 if m in table1 else 1 for m in METHODS}
    trained = {c.method.name for c in cells if "epochs" in c.parameters}
    probes = [c for c in accuracy if c.parameters.get("epochs") == 2]
    assert {c.method.name for c in probes} == trained
    assert {(c.parameters["steps_per_epoch"], c.settings.get("precision", "float32"))
            for c in probes} == {(1, "float32")}  # fmt: skip
    assert {c.seed for c in cells if c.kind == "timing"} == {0, 1, 2}


def test_the_nightly_runs_of_a_push_are_fifteen_or_more_of_each_method(registry, tmp_path):
    cells = expand(read_suite("nightly-cpu"), Selection(), registry, tmp_path)
    by_method = Counter(c.method.name for c in cells if c.parameters["steps_per_epoch"] > 1)
    assert min(by_method.values()) >= LEAST_PAIRS
    assert {c.dataset for c in cells} == {"synthetic"}


RIVALS = {"patchsvdd", "spade", "padim", "patchcore", "memseg"}
"""Those of the paper's Table 2."""
FLOWS = {"fastflow", "cflow"}


def test_table_2_runs_every_method_on_resnet50_and_224_px(registry, tmp_path):
    cells = expand(read_suite("table2"), Selection(), registry, tmp_path)
    assert {c.method.name for c in cells} == {*RIVALS, *FLOWS, "atacnet"}
    assert {c.dataset for c in cells} == {"mvtec_ad"}
    assert {c.category for c in cells} == MVTEC_AD.categories.keys()
    for cell in cells:
        assert cell.shots == (10 if cell.method.name == "atacnet" else 0)
        stated = {"image_size": 224, "backbone": "resnet50", "stage": 4, "precision": "float32"}
        assert stated.items() <= cell.settings.items()
    by_method = Counter(c.method.name for c in cells)
    assert by_method == {m: 15 * (1 if m == "spade" else 5) for m in by_method}
    one = expand(read_suite("table2"), Selection(categories=("head_ct",)), registry, tmp_path)
    assert {c.dataset for c in one} == {"head_ct"}


def test_the_suite_of_what_was_printed_has_spades_two_readings(registry, tmp_path):
    cells = expand(read_suite("table2-published"), Selection(), registry, tmp_path)
    assert {c.method.name for c in cells} == RIVALS
    wide = {c.method.name for c in cells if c.settings["backbone"] == "wide_resnet50_2"}
    assert wide >= {"spade", "padim", "patchcore"}
    assert {c.parameters["k"] for c in cells if c.method.name == "spade"} == {5, 50}
    small = {c.settings["backbone"] for c in cells if c.method.name == "memseg"}
    assert small == {"resnet18"}


def test_hard_takes_the_papers_two_categories_or_what_is_named(registry, tmp_path):
    def categories(**narrowing):
        cells = expand(read_suite("hard"), Selection(**narrowing), registry, tmp_path)
        assert {c.setting for c in cells} == {"hard"}
        return {c.category for c in cells}

    assert categories() == categories(datasets=("mvtec_ad",)) == {"carpet", "metal_nut"}
    assert categories(categories=("screw",)) == {"screw"}
    assert categories(categories=("carpet", "zipper")) == {"carpet", "zipper"}
    several = {c for c, facts in MVTEC_AD.categories.items() if facts.defect_types > 1}
    assert categories(categories=tuple(several)) == several
    with pytest.raises(RequestError, match="no category 'toothbrush' in suite hard; it has"):
        categories(categories=("toothbrush",))


def test_atacnet_at_the_rivals_rate_runs_wherever_reference_cpu_runs_it(registry, tmp_path):
    cells = expand(read_suite("reference-cpu"), Selection(), registry, tmp_path)
    places = {
        (lr, method): {
            (c.dataset, c.category, c.shots)
            for c in cells
            if c.method.name == method and c.parameters.get("lr") == lr
        }
        for lr, method in ((1e-3, "atacnet"), (2e-4, "atacnet"), (2e-4, "devnet"))
    }
    assert len(places[1e-3, "atacnet"]) == 7
    assert places[2e-4, "atacnet"] == places[1e-3, "atacnet"] == places[2e-4, "devnet"]
    assert len(cells) == 7 * 7  # six methods, and ATAC-Net once more


def test_figures_runs_figure_4s_three_versions_and_a_rival_and_keeps_maps(registry, tmp_path):
    suite = read_suite("figures")
    assert suite.save_maps
    cells = expand(suite, Selection(), registry, tmp_path)
    assert {(c.method.name, c.parameters.get("view")) for c in cells} == {
        ("cutmix", None), ("devnet", None), ("shortcut", None), ("atacnet", "raw"),
        ("atacnet", "attention"),
    }  # fmt: skip
    assert len(cells) == 5 * 5
    assert {(c.shots, c.seed) for c in cells} == {(10, 0)}
    stated = expand(read_suite("table1"), Selection(seeds=1, shots=(10,)), registry, tmp_path)
    assert repr(next(c for c in cells if c.method.name == "devnet")) in map(repr, stated)


# Reading


def test_an_unknown_suite_is_refused_with_the_names_there_are():
    with pytest.raises(RequestError, match=r"'tabel1'.*smoke.*table1"):
        read_suite("tabel1")


def test_a_suite_file_that_is_not_there_is_refused_by_name():
    with pytest.raises(RequestError, match=r"no suite file /nowhere/mine.toml"):
        read_suite("/nowhere/mine.toml")


@pytest.mark.parametrize("content", [b"methods = [", b"a = 1\na = 2", b'description = "\xff"'])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"mine.toml is not valid TOML"):
        read_suite(str(path))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('method = ["shortcut"]', "'method'"),
        ('methods = "shortcut"', "methods"),
        ("methods = [1]", "methods"),
        ('data = "head_ct"', "data"),
        ("data = [true]", "data"),
        ('optional = "head_ct"', "optional"),
        ("shots = 1", "shots"),
        ("shots = [1.0]", "shots"),
        ("shots = [true]", "shots"),
        ("shots = [11]", "shots"),
        ("shots = [-1]", "shots"),
        ("seeds = 0", "seeds"),
        ("seeds = 1001", "seeds"),
        ("seeds = true", "seeds"),
        ("seeds = [0, 1]", "seeds"),
        *(
            (f"draw_seeds = {bad}", "draw_seeds is how many")
            for bad in ("0", "1001", "true", "[]", "[-1]", "[true]", "2.0", '"3"', "{a = 1}")
        ),
        (SMALL + 'draw_seeds = 2\nkind = "timing"', "not with kind"),
        ('setting = "soft"', "setting"),
        ('setting = ["hard"]', "setting"),
        ('seen_defects = "hole"', "seen_defects"),
        ("set = 3", "set"),
        ("save_maps = 1", "save_maps must be true or false, not 1"),
        ('save_maps = "yes"', "save_maps must be true or false"),
        ("[[block]]\nsave_maps = true", "save_maps belongs to the top"),
        ("block = 3", "block"),
        ("block = [3]", "block"),
        ("[[block]]\nseed = 3", "'seed'"),
        ("[[block]]\nshots = [12]", "shots"),
        ("shots = [1]", "methods and data"),
        ('methods = ["shortcut"]', "methods and data"),
        (SMALL + "[[block]]\ndata = []", "methods and data"),
    ],
)
def test_a_bad_key_is_refused_with_file_and_key(tmp_path, text, key):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match=f"mine.toml: .*{key}"):
        read_suite(str(path))


def test_save_maps_is_no_part_of_a_cell_and_stays_when_a_suite_is_narrowed(cells, tmp_path):
    path = tmp_path / "maps.toml"
    path.write_text("save_maps = true\n" + SMALL)
    suite = read_suite(str(path))
    assert suite.save_maps
    assert select(suite, Selection(shots=(10,), overrides=("image_size=64",))).save_maps
    assert repr(cells("save_maps = true\n" + SMALL)) == repr(cells(SMALL))
    path.write_text("save_maps = false\n" + SMALL)
    assert not read_suite(str(path)).save_maps


def test_a_block_inside_a_block_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SMALL + "[[block]]\n[[block.block]]\nshots = [10]")
    with pytest.raises(RequestError, match="block"):
        read_suite(str(path))


def test_a_suite_says_how_many_anomalies_are_drawn_for_all_its_methods(cells, tmp_path):
    text = 'methods = ["shortcut", "padim"]\ndata = ["head_ct"]\nshots = [1]\n'
    assert {c.draw for c in cells("draw = 5\n" + text)} == {5}
    assert {c.draw for c in cells(text)} == {10}
    blocks = 'draw = 3\n[[block]]\nmethods = ["padim"]\ndata = ["head_ct"]\n'
    assert {c.draw for c in cells(blocks)} == {3}
    none = cells('draw = 0\nmethods = ["padim"]\ndata = ["head_ct"]\n')
    assert {(c.draw, c.shots) for c in none} == {(0, 0)}
    for bad, said in (
        ("draw = 11\n" + text, "draw is how many anomalies: 0 to 10, not 11"),
        ("draw = true\n" + text, "draw is how many anomalies"),
        ("draw = 0\n" + text, "draw = 0 is for methods without labels alone; shortcut learns"),
        (
            "draw = 5\n" + text.replace("[1]", "[1, 10]"),
            "10 shots of draw = 5: say shots =",
        ),
        ("[[block]]\ndraw = 5\n" + text, "draw belongs to the top of the file"),
    ):
        with pytest.raises(RequestError, match=said):
            cells(bad)
