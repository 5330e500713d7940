"""Requests that make no sense, each answered by one clear line."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import app, complete, main
from bench.cli.examples import EXAMPLES
from tests.fixtures.findings import answer, check
from tests.fixtures.plans import smoke_plan
from tests.fixtures.runs import SPEC, fail, staged, store_at


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(warm_cache))
    monkeypatch.setenv("COLUMNS", "100")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


Capture = pytest.CaptureFixture[str]


def test_the_version(capsys: Capture) -> None:
    from bench import __version__

    assert call(capsys, "--version") == (0, f"bench {__version__}\n", "")


def test_the_lists(capsys: Capture) -> None:
    assert "reference-cpu" in call(capsys, "list", "suites")[1]
    assert "atacnet" in call(capsys, "list", "methods")[1]
    assert "metal_nut" in call(capsys, "list", "datasets")[1]
    Path("data/odd").mkdir(parents=True)
    code, out, _ = call(capsys, "data", "list")
    assert code == 0
    assert f"not listed: {Path.cwd()}/data/odd: it holds no train/good" in out
    for word in ("transistor", "CC BY-NC-SA 4.0", "head_ct", "900 px", "kaggle"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "nosuch"], "unknown suite 'nosuch'; one of"),
        (["--suite", "nosuch.toml"], "there is no suite file nosuch.toml"),
        (["--suite", "smoke", "--methods", "nosuch"], "unknown method 'nosuch'"),
        (["--suite", "smoke", "--datasets", "nosuch"], "unknown dataset 'nosuch'"),
        (["--suite", "smoke", "--categories", "nosuch"], "no category 'nosuch'"),
        (["--suite", "smoke", "--shots", "many"], "--shots takes whole numbers"),
        (["--suite", "smoke", "--shots", "11"], "shots are 0 to 10"),
        (["--suite", "smoke", "--seeds", "0"], "seeds is how many"),
        (["--suite", "smoke", "--set", "nosuch=1"], "no selected method knows 'nosuch'"),
        (["--suite", "smoke", "--set", "lr"], "--set takes [method.]key=value"),
        (["--suite", "smoke", "--set", "lr=fast"], "must be a number"),
        (["--suite", "smoke", "--set", "stage=5"], "stage is 1 to 4"),
        (["--suite", "smoke", "--set", "backbone=vgg"], "backbone is one of"),
        (["--suite", "smoke", "--set", "precision=half"], "precision is one of"),
        (["--suite", "smoke", "--set", "resize=none"], "resize is one of"),
        (["--suite", "smoke", "--device", "cuda:7"], "--device cuda:7"),
        (["--suite", "smoke", "--method", "nosuch"], "package.module:Class"),
        (["--suite", "smoke", "--method", "nosuch.module:X"], "cannot import"),
        (["--suite", "smoke", "--method", "a:B", "--methods", "cutmix"], "leave --methods out"),
        (["--suite", "smoke", "--set", "lr=nan"], "must be finite"),
        (["--suite", "smoke", "--set", "epochs=0"], "atacnet.epochs must be at least 1, not 0"),
        (["--suite", "smoke", "--set", "view=foo"], "atacnet.view must be one of attention"),
        (["--suite", "smoke", "--set", "external=foo"], "external is one of none, textures"),
        (["--suite", "smoke", "--timeout", "soon"], "--timeout takes seconds from 0.1 on"),
        (["--suite", "smoke", "--timeout", "0.01"], "or none for no limit; not '0.01'"),
        (["--suite", "smoke", "--timeout", "-5"], "--timeout takes seconds"),
        (["--suite", "table1"], "runs cannot be done here"),
    ],
    ids=lambda v: " ".join(v[1:]) if isinstance(v, list) else "",
)
def test_a_bad_request_is_one_line_with_exit_code_2(
    capsys: Capture, arguments: list[str], said: str
) -> None:
    code, _, err = call(capsys, "run", *arguments)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path("results").exists()


def test_a_suite_may_be_an_argument_and_its_state_json(capsys: Capture, warm_cache: Path) -> None:
    store = store_at(Path("results"))
    plan = smoke_plan(Path.cwd(), warm_cache)
    spec = next(r.spec for r in plan.runs if (r.spec.method, r.spec.seed) == ("cutmix", 0))
    fail(store, staged(store, spec), "ValueError: no", spec=spec, kind="method")
    selection = ("--methods", "c*,short*", "--categories", spec.category, "--seeds", "0-0")
    code, out, err = call(capsys, "status", "smoke", *selection, "--json")
    content = json.loads(out)
    assert (code, err) == (1, "")
    assert (content["wanted"], content["failed"], content["done"]) == (4, 1, 0)
    states = {run["run_id"]: run["state"] for run in content["runs"]}
    assert states.pop(spec.run_id) == "failed"
    assert {*states.values()} == {"not run"}
    code, out, _ = call(capsys, "run", "smoke", *selection, "--dry-run", "--json")
    assert (code, json.loads(out)["runs"]) == (0, content["runs"])
    parts = [
        {run["run_id"] for run in json.loads(out)["runs"]}
        for i in range(3)
        for _, out, _ in [
            call(capsys, "status", "--suite", "smoke", *selection, "--json", "--shard", f"{i}/3")
        ]
    ]
    assert set().union(*parts) == {spec.run_id, *states}
    assert sum(map(len, parts)) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "which suite? Name one, such as smoke; `bench list suites` shows them"),
        (["run", "smok"], "unknown suite 'smok' (did you mean smoke?); one of"),
        (["run", "smoke", "--nosuch"], "No such option: --nosuch"),
        (["run", "smoke", "--slots", "0"], "Invalid value for '--slots'"),
        (["run", "smoke", "--slots", "0"], "'--slots': it must be at least 1: `"),
        (["run", "smoke", "--nodes", "0"], "'--nodes': it must be at least 1: `"),
        (["run", "smoke", "--threads", "two"], "'--threads': it must be a whole number: `"),
        (["data", "prepare", "synthetic", "--image-size", "5"], "it must be at least 16: `"),
        (["data", "prepare", "synthetic", "--image-size", "5000"], "it must be at most 4096: `"),
        (["compare", "a", "b", "--margin", "x"], "'--margin': it must be a number: `"),
        (["run", "smoke", "--categories", "Wahser"], "'Wahser' (did you mean washer?)"),
        (["list", "runs", "--categories", "x"], "neither a results folder"),
        (["run", "smoke", "--json"], "--json prints the plan: give --dry-run, too"),
        (["run", "smoke", "--seeds", "4-0"], "--seeds 4-0: 4-0 is empty"),
        (["run", "smoke", "--shard", "9/8"], "--shard takes I/N such as 2/8"),
        (["run", "smoke", "--methods", "x*"], "no method of suite smoke fits 'x*'; there are: at"),
        (["show"], "Missing argument"),
        (["shw"], "No such command 'shw'"),
        (["report", "--out", "-"], "bench reads and writes no pipes; name one"),
        (["data", "fetch", "mvtec"], "cannot fetch 'mvtec' (did you mean mvtec_ad?)"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_a_command_line_lacks_is_one_line_of_one_style(
    capsys: Capture, arguments: list[str], said: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: ")
    assert said in err


def test_every_help_has_an_example_exit_codes_and_words_for_values(capsys: Capture) -> None:
    for words in [[name] for name in EXAMPLES if " " not in name] + [
        name.split() for name in EXAMPLES if " " in name
    ]:
        out = call(capsys, *words, "--help")[1]
        assert f"Example: bench {' '.join(words)}" in " ".join(out.split())
        assert "xit code" in out or "exit 1" in out, words
        options = [line for line in out.splitlines() if "--" in line and "--help" not in line]
        assert not [line for line in options if "<bool>" in line or "<str>" in line]
    out = call(capsys, "run", "--help")[1]
    assert all(f"\u2500 {group} \u2500" in out for group in ("What", "Where", "How", "Keep"))


def test_names_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "smoke" in complete.suites("smo")
    assert complete.methods("devnet,patch") == ["devnet,patchcore", "devnet,patchsvdd"]
    assert complete.datasets("head") == ["head_ct"]
    assert complete.categories("bot") == ["bottle"]


def test_what_is_missing_is_named_with_its_remedy(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.planning.resources.rehearsed", lambda _: 1 << 30)
    code, out, err = call(capsys, "run", "--suite", "table1", "--dry-run", "--datasets", "head_ct")
    assert code == 0
    assert "head_ct is not in" in err
    assert "kaggle.com" in err
    assert "[60 runs]" in err
    assert "0 runs wanted" in out
    _, out, _ = call(capsys, "status", "--suite", "table1")
    assert "missing  1020" in out


def test_what_all_categories_lack_is_said_once(capsys: Capture) -> None:
    code, out, _ = call(capsys, "data", "verify", "mvtec_ad")
    out = " ".join(out.split())
    assert (code, out.count("bench data fetch mvtec_ad")) == (1, 1)
    assert out.count("cannot be used, as mvtec_ad/carpet") == 14


def test_weights_that_do_not_reach_the_stage_are_named(
    capsys: Capture, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    code, _, err = call(
        capsys, "run", "--suite", "reference-cpu", "--dry-run", "--methods", "cutmix",
        "--datasets", "head_ct", "--data", str(shared / "data"),
        "--weights", str(shared / "weights"), "--set", "stage=4",
    )  # fmt: skip
    assert "resnet50_v1_imagenet_to_layer3.pth holds stages 1 to 3 only (stage=3)" in err
    assert code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods = [", "not valid TOML"),
        ('methods = ["cutmix"]', "methods and data must name"),
        ('methods = "cutmix"\ndata = ["synthetic"]', "methods must be a list"),
        ('methods = ["cutmix"]\ndata = ["synthetic"]\nshot = [1]', "unknown key 'shot'"),
        ('methods = ["cutmix"]\ndata = ["synthetic"]\n[set]\nnosuch = 1', "knows 'nosuch'"),
        ('methods = ["cutmix"]\ndata = ["synthetic/nosuch"]', "no category 'nosuch'"),
    ],
    ids=lambda v: "" if "\n" in v else v,
)
def test_a_bad_suite_file_is_one_line(capsys: Capture, text: str, said: str) -> None:
    Path("mine.toml").write_text(text)
    code, _, err = call(capsys, "run", "--suite", "mine.toml")
    assert code == 2
    assert said in err
    assert "mine" in err
    assert err.count("\n") == 1


def test_an_image_that_does_not_decode_is_named_and_fails_its_runs_alone(
    capsys: Capture, warm_cache: Path
) -> None:
    from bench.data.synthetic import generated

    source = generated(warm_cache)
    for category in ("washer", "pellet"):
        shutil.copytree(source / category, Path("data/mine") / category)
    Path("data/mine/washer/test/hole/007.bmp").write_bytes(b"not an image")
    Path("mine.toml").write_text(
        'methods = ["shortcut"]\ndata = ["mine"]\nshots = [1]\nset.image_size = 32'
    )
    code, out, err = call(capsys, "run", "--suite", "mine.toml")
    assert code == 1
    assert "washer/test/hole/007.bmp does not decode" in out
    assert "1 run failed" in out
    assert "mine/pellet" in out
    assert "Traceback" not in out + err


def parts(data: Path, train: int = 4, normal: int = 3, hole: int = 12) -> Path:
    """Make a category of one's own, every picture different."""
    shade = 0
    for place, count in (("train/good", train), ("test/good", normal), ("test/hole", hole)):
        (data / "nuts" / place).mkdir(parents=True)
        for i in range(count):
            shade += 5
            Image.new("RGB", (20, 20), (shade, 99, 0)).save(data / f"nuts/{place}/{i}.png")
    return data / "nuts"


