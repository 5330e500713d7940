"""What several commands share: their options, and how they print."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import RequestError
from bench.system.untrusted import shown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.planning.plan import Folders, Plan


def words(text: str | None) -> tuple[str, ...] | None:
    """Read words with commas between them."""
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def numbers(text: str | None) -> tuple[int, ...] | None:
    """Read whole numbers with commas between them."""
    try:
        return None if text is None else tuple(int(w) for w in words(text) or ())
    except ValueError:
        raise RequestError(f"--shots takes whole numbers with commas, not {text!r}") from None


SuiteOption = Annotated[str, typer.Option("--suite", help="Name of a suite, or a .toml file.")]
SeedsOption = Annotated[int | None, typer.Option(help="Run seeds 0 to N-1.", metavar="N")]
MethodsOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
DatasetsOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
CategoriesOption = Annotated[str | None, typer.Option(help="Only these, with commas.")]
ShotsOption = Annotated[str | None, typer.Option(help="These numbers of shots, with commas.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Bend a run setting or parameter.", metavar="[METHOD.]KEY=VALUE"),
]
MethodOption = Annotated[
    str | None,
    typer.Option(help="Run a method of your own instead.", metavar="PACKAGE.MODULE:CLASS"),
]
DataOption = Annotated[Path, typer.Option(help="Folder of the datasets.", envvar="BENCH_DATA")]
WeightsOption = Annotated[
    Path, typer.Option(help="Folder of backbone weights.", envvar="BENCH_WEIGHTS")
]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the results.", envvar="BENCH_RESULTS")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder of decoded images; by default the user's.", envvar="BENCH_CACHE"),
]
TexturesOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images for methods that use textures, instead of scikit-image's.",
        envvar="BENCH_TEXTURES",
    ),
]
DATA, WEIGHTS, RESULTS = Path("data"), Path("weights"), Path("results")


def console() -> "Console":
    """Return the terminal, or the file or pipe that stands for it."""
    from rich.console import Console

    return Console(soft_wrap=False)


def printable(text: str) -> str:
    """Escape what could steer the terminal, and what stdout's encoding lacks; lines stay lines."""
    encoding = sys.stdout.encoding or "utf-8"  # a StringIO has none
    escaped = "\n".join(shown(line) for line in text.split("\n"))
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str = "") -> None:
    """Print a text as it is: names from outside carry no markup."""
    console().print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def gpus(device: str) -> int:
    """Count the GPUs; torch is asked only where one may be there."""
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return 0
    # Ask the driver, not the runtime: the command itself must not hold a CUDA context.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def folders_of(
    data: Path, weights: Path, results: Path, cache: Path | None, textures: Path | None = None
) -> "Folders":
    """Return the folders that were named, and the user's cache where none was."""
    from bench.planning.plan import Folders

    if cache is None:
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("atacnet-bench"))
    # Not `absolute`: it has to have a name, which `.` has not.
    textures = textures and Path(os.path.abspath(textures))
    return Folders(
        data.absolute(), weights.absolute(), results.absolute(), cache.absolute(), textures
    )


def plan(
    folders: "Folders",
    suite: str,
    seeds: int | None,
    methods: str | None,
    datasets: str | None,
    categories: str | None,
    shots: str | None,
    overrides: list[str] | None,
    method: str | None,
    *,
    download: bool = False,
) -> "Plan":
    """Read a suite, narrow and bend it, and look up its data and weights."""
    from bench.planning.matrix import Narrowing, expand, knows
    from bench.planning.plan import make_plan
    from bench.planning.suite import read_suite
    from bench.registry import Registry

    narrowing = Narrowing(
        methods=words(methods),
        datasets=words(datasets),
        categories=words(categories),
        shots=numbers(shots),
        seeds=seeds,
        overrides=tuple(overrides or ()),
        outside_method=method,
    )
    cells = expand(read_suite(suite), narrowing, Registry(folders.cache), folders.data)
    for text in narrowing.overrides:
        prefix, _, name = text.partition("=")[0].strip().rpartition(".")
        methods_here = {c.method.name: c.method for c in cells if prefix in ("", c.method.name)}
        took = [m.name for m in methods_here.values() if knows(m, name)]
        say(f"--set {text}: taken by {', '.join(took)}")
    return make_plan(cells, folders, download=download)
