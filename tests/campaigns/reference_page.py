"""Makes the committed page of all reference results: `python -m tests.campaigns.reference_page`.

Merges the archives of `results/reference/`, but those of nightly checks, and has `bench report`
write `reports/reference.html`, numbers and figures without any image of a dataset. A test makes it
again and compares all but the drawings of figures, whose digits follow the libraries, and the
footer.
"""

import os
import re
import tempfile
from pathlib import Path

from bench.cli import main as bench
from bench.planning.rough_times import reference_archives
from bench.store.folder import Store
from bench.store.merge import merge_results
from bench.store.open import open_results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reports" / "reference.html"


def merged(folder: Path) -> Store:
    """Return a results folder with the runs of all archives.

    Of a run that several machines made the GPU's stays, whose archive comes first.
    """
    store = Store(folder)
    for archive in reversed(reference_archives()):
        for run in merge_results(open_results(archive), store):
            assert run.kind != "damaged", f"{archive.name}: {run}"
    return store


def write(page: Path) -> None:
    """Write the page; the current folder is changed meanwhile, so that its footer names none."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        merged(Path(folder, "results"))
        os.chdir(folder)
        try:
            bench(["report", "--out", str(page)])
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            os.chdir(before)


def compared(text: str) -> str:
    """Return what of a page has to be the same."""
    text = re.sub(r"<svg.*?</svg>", "<svg/>", text, flags=re.DOTALL)
    return re.sub(r"<footer>.*?</footer>", "", text, flags=re.DOTALL)


if __name__ == "__main__":
    write(PAGE)
    print(f"{PAGE}: {PAGE.stat().st_size / 1e6:.1f} MB")
