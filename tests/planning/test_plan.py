"""The runs of a plan and their ids."""

from bench.planning.matrix import Selection, expand
from bench.planning.plan import Folders, plan_runs
from bench.planning.suite import read_suite
from bench.registry import Registry


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
