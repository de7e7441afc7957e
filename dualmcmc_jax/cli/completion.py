"""Completion of flags, configs and modes for shells: eval "$(dualmcmc --completion)"."""

from pathlib import Path

import dualmcmc_jax.configs

CONFIGS = Path(dualmcmc_jax.configs.__path__[0])
"""Folder of the configs that come with the program."""

SCRIPT = """_dualmcmc() {
  local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]}
  if [ "$word" = "=" ]; then word=; elif [ "$flag" = "=" ]; then flag=${COMP_WORDS[COMP_CWORD-2]}; fi
  case $flag in
    --config) COMPREPLY=($(compgen -f -W "%(configs)s" -- "$word")); compopt -o filenames 2>/dev/null ;;
    --mode) COMPREPLY=($(compgen -W "%(modes)s" -- "$word")) ;;
    --workdir | --out) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
    --inception_weights | --weights) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
    --config.*) COMPREPLY=() ;;
    *) COMPREPLY=($(compgen -W "%(flags)s" -- "$word")); compopt -o nospace 2>/dev/null ;;
  esac
}
complete -F _dualmcmc dualmcmc
"""


def configs() -> list[str]:
    """Return the names of the configs that come with the program."""
    files = [path for path in (*CONFIGS.glob("*.py"), *CONFIGS.glob("baselines/*.py")) if path.stem != "__init__"]
    names = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in files]
    return sorted(names, key=lambda name: ("/" in name, name))  # the baselines last


def script(flags: list[str], modes: list[str]) -> str:
    """Return what bash, or zsh after bashcompinit, evaluates to complete these flags and modes, configs and fields."""
    from dualmcmc_jax import config_check  # takes a second, for JAX
    from dualmcmc_jax.configs import default

    fields = [f"--config.{name}=" for name in config_check.fields(default.get_config())]
    words = {"configs": configs(), "modes": modes, "flags": ["--help", *flags, *fields]}
    return SCRIPT % {name: " ".join(found) for name, found in words.items()}
