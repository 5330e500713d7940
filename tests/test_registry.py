import importlib
import sys
from dataclasses import replace

import pytest

from bench.detector import BackboneSource, Context, MethodError, Seeds
from bench.errors import RequestError
from bench.registry import METHODS, Method, Registry, load_class
from bench.source import tree_hash

DETECTOR = '''
"""A method."""
from dataclasses import dataclass

class Mine:
    name = "mine"
    version = 1
    supervision = "weak"
    settings = frozenset({"batch_size"})

    @dataclass(frozen=True)
    class Parameters:
        rate: float = 0.5
        layers: int = 3
        soft: bool = True
        form: str = "plain"

    def fit(self, train, context): ...
    def score(self, samples): ...
'''


# Cards


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_the_project_fits_the_contract_under_its_own_name(name, warm_cache):
    card = Registry(warm_cache).find(name)
    assert card.name == name
    assert card.source is None
    assert card.parameters({}) == card.defaults


def test_every_method_has_a_path_a_title_and_a_summary_of_its_own():
    assert all(entry.summary for entry in METHODS.values())
    for values in zip(*METHODS.values(), strict=True):
        assert len(set(values)) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_is_what_its_class_refuses_to_do_without(name, warm_cache):
    needs, cls = Registry(warm_cache).find(name).needs, load_class(METHODS[name].path)
    if hasattr(cls, "stages"):  # of the frozen backbone, the deepest of which it must have
        sources = [BackboneSource("resnet18", s, None) for s in range(1, 5)]
        deepest = [max(cls(cls.Parameters()).stages(source)) for source in sources]
        assert needs.stage == next(s for s in range(1, 5) if deepest[s - 1] <= s) == 3
    elif name in ("memseg", "prn"):
        context = Context("cpu", Seeds(0, "a", "b"), backbone=BackboneSource("resnet18", 2, None))
        too_few = replace(context, batch_size=needs.batch_size - 1)
        with pytest.raises(MethodError, match=f"batch_size must be at least {needs.batch_size}"):
            cls(cls.Parameters()).untrained(too_few)
        with pytest.raises(MethodError, match=f"it reads stage {needs.stage}"):
            cls(cls.Parameters()).untrained(context)
    else:
        assert needs.stage == 1
    sizes = {"patchsvdd": importlib.import_module("baselines.patchsvdd").LEAST_SIZE}
    assert needs.image_size == sizes.get(name, 1)


def test_an_unknown_method_is_refused_with_the_names_there_are(cache):
    with pytest.raises(RequestError, match=r"'atacnett'.*atacnet"):
        Registry(cache).find("atacnett")


def test_a_method_from_outside_has_a_card_with_path_and_hash(write, cache):
    write(outside=DETECTOR)
    card = Registry(cache).find("outside:Mine")
    assert (card.name, card.version, card.supervision) == ("mine", 1, "weak")
    assert card.settings == {"batch_size"}
    assert card.defaults == {"rate": 0.5, "layers": 3, "soft": True, "form": "plain"}
    assert card.source == f"outside:Mine@{tree_hash('outside', ('outside',))}"


def test_a_card_that_is_cached_is_found_without_importing_the_module(write, cache):
    write(outside=DETECTOR)
    first = Registry(cache).find("outside:Mine")
    del sys.modules["outside"]
    assert Registry(cache).find("outside:Mine") == first
    assert "outside" not in sys.modules


def test_a_card_is_read_again_when_the_source_changes(write, cache):
    write(outside=DETECTOR)
    Registry(cache).find("outside:Mine")
    del sys.modules["outside"]
    write(outside=DETECTOR.replace("version = 1", "version = 21"))
    assert Registry(cache).find("outside:Mine").version == 21


def test_a_card_is_of_all_that_the_method_imports(write, cache):
    helped = DETECTOR.replace("layers: int = 3", "layers: int = helper.layers")
    write(outside=f"from lib import helper\n{helped}", lib__helper="layers = 3\n")
    first = Registry(cache).find("outside:Mine").source
    for name in ("outside", "lib.helper", "lib"):
        del sys.modules[name]
    write(lib__helper="layers = 21\n")
    second = Registry(cache).find("outside:Mine")
    assert second.defaults["layers"] == 21
    assert second.source != first


