"""Options that several commands share, and how they print."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from bench.cli import complete
from bench.errors import RequestError
from bench.system.files import default_cache, expanded
from bench.system.untrusted import one_line
from bench.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from bench.planning.matrix import Selection
    from bench.planning.plan import Folders, Plan
    from bench.planning.suite import Suite
    from bench.store.receipt import Receipt
    from bench.store.results import Results

SuitesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUITE",
        help="Names of suites, or .toml files.",
        show_default=False,
        autocompletion=complete.suites,
    ),
]
SuitesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        metavar="SUITE",
        help="The same; may be given again.",
        autocompletion=complete.suites,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
DataOption = Annotated[Path, typer.Option(help="Folder of the datasets.", envvar="BENCH_DATA")]
ResultsOption = Annotated[Path, typer.Option(help="Folder of the results.", envvar="BENCH_RESULTS")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Cache folder; by default the user's.", envvar="BENCH_CACHE"),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:i.", metavar="DEVICE")
]
SlotsOption = Annotated[int, typer.Option(help="Runs at once on each device.", min=1)]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="CPU threads of a run; by default its share of the cores.", min=1),
]
DATA, WEIGHTS, RESULTS = Path("data"), Path("weights"), Path("results")
ENDLESS = 100_000
"""Columns of what is no terminal: programs read lines, and want them whole."""
EASY_TO_READ = 100

SELECTION_OPTIONS: dict[str, Any] = {
    "seeds": Annotated[
        str | None,
        typer.Option(help="How many seeds (3: seeds 0 to 2), or which ones.", metavar="N|0-4|0,3"),
    ],
    "methods": Annotated[
        str | None,
        typer.Option(
            help="Only these methods; * and ? stand for any characters, in quotes.",
            metavar="NAME,...",
            autocompletion=complete.methods,
        ),
    ],
    "datasets": Annotated[
        str | None,
        typer.Option(
            help="Only these datasets.", metavar="NAME,...", autocompletion=complete.datasets
        ),
    ],
    "categories": Annotated[
        str | None,
        typer.Option(
            help="Only these categories.", metavar="NAME,...", autocompletion=complete.categories
        ),
    ],
    "shots": Annotated[
        str | None, typer.Option(help="Only these numbers of shots.", metavar="K,...")
    ],
    "shard": Annotated[
        str | None,
        typer.Option(
            help="Only the runs whose id is I modulo N: for N machines, each with its own I.",
            metavar="I/N",
        ),
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


_WHAT = ("suite", *SELECTION_OPTIONS, "where", "against", "tuned_by", "value", "spread")
_HOW = ("device", "slots", "threads", "score_batch_size", "timeout", "retry_failed", "stale",
        "available_only", "dry_run")  # fmt: skip
PANELS = {
    **dict.fromkeys(_WHAT, "What"),
    **dict.fromkeys((*FOLDER_OPTIONS, "out", "export"), "Where"),
    **dict.fromkeys(_HOW, "How"),
    **dict.fromkeys(("save_models", "save_maps", "keep_epochs", "overlays"), "Keep"),
}
"""Groups of options in the help."""


@dataclass(frozen=True)
class OptionGroup:
    """Options that become one parameter of a command."""

    options: Mapping[str, tuple[Any, Any]]
    """Annotation and default of each."""
    read: Callable[[Mapping[str, Any]], Any]
    """Makes the parameter's value of theirs."""
    panel: str | None = None
    """Their group in the help, where `PANELS` does not say it."""


def with_options(
    groups: Mapping[str, OptionGroup],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameters of these names by the groups of options that they are."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters
        taken = {name: group for name, group in groups.items() if name in own}
        parameters = []
        for parameter in own.values():
            group = taken.get(parameter.name)
            of_it = {parameter.name: (parameter.annotation, parameter.default)}
            for name, (annotation, default) in (group.options if group else of_it).items():
                if group and group.panel:
                    get_args(annotation)[1].rich_help_panel = group.panel
                parameters.append(
                    inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                    )
                )

        @functools.wraps(command)
        def grouped(**values: Any) -> None:
            for name, group in taken.items():
                values[name] = group.read({n: values.pop(n) for n in group.options})
            command(**values)

        grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        grouped.__annotations__ = {p.name: p.annotation for p in parameters}
        return grouped

    return decorate


