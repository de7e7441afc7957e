"""Where do x-chains end if they run for much longer than in training?

The EBM is trained with short chains. If longer chains drift to much lower energies, then the EBM assigns high density
to regions away from the data, even if the samples of short chains look good.
"""

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
            "x-chains run for 1, 10 and 100 times the number of steps used in training. If the EBM is correct only "
            "near the data, then longer chains reach energies far below those of held-out data, and pixels leave "
            "[-1, 1]. Energies and pixels are measured before clipping."
        ),
        metrics={
            "long_run/{group}/energy": Metric("Mean energy", needs=("energy",)),
            "long_run/{group}/rms_change": Metric(
                "RMS change since training length", unit="per pixel or coordinate", needs=("energy",)
            ),
            "long_run/{group}/share_outside_range": Metric(
                "Fraction of pixels outside [-1, 1]", "lower", needs=("energy",)
            ),
        },
        other_groups="{} steps",
    ),
)
CAPTIONS = {
    "long_run": (
        "x-chains up to 100 times as long as in training: the energy along the chains and, for images, the states of "
        "some chains (clipped). The gray lines and the right edge mark 1, 10 and 100 times the training length. If the "
        "energy levels off near that of held-out data, the EBM is stable under long chains."
    )
}
LENGTHS = (1, 10, 100)
"""Lengths of the chains, as multiples of the number of steps used in training."""


class LongChains(NamedTuple):
    """A group of x-chains, with their states after each of LENGTHS.

    Attributes:
      steps: [3], numbers of Langevin steps.
      states: [3, B, ...], states of the chains after each number of steps.
      energy: [steps[-1] + 1, B], energy before the first step and after each step.
    """

    steps: list[int]
    states: np.ndarray
    energy: np.ndarray


def applies(config, dataset) -> bool:
    """Return whether the x-chain of training has any steps."""
    return config.x_chain.num_steps > 0


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure energy, change since the training length and, for images, the fraction of pixels outside [-1, 1]."""
    chains, metrics = run(model, seed=inputs.seed), {}
    for step, x in zip(chains.steps, chains.states, strict=True):
        metrics[f"long_run/{step}/energy"] = float(chains.energy[step].mean())
        metrics[f"long_run/{step}/rms_change"] = float(np.sqrt(np.mean((x - chains.states[0]) ** 2)))
        if x.ndim == 4:
            metrics[f"long_run/{step}/share_outside_range"] = float(np.mean(np.abs(x) > 1))
    return Measured(metrics, chains)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the energy along the chains and, for images, the states at each of LENGTHS."""
    steps, states, energy = measured.arrays
    states = sampling.finish(states)[:, :8]
    has_images = states.ndim == 5
    size = (11 if has_images else 6, 4)
    figure, axes = figures.plt.subplots(1, 1 + has_images, figsize=size, layout="constrained", squeeze=False)
    axis = axes[0, 0]
    low, middle, high = np.percentile(energy, (5, 50, 95), axis=1)
    num_steps = np.arange(len(energy))
    axis.fill_between(num_steps, low, high, alpha=0.25, label="x-chains, 5th to 95th percentile")
    axis.plot(num_steps, middle, label="x-chains, median")
    held_out = out_of_distribution.energies(model, inputs.held_out).mean()
    axis.axhline(held_out, color="black", linestyle=":", label="held-out data, mean")
    for step in steps:
        axis.axvline(step, color="gray", linewidth=0.5)
    axis.set(xscale="symlog", xlim=(0, num_steps[-1]), xlabel="number of Langevin steps", ylabel="energy")
    axis.legend(fontsize=8)
    if has_images:
        title = f"rows: the chains after {', '.join(f'{step:,}' for step in steps)} steps"
        figures.show(axes[0, 1], figures.tile(states), title)
    return {"long_run": figure}


def run(model: Model, *, seed: int) -> LongChains:
    """Run one group of x-chains for 100 times the number of steps used in training.

    The chains have the initial states, step size and temperature of training; `evaluation.x_chain` is not used.

    Args:
      model: the model.
      seed: seed of the chains.
    """
    model = model.with_trained_x_chain()
    key, num_steps = random_streams.key(seed, Stream.LONG_CHAINS), model.config.x_chain.num_steps
    x, energy = _start(model, jax.random.fold_in(key, 0))
    energies, states = [energy], []
    for i in tqdm(range(1, LENGTHS[-1] + 1), desc="long chains", unit="chain length", delay=2, leave=False):
        x, energy = _continue(model, jax.random.fold_in(key, i), x)
        energies.append(energy)
        if i in LENGTHS:
            states.append(np.asarray(x))
    steps = [num_steps * length for length in LENGTHS]
    return LongChains(steps, np.stack(states), np.concatenate(jax.device_get(energies)))


@jax.jit
def _start(model, key):
    """Return initial states [B, ...] of the chains and their energies [1, B]."""
    bound = model.bound()
    x = bound.synthesize(chain_keys(key, jnp.arange(model.group_size)), num_steps=0).revised
    return x, bound.energy(x)[None]


@jax.jit
def _continue(model, key, x):
    """Run the chains for one training length; return the states [B, ...] and the energy after each step [K, B]."""
    bound = model.bound()
    x, trace = bound.revise_x(chain_keys(key, jnp.arange(model.group_size)), x)
    energy = -trace.log_density * model.config.energy.temperature
    return x, jnp.concatenate([energy[1:], bound.energy(x)[None]])
