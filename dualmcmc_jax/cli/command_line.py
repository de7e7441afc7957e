"""The flags of the command line, their parser and their checks. `dualmcmc --help` describes each flag."""

import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from ml_collections import config_flags

from dualmcmc_jax import own_code
from dualmcmc_jax.cli import completion, terminal
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime import memory, storage
from dualmcmc_jax.spelling import did_you_mean, question

_STORED_RUN = str(Path(__file__).with_name("stored_run.py"))
"""The config file that returns the config of the run in a workdir."""
_PRETRAINED = str(Path(__file__).with_name("pretrained.py"))
"""The config file that returns the config of weights."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config: the name of a shipped config, or a Python file.", lock_config=True
)
PRETRAINED = flags.DEFINE_string("pretrained", None, "Shipped weights, hf:OWNER/NAME, an https address, or a file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
MODE = flags.DEFINE_string("mode", "train", "The mode of the program.")
STEP = flags.DEFINE_integer(
    "step", None, "Step of the checkpoint (default: newest), or of a .pth file to import.", lower_bound=0
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Number of samples to draw.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Random seed of samples and evaluations.", lower_bound=0, upper_bound=2**63 - 1)
INCEPTION_WEIGHTS = flags.DEFINE_string(
    "inception_weights", None, "File with the weights of the 2015 Inception network."
)
INPUT = flags.DEFINE_multi_string("input", None, "A folder, zip file, .npz file or data source.")
REFERENCE = flags.DEFINE_string("reference", None, "A folder, zip file, .npz file or data source to compare with.")
TASK = flags.DEFINE_string("task", None, "What to restore: inpaint, denoise or superres.")
MASK = flags.DEFINE_string("mask", None, "Image file with white pixels where images are observed, and black elsewhere.")
NOISE_STD = flags.DEFINE_float("noise_std", None, "Standard deviation of the noise, with pixels in [-1, 1].")
FACTOR = flags.DEFINE_integer("factor", None, "How many times smaller the observed images are, such as 2.")
OBSERVED = flags.DEFINE_bool("observed", False, "Whether the images of --input are observations, not intact images.")
OUT = flags.DEFINE_string("out", None, "Output folder.")
WEIGHTS = flags.DEFINE_string("weights", None, "The model.safetensors or .pth file to import, or shipped weights.")
LICENSE = flags.DEFINE_string("license", "apache-2.0", "License written into the model card.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Number of processes of the run.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Index of this process, from 0.", lower_bound=0)
QUIET = flags.DEFINE_bool("quiet", False, "Show only warnings and errors.")
VERBOSE = flags.DEFINE_bool("verbose", False, "Show more messages.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


class Mode(NamedTuple):
    """A row of the table of modes.

    Attributes:
      name: the value of --mode.
      run: the function of the mode, (config, workdir) -> None.
      flags: names of the flags that this mode accepts. Flags that every mode accepts are left out.
      help: one line that says what the mode does.
      required: names of the flags that this mode needs.
      has_run: whether the mode works on the run in the workdir, whose config must then be the given one.
      repeated: names of the flags that may be given several times.
      out: the suffix of the file that --out names; "" if --out names a folder.
      arguments: what the mode takes without a flag, at least two of them, such as "RUN"; "" for nothing. Such a mode
        needs no config, and its function is called with the list of them.
    """

    name: str
    run: Callable[[Any, Path], None]
    flags: tuple[str, ...]
    help: str
    required: tuple[str, ...] = ()
    has_run: bool = True
    repeated: tuple[str, ...] = ()
    out: str = ""
    arguments: str = ""


def check(modes: tuple[Mode, ...]) -> Mode:
    """Check the flags and return the row of the chosen mode.

    Raises:
      ValueError: the mode does not accept a given flag or lacks a required flag, or flags contradict each other.
    """
    (chosen,) = (mode for mode in modes if mode.name == MODE.value)
    for name in dict.fromkeys(name for mode in modes for name in mode.flags):
        if flags.FLAGS[name].present and name not in chosen.flags:
            users = " or ".join(mode.name for mode in modes if name in mode.flags)
            raise ValueError(f"--{name}: found with --mode={chosen.name}, expected --mode={users}")
    for name in chosen.required:
        if not flags.FLAGS[name].value:
            raise ValueError(_nothing(name))
    if len(INPUT.value or ()) > 1 and "input" not in chosen.repeated:
        raise ValueError(f"--input: found {len(INPUT.value)} values, expected 1 with --mode={chosen.name}")
    if PROCESS_ID.value >= NUM_PROCESSES.value:
        expected = f"0 to {NUM_PROCESSES.value - 1}, with --num_processes={NUM_PROCESSES.value}"
        raise ValueError(f"--process_id: found {PROCESS_ID.value}, expected {expected}")
    if NUM_PROCESSES.value > 1 and not _is_address(COORDINATOR.value):
        raise ValueError(f"--coordinator_address: found {COORDINATOR.value}, expected HOST:PORT of process 0")
    if OUT.value and chosen.out and (Path(OUT.value).suffix != chosen.out or Path(OUT.value).is_dir()):
        raise ValueError(f"--out: found {OUT.value}, expected a file that ends in {chosen.out}")
    if OUT.value and not chosen.out and Path(OUT.value).exists() and not Path(OUT.value).is_dir():
        raise ValueError(f"--out: found a file {OUT.value}, expected a folder")
    return chosen


def run(
    main: Callable[[list[str]], None],
    *,
    help: str | Callable[[], str],
    argument: str = "",
    modes: tuple[Mode, ...] = (),
) -> None:
    """Run a program. Print an error in its flags or input as one line, and exit with code 1.

    Args:
      main: the program. Its argument is sys.argv without the flags.
      help: the text that --help prints, or a function that returns the text.
      argument: name of the single positional argument. Empty if the program takes none.
      modes: the rows whose names are the values of --mode. Empty if the program has no modes. A program with modes
        takes the config of the run in --workdir if there is no --config.
    """
    terminal.outlive_streams()
    _keep_warnings_of_others()
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        terminal.show((help if isinstance(help, str) else help()).strip())
        return
    if "--completion" in sys.argv[1:]:
        names = [f"--{flag.name}{'' if flag.boolean else '='}" for flag in _own_flags()]
        terminal.show(completion.script(names, [mode.name for mode in modes]))
        return
    if modes:
        flags.FLAGS["mode"].parser = flags.EnumParser([mode.name for mode in modes])
    if "--debug" not in sys.argv:
        sys.unraisablehook = lambda _: None  # otherwise callbacks of a failed save print tracebacks
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # by `interrupts.end_quietly`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app.run(main, flags_parser=partial(parse, argument=argument, modes=modes))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        expected = isinstance(error, ValueError | OSError) or memory.ran_out(error)
        if "--debug" in sys.argv or not expected:
            raise
        print(f"{terminal.colored('error:', terminal.RED)} {message(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # sys.exit would wait up to twenty minutes for the threads of a failed save


def _keep_warnings_of_others() -> None:
    """Let warnings of other packages be no errors with `python -W error`. One of TensorBoard would end the program."""
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.filterwarnings("default", module=r"(?!dualmcmc_jax\b)")


def message(error: Exception) -> str:
    """Return the text of an error as one line. If the text begins with the name of a flag, put "--" before it."""
    text = str(error)
    if memory.ran_out(error):
        found = f"too little ({first_line(error)})"
        text = f"memory: found {found}, expected enough for this config; lower train.batch_size or the networks' widths"
    is_flag = text.partition(": ")[0] in {flag.name for flag in _own_flags()}
    return terminal.one_line(f"--{text}" if is_flag else text)


def _own_flags() -> list[flags.Flag]:
    return flags.FLAGS.flags_by_module_dict()[__name__]


def _is_address(text: str | None) -> bool:
    match = re.fullmatch(r"(.+):(\d{1,5})", text or "")
    return bool(match) and int(match[2]) < 2**16


def _nothing(name: str) -> str:
    """Return the message for a flag that has no value. It says what the flag means."""
    expected = flags.FLAGS[name].help.rstrip(".")
    return f"--{name}: found nothing, expected {expected[0].lower()}{expected[1:]}"


def _check_not_empty() -> None:
    """Raise ValueError if a flag is given with an empty value. Fields of the config may be empty."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if flag.present and "." not in name and any(isinstance(value, str) and not value.strip() for value in values):
            raise ValueError(_nothing(name))


