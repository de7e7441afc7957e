"""The examples of the documentation run as shown. Everything that the documentation quotes, links or names exists."""

import ast
import contextlib
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import dualmcmc_jax
from dualmcmc_jax import config_check, main, models, own_code
from dualmcmc_jax.configs import default, digits
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import samples, suite
from dualmcmc_jax.model import BoundModel, Model
from dualmcmc_jax.models.build import NETWORKS
from dualmcmc_jax.training import checkpointing, loop, objectives
from dualmcmc_jax.training import state as train_state

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TABLES = (SAMPLERS, objectives.OBJECTIVES, NETWORKS["energy"], sources.SOURCES, samples.SECTIONS[0].metrics)


def blocks(page, language):
    """Return the code blocks of a language in a page of the documentation."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def append(block):
    """Run a block as if it were appended to the file that its first line names. The file may be new."""
    import importlib
    import sys
    import types

    name = block.split("\n")[0].removeprefix("# ").removesuffix(".py").replace("/", ".")
    package, _, last = name.rpartition(".")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        module = sys.modules[name] = types.ModuleType(name)
        setattr(importlib.import_module(package), last, module)
    exec(compile(block, name, "exec"), vars(module))


OWN_FILE, *EXTENSIONS = blocks("extend.md", "python")
EXTENSIONS.sort(key=lambda block: "/evaluation/" in block.split("\n")[0])
"""The Python blocks of extend.md, after that of the user's file. The evaluation's block is last, because it imports
code that reads the tables."""


def begin(config, workdir, *, step):
    """Create a run with a checkpoint of positive random numbers, which needs no compiled initialization."""
    random = np.random.RandomState(0)
    scale = lambda leaf: 0.1 * jnp.issubdtype(leaf.dtype, jnp.floating)
    fill = lambda leaf: abs(random.normal(size=leaf.shape, scale=scale(leaf))).astype(leaf.dtype)
    state = jax.tree.map(fill, train_state.abstract(config))
    checkpointing.begin(config, workdir, state._replace(step=np.int32(step)))


@pytest.fixture(scope="module")
def extended():
    """Apply all extensions of extend.md to this process, and undo them after the tests of this module."""
    tables = [dict(table) for table in TABLES]
    changed = {block.split("\n")[0][2:-3].replace("/", ".") for block in EXTENSIONS} & sys.modules.keys()
    names = {name: dict(vars(sys.modules[name])) for name in changed}
    for block in EXTENSIONS:
        append(block)
    yield
    for name, before in names.items():
        vars(sys.modules[name]).clear()
        vars(sys.modules[name]).update(before)
    for table, before in zip(TABLES, tables, strict=True):
        table.clear()
        table.update(before)
    del sys.modules["dualmcmc_jax.models.confined"], models.confined


@pytest.fixture(scope="module")
def program(programs):
    """Return a function that runs the command `dualmcmc` with all extensions of extend.md."""
    code = f"{inspect.getsource(append)}\nfor block in {EXTENSIONS!r}:\n    append(block)\n"
    code += "from dualmcmc_jax import main\nmain.cli()\n"
    return lambda *flags: programs.run(*flags, code=code, module="")


def fields_of_commands():
    """Return the flags of config fields in all commands of extend.md."""
    commands = [shlex.split(block) for block in blocks("extend.md", "sh")[1:]]  # without those of the user's file
    assert len(commands) == 5
    assert all(command[:2] == ["dualmcmc", "--config=digits"] for command in commands)
    return [flag for command in commands for flag in command if flag.startswith("--config.")]


def test_commands_in_extend_are_accepted(program, tmp_path):
    """The console block prints what it shows. A config with the fields of all commands passes all checks."""
    (block,) = blocks("extend.md", "console")
    command, _, shown = block.partition("\n")
    workdir = f"--workdir={tmp_path}/run"  # not runs/digits, which may hold a run
    done = program(*shlex.split(command.removeprefix("$ dualmcmc ")), workdir)
    assert (done.returncode, done.stdout) == (0, shown), done.stderr
    done = program("--config=digits", *fields_of_commands(), "--mode=count", workdir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"energy: {64 * 256 + 256 + 2 * (256 * 256 + 256) + 256 + 1:,}\n")


def test_file_of_the_user_in_extend_works(tmp_path, monkeypatch, programs):
    """Its loss and its data are those of its docstrings. Its commands are accepted, and its network is checked."""
    (tmp_path / "my_model.py").write_text(OWN_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    commands = [shlex.split(line) for line in blocks("extend.md", "sh")[0].replace("\\\n", "").splitlines()]
    names = {flag.rpartition("=")[2] for command in commands for flag in command if "my_model.py:" in flag}
    own_code.permit(names)
    data = digits.get_config().data
    data.source = "my_model.py:dark_digits"
    dataset = sources.load(data)
    np.testing.assert_array_equal(dataset.train[:, 0, 0], 255)  # the corners of all digits are empty
    loss = own_code.find("loss.own.function", "my_model.py:near_prior")
    networks = objectives.Networks(None, None, lambda x: (jnp.full((5, 2), 3.0), jnp.zeros((5, 2))))
    assert loss(networks, objectives.Samples(None, None, None, None), None) == pytest.approx(2 * 3**2 / 2)
    net = models.build(tiny.config(energy__kind="my_model.py:MyEnergy", energy__widths=(3,))).energy
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    assert shapes["Dense_0"]["kernel"].shape == (65, 3)
    own_code.permit([])
    code = f"import sys; sys.path.append({str(ROOT)!r})\nfrom dualmcmc_jax.cli import startup\n"
    code += "startup.start = lambda config: sys.exit(str(config.energy.kind))"
    running = [programs.start(*command[1:], cwd=tmp_path, code=code) for command in commands if len(commands) == 4]
    for command, program in zip(commands, running, strict=True):
        program.wait(300)
        if "--mode=sample" not in command:  # which needs a run
            assert program.stderr.strip() == ("my_model.py:MyEnergy" if "energy.kind" in str(command) else "mlp")


@pytest.mark.slow
def test_all_extensions_train_together(extended, tmp_path):
    fields = [flag.removeprefix("--config.").split("=", 1) for flag in fields_of_commands()]
    assert {name for name, _ in fields} == {
        "loss.prior.weight",
        "energy.kind",
        "x_chain.sampler",
        "x_chain.width",
        "data.source",
    }
    config = tiny.config(train__num_steps=2, train__batch_size=16, log__every=1, energy__spectral_norm=False)
    config.loss.generator.update(data_weight=0.0, model_weight=0.0)  # which no extension changes
    config.x_chain.num_steps = config.z_chain.num_steps = 1
    config.z_chain.sampler = "mala"
    for name, value in fields:
        config.update_from_flattened_dict({name: value if value.isalpha() or ":" in value else ast.literal_eval(value)})
    begin(config, tmp_path, step=0)
    nothing = {"draw": lambda step, state: {}, "measure": lambda state: {}}
    loop.train(config, tmp_path, dataset=sources.load(config.data), **nothing)
    first, second = tiny.rows(tmp_path)
    assert first["prior_loss"] == pytest.approx(0.1 * first["nats_prior"], rel=1e-5)
    assert second["nats_prior"] != first["nats_prior"]
    assert 0 <= first["x_acceptance"] <= 1
    assert 0 < first["z_acceptance"] <= 1
    assert all(np.isfinite(value) for value in second.values())


def test_new_mode_is_in_the_help(extended):
    assert re.search("count +print the number of parameters of each network", main.help_text())


@pytest.mark.slow
def test_new_metric_is_measured_and_shown(extended, monkeypatch):
    monkeypatch.setattr(suite, "QUESTIONS", (samples,))
    monkeypatch.setattr(samples, "cost", lambda model, seed: {})
    config = tiny.config(data__source="checkers:2")
    config.evaluation.update(num_samples=30, num_neighbours=20, group_size=15, num_held_out=10)
    dataset = sources.load(config.data)
    results = suite.evaluate(tiny.model(config), suite.inputs(config, dataset, None))
    gap = {name: abs(x.mean() - dataset.train.mean()) for name, x in results.inputs.kept.items()}
    assert gap.keys() == {"generator", "revised"}
    for name, expected in gap.items():
        assert results.metrics[f"{name}/intensity_gap"] == pytest.approx(expected)
    (block,) = suite.blocks(results.metrics)
    assert block.title == "Samples"
    assert block.table.rows["intensity gap ↓"] == [f"{gap[name]:.4g}" for name in ("generator", "revised")]


def test_new_objective_adds_its_gradient_to_that_of_the_encoder(extended):
    """The loss is weight * mean KL(q(z | x), N(0, I)). With a weight of 0, it is not computed."""
    config = tiny.config(loss__encoder__model_weight=0.0)
    nets = models.build(config)
    params = models.Params(*(net.init(jax.random.key(i)) for i, net in enumerate(nets)))
    params = jax.tree.map(np.float64, params)
    x = np.tanh(np.random.RandomState(0).normal(size=(3, 8, 8, 1)))
    drawn = objectives.Samples(
        x, objectives.Synthesis(None, None, None, None), objectives.Inference(None, jnp.ones((3, 4)), None), None
    )

    @jax.jit
    def compute(params):
        def gradient(weight):
            config.loss.prior.weight = weight
            bind = lambda params: objectives.Networks(*(net.bind(p) for net, p in zip(nets, params, strict=True)))
            return objectives.gradients(("encoder",), params, drawn, bind=bind, config=config)

        def divergence(p):  # E_q[log q - log p], with the entropy and the second moment of a Gaussian
            mean, log_var = nets.encoder.apply(p, x)
            entropy = 0.5 * (jnp.log(2 * jnp.pi * jnp.e) + log_var)
            cross = 0.5 * (jnp.log(2 * jnp.pi) + mean**2 + jnp.exp(log_var))
            return (cross - entropy).sum(1).mean()

        return gradient(0.0), gradient(0.5), jax.value_and_grad(divergence)(params.encoder)

    (without, few), (added, metrics), (value, derivative) = compute(params)
    assert metrics.keys() - few.keys() == {"prior_loss", "nats_prior"}
    assert metrics["nats_prior"] == pytest.approx(float(value))
    assert metrics["prior_loss"] == pytest.approx(0.5 * float(value))
    difference = jax.tree.map(lambda a, b: a - b, added["encoder"], without["encoder"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-6, atol=1e-9), difference, derivative)


def test_new_sampler_has_no_step_bias(extended):
    """On N(0, v), unadjusted chains with this step size would have the variance v / (1 - s / (2 v)) = 4 v / 3."""
    num, variance, step_size = 10_000, 0.3, 0.15
    keys = chain_keys(jax.random.key(0), jnp.arange(num))
    x0 = np.sqrt(variance) * np.random.RandomState(0).normal(size=(num, 1))
    log_density = lambda x: -0.5 * x[:, 0] ** 2 / variance

    @jax.jit
    def compute(keys, x0):
        run = lambda num_chains, **chain: SAMPLERS["metropolis"].kernel(
            keys[:num_chains], x0[:num_chains], log_density, step_size=step_size, **chain
        )
        some = [run(3, num_steps=num_steps)[0] for num_steps in (0, 2)]
        return run(num, num_steps=20), run(3, num_steps=5, keep_every=2), jnp.stack(some)

    (x, trace), (end, few), expected = compute(keys, x0)
    assert abs(np.mean(x**2) - variance) < 4 * variance * np.sqrt(2 / num) < 0.1 * variance
    assert trace.log_density.shape == (20, num)
    assert trace.states is None
    assert few.states.shape == (4, 3, 1)  # after 0, 2, 4 and 5 steps
    np.testing.assert_allclose(few.states[:2], expected, rtol=1e-12)
    np.testing.assert_array_equal(few.states[-1], end)
    np.testing.assert_allclose(few.log_density[::2], [log_density(x) for x in few.states[:3]], rtol=1e-12)
    np.testing.assert_array_equal(expected[0], x0[:3])
    assert (expected[1] != x0[:3]).any()


def test_new_network_is_built_and_checked(extended):
    config = tiny.config(energy__kind="confined", energy__widths=(3, 5), energy__temperature=0.1)
    net, mlp = models.build(config).energy, models.build(tiny.config(energy__widths=(3, 5))).energy
    params, x = net.init(jax.random.key(0)), np.linspace(-1, 1, 2 * 64).reshape(2, 8, 8, 1)
    quadratic = net.apply(params, x) - mlp.apply(params, x)
    np.testing.assert_allclose(quadratic, 0.1 * np.square(x).sum((1, 2, 3)) / 2, rtol=1e-4)
    assert net.textbook_multiply_adds == 64 * 3 + 3 * 5 + 5
    with pytest.raises(ValueError, match=r"energy.widths: found \(\), expected positive integers"):
        models.build(tiny.config(energy__kind="confined", energy__widths=()))


def test_new_source_is_loaded_and_checked(extended):
    config = tiny.config(data__source="checkers:2", data__shape=(8, 6, 3))
    dataset = sources.load(config.data)
    assert (dataset.train.shape, dataset.test.shape) == ((2000, 8, 6, 3), (200, 8, 6, 3))
    dark = dataset.train == 0
    assert (dark[:, 2:] != dark[:, :-2]).all()  # squares of two pixels
    assert (dark[:, :, 2:] != dark[:, :, :-2]).all()
    np.testing.assert_array_equal(dataset.train, sources.load(config.data).train)
    for source in ("checkers", "checkers:0", "checkers:small"):
        config.data.source = source
        with pytest.raises(ValueError, match=r"expected .*'checkers:SIZE'"):
            sources.load(config.data)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A folder with runs/digits: a run of the digits config with small networks, and a checkpoint of step 1,500."""
    folder = tmp_path_factory.mktemp("docs")
    config = digits.get_config()
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (8,)
    begin(config, folder / "runs" / "digits", step=1500)
    return folder


