"""Findings on the published tables: all there, each with its source."""

import tomllib

from bench.published.findings import CONFIDENCE
from bench.published.tables import FOLDER
from tests.fixtures.audit import FOUND


def test_every_finding_is_pinned_here():
    """One that is added, or no longer found, is looked at by someone."""
    assert list(FOUND) == [
        "atacnet_table1-means", "atacnet_table1-inherited-dra_table1",
        "atacnet_table1-copied-devnet-dra-saoe", "atacnet_table1-anomaly-types",
        "atacnet_table1-beaten", "atacnet_table1-duel-dra-1", "atacnet_table1-duel-dra-10",
        "atacnet_table1-gain-toothbrush", "table1-protocol", "table1-medical", "table1-no-spread",
        "table1-one-number", "brain-mri-copies", "head-ct-copies",
        "atacnet_table2-means", "atacnet_table2-pixels-spade", "atacnet_table2-at-odds",
        "atacnet_table2-copied-spade", "atacnet_table2-copied-patchsvdd",
        "atacnet_table2-copied-padim", "atacnet_table2-copied-patchcore",
        "atacnet_table2-copied-atacnet", "atacnet_table2-lowest", "atacnet_table2-test-sets",
        "atacnet_table2-times", "table2-backbone", "table2-own-means", "table2-padim-means",
        "table2-times", "perfect-scores",
        "dra_table1-means", "dra-mean", "dra-files", "dra-rerun",
        "ahl_table7-means", "ahl_table7-rerun-gap", "ahl_table7-rerun-rivals-1",
        "ahl_table7-rerun-rivals-10", "ahl_table7-rerun-mean", "ahl-slips",
        "spade_paper_pixels-means", "fastflow_paper-means", "fastflow_pixels-means",
        "cflow_paper-means", "cflow_paper_pixels-means", "cavga_paper-means",
        "anomalib_flows-means", "prn_paper-means", "prn_paper_pixels-means",
        "prn_port-means", "prn_port_pixels-means",
        "introduction-ratio", "equation-12", "figure-3", "no-ablation", "when-it-crops",
        "no-split", "no-selection-rule", "limits",
    ]  # fmt: skip


def test_what_was_read_has_a_source_and_a_word_on_confidence():
    for key, card in tomllib.loads((FOLDER / "findings.toml").read_text()).items():
        assert card.keys() <= {"about", "text", "evidence", "source", "confidence"}, key
        assert card["source"], key
        assert card["confidence"] in CONFIDENCE, key
    assert {f.confidence for f in FOUND.values()} <= set(CONFIDENCE)
