"""Who may import whom (DESIGN: the house), read from the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "baselines", "atacnet")
TORCH_AT_MODULE_LEVEL = {
    "bench.execution.determinism",
    "bench.execution.timing",
}
FLOORS = (
    {"top", "system"},
    {"data", "store"},
    {"planning", "published"},
    {"execution", "analysis"},
    {"report", "doctor"},
    {"cli"},
)
"""The rooms of `bench`: each may use what lies on the floors below, and nothing else."""
NEVER = {room: {"planning", "execution"} for room in ("report", "analysis", "store", "published")}
"""What reads results never reaches for what makes them."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(path.read_bytes())


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return names


def at_module_level(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported(ast.Module([node], []))
    return names


def own(names: set[str]) -> set[str]:
    return {n for n in names if n.partition(".")[0] in PACKAGES}


def is_open_to(module: str, used: str) -> bool:
    """Whether a module of a method may import one of `baselines`: a block, or its own folder's."""
    return folder(used) in ("baselines.blocks", folder(module))


def folder(module: str) -> str:
    """Return the first two names of a module: those of a method, or of the blocks."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize(
    ("module", "used", "allowed"),
    [
        ("baselines.dra", "baselines.blocks.weak", True),
        ("atacnet.detector", "baselines.blocks.weak", True),
        ("baselines.patchcore", "baselines.patchcore.coreset", True),
        ("baselines.patchcore.farthest", "baselines.patchcore.coreset", True),
        ("baselines.patchcore", "baselines.patchsvdd.patches", False),
        ("baselines.patchcore.coreset", "baselines.dra", False),
        ("baselines.patch", "baselines.patchcore", False),
        ("baselines.blocks.frozen", "baselines.patchcore.coreset", False),
        ("atacnet.detector", "baselines.patchcore", False),
        ("baselines.dra", "baselines", False),
        ("baselines.dra", "baselines.blocks_of_others", False),
    ],
)
def test_a_method_reaches_the_blocks_and_its_own_folder(
    module: str, used: str, allowed: bool
) -> None:
    assert is_open_to(module, used) == allowed


def test_methods_import_only_the_contract_from_bench_and_never_each_other() -> None:
    for name, tree in modules():
        package = name.partition(".")[0]
        if package == "bench":
            continue
        for used in own(imported(tree)):
            if used.startswith("bench"):
                assert used == "bench.detector", f"{name} imports {used}"
            elif used.startswith("baselines"):
                assert is_open_to(name, used), f"{name} imports {used}"
            else:
                assert package == "atacnet", f"{name} imports {used}"


def test_only_methods_and_the_worker_import_torch_at_module_level() -> None:
    heavy = {"torch", "torchvision"}
    importing = {
        name
        for name, tree in modules()
        if name.startswith("bench") and {n.partition(".")[0] for n in at_module_level(tree)} & heavy
    }
    assert importing == TORCH_AT_MODULE_LEVEL


def test_the_harness_never_imports_a_method_by_itself() -> None:
    for name, tree in modules():
        if name.startswith("bench"):
            foreign = {n for n in own(imported(tree)) if not n.startswith("bench")}
            assert not foreign, f"{name} imports {foreign}"


def room(module: str) -> str:
    """Return the room that a module of bench lies in: `top` where it lies in none."""
    _, *parts = module.split(".")
    return parts[0] if parts and (ROOT / "bench" / parts[0]).is_dir() else "top"


def arrows() -> dict[str, set[str]]:
    """Return which modules of bench each of them imports, wherever the import stands."""
    trees = {name: tree for name, tree in modules() if name.startswith("bench")}
    targets: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets[name] |= {alias.name for alias in node.names} & trees.keys()
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & trees.keys()
                targets[name] |= inner or {str(node.module)} & trees.keys()
    return targets


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in arrows()} == set().union(*FLOORS) | {"top"}


def test_a_room_imports_only_from_the_floors_below() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for module, targets in arrows().items():
        if module == "bench.__main__":  # the door
            continue
        for target in targets:
            one, other = room(module), room(target)
            below = floor[other] < floor[one] or floor[one] == floor[other] == 0
            assert one == other or below, f"{module} imports {target}"
            assert other not in NEVER.get(one, ()), f"{module} imports {target}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    targets = arrows()
    left = set(targets)
    while leaves := {name for name in left if not targets[name] & left}:
        left -= leaves
    assert not left


def test_what_is_private_to_a_module_stays_there() -> None:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and own({str(node.module)}):
                private = [a.name for a in node.names if a.name.startswith("_")]
                assert not private, f"{name} imports {private} from {node.module}"


def test_nothing_stored_is_ever_executed() -> None:
    """No pickles of results, no eval; torch.load and np.load only in their safe forms."""
    for name, tree in modules():
        assert not imported(tree) & {"pickle", "joblib", "dill", "shelve", "marshal"}, name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            text = ast.unparse(call)
            if isinstance(call.func, ast.Name):
                assert call.func.id not in ("eval", "exec"), f"{name}: {text}"
            elif text.startswith("torch.load("):
                assert "weights_only=True" in text, f"{name}: {text}"
            elif text.startswith("np.load("):
                assert "allow_pickle=False" in text, f"{name}: {text}"


def test_text_has_its_encoding_and_not_the_locales() -> None:
    """What opens files in other ways is seen where `.ci/run` makes EncodingWarning an error."""
    for name, tree in modules():
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            text = ast.unparse(call)
            function = ast.unparse(call.func)
            if function.endswith((".read_text", ".write_text")) or "text=True" in text:
                assert "encoding=" in text, f"{name}: {text}"


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_answers_without_torch() -> None:
    code = """
import contextlib, io, sys
from bench.cli import app
light = (["--help"], ["run", "--help"], ["list", "suites"], ["list", "datasets"], ["audit"])
for arguments in light:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(arguments)
heavy = {"torch", "torchvision", "pandas", "pyarrow", "scipy", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    run_python(code)
