"""What keeps the trials of one study comparable."""

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.search.identity import refuse_changes
from xmodel2.search.space import flat


def test_a_key_of_a_later_version_is_no_change_at_its_default() -> None:
    now = flat(Recipe())
    before = {key: value for key, value in now.items() if key != "model.tie_word_embeddings"}
    refuse_changes("runs/search", before, now)
    with pytest.raises(XmodelError, match=r"model\.tie_word_embeddings was True, is False"):
        refuse_changes("runs/search", before, now | {"model.tie_word_embeddings": False})


def test_a_key_that_is_gone_is_a_change() -> None:
    now = flat(Recipe())
    with pytest.raises(XmodelError, match=r"train\.speed was 3, is not there"):
        refuse_changes("runs/search", now | {"train.speed": 3}, now)
