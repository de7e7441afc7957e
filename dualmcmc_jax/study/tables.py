"""The table and the figure of a study: means over seeds with 95% confidence intervals, and a verdict on each claim."""

import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from dualmcmc_jax.report import figures
from dualmcmc_jax.runtime.workdirs import replace
from dualmcmc_jax.study.definitions import Claim, Study
from dualmcmc_jax.study.runs import REACHED_END, Result

QUALITY = ("revised/fid", "density/ebm/kl_data_model", "density/generator/kl_data_model", "revised/frechet_")
RECONSTRUCTION = tuple(
    f"reconstruction/{method}/mse" for method in ("encoder", "encoder_mean_chain", "encoder_chain", "noise_chain")
)
SCORE = ("revised/inception_score", "revised/svc_score", "revised/classifier_score")
COLUMNS = {
    "reached the end": REACHED_END,
    "diverged at": "diverged_at",
    "KL(data, EBM)": "density/ebm/kl_data_model",
    "KL(data, generator)": "density/generator/kl_data_model",
    "missed modes": "density/ebm/missed_modes",
    "FID": "revised/fid",
    "FID of generator": "generator/fid",
    "Frechet": "revised/frechet_",
    "Frechet of generator": "generator/frechet_",
    "SVC score": "revised/svc_score",
    "Classifier score": "revised/classifier_score",
    "MSE of inference": "reconstruction/encoder/mse",
    "MSE, z-chain from mean of q": "reconstruction/encoder_mean_chain/mse",
    "MSE, z-chain from draw of q": "reconstruction/encoder_chain/mse",
    "MSE, z-chain from noise": "reconstruction/noise_chain/mse",
    "AUROC": "auroc/",
    "updates": "num_steps",
    "seconds": "seconds",
}
CONFIDENCE = 0.95

