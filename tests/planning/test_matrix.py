"""A suite becomes cells: narrowed, overridden, varied."""

import pytest

from bench.data.catalog import MVTEC_AD
from bench.errors import RequestError
from bench.registry import METHODS
from tests.fixtures.suites import SMALL, of

BOTH = 'methods = ["atacnet", "shortcut"]\ndata = ["head_ct"]\nshots = [1]\n'


def test_a_table_for_a_method_that_does_not_exist_is_refused(cells):
    with pytest.raises(RequestError, match="atacnett"):
        cells(SMALL + "[set.atacnett]\nlr = 1e-4")


def test_seen_defects_without_the_hard_setting_are_refused(cells):
    # They would run each cell once a defect type, under other ids and with equal scores.
    with pytest.raises(RequestError, match="seen_defects"):
        cells(SMALL + 'seen_defects = ["hole", "cut"]')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[set]\nimage_sise = 64", "image_sise"),
        ("[set.atacnet]\nlearning_rate = 1.0", "learning_rate"),
        ('[set]\nimage_size = "64"', "image_size"),
        ("[set]\nimage_size = 8", "image_size"),
        ("[set]\nbatch_size = 0", "batch_size"),
        ("[set]\nepochs = 1.5", "epochs"),
        ("[set]\nepochs = true", "epochs"),
        ("[set.atacnet]\npseudo = 1", "atacnet.pseudo"),
        ('[set]\nprecision = "float16"', "precision"),
        ("[set]\natacnet = 3", "atacnet"),
    ],
)
def test_a_bad_value_in_set_is_refused_by_key(cells, text, key):
    with pytest.raises(RequestError, match=key):
        cells(BOTH + text)


def test_unknown_methods_and_data_are_refused(cells):
    with pytest.raises(RequestError, match=r"'atacnett'.*atacnet"):
        cells(SMALL.replace("shortcut", "atacnett"))
    with pytest.raises(RequestError, match=r"suite mine: .*'head_cd'"):
        cells(SMALL.replace("head_ct", "head_cd"))
    with pytest.raises(RequestError, match=r"'botle'.*bottle"):
        cells(SMALL.replace("head_ct", "mvtec_ad/botle"))


# The matrix


