"""The runs of a plan and their ids."""

from dataclasses import replace

from PIL import Image

from bench.planning.matrix import Selection, expand
from bench.planning.plan import Folders, plan_runs
from bench.planning.resources import to_decode
from bench.planning.suite import Suite, SuiteBlock, read_suite
from bench.registry import Registry
from tests.fixtures.datasets import make


def planned(tmp_path, warm_cache, *overrides):
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    narrowing = Selection(methods=("saoe", "devnet"), shots=(10,), overrides=overrides)
    cells = expand(read_suite("smoke"), narrowing, Registry(warm_cache), folders.data)
    return plan_runs(cells, folders)


def test_what_is_passed_over_is_a_note_of_the_plan(tmp_path, warm_cache, cells):
    data = tmp_path / "data"
    shade = 0
    for category, types in (("nut", {"a": 12, "b": 11, "c": 3}), ("bolt", {"a": 12})):
        for place, count in {"train/good": 2, "test/good": 2, **types}.items():
            folder = data / "parts" / category / (place if "/" in place else f"test/{place}")
            folder.mkdir(parents=True)
            for i in range(count):
                shade += 1
                Image.new("RGB", (9, 9), (shade, 0, 9)).save(folder / f"{i}.png")
    (data / "parts/nut/train/good/old").mkdir()
    (data / "parts/nut/train/good/old/1.png").write_bytes(b"")
    planned = cells('methods = ["shortcut"]\ndata = ["parts"]\nshots = [10]\nsetting = "hard"')
    plan = plan_runs(planned, Folders(data, tmp_path, tmp_path / "results", warm_cache))
    assert [(r.spec.category, r.spec.seen_defect) for r in plan.runs] == [
        ("nut", "a"),
        ("nut", "b"),
    ]
    assert plan.notes == (
        "parts/bolt: no hard setting: a is the only defect type, so that none would be unseen",
        "parts/nut: 1 file that looks like an image and is not used: 1 in train/good/old (.png 1):"
        " move them into train/good",
        "parts/nut: no hard setting of some defect types: c has 3 images, fewer than 10",
    )
    text = 'methods = ["shortcut"]\ndata = ["parts"]\nsetting = "hard"\nseen_defects = ["c", "a"]'
    plan = plan_runs(cells(text), Folders(data, tmp_path, tmp_path / "results", warm_cache))
    assert {(r.spec.category, r.spec.seen_defect) for r in plan.runs} == {("nut", "a")}
    assert {m.remedy for m in plan.missing if m.planned.category == "nut"} == {
        "parts/nut: hard setting with seen defect 'c'; possible: a, b (c has 3 images, fewer than"
        " 10)"
    }


def test_only_what_uses_external_images_has_them_in_its_id(tmp_path, warm_cache):
    textures = planned(tmp_path, warm_cache)
    none = planned(tmp_path, warm_cache, "external=none")
    for one, other in zip(textures.runs, none.runs, strict=True):
        saoe = one.spec.method == "saoe"
        assert (one.run_id != other.run_id) == saoe
        assert (other.spec.external, other.external) == ("none" if saoe else None, None)
    missing = planned(tmp_path, warm_cache, "saoe.external=mvtec_ad")
    assert {r.spec.method for r in missing.runs} == {"devnet"}
    assert all("no other category of mvtec_ad" in m.remedy for m in missing.missing)


def test_the_cards_data_version_is_in_the_id_and_in_the_caches_name(tmp_path, warm_cache):
    bent = [f"test/bent/{i}.png" for i in range(11)]
    make(tmp_path / "nuts", "train/good/0.png", "train/good/1.png", "test/good/1.png", *bent)
    folders = Folders(tmp_path, tmp_path, tmp_path / "results", warm_cache)
    runs = []
    for name in ("nuts", "synthetic"):
        block = SuiteBlock(("devnet",), (name,), shots=(10,), set={"weights": "none"})
        suite = Suite("mine", "", (block,))
        wanted = expand(suite, Selection(), Registry(warm_cache), tmp_path)
        runs.append(plan_runs(wanted, folders).runs)
    assert [{r.spec.data_version for r in of} for of in runs] == [{2}, {1}]
    own = runs[0][0]
    assert replace(own.spec, data_version=1).run_id != own.run_id
    other = replace(own, listing=replace(own.listing, data_version=1))
    assert len(to_decode([own, own], tmp_path)) == 1
    assert len(to_decode([own, other], tmp_path)) == 2