def test_data_that_no_run_can_be_made_of_are_missing_alike_wherever_one_looks(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.doctor.ask", lambda arguments: answer(check("matmul")))
    home = parts(Path("data"))
    for i in range(4):  # the same pixels, in another file
        with Image.open(home / f"train/good/{i}.png") as image:
            image.save(home / f"test/good/copy{i}.bmp")
    said = (
        "nuts: 4 normal training images, of which 4 are also in test/good: 0 are left to train on;"
        " remove them from one of the two"
    )
    Path("mine.toml").write_text('methods = ["shortcut"]\ndata = ["nuts"]\nshots = [1]')
    code, out, err = call(capsys, "run", "--suite", "mine.toml", "--dry-run")
    assert (code, f"missing: {said}" in err) == (0, True)
    assert "m missing" in out
    for command in (["run"], ["run", "--available-only"]):
        code, out, err = call(capsys, *command, "--suite", "mine.toml")
        assert said in err
        assert (code, "0 runs wanted" in out) == ((2, False) if command == ["run"] else (0, True))
    code, out, _ = call(capsys, "data", "verify", "nuts")
    assert code == 1
    assert said in " ".join(out.split())
    code, out, _ = call(capsys, "doctor", "--suite", "mine.toml")
    assert code == 1
    assert said in " ".join(out.split())


def test_few_anomalies_are_named_with_the_draw_that_they_allow_and_then_run(
    capsys: Capture,
) -> None:
    parts(Path("data"), train=6, normal=4, hole=8)
    text = 'methods = ["shortcut"]\ndata = ["nuts"]\nshots = [1]'
    Path("mine.toml").write_text(text)
    code, _, err = call(capsys, "run", "mine.toml", "--dry-run")
    assert (code, "nuts has 8 anomalies that differ; 10 are drawn" in err) == (0, True)
    assert "add 3, or draw fewer: draw = 7 in the suite" in err
    Path("mine.toml").write_text(f"draw = 7\n{text}")
    code, out, _ = call(capsys, "run", "mine.toml", "--threads", "1")
    assert (code, "next: `bench table`, or `bench report`" in out) == (0, True)
    (row,) = json.loads(call(capsys, "list", "runs", "--json")[1])
    shown = json.loads(call(capsys, "show", row["run"], "--json")[1])
    assert (shown["spec"]["draw"], len(shown["draw"]), shown["split"]["test_anomalous"]) == (
        7,
        7,
        1,
    )
    assert call(capsys, "verify")[0] == 0
    assert "draw=7" in call(capsys, "table")[1]


def test_stages_and_images_that_a_method_cannot_do_with_are_missing(capsys: Capture) -> None:
    parts(Path("data"), train=1)
    Path("mine.toml").write_text(
        'methods = ["padim", "spade", "patchsvdd", "shortcut"]\ndata = ["nuts"]\nshots = [1]\n'
        '[set]\nstage = 2\nweights = "none"\nimage_size = 64'
    )
    code, out, err = call(capsys, "run", "--suite", "mine.toml", "--dry-run")
    assert code == 0
    for line in (
        "padim needs stage 3 or more, not 2: --set padim.stage=3",
        "spade needs stage 3 or more, not 2: --set spade.stage=3",
        "patchsvdd needs image_size 67 or more, not 64: --set patchsvdd.image_size=67",
    ):
        assert line in err
    assert "1 run wanted" in out
    call_stage = ("--set", "stage=3", "--methods", "padim")
    code, _, err = call(capsys, "run", "--suite", "mine.toml", "--dry-run", *call_stage)
    assert "nuts: 1 normal training image: 1 is left to train on and 2 are needed; add 1" in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("90 min", 5400), ("90m", 5400), ("1.5", 1.5), ("none", None), ("0", None)],
)
def test_a_time_limit_is_read_with_its_unit(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None
) -> None:
    """The engine is asked for nothing: what it is given counts."""
    from bench.cli import runs

    assert runs._time_limit(text) == seconds
    assert "24h" in call(capsys, "run", "--help")[1]


