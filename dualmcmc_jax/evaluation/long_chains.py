"""Where do x-chains end if they run for much longer than in training?

The EBM is trained with short chains. If longer chains drift to much lower energies, then the EBM assigns high density
to regions away from the data, even if the samples of short chains look good.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import out_of_distribution, sampling, trajectories
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import chain_diagnostics
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section

SECTIONS = (
    Section(
        title="Long x-chains",
        note=(
            "x-chains run for 1, 10 and 100 times the number of steps used in training. If the EBM is correct only "
            "near the data, then longer chains reach energies far below those of held-out data, and pixels leave "
            "[-1, 1]. The score is the gradient of the log-density. Its norm levels off in chains that have come to "
            "rest, at the norm on held-out data if the EBM fits them, and grows in chains that run away. Energies, "
            "scores and pixels are measured before clipping."
        ),
        metrics={
            "long_run/{group}/energy": Metric("Mean energy", needs=("energy",)),
            "long_run/{group}/score_norm": Metric("Mean norm of the score", needs=("energy",)),
            "long_run/{group}/rms_change": Metric(
                "RMS change since training length", unit="per pixel or coordinate", needs=("energy",)
            ),
            "long_run/{group}/share_outside_range": Metric(
                "Fraction of pixels outside [-1, 1]", "lower", needs=("energy",)
            ),
        },
        groups={"held_out": Group("held-out data")},
        other_groups="{} steps",
    ),
    Section(
        title="Convergence of long x-chains",
        note=(
            "Do the long x-chains, from 10 to 100 times the training length, agree on one distribution? One state per "
            "training length counts as a draw. R-hat compares halves of chains; above 1.01, they still move or stay "
            "in separate modes, and their distribution is not that of the EBM. The effective sample size is the number "
            "of independent draws that would be worth as much as all of these; it should be 100 or more. Both are "
            "rank-normalized (Vehtari et al. 2021). Projections are coordinates, or with more than five of them, five "
            "random directions; the table shows the worst one. An EBM that only guides short chains need not pass, "
            "but one that is used as a density must."
        ),
        metrics={
            "convergence/{group}/r_hat": Metric("R-hat", "lower", "best: 1", needs=("energy",)),
            "convergence/{group}/effective_sample_size": Metric("Effective sample size", "higher", needs=("energy",)),
            "convergence/{group}/num_draws": Metric("Number of draws", needs=("energy",)),
        },
        groups={"energy": Group("energy"), "projections": Group("projections of x")},
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
NUM_PROJECTIONS = 5
"""Largest number of directions of x in which the convergence of the chains is measured."""


class LongChains(NamedTuple):
    """A group of x-chains, with their states after each of LENGTHS.

    Attributes:
      steps: [3], numbers of steps.
      states: [3, B, ...], states of the chains after each number of steps.
      energy: [steps[-1] + 1, B], energy before the first step and after each step.
      score_norm: [3, B], norms of the score grad log p(x) of these states, in 1 / units of x.
      projections: [100, B, P], projections of the states after each training length on P directions.
    """

    steps: list[int]
    states: np.ndarray
    energy: np.ndarray
    score_norm: np.ndarray
    projections: np.ndarray


def applies(config, dataset) -> bool:
    """Return whether the x-chain of training has any steps."""
    return config.x_chain.num_steps > 0


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure energy, score, change since the training length, pixels outside [-1, 1], and convergence."""
    chains, metrics = run(model, seed=inputs.seed), {}
    for step, x, score_norm in zip(chains.steps, chains.states, chains.score_norm, strict=True):
        metrics[f"long_run/{step}/energy"] = float(chains.energy[step].mean())
        metrics[f"long_run/{step}/score_norm"] = float(score_norm.mean())
        metrics[f"long_run/{step}/rms_change"] = float(np.sqrt(np.mean((x - chains.states[0]) ** 2)))
        if x.ndim == 4:
            metrics[f"long_run/{step}/share_outside_range"] = float(np.mean(np.abs(x) > 1))
    held_out = to_float(trajectories.group_of(inputs.held_out, model.group_size), model.dtype)
    energy, score_norm = _at(model.with_trained_x_chain(), held_out)
    metrics["long_run/held_out/energy"] = float(energy.mean())
    metrics["long_run/held_out/score_norm"] = float(score_norm.mean())
    return Measured(metrics | convergence(chains), chains)