@pytest.mark.slow
def test_examples_in_api_print_what_they_show(digits_run, monkeypatch):
    monkeypatch.chdir(digits_run)
    names, shown = {}, io.StringIO()
    text = "".join(blocks("api.md", "python"))
    with contextlib.redirect_stdout(shown):
        exec(compile(text, "api.md", "exec"), names)
    assert shown.getvalue().splitlines() == re.findall(r"^ *print\(.*\)  # (.*)$", text, re.MULTILINE)
    assert len(re.findall(r"^ *print\(", text, re.MULTILINE)) == len(shown.getvalue().splitlines()) > 20
    (table,) = blocks("api.md", "text")
    for word, shown_word in zip(names["table"].split(), table.split(), strict=True):
        with contextlib.suppress(ValueError):
            word, shown_word = (float(part.replace(",", "")) for part in (word, shown_word))
        assert word == (shown_word if isinstance(word, str) else pytest.approx(shown_word, rel=0.1, abs=0.05))

    model, key, x = names["model"], jax.random.key(0), jnp.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"^step: .*1500"):
        dualmcmc_jax.load("runs/digits", step=7)
    with pytest.raises(TypeError, match=r"^steps: "):
        model.synthesize(key, 2, steps=3)
    for settings in ({"init": "elsewhere"}, {"sampler": "none"}):
        with pytest.raises(KeyError):
            model.synthesize(key, 2, **settings)
    with pytest.raises(ValueError, match="hashable"):
        model.synthesize(key, 2, init=x)
    revised = model.bound().synthesize(jax.random.split(key, 2), init=x, num_steps=0).revised
    np.testing.assert_array_equal(revised, x)


