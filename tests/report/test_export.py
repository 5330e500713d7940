"""Tables and figures exported as files."""

import csv
import io
import re
from dataclasses import replace

import pytest
from scipy import stats

from bench.analysis.timing_tables import FIELDS
from bench.report.content import contents
from bench.report.export import exports, write_exports
from tests.fixtures.figures import HOSTILE, checked
from tests.fixtures.times import (
    ATACNET,
    CPU,
    GPU,
    PADIM,
    PATCHCORE,
    files_of_times,
    page_of_times,
    rounds,
    scored,
    timed,
)


def exported(results):
    return dict(exports(contents(results)))


def test_every_table_is_exported_in_three_forms_and_every_figure(store, tmp_path):
    files = exported(store)
    for name in ("atacnet_table1", "atacnet_table2", "findings", "machines", "data"):
        assert {f"{name}.{form}" for form in ("csv", "md", "tex")} <= files.keys()
    assert [f for f in files if f.endswith(".svg")]
    assert write_exports(contents(store), tmp_path / "out") == len(files)
    assert (tmp_path / "out" / "findings.md").read_text() == files["findings.md"]
    assert r"\label{tab:atacnet-table1-10}" in files["atacnet_table1.tex"]
    found = contents(store)
    for figure in found.figures:
        rows = list(csv.reader(io.StringIO(files[f"{figure.slug}.csv"])))
        assert rows[0] == list(figure.numbers[0].columns)
        plain = [[v.replace("\N{MINUS SIGN}", "-") for v in row] for row in figure.numbers[0].rows]
        assert rows[1:] == plain
    printed = {figure.svg: {"pdf": b"%PDF"} for figure in found.figures}
    more = write_exports(found, tmp_path / "more", printed)
    assert more == len(files) + len(found.figures)
    assert (tmp_path / "more" / f"{found.figures[0].slug}.pdf").read_bytes() == b"%PDF"


def test_a_table_as_csv_says_all_that_is_known_of_a_cell(store):
    rows = list(csv.DictReader(io.StringIO(exported(store)["atacnet_table1.csv"])))
    assert len(rows) == 17 * 12
    (row,) = [r for r in rows if (r["category"], r["shots"], r["method"])
              == ("head_ct", "10", "atacnet")]  # fmt: skip
    assert (row["seeds"], row["published"]) == ("3", "0.985")
    assert float(row["mean"]) == pytest.approx(2 / 3)
    assert float(row["std"]) == pytest.approx(0.25 / 3**0.5)
    assert float(row["difference"]) == pytest.approx(2 / 3 - 0.985)
    assert row["verdict"] == "differs"
    assert "stage 3, not 4" in row["basis"]
    assert len(row["runs"].split()) == 3


def test_hostile_names_are_only_names():
    about = {**CPU, "cpu": HOSTILE, "disturbed": HOSTILE}
    mine = replace(PADIM, method="mine", method_source=f"m:{HOSTILE}@" + "c" * 64,
                   parameters={"x": HOSTILE})  # fmt: skip
    there = [scored(mine, 0.9), scored(ATACNET, 0.9), timed(mine, 0.1, on=about),
             timed(replace(mine, parameters={"x": "y"}), 0.1, on=about),
             timed(ATACNET, 0.1, on=about, disturbed=HOSTILE)]  # fmt: skip
    page = page_of_times(*there)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page
    files = files_of_times(*there)
    (drawn,) = [text for name, text in files.items() if re.match(r"time-.*\.svg", name)]
    checked(drawn)
    assert not re.search(r"(?<!\\)<img", files["times.md"])


def test_times_are_exported_with_all_digits():
    bank = {"bank_vectors": 1000, "bank_bytes": 3 << 20}
    files = files_of_times(*rounds(ATACNET, 0.2, 0.4), *rounds(PATCHCORE, 0.1, 0.2, facts=bank),
                     timed(PADIM, 0.01, on=GPU, seed=9))  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(files["times.csv"])))
    assert list(rows[0]) == list(FIELDS)
    by_method = {r["method"]: r for r in rows}
    ours, theirs, fast = (by_method[m] for m in ("atacnet", "patchcore", "padim"))
    assert (fast["machine"], fast["host"], fast["threads"]) == ("Fast GPU", "Host 9", "8")
    assert float(theirs["latency_s"]) == pytest.approx(0.15)
    low, high = stats.t.interval(0.95, 1, 0.15, stats.sem([0.1, 0.2]))
    assert float(theirs["latency_low_s"]) == pytest.approx(low)
    assert float(theirs["latency_high_s"]) == pytest.approx(high)
    assert float(theirs["atacnet_ratio"]) == pytest.approx(2)
    assert (ours["atacnet_ratio"], fast["atacnet_ratio"]) == ("", "")
    assert (theirs["bank_vectors"], theirs["bank_bytes"]) == ("1000", str(3 << 20))
    assert (theirs["published_ms"], ours["published_ms"]) == ("225", "29")
    assert len(theirs["runs"].split()) == 2
    assert files["times.md"].count("| method |") == 2
    assert files["times.tex"].count(r"\begin{table}") == 2
    line = files["atacnet_table2.md"].splitlines()[-1]
    assert line.startswith("| inference, ms an image, on Slow 1000 (1 thread), float32")
    assert "not run \\[480\\]" in line
