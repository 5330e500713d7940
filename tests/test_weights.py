import functools
import hashlib
import math
import os

import pytest
import safetensors.torch
import torch
import torchvision

from baselines.blocks.backbone import Backbone
from bench import weights
from bench.detector import BackboneSource
from bench.errors import MissingWeights, RequestError, WeightsError
from bench.networks import tensor_shapes
from bench.system.digests import FingerprintCache, file_digest
from bench.weights import BACKBONES, Known, find_weights, plain_weights
from tests.fixtures.checkpoints import checkpoint, saved, state_dict
from tests.fixtures.command import Bench

CONTENT = checkpoint("resnet50")
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DECLARED = '["mine.pth"]\nbackbone = "resnet50"\nstages = 3\nstrides = "v1"\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def find(folder, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def found(backbone, stage, name, **options):
        digests = FingerprintCache(cache)
        return find_weights(backbone, stage, name, folder, cache, digests, **options)

    return found


@pytest.fixture
def known(monkeypatch):
    """Make the project know CONTENT by the first digits of its digest, to stage 3."""
    url = "https://example.org/resnet50-abc.pth"
    entry = Known(DIGEST[:8], "resnet50", 3, "v1", "ours", url)
    monkeypatch.setattr(weights, "KNOWN", (entry,))
    return entry


@pytest.mark.parametrize("backbone", weights.BACKBONES)
def test_no_weights_are_random_initialisation_at_every_stage(find, backbone):
    for stage in (1, 2, 3, 4):
        found = find(backbone, stage, "none")
        assert found.source == BackboneSource(backbone, stage, None)
        assert found.digest == "none"


def test_every_backbone_can_be_had_from_its_publisher_to_the_last_stage():
    for backbone in weights.BACKBONES:
        first = next(k for k in weights.KNOWN if k.backbone == backbone)
        assert first.url.startswith("https://download.pytorch.org/models/")
        assert first.stages == weights.STAGES
        assert first.sha256 in first.url


@pytest.mark.parametrize("name", ["imagenet", "any.pth"])
def test_weights_are_known_by_their_digest(find, folder, known, name):
    (folder / "any.pth").write_bytes(CONTENT)
    found = find("resnet50", 3, name)
    assert found.source == BackboneSource("resnet50", 3, folder / "any.pth", "v1")
    assert found.digest == DIGEST
    assert found.title == "ours"


def test_a_known_digest_needs_no_declaration_and_heeds_none(find, folder, known):
    (folder / "mine.pth").write_bytes(CONTENT)
    (folder / "weights.toml").write_text(DECLARED.replace('"v1"', '"v1.5"'))
    assert find("resnet50", 2, "mine.pth").source.strides == "v1"


def test_the_preferred_weights_that_fit_are_taken(find, folder, known, monkeypatch):
    deeper = Known(hashlib.sha256(b"deep").hexdigest(), "resnet50", 4, "v1.5", "deep")
    monkeypatch.setattr(weights, "KNOWN", (known, deeper))
    (folder / "a.pth").write_bytes(b"deep")
    (folder / "b.pth").write_bytes(CONTENT)
    assert find("resnet50", 3, "imagenet").title == "ours"
    assert find("resnet50", 4, "imagenet").title == "deep"


def test_torchvisions_own_cache_is_looked_at(find, known, tmp_path):
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "other.pth").write_bytes(CONTENT)
    with pytest.raises(MissingWeights):
        find("resnet50", 3, "imagenet")
    (place / "resnet50-abc.pth").write_bytes(CONTENT)
    assert find("resnet50", 3, "imagenet").source.file == place / "resnet50-abc.pth"


def test_what_is_declared_in_weights_toml_is_taken(find, folder):
    (folder / "mine.pth").write_bytes(CONTENT)
    (folder / "weights.toml").write_text(DECLARED)
    found = find("resnet50", 3, "mine.pth")
    assert found.source == BackboneSource("resnet50", 3, folder / "mine.pth", "v1")
    assert found.digest == DIGEST


