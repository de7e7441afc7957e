"""The table of what `benchmark.gpu_day` has measured."""

from collections.abc import Iterator

HEADER = ("program", "s an update", "quartiles", "images/s", "TFLOP/s", "of the peak", "memory, GB", "compile, s")


def table(measured: dict[str, dict]) -> str:
    """Return a Markdown table, and the peaks in lines below.

    TFLOP/s are those of the compiled program, two for each of its multiply-adds. Of the authors' code they are the
    multiply-adds of their program as it is written, in the same unit.

    Args:
      measured: numbers by name, "jax-RECIPE-DTYPE-CHAINS" of `on_cue` and "torch-RECIPE-NAME" of `authors`.
    """
    best = peaks(measured)
    lines = [HEADER, ["---"] * len(HEADER), *rows(measured, best)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += [""] + [f"peak, {name}: {value / 1e12:,.1f} T/s" for name, value in best.items()]
    devices = {numbers["device"] for numbers in measured.values() if "device" in numbers}
    versions = {f"{name} {n[name]}" for n in measured.values() for name in ("jax", "torch") if name in n}
    return "\n".join([*text, f"on: {', '.join(sorted(devices | versions))}"])


def peaks(measured: dict[str, dict]) -> dict[str, float]:
    """Return the best matrix product by dtype, through JAX or PyTorch, and the best copy, each a second."""
    found = {}
    for numbers in measured.values():
        seen = {name.removeprefix("peak_flops_"): n for name, n in numbers.items() if name.startswith("peak_flops_")}
        if "peak_flops" in numbers:
            seen |= {numbers["compute_dtype"]: numbers["peak_flops"], "copy, bytes": numbers["peak_bandwidth"]}
        for name, value in seen.items():
            found[name] = max(value, found.get(name, 0.0))
    return found


def rows(measured: dict[str, dict], best: dict[str, float]) -> Iterator[list[str]]:
    """Yield the cells of every program."""
    written = {
        (name.split("-")[1], numbers["fresh_negatives"]): numbers["textbook_multiply_adds"]
        for name, numbers in measured.items()
        if name.startswith("jax-")
    }
    for name, numbers in measured.items():
        if name.startswith("jax-"):
            yield cells(name, numbers, numbers.get("flops"), best.get(numbers["compute_dtype"]), "program_bytes")
            continue
        recipe = name.split("-")[1]
        for variant, found in numbers.items():
            if not isinstance(found, dict):
                continue
            count = written.get((recipe, "one_chain" not in variant))
            flops = 2 * count / found["step_seconds"] if count and "step_seconds" in found else None
            dtype = "bfloat16" if variant.startswith("bfloat16") else "tensorfloat32"
            yield cells(f"torch-{recipe}-{variant}", found, flops, best.get(dtype), "allocated_bytes")


def cells(name: str, numbers: dict, flops: float | None, peak: float | None, memory: str) -> list[str]:
    """Return one row."""
    if "step_seconds" not in numbers:
        return [name, " ".join(numbers.get("error", "not timed").split())[:60], *[""] * (len(HEADER) - 2)]
    compiling = numbers.get("compile_seconds", numbers.get("warm_up_seconds"))
    return [
        name,
        f"{numbers['step_seconds']:.4g}",
        "{:.4g} to {:.4g}".format(*numbers["step_seconds_quartiles"]),
        f"{numbers['images_per_second']:.4g}",
        f"{flops / 1e12:.4g}" if flops else "",
        f"{flops / peak:.1%}" if flops and peak else "",
        f"{numbers[memory] / 1e9:.2f}" if memory in numbers else "",
        f"{compiling:.1f}" if compiling else "",
    ]
