"""The model card (README.md) of exported weights."""

import html
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dualmcmc_jax import config_check, own_code
from dualmcmc_jax.models import Params
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training import objectives

DUAL = "[Dual-MCMC Teaching](https://arxiv.org/abs/2312.02469) (Cui & Han, NeurIPS 2023)"


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
    """Write the model card into the folder of exported weights, and copy its figures there.

    Args:
      out: the folder of the exported weights.
      config: the whole config of the run.
      name: name of the model.
      step: number of updates of the exported checkpoint.
      license: SPDX identifier of the license of the weights.
      evaluation: the tables of an evaluation of this checkpoint, as text; None if it has not been evaluated.
      figures: captions by the path of a PNG file.
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
        networks=own_code.objects({name: config[name].kind for name in Params._fields}),
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
    networks: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the text of the model card, with the metadata header that model hubs read.

    Args:
      name: name of the model.
      config: the config of the run, as text.
      step: number of updates of the exported checkpoint.
      license: SPDX identifier of the license of the weights.
      evaluation: the tables of an evaluation of this checkpoint, as text; None if it has not been evaluated.
      figures: captions by the name of a file in the folder of the card.
      method: the training method, in words.
      networks: networks of the user: the names of their classes or functions, by the argument of `load`.
    """
    license, name = _escaped(license), _escaped(name)
    results = "This checkpoint has not been evaluated." if evaluation is None else _verbatim(evaluation)
    own = "".join(f", {argument}={name}" for argument, name in networks.items())
    shown = "".join(f"![{caption}]({file})\n\n" for file, caption in figures.items())
    return f"""---
license: {license}
library_name: dualmcmc_jax
pipeline_tag: unconditional-image-generation
tags: [energy-based-model, langevin-dynamics, jax]
---

# {name}

An energy-based model (EBM) with a generator and an inference model, trained for {step:,} updates with dualmcmc_jax by
{method}.

{shown}```python
import dualmcmc_jax, jax
model = dualmcmc_jax.load("model.safetensors"{own})
samples = model.synthesize(jax.random.key(0), 16).revised  # [16, ...], pixels in about [-1, 1]
energies = model.energy(samples)  # [16], lower energy means higher density
```

## Evaluation

{results}

## Config

{_verbatim(config)}

## License

The weights are licensed under {license}. The license of the training data may differ.
"""


def _escaped(text: str) -> str:
    """Return a text as one line of Markdown without HTML."""
    return html.escape(" ".join(text.split()), quote=False)


def _verbatim(text: str) -> str:
    """Return a block that shows a text as it is. A fence of backticks could be closed by the text."""
    return f"<pre>\n{html.escape(text.strip(), quote=False)}\n</pre>"


def _is_dual_mcmc(config) -> bool:
    """Return whether all three networks are trained on data pairs, and only by the losses of Dual-MCMC Teaching."""
    return all(config.loss[name].data_weight for name in objectives.METHOD) and not objectives.added(config)
