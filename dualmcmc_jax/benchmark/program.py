"""What a compiled program does: multiply-adds, bytes and collectives, read off XLA's text with loops counted out."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

ITEM_BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {f"{kind}{8 * n}": n for kind in "suf" for n in (1, 2, 4, 8)}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all")


class Shape(NamedTuple):
    """An array's type, such as f32, and its dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return ITEM_BYTES.get(self.dtype, 0) * math.prod(self.dims)


class Instruction(NamedTuple):
    """One line of a computation; shapes: of its result, more than one for a tuple."""

    shapes: list[Shape]
    opcode: str
    operands: list[str]
    attributes: str


class Cost(NamedTuple):
    """Attributes:
    multiply_adds: of convolutions and matrix products, positions between dilated pixels left out.
    num_bytes: read and written by instructions that are not fused with others.
    collectives: {(kind, bytes of one): how often}.
    unknown_loops: how many loops count once because XLA does not know how often they turn.
    """

    multiply_adds: int
    num_bytes: int
    collectives: Counter
    unknown_loops: int


def cost(text: str) -> Cost:
    """The cost of one run of a program, from `compiled.as_text()`; a loop counts as often as XLA knows it to turn."""
    computations = _computations(text)
    multiply_adds, num_bytes, collectives, unknown_loops = 0, 0, Counter(), 0
    for times, instruction, table, fused in _executed(computations, "ENTRY"):
        opcode, size = instruction.opcode, sum(shape.num_bytes for shape in instruction.shapes)
        multiply_adds += times * _multiply_adds(instruction, table)
        if not fused and opcode not in FREE and not opcode.endswith("-done"):
            read = sum(shape.num_bytes for name in instruction.operands for shape in table[name].shapes)
            num_bytes += times * (size + read)
        if opcode.removesuffix("-start") in COLLECTIVES:
            kind, last = opcode.removesuffix("-start"), instruction.shapes[-1].num_bytes
            collectives[kind, size if opcode == kind else last] += times
        unknown_loops += opcode == "while" and not _turns(instruction)
    return Cost(multiply_adds, num_bytes, collectives, unknown_loops)


def _executed(computations, name: str, times: int = 1, fused: bool = False) -> Iterator[tuple]:
    """(times, instruction, instructions by name beside it, whether fused) of all that runs, from a computation."""
    table = computations[name]
    for instruction in table.values():
        yield times, instruction, table, fused
        called = re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", instruction.attributes)
        opcode = instruction.opcode.removesuffix("-start")
        if opcode == "while":
            yield from _executed(computations, called[0], times * (_turns(instruction) or 1), fused)
        elif opcode in ("call", "fusion", "async"):
            yield from _executed(computations, called[0], times, fused or opcode == "fusion")


def _turns(loop: Instruction) -> int | None:
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    return int(found[1]) if found else None


def _multiply_adds(instruction: Instruction, table: dict[str, Instruction]) -> int:
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
    labels, _, out_labels = re.search(r"dim_labels=\w+?_(\w+)(->)(\w+)", attributes).groups()
    given = re.search(r"window=\{([^}]*)\}", attributes)
    window = dict(re.findall(r"(\w+)=(\S+)", given[1])) if given else {}
    num_dims = len(result) - 2
    numbers = lambda name, default: window.get(name, "x".join([default] * num_dims)).split("x")
    products = math.prod(result) * kernel[labels.index("i")]
    if not num_dims:
        return products
    spatial = zip(*(numbers(*item) for item in DEFAULTS.items()), strict=True)
    for i, (size, stride, pad, lhs_dilate, rhs_dilate) in enumerate(spatial):
        length, first = result[out_labels.index(str(i))], int(pad.split("_")[0])
        reached = (
            out * int(stride) + tap * int(rhs_dilate) - first for out in range(length) for tap in range(int(size))
        )
        products = products * sum(at % int(lhs_dilate) == 0 for at in reached) // length
    return products


DEFAULTS = {"size": "1", "stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}


def _computations(text: str) -> dict[str, dict[str, Instruction]]:
    """{computation, "ENTRY" for the first to run: {instruction's name: instruction}}."""
    computations, current = {}, None
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = computations["ENTRY" if header[1] else header[2]] = {}
        elif current is not None and (found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)):
            current[found[1]] = _instruction(line[found.end() :])
    return computations


def _instruction(text: str) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[end:].strip().partition("(")
    close = _closing(f"({rest}") - 1
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", text[:end])
    return Instruction(
        [Shape(dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in shapes],
        opcode,
        re.findall(r"%([\w.\-]+)", rest[: close - 1]),
        rest[close:],
    )


def _closing(text: str) -> int:
    """Just behind the parenthesis that closes the first character's."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"found no end of {text[:40]!r}")
