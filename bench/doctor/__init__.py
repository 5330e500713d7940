"""Check this machine for problems with runs, without torch.

Torch is checked by `bench.doctor.probe`, a process of its own.
"""

from collections.abc import Iterator

from bench.doctor.diagnosis import Diagnosis as Diagnosis
from bench.doctor.disk import check_disk, check_write_access
from bench.doctor.inputs import (
    check_datasets,
    check_masks,
    check_suite,
    check_weights,
    look_up_suite,
)
from bench.doctor.machine import (
    check_arithmetic,
    check_libraries,
    check_machine,
    check_processes,
    check_torch,
)
from bench.doctor.probe import ask
from bench.planning.plan import Folders
from bench.planning.resources import bytes_to_write, output_folders, to_decode
from bench.planning.state import State
from bench.planning.suite import Suite
from bench.registry import METHODS


def examine(folders: Folders, suite: Suite | None) -> Iterator[Diagnosis]:
    """Check everything, with a suite also its inputs."""
    yield from check_libraries()
    yield from check_machine()
    methods = {*METHODS, *(m for block in suite.blocks for m in block.methods)} if suite else set()
    answer = ask([str(folders.cache), *sorted(methods)] if suite else [])
    yield from check_processes(answer)
    yield from check_torch(answer)
    yield from check_arithmetic(answer.get("checks", ()))
    looked_up = look_up_suite(suite, folders, answer) if suite else None
    state = looked_up if isinstance(looked_up, State) else None
    for name, folder in output_folders(folders).items():
        yield check_write_access(name, folder)
    needed = {}
    if state:
        needed = bytes_to_write(to_decode(state.todo, folders.cache), len(state.todo))
    yield from check_disk(folders, needed)
    cells = None
    if state:
        cells = [r.planned for r in state.plan.runs] + [m.planned for m in state.plan.missing]
    yield from check_datasets(folders, cells)
    yield from check_weights(folders, cells)
    if suite and state:
        yield check_suite(suite, state)
        if suite.save_maps:
            yield from check_masks(state)
    elif isinstance(looked_up, Diagnosis):
        yield looked_up