def test_data_prepare_fills_the_cache_and_says_what_is_unofficial(capsys: Capture) -> None:
    for category in ("bottle", "cable"):
        for place in ("train/good", "test/good", "test/broken"):
            folder = Path("data/mvtec_ad") / category / place
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 20), (9, 9, 9)).save(folder / "000.png")
    code, out, _ = call(capsys, "data", "prepare", "mvtec_ad/bottle", "--image-size", "16")
    assert code == 0
    assert (
        "mvtec_ad/bottle: 3 images at 16 px (unofficial copy: 1 of 209 normal training images; 1 of"
        " 20 normal test images; 1 of 63 anomalous images; 1 of 3 defect types; 20x20 px"
    ) in " ".join(out.split())
    code, _, err = call(capsys, "data", "prepare", "mvtec_ad/nosuch")
    assert code == 2
    assert "no category 'nosuch'" in err


def test_a_home_folder_is_found_where_no_shell_has_expanded_it(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in ("train/good", "test/bent"):
        (tmp_path / "home/data/my_screws" / fold).mkdir(parents=True)
    (tmp_path / "home/mine.toml").write_text("colour = 1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert "my_screws" in call(capsys, "list", "datasets", "--data=~/data")[1]
    assert "unknown key" in call(capsys, "run", "--suite=~/mine.toml")[2]
    monkeypatch.setenv("BENCH_DATA", "~/data")
    assert "my_screws" in call(capsys, "list", "datasets")[1]
    assert "my_screws" in call(capsys, "data", "list")[1]
    code, _, err = call(capsys, "list", "datasets", "--data=~nobody_here/data")
    assert (code, err) == (2, "bench: ~nobody_here/data: there is no such user's home folder\n")


def test_every_command_expands_the_paths_it_receives() -> None:
    commands = [
        *app.registered_commands,
        *app.registered_groups[0].typer_instance.registered_commands,
    ]
    assert len(commands) > 15
    assert {command.callback.__code__.co_name for command in commands} == {"with_homes"}


def test_names_of_ones_own_are_guessed_too(capsys: Capture) -> None:
    parts(Path("data"))
    Path("mine.toml").write_text('methods = ["shortcut"]\ndata = ["nuts"]\nshot = [1]')
    for arguments, said in (
        (["data", "verify", "nutz"], "unknown dataset 'nutz' (did you mean nuts?)"),
        (["data", "verify", "Nuts/nuts"], "dataset name 'Nuts' may hold only"),
        (["run", "mine"], "unknown suite 'mine' (did you mean mine.toml?)"),
        (["run", "mine.tml"], "unknown suite 'mine.tml' (did you mean mine.toml?)"),
        (["status", "./mime.toml"], "no suite file ./mime.toml (did you mean mine.toml?)"),
        (["run", "mine.toml"], "unknown key 'shot' (did you mean shots?)"),
        (["run", "smoke", "--set", "epoch=1"], "knows 'epoch' (did you mean epochs?)"),
        (["run", "smoke", "--set", "devnet.epoch=1"], "'epoch' (did you mean epochs?); it has: "),
    ):
        code, _, err = call(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err


def test_what_is_missing_is_said_once(capsys: Capture) -> None:
    code, _, err = call(capsys, "run", "table1", "--datasets", "head_ct")
    assert code == 2
    assert err.count("kaggle.com") == 1
    assert err.splitlines()[-1].startswith("bench: 60 of 60 runs cannot be done here")


def test_predict_refuses_from_left_to_right_before_any_work(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the model is read before the request is checked")

    monkeypatch.setattr("bench.execution.predict.saved_model", never)
    run_id = store_at(Path("results"), SPEC).ids()[0]
    Path("out").mkdir()
    Path("photos").mkdir()
    Image.new("RGB", (8, 8)).save("photos/a.png")
    bad = ["--out", "out", "--threshold", "x=1", "--device", "cuda:7"]
    for arguments, said in (
        (["ffff", "nowhere", *bad], "ffff"),
        ([run_id, "nowhere", *bad], "there is no file or folder nowhere"),
        ([run_id, "photos", *bad], "--threshold takes"),
        ([run_id, "photos", *bad[:2], *bad[4:]], "out is there already"),
        ([run_id, "photos", *bad[4:]], "--device cuda:7"),
    ):
        code, _, err = call(capsys, "predict", *arguments)
        assert (code, err.count("\n"), said in err) == (2, 1, True), err
