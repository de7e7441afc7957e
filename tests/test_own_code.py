"""Networks, objectives and data of the user work like those of the package. They run only if the user names them."""

import shutil
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_docs import begin

import dualmcmc_jax
from dualmcmc_jax import config_check, models, own_code
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.data import sources
from dualmcmc_jax.interop import weights_file
from dualmcmc_jax.models.build import NETWORKS
from dualmcmc_jax.models.mlp import MLP
from dualmcmc_jax.training import checkpointing, loop, objectives

CODE = """
from pathlib import Path
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
Path(__file__).with_name("imported").touch()

class MyEnergy(nn.Module):
    widths: tuple

    @nn.compact
    def __call__(self, x):
        y = x.reshape(len(x), -1)
        for width in self.widths:
            y = nn.silu(nn.Dense(width)(y))
        return nn.Dense(1)(y)[:, 0]

def loss(networks, samples, config):
    return jnp.mean(networks.encode(samples.x)[0] ** 2)

def load(data):
    x = np.arange(200 * 64).reshape(200, 8, 8, 1).astype(np.uint8)
    return x[:180], x[180:]
"""


class Energy(nn.Module):
    """The energy of `models.mlp`, with a module of its own."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        return MLP(self.widths, 1, None, name="mlp")(x)[:, 0]


class Linear:
    """A generator without flax, whose parameters are a list with a tuple: x = tanh(z A + b)."""

    def __init__(self, shape, latent_dim):
        self.shape, self.latent_dim = shape, latent_dim

    def init(self, key, z):
        size = int(np.prod(self.shape))
        return [(jax.random.normal(key, (self.latent_dim, size)), jnp.zeros(size)), jnp.ones(())]

    def apply(self, params, z):
        (a, b), scale = params
        return scale * jnp.tanh(z @ a + b).reshape(-1, *self.shape)


def encoder(latent_dim, dtype=None):
    """Return the inference model, from a function."""

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Dense(2 * latent_dim, dtype=dtype)(x.reshape(len(x), -1))
            return [y[:, :latent_dim], y[:, latent_dim:]]

    return Encoder()


NETS = {"energy": Energy, "generator": Linear, "encoder": encoder}
GIVEN = {f"{name}.kind": net for name, net in NETS.items()}
KINDS = {f"{name}__kind": f"mine:{net.__name__}" for name, net in NETS.items()}


def last(text):
    return text.strip().splitlines()[-1]


def test_own_networks_compute_what_their_code_says():
    """The energy is that of the package. The generator is compared with NumPy, the encoder with its Dense layer."""
    with own_code.given(GIVEN):
        own = models.build(tiny.config(**KINDS))
    x, z = (np.random.RandomState(i).normal(size=shape) for i, shape in enumerate([(3, 8, 8, 1), (3, 4)]))
    mlp = models.build(tiny.config()).energy
    params = mlp.init(jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(own.energy.init(jax.random.key(0)))
    np.testing.assert_allclose(own.energy.apply(params, x), mlp.apply(params, x), rtol=1e-12)
    params = own.generator.init(jax.random.key(0))
    assert [*params] == ["0_0", "0_1", "1"]
    expected = 2 * np.tanh(z @ params["0_0"] + 0.5).reshape(3, 8, 8, 1)
    np.testing.assert_allclose(own.generator.apply(params | {"1": 2.0, "0_1": 0.5}, z), expected, rtol=1e-12)
    params = own.encoder.init(jax.random.key(0))
    mean, log_var = own.encoder.apply(params, x.astype(np.float32))
    assert mean.dtype == np.float32
    expected = x.reshape(3, -1) @ params["Dense_0"]["kernel"]
    np.testing.assert_allclose(np.concatenate([mean, log_var], 1), expected, rtol=1e-4, atol=1e-5)


class Stateful(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.BatchNorm(use_running_average=False)(x.reshape(len(x), -1))
        return nn.Dense(1)(y)[:, 0]


class Column(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x.reshape(len(x), -1))


class Broken(nn.Module):
    @nn.compact
    def __call__(self, x):
        raise KeyError("lost")


class Dropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(1)(x.reshape(len(x), -1)))[:, 0]


class Demanding(nn.Module):
    depth: int


class Pure:
    """An energy without a parameter named kernel."""

    def __init__(self, params):
        self.params = params

    def init(self, key, x):
        return self.params

    def apply(self, params, x):
        return jnp.sum(x**2, (1, 2, 3)) * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "net", "message"),
    [
        ("energy", Column, r"^energy: found output of shape \(8, 1\), expected \(8,\)$"),
        ("generator", Column, r"^generator: found output of shape \(8, 1\), expected \(8, 8, 8, 1\)$"),
        ("encoder", Column, r"^encoder: found output of shape \(8, 1\), expected \(8, 4\) and \(8, 4\), mean and log"),
        ("energy", lambda: encoder(3), r"^energy: found outputs of shapes \(8, 3\), \(8, 3\), expected \(8,\)$"),
        ("energy", Stateful, "^energy.kind: found a network with the collection batch_stats, expected only params"),
        (
            "energy",
            Broken,
            r"^energy.kind: found KeyError \('lost'\) in .*test_own_code.py, line \d+, expected no",
        ),
        ("energy", Dropout, "^energy.kind: found InvalidRngError .* expected no error in apply"),
        ("energy", Demanding, "^energy.kind: found Demanding with the argument depth, expected only config, shape, la"),
        ("energy", 3, r"^energy.kind: found int in 'mine:Net', expected a flax.linen module, or an object with init\("),
        ("energy", Pure({"a": jnp.ones(2)}), "^energy.spectral_norm: found True, expected False, because 'mine:Net'"),
        ("energy", Pure({}), "^energy.kind: found parameters of none, expected parameters of floating-point"),
        ("energy", Pure({"kernel": jnp.ones(2, int)}), "^energy.kind: found parameters of int64, expected parameters"),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_one_line(name, net, message):
    with own_code.given({f"{name}.kind": net}), pytest.raises(ValueError, match=message):
        models.build(tiny.config(**{f"{name}__kind": "mine:Net"}))


def test_own_networks_objective_and_data_are_trained_exported_and_loaded(tmp_path, monkeypatch):
    """After training, a model of the workdir and one of its exported file are the same function."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    config = tiny.config(**KINDS, train__num_steps=2, log__every=1, data__source="mine.py:load")
    config.x_chain.num_steps = config.z_chain.num_steps = 1
    config.loss.own.update(function="mine.py:loss", weight=0.5, trains="encoder")
    nothing = {"draw": lambda step, state: {}, "measure": lambda state: {}}
    own_code.permit(["mine.py:load", "mine.py:loss"])
    dataset = sources.load(config.data)
    with own_code.given(GIVEN):
        state = loop.train(config, tmp_path / "run", dataset=dataset, **nothing)
        own_code.permit([])
        weights_file.write(tmp_path / "model.safetensors", config, checkpointing.restore(config, tmp_path / "run"))
    first, _ = tiny.rows(tmp_path / "run")
    assert first["own_loss"] == pytest.approx(0.5 * first["own"])
    model, of_file = (dualmcmc_jax.load(path, **NETS) for path in ("run", "model.safetensors"))
    x = np.random.RandomState(0).normal(size=(3, 8, 8, 1))
    for of_model in (model, of_file):
        np.testing.assert_array_equal(of_model.energy(x), model.energy(x))
        jax.tree.map(np.testing.assert_array_equal, of_model.params, jax.tree.map(np.asarray, state.average))
    with pytest.raises(ValueError, match=r"^energy.kind: found your code 'mine:Energy', .*--config.energy.kind=mine"):
        dualmcmc_jax.load("run")
    with pytest.raises(ValueError, match=r"^generator.kind: .*, or generator=\.\.\. in Python; encoder.kind: "):
        dualmcmc_jax.load("model.safetensors", energy=Energy)
    with pytest.raises(ValueError, match=r"^energy: found Energy, expected None, because energy.kind is 'mlp'$"):
        dualmcmc_jax.load("digits", energy=Energy)


