"""Examples and exit codes at the end of each command's help."""

import inspect
import re

EXAMPLES = {
    "run": "bench run table1 --methods 'atac*,devnet' --seeds 0-4 --shard 2/8",
    "status": "bench status table1 --seeds 5 --json",
    "list": "bench list runs --methods atacnet --shots 10 --format csv",
    "predict": "bench predict 3f2a photos/ --threshold fpr=0.01",
    "table": "bench table --where stage=3 --against view=raw --format csv",
    "show": "bench show 3f2a",
    "times": "bench times --format csv",
    "report": "bench report --data data --export tables/",
    "audit": "bench audit 'table 2'",
    "verify": "bench verify --results my_archive",
    "compare": "bench compare results other/results --margin 0.005",
    "merge": "bench merge other/results my_archive",
    "archive": "bench archive --out my_archive",
    "forget": "bench forget --datasets old_screws",
    "regress": "bench regress --reference my_archive --suite nightly",
    "doctor": "bench doctor --suite table1",
    "worker": "bench worker --scheduler tls://head:8786 --tls certificates",
    "crosscheck": "bench crosscheck --python anomalib/bin/python",
    "data list": "bench data list",
    "data fetch": "bench data fetch mvtec_ad --accept-licence",
    "data verify": "bench data verify my_screws",
    "data prepare": "bench data prepare mvtec_ad/bottle --image-size 224",
}


def epilog(command: str, docstring: str | None) -> str:
    """Return a command's example, and its exit codes where the docstring has none."""
    stated = re.search(r"exit (code )?\d|exit code", docstring or "", re.IGNORECASE)
    codes = "" if stated else "\n\nExit code: 0 done, 2 the request cannot be met."
    return f"Example: {EXAMPLES[command]}{codes}"


def paragraphs(docstring: str | None) -> str:
    """Return a docstring with a line for each paragraph, for a terminal of any width."""
    parts = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)
