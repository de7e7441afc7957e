"""A server that starts the project's programs quickly, as forks of a process that has imported the libraries.

A program needs two seconds to import JAX, Flax, Optax, Orbax, SciPy and Matplotlib. A fork has these libraries already
and imports only the project's modules. Like any other process, it has its own devices, signals, output and exit code.
The package `tensorboard`, which writes TensorBoard events, is hidden from a fork unless a test asks for it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = "--xla_backend_optimization_level=0"  # the tested programs take longer to compile than to run
SERVER = """
import atexit, json, os, runpy, sys, threading, traceback
import absl.app, flax.linen, jax, matplotlib.backends.backend_agg, matplotlib.figure, ml_collections.config_flags, optax
import orbax.checkpoint, PIL.Image, safetensors.numpy, scipy.linalg, scipy.optimize, scipy.stats
import sklearn.datasets, sklearn.svm
from jax.experimental import multihost_utils
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        pid, status = os.waitpid(request["wait"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    pid = os.fork()
    if not pid:
        break
    print(pid, flush=True)
else:
    os._exit(0)
os.environ.clear()
os.environ.update(request["env"])
os.chdir(request["cwd"])
sys.path[0] = request["cwd"]
for descriptor, path in enumerate([os.devnull, request["stdout"], request["stderr"]]):
    os.dup2(os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY), descriptor)
sys.modules.update(dict.fromkeys(request["hidden"]))
sys.argv = ["", *request["flags"]]
code = 0
try:
    exec(request["code"])
    if request["module"]:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else end.code is not None
    if code is True:
        print(end.code, file=sys.stderr)
except BaseException:
    traceback.print_exc()
    code = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)  # like multiprocessing: skip the cleanup of libraries that the server has imported
"""


class Server:
    """A process that starts commands. It handles one request at a time, but any number of commands may run."""

    def __init__(self):
        self.env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, env=self.env, text=True, **pipes)

    def ask(self, request):
        """Send a request to the process, and return its answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def start(self, *flags, module="dualmcmc_jax.main", code="", env=None, cwd=ROOT, tensorboard=False):
        """Start a program in a fork.

        Args:
          flags: the arguments of the program.
          module: the module to run, as with `python -m`; None or "": run only the code.
          code: Python code to run before the module.
          env: environment variables to add to those of the tests.
          cwd: the working directory.
          tensorboard: whether the program may write TensorBoard events.

        Returns:
          The running `Command`.
        """
        env = {**self.env, "XLA_FLAGS": QUICK, **(env or {})}
        changed = [name for name in env if name.startswith("JAX_") and env[name] != self.env.get(name)]
        assert not changed, f"{changed}: the server has imported JAX with other values, so start a separate process"
        return Command(self, module=module, code=code, flags=flags, env=env, cwd=str(cwd), hidden=HIDDEN[tensorboard])

    def run(self, *flags, timeout=300, **settings):
        """Start a program as `start` does, and wait for its end. Return the same as `subprocess.run`."""
        command = self.start(*flags, **settings)
        code = command.wait(timeout)
        return subprocess.CompletedProcess(flags, code, command.stdout, command.stderr)


HIDDEN = {False: ["tensorboard"], True: []}


class Command:
    """A started command, with the interface of `subprocess.Popen`."""

    def __init__(self, server, **request):
        self._server, self.returncode = server, None
        self._files = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115
        names = dict(zip(("stdout", "stderr"), (file.name for file in self._files), strict=True))
        self.pid = server.ask(request | names)

    @property
    def stdout(self):
        """Return what the command has printed to stdout so far."""
        return Path(self._files[0].name).read_text()

    @property
    def stderr(self):
        """Return what the command has printed to stderr so far."""
        return Path(self._files[1].name).read_text()

    def poll(self):
        if self.returncode is None:
            self.returncode = self._server.ask({"wait": self.pid})
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"the command still runs after {timeout} s: {self.stderr[-3000:]}")
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)
