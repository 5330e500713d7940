"""Makes the picture of a terminal in the README: `python -m tests.campaigns.example_terminal`.

Runs part of the smoke suite, interrupts it, gives the same command again, and draws what both
commands printed as `reports/terminal.svg`. Takes a minute or two.
"""

import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[2] / "reports" / "terminal.svg"
ROOT = Path(__file__).parents[2]
COMMAND = "bench run --suite smoke --categories washer --shots 10 --threads 1"
WIDTH = 92
INTERRUPT_AFTER = "[3/6]"
FONT = "font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace;"
FORMAT = f"""\
<svg class="rich-terminal" viewBox="0 0 {{width}} {{height}}" xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{ {FONT} font-size: {{char_height}}px; line-height: {{line_height}}px; }}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal">
<rect x="0" y="0" width="{{terminal_width}}" height="{{terminal_height}}" />
</clipPath>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})"
 clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""
"""Rich's own without the fonts that it would load from the web."""


def printed(folder: Path, interrupt_after: str = "") -> str:
    """Return what the command prints; interrupt it after a line that begins so."""
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", *COMMAND.split()],
        cwd=folder,
        env={**os.environ, "COLUMNS": str(WIDTH), "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if interrupt_after and line.startswith(interrupt_after):
            process.send_signal(signal.SIGINT)
            lines.append("^C\n")
    process.wait()
    return "".join(lines)


def main() -> None:
    """Run, interrupt, continue, and draw."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for interrupt_after in (INTERRUPT_AFTER, ""):
            console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
            output = printed(Path(folder), interrupt_after)
            console.print(Text("\n".join(line.rstrip() for line in output.rstrip().splitlines())))
    svg = console.export_svg(title="bench", code_format=FORMAT, unique_id="terminal")
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
