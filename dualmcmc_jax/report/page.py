"""The report as one self-contained HTML page."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from dualmcmc_jax.report.sections import Block


def html(title: str, summary: str, blocks: Sequence[Block], *, config: str) -> str:
    """Return the HTML of the report. The page embeds its figures and refers to no other file.

    Args:
      title: heading of the page.
      summary: one line below the heading, without a final period.
      blocks: sections of the report. Their figures are paths of PNG files.
      config: the config of the run, as text; "" for none.
    """
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda path: base64.b64encode(path.read_bytes()).decode()
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, summary=summary, blocks=blocks, config=config)
