"""Completion of flags, configs and modes for shells: eval "$(dualmcmc --completion)"."""

from pathlib import Path

from dualmcmc_jax import config_check
from dualmcmc_jax.configs import default

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
    """The names of the configs that come with the program."""
    folder = Path(default.__file__).parent
    files = [path for path in (*folder.glob("*.py"), *folder.glob("rivals/*.py")) if path.stem != "__init__"]
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def script(flags: list[str], modes: list[str]) -> str:
    """What bash, or zsh after bashcompinit, evaluates."""
    fields = [f"--config.{name}=" for name in config_check.fields(default.get_config())]
    words = {"configs": configs(), "modes": modes, "flags": ["--help", *flags, *fields]}
    return SCRIPT % {name: " ".join(found) for name, found in words.items()}
