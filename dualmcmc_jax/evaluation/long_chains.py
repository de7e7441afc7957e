"""Where do chains far longer than those of training end?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.evaluation import out_of_distribution, sampling
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Metric, Section

SECTIONS = (
    Section(
        title="Long x-chains",
        note=(
            "Before clipping to images. rms change: per pixel, since the trained length. An energy trained by "
            "short chains need not hold for long ones: then it falls far below that of data, and pixels leave "
            "[-1, 1]."
        ),
        metrics={
            "long_run/{group}/energy": Metric("energy", needs=("energy",)),
            "long_run/{group}/rms_change": Metric("rms change", needs=("energy",)),
            "long_run/{group}/share_outside_range": Metric("share outside range", "lower", needs=("energy",)),
        },
        other_groups="{} steps",
    ),
)
CAPTIONS = {"long_run": "Chains far longer than those of training: do they drift or saturate?"}
LENGTHS = (1, 10, 100)
"""Lengths of the chains, in lengths of the trained chains."""


class LongChains(NamedTuple):
    """A group of x-chains, observed after each of LENGTHS.

    Attributes:
      steps: [3], the numbers of Langevin steps.
      states: [3, B, ...], the chains after so many steps.
      energy: [steps[-1] + 1, B], before the first step and after each step.
    """

    steps: list[int]
    states: np.ndarray
    energy: np.ndarray


def applies(config, dataset) -> bool:
    """Return whether the x-chain of training has steps."""
    return config.x_chain.num_steps > 0


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the mean energy, the change since the trained length and, of images, the share of pixels out of range."""
    chains, metrics = run(model, seed=inputs.seed), {}
    for step, x in zip(chains.steps, chains.states, strict=True):
        metrics[f"long_run/{step}/energy"] = float(chains.energy[step].mean())
        metrics[f"long_run/{step}/rms_change"] = float(np.sqrt(np.mean((x - chains.states[0]) ** 2)))
        if x.ndim == 4:
            metrics[f"long_run/{step}/share_outside_range"] = float(np.mean(np.abs(x) > 1))
    return Measured(metrics, chains)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the energy along the chains, and images after each length."""
    steps, states, energy = measured.arrays
    states = sampling.finish(states)[:, :8]
    has_images = states.ndim == 5
    size = (11 if has_images else 6, 4)
    figure, axes = figures.plt.subplots(1, 1 + has_images, figsize=size, layout="constrained", squeeze=False)
    axis = axes[0, 0]
    low, middle, high = np.percentile(energy, (5, 50, 95), axis=1)
    after = np.arange(len(energy))
    axis.fill_between(after, low, high, alpha=0.25, label="chains, 5% to 95%")
    axis.plot(after, middle, label="chains, median")
    held_out = out_of_distribution.energies(model, inputs.held_out).mean()
    axis.axhline(held_out, color="black", linestyle=":", label="held-out data, mean")
    for step in steps:
        axis.axvline(step, color="gray", linewidth=0.5)
    axis.set(xscale="symlog", xlim=(0, after[-1]), xlabel="Langevin step", ylabel="energy", title="long chains")
    axis.legend(fontsize=8)
    if has_images:
        title = f"rows: after {', '.join(f'{step:,}' for step in steps)} steps"
        figures.show(axes[0, 1], figures.tile(states), title)
    return {"long_run": figure}


def run(model: Model, *, seed: int) -> LongChains:
    """Run one group of x-chains of training from their initial states, 100 times as long as in training."""
    model = model.with_trained_x_chain()
    key, num_steps = random_streams.key(seed, Stream.LONG_CHAINS), model.config.x_chain.num_steps
    x, energy = _start(model, jax.random.fold_in(key, 0))
    energies, states = [energy], []
    for i in tqdm(range(1, LENGTHS[-1] + 1), desc="long chains", unit="chain length", delay=2, leave=False):
        x, energy = _go_on(model, jax.random.fold_in(key, i), x)
        energies.append(energy)
        if i in LENGTHS:
            states.append(np.asarray(x))
    steps = [num_steps * length for length in LENGTHS]
    return LongChains(steps, np.stack(states), np.concatenate(jax.device_get(energies)))


@jax.jit
def _start(model, key):
    """Return the initial states [B, ...] of the chains, and their energies [1, B]."""
    bound = model.bound()
    x = bound.synthesize(chain_keys(key, jnp.arange(model.group_size)), num_steps=0).revised
    return x, bound.energy(x)[None]


@jax.jit
def _go_on(model, key, x):
    """Run the chains for one trained length; return the states [B, ...] and the energies after each step."""
    bound = model.bound()
    x, trace = bound.revise_x(chain_keys(key, jnp.arange(model.group_size)), x)
    energy = -trace.log_density * model.config.energy.temperature
    return x, jnp.concatenate([energy[1:], bound.energy(x)[None]])
