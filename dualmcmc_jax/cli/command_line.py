"""The flags of the command line, and checks of them. `dualmcmc --help` describes each."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from ml_collections import config_flags

from dualmcmc_jax.cli import completion, terminal

CONFIG = config_flags.DEFINE_config_file("config", None, "The config, a Python file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
MODE = flags.DEFINE_string("mode", "train", "What to do.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; default: the newest.", lower_bound=0)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Samples to draw.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
INCEPTION_WEIGHTS = flags.DEFINE_string("inception_weights", None, "Weights of the Inception network of 2015.")
OUT = flags.DEFINE_string("out", None, "Folder of the samples, the evaluation or the export.")
WEIGHTS = flags.DEFINE_string("weights", None, "The model.safetensors or .pth file to import.")
LICENSE = flags.DEFINE_string("license", "apache-2.0", "Licence of the exported weights.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes of the run.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Number of this process.", lower_bound=0)
QUIET = flags.DEFINE_bool("quiet", False, "No progress, no notes.")
VERBOSE = flags.DEFINE_bool("verbose", False, "More notes.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


class Mode(NamedTuple):
    """A row of the table of modes: what a program does with a config and a workdir.

    Attributes:
      name: value of --mode.
      run: (config, workdir) -> None.
      flags: flags that this mode uses, of those that not every mode uses.
      help: a line that says what the mode does.
      required: flags without which this mode cannot run.
    """

    name: str
    run: Callable[[Any, Path], None]
    flags: tuple[str, ...]
    help: str
    required: tuple[str, ...] = ()


def check(modes: tuple[Mode, ...]) -> Mode:
    """Check the flags, and return the mode that they choose.

    Raises:
      ValueError: a flag is given that the mode does not use, or flags contradict each other.
    """
    (chosen,) = (mode for mode in modes if mode.name == MODE.value)
    for name in dict.fromkeys(name for mode in modes for name in mode.flags):
        if flags.FLAGS[name].present and name not in chosen.flags:
            users = " or ".join(mode.name for mode in modes if name in mode.flags)
            raise ValueError(f"--{name}: found with --mode={chosen.name}, expected --mode={users}")
    for name in chosen.required:
        if not flags.FLAGS[name].value:
            wanted = flags.FLAGS[name].help.rstrip(".")
            raise ValueError(f"--{name}: found nothing, expected {wanted[0].lower()}{wanted[1:]}")
    if PROCESS_ID.value >= NUM_PROCESSES.value:
        expected = f"0 to {NUM_PROCESSES.value - 1}, with --num_processes={NUM_PROCESSES.value}"
        raise ValueError(f"--process_id: found {PROCESS_ID.value}, expected {expected}")
    if NUM_PROCESSES.value > 1 and not _is_address(COORDINATOR.value):
        raise ValueError(f"--coordinator_address: found {COORDINATOR.value}, expected HOST:PORT of process 0")
    if OUT.value and Path(OUT.value).exists() and not Path(OUT.value).is_dir():
        raise ValueError(f"--out: found a file {OUT.value}, expected a folder")
    return chosen


def run(main: Callable[[list[str]], None], *, help: str, argument: str = "", modes: tuple[Mode, ...] = ()) -> None:
    """Run a program. An error of its flags or input is printed in one line, with exit code 1.

    Args:
      main: gets sys.argv without the flags.
      help: what --help prints.
      argument: name of the one argument beside the flags; empty if there is none.
      modes: the values of --mode; empty if the program has no modes.
    """
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(help.strip())
        return
    if "--completion" in sys.argv[1:]:
        names = [f"--{flag.name}{'' if flag.boolean else '='}" for flag in _own_flags()]
        print(completion.script(names, [mode.name for mode in modes]))
        return
    if modes:
        flags.FLAGS["mode"].parser = flags.EnumParser([mode.name for mode in modes])
    if "--debug" not in sys.argv:
        sys.unraisablehook = lambda _: None  # what callbacks of a failed save would print after its error
    try:
        app.run(main, flags_parser=partial(parse, argument=argument))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"{terminal.colored('error:', terminal.RED)} {message(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # threads of a save that failed would wait for twenty minutes


def message(error: Exception) -> str:
    """Return an error as one line. Where it begins with the name of an argument that has a flag, it names the flag."""
    text = str(error)
    is_argument = text.partition(": ")[0] in {flag.name for flag in _own_flags()}
    return terminal.one_line(f"--{text}" if is_argument else text)


def _own_flags() -> list[flags.Flag]:
    return flags.FLAGS.flags_by_module_dict()[__name__]


def _is_address(text: str | None) -> bool:
    match = re.fullmatch(r"(.+):(\d{1,5})", text or "")
    return bool(match) and int(match[2]) < 2**16


def refuse_others(*names: str) -> None:
    """Raise ValueError for a flag of training that is given and not among names."""
    for flag in _own_flags():
        if flag.present and flag.name.split(".")[0] not in (*names, "config", "quiet", "verbose", "debug"):
            raise ValueError(
                f"--{flag.name}: found, expected only {', '.join(f'--{name}' for name in ('config', *names))}"
            )


def config_name() -> str:
    """Return a name for folders: the stem of the config's file, and what follows its colon."""
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return "-".join(filter(None, (Path(file).stem, re.sub(r"\W+", "-", argument))))


