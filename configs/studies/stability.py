"""Which options keep a run from blowing up, and at what cost in quality? Each option of docs/stability.md alone.

    python -m dualmcmc_jax.study stability --config=unstable --seeds=5

The table shows the share of runs that reached the end, the update after which the first divergence was noticed, and the
quality of the runs that reached the end. Diverged runs are results of this study, not failures.

Measured with five seeds: with warm-up and with spectral norm all runs reach the end, with a clipped score four of five.
With warm-up, one of two longer runs diverged. docs/stability.md has the table.
"""

from dualmcmc_jax.study import Claim, Study, changed

NONE = "none"
OPTIONS = {
    "spectral norm": {"energy__spectral_norm": True},
    "energy penalty": {"loss__energy_penalty__weight": 1.0},
    "gradient penalty": {"loss__gradient_penalty__weight": 1.0},
    "clipped score": {"x_chain__clip_score": 20000.0},
    "noise on the data": {"data__noise_std": 0.3},
    "warm-up": {"optimizer__warmup_steps": 1000},
    "weight decay": {"optimizer__energy__weight_decay": 1.0},
    "rollback": {"health__policy": "rollback", "health__max_rollbacks": 10, "checkpoint__every": 100},
}
SMOOTH = ("swish", "softplus")


def get_study(config):
    """Return the config without options and with each option. Smooth activations need a residual energy."""
    if config.energy.spectral_norm or config.health.policy != "stop":
        raise ValueError("found a config with spectral norm or rollback, expected one without, as in unstable")
    options = dict(OPTIONS)
    if config.energy.kind == "resnet":
        options |= {activation: {"energy__activation": activation} for activation in SMOOTH}
    variants = {NONE: config} | {name: changed(config, **fields) for name, fields in options.items()}
    end = "study/reached_end"
    claims = [Claim(f"{name} reaches the end more often", ((1, name, end), (-1, NONE, end))) for name in options]
    return Study(variants, tuple(claims))
