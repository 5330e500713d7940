"""The cross-check with anomalib: what is asked of the other interpreter, and what is made of it."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from baselines.blocks.coupling import Coupling, Flow, initialise
from baselines.blocks.frozen import Features
from bench.cli import main
from bench.detector import BackboneSource, Context, Seeds
from bench.errors import RequestError
from bench.execution import crosscheck
from bench.execution.crosscheck import VERSION, check_interpreter, make_crosscheck, projected
from bench.execution.crosscheck.state import flows_of, network_of
from bench.metrics import auroc
from bench.planning.matrix import Selection
from bench.planning.plan import Folders
from tests.fixtures.checkpoints import saved

SMALL = ("weights=none", "image_size=32", "stage=3", "padim.channels=40")


def script(folder: Path, body: str) -> Path:
    """Write a program that stands for the other interpreter."""
    file = folder / "python"
    file.write_text(f"#!{sys.executable}\n{body}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


ANSWERS = f"""
import runpy, sys
if sys.argv[2] == "-c":
    print("{VERSION}")
    sys.exit()
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"print('{VERSION}')", ""),
        ("print('2.6.1')", "has anomalib 2.6.1; only 2.7.0 is compared with"),
        ("raise ModuleNotFoundError('torch')", "has anomalib, but no torch: install it there"),
        ("print('hello')", "is no Python interpreter that answers: it printed nothing"),
        ("raise SystemExit('quite\\x1b other')", "that answers: quite\\x1b other"),
        ("class PackageNotFoundError(Exception): pass\nraise PackageNotFoundError('anomalib')",
         "has no anomalib; an environment with it: python -m venv"),
    ],
)  # fmt: skip
def test_an_interpreter_that_cannot_serve_is_one_line(tmp_path: Path, body: str, said: str) -> None:
    file = script(tmp_path, body)
    if not said:
        check_interpreter(file)
        return
    with pytest.raises(RequestError) as refused:
        check_interpreter(file)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"--python {file}")
    assert "\n" not in str(refused.value)


def test_our_own_interpreter_has_no_anomalib_and_what_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has no anomalib.*pip install anomalib==2\.7\.0"):
        check_interpreter(Path(sys.executable))
    with pytest.raises(RequestError, match="No such file"):
        check_interpreter(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="Permission denied"):
        check_interpreter(tmp_path)
    with pytest.raises(RequestError, match="is no Python interpreter"):
        check_interpreter(Path("/bin/echo"))


def folders(cache: Path, place: Path) -> Folders:
    return Folders(place / "data", place / "weights", place / "results", cache)


def test_what_is_compared_has_anomalibs_settings(warm_cache: Path, tmp_path: Path) -> None:
    narrowing = Selection(overrides=SMALL)
    plan = make_crosscheck(narrowing, folders(warm_cache, tmp_path), download=False)
    found = {(r.spec.method, r.spec.place): r.spec for r in plan.runs}
    assert len(found) == len(plan.runs)
    assert {method for method, _ in found} == {"padim", "patchcore", "fastflow", "cflow"}
    padim, patchcore = found["padim", "synthetic/weave"], found["patchcore", "synthetic/weave"]
    assert (padim.backbone, padim.stage, padim.image_size) == ("resnet18", 3, 32)
    assert padim.parameters["epsilon"] == 0.01001
    assert patchcore.parameters["embedding"] == "joined"
    assert patchcore.parameters["neighbours"] == 9
    default = make_crosscheck(
        Selection(overrides=("weights=none",)), folders(warm_cache, tmp_path), download=False
    )
    assert default.runs[0].spec.image_size == 256


@pytest.mark.parametrize(
    ("narrowing", "said"),
    [
        (Selection(overrides=("padim.epsilon=0.01",)), "padim.epsilon is 0.01001 here"),
        (Selection(overrides=("patchcore.embedding=pooled",)), "patchcore.embedding is joined"),
        (Selection(overrides=("patchcore.projection=7",)), "projection is anomalib's here"),
        (Selection(overrides=("precision=bfloat16",)), "padim.precision is float32 here"),
        (Selection(methods=("spade",)), "spade is not compared with anomalib"),
        (Selection(datasets=("nosuch",)), "unknown dataset 'nosuch'"),
        (Selection(categories=("nosuch",)), "no category 'nosuch'"),
    ],
)
def test_what_anomalib_cannot_be_told_is_refused(
    warm_cache: Path, tmp_path: Path, narrowing: Selection, said: str
) -> None:
    with pytest.raises(RequestError) as refused:
        make_crosscheck(narrowing, folders(warm_cache, tmp_path), download=False)
    assert said in str(refused.value)