def refuse_others(*names: str) -> None:
    """Raise ValueError if a flag is given that is neither in `names` nor accepted by all programs."""
    for flag in _own_flags():
        if flag.present and flag.name.split(".")[0] not in (*names, "config", "quiet", "verbose", "debug"):
            accepted = ", ".join(f"--{name}" for name in ("config", *names))
            raise ValueError(f"--{flag.name}: found a flag that this program does not use, expected only {accepted}")


def inception_weights() -> Path | None:
    """Return the path of --inception_weights, or None. Raise ValueError if it is not a file."""
    if not INCEPTION_WEIGHTS.value:
        return None
    from dualmcmc_jax.features import inception

    path = storage.local_path("inception_weights", INCEPTION_WEIGHTS.value)
    inception.check_file(path)
    return path


def config_name() -> str:
    """Return the config's name for use in folder names: "digits", or "vae-digits" for baselines/vae:digits.

    The config of a stored run has the name of its workdir. With --pretrained=digits, the name is "pretrained-digits".
    """
    if PRETRAINED.value:
        return re.sub(r"\W+", "-", f"pretrained-{PRETRAINED.value}").rstrip("-")
    file, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if file == _STORED_RUN:
        return Path(argument).resolve().name
    return "-".join(filter(None, (Path(file).stem, re.sub(r"\W+", "-", argument))))


