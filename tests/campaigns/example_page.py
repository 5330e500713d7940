"""Makes the pictures of a report in the documents: `python -m tests.campaigns.example_page`.

Opens two pages in headless Chromium. `reports/page.png` shows the verdicts and Table 1 of the runs
that `results/reference/nvidia-h200` holds. `reports/example.png` shows the archived smoke suite:
what no paper prints, and what the zoomed view changed. Needs Debian's `chromium` and
`chromium-driver`.
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench.report.content import contents
from bench.report.page import render
from bench.store.open import open_results
from tests.fixtures.browser import started
from tests.fixtures.runs import ARCHIVES

ROOT = Path(__file__).parents[2]
MARGIN = 24
PICTURES = {
    "example.png": (ARCHIVES / "smoke", 1240, "#other, #zoom", 780),
    "page.png": (
        ROOT / "results" / "reference" / "nvidia-h200",
        820,
        "h1, .counts, #t-atacnet_table1",
        1000,
    ),
}
"""By file: an archive, the width of the window, what is shown, and its greatest height."""
HEIGHT = 6000
"""Of the window: all of the sections is in it."""
TEN_SHOTS = """
const form = document.querySelector("form[data-table=t-atacnet_table1]");
form.ran.checked = true;
form.shots.value = "10";
form.dispatchEvent(new Event("input"));
"""
"""Show what was run with ten labelled anomalies, by the page's own switches."""


def main() -> None:
    """Render, open, and keep what is seen of the elements in 128 colours."""
    for name, (archive, width, selector, tallest) in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.html")
            page.write_text(render(contents(open_results(archive))))
            with started(Path(folder, "profile"), width, HEIGHT) as browser:
                browser.get(page.as_uri())
                browser.execute_script(TEN_SHOTS)
                shown = browser.find_elements("css selector", selector)
                shots = [element.screenshot_as_png for element in shown]
        parts = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
        parts = [part.crop((0, 0, part.width, min(part.height, tallest))) for part in parts]
        picture = ROOT / "reports" / name
        stacked(parts).quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)
        print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Return pictures below each other on white, with a margin around each."""
    size = max(p.width for p in parts), sum(p.height + MARGIN for p in parts)
    picture = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + MARGIN), "white")
    top = MARGIN
    for part in parts:
        picture.paste(part, (MARGIN, top))
        top += part.height + MARGIN
    return picture


if __name__ == "__main__":
    main()
