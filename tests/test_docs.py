"""Every command of the pages in docs/ runs as it stands, after a few of the README's."""

import pytest

from conftest import ROOT
from page_commands import LIMIT, commands, run_in_order, workplace

FIRST = [  # of the README's, what the pages build on
    "python download_dataset.py",
    "python dataset_preparation.py",
    "python advanced_network.py --preset best",
    "python advanced_network.py --preset quick --results-dir results/quick",
]
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("page", PAGES)
def test_python_commands_run_in_order(tmp_path, page):
    workplace(tmp_path)
    assert run_in_order(FIRST + commands(page), tmp_path) > len(FIRST)


def test_first_commands_are_the_readmes():
    assert set(FIRST) < set(commands("README.md"))
