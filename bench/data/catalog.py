"""Cards of the datasets: counts, sizes, licences, sources and archives."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import MissingData, RequestError
from bench.spec import NAME
from bench.system.untrusted import one_line, os_reason
from bench.text import meant

OWN_VERSION = 2
"""The data version of own folders and of copies with turned images; 2: EXIF is applied."""
COPIES_VERSION = 3
"""The data version where near copies count as one picture. Not 2, which copies with turned images
had."""


@dataclass(frozen=True)
class CategoryFacts:
    """Facts of a category's official copy."""

    train: int
    """Normal training images."""
    test_normal: int
    defects: Mapping[str, int]
    """Anomalous test images of each defect type."""
    native_size: int | None
    """Side of the square images in pixels; None where sizes vary."""

    @property
    def test_anomalous(self) -> int:
        """Number of anomalous test images."""
        return sum(self.defects.values())

    @property
    def defect_types(self) -> int:
        """Number of defect types."""
        return len(self.defects)

    @property
    def images(self) -> int:
        """Number of images; 0 for an uncounted own dataset."""
        return self.train + self.test_normal + self.test_anomalous


@dataclass(frozen=True)
class SourceArchive:
    """The archive that contains a dataset."""

    entries: tuple[str, ...]
    """What is kept of it, by name; it lies at the top or one folder deep."""
    unpacked: int
    """About how many bytes it takes; so many must be free, and over twice that is no dataset."""
    urls: tuple[str, ...] = ()
    """Where to download it, in order; none where that takes an account."""
    bytes: int = 0
    sha256: str = ""
    """Size and digest, where there is but one such archive."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.urls[0].rpartition("/")[2] if self.urls else "archive"


@dataclass(frozen=True)
class Dataset:
    """A dataset's card."""

    name: str
    title: str
    layout: str
    """`mvtec`, `head_ct`, `brain_mri` or `synthetic`; see `bench.data.layouts`."""
    categories: Mapping[str, CategoryFacts]
    """Official facts by category; a dataset without categories has one, named like itself."""
    licence: str
    source: str
    licence_url: str = ""
    archive: SourceArchive | None = None
    place: str = ""
    """What exists below `{data}` once its archive is unpacked there."""
    fingerprint: str = ""
    """Content fingerprint of the official copy, where it is known."""
    data_version: int = 1
    """Part of every run's identity. Raised by hand when the card's files give other pixels, splits
    or draws."""
    folder: Path | None = field(default=None, compare=False)
    """Set for own datasets, found beside the known ones."""
    near_copies: bool = False
    """Whether near copies count as one picture, see `bench.data.near_copies`. Only where different
    images are not that like each other: aligned parts are."""
    copies_by_hand: tuple[tuple[str, ...], ...] = ()
    """Groups of paths in the official copy, without suffix, that show one picture: those that are
    cropped differently, which their likeness does not tell."""
    note: str = ""
    """What a reader of its numbers must know."""

    def placed(self, data: Path) -> str:
        """Return how to unpack the archive by hand."""
        return f"unpack it so that {self.place.format(data=data)}"

    def remedy(self, data: Path) -> str:
        """Return what to do if the files are missing."""
        if self.archive is None:
            return "there is no such folder"
        fetch, get = f"bench data fetch {self.name}", f"get it from {self.source}"
        if self.archive.urls:
            return f"run `{fetch}`, or {get} and {self.placed(data)}"
        return f"{get} and run `{fetch} --archive FILE`, or {self.placed(data)}"


