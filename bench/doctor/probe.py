"""Measure torch in a process of its own: `python -m bench.doctor.probe`.

A broken build may crash, hang or answer nonsense, so `bench doctor` never asks in its own process.
It also starts a process, as each run has one. The answer is one JSON object on stdout. Arguments
are a cache folder and names of methods: those are imported too, and what the registry must know of
them is kept in the cache. What no method relies on, and hangs or crashes on some CPUs, is measured
in processes of its own, one for each device and number of threads: where one hangs, the others
still answer.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.system.host import cpu_count, nvidia_driver
from bench.system.path import safe_environment
from bench.system.untrusted import os_reason

COMMAND = (sys.executable, "-m", "bench.doctor.probe")
TIMEOUT_S = 180.0
"""Time limit: the work takes seconds, but a cold disk reads torch for a minute."""
OPTIONAL_TIMEOUT_S = 10.0
"""Time limit of the optional checks, with the import of torch; on some CPUs they never end."""
OPTIONAL = "--optional"

Floats = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """A calculation whose right answer is known."""

    name: str
    measure: Callable[[str], float]
    """Takes a device, returns how far off the result is."""
    limit: float
    required: bool
    """Whether a method of this project relies on it."""


def ask(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the probe; return its answer, or `error`."""
    # As for a run.
    environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **os.environ, **safe_environment()}
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the probe gave no answer in {TIMEOUT_S:g} s"}
    except OSError as error:
        return {"error": f"{COMMAND[0]} cannot be started ({os_reason(error)})"}
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.keys() & {"error", "checks"}:
        return answer
    if done.returncode < 0:
        name = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        return {"error": f"the probe was ended by a signal ({name})"}
    last = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-1:]
    return {"error": f"the probe gave no answer ({''.join(last)[:80] or 'it said nothing'})"}


def print_answer() -> None:
    """Print the report, or `error` with the reason."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # C libraries print to stdout (oneMKL does): from here on that is stderr
    if sys.argv[1:2] == [OPTIONAL]:
        with answer:
            signal.setitimer(signal.ITIMER_REAL, float(sys.argv[4]))  # ends also what hangs in C
            for check in _measure([(sys.argv[2], int(sys.argv[3]))], required=False):
                print(json.dumps(check), file=answer, flush=True)
        return
    try:
        report = _report(*sys.argv[1:])
    except Exception as error:  # whatever a broken installation raises when it is imported
        report = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    with answer:
        json.dump(report, answer)


def _report(cache: str = "", *methods: str) -> dict[str, Any]:
    process = _start_process()
    started = time.monotonic()
    import torch
    import torchvision  # noqa: F401  it fails to import where its version does not fit torch's

    seconds = time.monotonic() - started
    gpus = list(_gpus())
    # Devices and numbers of threads to check.
    devices = [("cpu", threads) for threads in sorted({1, cpu_count()})]
    devices += [(f"cuda:{i}", 1) for i in range(len(gpus))]
    return {
        "torch": torch.__version__,
        "import_s": seconds,
        "gpus": gpus,
        "bfloat16_speedup": _bfloat16_speedup(),
        "checks": [*_measure(devices, required=True), *_optional(devices)],
        "methods": dict(_import_methods(Path(cache), methods)),
        "process": process,
    }


def _start_process() -> dict[str, Any]:
    """Start a process as a run's is started; return seconds and socket folder, or `error`."""
    from bench.errors import BenchError
    from bench.execution.engines.local import LocalEngine
    from bench.execution.engines.sockets import open_socket_folder

    started = time.monotonic()
    try:
        with LocalEngine([], preload=[], timeout=None):
            seconds = time.monotonic() - started
            return {"seconds": seconds, "sockets": str(open_socket_folder())}
    except BenchError as error:
        return {"error": str(error)}


def _gpus() -> Iterator[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        yield {
            "name": torch.cuda.get_device_name(i),
            "free": free,
            "total": total,
            "capability": ".".join(map(str, torch.cuda.get_device_capability(i))),
            "driver": nvidia_driver() or "unknown",
        }


def _bfloat16_speedup() -> float:
    """Return the speedup of a convolution in bfloat16 over float32 on the CPU.

    With one thread, in turns, the best of many, so that other load does not matter; of few where
    one of them is very slow.
    """
    import torch

    torch.set_num_threads(1)
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1)
    images = torch.randn(2, 64, 56, 56)
    times: dict[bool, list[float]] = {False: [], True: []}
    begun = time.perf_counter()
    for turn in range(40):
        if turn >= 6 and not turn % 2 and time.perf_counter() - begun > 1:
            break
        bfloat16 = bool(turn % 2)
        started = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            convolution(images)
        times[bfloat16].append(time.perf_counter() - started)
    return min(times[False]) / min(times[True])


def _measure(devices: Iterable[tuple[str, int]], *, required: bool) -> Iterator[dict[str, Any]]:
    """Yield the results of checks, with a run's switches, on every device."""
    from bench.execution.determinism import make_deterministic

    for device, threads in devices:
        make_deterministic(threads, seed=0)
        for check in (c for c in CHECKS if c.required == required):
            residual, error = float("nan"), ""
            try:
                residual = check.measure(device)
            except Exception as raised:  # a check that cannot be done has failed
                message = str(raised).strip() or type(raised).__name__
                error = message.splitlines()[0].partition(". ")[0]
            yield _outcome(check, device, threads, residual, error)


def _outcome(
    check: Check, device: str, threads: int, residual: float, error: str
) -> dict[str, Any]:
    return {
        "device": device,
        "threads": threads,
        "name": check.name,
        "residual": residual,
        "limit": check.limit,
        "right": residual <= check.limit,  # so NaN is wrong
        "required": check.required,
        "error": error,
    }


