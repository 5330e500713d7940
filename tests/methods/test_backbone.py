from pathlib import Path

import pytest
import torch

from baselines.blocks.backbone import Backbone, normalise
from bench.detector import BackboneSource, MethodError
from bench.weights import BACKBONES

WIDTHS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "wide_resnet50_2": (256, 512, 1024, 2048),
    "mobilenet_v2": (24, 32, 96, 1280),
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_every_stage_has_its_width_and_stride(name: str, stage: int) -> None:
    backbone = Backbone(BackboneSource(name, stage, None), "float32").eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, 64, 64))
    side = 64 // 2 ** (stage + 1)
    assert features.shape == (1, WIDTHS[name][stage - 1], side, side)
    assert backbone.channels == WIDTHS[name][stage - 1]


def test_autocast_ends_at_the_backbone() -> None:
    torch.manual_seed(0)
    exact = Backbone(BackboneSource("resnet18", 2, None), "float32").eval()
    rough = Backbone(BackboneSource("resnet18", 2, None), "bfloat16").eval()
    rough.load_state_dict(exact.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        a, b = exact(images), rough(images)
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert torch.allclose(a, b, rtol=0.1, atol=0.1)


def test_a_state_dict_loads_with_the_strides_it_was_trained_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Backbone(BackboneSource("resnet50", 2, None), "float32").eval()
    file = tmp_path / "weights.pth"
    torch.save(original.layers.state_dict(), file)
    images = torch.rand(1, 3, 64, 64)
    for strides, same in (("v1.5", True), ("v1", False)):
        loaded = Backbone(BackboneSource("resnet50", 2, file, strides), "float32").eval()
        with torch.inference_mode():
            a, b = original(images), loaded(images)
        assert a.shape == b.shape
        assert torch.equal(a, b) == same
        assert all(p.requires_grad for p in loaded.parameters())
    assert loaded.layers.layer2[0].conv1.stride == (2, 2)
    assert loaded.layers.layer2[0].conv2.stride == (1, 1)


def test_a_state_dict_that_lacks_a_layer_is_refused_by_name(tmp_path: Path) -> None:
    shallow = Backbone(BackboneSource("resnet18", 2, None), "float32")
    file = tmp_path / "shallow.pth"
    torch.save(shallow.layers.state_dict(), file)
    with pytest.raises(MethodError, match=r"shallow\.pth lacks .* layer3"):
        Backbone(BackboneSource("resnet18", 3, file), "float32")


def test_real_weights_meet_natural_images_as_their_statistics_say(shared: Path) -> None:
    """With the right strides the inputs of every batch norm match its stored statistics."""
    from bench.data.decode import decode_image

    folder = shared / "data/mvtec_ad/capsule/train/good"
    pictures = [decode_image(p)[0].resize((224, 224)) for p in sorted(folder.iterdir())[:8]]
    batch = torch.stack([
        torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(224, 224, 3)
        for p in pictures
    ])  # fmt: skip
    images = normalise(batch.permute(0, 3, 1, 2).float() / 255)
    file = shared / "weights/resnet50_v1_imagenet_to_layer3.pth"

    def mismatch(strides: str) -> float:
        backbone = Backbone(BackboneSource("resnet50", 3, file, strides), "float32").eval()
        ratios = []

        def watch(module: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
            variance = inputs[0].var((0, 2, 3)) / module.running_var
            ratios.append(variance.median().log().abs())

        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.register_forward_pre_hook(watch)
        with torch.inference_mode():
            backbone(images)
        return torch.stack(ratios).mean().item()

    assert mismatch("v1") < mismatch("v1.5")


def test_normalising_uses_the_statistics_of_imagenet() -> None:
    images = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.allclose(normalise(images), torch.zeros(1, 3, 2, 2), atol=1e-6)
    assert normalise(torch.ones(1, 3, 1, 1))[0, 0].item() == pytest.approx((1 - 0.485) / 0.229)
