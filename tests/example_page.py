"""Makes the picture of a report in the README: `python -m tests.example_page`.

Opens the page of the archived smoke suite in headless Chromium, at the table of what no paper
prints, and writes `reports/example.png`. Needs Debian's `chromium` and `chromium-driver`.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image

from bench.report.contents import contents
from bench.report.page import render
from bench.store import open_results
from tests.browser import started
from tests.fixtures.runs import ARCHIVES

PICTURE = Path(__file__).parents[1] / "reports" / "example.png"
WIDTH, HEIGHT = 1240, 1010


def main() -> None:
    """Render, open, scroll, and keep what is seen in 256 colours."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(render(contents(open_results(ARCHIVES / "smoke"))))
        with started(Path(folder, "profile"), WIDTH, HEIGHT) as browser:
            browser.get(page.as_uri())
            browser.execute_script("document.getElementById('other').scrollIntoView()")
            seen = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    seen.quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
