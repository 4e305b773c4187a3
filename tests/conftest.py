"""What every test needs: no network, no telemetry, a home of its own."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mlflow.db and mlruns/ of this test alone."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("PAIRPROBE_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint folder by kind and options, written once for all tests of a module; not to be changed."""
    from small_models import write  # torch and transformers, which many tests do without

    root = tmp_path_factory.mktemp("written")

    @functools.cache
    def of(kind: str = "llama", **options: object) -> Path:
        return write(kind, root / "-".join([kind, *(str(v) for v in options.values())]), **options)

    return of
