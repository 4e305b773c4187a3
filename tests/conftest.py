"""What every test needs: no network, no telemetry, a home of its own."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes on one thread: small products mostly wait for each other on more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub that huggingface_hub takes for the hub, with an empty cache and nobody logged in."""
    import huggingface_hub.constants
    from hub_server import Server

    from pairprobe.checkpoints import remote

    with Server() as server:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("PAIRPROBE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(remote, "WAITS", (0.0, 0.0, 0.0))
        yield server


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint folder by kind and options, written once for all tests of a module; not to be changed."""
    from small_models import write  # torch and transformers, which many tests do without

    root = tmp_path_factory.mktemp("written")

    @functools.cache
    def of(kind: str = "llama", **options: object) -> Path:
        return write(kind, root / "-".join([kind, *(str(v) for v in options.values())]), **options)

    return of
