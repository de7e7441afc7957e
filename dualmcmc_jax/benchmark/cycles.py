"""The cycles that the compiler for TPUs estimates, read from the text of a compiled program.

Every fusion and every other large instruction of the text has an `estimated_cycles`. These are estimates by the
compiler, not measurements. The instructions in the body of a loop count as many times as the loop runs.
"""

import re
from pathlib import PurePath
from typing import NamedTuple

from dualmcmc_jax.benchmark import program

PARTS = {"x_chain": "revise_x", "z_chain": "revise_z"}
"""The function of core/sampling.py in whose call an instruction belongs to a part of the update. The rest is learning.
"""
PACKAGE = "dualmcmc_jax/"


class Frame(NamedTuple):
    """One frame of a Python stack.

    Attributes:
      file: path of the file.
      line: number of the line.
      function: qualified name of the function.
    """

    file: str
    line: int
    function: str


class Expensive(NamedTuple):
    """An instruction, and what all its runs in one update cost.

    Attributes:
      cycles: estimated cycles of all runs.
      times: number of runs.
      name: name of the instruction in the compiled program.
      source: the innermost frame within this package, as "FILE:LINE FUNCTION"; "" if unknown.
    """

    cycles: int
    times: int
    name: str
    source: str


class Estimate(NamedTuple):
    """The estimated cycles of one run of a program on one device.

    Attributes:
      parts: cycles of "x_chain", "z_chain" and "learning".
      expensive: the instructions with the most cycles, most expensive first.
    """

    parts: dict[str, int]
    expensive: list[Expensive]

    @property
    def total(self) -> int:
        """Return the cycles of the whole program."""
        return sum(self.parts.values())


def estimate(text: str, *, num_expensive: int = 10) -> Estimate:
    """Add up the estimated cycles of a program.

    Args:
      text: the optimized program, as `compiled.as_text()` returns it.
      num_expensive: number of instructions to list.

    Raises:
      ValueError: no instruction has estimated cycles, because the program is not one for TPUs.
    """
    stacks = _stacks(text)
    parts, found = dict.fromkeys((*PARTS, "learning"), 0), []
    for run in program.executed(program.computations(text), "ENTRY"):
        cycles = re.search(r'"?estimated_cycles"?:"?(\d+)', run.instruction.attributes)
        if not cycles or run.fused:
            continue
        frames = _frames(run.instruction, stacks) or next(filter(None, (_frames(i, stacks) for i in run.loops)), [])
        functions = {name for frame in frames for name in frame.function.split(".")}
        part = next((part for part, function in PARTS.items() if function in functions), "learning")
        total = run.times * int(cycles[1])
        parts[part] += total
        found.append(Expensive(total, run.times, run.name, _source(frames)))
    if not found:
        raise ValueError("found a program without estimated cycles, expected one compiled for TPUs")
    return Estimate(parts, sorted(found, reverse=True)[:num_expensive])


def _source(frames: list[Frame]) -> str:
    """Return the innermost frame within this package as text, or "" if there is none."""
    for frame in reversed(frames):
        _, package, path = frame.file.rpartition(PACKAGE)
        if package:
            return f"{package}{path}:{frame.line} {frame.function}"
    return f"{PurePath(frames[-1].file).name}:{frames[-1].line} {frames[-1].function}" if frames else ""


def _frames(instruction: program.Instruction, stacks: dict[int, list[Frame]]) -> list[Frame]:
    """Return the stack of an instruction, outermost frame first, or [] if the text has none."""
    match = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
    return stacks.get(int(match[1]), []) if match else []


def _stacks(text: str) -> dict[int, list[Frame]]:
    """Return the stacks by their number in the program's text, outermost frame first.

    The text has tables of file names, function names, locations and frames. The parent of a frame is given as its
    number plus 1, where 0 and 1 stand for none.
    """
    table = lambda title: re.search(rf"^{title}\n((?:\d.*\n)*)", text, re.MULTILINE)
    rows = lambda title: table(title)[1].splitlines() if table(title) else []
    names = lambda title: dict(re.match(r'(\d+) "(.*)"', row).groups() for row in rows(title))
    numbers = lambda row: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)}
    files, functions = names("FileNames"), names("FunctionNames")
    numbered = lambda title: {int(row.split()[0]): numbers(row) for row in rows(title)}
    locations = {
        i: Frame(files[str(row["file_name_id"])], row["line"], functions[str(row["function_name_id"])])
        for i, row in numbered("FileLocations").items()
    }
    stacks = {}
    for i, row in sorted(numbered("StackFrames").items()):
        parent = row.get("parent_frame_id", 0) - 1
        stacks[i] = [*stacks.get(parent, []), locations[row["file_location_id"]]]
    return stacks
