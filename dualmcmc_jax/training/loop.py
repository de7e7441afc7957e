"""How does a training run proceed? The loop over updates, with metrics, checkpoints and rollbacks."""

import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview

from dualmcmc_jax import models
from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.runtime import checkpoints, metric_writer, parallel, signals, storage, wandb_run, workdirs
from dualmcmc_jax.training import checkpointing, health, optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import train_step

Draw = Callable[[int, train_state.TrainState], dict[str, np.ndarray]]
Measure = Callable[[train_state.TrainState], dict[str, float]]
_log = logging.getLogger(__name__)

NOTED_AFTER = 200
"""Updates after the start of a run at which a small power of resampling is noted in the log."""
LEAST_POWER = 0.01
"""Power of resampling below which it is noted."""


def train(
    config,
    workdir: Path,
    *,
    dataset: sources.Dataset,
    draw: Draw,
    measure: Measure,
    missing: Callable[[int], bool] = lambda step: False,
    check: Callable[[], None] | None = None,
    start: Callable[[], train_state.TrainState] | None = None,
) -> train_state.TrainState:
    """Train until `train.num_steps` updates have been made, starting from the newest checkpoint if there is one.

    If the process was killed after saving this checkpoint, its pictures or its evaluation may be missing. They are made
    first.

    Args:
      config: the full config.
      workdir: the folder of the run, to which config.json, digests.json, metrics.jsonl, tensorboard/ and checkpoints/
        are written.
      dataset: the data set, from `sources.load`.
      draw: draw(step, state) -> pictures by name, uint8 [H, W, 3]. It is called every log.images_every updates and
        after the last update. It must not keep the state, because the next update reuses the buffers of the state.
      measure: measure(state) -> metrics by name, which are written as a separate row. It is called every
        evaluation.every updates and after the last update, or never if evaluation.every is 0.
      missing: missing(step) -> whether pictures of this step are missing. It is called for the newest checkpoint.
      check: called once the workdir is locked, before anything is written. It raises ValueError if the workdir holds a
        run of another config; `config_check.check_run` is such a function.
      start: start() -> the state of a new run, such as that of weights, which becomes the first checkpoint. None: the
        state of random parameters.

    Returns:
      The final state.

    Raises:
      signals.Stopped: the process received a signal to stop. The state has been saved.
      ValueError: the config does not fit the data or the devices, or the data have changed since the last start (in
        these cases nothing has been written), training diverged, or the workdir cannot be used.
    """
    check_batch_size(config.train.batch_size, len(dataset.train))
    check_chains(config, len(dataset.train))
    nets = models.build(config, axis_name=parallel.AXIS)
    steps_per_epoch = len(dataset.train) // config.train.batch_size
    optimizer = optimizers.build(config, steps_per_epoch=steps_per_epoch)
    fresh = start or partial(train_state.create, config, nets, optimizer)
    update = compiled_step(config, nets, optimizer)
    run = partial(
        _run, config, workdir, update=update, batch=share_of_batch(config, dataset.train), draw=draw, measure=measure
    )
    metric_writer.check(workdir)
    wandb_run.check(config.log.wandb)
    digests = workdir / workdirs.DIGESTS
    is_older_run = workdirs.has_checkpoints(workdir) and not digests.exists()

    with (
        workdirs.claim(workdir, config.to_dict(), data=sources.digests(dataset), check=check),
        signals.Watch() as watch,
        checkpoints.Checkpoints(workdir, config.checkpoint.keep) as store,
    ):
        state = checkpointing.read(store, config)
        if state is None:
            state = fresh()
            if start:  # if the process is killed early, the next one goes on from here, whatever its flags are
                checkpointing.save(store, state)
        for name, params in state.params._asdict().items():
            _log.debug("%s: %s parameters", name, f"{parameter_overview.count_parameters(params):,}")
        _log.debug("%d training examples, %d devices: %s", len(dataset.train), jax.device_count(), jax.devices()[0])
        if is_older_run and dataset.notes and jax.process_index() == 0:
            unknown = f"{storage.shown(digests)}: found no such file, so the data may not be those of earlier starts"
            _log.warning("%s; they are now divided as follows: %s", unknown, dataset.notes)
        late = _late(config, workdir, int(state.step), missing)
        if int(state.step) >= config.train.num_steps and not any(late):
            progress = f"{storage.shown(workdir)} is at step {state.step}, train.num_steps is {config.train.num_steps}"
            _log.info("nothing to do: %s; raise train.num_steps to train longer", progress)
            return state
        _log.info("%s", sources.describe(dataset))
        warn_of_decay(config, steps_per_epoch)
        event = {}
        for attempt in itertools.count(int(state.attempt) + 1):
            try:
                return run(parallel.replicate(state), event, late, store=store, watch=watch)
            except health.Diverged as diverged:
                store.wait()
                state = checkpointing.read(store, config) or fresh()
                at_once = event.get("diverged_at") == diverged.step == int(state.step) + 1
                if config.health.policy == "stop" or attempt > config.health.max_rollbacks or at_once:
                    twice = ", twice in the first update, where lower learning rates do not help" if at_once else ""
                    good = f"the last good state is from step {int(state.step)}"
                    raise ValueError(f"{diverged}{twice}; {good}") from diverged
                _log.warning("%s; restarting from step %d (rollback %d)", diverged, int(state.step), attempt)
                state = health.next_attempt(state, attempt)
                event, late = {"rollbacks": attempt, "diverged_at": diverged.step}, (False, False)