def test_what_is_declared_is_never_taken_for_imagenet(find, folder):
    (folder / "mine.pth").write_bytes(CONTENT)
    (folder / "weights.toml").write_text(DECLARED)
    with pytest.raises(MissingWeights):
        find("resnet50", 3, "imagenet")


def test_an_undeclared_file_is_refused_with_what_to_write(find, folder):
    (folder / "mine.pth").write_bytes(CONTENT)
    with pytest.raises(
        WeightsError, match=r'mine.pth is not known.*weights.toml as \["mine.pth"\]'
    ):
        find("resnet50", 3, "mine.pth")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DECLARED.replace("mine", "yours"), "mine.pth is not known by its digest: declare it in"),
        ("", "mine.pth is not known by its digest: declare it in"),
        (DECLARED.replace("resnet50", "resnet51"), "has backbone = 'resnet51'; backbone is one of"),
        (DECLARED.replace('"resnet50"', "[[1]]"), "has backbone = [[1]]; backbone is one of"),
        (DECLARED.replace("3", "5"), "has stages = 5; stages is one of 1, 2, 3, 4"),
        (DECLARED.replace("3", '"3"'), "has stages = '3'; stages is one of"),
        (DECLARED.replace("3", "3.0"), "has stages = 3.0; stages is one of"),
        (DECLARED.replace("3", "true"), "has stages = True; stages is one of"),
        (
            DECLARED.replace('"v1"', '"v2"'),
            "strides = 'v2'; strides of resnet50 is one of v1, v1.5",
        ),
        (DECLARED.replace('strides = "v1"', ""), "lacks strides"),
        (DECLARED + "colour = 1", "has an unknown key 'colour'"),
        ('"mine.pth" = 3', "is 3, not a table"),
        ("[[", "weights.toml is not valid TOML"),
        ("a = " + "[" * 5000, "weights.toml is nested too deeply"),
        ("a = 1979-05-27", "weights.toml holds a date, 1979-05-27"),
        ("a = " + "9" * 5000, "weights.toml holds a number of too many digits"),
        ("# " + "x" * 300_000, "weights.toml: more than 256 KiB"),
    ],
)
def test_a_bad_declaration_is_refused_by_file_key_and_value(find, folder, text, said):
    (folder / "mine.pth").write_bytes(CONTENT)
    (folder / "weights.toml").write_text(text)
    with pytest.raises(WeightsError, match=r"weights.toml") as caught:
        find("resnet50", 3, "mine.pth")
    message = str(caught.value)
    assert said in message
    if "mine.pth" in said or " is one of" in said:
        assert "--set weights=mine.pth" in message


@pytest.mark.parametrize("name", ["weights.toml", "mine.pth"])
def test_what_is_no_readable_file_is_refused(find, folder, name):
    (folder / "mine.pth").write_bytes(CONTENT)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(WeightsError, match=r"not a regular file|no weights file"):
        find("resnet50", 3, "mine.pth")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "a\nb", "\udcff.pth"])
def test_a_name_that_no_file_can_have_is_one_line(find, name):
    with pytest.raises(WeightsError) as caught:
        find("resnet50", 3, name)
    assert str(caught.value).isprintable()


