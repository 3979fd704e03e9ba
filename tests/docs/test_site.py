"""The documentation as a site: `make docs`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A link that leads nowhere, or a page that the menu leaves out, fails the build: not with
    `--quiet`, which counts no warnings.
    """
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_reader_without_a_network_has_all_of_it(site: Path) -> None:
    """No page loads a script, a style, a font or a picture from another host."""
    loads = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
    fetched = {
        (page.name, found[0]) for page in site.rglob("*.html") for found in loads.finditer(page.read_text())
    }
    assert not fetched
    assert not [style.name for style in site.rglob("*.css") if "url(http" in style.read_text()]


def test_the_search_finds_pages_by_their_words(site: Path) -> None:
    """The index that the browser searches has the page about a word, and the docstrings."""
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]

    def pages(word: str) -> set[str]:
        return {each["location"].partition("#")[0] for each in index if word in each["title"].lower()}

    assert "how-to/rotate-and-rewrap.html" in pages("rotate")
    assert "reference/docstrings.html" in pages("encrypt_file")
