"""The config of the run in a workdir, as a config file: --config=stored_run.py:WORKDIR."""

from dualmcmc_jax import config_check
from dualmcmc_jax.runtime import storage, workdirs


def get_config(name: str):
    """Return the config of the run in a workdir, a local folder or gs://BUCKET/FOLDER.

    Raises:
      ValueError: the workdir holds no run, or the config of the run is not valid.
    """
    workdir = storage.open_workdir(name)
    try:
        if workdirs.read_config(workdir) is None:
            expected = "the workdir of a run, or a config, such as --config=digits"
            raise ValueError(f"--workdir: found no file {storage.shown(workdir / 'config.json')}, expected {expected}")
        return config_check.stored_config(workdir).lock()
    finally:
        storage.close(workdir, upload=False)
