"""Table 5 of the paper: x-chains of 10, 20, 30 and 50 steps.

python -m dualmcmc_jax.study table5 --config=digits
"""

from dualmcmc_jax.configs.studies import Claim, Study, beats, changed

STEPS = (10, 20, 30, 50)


def get_study(config):
    """The four of them; a step's gain is that of the whole increase over how many steps it adds."""
    variants = {f"{k} x-steps": changed(config, x_chain__num_steps=k) for k in STEPS}
    ten, twenty, thirty, fifty = variants
    claims = [beats(more, fewer) for fewer, more in zip(list(variants)[:-1], list(variants)[1:], strict=True)]
    quality = lambda *terms: tuple((factor, name, "quality") for factor, name in terms)
    claims.append(
        Claim(
            "returns shrink: a step from 10 to 20 gains more than one from 30 to 50",
            quality((1 / 10, ten), (-1 / 10, twenty), (-1 / 20, thirty), (1 / 20, fifty)),
        )
    )
    return Study(
        variants, tuple(claims), ("FID, CIFAR-10", dict(zip(variants, (14.78, 11.51, 9.26, 9.07), strict=True)))
    )