def test_the_current_folder_is_behind_all_else_and_the_projects_methods_stay(
    write, cache, tmp_path, monkeypatch
):
    for name in ("random", "baselines", "outside"):
        (tmp_path / f"{name}.py").write_text(DETECTOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    write()
    assert Registry(cache).find("outside:Mine").name == "mine"
    assert sys.path[-1] == str(tmp_path)
    assert Registry(cache).find("shortcut").name == "shortcut"
    with pytest.raises(RequestError, match=r"random.py has no class 'Mine'"):
        Registry(cache).find("random:Mine")
    del sys.modules["outside"]


def test_a_damaged_cache_of_cards_is_made_again(write, cache):
    write(outside=DETECTOR)
    first = Registry(cache).find("outside:Mine")
    (cache / "methods.json").write_text('{"outside:Mine')
    assert Registry(cache).find("outside:Mine") == first
    (cache / "methods.json").write_text("")
    assert Registry(cache).find("outside:Mine") == first


def test_a_method_from_outside_cannot_take_a_name_of_the_project(write, cache):
    write(outside=DETECTOR.replace('"mine"', '"atacnet"'))
    with pytest.raises(RequestError, match="calls itself 'atacnet'"):
        Registry(cache).find("outside:Mine")


@pytest.mark.parametrize("path", [":Mine", "outside:", "out-side:Mine", "a..b:C", "a:B.c", "a:b:c"])
def test_a_path_of_another_form_is_refused(cache, monkeypatch, path):
    monkeypatch.syspath_prepend(".")
    with pytest.raises(RequestError, match=r"package.module:Class"):
        Registry(cache).find(path)


# Loading


def test_a_module_that_is_not_there_is_refused_by_name(cache, monkeypatch):
    monkeypatch.syspath_prepend(".")
    with pytest.raises(RequestError, match="nowhere_at_all"):
        Registry(cache).find("nowhere_at_all:Mine")
    with pytest.raises(RequestError, match=r"nowhere_at_all.deeper"):
        load_class("nowhere_at_all.deeper:Mine")


def test_a_class_that_is_not_there_is_refused_by_file_and_name(write):
    write(outside=DETECTOR)
    with pytest.raises(RequestError, match=r"outside.py has no class 'Yours'"):
        load_class("outside:Yours")


@pytest.mark.parametrize(
    "text", ["import nowhere_at_all", "from dataclasses import nothing_at_all", "class Mine(:"]
)
def test_a_module_that_cannot_be_imported_is_refused_by_name(write, cache, text):
    write(outside=text)
    with pytest.raises(RequestError, match="outside"):
        Registry(cache).find("outside:Mine")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "mine"', "", "name must"),
        ('name = "mine"', 'name = "My Method"', "name must"),
        ('name = "mine"', 'name = "mine\\n"', "name must"),
        ("version = 1", "version = 1.0", "version must"),
        ("version = 1", "version = True", "version must"),
        ('supervision = "weak"', 'supervision = "strong"', "supervision must"),
        ('frozenset({"batch_size"})', '{"batch_size"}', "settings must"),
        ('frozenset({"batch_size"})', 'frozenset({"size"})', "settings must"),
        ("def fit(", "def train(", "no fit"),
        ("def score(", "def predict(", "no score"),
        ("@dataclass(frozen=True)", "", "Parameters must be a dataclass"),
        ("class Parameters", "class Settings", "Parameters must be a dataclass"),
        ("rate: float = 0.5", "rate: float", "Parameters.rate"),
        ('form: str = "plain"', "form: tuple = (1, 2)", "Parameters.form"),
        ('form: str = "plain"', "form: str | None = None", "Parameters.form"),
    ],
)
def test_a_class_that_does_not_fit_is_refused_with_what_is_wrong(write, old, new, problem):
    assert old in DETECTOR
    write(outside=DETECTOR.replace(old, new))
    with pytest.raises(RequestError, match=f"outside:Mine does not fit.*{problem}"):
        load_class("outside:Mine")