def test_draw_seeds_are_crossed_with_seeds_and_share_the_diagonal_with_plain_runs(cells):
    crossed = cells(SMALL + "seeds = 2\ndraw_seeds = 3")
    assert of(crossed, "draw_seed", "seed") == [
        (None, 0), (0, 1), (1, 0), (None, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    plain = {c.key for c in cells(SMALL + "seeds = 3")}
    assert [c.seed for c in crossed if c.key in plain] == [0, 1]
    named = cells(SMALL + "seeds = 2\ndraw_seeds = [4, 0, 4]")
    assert of(named, "draw_seed", "seed") == [(4, 0), (4, 1), (None, 0), (0, 1)]
    assert of(cells(SMALL + "draw_seeds = 3", seeds=2), "draw_seed", "seed") == (
        of(crossed, "draw_seed", "seed")
    )


def test_a_method_without_randomness_runs_once_on_each_draw(cells):
    """The draw still decides what is tested."""
    text = 'methods = ["spade"]\ndata = ["head_ct"]\nseeds = 2\ndraw_seeds = 3'
    random = '\n[set]\nweights = "none"'
    assert {c.shots for c in cells(text)} == {0}
    assert [len(cells(text)), len(cells(text + random))] == [3, 6]


def test_a_suite_is_the_product_of_methods_data_shots_and_seeds(cells):
    found = cells(
        'methods = ["shortcut", "cutmix"]\ndata = ["mvtec_ad/pill", "head_ct"]\n'
        "shots = [1, 5]\nseeds = 2"
    )
    keys = [(c.method.name, c.dataset, c.category, c.shots, c.seed) for c in found]
    assert len(keys) == len(set(keys)) == 16
    assert ("cutmix", "mvtec_ad", "pill", 5, 1) in keys
    assert ("shortcut", "head_ct", "head_ct", 1, 0) in keys


def test_a_dataset_stands_for_all_its_categories(cells):
    found = cells(SMALL.replace("head_ct", "mvtec_ad"))
    assert [c.category for c in found] == list(MVTEC_AD.categories)


def test_a_folder_in_mvtec_layout_is_data(cells, tmp_path):
    for category in ("nut", "bolt"):
        (tmp_path / "data" / "parts" / category / "train" / "good").mkdir(parents=True)
    assert of(cells(SMALL.replace("head_ct", "parts")), "dataset", "category") == [
        ("parts", "bolt"),
        ("parts", "nut"),
    ]
    assert of(cells(SMALL.replace("head_ct", "parts/nut")), "category") == [("nut",)]


@pytest.mark.parametrize(
    "text",
    [
        SMALL.replace("[1]", "[1, 1]"),
        SMALL.replace('["shortcut"]', '["shortcut", "shortcut"]'),
        SMALL.replace('["head_ct"]', '["head_ct", "head_ct/head_ct"]'),
        SMALL + "[[block]]\n[[block]]\nseeds = 1",
    ],
)
def test_a_cell_that_is_named_twice_is_run_once(cells, text):
    assert len(cells(text)) == 1


def test_blocks_inherit_what_they_do_not_say(cells):
    found = cells(
        'methods = ["atacnet"]\nshots = [1, 2]\n[set]\nepochs = 3\n[set.atacnet]\nlr = 0.5\n'
        '[[block]]\ndata = ["head_ct"]\n'
        '[[block]]\ndata = ["brain_mri"]\nshots = [5]\n'
        "[block.set]\nstage = 3\n[block.set.atacnet]\nmargin = 5.0\n"
    )
    assert of(found, "dataset", "shots") == [("head_ct", 1), ("head_ct", 2), ("brain_mri", 5)]
    first, last = found[0], found[-1]
    assert (first.parameters["epochs"], first.parameters["lr"]) == (3, 0.5)
    assert (first.settings["stage"], first.parameters["margin"]) == (4, 10.0)
    assert (last.parameters["epochs"], last.parameters["lr"]) == (3, 0.5)
    assert (last.settings["stage"], last.parameters["margin"]) == (3, 5.0)


def test_what_is_set_for_one_method_does_not_touch_another(cells):
    atacnet, cutmix = cells(
        'methods = ["atacnet", "cutmix"]\ndata = ["head_ct"]\nshots = [1]\n[set]\nepochs = 3\n'
        "[set.cutmix]\nepochs = 5\nimage_size = 64"
    )
    assert (atacnet.parameters["epochs"], atacnet.settings["image_size"]) == (3, 224)
    assert (cutmix.parameters["epochs"], cutmix.settings["image_size"]) == (5, 64)


def test_an_unsupervised_method_runs_at_no_shots_once(cells, tmp_path, monkeypatch):
    (tmp_path / "unsupervised_for_suite.py").write_text(
        "from dataclasses import dataclass\n"
        "class Mine:\n"
        "    name, version, supervision, settings = 'mine', 1, 'unsupervised', frozenset()\n"
        "    @dataclass\n"
        "    class Parameters:\n"
        "        k: int = 1\n"
        "    def fit(self, train, context): ...\n"
        "    def score(self, samples): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = cells(
        SMALL.replace("[1]", "[1, 10]"), outside_method="unsupervised_for_suite:Mine", seeds=2
    )
    assert [(c.method.name, c.shots, c.seed) for c in found] == [("mine", 0, 0), ("mine", 0, 1)]


def test_a_weak_method_without_shots_is_refused(cells):
    with pytest.raises(RequestError, match="shortcut needs at least one shot"):
        cells(SMALL.replace("[1]", "[0]"))


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("lr=1", "lr", 1.0),
        ("lr = 2e-4", "lr", 2e-4),
        ("pseudo=false", "pseudo", False),
        ("loss_form=literal", "loss_form", "literal"),
        ('loss_form="literal"', "loss_form", "literal"),
        ("atacnet.epochs=3", "epochs", 3),
    ],
)
def test_set_takes_typed_values_and_bare_words(cells, text, key, value):
    found = {c.method.name: c for c in cells(BOTH, overrides=(text,))}["atacnet"].parameters[key]
    assert found == value
    assert type(found) is type(value)


