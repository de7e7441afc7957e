"""Relative links in the documentation lead to files and headings that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    blocks = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    names = set()
    for heading in HEADING.findall(blocks.sub("", page.read_text())):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.add(next(n for n in (name, *(f"{name}-{i}" for i in range(1, 100))) if n not in names))
    return names


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page to files or headings that do not exist."""
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):  # https:, mailto:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_existing_targets(page):
    assert not broken_links(page)


def test_broken_links_are_noticed(tmp_path):
    (tmp_path / "other.md").write_text("# A `title`, with commas\n## Twice\n## Twice\n```\n# no heading\n```\n")
    links = {
        "other.md": True,
        "other.md#a-title-with-commas": True,
        "other.md#twice-1": True,
        "#page": True,
        "https://example.com/none": True,
        "none.md": False,
        "other.md#none": False,
        "other.md#no-heading": False,
        "#none": False,
    }
    page = tmp_path / "page.md"
    text = "".join(f"- [text]({link})\n" for link in links)
    page.write_text(f"# Page\n{text}\n`[in code](none.txt)`\n```\n[in a block](none.txt)\n```\n")
    assert broken_links(page) == [link for link, target_exists in links.items() if not target_exists]
