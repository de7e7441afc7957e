"""The table that `benchmark.gpu_day` prints: one row per measured program, and the measured peaks of the GPU."""

from collections.abc import Iterator

HEADER = ("program", "s per update", "quartiles", "images/s", "TFLOP/s", "share of peak", "memory, GB", "compile, s")


def table(measured: dict[str, dict]) -> str:
    """Return a Markdown table, followed by lines with the measured peaks.

    FLOP/s count two floating-point operations per multiply-add. For JAX, the multiply-adds are counted in the compiled
    program. For the authors' code, they are the textbook count of the same update.

    Args:
      measured: numbers by measurement. The names are "jax-RECIPE-DTYPE-CHAINS" for `on_cue` and "torch-RECIPE-NAME" for
        `authors`.
    """
    best = peaks(measured)
    lines = [HEADER, ["---"] * len(HEADER), *rows(measured, best)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += [""] + [f"peak, {name}: {value / 1e12:,.1f} T/s" for name, value in best.items()]
    devices = {numbers["device"] for numbers in measured.values() if "device" in numbers}
    versions = {f"{name} {n[name]}" for n in measured.values() for name in ("jax", "torch") if name in n}
    return "\n".join([*text, f"on: {', '.join(sorted(devices | versions))}"])


def peaks(measured: dict[str, dict]) -> dict[str, float]:
    """Return the measured peak rates: FLOP/s of a matrix product by dtype, and bytes/s of a copy.

    Each rate is the highest that any measurement reached, in JAX or PyTorch.
    """
    best = {}
    for numbers in measured.values():
        values = {name.removeprefix("peak_flops_"): n for name, n in numbers.items() if name.startswith("peak_flops_")}
        if "peak_flops" in numbers:
            values |= {numbers["compute_dtype"]: numbers["peak_flops"], "copy, bytes": numbers["peak_bandwidth"]}
        for name, value in values.items():
            best[name] = max(value, best.get(name, 0.0))
    return best


def rows(measured: dict[str, dict], best: dict[str, float]) -> Iterator[list[str]]:
    """Yield one row of cells per measured program.

    Args:
      measured: numbers by measurement, as in `table`.
      best: the peaks, as `peaks` returns them.
    """
    textbook = {  # multiply-adds by (recipe, whether the update has two x-chains)
        (name.split("-")[1], numbers["fresh_negatives"]): numbers["textbook_multiply_adds"]
        for name, numbers in measured.items()
        if name.startswith("jax-")
    }
    for name, numbers in measured.items():
        if name.startswith("jax-"):
            yield cells(name, numbers, numbers.get("flops"), best.get(numbers["compute_dtype"]), "program_bytes")
            continue
        recipe = name.split("-")[1]
        for variant, timings in numbers.items():
            if not isinstance(timings, dict):
                continue
            count = textbook.get((recipe, "one_chain" not in variant))
            flops = 2 * count / timings["step_seconds"] if count and "step_seconds" in timings else None
            dtype = "bfloat16" if variant.startswith("bfloat16") else "tensorfloat32"
            yield cells(f"torch-{recipe}-{variant}", timings, flops, best.get(dtype), "allocated_bytes")


def cells(name: str, numbers: dict, flops: float | None, peak: float | None, memory: str) -> list[str]:
    """Return one row of the table.

    Args:
      name: name of the program.
      numbers: measured numbers of the program.
      flops: FLOP/s of the program, if known.
      peak: peak FLOP/s of the GPU in the dtype of the program, if known.
      memory: name of the number that holds the memory in bytes.
    """
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