def _optional(devices: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield the optional checks, with an error where one gave no answer."""
    timeout = str(OPTIONAL_TIMEOUT_S)
    children = [
        subprocess.Popen(
            [*COMMAND, OPTIONAL, device, str(threads), timeout],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for device, threads in devices
    ]
    for (device, threads), child in zip(devices, children, strict=True):
        output, _ = child.communicate()
        silence = f"ended with exit code {child.returncode}"
        if child.returncode == -signal.SIGALRM:
            silence = f"no answer in {OPTIONAL_TIMEOUT_S:g} s"
        lines = [line for line in output.splitlines() if line.endswith(b"}")]
        answered = {c["name"]: c for c in map(json.loads, lines)}
        for check in (c for c in CHECKS if not c.required):
            if check.name in answered:
                yield answered[check.name]
            else:  # the first one hung or crashed, so the next were never begun
                yield _outcome(check, device, threads, float("nan"), silence)
                silence = "not reached"


def _import_methods(cache: Path, methods: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield methods with why they cannot be imported, or an empty text."""
    from bench.errors import BenchError
    from bench.registry import Registry

    for method in methods:
        try:
            Registry(cache).find(method)
            yield method, ""
        except BenchError as error:
            yield method, str(error)


# The checks. References are numpy's in float64: another library, another precision.


def _noise(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _off(got: Any, wanted: Floats) -> float:
    """Return the largest error relative to the largest value."""
    return float(np.abs(got.double().cpu().numpy() - wanted).max() / np.abs(wanted).max())


def _matmul(device: str) -> float:
    import torch

    a, b = _noise(512, 768), _noise(768, 256)
    got = torch.from_numpy(a).to(device) @ torch.from_numpy(b).to(device)
    return _off(got, a.astype(np.float64) @ b.astype(np.float64))


def _conv2d(device: str, bfloat16: bool = False) -> float:
    import torch

    x, kernels = _noise(2, 16, 28, 28), _noise(32, 16, 3, 3)
    with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=bfloat16):
        got = torch.conv2d(torch.from_numpy(x).to(device), torch.from_numpy(kernels).to(device))
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    return _off(got, np.einsum("bchwij,ocij->bohw", windows, kernels, optimize=True))


def _covariances(device: str) -> Any:
    """Return (4, 550, 550), as PaDiM inverts; batched LU fails on some CPUs."""
    import torch

    x = torch.from_numpy(_noise(4, 550, 1100)).to(device)
    return x @ x.mT / x.shape[2] + 0.01 * torch.eye(550, device=device)


def _inverse(invert: Callable[[Any, Any, Any], Any]) -> Callable[[str], float]:
    """Return the check of a function of torch, matrices and the identity."""

    def measure(device: str) -> float:
        import torch

        matrices, identity = _covariances(device), torch.eye(550, device=device)
        product = matrices.double() @ invert(torch, matrices, identity).double()
        return float((product - identity).abs().max())

    return measure


def _by_cholesky(torch: Any, matrices: Any, identity: Any) -> Any:
    factor = torch.linalg.cholesky(matrices)
    half = torch.linalg.solve_triangular(factor, identity, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _by_cholesky_solve(torch: Any, matrices: Any, identity: Any) -> Any:
    return torch.cholesky_solve(identity.expand_as(matrices), torch.linalg.cholesky(matrices))


def _by_inv(torch: Any, matrices: Any, identity: Any) -> Any:
    return torch.linalg.inv(matrices)


def _by_solve(torch: Any, matrices: Any, identity: Any) -> Any:
    return torch.linalg.solve(matrices, identity.expand_as(matrices))


def _eigh(device: str) -> float:
    import torch

    matrices = _covariances(device)
    values, vectors = torch.linalg.eigh(matrices)
    return _off((vectors * values.unsqueeze(1)) @ vectors.mT, matrices.double().cpu().numpy())


def _order(device: str) -> float:
    """Return how many ranks differ; values repeat, as scores do."""
    import torch

    values = _noise(64, 2000).round(2)
    wanted = np.sort(values, axis=1)
    x = torch.from_numpy(values).to(device)
    wrong = (x.sort(1).values.cpu().numpy() != wanted).sum()
    wrong += (x.topk(200, 1).values.cpu().numpy() != wanted[:, :-201:-1]).sum()
    return float(wrong)


def _repeat(device: str) -> float:
    """Return how far apart two equal training steps of a network are."""
    import torch
    from torch import nn

    def gradients() -> Any:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
        ).to(device)
        images = torch.from_numpy(_noise(16, 3, 64, 64)).to(device)
        network(images).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    return float((gradients() - gradients()).abs().max())


CHECKS = (
    Check("matmul", _matmul, 5e-5, required=True),
    Check("conv2d", _conv2d, 5e-5, required=True),
    Check("conv2d bfloat16", lambda d: _conv2d(d, bfloat16=True), 2e-2, required=True),
    Check("cholesky", _inverse(_by_cholesky), 1e-4, required=True),
    Check("cholesky_solve", _inverse(_by_cholesky_solve), 1e-4, required=True),
    Check("eigh", _eigh, 1e-4, required=True),
    Check("sort and topk", _order, 0, required=True),
    Check("same bits twice", _repeat, 0, required=True),
    # Expected to fail, crash or hang on some CPUs, and no method here calls them.
    Check("linalg.inv", _inverse(_by_inv), 1e-4, required=False),
    Check("linalg.solve", _inverse(_by_solve), 1e-4, required=False),
)

if __name__ == "__main__":
    print_answer()
