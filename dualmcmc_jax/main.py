"""Trains a model or draws from it.

  python -m dualmcmc_jax.main --config=configs/digits.py
  python -m dualmcmc_jax.main --config=configs/digits.py --mode=sample --num_samples=100 --seed=1

The same command again resumes. Any field of the config can be set: --config.train.num_steps=5000
"""

import sys
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from dualmcmc_jax.configs import validation

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, a Python file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/NAME, NAME that of the config.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "sample"], "What to do.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Samples to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "Folder for samples.png and samples.npz; default: WORKDIR/samples.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(_argv) -> None:
    """Runs the chosen mode; what is wrong with the input is said in one line, exit code 1."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is meant
    try:
        config = _CONFIG.value
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = Path(_WORKDIR.value or Path("runs") / name)
        validation.check(config)
        if config.train.compute_dtype == "float64":
            import jax

            jax.config.update("jax_enable_x64", True)
        {"train": train, "sample": sample}[_MODE.value](config, workdir)
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f"error: {error}")


def train(config, workdir: Path) -> None:
    """Trains, drawing samples/step_*.png now and then."""
    import jax

    from dualmcmc_jax.evaluation import figures, samples
    from dualmcmc_jax.training import loop

    sampler = samples.sampler(config)

    def draw(step, state):
        if jax.process_index() == 0:
            drawn = sampler(state.average, num_samples=config.log.num_images, seed=config.train.seed)
            figures.samples(workdir / "samples" / f"step_{step:08d}.png", drawn)

    loop.train(config, workdir, draw=draw)
    print(f"done: {workdir}")


def sample(config, workdir: Path) -> None:
    """Draws from the newest checkpoint into samples.npz and samples.png."""
    from dualmcmc_jax.evaluation import figures, samples
    from dualmcmc_jax.training import checkpoints

    state = checkpoints.restore(config, workdir)
    drawn = samples.sampler(config)(state.average, num_samples=_NUM_SAMPLES.value, seed=_SEED.value)
    out = Path(_OUT.value or workdir / "samples")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "samples.npz", **drawn)
    figures.samples(out / "samples.png", drawn)
    print(f"step {int(state.step)}: wrote {out / 'samples.npz'} and {out / 'samples.png'}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
