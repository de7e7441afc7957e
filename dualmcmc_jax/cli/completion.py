"""Tab completion of flags, configs and modes in bash and zsh: eval "$(dualmcmc --completion)"."""

from pathlib import Path

import dualmcmc_jax.configs

CONFIGS = Path(dualmcmc_jax.configs.__path__[0])
"""Folder of the shipped configs."""

SCRIPT = """_dualmcmc() {
  local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]}
  if [ "$word" = "=" ]; then word=; elif [ "$flag" = "=" ]; then flag=${COMP_WORDS[COMP_CWORD-2]}; fi
  case $flag in
    --config) COMPREPLY=($(compgen -f -W "%(configs)s" -- "$word")); compopt -o filenames 2>/dev/null ;;
    --mode) COMPREPLY=($(compgen -W "%(modes)s" -- "$word")) ;;
    --pretrained) COMPREPLY=($(compgen -f -W "%(pretrained)s" -- "$word")); compopt -o filenames 2>/dev/null ;;
    --workdir | --out) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
    --inception_weights | --weights | --input | --reference)
      COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
    --config.*) COMPREPLY=() ;;
    *) COMPREPLY=($(compgen -W "%(flags)s" -- "$word")); compopt -o nospace 2>/dev/null ;;
  esac
}
complete -F _dualmcmc dualmcmc
"""


def configs() -> list[str]:
    """Return the names of the shipped configs, such as "digits" and "baselines/vae"."""
    files = [path for path in (*CONFIGS.glob("*.py"), *CONFIGS.glob("baselines/*.py")) if path.stem != "__init__"]
    names = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in files]
    return sorted(names, key=lambda name: ("/" in name, name))  # the baselines last


def script(flags: list[str], modes: list[str]) -> str:
    """Return the completion script for bash, and for zsh after bashcompinit.

    Args:
      flags: the flags to complete, such as "--workdir=". Flags of config fields are added.
      modes: the values of --mode.
    """
    from dualmcmc_jax import config_check  # imports JAX, which takes a second
    from dualmcmc_jax.configs import default
    from dualmcmc_jax.interop import pretrained

    fields = [f"--config.{name}=" for name in config_check.fields(default.get_config())]
    words = {"configs": configs(), "modes": modes, "flags": ["--help", *flags, *fields]}
    words["pretrained"] = pretrained.names()
    return SCRIPT % {name: " ".join(choices) for name, choices in words.items()}
