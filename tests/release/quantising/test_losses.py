"""Losses of documents: equal to a plain forward pass over each, and to what evaluation gives; of parts and of texts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xmodel2.data.shards import open_shards
from xmodel2.errors import XmodelError
from xmodel2.release.quantising.documents import documents_of, heldout_documents
from xmodel2.release.quantising.losses import document_nats, summary
from xmodel2.release.trained import open_trained
from xmodel2.train.heldout import heldout_losses


def test_nats_are_those_of_a_forward_pass_over_each_document(road: Path) -> None:
    model = open_trained(road / "run").load()
    documents = heldout_documents(road / "data", 700, limit=600)
    nats = document_nats(model, documents, context=40)
    for ids, counted, found in zip(documents.ids, documents.counted, nats, strict=True):
        want = 0.0
        for start in range(0, len(ids) - 1, 40):
            part = torch.tensor(ids[start : start + 41])
            with torch.no_grad():
                losses = F.cross_entropy(model(part[None, :-1])[0].float(), part[1:], reduction="none")
            want += float(losses[torch.from_numpy(counted[start : start + 40])].sum())
        assert found == pytest.approx(want, abs=1e-3)


def test_losses_are_near_those_of_evaluation_which_cuts_rows_elsewhere(road: Path) -> None:
    trained = open_trained(road / "run")
    assert trained.recipe
    model, documents = trained.load(), documents_of(trained, "", None, None)
    assert documents
    ours = summary(documents, document_nats(model, documents, 512), None)
    theirs = heldout_losses(model, open_shards(road / "data"), trained.recipe)
    for name, row in theirs.items():
        assert ours[name]["tokens"] == pytest.approx(row["tokens"], rel=0.05)
        assert ours[name]["loss"] == pytest.approx(row["loss"], abs=0.1)


def test_a_change_is_measured_document_by_document(road: Path) -> None:
    documents = heldout_documents(road / "data", 700)
    before = np.linspace(1.0, 50.0, len(documents.ids))
    tokens = np.array([mask.sum() for mask in documents.counted])
    row = summary(documents, before + 0.01 * tokens, before)["all"]
    assert row["difference"] == pytest.approx(0.01)
    assert row["interval"] == pytest.approx([0.01, 0.01])
    assert summary(documents, before, None)["all"]["loss"] == pytest.approx(before.sum() / tokens.sum())


def test_a_limit_gives_every_source_an_equal_part(road: Path) -> None:
    documents = heldout_documents(road / "data", 700, limit=200)
    sources = np.array(documents.sources)
    for name in set(documents.sources):
        counted = sum(int(documents.counted[at].sum()) for at in (sources == name).nonzero()[0])
        assert 25 <= counted <= 50
    assert documents.fingerprint != heldout_documents(road / "data", 700, limit=201).fingerprint


def test_what_cannot_be_measured_on_is_told(road: Path, tmp_path: Path) -> None:
    trained, native = open_trained(road / "run"), open_trained(road / "hf")
    assert documents_of(native, "", None, None) is None
    with pytest.raises(XmodelError, match="vocabulary of 700 and the model one of 60"):
        heldout_documents(road / "data", 60)
    with pytest.raises(XmodelError, match="give one of them"):
        documents_of(trained, str(road / "data"), tmp_path / "x.txt", None)
    text = tmp_path / "text.txt"
    text.write_text("One paragraph.\n\nAnother of them.\n")
    documents = documents_of(native, "", text, None)
    assert documents
    assert documents.sources == ["text.txt", "text.txt"]
    text.write_text(" \n")
    with pytest.raises(XmodelError, match="holds no text"):
        documents_of(native, "", text, None)
    text.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(XmodelError, match="is not UTF-8"):
        documents_of(native, "", text, None)
