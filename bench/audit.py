"""The audit of what is printed: findings derived from the published tables by code.

What no table shows is in `bench/published/findings.toml`, with its source and a word on confidence.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from bench.data.catalog import find_dataset
from bench.published import FOLDER, MEANS, TEXTURES, Key, PrintedTable, published

NAMES = {
    "devnet": "DevNet", "dra": "DRA", "saoe": "SAOE", "cutmix": "CutMix", "atacnet": "ATAC-Net",
    "flos": "FLOS", "mlep": "MLEP", "kdad": "KDAD", "ahl_dra": "AHL(DRA)",
    "patchsvdd": "Patch-SVDD", "spade": "SPADE", "padim": "PaDiM", "patchcore": "PatchCore",
    "memseg": "MemSeg",
}  # fmt: skip
"""Methods as they are written in print."""
COMPUTED = "computed from the printed tables"


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of a table should know."""

    key: str
    about: str
    """The title of the table, or what else it is about."""
    text: str
    evidence: tuple[str, ...]
    """The numbers behind it, a line each."""
    source: str
    confidence: str


def findings() -> list[Finding]:
    """Return all findings, by what they are about."""
    tables = published()
    found = [finding for derive in DERIVED for finding in derive(tables)]
    found += read_findings()
    order = list(dict.fromkeys([t.title for t in tables.values()] + [f.about for f in found]))
    return sorted(found, key=lambda f: order.index(f.about))


def read_findings() -> Iterator[Finding]:
    """Give what was read and cannot be computed."""
    for key, card in tomllib.loads((FOLDER / "findings.toml").read_text()).items():
        yield Finding(key, card["about"], card["text"], tuple(card.get("evidence", ())),
                      card["source"], card["confidence"])  # fmt: skip


# Means


@dataclass(frozen=True)
class CheckedMean:
    """A printed mean beside the mean of the rows it stands under."""

    key: Key
    printed: Decimal
    rows: tuple[Decimal, ...]

    @property
    def recomputed(self) -> Decimal:
        """The mean of the rows."""
        return sum(self.rows, Decimal(0)) / len(self.rows)

    @property
    def follows(self) -> bool:
        """Whether it is the printed one to rounding."""
        half = Decimal(5).scaleb(self.printed.as_tuple().exponent - 1)  # type: ignore[operator]
        return abs(self.recomputed - self.printed) <= half

    def __str__(self) -> str:
        return f"{_column(self.key)}: printed {self.printed}, its rows give {self.recomputed:.5f}"


def means(table: PrintedTable) -> list[CheckedMean]:
    """Recompute every printed mean of a table over the rows that stand there."""
    found = []
    for key, printed in table.cells.items():
        if key.category not in MEANS:
            continue
        rows = [
            value
            for other, value in table.rows(key.method, key.shots, key.metric).items()
            if other.dataset == key.dataset
            and (key.category == "mean"
                 or (other.category in TEXTURES) == (key.category == "mean_texture"))
        ]  # fmt: skip
        found.append(CheckedMean(key, printed.value, tuple(rows)))
    return found


