"""Weights in the package, on a server and on the Hugging Face Hub are loaded, sampled and trained further."""

import contextlib
import http.server
import io
import json
import re
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import dualmcmc_jax
from dualmcmc_jax import config_check
from dualmcmc_jax.cli import completion
from dualmcmc_jax.data import cache
from dualmcmc_jax.interop import download, pretrained, weights_file
from dualmcmc_jax.training import checkpointing
from dualmcmc_jax.training import state as train_state

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random parameters at step 7."""
    config, random = tiny.config(), np.random.RandomState(0)
    fill = lambda leaf: random.normal(size=leaf.shape, scale=0.1).astype(leaf.dtype)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    weights_file.write(path, config, jax.tree.map(fill, train_state.abstract(config))._replace(step=7))
    return path


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_weights_are_small_and_have_their_config_and_a_card_with_numbers(name):
    folder = pretrained.FOLDER / name
    assert (folder / "model.safetensors").stat().st_size <= 2_000_000
    assert max(path.stat().st_size for path in folder.glob("*.png")) <= 300_000
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_500_000
    config, weights = weights_file.read(folder / "model.safetensors")
    config_check.compare(folder / "config.json", json.loads((folder / "config.json").read_text()), config, free=())
    card = (folder / "README.md").read_text()
    assert f"# {name}\n" in card
    assert f"Checkpoint at step {weights.step:,}; " in card
    assert "Frechet distance" in card
    for file in re.findall(r"!\[.*\]\((.*)\)", card):
        assert (folder / file).is_file()


def test_shipped_weights_are_loaded_by_name_unless_a_path_of_this_name_exists(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repr(dualmcmc_jax.load("digits")) == "Model(step=1500, x (8, 8, 1), z (16,), 'digits')"
    (tmp_path / "digits").symlink_to(weights)
    assert dualmcmc_jax.load("digits").step == pretrained_step("digits") == 7
    (tmp_path / "digits").unlink()
    (tmp_path / "digits").mkdir()
    with pytest.raises(ValueError, match=r"^digits/config\.json: found no such file, expected the config of a run"):
        dualmcmc_jax.load("digits")
    assert pretrained_step("digits") == 1500  # a flag that takes files only


def pretrained_step(name):
    return weights_file.read(pretrained.locate("pretrained", name))[1].step


def test_unknown_names_are_refused_with_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choices = r"hf:OWNER/NAME, an https address, or the name of shipped weights, one of 'digits'.*"
    for name, near in (("digit", "; did you mean digits\\?"), ("runs/none", "")):
        with pytest.raises(ValueError, match=rf"^path: found nothing at {name}, expected a workdir .*{choices}{near}$"):
            dualmcmc_jax.load(name)
    with pytest.raises(ValueError, match=r"^step: found 3, expected 1500, the step of digits"):
        dualmcmc_jax.load("digits", step=3)


@pytest.mark.slow
def test_readme_example_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert 'load("digits")' in text
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(text, "README.md", "exec"), {})
    numbers = lambda words: [float(word) for word in re.findall(r"-?\d+\.?\d*", words)]
    comments = re.findall(r"^print\(.*\)  # ([^:\n]*?)(?:[:,] [a-z].*)?$", text, re.MULTILINE)
    assert len(comments) == len(shown.getvalue().splitlines()) == 4
    np.testing.assert_allclose(numbers(" ".join(comments)), numbers(shown.getvalue()), rtol=0.02)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves {path: (status, headers, content)} of its server, and counts the requests."""

    def do_GET(self):
        self.server.requests.append(self.path)
        status, headers, content = self.server.files.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.files = [], {"/mine.safetensors": (200, {}, weights.read_bytes())}
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_file_of_an_address_is_downloaded_once(server, weights, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a server of this machine needs no proxy
    for _ in range(2):
        assert dualmcmc_jax.load(f"{server.address}/mine.safetensors").step == 7
    assert server.requests == ["/mine.safetensors"]
    assert pretrained.locate("path", f"{server.address}/mine.safetensors").read_bytes() == weights.read_bytes()


def test_answers_that_are_no_weights_are_refused_and_not_stored(server, weights, monkeypatch):
    content = weights.read_bytes()
    monkeypatch.setattr(download, "MAX_BYTES", len(content))
    server.files |= {
        "/page": (200, {}, b"<html>not found</html>"),
        "/cut": (200, {}, content[:-8]),
        "/short": (200, {"Content-Length": str(len(content))}, content[:-8]),
        "/large": (200, {"Content-Length": str(10**12)}, content),
        "/endless": (200, {"Content-Length": "unknown"}, content + b"0"),
        "/plain": (302, {"Location": f"{server.address}/mine.safetensors"}, b""),
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
    }
    for name, found in {
        "page": r"http://\S+/page: found .*, expected a model\.safetensors of dualmcmc_jax",
        "cut": r"http://\S+/cut: found .*, expected a model\.safetensors of dualmcmc_jax",
        "short": r"path: found http://\S+/short unreachable \(IncompleteRead.*\), expected a server with",
        "large": r"path: found a file of 1,000,000 MB at http://\S+/large, expected at most 0 MB",
        "endless": r"path: found a file of unknown size at http://\S+/endless, expected at most 0 MB",
        "plain": r"path: found http://\S+/plain, which leads to http://.*, expected one that leads to https",
        "file": r"path: found http://\S+/file unreachable \(.* 'file:///etc/passwd' is not allowed\), expected a ",
        "none": r"path: found http://\S+/none unreachable \(HTTP Error 404: Not Found\), expected a server with",
    }.items():
        with pytest.raises(ValueError, match=f"^{found}") as error:
            dualmcmc_jax.load(f"{server.address}/{name}")
        assert len(str(error.value).splitlines()) == 1
    assert "/mine.safetensors" not in server.requests
    assert not [*cache.writable_folder("weights").iterdir()]


@pytest.mark.parametrize("address", ["http://example.com/x", "http:x", "https:///x", "http://localhost.example.com/x"])
def test_addresses_that_are_not_encrypted_are_refused(address):
    with pytest.raises(ValueError, match=rf"^path: found {address}, expected an https address"):
        dualmcmc_jax.load(address)


def test_hub_needs_its_package_and_a_valid_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"^path: found no package huggingface_hub, which hf:a/b needs; .*\[hub\]'$"):
        dualmcmc_jax.load("hf:a/b")
    for name in ("hf:", "hf:a", "hf:a/b/c", "hf:../x y"):
        with pytest.raises(ValueError, match=rf"^path: found '{name}', expected hf:OWNER/NAME$"):
            dualmcmc_jax.load(name)


