"""Training from the first step, or the newest checkpoint, to the last."""

import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.runtime import checkpoints, metric_writer, parallel, signals, storage, workdirs
from dualmcmc_jax.training import checkpointing, health, optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import train_step

Draw = Callable[[int, train_state.TrainState], dict[str, np.ndarray]]
Measure = Callable[[train_state.TrainState], dict[str, float]]
_log = logging.getLogger(__name__)


def train(
    config,
    workdir: Path,
    *,
    dataset: sources.Dataset,
    draw: Draw,
    measure: Measure,
    check: Callable[[], None] | None = None,
) -> train_state.TrainState:
    """Train to `train.num_steps`, from the workdir's newest checkpoint if it has one.

    Args:
      config: the whole config.
      workdir: receives config.json, metrics.jsonl, tensorboard/ and checkpoints/.
      dataset: from `sources.load`.
      draw: draw(step, state) -> pictures by name, uint8 [H, W, 3]. Called every log.images_every steps and after the
        last step. It must not keep the state, whose buffers the next step reuses.
      measure: measure(state) -> metrics by name, a row of their own. Called every evaluation.every steps and after the
        last step; never if evaluation.every is 0.
      check: called once the workdir is locked, before anything is written. It raises ValueError if the workdir holds a
        run of another config, as `config_check.check_run` does.

    Returns:
      The final state.

    Raises:
      signals.Stopped: a signal asked to stop, and the state is saved.
      ValueError: the config does not fit the data or the devices (nothing has been written then), training diverged, or
        the workdir cannot be used.
    """
    check_batch_size(config.train.batch_size, len(dataset.train))
    check_chains(config, len(dataset.train))
    nets = models.build(config, axis_name=parallel.AXIS)
    optimizer = optimizers.build(config, steps_per_epoch=len(dataset.train) // config.train.batch_size)
    fresh = partial(train_state.create, config, nets, optimizer)
    update = compiled_step(config, nets, optimizer)
    run = partial(
        _run, config, workdir, update=update, batch=share_of_batch(config, dataset.train), draw=draw, measure=measure
    )

    with (
        workdirs.claim(workdir, config.to_dict(), check=check),
        signals.Watch() as watch,
        checkpoints.Checkpoints(workdir, config.checkpoint.keep) as store,
    ):
        state = checkpointing.read(store, config) or fresh()
        for name, params in state.params._asdict().items():
            _log.debug("%s: %s parameters", name, f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}")
        _log.debug("%d examples to train, on %d devices: %s", len(dataset.train), jax.device_count(), jax.devices()[0])
        if int(state.step) >= config.train.num_steps:
            found = f"{storage.shown(workdir)} is at step {state.step}, train.num_steps is {config.train.num_steps}"
            _log.info("nothing to do: %s", found)
            return state
        event = {}
        for attempt in itertools.count(int(state.attempt) + 1):
            try:
                return run(parallel.replicate(state), event, store=store, watch=watch)
            except health.Diverged as diverged:
                store.wait()
                state = checkpointing.read(store, config) or fresh()
                if config.health.policy == "stop" or attempt > config.health.max_rollbacks:
                    raise ValueError(f"{diverged}; the last good state is that of step {int(state.step)}") from diverged
                _log.warning("%s; going back to step %d, attempt %d", diverged, int(state.step), attempt)
                state = health.next_attempt(state, attempt)
                event = {"rollbacks": attempt, "diverged_at": diverged.step}


def compiled_step(config, nets: models.Nets, optimizers: Params, devices: list[jax.Device] | None = None):
    """Compile `train_step` for all devices, or for those given: see `parallel.compile_update`."""
    return parallel.compile_update(partial(train_step, nets=nets, optimizers=optimizers, config=config), devices)


def _run(
    config, workdir: Path, state, event: dict[str, float], *, update, batch, draw: Draw, measure: Measure, store, watch
):
    """Train from a state to the last step, until training diverges, or until a signal asks to stop.

    event: a row of metrics to begin with.
    """
    start, last = int(state.step), config.train.num_steps
    at = lambda step, every: every and (step % every == 0 or step == last)
    with metric_writer.MetricsWriter(workdir, step=start, num_steps=last, every=config.log.every) as writer:
        writer.scalars(start, event)
        under_way = deque()

        def settle(most: int) -> None:
            while len(under_way) > most:
                step, scalars = under_way.popleft()
                writer.finished(step, scalars)
                if at(step, config.log.every):
                    health.check(step, scalars, config)

        for step, x in enumerate(batches.prefetch(batch, range(start, last)), start + 1):
            state, scalars = update(state, x)
            under_way.append((step, scalars))
            settle(2)  # the device always has a next step, and no queue of batches grows
            stopping = watch.asked(step) and step < last
            if stopping or at(step, config.checkpoint.every):
                settle(0)  # no row of metrics is lost that a restored run would not write again
                health.check(step, scalars, config)
                health.check_params(step, state)
                if jax.process_index() == 0:
                    storage.push(workdir, storage.ROWS)  # first, so that no checkpoint is without its rows
                checkpointing.save(store, state)
                if jax.process_index() == 0 and not stopping:
                    storage.push(workdir)
            if at(step, config.log.images_every):
                writer.images(step, draw(step, state))
            if at(step, config.evaluation.every):
                settle(0)
                writer.scalars(step, measure(state))
            if stopping:
                raise signals.Stopped(step)
    return state


def share_of_batch(config, train: np.ndarray) -> Callable[[int], batches.Batch]:
    """Return batch(step): this process's share of the examples of a step, x [local devices, B, ...]."""
    return partial(
        batches.share,
        train=train,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        flip=config.data.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        local_device_count=jax.local_device_count(),
    )


def check_batch_size(batch_size: int, num_examples: int) -> None:
    """Raise ValueError unless the batch size is a multiple of the device count, and at most the number of examples."""
    num_devices = jax.device_count()
    if batch_size % num_devices or not 0 < batch_size <= num_examples:
        below = batch_size // num_devices * num_devices
        fitting = [n for n in (below, below + num_devices) if 0 < n <= num_examples] or [num_examples // num_devices]
        raise ValueError(
            f"train.batch_size: found {batch_size}, expected a multiple of {num_devices} devices "
            f"up to the {num_examples} training examples, such as {' or '.join(map(str, fitting))}"
        )


def check_chains(config, num_examples: int) -> None:
    """Raise ValueError unless there are as many persistent chains as the updates take."""
    x_chain, z_chain, batch_size = config.x_chain, config.z_chain, config.train.batch_size
    if x_chain.init == "persistent" and x_chain.num_chains < batch_size:
        raise ValueError(
            f"x_chain.num_chains: found {x_chain.num_chains}, expected {batch_size} or more, one an example"
        )
    if z_chain.init == "persistent" and z_chain.num_chains != num_examples:
        expected = f"{num_examples}, one of each training example"
        raise ValueError(f"z_chain.num_chains: found {z_chain.num_chains}, expected {expected}")
