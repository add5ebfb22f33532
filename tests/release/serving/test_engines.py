"""Which engine serves what, and its command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.release.serving.running import FakeEngine
from tests.release.serving.test_engine_faults import never_ends
from xmodel2.errors import XmodelError
from xmodel2.release.serving import engines
from xmodel2.release.serving.engines import choose
from xmodel2.release.serving.options import ServeOptions
from xmodel2.tokenizer import train_bpe


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A native directory of a model that is not ours."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.6}))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], str]]:
    """Command line, environment and key of what was started, and every package is installed."""
    seen: list[tuple[str, dict[str, str], str]] = []

    def child(command: Any, ready: str, environment: dict[str, str], key: str) -> None:
        assert ready == "/health"
        seen.append((" ".join(command(8123)), environment, key))

    monkeypatch.setattr(engines, "Child", child)
    monkeypatch.setattr(engines, "_installed", lambda package: True)
    return seen


def test_vllm_listens_on_loopback_behind_a_key(foreign: Path, started: list[tuple[str, dict[str, str], str]]) -> None:
    choose(foreign, ServeOptions(engine="vllm", name="mine", slots=3, context=256)).start()
    command, environment, key = started[0]
    assert command.endswith(
        f"vllm serve {foreign} --host 127.0.0.1 --port 8123 --served-model-name mine"
        " --max-model-len 256 --max-num-seqs 3 --generation-config vllm"
    )
    assert environment == {"VLLM_API_KEY": key}  # not in the list of processes
    assert len(key) > 20


def test_transformers_listens_on_loopback_and_fetches_nothing(
    foreign: Path, started: list[tuple[str, dict[str, str], str]]
) -> None:
    engine = choose(foreign, ServeOptions(threads=2))
    engine.start()
    command, environment, key = started[0]
    assert engine.kind == "transformers"
    assert f"transformers serve {foreign} --host 127.0.0.1 --port 8123" in command
    assert (environment, key) == ({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}, "")


def test_a_model_of_ours_with_another_tokenizer_is_for_transformers(
    road: Path, tmp_path: Path, started: list[tuple[str, dict[str, str], str]]
) -> None:
    train_bpe([f"The number {n} is {n * 7}." for n in range(300)], 270, tmp_path / "bpe")
    native, run = (Path(shutil.copytree(road / kind, tmp_path / kind)) for kind in ("hf", "run"))
    assert choose(native, ServeOptions(slots=1)).kind == "llama"
    for place in (native, run / "tokenizer"):
        shutil.copytree(tmp_path / "bpe", place, dirs_exist_ok=True)
    assert choose(native, ServeOptions()).kind == "transformers"
    for engine in ("auto", "llama"):
        with pytest.raises(
            XmodelError, match=rf"`xmodel2 export {run} --to hf --out DIR`, then `xmodel2 serve DIR --eng"
        ):
            choose(run, ServeOptions(engine=engine))


def test_a_context_beyond_the_trained_one(foreign: Path) -> None:
    with pytest.raises(XmodelError, match="the model was trained on 512 tokens"):
        choose(foreign, ServeOptions(engine="transformers", context=513))


def test_another_servers_models_are_asked_for_past_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeEngine(never_ends).listening() as engine:
        assert choose(Path("toy"), ServeOptions(engine=engine.url + "/v1/", name="mine")).model == "mine"
        with pytest.raises(XmodelError, match="has the models toy; give one of them"):
            choose(Path("toys"), ServeOptions(engine=engine.url))