def test_weights_of_another_backbone_are_refused(find, folder, known):
    (folder / "any.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"any.pth holds resnet50, not resnet18"):
        find("resnet18", 3, "any.pth")


def test_a_stage_that_the_file_lacks_is_refused_with_the_one_it_has(find, folder, known):
    (folder / "any.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="stage 4 was asked for: set stage=3"):
        find("resnet50", 4, "any.pth")
    with pytest.raises(MissingWeights, match=r"any.pth holds stages 1 to 3 only .stage=3"):
        find("resnet50", 4, "imagenet")


def test_missing_weights_come_with_the_way_to_obtain_them(find, folder):
    (folder / "other.pth").write_bytes(CONTENT)
    with pytest.raises(MissingWeights) as caught:
        find("resnet18", 4, "imagenet")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert str(folder) in message
    assert "weights=none" in message


@pytest.mark.parametrize("name", ["mine.pth", "../secret.pth", "/etc/hostname", "", "."])
def test_a_name_that_is_no_file_of_the_folder_is_refused(find, folder, name):
    (folder.parent / "secret.pth").write_bytes(CONTENT)
    with pytest.raises(MissingWeights, match="no weights file"):
        find("resnet50", 3, name)


def test_a_folder_that_is_not_there_holds_no_weights(find, folder):
    folder.rmdir()
    with pytest.raises(MissingWeights):
        find("resnet50", 3, "imagenet")


def test_an_unknown_backbone_or_stage_is_refused(find):
    with pytest.raises(RequestError, match=r"resnet18.*not 'resnet51'"):
        find("resnet51", 3, "none")
    for stage in (0, 5, -1):
        with pytest.raises(RequestError, match=f"not {stage}"):
            find("resnet50", stage, "none")


def test_real_weights_are_recognised(shared, warm_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = shared / "weights"
    digests = FingerprintCache(warm_cache)
    resnet = find_weights("resnet50", 3, "imagenet", folder, warm_cache, digests)
    assert resnet.source.file == folder / "resnet50_v1_imagenet_to_layer3.pth"
    assert resnet.source.strides == "v1"
    mobile = find_weights("mobilenet_v2", 4, "imagenet", folder, warm_cache, digests)
    assert mobile.source.file == folder / "mobilenet_v2_imagenet_features.pth"
    assert mobile.source.strides == "v1.5"
    with pytest.raises(MissingWeights, match="stages 1 to 3 only"):
        find_weights("resnet50", 4, "imagenet", folder, warm_cache, digests)


def test_a_shared_cache_changes_nothing_where_the_folder_has_what_fits(
    find, folder, known, tmp_path, monkeypatch
):
    """What another project downloads must not change the ids of a suite."""
    theirs = b"other weights"
    url = "https://example.org/resnet50-0123.pth"
    other = Known(hashlib.sha256(theirs).hexdigest()[:8], "resnet50", 4, "v1.5", "theirs", url)
    monkeypatch.setattr(weights, "KNOWN", (other, *weights.KNOWN))  # preferred, if it were beside
    (folder / "any.pth").write_bytes(CONTENT)
    hub = tmp_path / "torch/hub/checkpoints"
    hub.mkdir(parents=True)
    (hub / "resnet50-0123.pth").write_bytes(theirs)
    assert find("resnet50", 3, "imagenet").title == "ours"
    assert find("resnet50", 4, "imagenet").title == "theirs"  # only there is stage 4


def test_only_a_bottleneck_can_have_the_old_strides(find, folder):
    (folder / "small.pth").write_bytes(checkpoint("resnet18"))
    declaration = folder / "weights.toml"
    for strides, refused in (("v1", True), ("v1.5", False)):
        declaration.write_text(
            f'["small.pth"]\nbackbone = "resnet18"\nstages = 4\nstrides = "{strides}"'
        )
        if refused:
            with pytest.raises(WeightsError, match=r"strides of resnet18 is one of v1.5;") as error:
                find("resnet18", 4, "small.pth")
            assert 'strides = "v1.5", and' in str(error.value)  # what it takes, and no other
        else:
            assert find("resnet18", 4, "small.pth").source.strides == strides


def test_weights_fetched_into_a_shared_cache_can_be_read_by_others(find, cache, known, monkeypatch):
    def retrieve(url, known_hash, fname, path, downloader):
        path.mkdir(parents=True)
        (path / fname).write_bytes(CONTENT)
        (path / fname).chmod(0o600)  # as pooch leaves it
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    before = os.umask(0o022)
    try:
        found = find("resnet50", 3, "imagenet", download=True)
    finally:
        os.umask(before)
    assert found.source.file.parent == cache / "weights"
    assert found.source.file.stat().st_mode & 0o777 == 0o644


# What a file holds

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 102530333\n"


def small(**changes):
    """What PyTorch writes of a ResNet-18, with some tensors of others."""
    return saved(state_dict("resnet18") | {n.replace("__", "."): t for n, t in changes.items()})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: fetch it again"),
        (POINTER, "is a pointer of Git LFS, not the file: fetch it with `git lfs pull`"),
        (b"\n<!DOCTYPE html>\x1b[31m<title>Log in", "is a web page, perhaps of a log-in"),
        (b'{"error": "quota"}', "is no file of weights: neither PyTorch's nor safetensors'"),
        (checkpoint("resnet18")[:9_000], "is cut off or damaged"),
        (saved(state_dict("resnet18"), legacy=True)[:9_000], "is cut off or damaged"),
        (saved(state_dict("resnet18"), legacy=True)[:-1], "is cut off or damaged (1"),
        (safetensors.torch.save({"a": torch.zeros(9)})[:-1], "is cut off or damaged ("),
        (saved(torch.nn.Linear(2, 2)), "holds a pickled torch.nn.modules.linear.Linear, not a"),
        (saved(torch.nn.Linear(2, 2), legacy=True), "holds a pickled torch.nn.modules.linear"),
        (saved(torch.zeros(3)), "holds a pickled object (a tensor), not a state dict alone"),
        (saved({"epoch": 3, "a\x1b[31mb": 2}), "(a table of 'epoch', 'a\\x1b[31mb'), not a state"),
        (checkpoint("resnet50"), "it holds resnet50 to stage 4: declare that"),
        (checkpoint("resnet18", 3), "it lacks 25 tensors of resnet18 to stage 4, layer4.0.conv1"),
        (checkpoint("resnet18", 3), "it holds resnet18 to stage 3: declare that"),
        (
            small(layer1__2__conv1__weight=torch.zeros(64, 64, 3, 3)),
            "resnet18 has no layer1.2.conv1.weight: it is another, perhaps deeper network",
        ),
        (
            small(conv1__weight=torch.zeros(64, 1, 7, 7)),
            "conv1.weight has the shape (64, 1, 7, 7), resnet18's has (64, 3, 7, 7)",
        ),
        (
            saved(state_dict("resnet18", dtype=torch.int8)),
            "conv1.weight is of type CharStorage, not a float",
        ),
        (
            saved({f"net\x1b[2J.{n}": t for n, t in state_dict("resnet18").items()}),
            "; its own first is net\\x1b[2J.conv1.weight",
        ),
    ],
)
def test_what_holds_no_such_network_is_one_plain_line(find, folder, content, said):
    file = folder / "small.pth"
    file.write_bytes(content)
    (folder / "weights.toml").write_text(
        '["small.pth"]\nbackbone = "resnet18"\nstages = 4\nstrides = "v1.5"'
    )
    with pytest.raises(WeightsError) as caught:
        find("resnet18", 4, "small.pth")
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"{file} ")
    assert message.isprintable()