def test_set_for_one_method_touches_no_other(cells):
    found = cells(BOTH, overrides=("atacnet.image_size=64",))
    assert [c.settings["image_size"] for c in found] == [64, 224]


def test_set_wins_over_the_file_and_the_last_one_over_the_first(cells):
    text = BOTH + "[set]\nimage_size = 32\nepochs = 9"
    found = cells(text, overrides=("image_size=48", "image_size=64"))
    assert {c.settings["image_size"] for c in found} == {64}
    assert found[0].parameters["epochs"] == 9


def test_set_takes_a_bare_word_for_a_run_setting(cells):
    found = cells(BOTH, overrides=("weights=none", "backbone=resnet18", "stage=2"))
    assert [found[0].settings[k] for k in ("weights", "backbone", "stage")] == [
        "none",
        "resnet18",
        2,
    ]


@pytest.mark.parametrize("text", ["lr", "=3", ".lr=1", "atacnet.=1", "a.b.c=1", ""])
def test_set_of_another_form_is_refused(cells, text):
    with pytest.raises(RequestError, match="--set takes"):
        cells(BOTH, overrides=(text,))


@pytest.mark.parametrize(
    "text",
    ["epochs=1.5", "epochs=many", "epochs=true", "pseudo=1", "loss_form=3", "lr=[1]", "stage=two"],
)
def test_set_of_another_type_is_refused_by_key(cells, text):
    with pytest.raises(RequestError, match=text.partition("=")[0]):
        cells(BOTH, overrides=(text,))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("epoch=3", "epoch"),
        ("atacnet.epoch=3", "epoch"),
        ("epochs=3", "epochs"),  # only an unselected method knows it
        ("cutmix.epochs=3", "cutmix.epochs"),
        ("batch_size=8", "batch_size"),  # a run setting that no selected method uses
        ("shortcut.batch_size=8", "shortcut.batch_size"),
    ],
)
def test_set_of_a_key_that_no_selected_method_knows_is_refused(cells, text, key):
    methods = None if text.startswith("atacnet.") else ("shortcut",)
    with pytest.raises(RequestError, match=key):
        cells(BOTH, overrides=(text,), methods=methods)


# Selection


def test_narrowing_keeps_what_is_named(cells):
    text = BOTH.replace('"head_ct"', '"head_ct", "mvtec_ad"').replace("[1]", "[1, 10]")
    found = cells(
        text, methods=("shortcut",), datasets=("mvtec_ad",), categories=("pill",), shots=(5,)
    )
    assert [(c.method.name, c.dataset, c.category, c.shots) for c in found] == [
        ("shortcut", "mvtec_ad", "pill", 5)
    ]


def test_optional_data_is_run_where_a_category_names_it(cells):
    text = SMALL + 'optional = ["mvtec_ad/pill", "mvtec_ad/screw"]\n'
    assert of(cells(text), "category") == [("head_ct",)]
    named = cells(text, categories=("pill", "head_ct"))
    assert of(named, "category") == [("head_ct",), ("pill",)]
    assert of(cells(text, datasets=("mvtec_ad",), categories=("pill",)), "category") == [("pill",)]
    with pytest.raises(RequestError, match="does not use mvtec_ad"):
        cells(text, datasets=("mvtec_ad",))
    with pytest.raises(RequestError, match=r"'botle'.*bottle"):
        cells(text.replace("screw", "botle"), categories=("pill",))
    block = f'{text}[[block]]\n[[block]]\noptional = ["mvtec_ad/cable"]\n'
    found = cells(block, categories=("cable", "pill"))
    assert of(found, "category") == [("pill",), ("cable",)]


