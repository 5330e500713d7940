"""Sessions for development: `nox` runs lint, typecheck and tests."""

import nox

nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.default_venv_backend = "venv"

PYTEST = ("pytest", "-n", "auto", "--dist", "loadfile")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.install("-e", ".[test]")
    session.run(*PYTEST, *session.posargs)


@nox.session
def campaigns(session: nox.Session) -> None:
    """Kill 200 processes, damage 500 files: is anything lost? An hour."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.campaigns.kill_campaign", "--kills", "200")
    session.run("python", "-m", "tests.campaigns.corruption_campaign", "--damages", "500")


@nox.session
def cluster(session: nox.Session) -> None:
    """Strike nodes, let two hosts share a folder, time engines; SLURM, root and bindfs. An hour."""
    session.install("-e", ".[test]")
    for engine in ("dask", "slurm"):
        for strikes, pause in (("20", "8"), ("100", "4")):
            how = ("--engine", engine, "--strikes", strikes, "--pause", pause)
            session.run("python", "-m", "tests.campaigns.kill_nodes", *how)
    session.run("python", "-m", "tests.campaigns.two_hosts")
    session.run("python", "-m", "tests.campaigns.engine_overhead")
    session.run("python", "-m", "tests.campaigns.coordinator")


@nox.session
def same_numbers(session: nox.Session) -> None:
    """Prove that the tree gives the same numbers as a commit: `nox -s same_numbers -- REV`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.campaigns.same_numbers", *session.posargs)


@nox.session
def steps(session: nox.Session) -> None:
    """Time a training step of every method; wants an idle machine."""
    session.install("-e", ".[test]")
    session.run(
        "python", "-m", "tests.campaigns.step_times", "--threads", "2", "--precision", "bfloat16"
    )


@nox.session
def scale(session: nox.Session) -> None:
    """Render the report of a made-up archive of 20,000 runs; two minutes."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.campaigns.big_report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(python="3.11")
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest release of every direct dependency but torch's two."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    tools = [w for w in extras["test"] if not w.startswith(project["name"])]
    wanted = project["dependencies"] + extras["cluster"] + tools
    oldest = [w.replace(">=", "==") for w in wanted if not w.startswith("torch")]
    session.install("-e", ".", *oldest)
    session.run(*PYTEST, *session.posargs)
