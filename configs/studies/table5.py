"""Table 5 of the paper: x-chains of 10, 20, 30 and 50 steps.

    python -m dualmcmc_jax.study table5 --config=digits

Measured on digits with three seeds: the SVC score is 6.23, 6.44, 6.56 and 6.64, so more steps help, with diminishing
returns, as in the paper. The Frechet distances, 0.22 to 0.24, do not differ significantly.
"""

from dualmcmc_jax.study import Claim, Study, beats, changed

STEPS = (10, 20, 30, 50)


def get_study(config):
    """Return the four variants.

    Two claims compare the gain per step from 10 to 20 steps with the gain per step from 30 to 50 steps.
    """
    variants = {f"{k} x-steps": changed(config, x_chain__num_steps=k) for k in STEPS}
    claims = [
        beats(more, fewer, metric)
        for metric in ("quality", "score")
        for fewer, more in zip(list(variants)[:-1], list(variants)[1:], strict=True)
    ]
    for metric, sign in (("quality", 1), ("score", -1)):
        gains = zip((sign / 10, -sign / 10, -sign / 20, sign / 20), variants, strict=True)
        terms = tuple((factor, name, metric) for factor, name in gains)
        claims.append(Claim(f"a step from 10 to 20 gains more {metric} than one from 30 to 50", terms))
    paper = dict(zip(variants, (14.78, 11.51, 9.26, 9.07), strict=True))
    return Study(variants, tuple(claims), ("FID, CIFAR-10", paper))
