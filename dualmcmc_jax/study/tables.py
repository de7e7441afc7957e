"""One table and one figure of a study: means over seeds, their 95% intervals, and which claims hold."""

import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from dualmcmc_jax.report import figures
from dualmcmc_jax.runtime.workdirs import replace
from dualmcmc_jax.study.definitions import Claim, Study
from dualmcmc_jax.study.runs import Result

QUALITY = ("revised/fid", "density/ebm/kl_data_model", "density/generator/kl_data_model", "revised/frechet_")
RECONSTRUCTION = tuple(f"reconstruction/{start}/mse" for start in ("encoder", "encoder_chain", "noise_chain"))
SCORE = ("revised/inception_score", "revised/svc_score")
COLUMNS = {
    "KL(data, EBM)": "density/ebm/kl_data_model",
    "KL(data, generator)": "density/generator/kl_data_model",
    "missed modes": "density/ebm/missed_modes",
    "FID": "revised/fid",
    "FID of generator": "generator/fid",
    "Frechet": "revised/frechet_",
    "Frechet of generator": "generator/frechet_",
    "SVC score": "revised/svc_score",
    "MSE of inference": "reconstruction/encoder/mse",
    "MSE, z-chain from it": "reconstruction/encoder_chain/mse",
    "MSE, z-chain from noise": "reconstruction/noise_chain/mse",
    "AUROC": "auroc/",
    "updates": "num_steps",
    "seconds": "seconds",
}
CONFIDENCE = 0.95

Results = dict[str, list[Result]]


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its interval by Student's t; that of one value is infinite."""
    n = len(values)
    if n < 2 or not np.all(np.isfinite(values)):
        return float(np.mean(values)), math.inf
    return float(np.mean(values)), float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / n**0.5)


def value(metrics: dict[str, float | None], name: str) -> float | None:
    """The mean of the metrics whose names begin so, all in a column of the table; None if there is none.

    "quality" and "score" are the first of QUALITY and of SCORE that there is, "reconstruction" the smallest of
    RECONSTRUCTION. A number that was not finite, which JSON has as null, is infinite.
    """
    if name in ("quality", "score"):
        parts = QUALITY if name == "quality" else SCORE
        return next((found for part in parts if (found := value(metrics, part)) is not None), None)
    if name == "reconstruction":
        return min((found for part in RECONSTRUCTION if (found := value(metrics, part)) is not None), default=None)
    found = [math.inf if v is None else v for key, v in metrics.items() if key.startswith(name)]
    return float(np.mean(found)) if found else None


def values(results: list[Result], name: str) -> list[float]:
    """`value` of all runs that have it."""
    found = (value(result.metrics, name) for result in results)
    return [v for v in found if v is not None]


def verdict(claim: Claim, results: Results) -> str:
    """Whether a claim holds: its sum over the seeds that all of its variants share, and the interval of its mean."""
    runs = {name: {r.seed: r.metrics for r in results[name]} for _, name, _ in claim.terms}
    sums = []
    for seed in set.intersection(*(set(by_seed) for by_seed in runs.values())):
        parts = [(factor, value(runs[name][seed], metric)) for factor, name, metric in claim.terms]
        if all(part is not None for _, part in parts):
            sums.append(sum(factor * part for factor, part in parts))
    if not sums:
        return f"not measured: {claim.text}"
    (mean, half), favour = interval(sums), sum(s > 0 for s in sums)
    decided = math.isfinite(mean) and abs(mean) > half
    held = "not decided" if not decided else "holds" if mean > 0 else "does NOT hold"
    return f"{held}: {claim.text} (by {_number(mean, half)}; {favour} of {len(sums)} seeds for it)"


def table(study: Study, results: Results) -> list[list[str]]:
    """Rows of cells, the first the headings; only columns of which there are numbers."""
    shown = {heading: name for heading, name in COLUMNS.items() if any(values(r, name) for r in results.values())}
    heading, paper = study.paper
    rows = [["", *shown, "seeds", *([f"paper: {heading}"] if paper else [])]]
    for variant, found in results.items():
        cells = [_cell(values(found, name)) for name in shown.values()]
        done = sum(bool(result.metrics) for result in found)
        seeds = str(done) if done == len(found) else f"{done} of {len(found)}"
        rows.append([variant, *cells, seeds, *([f"{paper[variant]:g}" if variant in paper else "-"] if paper else [])])
    return rows


def text(study: Study, results: Results) -> str:
    """The table for a terminal, what failed, and the claims."""
    grid = table(study, results)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *rest in grid:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    several = max(len(found) for found in results.values()) > 1
    means = "mean ± half-width of its 95% interval over seeds, by Student's t; claims compare runs of the same seed"
    lines += ["", means if several else "one seed: no intervals, and no claim can be decided"]
    lines += [f"{name}, seed {r.seed}: {r.problem}" for name, found in results.items() for r in found if r.problem]
    everything = [result for found in results.values() for result in found]
    claims = [claim for claim in study.claims if all(values(everything, metric) for _, _, metric in claim.terms)]
    lines += ["", *(verdict(claim, results) for claim in claims)] if claims else []
    return "\n".join(lines)


def figure(results: Results) -> Figure:
    """Every column of the table in a panel: a dot for each seed, a bar for the interval of their mean."""
    shown = {heading: name for heading, name in COLUMNS.items() if any(values(r, name) for r in results.values())}
    shown.pop("updates", None)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    size = (2.6 * columns + 1.6, (0.7 + 0.28 * len(results)) * rows + 0.3)
    made, axes = figures.plt.subplots(rows, columns, figsize=size, layout="constrained", sharey=True, squeeze=False)
    places = range(len(results))
    for axis, (heading, name) in zip(axes.flat, shown.items(), strict=False):
        for place, found in zip(places, results.values(), strict=True):
            if not (of_runs := values(found, name)):
                continue
            if not np.all(np.isfinite(of_runs)):
                continue
            mean, half = interval(of_runs)
            axis.plot(of_runs, [place] * len(of_runs), ".", color="C0", alpha=0.6)
            axis.errorbar(mean, place, xerr=half if math.isfinite(half) else None, fmt="|", color="C3", capsize=3)
        axis.set_title(heading, fontsize=9)
        axis.xaxis.set_major_locator(figures.plt.MaxNLocator(3))
        axis.tick_params(labelsize=8)
        axis.set_yticks(places, results)
        axis.set_ylim(-0.6, len(results) - 0.4)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    axes[0, 0].invert_yaxis()
    return made


def write(folder: Path, study: Study, results: Results) -> None:
    """table.txt, results.json, with every metric of every run, and figure.png."""
    replace(folder / "table.txt", text(study, results) + "\n")
    everything = {name: [result._asdict() for result in found] for name, found in results.items()}
    replace(folder / "results.json", json.dumps(everything, indent=1) + "\n")
    if any(result.metrics for found in results.values() for result in found):
        figures.save(folder / "figure.png", figure(results))


def _cell(found: list[float]) -> str:
    if not found:
        return "-"
    return _number(*interval(found))


def _number(mean: float, half: float) -> str:
    number = lambda x, digits: f"{x:,.0f}" if 1000 <= abs(x) < math.inf else f"{x:.{digits}g}"
    return f"{number(mean, 3)} ± {number(half, 2)}" if 0 < half < math.inf else number(mean, 3)
