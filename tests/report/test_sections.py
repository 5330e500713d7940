"""Sections that a page has only where their runs exist."""

from dataclasses import replace

import pytest

from bench.report.content import contents
from bench.report.export import exports
from bench.report.page import render
from bench.store.artifacts import EPOCHS
from tests.fixtures.runs import SPEC, publish_with, store_at


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_section_is_there_where_its_runs_are(tmp_path, crossed, by_epoch):
    draws = (0, 1) if crossed else (None,)
    specs = [replace(SPEC, seed=s, draw_seed=d) for d in draws for s in (0, 1)]
    store = store_at(tmp_path)
    for spec in specs:
        publish_with(store, *[EPOCHS] * by_epoch, spec=spec)
    shown = contents(store)
    page, files = render(shown), {name for name, _ in exports(shown)}
    for key, there in (("spread", crossed), ("epochs", by_epoch)):
        assert (f'<section id="{key}">' in page) == there
        assert (f'<a href="#{key}">' in page) == there
        assert ({f"{key}.{form}" for form in ("csv", "md", "tex")} <= files) == there
    assert ("2 × 2" in page) == crossed
    assert ("best of 3 epochs" in page) == by_epoch
