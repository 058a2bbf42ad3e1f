"""What a user installs: a source distribution, a wheel of it, an environment with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.integration.programs import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("distribution")
    # Without --wheel, the wheel is built of the source distribution, as an index's users do.
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    (wheel,) = folder.glob("*.whl")
    assert list(folder.glob("*.tar.gz"))
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", wheel, folder=folder)
    return binaries


def test_the_command_tells_what_it_can(installed: Path, tmp_path: Path) -> None:
    told = run(installed / "celery-memory-exporter", "--help", folder=tmp_path)
    assert "demo" in told
    assert run(installed / "python", "-m", "celery_memory_exporter", "--help", folder=tmp_path)


def test_the_agent_is_there(installed: Path, tmp_path: Path) -> None:
    code = (
        "import celery_memory_exporter.autoload, celery_memory_exporter.agent as agent;"
        "print(agent.install.__name__, agent.__file__)"
    )
    name, file = run(installed / "python", "-c", code, folder=tmp_path).split()
    assert name == "install"
    assert Path(file).is_relative_to(installed.parent)


def test_the_demo_runs(installed: Path, tmp_path: Path) -> None:
    told = run(installed / "celery-memory-exporter", "demo", "--for", "20", folder=tmp_path)
    assert "process_and_cache_data" in told


def test_types_rules_and_the_page_come_along(installed: Path) -> None:
    (package,) = (installed.parent / "lib").glob("python3*/site-packages/celery_memory_exporter")
    for file in ("py.typed", "web/page/index.html", "demo/rules/celery-memory.alerts.yaml"):
        assert (package / file).is_file(), file
