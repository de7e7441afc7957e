"""The model card of exported weights, beside evaluations and with names that someone else may have written."""

import json

import pytest

from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.report import card

FACTS = {
    "step": 7,
    "seed": 0,
    "features": "pixels",
    "num_features": 64,
    "num_samples": 10,
    "num_train": 1500,
    "num_held_out": 20,
    "x_chain": [30, 5e-5, 1e-3],
}


def test_html_and_markdown_in_names_are_shown_and_not_interpreted():
    odd = "<img src=x onerror=alert(1)>\n```\n# heading</pre><script>"
    figures = {"samples.png": "Samples."}
    text = card.card(
        odd, config=f"--config.data.source={odd!r}", step=7, license=odd, evaluation=odd, figures=figures, method="it"
    )
    assert "<img" not in text
    assert "<script" not in text
    assert text.count("</pre>") == text.count("<pre>") == 2
    assert "# &lt;img src=x onerror=alert(1)&gt; ``` # heading&lt;/pre&gt;&lt;script&gt;\n" in text
    assert "![Samples.](samples.png)" in text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("{}", "KeyError: 'x_chain'"),
        ("[]", "a list"),
        ("3", "a int"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        (json.dumps(FACTS | {"step": "seven"}), "Cannot specify ',' with 's'."),
        (json.dumps(FACTS | {"generator/fid": 10**400}), "OverflowError: int too large to convert to float"),
        (json.dumps(FACTS | {"x_chain": [1, 2]}), "not enough values to unpack (expected 3, got 2)"),
        ('{"a": "%s"}' % ("x" * 10**6), "more than 1,000,000 bytes"),
        (None, "something other than a file"),
    ],
)
def test_export_goes_on_without_a_damaged_evaluation_and_names_the_file(content, found, tmp_path, caplog):
    path = tmp_path / "metrics.json"
    path.mkdir() if content is None else path.write_text(content)
    assert suite.stored(tmp_path) == (None, {})
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: found no evaluation ({found}")
    assert record.getMessage().endswith("), expected that of --mode=evaluate")


def test_numbers_that_are_not_finite_are_shown(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text(json.dumps(FACTS | {"odd\x1b[2J": float("nan"), "null": None}))
    report, figures = suite.stored(tmp_path)
    assert report.startswith("Checkpoint at step 7; 10 samples")
    assert "nan" in report
    assert (figures, caplog.records) == ({}, [])