def convergence(chains: LongChains) -> dict[str, float]:
    """Return R-hat and the effective sample size of energies and projections, by "convergence/GROUP/METRIC".

    The draws are the states after 11, 12, ..., 100 times the training length. Of several projections, the largest R-hat
    and the smallest effective sample size count. Numbers are NaN if nothing moved, or if chains left all bounds.
    """
    first, length = LENGTHS[1], chains.steps[0]
    energies = chains.energy[length * (first + 1) :: length, :, None]
    metrics = {}
    for name, draws in {"energy": energies, "projections": chains.projections[first:]}.items():
        metrics[f"convergence/{name}/r_hat"] = float(np.max(chain_diagnostics.r_hat(draws)))
        size = np.min(chain_diagnostics.effective_sample_size(draws))
        metrics[f"convergence/{name}/effective_sample_size"] = float(size)
        metrics[f"convergence/{name}/num_draws"] = draws.shape[0] * draws.shape[1]
    return metrics


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the energy along the chains and, for images, the states at each of LENGTHS."""
    steps, states, energy, *_ = measured.arrays
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
    axis.set(xscale="symlog", xlim=(0, num_steps[-1]), xlabel="number of steps", ylabel="energy")
    axis.legend(fontsize=8)
    if has_images:
        title = f"rows: the chains after {', '.join(f'{step:,}' for step in steps)} steps"
        figures.show(axes[0, 1], figures.tile(states), title)
    return {"long_run": figure}


def run(model: Model, *, seed: int) -> LongChains:
    """Run one group of x-chains for 100 times the number of steps used in training.

    The chains have the initial states, sampler, step size and temperature of training; `evaluation.x_chain` and
    `evaluation.sampler` are not used. A sampler whose steps change along the chain, such as "annealed", is used for the
    first training length, and goes on with its last step.

    Args:
      model: the model.
      seed: seed of the chains.
    """
    model = model.with_trained_x_chain()
    key, num_steps = random_streams.key(seed, Stream.LONG_CHAINS), model.config.x_chain.num_steps
    x, energy = _start(model, jax.random.fold_in(key, 0))
    energies, states, score_norms, projections = [energy], [], [], []
    directions = _directions(x[0].size).astype(x.dtype)
    sampler = model.config.x_chain.sampler
    for i in tqdm(range(1, LENGTHS[-1] + 1), desc="long chains", unit="chain length", delay=2, leave=False):
        x, energy = _continue(model, jax.random.fold_in(key, i), x, sampler)
        sampler = SAMPLERS[sampler].then or sampler
        energies.append(energy)
        projections.append(x.reshape(len(x), -1) @ directions)
        if i in LENGTHS:
            states.append(np.asarray(x))
            score_norms.append(_at(model, x)[1])
    steps = [num_steps * length for length in LENGTHS]
    energies, score_norms, projections = jax.device_get((energies, score_norms, projections))
    return LongChains(steps, np.stack(states), np.concatenate(energies), np.stack(score_norms), np.stack(projections))


def _directions(size: int) -> np.ndarray:
    """Return directions [size, P]: the coordinate axes if there are few, or else random unit vectors, always equal."""
    if size <= NUM_PROJECTIONS:
        return np.eye(size)
    vectors = np.random.RandomState(0).normal(size=(size, NUM_PROJECTIONS))
    return vectors / np.linalg.norm(vectors, axis=0)


@jax.jit
def _start(model, key):
    """Return initial states [B, ...] of the chains and their energies [1, B]."""
    bound = model.bound()
    x = bound.synthesize(chain_keys(key, jnp.arange(model.group_size)), num_steps=0).revised
    return x, bound.energy(x)[None]


@jax.jit
def _at(model, x):
    """Return the energies [B] of states x [B, ...], and the norms [B] of their scores."""
    bound = model.bound()
    score = jax.grad(lambda x: bound.log_density(x).sum())(x)
    return bound.energy(x), jnp.sqrt(squared_norm(score))


@partial(jax.jit, static_argnums=3)
def _continue(model, key, x, sampler):
    """Run the chains for one training length; return the states [B, ...] and the energy after each step [K, B]."""
    bound = model.bound()
    x, trace = bound.revise_x(chain_keys(key, jnp.arange(model.group_size)), x, sampler=sampler)
    energy = -trace.log_density * model.config.energy.temperature
    return x, jnp.concatenate([energy[1:], bound.energy(x)[None]])
