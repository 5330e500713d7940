"""`bench audit`: what is printed, checked against itself and its sources."""

from bench.cli.options import say


def audit() -> None:
    """Check the printed tables against their own rows and against where they were copied from."""
    from bench.audit import findings

    about = ""
    for found in findings():
        if found.about != about:
            about = found.about
            say(f"\n{about}")
        say(f"- {found.text}")
        for line in found.evidence:
            say(f"    {line}")
        source = "" if found.source == found.about else f"{found.source}; "
        say(f"    ({source}{found.confidence})")