def test_what_is_no_weights_need_not_be_declared(find, folder):
    (folder / "mine.pth").write_bytes(POINTER)
    with pytest.raises(WeightsError, match=r"mine.pth is a pointer of Git LFS"):
        find("resnet18", 4, "mine.pth")


def test_a_published_name_with_other_content_is_told(find, folder):
    for content, said in (
        (POINTER, "is a pointer of Git LFS"),
        (checkpoint("resnet18"), "is another file than the published one of that name"),
    ):
        (folder / "resnet18-f37072fd.pth").write_bytes(content)
        with pytest.raises(MissingWeights, match=f"resnet18-f37072fd.pth {said}"):
            find("resnet18", 4, "imagenet")


def test_another_network_under_a_published_name_is_told(find, folder, monkeypatch):
    url = "https://example.org/resnet18-0123.pth"
    entries = (
        Known("0123", "resnet18", 4, "v1.5", "ours", url),
        Known(DIGEST[:8], "resnet50", 4, "v1.5", "theirs", url.replace("18", "50")),
    )
    monkeypatch.setattr(weights, "KNOWN", entries)
    (folder / "resnet18-0123.pth").write_bytes(CONTENT)
    with pytest.raises(MissingWeights, match=r"resnet18-0123.pth holds resnet50"):
        find("resnet18", 4, "imagenet")


