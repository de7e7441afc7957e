"""The cost of a compiled program: multiply-adds, bytes and collectives, counted in the text of XLA's program.

The instructions in the body of a loop count as many times as the loop runs.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ITEM_BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {f"{kind}{8 * n}": n for kind in "suf" for n in (1, 2, 4, 8)}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all")
"""Operations that move no data themselves."""


class Shape(NamedTuple):
    """The element type of an array, such as f32, and its dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of the array in bytes."""
        return ITEM_BYTES.get(self.dtype, 0) * math.prod(self.dims)


class Instruction(NamedTuple):
    """One instruction of a computation.

    Attributes:
      shapes: shape of the result, or the shapes of its elements if the result is a tuple.
      opcode: name of the operation, such as dot.
      operands: names of the instructions whose results are read.
      value: the text of a constant's value; "" for other operations.
      attributes: the rest of the line, after the operands.
    """

    shapes: list[Shape]
    opcode: str
    operands: list[str]
    value: str
    attributes: str


class Cost(NamedTuple):
    """The cost of one run of a program on one device.

    Attributes:
      multiply_adds: multiply-adds of convolutions and matrix products. Products with the zeros that a dilated input
        inserts between pixels do not count.
      num_bytes: bytes that instructions outside of fusions read and write.
      collectives: number of runs by (kind, bytes of one run).
      unknown_loops: number of loops whose trip count XLA does not know. The body of such a loop counts once.
    """

    multiply_adds: int
    num_bytes: int
    collectives: Counter
    unknown_loops: int


class Run(NamedTuple):
    """An instruction that a program runs.

    Attributes:
      times: number of runs.
      name: name of the instruction.
      instruction: the instruction.
      table: the instructions of the same computation, by name.
      fused: whether the instruction is part of a fusion.
      loops: the loops and calls around the instruction, innermost first.
    """

    times: int
    name: str
    instruction: Instruction
    table: dict[str, Instruction]
    fused: bool
    loops: tuple[Instruction, ...] = ()


def cost(text: str) -> Cost:
    """Return the cost of one run of a program on one device.

    The compiler for TPUs lets a collective run during several fusions, and repeats the collective in the text of each
    of them. Such repetitions have the same channel. They count as one collective, which runs as often as the rarest of
    them.

    Args:
      text: the optimized program, as `compiled.as_text()` returns it.
    """
    all_computations = computations(text)
    multiply_adds, num_bytes, collectives, repeated, unknown_loops = 0, 0, Counter(), {}, 0
    for times, _, instruction, table, fused, _ in executed(all_computations, "ENTRY"):
        opcode, size = instruction.opcode, sum(shape.num_bytes for shape in instruction.shapes)
        multiply_adds += times * _multiply_adds(instruction, table)
        if not fused and opcode not in FREE and not opcode.endswith("-done"):
            read = sum(shape.num_bytes for name in instruction.operands for shape in table[name].shapes)
            num_bytes += times * (size + read)
        if opcode.removesuffix("-start") in COLLECTIVES:
            kind_and_size = opcode.removesuffix("-start"), _bytes_received(instruction)
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            if fused and channel:
                place = (*kind_and_size, channel[1])
                repeated[place] = min(times, repeated.get(place, times))
            else:
                collectives[kind_and_size] += times
        unknown_loops += opcode == "while" and not _trip_count(instruction, all_computations)
    for (kind, size, _), times in repeated.items():
        collectives[kind, size] += times
    return Cost(multiply_adds, num_bytes, collectives, unknown_loops)


def _bytes_received(collective: Instruction) -> int:
    """Return the bytes of the results of a collective.

    The results of all-reduce-start are those of the collective. The results of other starts are first the operands,
    then the results of the collective, and then numbers for the compiler.
    """
    shapes = collective.shapes
    if collective.opcode.endswith("-start") and collective.opcode != "all-reduce-start":
        num_operands = len(collective.operands)
        shapes = shapes[num_operands : 2 * num_operands]
    return sum(shape.num_bytes for shape in shapes)


def executed(
    computations: dict[str, dict[str, Instruction]],
    name: str,
    times: int = 1,
    fused: bool = False,
    loops: tuple[Instruction, ...] = (),
) -> Iterator[Run]:
    """Yield all instructions that a computation runs, with those of its loops, calls and fusions.

    Args:
      computations: the instructions of each computation, from `computations`.
      name: name of the computation.
      times: how many times the computation runs.
      fused: whether the computation is that of a fusion.
      loops: the loops and calls around the computation, innermost first.
    """
    table = computations[name]
    for key, instruction in table.items():
        yield Run(times, key, instruction, table, fused, loops)
        called = re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", instruction.attributes)
        opcode = instruction.opcode.removesuffix("-start")
        if opcode == "while":
            inside = times * (_trip_count(instruction, computations) or 1)
            yield from executed(computations, called[0], inside, fused, (instruction, *loops))
        elif opcode in ("call", "fusion", "async"):
            yield from executed(computations, called[0], times, fused or opcode == "fusion", (instruction, *loops))


def _trip_count(loop: Instruction, computations: dict[str, dict[str, Instruction]]) -> int | None:
    """Return how many times a loop runs, or None if that is unknown.

    The compiler for TPUs does not write the number into its text. There it is N if the loop goes on while i < N,
    because JAX's loops count i from 0.
    """
    if match := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(match[1])
    condition = computations.get(re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1], {})
    *_, last = condition.values() or [None]
    if last and last.opcode == "compare" and "direction=LT" in last.attributes:
        limit = condition[last.operands[1]]
        return int(limit.value) if limit.opcode == "constant" else None
    return None


def _multiply_adds(instruction: Instruction, table: dict[str, Instruction]) -> int:
    """Return the multiply-adds of one run of an instruction; 0 unless it is a convolution or a matrix product."""
    opcode, attributes = instruction.opcode, instruction.attributes
    target = re.search(r'custom_call_target="([^"]*)"', attributes)
    if opcode not in ("dot", "convolution") and not (
        target and re.search("cudnn.conv|cublas.*(gemm|matmul)", target[1])
    ):
        return 0
    operands = [table[name].shapes[0].dims for name in instruction.operands]
    result = instruction.shapes[0].dims
    if opcode == "dot":
        contracted = re.findall(r"\d+", re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)[1])
        return math.prod(result) * math.prod(operands[0][int(i)] for i in contracted)
    if opcode == "convolution":
        return _convolution(result, operands[1], attributes)
    if "cudnn" in target[1]:
        labels = re.search(r"dim_labels=\w+_(\w+)->\w+", attributes)[1]
        if "BackwardFilter" in target[1]:
            output, kernel = operands[1], result
        else:
            output, kernel = (operands[0] if "BackwardInput" in target[1] else result), operands[1]
        return math.prod(output) * math.prod(kernel) // kernel[labels.index("o")]
    config, _ = json.JSONDecoder().raw_decode(attributes, attributes.index("backend_config=") + len("backend_config="))
    numbers = config.get("gemm_backend_config", config)["dot_dimension_numbers"]
    return math.prod(result) * math.prod(operands[0][int(i)] for i in numbers["lhs_contracting_dimensions"])


def _convolution(result: tuple[int, ...], kernel: tuple[int, ...], attributes: str) -> int:
    """Return the multiply-adds of a convolution, from the dimensions of its result and its kernel."""
    labels, _, out_labels = re.search(r"dim_labels=\w+?_(\w+)(->)(\w+)", attributes).groups()
    match = re.search(r"window=\{([^}]*)\}", attributes)
    window = dict(re.findall(r"(\w+)=(\S+)", match[1])) if match else {}
    num_dims = len(result) - 2
    numbers = lambda name, default: window.get(name, "x".join([default] * num_dims)).split("x")
    products = math.prod(result) * kernel[labels.index("i")]
    if not num_dims:
        return products
    spatial = zip(*(numbers(*item) for item in WINDOW_DEFAULTS.items()), strict=True)
    for i, (size, stride, pad, lhs_dilate, rhs_dilate) in enumerate(spatial):
        length, first = result[out_labels.index(str(i))], int(pad.split("_")[0])
        positions = (
            out * int(stride) + tap * int(rhs_dilate) - first for out in range(length) for tap in range(int(size))
        )
        products = products * sum(position % int(lhs_dilate) == 0 for position in positions) // length
    return products


WINDOW_DEFAULTS = {"size": "1", "stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}
"""Values of the attributes that XLA omits from the text of a convolution's window."""


def computations(text: str) -> dict[str, dict[str, Instruction]]:
    """Return the instructions by name of each computation. The key of the computation that runs first is "ENTRY"."""
    computations, current = {}, None
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = computations["ENTRY" if header[1] else header[2]] = {}
        elif current is not None and (match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)):
            current[match[1]] = _instruction(line[match.end() :])
    return computations


def _instruction(text: str) -> Instruction:
    """Parse the text of an instruction, which is the part of its line after the equals sign."""
    end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[end:].strip().partition("(")
    close = _closing(f"({rest}") - 1
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", text[:end])
    return Instruction(
        [Shape(dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in shapes],
        opcode,
        re.findall(r"%([\w.\-]+)", rest[: close - 1]),
        rest[: close - 1] if opcode == "constant" else "",
        rest[close:],
    )


def _closing(text: str) -> int:
    """Return the index after the parenthesis that closes the one at the start of the text."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"found no closing parenthesis after {text[:40]!r}, expected the text of an XLA program")