def _named(argument: str) -> str:
    """Return --config=NAME as the path of the config of that name; --versus likewise."""
    flag, given, value = argument.partition("=")
    value, colon, of = value.partition(":")
    if flag.lstrip("-") not in ("config", "versus") or Path(value).is_file():
        return argument
    if not given:
        raise ValueError(f"found {argument!r} alone, expected {argument}=NAME or FILE")
    if "rivals/" in value:
        raise ValueError(f"{flag}: found {value!r}, expected its new name, {value.replace('rivals/', 'baselines/')!r}")
    names = completion.configs()
    if value not in names:
        raise ValueError(f"{flag}: found {value!r}, expected a Python file or one of {', '.join(names)}")
    plain = [name for name in names if "/" not in name]
    if colon and not value.startswith("baselines/"):
        raise ValueError(f"{flag}: found a colon after {value!r}, expected one only after baselines/METHOD")
    if colon and of not in plain:
        raise ValueError(f"{flag}: found {of!r} after the colon, expected one of {', '.join(plain)}")
    return f"{flag}={completion.CONFIGS / value}.py{colon}{of}"


def parse(argv: list[str], *, argument: str = "") -> list[str]:
    """Parse flags as absl does, but raise ValueError of one line for every failure; argument as of `run`."""
    argv = [_named(part) for part in argv]
    try:
        rest = flags.FLAGS(argv)
    except SyntaxError as error:
        raise ValueError(f"--config: found {error.msg} in {error.filename}, line {error.lineno}") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if any(part.endswith(f"={frame.filename}") for part in argv)]
        if inside:
            found = f"{type(error).__name__} ({error}) in {inside[-1].filename}, line {inside[-1].lineno}"
            raise ValueError(f"--config: found {found}, expected a get_config() that returns a config") from error
        if "get_config" in str(error):
            raise ValueError("--config: found no get_config(), expected a file with one") from error
        if isinstance(error, (KeyError, AttributeError)):
            field = re.findall(r"\w+", str(error))[0]
            raise ValueError(f"--config: found no field {field!r}; configs/default.py lists them all") from error
        raise ValueError(str(error)) from error
    if CONFIG.value is None:
        raise ValueError("--config: found nothing, expected a config, as in --config=digits")
    if rest[2:] or (rest[1:] and not argument):
        expected = f"one {argument} and flags" if argument else "flags alone"
        raise ValueError(f"found {rest[-1]!r}, expected {expected}, as in --config=digits")
    if argument and not rest[1:]:
        raise ValueError(f"found no {argument}, expected one")
    terminal.start(quiet=QUIET.value, verbose=VERBOSE.value)
    return rest
