"""Our own model and llama.cpp behind our tokenizer: the same ids in, the same text out."""

import importlib.util
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.model.generate import generate, stream
from xmodel2.release.chatting.open_engine import open_engine
from xmodel2.release.chatting.streams import Engine, Sampling, TooLongError, Usage
from xmodel2.release.chatting.token_streams import as_text
from xmodel2.release.llama_server import LlamaServer
from xmodel2.release.trained import open_trained
from xmodel2.tokenizer import Message, load_tokenizer, train_bpe

QUESTION: list[Message] = [{"role": "user", "content": "What is 3 plus 4? <|end|>"}]
ENGINES = ["torch"]
if importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf"):
    ENGINES.append("llama")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tiny: Path) -> Iterator[Engine]:
    opened = open_engine(str(tiny), request.param, threads=1)
    yield opened
    opened.close()


def test_a_greedy_answer_is_that_of_generate(engine: Engine, tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    prompt = tokenizer.encode_prompt(QUESTION)
    (ids,) = generate(open_trained(tiny).load(), [prompt], 24, tokenizer.stop_ids)
    usage = Usage()
    text = "".join(engine.stream(QUESTION, Sampling(max_new_tokens=24), usage))
    # Two tokens of a barely trained model can be level to the rounding of f16.
    assert text[:12] == tokenizer.decode(ids, skip_special_tokens=True)[:12]
    assert usage.prompt_tokens == len(prompt)
    assert usage.finish == ("length" if usage.tokens == 24 else "stop")
    assert 0 < usage.first_s <= usage.last_s


def test_sampled_answers_depend_on_the_seed(engine: Engine) -> None:
    def said(seed: int) -> str:
        hot = Sampling(temperature=1.5, top_k=50, top_p=0.99, min_p=1e-6, repetition_penalty=1.1, seed=seed)
        return "".join(engine.stream(QUESTION, hot.changed(["max_new_tokens=16"]), Usage()))

    assert said(1) == said(1) != said(2)


def test_a_prompt_longer_than_the_context(engine: Engine) -> None:
    long: list[Message] = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(TooLongError, match=r"tokens; the context of 512 leaves room for 384"):
        list(engine.stream(long, Sampling(), Usage()))
    assert list(engine.stream(QUESTION, Sampling(max_new_tokens=2), Usage()))


def test_an_answer_ends_with_the_context(engine: Engine) -> None:
    usage, long = Usage(), [Message(role="user", content="a b " * 90)]
    list(engine.stream(long, Sampling(temperature=1.0, max_new_tokens=9999), usage))
    whole = usage.prompt_tokens + usage.tokens
    assert whole <= engine.context == 512
    # llama.cpp keeps the bytes of a character that the end cuts off.
    assert usage.finish == "length" if whole == 512 else whole > 508 or usage.finish == "stop"


def test_an_answer_that_is_closed_leaves_the_engine_free(engine: Engine) -> None:
    for _ in range(3):
        answer = engine.stream(QUESTION, Sampling(temperature=1.0), Usage())
        next(iter(answer))
        answer.close()  # type: ignore[attr-defined]


def test_without_a_chat_template_texts_are_continued(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "plain")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    opened = open_engine(str(folder), "torch")
    assert "without a chat template" in opened.kind
    usage, tokenizer = Usage(), load_tokenizer(folder)
    list(opened.stream(QUESTION, Sampling(max_new_tokens=4), usage))
    assert usage.prompt_tokens == 1 + len(tokenizer.encode(QUESTION[0]["content"]))


def test_text_comes_in_whole_characters(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    chance = random.Random(0)
    letters = "ab \n\té你好🎉👩‍🚀ﬀ\u0301\ufffd\x1b"
    for _ in range(200):
        text = "".join(chance.choices(letters, k=20))
        parts = list(as_text(iter(tokenizer.encode(text)), tokenizer))
        assert "".join(parts) == text
        assert all(parts)
    rocket = tokenizer.encode("🚀")
    if len(rocket) == 4:  # a byte each
        assert list(as_text(iter([*rocket[:3], *tokenizer.encode("a")]), tokenizer)) == ["\ufffda"]
        assert list(as_text(iter(rocket[:3]), tokenizer)) == ["\ufffd"]


@pytest.mark.skipif("llama" not in ENGINES, reason="xllamacpp is not installed")
@pytest.mark.parametrize("kind", ["run", "hf"])
def test_what_llama_has_no_file_of_our_own_model_answers(road: Path, tmp_path: Path, kind: str) -> None:
    model = shutil.copytree(road / kind, tmp_path / kind)
    place = model / "tokenizer" if kind == "run" else model
    (place / "tokenizer.model").unlink(missing_ok=True)
    train_bpe([f"The number {n} is {n * 7}, héllo." for n in range(300)], 280, tmp_path / "bpe")
    shutil.copytree(tmp_path / "bpe", place, dirs_exist_ok=True)
    opened = open_engine(str(model))
    assert opened.kind.startswith("torch")
    assert list(opened.stream(QUESTION, Sampling(max_new_tokens=4), Usage()))
    with pytest.raises(XmodelError, match="its tokenizer is BPE"):
        open_engine(str(model), "llama")


def test_text_of_a_byte_level_vocabulary_comes_in_whole_characters(tmp_path: Path) -> None:
    train_bpe([f"The number {n} is {n * 7}, héllo." for n in range(300)], 280, tmp_path / "bpe")
    tokenizer = load_tokenizer(tmp_path / "bpe")
    text = "héllo 日本 🎉 the number\n"
    parts = list(as_text(iter([tokenizer.bos_id, *tokenizer.encode(text), 10_000]), tokenizer))
    assert "".join(parts) == text
    assert "日" in parts


def test_rows_that_no_piece_belongs_to_are_never_drawn(tiny: Path) -> None:
    model, tokenizer = open_trained(tiny).load(), load_tokenizer(tiny)
    pieces = tokenizer.vocab_size - 20
    ids = list(stream(model, [1, 9], 60, [], temperature=50.0, seed=1, pieces=pieces))
    assert len(ids) == 60
    assert max(ids) < pieces
    assert max(stream(model, [1, 9], 60, [], temperature=50.0, seed=1)) >= pieces


@pytest.mark.parametrize("temperature", [1e-50, 1e-300])
def test_however_small_a_temperature_is_an_answer(tiny: Path, temperature: float) -> None:
    model = open_trained(tiny).load()
    greedy, drawn = (list(stream(model, [1, 9], 8, [], temperature=value)) for value in (0.0, temperature))
    assert drawn == greedy


def test_what_cannot_be_opened(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUFnothing")
    for model, engine, message in (
        (tmp_path / "absent", "auto", "does not exist"),
        (tmp_path, "torch", "checkpoint"),
        (tmp_path / "x.gguf", "torch", "a file is llama.cpp's"),
    ):
        with pytest.raises(XmodelError, match=message):
            open_engine(str(model), engine)  # type: ignore[arg-type]
    with pytest.raises(XmodelError, match="are for addresses"):
        open_engine(str(tiny), api_key_file=tmp_path / "key")


def test_characters_of_several_tokens_come_from_llama_whole(
    engine: Engine, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "llama" not in engine.kind:
        pytest.skip("a grammar is llama.cpp's")
    said = "🙂🎉 x 世界 Größe"
    post = LlamaServer.stream
    grammar = {"grammar": f'root ::= "{said}"'}  # makes the model say it
    monkeypatch.setattr(LlamaServer, "stream", lambda server, path, body: post(server, path, body | grammar))
    usage = Usage()
    pieces = list(engine.stream(QUESTION, Sampling(), usage))
    assert "".join(pieces) == said
    assert pieces[0] == "🙂"
    assert len(said) < usage.tokens <= len(said.encode())
    assert usage.finish == "stop"
    cut = Usage()
    assert "".join(engine.stream(QUESTION, Sampling(max_new_tokens=6), cut)) == "🙂"
    assert (cut.tokens, cut.finish) == (6, "length")


@pytest.mark.skipif("llama" not in ENGINES, reason="xllamacpp is not installed")
def test_a_file_with_a_tokenizer_of_its_own(tiny: Path, tmp_path: Path) -> None:
    from xmodel2.release.served import served_model

    alone = shutil.copy(served_model(tiny).gguf, tmp_path / "alone.gguf")
    opened = open_engine(str(alone), threads=1)
    try:
        usage = Usage()
        assert "".join(opened.stream(QUESTION, Sampling(max_new_tokens=8), usage))
        assert usage.prompt_tokens > 5
        with pytest.raises(TooLongError):
            list(opened.stream([{"role": "user", "content": "word " * 2000}], Sampling(), Usage()))
    finally:
        opened.close()
