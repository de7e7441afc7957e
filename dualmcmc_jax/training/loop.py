"""Training from the first step, or the newest checkpoint, to the last."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dualmcmc_jax import models
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import batch_indices
from dualmcmc_jax.training import checkpoints, metrics, optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import AXIS, train_step


def train(config, workdir: Path, *, draw: Callable[[int, train_state.TrainState], None]) -> train_state.TrainState:
    """Runs a config to its train.num_steps, resuming where the workdir's newest checkpoint ends.

    Args:
      config: the whole config.
      workdir: receives config.json, metrics.jsonl, tensorboard/ and checkpoints/.
      draw: draw(step, state) is called every log.images_every steps and after the last one; it must not keep the state,
        whose buffers the next step takes over.

    Returns:
      The final state.

    Raises:
      ValueError: the config, or the workdir's, does not allow it; nothing has been written then.
    """
    dataset = sources.load(config.data.source, config.data.shape)
    num_examples, batch_size = len(dataset.train), config.train.batch_size
    num_devices = jax.device_count()
    if batch_size % num_devices or not 0 < batch_size <= num_examples:
        raise ValueError(
            f"train.batch_size: found {batch_size}, expected a multiple of {num_devices} devices up to {num_examples}"
        )
    nets = models.build(config, axis_name=AXIS)
    optimizer = optimizers.build(config, steps_per_epoch=num_examples // batch_size)
    state = train_state.create(config, nets, optimizer)
    checkpoints.claim(workdir, config)

    update = jax.pmap(
        partial(train_step, nets=nets, optimizers=optimizer, config=config),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
    )
    # Where the update leaves the state: put there at first too, or the second step would be compiled again.
    everywhere = NamedSharding(Mesh(jax.local_devices(), (AXIS,)), PartitionSpec())
    local = slice(jax.process_index() * jax.local_device_count(), (jax.process_index() + 1) * jax.local_device_count())

    def batch(step):
        index = batch_indices(config.train.seed, step, num_examples=num_examples, batch_size=batch_size)
        return dataset.train[index.reshape(num_devices, -1)[local]]  # [local devices, B, ...]

    with checkpoints.Checkpoints(workdir, config.checkpoint.keep) as store:
        state = jax.device_put(store.restore(state) or state, everywhere)
        start, last = int(state.step), config.train.num_steps
        with metrics.MetricsWriter(workdir, step=start, num_steps=last) as writer:
            due = None  # the row to write once the next step is under way, so that the device never waits for it
            for step in range(start + 1, last + 1):
                state, scalars = update(state, batch(step - 1))
                if due:
                    writer.write(*due)
                at = lambda every, step=step: step % every == 0 or step == last
                due = (step, scalars) if at(config.log.every) else None
                writer.advance(step)
                if at(config.checkpoint.every):
                    store.save(state)
                if at(config.log.images_every):
                    draw(step, state)
            if due:
                writer.write(*due)
    return state