def _means(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    for table in tables.values():
        checked = means(table)
        wrong = [m for m in checked if not m.follows]
        if checked:
            right = len(checked) - len(wrong)
            text = f"{right} of {len(checked)} printed means follow from their rows."
            yield _computed("means", table, text, map(str, wrong))


def _inherited_slips(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    for table in tables.values():
        wrong = {m.key: m for m in means(table) if not m.follows}
        for other, _ in table.copied:
            there = {m.key for m in means(tables[other]) if not m.follows}
            shared = [m for key, m in wrong.items() if key in there
                      and tables[other].cells[key].value == m.printed]  # fmt: skip
            if shared:
                text = f"A wrong mean was taken over from {tables[other].title} with its rows."
                yield _computed(f"inherited-{other}", table, text, map(str, shared))


def _means_of_another_metric(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    for table in tables.values():
        for wrong in (m for m in means(table) if not m.follows):
            for other in tables.values():
                found = _pixel_mean(other, wrong.key)
                if found is not None and round(found, 3) == wrong.printed:
                    text = (f"The printed {_column(wrong.key)} is the mean of pixel-level AUROCs, "
                            "though its rows are image-level.")  # fmt: skip
                    lines = [str(wrong), f"{other.title}: mean of the pixel rows {found:.4f}"]
                    key = f"pixel-{wrong.key.method}-{wrong.key.category}"
                    yield _computed(key, table, text, lines)


def _pixel_mean(table: PrintedTable, key: Key) -> Decimal | None:
    rows = [
        value
        for other, value in table.rows(key.method, key.shots, "pixel_auroc").items()
        if key.category == "mean"
        or (other.category in TEXTURES) == (key.category == "mean_texture")
    ]
    return sum(rows, Decimal(0)) / len(rows) if rows else None


def _implied_means(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Where means over textures and objects cannot both hold beside the mean over all."""
    for table in tables.values():
        printed = {(k.category, k.method): p.value for k, p in table.cells.items()
                   if k.category in MEANS}  # fmt: skip
        for method in dict.fromkeys(m for c, m in printed if c == "mean_texture"):
            texture, thing, whole = (
                printed[c, method] for c in ("mean_texture", "mean_object", "mean")
            )
            implied = (5 * texture + 10 * thing) / 15
            if abs(implied - whole) > Decimal("0.001"):
                text = (f"The printed means of {NAMES[method]} over textures and objects imply "
                        f"{implied:.3f} over all; printed is {whole}.")  # fmt: skip
                yield _computed(f"implied-{method}", table, text, ())


# Copies


def _copies(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    for table in tables.values():
        for name, methods in table.copied:
            other = tables[name]
            pairs = _shared(table, other, methods)
            unequal = [key for key, (one, two) in pairs.items() if one != two]
            text = (f"{len(pairs) - len(unequal)} of {len(pairs)} numbers of "
                    f"{_and(NAMES[m] for m in methods)} are those of {other.title} "
                    f"({other.states}).")  # fmt: skip
            lines = [f"{_cell(k)}: printed {pairs[k][0]}, there {pairs[k][1]}" for k in unequal]
            yield _computed(f"copied-{'-'.join(methods)}", table, text, lines)


def _shared(
    table: PrintedTable, other: PrintedTable, methods: Iterable[str]
) -> dict[Key, tuple[Decimal, Decimal]]:
    """Return the image AUROCs that two tables both print, means left out."""
    return {
        key: (printed.value, other.cells[key].value)
        for key, printed in table.cells.items()
        if key.method in methods and key in other.cells
        and key.category not in MEANS and key.metric == "image_auroc"
    }  # fmt: skip


# Claims


def _beaten(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    table = tables["atacnet_table1"]
    for shots in (1, 10):
        ours = table.rows("atacnet", shots)
        lines = []
        for key, value in ours.items():
            others = {m: table.rows(m, shots) for s, m in table.columns() if s == shots}
            above = [
                f"{NAMES[m]} {rows[replace(key, method=m)]}"
                for m, rows in others.items()
                if rows[replace(key, method=m)] > value
            ]
            if above:
                lines.append(f"{key.category}: ATAC-Net {value}, {', '.join(above)}")
        text = (f"At {_shots(shots)} another method is above ATAC-Net in {len(lines)} of "
                f"{len(ours)} rows.")  # fmt: skip
        yield _computed(f"beaten-{shots}", table, text, lines)


def _duel(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    table, source = tables["atacnet_table1"], tables["dra_table1"]
    for shots in (1, 10):
        ours, theirs = (
            {k.category: v for k, v in table.rows(m, shots).items() if k.dataset == "mvtec_ad"}
            for m in ("atacnet", "dra")
        )
        gaps = {c: ours[c] - theirs[c] for c in ours}
        won, lost = (sum(sign * g > 0 for g in gaps.values()) for sign in (1, -1))
        lead = sum(gaps.values(), Decimal(0)) / len(gaps)
        spread = max((p.std, k.category) for k, p in source.cells.items()
                     if (k.method, k.shots) == ("dra", shots) and p.std is not None
                     and k.dataset == "mvtec_ad")  # fmt: skip
        text = (f"Against DRA at {_shots(shots)} over MVTec AD: {won} won, "
                f"{len(gaps) - won - lost} tied, {lost} lost; the mean lead is {lead:.3f}, where "
                f"DRA's own standard deviation over three runs reaches {spread[0]} "
                f"({spread[1]}).")  # fmt: skip
        yield _computed(f"duel-dra-{shots}", table, text, ())


def _gain_by_labels(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    """Where ten times the labels bring ATAC-Net next to nothing, though much was left to gain."""
    table = tables["atacnet_table1"]
    methods = list(dict.fromkeys(m for _, m in table.columns()))
    for key, one in table.rows("atacnet", 1).items():
        few = {m: table.cells[replace(key, method=m)].value for m in methods}
        many = {m: table.cells[replace(key, method=m, shots=10)].value for m in methods}
        gain = many["atacnet"] - one
        if one < Decimal("0.9") and gain < Decimal("0.02"):
            best = max(methods, key=many.__getitem__)
            text = (f"On {key.category} ATAC-Net gains {gain} from ten times the labels; "
                    f"{NAMES[best]} is the best there at ten shots.")  # fmt: skip
            lines = [f"{NAMES[m]}: {many[m] - few[m]:+}" for m in methods]
            yield _computed(f"gain-{key.category}", table, text, lines)


def _lowest_of_table_2(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    table = tables["atacnet_table2"]
    lines = []
    for key, value in table.rows("atacnet", 10).items():
        above = [
            f"{NAMES[m]} {other}"
            for s, m in table.columns()
            for k, other in table.rows(m, s).items()
            if k.category == key.category and other > value
        ]
        if len(above) >= 3:
            rank = "the lowest of all" if len(above) == 5 else f"below {len(above)} of 5"
            lines.append(f"{key.category}: ATAC-Net {value} is {rank}: {', '.join(above)}")
    lowest = [line.partition(":")[0] for line in lines if "lowest of all" in line]
    text = (f"ATAC-Net is the lowest of all six methods on {_and(lowest)}, where the paper names "
            "toothbrush alone; it is below most of them in "
            f"{len(lines)} of 15 categories.")  # fmt: skip
    yield _computed("lowest", table, text, lines)


def _test_sets(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    table, source = tables["atacnet_table2"], tables["atacnet_table1"]
    pairs = _shared(table, source, ("atacnet",))
    if any(one != two for one, two in pairs.values()):
        return
    facts = find_dataset("mvtec_ad", Path()).categories
    few = sorted(((f.test_anomalous, c) for c, f in facts.items() if f), key=lambda x: x[0])[:3]
    text = ("ATAC-Net's column is its ten-shot column, scored without the ten labelled anomalies; "
            "the other columns were scored on the whole test sets.")  # fmt: skip
    lines = [f"{c}: {n - 10} of {n} anomalous test images are left" for n, c in few]
    yield _computed("test-sets", table, text, lines)


# Runs again


def _reruns(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    again, first = tables["ahl_table7"], tables["dra_table1"]
    pairs = _shared(again, first, ("devnet", "dra"))
    far = sorted(pairs, key=lambda k: abs(pairs[k][0] - pairs[k][1]), reverse=True)[:8]
    widest = abs(pairs[far[0]][0] - pairs[far[0]][1])
    text = (f"The same authors' code gives up to {widest} AUROC difference between two papers "
            "(same methods, same categories).")  # fmt: skip
    lines = [f"{_cell(k)}: {first.title} {pairs[k][1]}, run again {pairs[k][0]}" for k in far]
    yield _computed("rerun-gap", again, text, lines)


def _rerun_rivals(tables: Mapping[str, PrintedTable]) -> Iterator[Finding]:
    again, table = tables["ahl_table7"], tables["atacnet_table1"]
    for shots in (1, 10):
        lines = []
        for key, value in table.rows("atacnet", shots).items():
            above = [
                f"{NAMES[m]} {again.cells[replace(key, method=m)].value}"
                for m in ("devnet", "dra")
                if again.cells[replace(key, method=m)].value > value
            ]
            if above:
                lines.append(f"{key.category}: ATAC-Net {value}, {', '.join(above)}")
        text = (f"Taking DevNet and DRA as they were run again, one of them is above ATAC-Net at "
                f"{_shots(shots)} in {len(lines)} rows.")  # fmt: skip
        yield _computed(f"rerun-rivals-{shots}", again, text, lines)


DERIVED: tuple[Callable[[Mapping[str, PrintedTable]], Iterator[Finding]], ...] = (
    _means, _inherited_slips, _means_of_another_metric, _implied_means, _copies, _beaten, _duel,
    _gain_by_labels, _lowest_of_table_2, _test_sets, _reruns, _rerun_rivals,
)  # fmt: skip


# Words


def _computed(key: str, table: PrintedTable, text: str, evidence: Iterable[str]) -> Finding:
    return Finding(f"{table.name}-{key}", table.title, text, tuple(evidence), table.title, COMPUTED)


def _shots(shots: int) -> str:
    return {1: "one shot", 10: "ten shots"}.get(shots, f"{shots} shots")


def _column(key: Key) -> str:
    what = {
        "mean": "mean",
        "mean_texture": "mean over textures",
        "mean_object": "mean over objects",
    }
    return f"{what[key.category]} of {NAMES[key.method]}" + (
        f", {_shots(key.shots)}" if key.shots else ""
    )


def _cell(key: Key) -> str:
    return f"{key.category}, {_method(key)}"


def _method(key: Key) -> str:
    return NAMES[key.method] + (f", {_shots(key.shots)}" if key.shots else "")


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