def test_api_page_contains_every_public_name():
    text = (DOCS / "api.md").read_text()
    for owner in (Model, BoundModel):
        public = {name for name in (*dir(owner), *owner.__annotations__) if not name.startswith("_")}
        for name in public - {"count", "index"}:  # methods of every tuple
            assert re.search(rf"[`.]{name}[`(]", text), name
    for name in dualmcmc_jax.__all__:
        assert f"`{name}`" in text, name


PAGES = sorted(page.name for page in DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_tests_and_config_fields_named_in_docs_exist(page):
    text = (DOCS / page).read_text()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for file, test in re.findall(r"(tests/\w+\.py)(?:::(\w+))?", prose):
        assert f"def {test}" in (ROOT / file).read_text(), f"{file}::{test}"
    fields = config_check.fields(default.get_config()).keys() | {
        "loss.prior.weight",
        "loss.prior",
        "x_chain.width",
        "z_chain.width",
        "loss.own",
    }
    sections = {name.rpartition(".")[0] for name in fields} | {"loss.energy.*", "loss.generator.*", "loss.encoder.*"}
    for section, field in re.findall(r"`(?:--config\.)?(\w+)\.([\w.*]+)[`=]", prose):
        if section in default.get_config():
            assert f"{section}.{field}" in fields | sections, f"{section}.{field}"


def test_code_quoted_in_method_is_in_the_source():
    quoted = blocks("method.md", "python")
    assert len(quoted) > 8
    for block in quoted:
        first, *lines = block.strip().split("\n")
        file = ROOT / re.match(r"# (\S+\.py)", first)[1]
        source = [line.strip() for line in file.read_text().split("\n")]
        for line in lines:
            assert line.strip() in source, f"{file.name}: {line}"
