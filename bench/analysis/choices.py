"""What papers leave open and we chose, as the headers of the methods say."""

import ast
import re

from bench.code import module_file
from bench.registry import METHODS

_OPENING = "Chosen here"


def choices() -> dict[str, str]:
    """Return the choices of each method that made any, by name.

    Read from the syntax tree: a method is not imported, and so neither is torch.
    """
    texts = {name: _chosen(_header(entry.path)) for name, entry in METHODS.items()}
    return {name: text for name, text in texts.items() if text}


def _header(path: str) -> str:
    """Return the docstring of a method's module."""
    file = module_file(path.partition(":")[0])
    assert file is not None, "a method of the registry has a module"
    return ast.get_docstring(ast.parse(file.read_bytes())) or ""


def _chosen(header: str) -> str:
    """Return a header from `Chosen here` to the end of the paragraph, on one line."""
    (paragraph, *_) = [p for p in header.split("\n\n") if _OPENING in p] or [""]
    text = " ".join(paragraph[paragraph.find(_OPENING) :].split()) if paragraph else ""
    text = re.sub(rf"^{_OPENING}[^:]*:\s*(- )?", "", text).replace(". - ", ". ")
    return text[:1].upper() + text[1:]