def test_weights_of_the_hub_are_loaded_and_kept_for_later(server, weights, tmp_path, monkeypatch, caplog):
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("HF_ENDPOINT", server.address)  # huggingface_hub reads these when it is imported
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    pytest.importorskip("huggingface_hub")
    content, commit = weights.read_bytes(), "0123456789" * 4
    headers = {"ETag": '"abc"', "X-Repo-Commit": commit}
    server.files["/me/mine/resolve/main/model.safetensors"] = (200, headers, content)
    server.files[f"/me/mine/resolve/{commit}/model.safetensors"] = (200, headers, content)
    with monkeypatch.context() as patch:
        patch.setattr(download, "MAX_BYTES", len(content) - 1)
        with pytest.raises(ValueError, match=r"^path: found a file of 0 MB at hf:me/mine, expected at most 0 MB"):
            dualmcmc_jax.load("hf:me/mine")
    assert dualmcmc_jax.load("hf:me/mine").step == 7
    with pytest.raises(ValueError, match=r"^path: found hf:me/none unreachable \(.*404.*\), expected a server with"):
        dualmcmc_jax.load("hf:me/none")
    server.files.clear()
    assert dualmcmc_jax.load("hf:me/mine").step == 7
    (record,) = [record for record in caplog.records if record.name == download.__name__]
    assert "unreachable" in record.getMessage()