# Normal train, normal test, side in pixels: Bergmann et al., CVPR 2019, Table 1. Anomalous test
# images of each defect type: the official archive; they add up to the totals of that table.
_MVTEC_FACTS = {
    "carpet": CategoryFacts(
        280, 28, dict(color=19, cut=17, hole=17, metal_contamination=17, thread=19), 1024
    ),
    "grid": CategoryFacts(
        264, 21, dict(bent=12, broken=12, glue=11, metal_contamination=11, thread=11), 1024
    ),
    "leather": CategoryFacts(245, 32, dict(color=19, cut=19, fold=17, glue=19, poke=18), 1024),
    "tile": CategoryFacts(
        230, 33, dict(crack=17, glue_strip=18, gray_stroke=16, oil=18, rough=15), 840
    ),
    "wood": CategoryFacts(
        247, 19, dict(color=8, combined=11, hole=10, liquid=10, scratch=21), 1024
    ),
    "bottle": CategoryFacts(209, 20, dict(broken_large=20, broken_small=22, contamination=21), 900),
    "cable": CategoryFacts(
        224,
        58,
        dict(
            bent_wire=13,
            cable_swap=12,
            combined=11,
            cut_inner_insulation=14,
            cut_outer_insulation=10,
            missing_cable=12,
            missing_wire=10,
            poke_insulation=10,
        ),
        1024,
    ),
    "capsule": CategoryFacts(
        219, 23, dict(crack=23, faulty_imprint=22, poke=21, scratch=23, squeeze=20), 1000
    ),
    "hazelnut": CategoryFacts(391, 40, dict(crack=18, cut=17, hole=18, print=17), 1024),
    "metal_nut": CategoryFacts(220, 22, dict(bent=25, color=22, flip=23, scratch=23), 700),
    "pill": CategoryFacts(
        267,
        26,
        dict(
            color=25,
            combined=17,
            contamination=21,
            crack=26,
            faulty_imprint=19,
            pill_type=9,
            scratch=24,
        ),
        800,
    ),
    "screw": CategoryFacts(
        320,
        41,
        dict(manipulated_front=24, scratch_head=24, scratch_neck=25, thread_side=23, thread_top=23),
        1024,
    ),
    "toothbrush": CategoryFacts(60, 12, dict(defective=30), 1024),
    "transistor": CategoryFacts(
        213, 60, dict(bent_lead=10, cut_lead=10, damaged_case=10, misplaced=10), 1024
    ),
    "zipper": CategoryFacts(
        240,
        32,
        dict(
            broken_teeth=19,
            combined=16,
            fabric_border=17,
            fabric_interior=16,
            rough=17,
            split_teeth=18,
            squeezed_teeth=16,
        ),
        1024,
    ),
}
_MYDRIVE = "https://www.mydrive.ch/shares"
_MVTEC_FILE = "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz"

MVTEC_AD = Dataset(
    name="mvtec_ad",
    title="MVTec AD",
    layout="mvtec",
    categories=_MVTEC_FACTS,
    licence="CC BY-NC-SA 4.0",
    licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    archive=SourceArchive(
        entries=(*_MVTEC_FACTS, "license.txt", "readme.txt"),
        unpacked=5_600_000_000,
        urls=(
            f"{_MYDRIVE}/150996/b52ecdcbf521176e9db9c731f2304b27/{_MVTEC_FILE}",
            f"{_MYDRIVE}/38536/3830184030e49fe74747669442f0f283/{_MVTEC_FILE}",
        ),
        bytes=5_264_982_680,
        sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    ),
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    place="{data}/mvtec_ad/<category>/train/good exists",
)
_KAGGLE = "https://www.kaggle.com/datasets"
_HEAD_CT_PAGE = f"{_KAGGLE}/felipekitamura/head-ct-hemorrhage"
_BRAIN_MRI_PAGE = f"{_KAGGLE}/navoneel/brain-mri-images-for-brain-tumor-detection"

HEAD_CT = Dataset(
    name="head_ct",
    title="Head-CT",
    layout="head_ct",
    categories={"head_ct": CategoryFacts(75, 25, {"hemorrhage": 100}, None)},
    data_version=COPIES_VERSION,
    near_copies=True,
    copies_by_hand=(
        ("head_ct/004", "head_ct/057"),
        ("head_ct/005", "head_ct/022", "head_ct/058"),
        ("head_ct/009", "head_ct/065"),
        ("head_ct/010", "head_ct/066"),
        ("head_ct/011", "head_ct/061"),
        ("head_ct/012", "head_ct/030"),
        ("head_ct/073", "head_ct/095"),
        ("head_ct/104", "head_ct/186"),
        ("head_ct/105", "head_ct/187"),
        ("head_ct/145", "head_ct/148"),
        ("head_ct/146", "head_ct/149"),
        ("head_ct/147", "head_ct/150"),
    ),
    note="Test normals 169, 170 and 173 look like neighbouring slices of training normals 168, 172"
    " and 174, and so do many of consecutive numbers: probably slices of one patient in training"
    " and test, by the split of DevNet, DRA and AHL that is used here.",
    licence="as stated by its author on Kaggle",
    licence_url=_HEAD_CT_PAGE,
    archive=SourceArchive(entries=("head_ct", "labels.csv"), unpacked=60_000_000),
    source=_HEAD_CT_PAGE,
    place="{data}/head_ct/head_ct/000.png to 199.png exist",
    fingerprint="17c35fa6b628255cc7a0ebcc7abe96d04f883bf5d1486778a52e39c9f32baffe",
)
BRAIN_MRI = Dataset(
    name="brain_mri",
    title="Brain-MRI",
    layout="brain_mri",
    categories={"brain_mri": CategoryFacts(72, 26, {"tumor": 155}, None)},
    data_version=COPIES_VERSION,
    near_copies=True,
    copies_by_hand=(
        ("yes/Y26", "yes/Y195"),
        ("yes/Y33", "yes/Y49", "yes/Y163"),
        ("yes/Y36", "yes/Y65"),
        ("yes/Y50", "yes/Y160"),
        ("yes/Y59", "yes/Y113"),
        ("yes/Y61", "yes/Y71", "yes/Y161"),
        ("yes/Y70", "yes/Y255"),
        ("yes/Y74", "yes/Y155"),
        ("yes/Y112", "yes/Y146"),
    ),
    licence="as stated by its author on Kaggle",
    licence_url=_BRAIN_MRI_PAGE,
    archive=SourceArchive(entries=("yes", "no"), unpacked=60_000_000),
    source=_BRAIN_MRI_PAGE,
    place="{data}/brain_mri/yes and {data}/brain_mri/no exist",
    fingerprint="9b53965c8f6922f9fa2bedc98f23997619280c8badf2bf822dca6230210a8e60",
)
_SYNTHETIC_TYPES = {
    "weave": ("cut", "smear", "stain"),
    "speckle": ("scratch", "smear", "stain"),
    "washer": ("chip", "hole", "stain"),
    "pellet": ("chip", "crack", "stain"),
}
SYNTHETIC = Dataset(
    name="synthetic",
    title="Synthetic",
    layout="synthetic",
    categories={
        name: CategoryFacts(64, 32, dict.fromkeys(types, 32), 96)
        for name, types in _SYNTHETIC_TYPES.items()
    },
    licence="MIT, generated by bench.data.synthetic",
    source="embedded",
)
DATASETS = {d.name: d for d in (MVTEC_AD, BRAIN_MRI, HEAD_CT, SYNTHETIC)}


