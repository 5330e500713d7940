"""The runs of a plan and their ids."""

from dataclasses import replace

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
    make(tmp_path / "nuts", "train/good/0.png", "test/good/1.png", "test/bent/2.png")
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
