"""All accuracy runs as lines, which the page's script makes a table of."""

from collections.abc import Iterator, Sequence

from bench.analysis.configurations import StoredRuns, is_stale
from bench.analysis.labels import hardware, method_name, name_of
from bench.store.receipt import Receipt

COLUMNS = ("method", "settings", "data", "shots", "seed", "AUROC", "date", "machine", "run")
"""Of the table; in the lines, texts stand as their number in the first line."""
_TEXTS = (0, 1, 2, 7)


def run_lines(stored: StoredRuns) -> str:
    """Return tab-separated lines: first all texts, then a run each, by data and method.

    A page of 20,000 runs stays small, as the texts of a column are few.
    """
    rows = sorted(_rows(stored), key=_order)
    texts = {text: str(i) for i, text in enumerate(dict.fromkeys(_texts(rows)))}
    lines = [[texts[v] if i in _TEXTS else v for i, v in enumerate(row)] for row in rows]
    return "\n".join("\t".join(line) for line in ([*texts], *lines))


def _rows(stored: StoredRuns) -> Iterator[tuple[str, ...]]:
    for (place, shots, method), configurations in stored.groups.items():
        for configuration in configurations:
            settings = configuration.label.removeprefix(method).strip()
            texts = (method_name(method), settings, name_of(place))
            for receipt in configuration.receipts:
                yield (*map(_line, texts), str(shots), *_numbers(receipt))


def _numbers(receipt: Receipt) -> tuple[str, ...]:
    at = receipt.finished_at
    auroc = f"{receipt.metrics.share('auroc'):.4f}" + "\N{DAGGER}" * is_stale(receipt)
    date = f"{at:%Y-%m-%d}" if at else ""
    return str(receipt.spec.seed), auroc, date, _line(hardware(receipt)), receipt.run_id


def _line(text: str) -> str:
    return " ".join(text.split())


def _order(row: Sequence[str]) -> tuple[str, str, int, str, int]:
    return row[2], row[0], int(row[3]), row[1], int(row[4])


def _texts(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (row[i] for row in rows for i in _TEXTS)