Results = dict[str, list[Result]]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95% confidence interval.

    The interval uses Student's t. The half-width is infinite for a single value, and if a value is not finite.
    """
    n = len(values)
    if n < 2 or not np.all(np.isfinite(values)):
        return float(np.mean(values)), math.inf
    return float(np.mean(values)), float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / n**0.5)


def value(metrics: dict[str, float | None], name: str) -> float | None:
    """Return one number of a run.

    Args:
      metrics: the metrics of the run. None stands for a number that was not finite, and counts as infinite.
      name: "quality" or "score" for the first metric of QUALITY or SCORE that was measured; "reconstruction" for the
        smallest metric of RECONSTRUCTION; otherwise a prefix, for the mean of the metrics whose names start with it.

    Returns:
      The number, or None if no such metric was measured.
    """
    if name in ("quality", "score"):
        names = QUALITY if name == "quality" else SCORE
        return next((number for name in names if (number := value(metrics, name)) is not None), None)
    if name == "reconstruction":
        return min((number for name in RECONSTRUCTION if (number := value(metrics, name)) is not None), default=None)
    numbers = [math.inf if v is None else v for key, v in metrics.items() if key.startswith(name)]
    return float(np.mean(numbers)) if numbers else None


def values(results: list[Result], name: str) -> list[float]:
    """Return the `value` of each run that has one."""
    numbers = (value(result.metrics, name) for result in results)
    return [number for number in numbers if number is not None]


def verdict(claim: Claim, results: Results) -> str:
    """Return a line of text that says whether a claim holds.

    The sum of the claim's terms is computed for each seed that all variants of the claim share. The claim holds if the
    confidence interval of the mean of these sums lies above 0, and does not hold if the interval lies below 0.
    """
    runs = {name: {r.seed: r.metrics for r in results[name]} for _, name, _ in claim.terms}
    sums = []
    for seed in set.intersection(*(set(by_seed) for by_seed in runs.values())):
        parts = [(factor, value(runs[name][seed], metric)) for factor, name, metric in claim.terms]
        if all(part is not None for _, part in parts):
            sums.append(sum(factor * part for factor, part in parts))
    if not sums:
        return f"not measured: {claim.text}"
    (mean, half), num_in_favor = interval(sums), sum(s > 0 for s in sums)
    decided = math.isfinite(mean) and abs(mean) > half
    outcome = "not decided" if not decided else "holds" if mean > 0 else "does NOT hold"
    return f"{outcome}: {claim.text} (by {_number(mean, half)}; {num_in_favor} of {len(sums)} seeds in favor)"


def columns(results: Results) -> dict[str, str]:
    """Return the columns that have numbers, as in `COLUMNS`. If every run reached the end, no column says so."""
    ends = [end for runs in results.values() for end in values(runs, REACHED_END)]
    names = {heading: name for heading, name in COLUMNS.items() if name != REACHED_END or not all(ends)}
    return {heading: name for heading, name in names.items() if any(values(r, name) for r in results.values())}


def table(study: Study, results: Results) -> list[list[str]]:
    """Return the rows of the table, headings first. Columns without numbers are omitted."""
    shown, (heading, paper) = columns(results), study.paper
    rows = [["", *shown, "seeds", *([f"paper: {heading}"] if paper else [])]]
    for variant, runs in results.items():
        cells = [_cell(values(runs, name)) for name in shown.values()]
        done = sum(bool(run.metrics) and not run.problem for run in runs)
        seeds = str(done) if done == len(runs) else f"{done} of {len(runs)}"
        rows.append([variant, *cells, seeds, *([f"{paper[variant]:g}" if variant in paper else "-"] if paper else [])])
    return rows


def text(study: Study, results: Results) -> str:
    """Return the table for the terminal, followed by the failures and the verdicts on the claims."""
    grid = table(study, results)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *rest in grid:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    several = max(len(runs) for runs in results.values()) > 1
    means = (
        "mean ± half-width of the 95% confidence interval over seeds (Student's t); claims compare runs of equal seed"
    )
    lines += ["", means if several else "With one seed, there are no confidence intervals and no claim can be decided."]
    lines += [
        f"{name}, seed {run.seed}: {run.problem}" for name, runs in results.items() for run in runs if run.problem
    ]
    all_runs = [run for runs in results.values() for run in runs]
    claims = [claim for claim in study.claims if all(values(all_runs, metric) for _, _, metric in claim.terms)]
    lines += ["", *(verdict(claim, results) for claim in claims)] if claims else []
    return "\n".join(lines)


def figure(results: Results) -> Figure:
    """Return a figure with one panel per column of the table.

    A panel shows a dot for each seed, and the mean over seeds with a bar for its confidence interval.
    """
    shown = columns(results)
    shown.pop("updates", None)
    num_columns = min(4, len(shown))
    rows = -(-len(shown) // num_columns)
    size = (2.6 * num_columns + 1.6, (0.7 + 0.28 * len(results)) * rows + 0.3)
    result, axes = figures.plt.subplots(
        rows, num_columns, figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    heights = range(len(results))
    for axis, (heading, name) in zip(axes.flat, shown.items(), strict=False):
        for height, runs in zip(heights, results.values(), strict=True):
            if not (numbers := values(runs, name)):
                continue
            if not np.all(np.isfinite(numbers)):
                continue
            mean, half = interval(numbers)
            axis.plot(numbers, [height] * len(numbers), ".", color="C0", alpha=0.6)
            axis.errorbar(mean, height, xerr=half if math.isfinite(half) else None, fmt="|", color="C3", capsize=3)
        axis.set_title(heading, fontsize=9)
        axis.xaxis.set_major_locator(figures.plt.MaxNLocator(3))
        axis.tick_params(labelsize=8)
        axis.set_yticks(heights, results)
        axis.set_ylim(-0.6, len(results) - 0.4)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    axes[0, 0].invert_yaxis()
    return result


def write(folder: Path, study: Study, results: Results) -> None:
    """Write table.txt, results.json (all metrics of all runs) and figure.png to a folder."""
    replace(folder / "table.txt", text(study, results) + "\n")
    as_dicts = {name: [run._asdict() for run in runs] for name, runs in results.items()}
    replace(folder / "results.json", json.dumps(as_dicts, indent=1) + "\n")
    if any(run.metrics for runs in results.values() for run in runs):
        figures.save(folder / "figure.png", figure(results))


def _cell(numbers: list[float]) -> str:
    """Return the text of one cell: the mean of the numbers with its confidence interval, or a dash."""
    return _number(*interval(numbers)) if numbers else "-"


def _number(mean: float, half: float) -> str:
    """Return a mean as text, with the half-width of its confidence interval if the half-width is finite."""
    number = lambda x, digits: f"{x:,.0f}" if 1000 <= abs(x) < math.inf else f"{x:.{digits}g}"
    return f"{number(mean, 3)} ± {number(half, 2)}" if 0 < half < math.inf else number(mean, 3)
