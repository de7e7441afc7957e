"""The model card of exported weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from dualmcmc_jax import config_check
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training import objectives

DUAL = "[dual-MCMC teaching](https://arxiv.org/abs/2312.02469) (Cui & Han, NeurIPS 2023)"


def write(
    out: Path,
    config,
    *,
    name: str,
    step: int,
    license: str,
    evaluation: str | None,
    figures: Mapping[Path, str],
) -> None:
    """Write README.md into a folder of exported weights, and copy the figures into it.

    Args:
      out: the folder.
      config: the whole config of the run.
      name: name of the model.
      step: number of updates.
      license: SPDX name of the weights' licence.
      evaluation: tables of an evaluation of this step, as text. None: the step is not evaluated.
      figures: captions by path of a PNG file.
    """
    for path in figures:
        shutil.copyfile(path, out / path.name)
    text = card(
        name,
        config=config_check.listing(config),
        step=step,
        license=license,
        evaluation=evaluation,
        figures={path.name: caption for path, caption in figures.items()},
        method=DUAL if _is_dual_mcmc(config) else "the losses and chains of the config below",
    )
    workdirs.replace(out / "README.md", text)


def card(
    name: str,
    *,
    config: str,
    step: int,
    license: str,
    evaluation: str | None,
    figures: Mapping[str, str],
    method: str,
) -> str:
    """Return a README.md in the form that model hubs read.

    Args:
      name: name of the model.
      config: the config, as text.
      step: number of updates.
      license: SPDX name of the weights' licence.
      evaluation: tables of an evaluation of this step, as text. None: the step is not evaluated.
      figures: captions by name of a file beside the card.
      method: how the model was trained, in words.
    """
    results = "Not evaluated." if evaluation is None else f"```\n{evaluation.strip()}\n```"
    shown = "".join(f"![{caption}]({file})\n\n" for file, caption in figures.items())
    return f"""---
license: {license}
library_name: dualmcmc_jax
pipeline_tag: unconditional-image-generation
tags: [energy-based-model, langevin-dynamics, jax]
---

# {name}

An energy-based model with its generator and inference model, trained for {step:,} updates with dualmcmc_jax by
{method}.

{shown}```python
import dualmcmc_jax, jax
model = dualmcmc_jax.load("model.safetensors")
samples = model.synthesize(jax.random.key(0), 16).revised  # [16, ...], images in about [-1, 1]
energies = model.energy(samples)
```

## Evaluation

{results}

## Config

```
{config}
```

## Licence

{license}, of the weights. Training data have licences of their own.
"""


def _is_dual_mcmc(config) -> bool:
    """Return whether every network learns from data pairs, and no other objective is added."""
    return all(config.loss[name].data_weight for name in objectives.METHOD) and not objectives.added(config)