def is_own(name: str) -> bool:
    """Whether a dataset is the user's own, and so nobody's copy."""
    return name not in DATASETS


def has_mvtec_layout(folder: Path) -> bool:
    """Whether `folder` is one category in MVTec's layout."""
    return (folder / "train" / "good").is_dir()


def is_meant_as_category(folder: Path) -> bool:
    """Whether `folder` has a part of MVTec's layout at least."""
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def find_dataset(name: str, data: Path) -> Dataset:
    """Return a dataset's card, known or own below `data`.

    Raises RequestError for a bad name and MissingData where nothing of that name is there.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not NAME.match(name):
        raise RequestError(f"dataset name {name!r:.80} may hold only a-z, 0-9, _ and -")
    folder = data / name
    try:
        categories = _categories_in(folder)
    except OSError as error:
        raise RequestError(f"cannot look for dataset {name!r:.80}: {os_reason(error)}") from error
    bad = [c for c in categories if not NAME.match(c)]
    if bad:
        path = one_line(folder / bad[0])
        raise RequestError(f"category folder {path} may hold only a-z, 0-9, _ and -")
    if not categories:
        path = one_line(folder)
        own = f"{path} holds no train/good, and no category that does"
        if not folder.is_dir():
            own = f"there is no folder {path} in MVTec's layout"
        near = meant(name, (*DATASETS, *_named_folders(data)))
        known = f"{near}: not one of {', '.join(DATASETS)}, and {own}"
        raise MissingData(f"unknown dataset {name!r}{known}")
    facts = {c: CategoryFacts(0, 0, {}, None) for c in categories}
    return Dataset(
        name,
        name,
        "mvtec",
        facts,
        "unknown",
        source=str(folder),
        data_version=OWN_VERSION,
        folder=folder,
    )


def _categories_in(folder: Path) -> list[str]:
    """Return the categories of an own dataset, whose folder may be one itself.

    One that lacks a part is among them, so that it is named and not passed over.
    """
    if has_mvtec_layout(folder):
        return [folder.name]
    if not folder.is_dir():
        return []
    children = [c for c in folder.iterdir() if not c.name.startswith(".")]
    complete = {c.name for c in children if has_mvtec_layout(c)}
    if not complete and is_meant_as_category(folder):
        return [folder.name]
    others = {c.name for c in children if NAME.match(c.name) and is_meant_as_category(c)}
    return sorted(complete | others)


def unlisted_datasets(data: Path) -> list[str]:
    """Return a line for each folder that `find_datasets` leaves out, and why."""
    lines = []
    with contextlib.suppress(OSError):
        for folder in sorted(data.iterdir()):
            if folder.name in DATASETS or folder.name.startswith("."):
                continue
            try:
                if _categories_in(folder):
                    find_dataset(folder.name, data)
                elif folder.is_dir():
                    reason = "it holds no train/good, and no category that does"
                    lines.append(f"not listed: {one_line(folder)}: {reason}")
            except RequestError as error:
                lines.append(f"not listed: {one_line(folder)}: {error}")
    return lines


def _named_folders(data: Path) -> list[str]:
    """Return what below `data` has the name of a dataset."""
    try:
        return sorted(name for name in os.listdir(data) if NAME.match(name))
    except OSError:
        return []


def find_datasets(data: Path) -> list[Dataset]:
    """Return known datasets and the readable ones below `data`."""
    cards = list(DATASETS.values())
    for name in _named_folders(data):
        if name not in DATASETS:
            with contextlib.suppress(MissingData, RequestError):
                cards.append(find_dataset(name, data))
    return cards