def test_objective_of_the_user_adds_its_gradient():
    """The loss is the mean of mean^2. Its derivative with respect to the bias of the mean is 2 mean / d."""
    config = tiny.config(encoder__widths=(), loss__encoder__model_weight=0.0, loss__encoder__data_weight=0.0)
    config.loss.own.update(function="mine:loss", weight=0.5, trains="encoder")
    assert objectives.trained(config) == {"energy", "generator", "encoder"}
    assert objectives.added(config) == {"own"}
    nets = models.build(config)
    params = models.Params(*(net.init(jax.random.key(i)) for i, net in enumerate(nets)))
    x = np.tanh(np.random.RandomState(0).normal(size=(3, 8, 8, 1)))
    bind = lambda params: objectives.Networks(*(net.bind(p) for net, p in zip(nets, params, strict=True)))
    drawn = objectives.Samples(
        x, objectives.Synthesis(None, None, None, None), objectives.Inference(None, jnp.ones((3, 4)), None), None
    )
    loss = lambda networks, samples, config: jnp.mean(networks.encode(samples.x)[0] ** 2)
    with own_code.given({"loss.own.function": loss}):
        gradient, metrics = objectives.gradients(("encoder",), params, drawn, bind=bind, config=config)
    mean = np.asarray(nets.encoder.apply(params.encoder, x)[0])
    np.testing.assert_allclose(gradient["encoder"]["mlp"]["out"]["bias"][:4], 0.5 * 2 * mean.mean(0) / 4, rtol=1e-5)
    assert metrics["own"] == pytest.approx(float((mean**2).mean()))
    for wrong, found in ((lambda *_: jnp.ones(2), r"shape \(2,\)"), (lambda: 0.0, "TypeError")):
        with (
            own_code.given({"loss.own.function": wrong}),
            pytest.raises(ValueError, match=f"^loss.own.function: .*{found}"),
        ):
            objectives.gradients(("encoder",), params, drawn, bind=bind, config=config)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (
            "",
            "mine.py:load",
            r"^data.source: found no load in .*mine.py, expected its definition; the other sources",
        ),
        ("", "nosuch:load", r"^data.source: found no module nosuch in .* or among the installed .*'digits'"),
        ("", "image:load", r"did you mean images:load\?$"),
        ("", "nosuch.py:load", r"^data.source: found no file nosuch.py, expected a Python file"),
        (
            "import nosuch",
            "mine.py:load",
            r"^data.source: found ModuleNotFoundError .* in .*mine.py, line 1, exp",
        ),
        (
            "def f(:",
            "mine.py:load",
            r"^data.source: found SyntaxError \(invalid syntax\) in .*mine.py, line 1, exp",
        ),
        (
            "load = 3",
            "mine.py:load",
            r"^data.source: found TypeError \('int' object is not callable\), expected no",
        ),
        (
            "def load(data):\n    return 3",
            "mine.py:load",
            "^data.source: found int from mine.py:load, expected a",
        ),
        (
            "def load(data):\n    return [[1]], [2]",
            "mine.py:load",
            r"^data.source: found int64 .* in 'train' of mine.py",
        ),
        (
            CODE.replace("8, 8", "4, 16"),
            "mine.py:load",
            r"^data.shape: found \(8, 8, 1\), expected \(4, 16, 1\), the",
        ),
    ],
)
def test_sources_that_do_not_fit_are_refused_in_one_line(code, name, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    own_code.permit([name])
    with pytest.raises(ValueError, match=message):
        sources.load(tiny.config(data__source=name).data)
    own_code.permit([])
    with pytest.raises(ValueError, match=f"^data.source: found your code '{name}', which runs only if you name it"):
        sources.load(tiny.config(data__source=name).data)


def test_names_that_have_moved_are_the_same():
    for other in ("mine.py:A", "lib/mine.py:A", "lib.mine:A"):
        assert own_code.same("mine:A", other)
    for other in ("mine:B", "yours.py:A", "mlp", "lib/mine.py"):
        assert not own_code.same("mine:A", other)
    stored = tiny.config(energy__kind="mine:A", data__source="mine:load").to_dict()
    moved = tiny.config(energy__kind="lib/mine.py:A", data__source="lib/mine.py:load")
    config_check.compare(Path("config.json"), stored, moved)
    config_check.compare_networks(Path("config.json"), stored, moved)
    with pytest.raises(ValueError, match=r"energy.kind is 'mine:A' in the file and 'mine:B' now"):
        config_check.compare(Path("config.json"), stored, tiny.config(energy__kind="mine:B", data__source="mine:load"))


@pytest.mark.parametrize("table", ["energy.kind", "x_chain.sampler", "evaluation.sampler"])
def test_rows_that_are_added_later_are_valid(table, monkeypatch):
    rows, row = (NETWORKS["energy"], "mlp") if table == "energy.kind" else (SAMPLERS, "langevin")
    config = tiny.config(**{table.replace(".", "__"): "new"})
    with pytest.raises(ValueError, match=f"^{table}: found 'new', expected one of "):
        config_check.check(config)
    monkeypatch.setitem(rows, "new", rows[row])
    config_check.check(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("loss.own.function", "mine", "MODULE:FUNCTION, FILE.py:FUNCTION or nothing"),
        ("loss.own.trains", "energi", "names of networks, such as 'energy'"),
        ("loss.own.trains", "", "names of networks, such as 'energy'"),
        ("energy.kind", "mine:", "one of 'mlp', 'conv', 'resnet', 'quadratic'"),
    ],
)
def test_names_of_another_form_are_refused(field, value, message):
    with pytest.raises(ValueError, match=f"^{field}: found '{value}', expected {message}"):
        config_check.check(tiny.config(**{field.replace(".", "__"): value}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with mine.py, a run whose config names it in four fields, and a file of weights of this run."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(CODE)
    config = tiny.config(energy__kind="mine.py:MyEnergy", data__source="mine.py:load", train__num_steps=1)
    config.loss.own.update(function="mine.py:loss")
    config.evaluation.ood = ("mine.py:load",)
    own_code.permit(["mine.py:MyEnergy"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path.copy())
        begin(config, folder / "run", step=1)
        weights_file.write(folder / "model.safetensors", config, checkpointing.restore(config, folder / "run"))
    own_code.permit([])
    (folder / "imported").unlink()
    return folder


RUN, FILE = "--workdir=run", "--pretrained=model.safetensors"
NET, DATA, LOSS = (
    f"--config.{name}=mine.py:{value}"
    for name, value in (("energy.kind", "MyEnergy"), ("data.source", "load"), ("loss.own.function", "loss"))
)


def test_code_that_only_a_stored_config_names_is_not_imported(folder, programs):
    """Neither by a workdir nor by a file of weights, whatever else the command line names."""
    commands = [
        (RUN, "--mode=sample"),
        (RUN, "--mode=export", DATA, LOSS),
        (RUN, "--mode=evaluate", LOSS),
        (RUN,),
        (FILE, "--mode=sample"),
        (FILE, "--workdir=new", "--config.train.num_steps=9"),
    ]
    code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})"
    running = [programs.start(*flags, cwd=folder, code=code) for flags in commands]
    expected = "--config.energy.kind=mine.py:MyEnergy, or energy=... in Python"
    found = "your code 'mine.py:MyEnergy', which runs only if you name it now"
    for program in running:
        assert program.wait(120) == 1
        assert last(program.stderr) == f"error: energy.kind: found {found}, expected {expected}"
    assert sorted(path.name for path in folder.iterdir()) == ["mine.py", "model.safetensors", "run"]


def test_code_that_the_command_line_names_is_used(folder, tmp_path, programs):
    """The run is exported, and resumed without work. Data that are named in the config of the run are refused."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})"
    commands = [(NET, "--mode=export"), (NET, LOSS, DATA), (NET, LOSS)]
    running = [programs.start(RUN, *flags, cwd=tmp_path, code=code) for flags in commands]
    assert [program.wait(120) for program in running] == [0, 0, 1]
    export, resumed, refused = (program.stderr for program in running)
    card = (tmp_path / "run" / "export" / "1" / "README.md").read_text()
    assert 'dualmcmc_jax.load("model.safetensors", energy=MyEnergy)' in card, export
    assert "nothing to do: run is at step 1" in resumed
    assert last(refused).startswith("error: data.source: found your code 'mine.py:load', which runs only if")


def test_stored_names_are_not_imported_by_load(folder, monkeypatch):
    """The objective and the data are not needed for a model. They stay names."""
    monkeypatch.chdir(folder)
    for path in ("run", "model.safetensors"):
        with pytest.raises(ValueError, match=r"^energy.kind: .*, or energy=\.\.\. in Python$"):
            dualmcmc_jax.load(path)
        model = dualmcmc_jax.load(path, energy=Energy2)
        assert model.run_config.data.source == model.run_config.evaluation.ood[0] == "mine.py:load"
    assert not (folder / "imported").exists()


class Energy2(nn.Module):
    """The energy of CODE."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        y = x.reshape(len(x), -1)
        for width in self.widths:
            y = nn.silu(nn.Dense(width)(y))
        return nn.Dense(1)(y)[:, 0]
