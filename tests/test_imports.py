"""Who may import whom (DESIGN: the house), read from the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "baselines", "atacnet")
TORCH_AT_MODULE_LEVEL = {"bench.worker", "bench.memory", "bench.timing"}
LEAVES = {"bench.errors", "bench.spec", "bench.metrics", "bench.seeding"}


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


def test_methods_import_only_the_contract_from_bench_and_never_each_other() -> None:
    for name, tree in modules():
        package = name.partition(".")[0]
        if package == "bench":
            continue
        for used in own(imported(tree)):
            if used.startswith("bench"):
                assert used == "bench.detector", f"{name} imports {used}"
            elif used.startswith("baselines"):
                assert used.startswith("baselines.blocks"), f"{name} imports {used}"
            else:
                assert package == "atacnet", f"{name} imports {used}"


def test_only_methods_and_the_worker_import_torch_at_module_level() -> None:
    for name, tree in modules():
        if name.startswith("bench") and name not in TORCH_AT_MODULE_LEVEL:
            heavy = {n.partition(".")[0] for n in at_module_level(tree)} & {"torch", "torchvision"}
            assert not heavy, f"{name} imports {heavy}"


def test_the_harness_never_imports_a_method_by_itself() -> None:
    for name, tree in modules():
        if name.startswith("bench"):
            foreign = {n for n in own(imported(tree)) if not n.startswith("bench")}
            assert not foreign, f"{name} imports {foreign}"


def test_leaves_import_nothing_of_the_project_but_errors() -> None:
    for name, tree in modules():
        if name in LEAVES:
            assert own(imported(tree)) <= {"bench.errors"}, name


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