def _with_config_path(word: str) -> str:
    """Replace NAME in --config=NAME or --versus=NAME by the path of the config. Return other words unchanged."""
    flag, equals, value = word.partition("=")
    value, colon, base = value.partition(":")
    if flag.lstrip("-") not in ("config", "versus") or Path(value).is_file():
        return word
    if not equals:
        raise ValueError(f"found {word!r} without a value, expected {word}=NAME or {word}=FILE")
    if "rivals/" in value:
        raise ValueError(f"{flag}: found {value!r}, expected its new name {value.replace('rivals/', 'baselines/')!r}")
    names = sorted(completion.configs(), key=lambda name: "/" in name)  # baselines last
    if value not in names:
        near = _nearest_config(value, names)
        raise ValueError(f"{flag}: found {value!r}, expected a Python file or one of {', '.join(names)}{near}")
    bases = [name for name in names if "/" not in name]
    if colon and not value.startswith("baselines/"):
        raise ValueError(f"{flag}: found a colon after {value!r}, expected a colon only after baselines/METHOD")
    if colon and base not in bases:
        near = did_you_mean(base, bases)
        raise ValueError(f"{flag}: found {base!r} after the colon, expected one of {', '.join(bases)}{near}")
    return f"{flag}={completion.CONFIGS / value}.py{colon}{base}"


def _nearest_config(value: str, names: list[str]) -> str:
    """Return a question that names the config or the Python file that a misspelt --config resembles."""
    path = Path(value)
    files = [str(file) for file in path.parent.glob("*.py")] if path.suffix == ".py" else []
    return did_you_mean(value, files) or did_you_mean(value.removeprefix("configs/").removesuffix(".py"), names)


def _with_stored_config(argv: list[str]) -> list[str]:
    """If there is no --config, add the config of --pretrained, or else that of the run in --workdir."""
    values_of = lambda flag: [_value(argv, i) for i, word in enumerate(argv) if re.match(rf"--?{flag}(=|$)", word)]
    if values_of("config"):
        return argv
    for flag, file in (("pretrained", _PRETRAINED), ("workdir", _STORED_RUN)):
        values = values_of(flag)
        if values and values[-1]:
            return [argv[0], f"--config={file}:{values[-1]}", *argv[1:]]
    return argv


def _value(argv: list[str], i: int) -> str:
    """Return the value of the flag in argv[i], which follows "=" or is the next word."""
    _, equals, value = argv[i].partition("=")
    return value if equals else "".join(argv[i + 1 : i + 2])


