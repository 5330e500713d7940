"""Makes the picture of a report in the README: `python -m tests.campaigns.example_page`.

Opens the page of the archived smoke suite in headless Chromium and puts the table of what no paper
prints and the first figures below each other into `reports/example.png`. Needs Debian's `chromium`
and `chromium-driver`.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image

from bench.report.content import contents
from bench.report.page import render
from bench.store.open import open_results
from tests.fixtures.browser import started
from tests.fixtures.runs import ARCHIVES

PICTURE = Path(__file__).parents[2] / "reports" / "example.png"
WIDTH, HEIGHT = 1240, 6000
"""Of the window: all of the sections is in it."""
MARGIN, TALLEST = 24, 780
SECTIONS = ("other", "zoom")


def main() -> None:
    """Render, open, and keep what is seen of the sections in 256 colours."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(render(contents(open_results(ARCHIVES / "smoke"))))
        with started(Path(folder, "profile"), WIDTH, HEIGHT) as browser:
            browser.get(page.as_uri())
            shots = [browser.find_element("id", s).screenshot_as_png for s in SECTIONS]
    parts = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    parts = [part.crop((0, 0, part.width, min(part.height, TALLEST))) for part in parts]
    size = max(p.width for p in parts), sum(p.height + MARGIN for p in parts)
    whole = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + MARGIN), "white")
    top = MARGIN
    for part in parts:
        whole.paste(part, (MARGIN, top))
        top += part.height + MARGIN
    whole.quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