def compiled_step(config, nets: models.Nets, optimizers: Params, devices: list[jax.Device] | None = None):
    """Compile `train_step`.

    Args:
      config: the full config.
      nets: the networks of the config.
      optimizers: the optimizers of the config.
      devices: the devices to compile for. None: all devices of all processes.

    Returns:
      update(state, batch) -> (state, metrics), as described in `parallel.compile_update`.
    """
    return parallel.compile_update(partial(train_step, nets=nets, optimizers=optimizers, config=config), devices)


@contextlib.contextmanager
def _compilation():
    """Say that the first update is compiled, and how long this took. Later updates are only queued."""
    _log.info("compiling the update; this can take some minutes the first time")
    begin = time.monotonic()
    yield
    _log.info("compiled the update in %.0f s", time.monotonic() - begin)


def _due(config, step: int) -> tuple[bool, bool]:
    """Return whether pictures are drawn after an update, and whether the light evaluation runs."""
    return _is_due(config, step, config.log.images_every), _is_due(config, step, config.evaluation.every)


def _is_due(config, step: int, every: int) -> bool:
    return bool(every) and (step % every == 0 or step == config.train.num_steps)


def _late(config, workdir: Path, step: int, missing: Callable[[int], bool]) -> tuple[bool, bool]:
    """Return whether the pictures and the evaluation of a checkpoint are due but missing.

    Nothing is missing in a workdir without metrics.jsonl, in which no run has begun. Its checkpoint was imported.
    """
    if not step or not (workdir / "metrics.jsonl").exists():
        return False, False
    pictures, evaluation = _due(config, step)
    return pictures and missing(step), evaluation and not metric_writer.has_evaluation(workdir, step)


def _run(
    config,
    workdir: Path,
    state,
    event: dict[str, float],
    late: tuple[bool, bool],
    *,
    update,
    batch,
    draw: Draw,
    measure: Measure,
    store,
    watch,
):
    """Train from a state until the last update, divergence, or a signal to stop.

    `event` is a row of metrics that records the last rollback. It is written first. It is empty if there was none.
    `late` says whether to draw pictures and to evaluate before the first update.
    """
    start, last = int(state.step), config.train.num_steps
    wandb = config.to_dict() if config.log.wandb else None
    with metric_writer.MetricsWriter(
        workdir, step=start, num_steps=last, every=config.log.every, wandb=wandb
    ) as writer:
        writer.scalars(start, event)
        pending = deque()  # metrics of updates that may still be running on the devices

        def log_pending(num_kept: int) -> None:
            while len(pending) > num_kept:
                step, scalars = pending.popleft()
                writer.finished(step, scalars)
                if step == start + NOTED_AFTER and scalars.get("resampling_power", 1) < LEAST_POWER:
                    power = float(scalars["resampling_power"])
                    _log.warning("%s", f"resampling changes almost nothing here: its power is {power:.2g} (1: exact)")
                if step == start + 1 or _is_due(config, step, config.log.every):
                    health.check(step, scalars, config)

        def inspect(step: int, pictures: bool, evaluation: bool) -> None:
            if pictures:
                writer.images(step, draw(step, state))
            if evaluation:
                log_pending(0)
                writer.scalars(step, measure(state))

        if any(late):
            _log.info("making the pictures and the evaluation of step %d that are missing", start)
        inspect(start, *late)
        for step, x in enumerate(batches.prefetch(batch, range(start, last)), start + 1):
            with _compilation() if step == start + 1 else contextlib.nullcontext():
                state, scalars = update(state, x)
            pending.append((step, scalars))
            log_pending(2)  # leaves two updates queued, so that the devices are never idle and the queue does not grow
            stopping = watch.asked(step) and step < last
            if stopping or _is_due(config, step, config.checkpoint.every):
                log_pending(0)  # a run resumed from this checkpoint does not write these rows again
                health.check(step, scalars, config)
                health.check_params(step, state)
                if jax.process_index() == 0:
                    storage.push(workdir, storage.ROWS)  # first, so that every checkpoint has its rows of metrics
                checkpointing.save(store, state)
                if jax.process_index() == 0 and not stopping:
                    storage.push(workdir)
            inspect(step, *_due(config, step))
            if stopping:
                raise signals.Stopped(step)
    return state


