"""The benchmarks are measurements and no test; that they still run is."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
LIMITED = {
    "encrypt": 2.6,
    "decrypt": 4.2,
    "encrypt_text": 4.0,
    "decrypt_text": 8.5,
    "encrypt_many with an aad each, each": 1.9,
    "decrypt_many with an aad each, each": 3.5,
    "aio encrypt": 1.3,
    "aio decrypt": 1.3,
    "x25519, wrap": 1.3,
    "x25519, unwrap": 1.3,
    "mlkem768-x25519, wrap": 1.3,
    "mlkem768-x25519, unwrap": 1.3,
    "encrypt_file": 1.5,
    "decrypt_file": 1.5,
    "kmsbridge encrypt, without its start": 1.5,
    "kmsbridge decrypt, without its start": 1.5,
    "encrypt_file, peak memory above the interpreter": 64,
    "decrypt_file, peak memory above the interpreter": 64,
    "import kmsbridge": 40,
    "flush of encrypted rows": 1.5,
    "aws, time": 1.2,
    "aws, peak memory": 1.2,
    "gcp, time": 1.2,
    "gcp, peak memory": 1.2,
    "vault, time": 1.2,
    "vault, peak memory": 1.2,
    "SDKs and CLI libraries that import kmsbridge loads": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every measurement once, on next to nothing."""
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--results", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_every_limit_stands_beside_its_figure(run):
    """Each of the project's limits on speed and memory is in the table."""
    lines = json.loads((run[1] / "table.json").read_text())["lines"]
    limits = {line["name"]: line["limit"] for line in lines if line["limit"] is not None}
    assert LIMITED.items() <= limits.items()


def test_the_same_lines_are_printed_and_kept(run):
    """The terminal and the Markdown file show every line that the JSON file has."""
    printed, folder = run
    markdown = (folder / "table.md").read_text()
    names = [line["name"] for line in json.loads((folder / "table.json").read_text())["lines"]]
    assert all(f"  {name} " in printed and f"| {name} |" in markdown for name in names)


def test_random_reads_touch_only_the_chunks_they_need(run):
    """Reading 4 KiB somewhere decrypts one chunk, or two where it crosses from one into the next."""
    lines = json.loads((run[1] / "table.json").read_text())["lines"]
    touched = next(line for line in lines if line["unit"] == "chunks")
    assert 0 < touched["figure"] <= touched["limit"]


@pytest.mark.parametrize(
    ("figure", "at_least", "verdict"),
    (
        pytest.param(1.5, False, "PASS", id="below an upper limit"),
        pytest.param(1.7, False, "OVER LIMIT", id="above an upper limit"),
        pytest.param(1.7, True, "PASS", id="above a lower limit"),
        pytest.param(1.5, True, "OVER LIMIT", id="below a lower limit"),
    ),
)
def test_a_figure_beyond_its_limit_is_marked(monkeypatch, figure, at_least, verdict):
    """The verdict says on which side of its limit a ratio is."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.report import Line

    line = Line("part", "name", 100.0, "us", ratio=figure, limit=1.6, at_least=at_least)
    assert line.cells()[-1] == verdict