def test_all_problems_of_a_class_are_told_at_once(write):
    write(outside="class Mine: ...")
    with pytest.raises(RequestError, match=r"name.*version.*supervision.*settings.*fit.*score"):
        load_class("outside:Mine")


# Parameters


CARD = Method(
    path="outside:Mine",
    outside=True,
    name="mine",
    version=1,
    supervision="weak",
    settings=frozenset(),
    abilities=frozenset(),
    defaults={"rate": 0.5, "layers": 3, "soft": True, "form": "plain"},
)


def test_parameters_are_the_defaults_and_what_is_given():
    assert CARD.parameters({"layers": 4}) == {**CARD.defaults, "layers": 4}
    assert CARD.defaults["layers"] == 3


def test_a_whole_number_may_stand_for_a_float():
    rate = CARD.parameters({"rate": 1})["rate"]
    assert rate == 1
    assert type(rate) is float


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate", True),
        ("rate", "1.0"),
        ("layers", 3.0),
        ("layers", True),
        ("layers", "3"),
        ("soft", 1),
        ("soft", "true"),
        ("form", 1),
        ("form", ["plain"]),
        ("form", None),
    ],
)
def test_a_parameter_of_another_type_is_refused_by_key_and_value(key, value):
    with pytest.raises(RequestError) as caught:
        CARD.parameters({key: value})
    assert f"mine.{key} must be" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_an_unknown_parameter_is_refused_with_the_names_there_are():
    with pytest.raises(RequestError, match=r"'layer'.*form, layers, rate, soft"):
        CARD.parameters({"layer": 3})


# Limits


LIMITED = Method(
    path="outside:Mine",
    outside=True,
    name="mine",
    version=1,
    supervision="weak",
    settings=frozenset(),
    abilities=frozenset(),
    defaults={"rate": 0.5, "layers": 3, "form": "plain"},
    limits={
        "rate": {"above": 0, "most": 1},
        "layers": {"least": 1},
        "form": {"choices": ["plain", "fancy"]},
    },
)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rate", 0.0, "mine.rate must be above 0, not 0.0"),
        ("rate", 1.5, "mine.rate must be at most 1, not 1.5"),
        ("layers", 0, "mine.layers must be at least 1, not 0"),
        ("form", "odd", "mine.form must be one of plain, fancy, not 'odd'"),
    ],
)
def test_a_value_that_a_parameter_does_not_take_is_refused(key, value, said):
    with pytest.raises(RequestError) as caught:
        LIMITED.parameters({key: value})
    assert str(caught.value) == said


def test_the_bounds_themselves_are_taken():
    given = {"rate": 1.0, "layers": 1, "form": "fancy"}
    assert LIMITED.parameters(given) == given


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_of_every_method_keep_its_own_limits(name, tmp_path):
    card = Registry(tmp_path).find(name)
    assert card.parameters(card.defaults) == card.defaults
    numbers = {k for k, v in card.defaults.items() if type(v) in (int, float)}
    assert numbers <= card.limits.keys(), "a number without a limit"
    for key, limits in card.limits.items():
        if "least" in limits:
            with pytest.raises(RequestError, match=f"{name}\\.{key} must be at least"):
                card.parameters({key: limits["least"] - 1})


def test_a_card_from_the_cache_has_the_same_limits_and_abilities(tmp_path):
    fresh, cached = (Registry(tmp_path).find("dra") for _ in range(2))
    for card in (fresh, cached):
        with pytest.raises(RequestError, match=r"dra\.sampler must be one of halves, thirds"):
            card.parameters({"sampler": "odd"})
        assert card.abilities == {"embed", "explain", "state", "rehearse", "epochs"}
    assert Registry(tmp_path).find("shortcut").abilities == {"state"}
