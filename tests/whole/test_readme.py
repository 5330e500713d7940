"""What the documents show is run, printed or looked up as it stands there."""

import contextlib
import functools
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.planning.matrix import Selection, expand
from bench.planning.suite import read_suite, suite_names
from bench.registry import Registry
from bench.store.open import open_results
from bench.store.results import receipts
from tests.campaigns import peer_times, step_times, table1_cost
from tests.fixtures.command import Bench
from tests.test_imports import FLOORS

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "baselines/README.md",
    "bench/README.md",
    "reports/README.md",
    "results/README.md",
)
LONGEST_README = 180
LARGEST_PICTURE = 200_000


@functools.cache
def text_of(document: str) -> str:
    return (ROOT / document).read_text()


@pytest.mark.parametrize(
    ("document", "file", "method", "lines", "shorter"),
    [
        ("README.md", "nearest.py", "nearest:Nearest", 20, ()),
        ("CONTRIBUTING.md", "pooled.py", "pooled:Pooled", 25, ("epochs=5", "lr_step=3")),
    ],
)
def test_the_method_of_ones_own_runs_and_finds_defects(
    tmp_path: Path,
    warm_cache: Path,
    document: str,
    file: str,
    method: str,
    lines: int,
    shorter: tuple[str, ...],
) -> None:
    text = (ROOT / document).read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    body = code.partition("\nclass ")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= lines
    (tmp_path / file).write_text(code)
    bench = Bench(tmp_path, warm_cache)
    exit_code, output = bench.apart(
        "run", "--suite", "smoke", "--method", method, "--categories", "washer", "--shots", "10",
        "--threads", "1", *(word for override in shorter for word in ("--set", override)),
    )  # fmt: skip
    assert exit_code == 0, output
    (receipt,) = receipts(bench.store)
    assert receipt.metrics.auroc > 0.7
    assert receipt.spec.method_source.startswith(f"{method}@")


def shown_commands(text: str) -> set[str]:
    """Return the commands of bench in a document: lines of their own, and spans in a sentence."""
    lines = re.findall(r"^(bench [^#\n]*?)\s*(?:#.*)?$", text, re.MULTILINE)
    prose = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    spans = re.findall(r"`(bench [^`]+)`", prose)
    quoted = re.findall(r"<!-- (bench .*?) -->", text)
    return {" ".join(command.split()) for command in (*lines, *spans, *quoted)}


def test_the_suite_of_own_data_takes_the_draw_that_is_named_beside_it(
    tmp_path: Path, warm_cache: Path
) -> None:
    text = text_of("README.md")
    (suite,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    draw, shots = re.findall(r"`(draw = \d+)` and `(shots = \[.*?\])`", text)[0]
    other = f"{draw}\n" + re.sub(r"shots = \[.*?\]", shots, suite)
    assert other.count("shots") == 1
    for place in ("train/good", "test/hole"):
        (tmp_path / "my_screws" / place).mkdir(parents=True)
    (tmp_path / "my_screws/train/good/0.png").touch()
    for content in (suite, other):
        (tmp_path / "mine.toml").write_text(content)
        read = read_suite(str(tmp_path / "mine.toml"))
        assert expand(read, Selection(), Registry(warm_cache), tmp_path)


@functools.cache
def help_for(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert not ended.value.code
    return out.getvalue()


def test_the_readme_shows_commands() -> None:
    assert len(shown_commands(text_of("README.md"))) >= 7


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_shows_is_understood(document: str) -> None:
    for command in shown_commands(text_of(document)):
        words = [w for w in command.split()[1:] if not w.startswith("-") and w.isalpha()][:2]
        text = help_for(*(words[:2] if words[:1] == ["data"] else words[:1]))
        for option in re.findall(r"(?<!\S)--[a-z-]+", command):
            assert option in text, f"{command}: {option}"
        for suite in re.findall(r"--suite (\S+)", command):
            assert suite in (*suite_names(), "mine.toml"), command
        for archive in re.findall(r"results/reference/[\w-]+", command):
            assert (ROOT / archive / "archive.json").is_file(), command


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_between_documents_leads_somewhere(document: str) -> None:
    prose = re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{document}: {link}"


def test_the_readme_links_to_every_document() -> None:
    missing = [d for d in DOCUMENTS if d != "README.md" and f"]({d}" not in text_of("README.md")]
    assert not missing


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pictures_are_small(document: str) -> None:
    for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(document)):
        picture = (ROOT / document).parent / path
        assert 0 < picture.stat().st_size < LARGEST_PICTURE, path


def test_the_rooms_are_drawn_as_they_are() -> None:
    drawings = re.findall(r"```text\n(.*?)```", text_of("bench/README.md"), re.DOTALL)
    (floors,) = (d for d in drawings if "cli  " in d)
    (way,) = (d for d in drawings if "planning.suite" in d)
    for number, rooms in enumerate(FLOORS):
        (line,) = re.findall(rf"^ {number} .*$", floors, re.MULTILINE)
        assert rooms <= set(line.split()), f"floor {number}"
    top = {path.stem for path in (ROOT / "bench").glob("[a-z]*.py")}
    assert top <= set(re.findall(r"\w+", floors)), "modules outside of the rooms"
    named = re.findall(r"\b(?:cli|[a-z]+)(?:\.[a-z_0-9]+)+\b", way)
    modules = [n for n in named if not n.endswith((".toml", ".RunSpec"))]
    assert len(modules) >= 20
    for module in modules:
        path = ROOT / "bench" / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), module


