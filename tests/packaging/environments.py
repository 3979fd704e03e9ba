"""Wheels of this checkout, and environments in which they are installed without a network."""

import email
import fcntl
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def once(tmp_path_factory, name, make):
    """The folder `name`, into which `make(folder)` wrote once for all workers of the run."""
    base = tmp_path_factory.getbasetemp()
    parent = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = parent / name, parent / f"{name}.made"
    with (parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            made.touch()
    return folder


def run(*command, **options):
    """The output of a command that must succeed; its error output is in the failure."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source, folder):
    """Makes a source distribution and, from that, a wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)


def contents_of(wheel):
    """Name -> bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata_of(contents):
    """The wheel's METADATA."""
    (name,) = (name for name in contents if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(contents[name])


def make_environment(wheels, extras, folder):
    """A new environment that has the wheels, and what they require, and nothing else."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", *wheels)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    lines = [
        line for wheel in wheels for line in metadata_of(contents_of(wheel)).get_all("Requires-Dist") or []
    ]
    for name in requirements_of(lines, extras):
        _link(name, site)
    run(*pip, "check")


def requirements_of(lines, extras):
    """The distributions that the lines require with these extras, and what those require, and so on; not ours."""
    found, todo = set(), _applying(lines, extras)
    while todo:
        each = todo.pop()
        wanted = (each.name, frozenset(each.extras))
        if wanted not in found and not each.name.startswith("kmsbridge"):
            found.add(wanted)
            todo += _applying(distribution(each.name).requires or [], each.extras)
    return {name for name, _ in found}


def _applying(lines, extras):
    """Of the requirements those that hold here, with these extras."""
    return [
        each
        for each in map(Requirement, lines)
        if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _link(name, site):
    """Make an installed distribution's folders and modules visible in another environment."""
    installed = distribution(name)
    tops = {file.parts[0] for file in installed.files if file.parts[0] not in {"..", "__pycache__"}}
    for top in tops:
        with suppress(FileExistsError):  # a namespace's folder is of several
            (site / top).symlink_to(installed.locate_file(top))