def test_the_coreset_is_chosen_in_as_many_dimensions_as_anomalibs() -> None:
    # 4 ln(n) / (0.81 / 2 - 0.729 / 3): scikit-learn's johnson_lindenstrauss_min_dim, eps 0.9.
    from sklearn.random_projection import johnson_lindenstrauss_min_dim

    for patches in (2, 100, 4096, 40_960, 10**6):
        assert projected(patches) == johnson_lindenstrauss_min_dim(patches, eps=0.9)


# The command, with a stand-in for anomalib


STAND_IN = (
    ANSWERS
    + """
import json
from pathlib import Path
import numpy as np
folder = Path(sys.argv[3])
with open(Path(__file__).parent / "asked.jsonl", "a") as asked:
    for job in json.loads((folder / "request.json").read_text()):
        normal, tested = (np.load(folder / f"{n}.npy").astype(float) for n in ("normal", "tested"))
        scores = np.abs(tested - normal.mean(0)).mean((1, 2, 3)).astype(np.float32)
        np.save(folder / f"{job['name']}.scores.npy", scores)
        job["scores"], job["normal"], job["tested"] = scores.tolist(), normal.shape, tested.shape
        with np.load(folder / f"{job['name']}.weights.npz") as weights:
            job["weights"] = {k: weights[k].shape for k in weights}
        print(json.dumps(job), file=asked)
"""
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(
    tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(warm_cache))
    monkeypatch.setenv("COLUMNS", "100")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


Capture = pytest.CaptureFixture[str]


def call(capsys: Capture, python: Path, *given: str) -> tuple[int, str, str]:
    arguments = [w for text in SMALL for w in ("--set", text)]
    with pytest.raises(SystemExit) as ended:
        main(["crosscheck", "--python", str(python), "--categories", "weave", "--threads", "1",
              *arguments, *given])  # fmt: skip
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def labels(cache: Path, place: Path) -> list[bool]:
    """Return what is anomalous of the tested images of the category."""
    narrowing = Selection(categories=("weave",), overrides=SMALL)
    plan = make_crosscheck(narrowing, folders(cache, place), download=False)
    return [f.anomalous for f in plan.runs[0].listing.files if f.fold == "test"]


def test_both_sides_are_compared_by_our_metric_over_the_seeds(
    tmp_path: Path, warm_cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: list[Any] = []
    our_side = crosscheck._our_side

    def kept(*given: Any) -> Any:
        ours.append(our_side(*given))
        return ours[-1]

    monkeypatch.setattr(crosscheck, "_our_side", kept)
    code, out, err = call(capsys, script(tmp_path, STAND_IN), "--seeds", "2")
    assert code == 0, err
    assert "synthetic/weave: 64 normal and 128 test images" in err
    jobs = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    assert [j["name"] for j in jobs] == [
        f"{m}-{seed}" for m in crosscheck.METHODS for seed in (0, 1)
    ]
    truth, rows = labels(warm_cache, tmp_path), out.splitlines()[1:5]
    for row, of in zip(rows, crosscheck.METHODS, strict=True):
        pairs = [
            (scores, np.array(other["scores"], np.float32))
            for (scores, job), other in zip(ours, jobs, strict=True)
            if job["method"] == of
        ]
        aurocs = np.array([[auroc(side, truth) for side in pair] for pair in pairs])
        (mean, peer), (spread, peers) = aurocs.mean(0), aurocs.std(0, ddof=1)
        ranks = np.mean([spearmanr(*pair).statistic for pair in pairs])
        assert row.split() == [
            "synthetic/weave", of, f"{mean:.4f}", "±", f"{spread:.4f}", f"{peer:.4f}", "±",
            f"{peers:.4f}", f"{mean - peer:+.4f}", f"{ranks:.4f}",
        ]  # fmt: skip
    assert "largest difference of AUROC: " in out
    assert "Each side draws" in out


def test_ours_loads_weights_in_half_precision_as_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "half.pth"
    file.write_bytes(saved({"module.conv1.weight": torch.ones(1, dtype=torch.float16)}))

    class Fitted(Exception):
        pass

    class Detector:
        Parameters = dict

        def __init__(self, parameters: Any) -> None:
            pass

        def fit(self, train: Any, context: Context) -> None:
            assert context.backbone is not None
            assert context.backbone.file is not None
            raise Fitted(load_file(context.backbone.file))

    spec = SimpleNamespace(
        method="padim", seed=0, dataset="d", category="c", image_size=8, parameters={},
        precision=None, batch_size=None, backbone="resnet18", stage=1, seeds=Seeds(0, "d", "c"),
    )  # fmt: skip
    source = BackboneSource("resnet18", 1, file, "v1.5")
    run: Any = SimpleNamespace(
        spec=spec, weights=SimpleNamespace(source=source),
        planned=SimpleNamespace(method=SimpleNamespace(path="")),
    )  # fmt: skip
    monkeypatch.setattr(crosscheck, "load_class", lambda _: Detector)
    images: Any = SimpleNamespace(samples=lambda chosen: chosen)
    split: Any = SimpleNamespace(train_normal=(), tested=())
    with pytest.raises(Fitted) as caught:
        crosscheck._our_side(run, images, split, tmp_path, 1)
    (tensors,) = caught.value.args
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "conv1.weight": torch.float32
    }


def test_the_other_side_is_handed_images_network_channels_and_settings(
    tmp_path: Path, capsys: Capture
) -> None:
    given = ("--set", "patchcore.coreset=0.25", "--set", "patchcore.neighbours=3",
             "--set", "fastflow.flow_steps=1")  # fmt: skip
    code, _, err = call(capsys, script(tmp_path, STAND_IN), *given)
    assert code == 0, err
    jobs = map(json.loads, (tmp_path / "asked.jsonl").read_text().splitlines())
    padim, patchcore, fastflow, cflow = jobs
    assert (padim["normal"], padim["tested"]) == ([64, 3, 32, 32], [128, 3, 32, 32])
    assert len(set(padim["channels"])) == 40
    assert max(padim["channels"]) < 64 + 128 + 256
    assert padim["layers"] == ["layer1", "layer2", "layer3"]
    assert (patchcore["layers"], patchcore["channels"]) == (["layer2", "layer3"], None)
    assert patchcore["parameters"]["coreset"] == 0.25
    assert patchcore["parameters"]["neighbours"] == 3
    assert (fastflow["layers"], cflow["layers"]) == (padim["layers"], patchcore["layers"])
    assert (fastflow["size"], fastflow["parameters"]["flow_steps"]) == (32, 1)
    for job in (padim, patchcore, fastflow, cflow):
        assert job["weights"]["conv1.weight"] == [64, 3, 7, 7]
        assert job["weights"]["layer3.1.bn2.running_var"] == [256]
        assert not any(name.startswith(("layer4", "fc")) for name in job["weights"])
        assert (job["backbone"], job["strides"]) == ("resnet18", "v1.5")


@pytest.mark.parametrize(
    ("backbone", "conv", "layers"),
    [
        ("mobilenet_v2", "features.0.0.weight", ["features.3", "features.6", "features.13"]),
        ("resnet50", "layer1.0.downsample.0.weight", ["layer1", "layer2", "layer3"]),
    ],
)
def test_the_network_goes_by_torchvisions_names_and_is_read_where_ours_is(
    tmp_path: Path, capsys: Capture, backbone: str, conv: str, layers: list[str]
) -> None:
    """The maps that anomalib reads of these layers are those of our stages."""
    code, _, err = call(capsys, script(tmp_path, STAND_IN), "--methods", "padim",
                        "--set", f"backbone={backbone}")  # fmt: skip
    assert code == 0, err
    (job,) = map(json.loads, (tmp_path / "asked.jsonl").read_text().splitlines())
    assert conv in job["weights"]
    assert job["layers"] == layers
    source = BackboneSource(backbone, 3, None)
    ours = Features(source, "float32", (1, 2, 3))
    state = {f"features.{k}": v.numpy() for k, v in ours.state_dict().items()}
    network = torchvision.models.get_model(backbone, weights=None).eval()
    stored = {k: torch.from_numpy(v) for k, v in network_of(state, backbone).items()}
    assert {k: list(v.shape) for k, v in stored.items()} == job["weights"]
    assert not network.load_state_dict(stored, strict=False).unexpected_keys
    theirs = create_feature_extractor(network, layers)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for own, other in zip(ours(images), theirs(images).values(), strict=True):
            torch.testing.assert_close(own, other)


@pytest.mark.parametrize("soft", [False, True])
def test_flows_go_by_anomalibs_names_with_permutations_as_matrices(soft: bool) -> None:
    subnet = nn.Linear(3, 4)
    flow = Flow([Coupling(5, subnet, 1.9, soft=soft)])
    initialise(flow, torch.Generator().manual_seed(0))
    state = {f"flows.1.{k}": v.numpy() for k, v in flow.state_dict().items()}
    state |= {"flows.1.norm.weight": np.ones(5), "features.blocks.0.weight": np.ones(1)}
    handed = flows_of(state)
    names = (
        "global_scale",
        "global_offset",
        "subnet.weight",
        "subnet.bias",
        "w_perm",
        "w_perm_inv",
    )
    assert set(handed) == {f"1.module_list.0.{name}" for name in names} | {"norm.1.weight"}
    values = torch.rand(2, 5)
    matrix = torch.from_numpy(handed["1.module_list.0.w_perm"])
    permutation: Any = flow.blocks[0].permutation
    torch.testing.assert_close(F.linear(values, matrix), permutation(values))
    inverse = torch.from_numpy(handed["1.module_list.0.w_perm_inv"].copy())
    torch.testing.assert_close(F.linear(permutation(values), inverse), values)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise SystemExit('no room')", "synthetic/weave: anomalib's side ended with 1: no room"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9: it printed nothing"),
        (STAND_IN.replace("mean((1, 2, 3))", "mean((1, 2))"), "gave no 128 finite scores"),
        (STAND_IN.replace("normal.mean(0)", "np.nan"), "gave no 128 finite scores"),
        (STAND_IN.replace("np.save(", "print("), "gave no 128 finite scores"),
    ],
    ids=["ends", "killed", "shape", "nan", "nothing"],
)
def test_where_the_other_side_fails_the_command_says_why_and_ends_with_1(
    tmp_path: Path, capsys: Capture, body: str, said: str
) -> None:
    code, out, err = call(capsys, script(tmp_path, ANSWERS + body), "--methods", "padim")
    assert (code, out) == (1, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("failed: ")
    assert "Traceback" not in err


def test_a_bad_request_is_one_line_with_exit_code_2(tmp_path: Path, capsys: Capture) -> None:
    code, out, err = call(capsys, Path(sys.executable))
    assert (code, out) == (2, "")
    assert "has no anomalib" in err
    assert err.count("\n") == 1
    code, _, err = call(capsys, script(tmp_path, STAND_IN), "--datasets", "head_ct")
    assert code == 2
    assert "no category 'weave'" in err


def test_nothing_is_left_behind(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for body in (STAND_IN, ANSWERS + "sys.exit(3)"):
        call(capsys, script(tmp_path, body), "--methods", "padim")
    assert list(scratch.iterdir()) == []


def test_the_other_interpreter_sees_neither_our_modules_nor_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tell = "import os; print(dict(os.environ))"
    done = crosscheck._run([sys.executable, "-I", "-c", tell])
    assert "PYTHONPATH" not in done.stdout
    assert "'HF_HUB_OFFLINE': '1'" in done.stdout
    assert "'OMP_NUM_THREADS': '1'" in done.stdout


@pytest.mark.skipif(
    "ANOMALIB_PYTHON" not in os.environ,
    reason="needs ANOMALIB_PYTHON, an interpreter that has anomalib 2.7.0",
)
@pytest.mark.parametrize("method", ["padim", "fastflow", "cflow"])
def test_anomalib_itself_agrees(capsys: Capture, method: str) -> None:
    code, out, err = call(capsys, Path(os.environ["ANOMALIB_PYTHON"]), "--methods", method)
    assert code == 0, err
    assert out.splitlines()[1].split()[-2:] in (["+0.0000", "1.0000"], ["-0.0000", "1.0000"])