def shared_options(
    *,
    selection: Sequence[str] = tuple(SELECTION_OPTIONS),
    folders: Sequence[str] = tuple(FOLDER_OPTIONS),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace parameters `suites`, `selection` and `folders` by options.

    The command then receives the suites' names, one `Selection` and one `Folders`.
    """
    suites = {"suites": (SuitesArgument, None), "suite": (SuitesOption, None)}
    decorate = with_options({
        "suites": OptionGroup(suites, lambda v: [*(v["suites"] or ()), *(v["suite"] or ())]),
        "selection": OptionGroup({n: (SELECTION_OPTIONS[n], None) for n in selection}, _selection),
        "folders": OptionGroup({n: FOLDER_OPTIONS[n] for n in folders}, _folders),
    })  # fmt: skip
    return lambda command: homes_expanded(decorate(command))


def homes_expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Expand `~` in all paths that a command receives; give its options groups."""
    for parameter in inspect.signature(command).parameters.values():
        _describe(parameter.name, parameter.annotation)

    @functools.wraps(command)
    def with_homes(**values: Any) -> None:
        command(**{name: _home_expanded(value) for name, value in values.items()})

    return with_homes


def _home_expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_home_expanded(entry) for entry in value]
    if value == Path("-"):
        raise RequestError("- is no file or folder here: bench reads and writes no pipes; name one")
    return expanded(value) if isinstance(value, Path) else value


def _describe(name: str, annotation: Any) -> None:
    """Give an option its group in the help, and a word for its value."""
    hint, about = get_args(annotation)[:2]
    if isinstance(about, OptionInfo):
        about.rich_help_panel = about.rich_help_panel or PANELS.get(name)
    if about.metavar is None and not isinstance(about, OptionInfo):
        about.metavar = name.upper()
    elif about.metavar is None:
        types = {*get_args(hint), hint}
        words = {bool: "", Path: "PATH", int: "N", str: "TEXT"}
        about.metavar = next((word for kind, word in words.items() if kind in types), None)


def _selection(options: Mapping[str, Any]) -> "Selection":
    """Read the options of `SELECTION_OPTIONS`."""
    from bench.planning.matrix import Selection
    from bench.planning.selectors import read_seeds, read_shard

    return Selection(
        **{n: split_words(options.get(n)) for n in ("methods", "datasets", "categories")},
        shots=split_ints(options.get("shots")),
        seeds=None if options.get("seeds") is None else read_seeds(options["seeds"]),
        shard=None if options.get("shard") is None else read_shard(options["shard"]),
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
    return (cache or default_cache()).absolute()


def print_missing(plan: "Plan") -> list[str]:
    """Print missing inputs with their remedies on stderr; return these lines."""
    from bench.planning.plan import missing_lines

    lines = missing_lines(plan.missing)
    for line in lines:
        print(f"missing: {line}", file=sys.stderr)
    return lines


def readable_runs(stored: "Results") -> "list[Receipt]":
    """Return the runs that verify; note on stderr how many do not."""
    from bench.store.results import receipts

    runs = list(receipts(stored))
    if damaged := len(stored.ids()) - len(runs):
        text = f"note: {counted(damaged, 'damaged run')} left out: `bench verify` says which"
        print(text, file=sys.stderr)
    return runs


def read_where(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `--where`: the values that runs have, and those that they have not."""
    from bench.planning.matrix import assignment

    only: dict[str, Any] = {}
    but: dict[str, Any] = {}
    for text in texts:
        key, wanted = assignment("--where", "key=value or key!=value", text)
        if key.endswith("!"):
            but[key[:-1].strip()] = wanted
        else:
            only[key] = wanted
    return only, but


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
    """Return a console on stdout; a pipe or a file has lines of any length."""
    from rich.console import Console

    screen = Console(soft_wrap=False)
    endless = not screen.is_terminal and "COLUMNS" not in os.environ
    return Console(soft_wrap=False, width=ENDLESS) if endless else screen


def text_width() -> int:
    """Return the width of running text: easy to read, and endless in a pipe."""
    width = console().width
    return width if width == ENDLESS else min(width, EASY_TO_READ)


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
    suite: "Suite",
    selection: "Selection",
    folders: "Folders",
    *,
    download: bool = False,
    tell: Callable[[str], None] | None = None,
) -> "Plan":
    """Plan a suite's selection; `tell` what takes overrides, and the shard."""
    from bench.planning import plan
    from bench.planning.matrix import accepts, expand
    from bench.planning.selectors import in_shard
    from bench.registry import Registry

    tell = tell or say
    planned = expand(suite, selection, Registry(folders.cache), folders.data)
    methods = {p.method.name: p.method for p in planned}
    for text in selection.overrides:
        prefix, _, key = text.partition("=")[0].strip().rpartition(".")
        takers = [n for n, m in methods.items() if prefix in ("", n) and accepts(m, key)]
        tell(f"--set {text}: taken by {', '.join(takers)}")

    def note(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    planned_runs = plan.plan_runs(planned, folders, download=download, note=note)
    shard = selection.shard
    if shard is None:
        return planned_runs
    runs = tuple(r for r in planned_runs.runs if in_shard(r.run_id, shard))
    tell(f"shard {shard[0]}/{shard[1]}: {len(runs)} of {counted(len(planned_runs.runs), 'run')}")
    return replace(planned_runs, runs=runs)
