import subprocess
import sys

from bench.analysis.choices import choices
from bench.registry import METHODS


def test_the_choices_of_the_methods_are_read_from_their_headers():
    texts = choices()
    assert set(texts) == set(METHODS) - {"spade", "shortcut"}
    assert texts["atacnet"].startswith("The last stage; two convolutions")
    assert texts["atacnet"].endswith("(version 2; version 1 had one set for both).")
    assert not any("\n" in text or "Chosen here" in text for text in texts.values())
    assert texts["memseg"].startswith("The stored images do not train")


def test_torch_is_not_imported_for_them():
    code = "import sys, bench.analysis.choices as c; c.choices(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
