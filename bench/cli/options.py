"""Options that several commands share, and how they print."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import RequestError
from bench.system.files import expanded
from bench.system.untrusted import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders, Plan
    from bench.planning.suite import Suite

SuiteOption = Annotated[str, typer.Option("--suite", help="Name of a suite, or a .toml file.")]
NamesOption = Annotated[str | None, typer.Option(help="Only these, separated by commas.")]
DataOption = Annotated[Path, typer.Option(help="Folder of the datasets.", envvar="BENCH_DATA")]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the results.", envvar="BENCH_RESULTS")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Cache folder; by default the user's.", envvar="BENCH_CACHE"),
]
DATA, WEIGHTS, RESULTS = Path("data"), Path("weights"), Path("results")

SELECTION_OPTIONS: dict[str, Any] = {
    "seeds": Annotated[int | None, typer.Option(help="Run seeds 0 to N-1.", metavar="N")],
    "methods": NamesOption,
    "datasets": NamesOption,
    "categories": NamesOption,
    "shots": Annotated[
        str | None, typer.Option(help="Only these numbers of shots, separated by commas.")
    ],
    "set": Annotated[
        list[str] | None,
        typer.Option(help="Override a run setting or parameter.", metavar="[METHOD.]KEY=VALUE"),
    ],
    "method": Annotated[
        str | None,
        typer.Option(help="Run your own method instead.", metavar="PACKAGE.MODULE:CLASS"),
    ],
}
"""Options that select and override a part of a suite; all are None by default."""
FOLDER_OPTIONS: dict[str, tuple[Any, Path | None]] = {
    "data": (DataOption, DATA),
    "weights": (
        Annotated[Path, typer.Option(help="Folder of backbone weights.", envvar="BENCH_WEIGHTS")],
        WEIGHTS,
    ),
    "results": (ResultsOption, RESULTS),
    "cache": (CacheOption, None),
    "textures": (
        Annotated[
            Path | None,
            typer.Option(
                help="Folder of images for methods that use textures, instead of scikit-image's.",
                envvar="BENCH_TEXTURES",
            ),
        ],
        None,
    ),
}
"""Options that name folders, with their defaults."""


def shared_options(
    *,
    selection: Sequence[str] = tuple(SELECTION_OPTIONS),
    folders: Sequence[str] = tuple(FOLDER_OPTIONS),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace parameters `selection` and `folders` by options.

    The command then receives one `Selection` and one `Folders`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters
        parameters: list[inspect.Parameter] = []
        for parameter in own.values():
            if parameter.name == "selection":
                parameters += [_option(n, SELECTION_OPTIONS[n], None) for n in selection]
            elif parameter.name == "folders":
                parameters += [_option(n, *FOLDER_OPTIONS[n]) for n in folders]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            if "selection" in own:
                values["selection"] = _selection({n: values.pop(n) for n in selection})
            if "folders" in own:
                values["folders"] = _folders({n: values.pop(n) for n in folders})
            command(**values)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return homes_expanded(with_options)

    return decorate


def homes_expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Expand `~` in all paths that a command receives."""

    @functools.wraps(command)
    def with_homes(**values: Any) -> None:
        command(**{name: _home_expanded(value) for name, value in values.items()})

    return with_homes


def _home_expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_home_expanded(entry) for entry in value]
    return expanded(value) if isinstance(value, Path) else value


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _selection(options: Mapping[str, Any]) -> "Selection":
    """Read the options of `SELECTION_OPTIONS`."""
    from bench.planning.matrix import Selection

    return Selection(
        **{n: split_words(options.get(n)) for n in ("methods", "datasets", "categories")},
        shots=split_ints(options.get("shots")),
        seeds=options.get("seeds"),
        overrides=tuple(options.get("set") or ()),
        outside_method=options.get("method"),
    )


def _folders(options: Mapping[str, Any]) -> "Folders":
    """Return the absolute folders of `FOLDER_OPTIONS`."""
    from bench.planning.plan import Folders

    defaults: dict[str, Any] = {name: default for name, (_, default) in FOLDER_OPTIONS.items()}
    data, weights, results, cache, textures = {**defaults, **options}.values()
    # Not `absolute`: it has to have a name, which `.` has not.
    textures = textures and Path(os.path.abspath(textures))
    return Folders(
        data.absolute(), weights.absolute(), results.absolute(), cache_or_default(cache), textures
    )


def cache_or_default(cache: Path | None) -> Path:
    """Return the named cache folder, else the user's."""
    if cache is None:
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("atacnet-bench"))
    return cache.absolute()


def split_words(text: str | None) -> tuple[str, ...] | None:
    """Split words at commas; None stays None."""
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def split_ints(text: str | None) -> tuple[int, ...] | None:
    """Split whole numbers at commas; None stays None."""
    try:
        return None if text is None else tuple(int(w) for w in split_words(text) or ())
    except ValueError:
        raise RequestError(
            f"--shots takes whole numbers separated by commas, not {text!r}"
        ) from None


def console() -> "Console":
    """Return a console on stdout."""
    from rich.console import Console

    return Console(soft_wrap=False)


def printable(text: str) -> str:
    """Escape unsafe and unencodable characters; keep lines."""
    encoding = sys.stdout.encoding or "utf-8"  # a StringIO has none
    escaped = "\n".join(one_line(line) for line in text.split("\n"))
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str = "") -> None:
    """Print plain text; names from outside carry no markup."""
    console().print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def gpus(device: str) -> int:
    """Count GPUs; import torch only with a driver."""
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return 0
    # Ask the driver, not the runtime: the command itself must not hold a CUDA context.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def plan_suite(
    suite: "Suite", selection: "Selection", folders: "Folders", *, download: bool = False
) -> "Plan":
    """Plan a suite's selection; print what takes overrides."""
    from bench.planning import plan
    from bench.planning.matrix import accepts, expand
    from bench.registry import Registry

    planned = expand(suite, selection, Registry(folders.cache), folders.data)
    methods = {p.method.name: p.method for p in planned}
    for text in selection.overrides:
        prefix, _, key = text.partition("=")[0].strip().rpartition(".")
        takers = [n for n, m in methods.items() if prefix in ("", n) and accepts(m, key)]
        say(f"--set {text}: taken by {', '.join(takers)}")

    def note(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    return plan.plan_runs(planned, folders, download=download, note=note)