def last(text):
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        (["--mode=evaluate", "--seed=1"], "runs/pretrained-digits/evaluation/1500-seed-1"),
        (["--mode=sample", "--config=digits", "--workdir=runs/mine"], "runs/mine/samples"),
        (["--mode=evaluate", "--config.data.source=npz:more.npz"], "runs/pretrained-digits/evaluation/1500"),
    ],
)
def test_results_of_pretrained_weights_have_a_folder_of_their_own(flags, folder, programs):
    """The program is ended before the work."""
    end = "from dualmcmc_jax.runtime import storage; storage.check_writable = lambda _, folder: sys.exit(str(folder))"
    done = programs.run("--pretrained=digits", *flags, code=f"import sys; {end}")
    assert last(done.stderr) == folder


TRAIN = "--config.train.num_steps=3000"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pretrained=digts"], "--pretrained: found nothing at digts, .* did you mean digits?"),
        (["--pretrained=digits", "--mode=export"], "--pretrained: found with --mode=export, expected --mode=train or"),
        (["--pretrained=digits", TRAIN], "--workdir: found nothing, expected a folder for the run that starts from"),
        (["--pretrained=digits", "--workdir=DIR/new"], "train.num_steps: found 1500, expected more than the 1500"),
        (["--pretrained=digits", "--workdir=DIR/run", TRAIN], "DIR/run/config.json: found a run with another config: "),
        (
            ["--pretrained=digits", "--workdir=DIR/run", "--mode=sample"],
            "--workdir: found a run in DIR/run, expected a",
        ),
        (
            ["--pretrained=digits", "--config=toy2d", "--mode=sample"],
            ".*safetensors: found a run with another config: ",
        ),
        (
            ["--pretrained=digits", "--config=digits", "--config.energy.widths=(8,)", "--workdir=DIR/new", TRAIN],
            ".*safetensors: found a run with another config: energy.widths is .256, 256, 256. in the file and .8. now",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(flags, message, tmp_path, programs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(tiny.config().to_dict()))
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    done = programs.run(*(flag.replace("DIR", str(tmp_path)) for flag in flags))
    assert done.returncode == 1
    assert re.match(f"error: {message.replace('DIR', str(tmp_path))}", last(done.stderr)), done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_training_starts_from_weights_with_other_settings_and_is_resumed(weights, tmp_path, programs):
    """The weights are the first checkpoint, so the run goes on from them whatever the next command is."""
    flags = [f"--workdir={tmp_path / 'run'}", "--config.evaluation.every=0"]
    start = [f"--pretrained={weights}", "--config.x_chain.num_steps=2", "--config.generator.variance=0.1"]
    done = programs.run(*flags, *start, "--config.train.num_steps=8")
    assert done.returncode == 0, done.stderr
    config = config_check.stored_config(tmp_path / "run")
    first = checkpointing.restore(config, tmp_path / "run", step=7)
    _, read = weights_file.read(weights)
    jax.tree.map(np.testing.assert_array_equal, (first.params, first.average), (read.params, read.average))
    done = programs.run(*flags, *start, "--config.train.num_steps=9")
    assert done.returncode == 0, done.stderr
    done = programs.run(*flags, "--config.train.num_steps=10")
    assert done.returncode == 0, done.stderr
    assert checkpointing.restore(config, tmp_path / "run").step == 10


@pytest.mark.slow
def test_run_is_created_from_shipped_weights(tmp_path, programs):
    done = programs.run("--config=digits", "--mode=import", "--weights=digits", f"--workdir={tmp_path / 'run'}")
    assert last(done.stdout) == f"imported digits at step 1500 into {tmp_path / 'run'}", done.stderr


def test_names_of_shipped_weights_are_completed():
    assert '--pretrained) COMPREPLY=($(compgen -f -W "digits' in completion.script([], [])