def test_seeds_n_gives_the_seeds_from_0(cells):
    assert of(cells(SMALL, seeds=3), "seed") == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("narrowing", "named"),
    [
        ({"methods": ("cutmix",)}, "does not run cutmix"),
        ({"methods": ("cutmax",)}, "unknown method 'cutmax'"),
        ({"datasets": ("brain_mri",)}, "does not use brain_mri"),
        ({"categories": ("pill",)}, "'pill'.*head_ct"),
        ({"shots": (11,)}, "shots are 0 to 10, not 11"),
        ({"shots": (-1,)}, "shots are 0 to 10, not -1"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 1001}, "seeds"),
    ],
)
def test_narrowing_to_what_is_not_there_is_refused(cells, narrowing, named):
    with pytest.raises(RequestError, match=named):
        cells(SMALL, **narrowing)


def test_narrowing_to_nothing_is_refused(cells):
    text = SMALL.replace('"head_ct"', '"head_ct", "mvtec_ad/pill"')
    with pytest.raises(RequestError, match="nothing is left of suite mine"):
        cells(text, datasets=("head_ct",), categories=("pill",))


@pytest.mark.parametrize("path", ["", "shortcut", "package.module"])
def test_a_method_from_outside_is_a_path(cells, path):
    with pytest.raises(RequestError, match=r"--method takes package.module:Class"):
        cells(SMALL, outside_method=path)


def test_cells_carry_all_parameters_after_defaults(cells, registry):
    for cell in cells(BOTH):
        assert cell.parameters == registry.find(cell.method.name).defaults
        assert cell.method.name in METHODS


# [vary]


def test_every_combination_of_vary_is_wanted(cells):
    found = cells(BOTH + "[vary]\nstage = [3, 4]\n[vary.atacnet]\nview = ['raw', 'attention']\n")
    wanted = {
        (c.settings["stage"], c.parameters["view"]) for c in found if c.method.name == "atacnet"
    }
    assert wanted == {(3, "raw"), (3, "attention"), (4, "raw"), (4, "attention")}
    assert sum(c.method.name == "shortcut" for c in found) == 2  # it knows no view


def test_vary_in_a_block_starts_from_what_is_set_above(cells):
    text = BOTH + "[set.atacnet]\nlr = 0.5\n[[block]]\n[block.vary.atacnet]\nmargin = [1, 2]\n"
    found = [c.parameters for c in cells(text, methods=("atacnet",))]
    assert [(p["lr"], p["margin"]) for p in found] == [(0.5, 1.0), (0.5, 2.0)]


def test_what_the_command_line_sets_overrules_vary(cells):
    text = BOTH + "[vary.atacnet]\nview = ['raw', 'attention']\n"
    (found,) = cells(text, methods=("atacnet",), overrides=("atacnet.view=centre",))
    assert found.parameters["view"] == "centre"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("vary = 3", "vary must be a table"),
        ("[vary]\nstage = 3", "vary.stage must hold lists of values"),
        ("[vary]\nstage = []", "vary.stage must hold lists of values"),
        ("[vary.atacnet]\nview = 'raw'", "vary.atacnet must hold lists of values"),
        ("[vary]\nstage = [[3]]", "vary.stage must be one value"),
        (f"[vary]\nlr = {list(range(1001))}", "more than 1000 combinations"),
        ("[vary]\nstage = [3]\n[[block]]\nseeds = 2", r"vary belongs in the \[\[block\]\]s"),
        ("[vary.atacnet]\nview = ['nosuch']", "view must be one of attention"),
    ],
)
def test_a_bad_vary_is_refused_by_name(cells, table, said):
    with pytest.raises(RequestError, match=said):
        cells(BOTH + table)