def test_contributing_names_what_is_there() -> None:
    named = re.findall(r"`((?:bench|baselines|tests)/[\w/.]+)`", text_of("CONTRIBUTING.md"))
    assert len(named) >= 20
    for path in named:
        if "NAME" not in path and "pooled" not in path:
            assert (ROOT / path).exists(), path
    pairs = re.findall(
        r"((?:`\w[\w.]*`(?:, | and )?)+) (?:in|of) `(bench/[\w/.]+\.py)`",
        text_of("CONTRIBUTING.md"),
    )
    assert len(pairs) >= 8
    for names, path in pairs:
        for name in re.findall(r"\w+", names.replace(" and ", " ")):
            assert name in (ROOT / path).read_text(), f"{name} in {path}"


@pytest.mark.parametrize(("document", "tables"), [("README.md", 1), ("results/README.md", 10)])
def test_the_tables_of_results_are_what_their_command_prints(
    document: str,
    tables: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = text_of(document)
    command = r"bench (?:table|times) [^>]*"
    quoted = re.findall(rf"<!-- ({command}) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert len(quoted) >= tables
    monkeypatch.chdir(ROOT)
    for command, printed in quoted:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command)[1:])
        assert not ended.value.code
        assert capsys.readouterr().out.strip() == printed.strip()


@pytest.mark.parametrize(("name", "script"), [("steps", step_times), ("peers", peer_times)])
def test_the_tables_of_times_are_what_was_measured(name: str, script: Any) -> None:
    text = text_of("results/README.md")
    (quoted,) = re.findall(rf"<!-- {name}: (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert script.markdown(json.loads((ROOT / quoted[0]).read_text())) == quoted[1].strip()


def test_what_table_1_takes_follows_from_committed_runs() -> None:
    pattern = r"<!-- cost: (\S+) -->\n(.*?)\n<!-- end -->"
    (quoted,) = re.findall(pattern, text_of("results/README.md"), re.DOTALL)
    costs = table1_cost.costs(receipts(open_results(ROOT / quoted[0])))
    assert table1_cost.markdown(costs) == quoted[1].strip()
    readme = text_of("README.md")
    assert f"about {table1_cost.hours_together(costs):.1f} hours" in readme
    assert f"up to {max(c.gpu_bytes for c in costs.values()) / 2**30:.1f} GiB" in readme
    for size in table1_cost.disk().values():
        assert f"{size / 1e9:.2g} GB" in readme