def _overrides(argv: list[str]) -> list[tuple[str, str, str]]:
    """Return the flags that set config fields, as (name of the config's flag, name of the field, value)."""
    matches = [(i, re.match(r"--?(config|versus)\.([\w.]+)", word)) for i, word in enumerate(argv)]
    return [(match[1], match[2], _value(argv, i)) for i, match in matches if match]


def _parse_error(error: Exception, argv: list[str]) -> str:
    """Return the message for an error in a config file, or in the name or value of a flag."""
    files = {word.partition("=")[2].partition(":")[0] for word in argv}
    cause = error
    while cause:  # absl and ml_collections raise errors of a config file again, with the traceback as text
        in_config = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename in files]
        if in_config and isinstance(cause, ValueError) and in_config[-1].filename in (_STORED_RUN, _PRETRAINED):
            return str(cause)
        if in_config:
            problem = f"{type(cause).__name__} ({cause}) in {in_config[-1].filename}, line {in_config[-1].lineno}"
            return f"--config: found {problem}, expected a get_config() that returns a config"
        cause = cause.__context__
    if isinstance(error, flags.Error):
        return _value_error(error)
    if "get_config" in str(error):
        return "--config: found no function get_config() in the file, expected one"
    return _field_error(error, argv) if isinstance(error, KeyError | AttributeError) else str(error)


def _check_arguments(name: str, given: list[str]) -> None:
    """Raise ValueError unless a mode that takes arguments without a flag has two of them, and no flag names a run."""
    for flag in ("workdir", "pretrained", "config"):
        if flags.FLAGS[flag].value is not None:
            raise ValueError(f"--{flag}: found with --mode={MODE.value}, expected only {name} {name} ...")
    if len(given) < 2:
        raise ValueError(f"{name}: found {' '.join(given) or 'nothing'}, expected two or more: {name} {name} ...")


def _own_code(argv: list[str]) -> set[str]:
    """Return the names of code of the user on the command line, and in a config file that is given there.

    Names in the config of a run or of weights do not count, because it may come from someone else.
    """
    from dualmcmc_jax import config_check

    inputs = [text.rpartition("=")[2] for text in INPUT.value or ()]  # without NAME=
    values = [INPUT.value, inputs, REFERENCE.value]
    for flag in ("config", "versus"):
        if flag not in flags.FLAGS or flags.FLAGS[flag].value is None:
            continue
        fields = config_check.fields(flags.FLAGS[flag].value)
        file = config_flags.get_config_filename(flags.FLAGS[flag]).partition(":")[0]
        is_stored = file in (_STORED_RUN, _PRETRAINED)
        names = {name for given, name, _ in _overrides(argv) if given == flag} if is_stored else fields
        values += [fields[name] for name in names if name in fields]
    items = (item for value in values for item in (value if isinstance(value, tuple | list) else [value]))
    return {item for item in items if own_code.is_name(item)}


def _check_tuples(argv: list[str]) -> None:
    """Raise ValueError if a field that holds a tuple is set to a single value, which would be a tuple of length one."""
    from dualmcmc_jax import config_check

    for flag, name, value in _overrides(argv):
        is_tuple = isinstance(config_check.fields(flags.FLAGS[flag].value).get(name), tuple)
        if is_tuple and value[:1] not in ("(", "[") and "," not in value:
            item = value if re.fullmatch(r"[\d.e+-]+", value) else repr(value.strip("'\""))
            example = "(32,32,3)" if name == "data.shape" else f"({item},)"
            raise ValueError(f'--{flag}.{name}: found {value}, expected a tuple, such as "{example}"')