@functools.cache
def torchvision_states():
    with torch.device("meta"):
        models = {b: torchvision.models.get_model(b, weights=None) for b in BACKBONES}
    return {backbone: model.state_dict() for backbone, model in models.items()}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("legacy", [False, True])
def test_each_backbone_is_known_by_its_tensors(find, folder, backbone, legacy):
    network = torchvision_states()[backbone]
    shapes = {n: tuple(t.shape) for n, t in network.items() if "num_batches" not in n}
    heads = {n: s for n, s in shapes.items() if n.startswith(("fc.", "classifier."))}
    assert tensor_shapes(backbone) | heads == shapes
    content = {n: torch.ones(()).expand(t.shape) for n, t in network.items()}
    (folder / "mine.pth").write_bytes(saved(content, legacy=legacy))
    for stages in (1, 4):
        declared = f'["mine.pth"]\nbackbone = "{backbone}"\nstages = {stages}\nstrides = "v1.5"'
        (folder / "weights.toml").write_text(declared)
        assert find(backbone, stages, "mine.pth").source.stage == stages


def random_state(dtype):
    shapes = tensor_shapes("resnet18", 1)
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(s, generator=generator).to(dtype) for n, s in shapes.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("form", ["plain", "legacy", "safetensors", "parallel", "training"])
def test_a_method_gets_plain_float32_whatever_the_form(folder, dtype, form):
    state = random_state(dtype)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    content = {
        "plain": lambda: saved(state),
        "legacy": lambda: saved(state, legacy=True),
        "safetensors": lambda: safetensors.torch.save(state),
        "parallel": lambda: saved(parallel),
        "training": lambda: saved({"epoch": 3, "state_dict": parallel, "lr": [0.1]}),
    }[form]()
    file = folder / ("w.safetensors" if form == "safetensors" else "w.pth")
    file.write_bytes(content)
    staged = folder / "staged"
    staged.mkdir()
    plain = plain_weights(file, staged)
    unchanged = dtype == torch.float32 and form in ("plain", "legacy", "safetensors")
    assert (plain == file) == unchanged
    layers = Backbone(BackboneSource("resnet18", 1, plain), "float32").layers.state_dict()
    assert {layers[n].dtype for n in state} == {torch.float32}
    assert all(torch.equal(layers[n], state[n].float()) for n in state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("form", ["plain", "legacy", "safetensors", "training"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_one_plain_line(folder, dtype, form, value):
    name = "layer1.0.conv1.weight"
    state = random_state(dtype)
    state[name][3, 2, 1, 0] = value
    content = {
        "plain": lambda: saved(state),
        "legacy": lambda: saved(state, legacy=True),
        "safetensors": lambda: safetensors.torch.save(state),
        "training": lambda: saved({"state_dict": state}),
    }[form]()
    file = folder / ("nan.safetensors" if form == "safetensors" else "nan.pth")
    file.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        plain_weights(file, folder)
    assert str(error.value) == (
        f"{file} holds values that are not finite ({name}): get the file again"
    )


def test_a_run_takes_half_precision_of_a_training_script(tmp_path, warm_cache):
    bench = Bench(tmp_path, warm_cache)
    file = tmp_path / "weights" / "half.pth"
    file.parent.mkdir()
    state = {f"module.{n}": t for n, t in random_state(torch.float16).items()}
    file.write_bytes(saved({"state_dict": state}))
    (file.parent / "weights.toml").write_text(
        '["half.pth"]\nbackbone = "resnet18"\nstages = 1\nstrides = "v1.5"'
    )
    code, said = bench("run", "--suite", bench.suite("cutmix"), "--set", "weights=half.pth")
    assert code == 0, said
    (run_id,) = bench.store.ids()
    assert not list(bench.store.folder(run_id).glob("weights*"))
    assert bench.store.read(run_id).spec.weights == file_digest(file)
