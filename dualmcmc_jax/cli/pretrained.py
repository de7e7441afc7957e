"""The config of weights, as a config file: --config=pretrained.py:NAME."""

from dualmcmc_jax.interop import pretrained, weights_file


def get_config(name: str):
    """Return the config of shipped weights, of hf:OWNER/NAME, of an https address, or of a model.safetensors file.

    Raises:
      ValueError: there are no such weights, or they cannot be read.
    """
    return weights_file.read_config(pretrained.locate("pretrained", name)).lock()