def share_of_batch(config, train: np.ndarray) -> Callable[[int], batches.Batch]:
    """Return a function that selects the examples of one update.

    Args:
      config: the full config.
      train: all training examples, uint8 images [N, H, W, C] or float vectors [N, d].

    Returns:
      batch(step) -> this process's share of the batch, x [local devices, B, ...].
    """
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
    """Raise ValueError unless the batch size is a multiple of the device count and at most the number of examples.

    Args:
      batch_size: examples per update, over all devices of all processes.
      num_examples: number of training examples.
    """
    num_devices = jax.device_count()
    if batch_size % num_devices or not 0 < batch_size <= num_examples:
        below = batch_size // num_devices * num_devices
        valid = [n for n in (below, below + num_devices) if 0 < n <= num_examples] or [num_examples // num_devices]
        raise ValueError(
            f"train.batch_size: found {batch_size}, expected a multiple of the number of devices ({num_devices}), "
            f"at most the number of training examples ({num_examples}), such as {' or '.join(map(str, valid))}"
        )


def warn_of_decay(config, steps_per_epoch: int) -> None:
    """Log a warning if the learning rates shrink to less than a millionth, as they do if an epoch has few updates.

    Args:
      config: the full config (uses optimizer.decay and train.num_steps).
      steps_per_epoch: number of updates per epoch.
    """
    decay, num_steps = config.optimizer.decay, config.train.num_steps
    num_epochs = num_steps // steps_per_epoch
    if decay**num_epochs < 1e-6:
        expected = f"{1e-3 ** (1 / num_epochs):.5f} or more, so that a thousandth is left at the end"
        _log.warning(
            "optimizer.decay: found %g after each of %d epochs, which leaves almost nothing of the learning rates, "
            "expected %s",
            decay,
            num_epochs,
            expected,
        )


def check_chains(config, num_examples: int) -> None:
    """Raise ValueError unless the config has a valid number of persistent chains.

    An update continues one x-chain per example of its batch, so at least train.batch_size x-chains are needed. Their
    product must not exceed 2^31, because `persistent_chains.places` computes indices in int32. Each training example
    has its own z-chain.

    Args:
      config: the full config (uses x_chain, z_chain and train.batch_size).
      num_examples: number of training examples.
    """
    x_chain, z_chain, batch_size = config.x_chain, config.z_chain, config.train.batch_size
    if x_chain.init == "persistent" and x_chain.num_chains * batch_size > 2**31:
        expected = f"at most {2**31 // batch_size} with this train.batch_size, so that indices fit 32 bits"
        raise ValueError(f"x_chain.num_chains: found {x_chain.num_chains}, expected {expected}")
    if x_chain.init == "persistent" and x_chain.num_chains < batch_size:
        raise ValueError(
            f"x_chain.num_chains: found {x_chain.num_chains}, expected {batch_size} or more (train.batch_size)"
        )
    if z_chain.init == "persistent" and z_chain.num_chains != num_examples:
        expected = (
            f"{num_examples}, one for each training example; persistent z-chains belong to the training examples, so a "
            "run whose number of examples has changed cannot go on: choose another workdir, --workdir=DIR"
        )
        raise ValueError(f"z_chain.num_chains: found {z_chain.num_chains}, expected {expected}")
