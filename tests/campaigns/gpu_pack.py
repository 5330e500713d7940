"""Packs the images and the weights that the `nightly` suite needs where there is no network.

    python -m tests.campaigns.gpu_pack --data DATA --weights WEIGHTS --out .gpu

Images are JPEG copies of 224 px under their own names, masks PNG: an own dataset, no official one.
The command ends with 1 where pack and checkout together are larger than 64 MiB.
`tests.campaigns.gpu_trial` says how both are used.
"""

import argparse
import shutil
import sys
import tomllib
from pathlib import Path

from PIL import Image

from tests.campaigns.same_numbers import ROOT, git

SUITE = ROOT / "bench/suites/nightly.toml"
WEIGHTS = "resnet50_v1_imagenet_to_layer3.pth"
SIDE = 224
QUALITY = 95
MOST = 64 << 20
"""Bytes that travel to a lent machine."""


def main() -> int:
    """Write the pack and say how large it is; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for category in tomllib.loads(SUITE.read_text())["data"]:
        pack_images(given.data, category, given.out / "data")
    target = given.out / "weights" / WEIGHTS
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(given.weights / WEIGHTS, target)
    pack = sum(f.stat().st_size for f in given.out.rglob("*") if f.is_file())
    tree = sum((ROOT / name).stat().st_size for name in git("ls-files").splitlines())
    print(f"pack {pack / 2**20:.1f} MiB, checkout {tree / 2**20:.1f} MiB")
    return int(pack + tree > MOST)


def pack_images(data: Path, category: str, out: Path) -> None:
    """Copy the files of a category, its images smaller."""
    for source in sorted((data / category).rglob("*")):
        target = out / source.relative_to(data)
        if source.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            shutil.copyfile(source, target)
        elif "ground_truth" in source.parts:
            resized(source, Image.Resampling.NEAREST).save(target, "PNG")
        else:
            resized(source, Image.Resampling.BILINEAR).save(target, "JPEG", quality=QUALITY)


def resized(file: Path, rule: Image.Resampling) -> Image.Image:
    """Return an image at the side that suites take, grey or RGB."""
    with Image.open(file) as image:
        plain = image if image.mode == "L" else image.convert("RGB")
        return plain.resize((SIDE, SIDE), rule)


if __name__ == "__main__":
    sys.exit(main())
