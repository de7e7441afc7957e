"""The flags of the command line, and what is wrong with them."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from dualmcmc_jax.cli import completion, terminal
from dualmcmc_jax.configs import default

CONFIG = config_flags.DEFINE_config_file("config", None, "The config, a Python file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "sample", "evaluate", "export", "import"], "What to do.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint; default: the newest.", lower_bound=0)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Samples to draw.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
INCEPTION_WEIGHTS = flags.DEFINE_string("inception_weights", None, "Weights of the Inception network of 2015.")
OUT = flags.DEFINE_string("out", None, "Folder of the samples, the evaluation or the export.")
WEIGHTS = flags.DEFINE_string("weights", None, "The model.safetensors to import.")
LICENSE = flags.DEFINE_string("license", "apache-2.0", "Licence of the exported weights.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes of the run.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Number of this process.", lower_bound=0)
QUIET = flags.DEFINE_bool("quiet", False, "No progress, no notes.")
VERBOSE = flags.DEFINE_bool("verbose", False, "More notes.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def check() -> None:
    """Raises ValueError for a flag that the mode does not use, or an --out that is no folder."""
    users = {
        "num_samples": ("sample",),
        "seed": ("sample", "evaluate"),
        "step": ("sample", "evaluate", "export"),
        "out": ("sample", "evaluate", "export"),
        "inception_weights": ("train", "evaluate"),
        "num_processes": ("train",),
        "weights": ("import",),
        "license": ("export",),
    }
    for name, modes in users.items():
        if flags.FLAGS[name].present and MODE.value not in modes:
            raise ValueError(f"--{name}: found with --mode={MODE.value}, expected --mode={' or '.join(modes)}")
    if MODE.value == "import" and not WEIGHTS.value:
        raise ValueError("--weights: found nothing, expected the model.safetensors to import")
    if PROCESS_ID.value >= NUM_PROCESSES.value:
        expected = f"0 to {NUM_PROCESSES.value - 1}, with --num_processes={NUM_PROCESSES.value}"
        raise ValueError(f"--process_id: found {PROCESS_ID.value}, expected {expected}")
    if NUM_PROCESSES.value > 1 and not _is_address(COORDINATOR.value):
        raise ValueError(f"--coordinator_address: found {COORDINATOR.value}, expected HOST:PORT of process 0")
    if OUT.value and Path(OUT.value).exists() and not Path(OUT.value).is_dir():
        raise ValueError(f"--out: found a file {OUT.value}, expected a folder")


def run(main: Callable[[list[str]], None], *, help: str, argument: str = "") -> None:
    """A program: what is wrong with its flags or input is said in one line, exit code 1.

    Args:
      main: gets sys.argv without the flags.
      help: what --help prints.
      argument: what the one argument beside the flags is; empty if there is none.
    """
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(help.strip())
        return
    if "--completion" in sys.argv[1:]:
        names = [f"--{flag.name}{'' if flag.boolean else '='}" for flag in flags.FLAGS.flags_by_module_dict()[__name__]]
        print(completion.script(names, flags.FLAGS["mode"].parser.enum_values))
        return
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
        print(f"{terminal.colored('error:', terminal.RED)} {one_line(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # threads of a save that failed would wait for twenty minutes


def _is_address(text: str | None) -> bool:
    found = re.fullmatch(r"(.+):(\d{1,5})", text or "")
    return bool(found) and int(found[2]) < 2**16


def one_line(error: Exception) -> str:
    """An error as one line of printable characters, cut off where it gets long: files can have any name."""
    line = "".join(c if c.isprintable() else " " for c in str(error))
    line = " ".join(line.split())
    return line if len(line) <= 1000 else f"{line[:990]} [...]"


def refuse_others(*names: str) -> None:
    """Raises ValueError for a flag of training that is given and not among names."""
    for flag in flags.FLAGS.flags_by_module_dict()[__name__]:
        if flag.present and flag.name.split(".")[0] not in (*names, "config", "quiet", "verbose", "debug"):
            raise ValueError(
                f"--{flag.name}: found, expected only {', '.join(f'--{name}' for name in ('config', *names))}"
            )


def config_name() -> str:
    """The stem of the config's file, and what follows its colon: a name for folders."""
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return "-".join(filter(None, (Path(file).stem, re.sub(r"\W+", "-", argument))))


def _named(argument: str) -> str:
    """--config=NAME as the path of the config of that name; --versus likewise."""
    flag, given, value = argument.partition("=")
    value, colon, of = value.partition(":")
    if flag.lstrip("-") not in ("config", "versus") or Path(value).is_file():
        return argument
    if not given:
        raise ValueError(f"found {argument!r} alone, expected {argument}=NAME or FILE")
    folder, names = Path(default.__file__).parent, completion.configs()
    if value not in names:
        raise ValueError(f"{flag}: found {value!r}, expected a Python file or one of {', '.join(names)}")
    plain = [name for name in names if "/" not in name]
    if colon and not value.startswith("rivals/"):
        raise ValueError(f"{flag}: found a colon after {value!r}, expected one only after rivals/METHOD")
    if colon and of not in plain:
        raise ValueError(f"{flag}: found {of!r} after the colon, expected one of {', '.join(plain)}")
    return f"{flag}={folder / value}.py{colon}{of}"


def parse(argv: list[str], *, argument: str = "") -> list[str]:
    """flags.FLAGS(argv), with every way in which it can fail as a ValueError of one line; argument as of `run`."""
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
