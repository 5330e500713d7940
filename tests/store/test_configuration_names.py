"""Names of configurations."""

from dataclasses import replace

from bench.store.configuration_names import ConfigurationNames
from tests.fixtures.runs import SPEC

BOTTLE = replace(SPEC, method="prn", dataset="mvtec_ad", category="bottle",
                 parameters={"anomalies": "extended"}, masks="a" * 64)  # fmt: skip
PILL = replace(BOTTLE, category="pill", masks="b" * 64)
WITHOUT = replace(BOTTLE, parameters={"anomalies": "simulated"}, masks=None)


def test_masks_of_places_part_no_columns() -> None:
    name = ConfigurationNames([BOTTLE, PILL, WITHOUT])
    assert name(BOTTLE) == name(PILL) == "prn anomalies=extended"
    assert name(WITHOUT) == "prn anomalies=simulated"


def test_other_masks_of_one_place_part_columns() -> None:
    later = replace(BOTTLE, masks="c" * 64)
    name = ConfigurationNames([BOTTLE, later, WITHOUT])
    names = [name(spec) for spec in (BOTTLE, later, WITHOUT)]
    assert names[:2] == [f"prn anomalies=extended masks {digit * 8}" for digit in "ac"]
    assert names[2] == "prn anomalies=simulated"
    assert len({name(replace(BOTTLE, masks=masks)) for masks in ("a" * 64, "c" * 64)}) == 2
