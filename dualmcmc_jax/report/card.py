"""The model card that goes with exported weights."""

import json
import shutil
from pathlib import Path
from typing import Any

from dualmcmc_jax import config_check
from dualmcmc_jax.report import tables, wording
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training.params import Params

DUAL = "[dual-MCMC teaching](https://arxiv.org/abs/2312.02469) (Cui & Han, NeurIPS 2023)"


def write(out: Path, config, evaluation: Path, *, name: str, step: int, license: str) -> bool:
    """Writes README.md into a folder of exported weights, with what is in the evaluation's folder of that step.

    Returns whether there was an evaluation.
    """
    measured = evaluation / "metrics.json"
    metrics = json.loads(measured.read_text()) if measured.exists() else None
    pictures = [picture for picture in ("samples.png", "x_revision.png") if (evaluation / picture).exists()]
    for picture in pictures:
        shutil.copyfile(evaluation / picture, out / picture)
    loss = config.loss
    others = loss.elbo.weight, *loss.generated.values()
    is_dual = all(loss[net].data_weight for net in Params._fields) and not any(others)
    text = card(
        name,
        config=config_check.listing(config),
        step=step,
        license=license,
        metrics=metrics,
        pictures=pictures,
        method=DUAL if is_dual else "the losses and chains of the config below",
    )
    workdirs.replace(out / "README.md", text)
    return metrics is not None


def card(
    name: str,
    *,
    config: str,
    step: int,
    license: str,
    metrics: dict[str, Any] | None,
    pictures: list[str],
    method: str,
) -> str:
    """A README.md as model hubs read it.

    Args:
      name: of the model.
      config: as text.
      step: updates made.
      license: of the weights, by its SPDX name.
      metrics: from metrics.json of an evaluation of this step; None: there is none.
      pictures: files beside the card to show.
      method: that it was trained by.
    """
    found = "Not evaluated." if metrics is None else f"```\n{tables.text(metrics).strip()}\n```"
    shown = "".join(f"![{wording.CAPTIONS[picture.removesuffix('.png')]}]({picture})\n\n" for picture in pictures)
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

{found}

## Config

```
{config}
```

## Licence

{license}, of the weights. Training data have licences of their own.
"""
