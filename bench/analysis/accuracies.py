"""Accuracies that CAVGA's paper prints, beside ours at a threshold fixed on normal images."""

from decimal import Decimal

from bench.analysis.configurations import Configuration, StoredRuns
from bench.analysis.labels import name_of
from bench.analysis.sections import TableSection
from bench.analysis.selection import groups_in_order
from bench.published.tables import Key, published_tables
from bench.text import counted

SOURCE = "cavga_paper"
TITLE = "Accuracies of CAVGA"
READING = (
    "The mean of the accuracies on anomalous and on normal test images, at the 95 % quantile of the"
    " scores of the normal training images. The paper prints such a mean, without the rule of its"
    " threshold, and no AUROC: neither is compared with the other. Its variants with labels have"
    " 2 % of the anomalous images, ours the shots of the row. Mean and standard deviation over"
    " seeds; the published numbers are second-hand, from pictures of a table."
)
COLUMNS = ("data", "shots", "configuration", "published accuracy", "accuracy", "seeds", "AUROC")


def accuracy_table(stored: StoredRuns) -> TableSection | None:
    """Return accuracies of all configurations that have one; None for none."""
    rows = [
        row
        for group in groups_in_order(stored)
        for configuration in stored.groups[group]
        for row in _rows(configuration, name_of(group[0]), group[1])
    ]
    return TableSection("accuracies", TITLE, READING, COLUMNS, tuple(rows)) if rows else None


def _rows(configuration: Configuration, data: str, shots: int) -> list[tuple[str, ...]]:
    """Return the row of a configuration, of runs that train on no anomaly on all test images."""
    metric = "mean_class_accuracy" if shots else "mean_class_accuracy_full"
    ours = configuration.with_metric(metric)
    if ours is None:
        return []
    spread = f" ± {ours.deviation:.3f}" if ours.deviation is not None else ""
    auroc = configuration.with_metric("auroc" if shots else "auroc_full")
    published = _published(configuration)
    return [(
        data, str(shots), configuration.label, "" if published is None else str(published),
        f"{ours.mean:.3f}{spread}", counted(len(ours.receipts), "seed"),
        f"{auroc.mean:.3f}" if auroc else "",
    )]  # fmt: skip


def _published(configuration: Configuration) -> Decimal | None:
    """Return what the paper prints of the variant and category; None for nothing."""
    row = configuration.row
    variant = str(row.parameters.get("variant", "")).replace("_", "").lower()
    key = Key(row.dataset, row.category, 0, f"{row.method}_{variant}", "mean_class_accuracy")
    published = published_tables()[SOURCE].cells.get(key)
    return published.value if published else None