def _field_error(error: Exception, argv: list[str]) -> str:
    """Return the message for a config field that does not exist. It names the nearest fields."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.configs import default

    fields, part = [*config_check.fields(default.get_config())], re.findall(r"\w+", str(error))[0]
    flag, name = next(
        ((flag, name) for flag, name, _ in _overrides(argv) if part in name.split(".") and name not in fields),
        ("config", part),
    )
    near = _nearest_fields(name, fields)
    return f"--{flag}: found {name!r}, which is not a config field{near or '; configs/default.py lists all fields'}"


def _nearest_fields(name: str, fields: list[str]) -> str:
    """Return a question that names the fields with the same last part as a name, or the field that resembles it."""
    last = name.rpartition(".")[2]
    same = [field for field in fields if field.rpartition(".")[2] == last]
    return did_you_mean(name, same) or question(same[:3]) or did_you_mean(name, fields)


def _value_error(error: flags.Error) -> str:
    """Return the message for a flag whose value has the wrong type or is out of range."""
    match = re.match(r"flag --([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if not match or match[1] not in flags.FLAGS:
        return str(error)
    name, value, parser = match[1], match[2], flags.FLAGS[match[1]].parser
    expected = parser.syntactic_help
    if isinstance(parser, flags.EnumParser):
        expected = f"one of {', '.join(parser.enum_values)}{did_you_mean(value, parser.enum_values)}"
    elif isinstance(parser, flags.BooleanParser):
        expected = "True or False"
    elif "as a ConfigDict" in str(error):
        expected = f"--{name}.FIELD=VALUE, because {name.partition('.')[2]} is a section of the config"
    elif "as tuple" in str(error):
        expected = f'a tuple, such as "{"(32,32,3)" if name.endswith(".data.shape") else "(64,64)"}"'
    return f"--{name}: found {value!r}, expected {expected}" if expected else str(error)


def _flag_error(error: flags.UnrecognizedFlagError, *, has_runs: bool) -> str:
    """Return the message for a flag that does not exist. It names the flag or the config field that it resembles."""
    section = error.flagname.partition(".")[0]
    if section != error.flagname and section in ("config", "versus") and section in flags.FLAGS:
        or_run = " or --workdir=DIR" if has_runs and section == "config" else ""
        return f"--{error.flagname}: found without --{section}, expected also --{section}=NAME{or_run}; see --help"
    if "Did you mean" in str(error):
        return str(error)
    from dualmcmc_jax import config_check
    from dualmcmc_jax.configs import default

    names = [f"--config.{name}" for name in config_check.fields(default.get_config())]
    return f"{error}{_nearest_fields(f'--config.{error.flagname}', names)}"


def parse(argv: list[str], *, argument: str = "", modes: tuple[Mode, ...] = ()) -> list[str]:
    """Parse the flags.

    Args:
      argv: sys.argv.
      argument: name of the single positional argument. Empty if the program takes none.
      modes: the rows whose names are the values of --mode. If there are any, --pretrained names weights and --workdir
        is the folder of a run. If there is no --config, the config of the first of them is used.

    Returns:
      argv without the flags.

    Raises:
      ValueError: a flag is unknown or has no valid value, or the config cannot be read. The message is one line.
    """
    argv, has_runs = [_with_config_path(word) for word in argv], bool(modes)
    if has_runs:
        argv = _with_stored_config(argv)
    try:
        rest = flags.FLAGS(argv)
    except SyntaxError as error:
        raise ValueError(f"--config: found {error.msg} in {error.filename}, line {error.lineno}") from error
    except flags.UnrecognizedFlagError as error:
        raise ValueError(_flag_error(error, has_runs=has_runs)) from error
    except Exception as error:
        raise ValueError(_parse_error(error, argv)) from error
    _check_not_empty()
    if several := next((mode.arguments for mode in modes if mode.name == MODE.value), ""):
        _check_arguments(several, rest[1:])
        terminal.start(quiet=QUIET.value, verbose=VERBOSE.value)
        return rest
    if CONFIG.value is None:
        or_run = ", or the workdir of a run" if has_runs else ""
        raise ValueError(f"--config: found nothing, expected a config, such as --config=digits{or_run}; see --help")
    if rest[2:] or (rest[1:] and not argument):
        expected = f"one {argument} and flags" if argument else "only flags"
        raise ValueError(f"found {rest[-1]!r}, expected {expected}, such as --config=digits")
    if argument and not rest[1:]:
        raise ValueError(f"found no {argument}, expected one; see --help")
    _check_tuples(argv)
    own_code.permit(_own_code(argv))
    terminal.start(quiet=QUIET.value, verbose=VERBOSE.value)
    return rest
