"""The file that a model is served from: written once, kept while the weights are the same."""

import shutil
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.release import served
from xmodel2.release.served import served_model

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def run(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(road / "run", copy, ignore=shutil.ignore_patterns("serving"))
    return copy


def test_a_run_is_written_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "serving").mkdir(exist_ok=True)
    (run / "serving" / ".step-20-q8_0.gguf.999.tmp").write_bytes(b"of a process that was killed")
    first = served_model(run)
    assert first.gguf == run / "serving" / "step-20-q8_0.gguf"
    assert (first.name, first.context, first.stop_ids, first.tokenizer_dir) == ("demo", 512, (2, 7), run / "tokenizer")
    assert not list(first.gguf.parent.glob(".*.tmp"))
    monkeypatch.setattr(served, "write_gguf", None)
    assert served_model(run) == first
    assert served_model(run / "checkpoints" / "step-20") == first


def test_other_weights_are_written_anew(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = served_model(run).gguf
    written = list[Path]()
    monkeypatch.setattr(served, "write_gguf", lambda trained, out, kind: written.append(out))
    manifest = next((run / "checkpoints" / "step-20").glob("manifest*"))
    before = manifest.read_bytes()
    manifest.write_bytes(before + b" ")
    served_model(run)
    assert written == [file]
    manifest.write_bytes(before)
    file_before = file.read_bytes()
    file.write_bytes(file_before[:100])  # as another program may leave it
    with pytest.raises(XmodelError, match="not a whole GGUF file"):
        served_model(run)  # the stand-in writes nothing
    assert written == [file, file]
    file.write_bytes(file_before)


def test_a_file_written_in_another_form_is_written_anew(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = served_model(run).gguf
    written = list[Path]()
    monkeypatch.setattr(served, "write_gguf", lambda trained, out, kind: written.append(out))
    monkeypatch.setattr(served, "FORM", served.FORM + 1)
    served_model(run)
    assert written == [file]


def test_a_file_is_itself(run: Path, tmp_path: Path) -> None:
    made = served_model(run)
    again = served_model(made.gguf)
    assert (again.name, again.stop_ids, again.tokenizer_dir) == ("demo", (2, 7), made.gguf.parent)
    alone = Path(shutil.copy(made.gguf, tmp_path / "alone.gguf"))
    assert served_model(alone).tokenizer_dir is None
    (tmp_path / "tokenizer.json").write_text("{}")  # of another model
    assert served_model(alone).tokenizer_dir is None


def test_what_cannot_be_served_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.gguf").write_text("this is text and no model at all")
    (tmp_path / "folder.gguf").mkdir()
    for name, message in (
        ("text.gguf", "not a GGUF file"),
        ("folder.gguf", "cannot be read"),
        ("absent.gguf", "cannot be read"),
        ("absent", "neither a run directory"),
    ):
        with pytest.raises(XmodelError, match=message):
            served_model(tmp_path / name)
    with pytest.raises(XmodelError, match=r"'q4' is not one of .*Did you mean 'q4_[01]'"):
        served_model(run, "q4")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(served, "write_gguf", full)
    with pytest.raises(XmodelError, match=r"f16\.gguf: cannot be written \(No space left.*--to gguf --out DIR"):
        served_model(run, "f16")
