"""Log messages and colors on a terminal, tab completion in bash, and the help."""

import errno
import io
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dualmcmc_jax import main
from dualmcmc_jax.cli import command_line, completion, terminal

ROOT = Path(__file__).parents[1]


@pytest.fixture
def log():
    log = logging.getLogger("dualmcmc_jax")
    settings = log.handlers, log.propagate, log.level
    yield log
    log.handlers, log.propagate, log.level = settings
    logging.captureWarnings(False)


@pytest.mark.parametrize(
    ("quiet", "verbose", "expected"),
    [(False, False, "note\n"), (True, False, ""), (False, True, "detail\nnote\n")],
)
def test_messages_follow_quiet_and_verbose(quiet, verbose, expected, log, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "")
    terminal.start(quiet=quiet, verbose=verbose)
    child = logging.getLogger("dualmcmc_jax.training.loop")
    child.debug("detail")
    child.info("note")
    child.warning("warning\nof two\x1b lines")
    assert capsys.readouterr().err == f"{expected}warning of two lines\n"


def test_warnings_of_other_packages_are_shown_with_verbose_as_one_line(log, capsys):
    for verbose in (False, True):
        terminal.start(quiet=False, verbose=verbose)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 900, line="  warn(text)")
        expected = "TiffImagePlugin.py:900: UserWarning: Corrupt EXIF data warn(text)\n"
        assert capsys.readouterr().err == (expected if verbose else "")


def test_warnings_of_other_packages_are_never_errors(monkeypatch):
    """As with python -W error. --help ends the program after the filters are set."""
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    monkeypatch.setattr(terminal, "outlive_streams", lambda: None)
    with warnings.catch_warnings(record=True, action="error") as caught:
        command_line.run(lambda _: None, help="")
        warnings.warn_explicit("old", DeprecationWarning, "x.py", 1, module="tensorboard.compat")
        with pytest.raises(DeprecationWarning):
            warnings.warn_explicit("old", DeprecationWarning, "y.py", 1, module="dualmcmc_jax.main")
    assert [warning.filename for warning in caught] == ["x.py"]


def test_only_terminals_get_colors(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.colored("text", terminal.RED) == "text"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert terminal.colored("text", terminal.RED) == "\x1b[31mtext\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.colored("text", terminal.RED) == "text"


def full_device():
    return open("/dev/full", "w")


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("stdout", "warning"),
    [(full_device, "standard output could not be written (No space left on device)\n"), (closed_pipe, "")],
)
def test_output_that_cannot_be_written_does_not_end_the_program(stdout, warning, log, capsys, monkeypatch):
    terminal.start(quiet=False, verbose=False)
    with stdout() as file:
        monkeypatch.setattr(sys, "stdout", file)
        terminal.show("a table")
        terminal.show("more")
    assert capsys.readouterr().err == warning


def test_characters_that_the_encoding_lacks_are_replaced(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    terminal.show("MSE \N{DOWNWARDS ARROW} of \udcff")
    assert stdout.buffer.getvalue() == b"MSE ? of ?\n"


def test_results_cannot_control_the_terminal(capsys):
    terminal.show("wrote \x1b]0;owned\x07\x1b[2J\x9b2J\r\u202e.png\n  row\t\N{DOWNWARDS ARROW}")
    assert capsys.readouterr().out == "wrote  ]0;owned  [2J 2J  .png\n  row\t\N{DOWNWARDS ARROW}\n"


def test_closed_stdout_is_ignored(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # what Python sets if the program is started with a closed stdout
    terminal.show("a table")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--config = ci", {"cifar10"}),
        ("--config =", set(completion.configs())),
        ("--mode = e", {"evaluate", "export"}),
        ("--num_s", {"--num_samples="}),
        ("--config.x_chain.num_s", {"--config.x_chain.num_steps="}),
        ("--qui", {"--quiet"}),
        ("--he", {"--help"}),
        ("--config.data.source =", set()),
    ],
)
def test_bash_completes_flags_configs_and_modes(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dualmcmc", "--completion"])
    command_line.run(lambda _: None, help="", modes=main.MODES)
    script = capsys.readouterr().out
    position = len(words.split())
    ask = f'COMP_WORDS=(dualmcmc {words}); COMP_CWORD={position}; _dualmcmc; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], cwd=tmp_path, capture_output=True, text=True)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step: found 7, expected one of 20, 40", "--step: found 7, expected one of 20, 40"),
        ("train.batch_size: found 0, expected 1 or more", "train.batch_size: found 0, expected 1 or more"),
        ("--out: found a file", "--out: found a file"),
        ("study: found none", "study: found none"),
        ("/tmp/step: found\nno file", "/tmp/step: found no file"),
    ],
)
def test_argument_in_a_message_is_shown_as_a_flag(text, expected):
    assert command_line.message(ValueError(text)) == expected


def test_every_mode_has_help_and_known_flags():
    text = main.help_text()
    for mode in main.MODES:
        assert re.search(rf"^  {mode.name} +{re.escape(mode.help)}", text, re.MULTILINE)
        assert all(name in command_line.flags.FLAGS for name in mode.flags)


def test_help_does_not_import_jax():
    code = "import sys; sys.argv = ['dualmcmc', '--help']; from dualmcmc_jax import main; main.cli()\n"
    code += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture
def streams(monkeypatch):
    """Restore the standard streams after the test."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    return monkeypatch


def test_closed_streams_do_not_end_the_program(streams):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as pipe:
        streams.setattr(sys, "stdout", pipe)
        streams.setattr(sys, "stderr", None)
        terminal.outlive_streams()
        for stream in (sys.stdout, sys.stderr):
            for _ in range(2):
                print("a line", file=stream)
                stream.flush()
        sys.stderr.close()


def test_output_that_does_not_fit_on_a_disk_is_an_error(streams):
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    streams.setattr(sys, "stdout", Full())
    terminal.outlive_streams()
    with pytest.raises(OSError, match="No space left"):
        print("metrics")


OTHERS = ["absl", "filelock", "jax", "ml_collections", "numpy"]


@pytest.mark.parametrize(
    ("start", "packages"),
    [
        *(
            (f"run_module('dualmcmc_jax.{name}', run_name='__main__')", OTHERS)
            for name in ("main", "study", "benchmark")
        ),
        ("import dualmcmc_jax.main", OTHERS),
        ("from dualmcmc_jax.main import cli; cli()", ["tqdm"]),  # imported for the help
    ],
)
def test_interrupt_while_importing_prints_no_traceback(start, packages):
    """The first import of another package interrupts the process."""
    code = "import os, signal, sys; sys.argv = ['/bin/dualmcmc', '--help']\n"
    code += "from runpy import run_module\n"
    code += "class Interrupt:\n"
    code += "    def find_spec(self, name, *_):\n"
    code += "        if name in PACKAGES:\n".replace("PACKAGES", repr(packages))
    code += "            os.kill(os.getpid(), signal.SIGINT)\n"
    code += "sys.meta_path.insert(0, Interrupt())\n"
    done = subprocess.run([sys.executable, "-c", code + start], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_import_of_the_library_leaves_ctrl_c_to_the_importing_program():
    code = (
        "import signal, dualmcmc_jax.main; from dualmcmc_jax.study import __main__; signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.endswith("KeyboardInterrupt\n")
