"""Rows of shared beginnings: every sequence is there once and sees itself only."""

import random

import torch

from xmodel2.eval.prefix_tree import batch_mask, batch_tensors, tree_rows


def test_each_token_sees_what_is_before_it_in_its_own_sequence() -> None:
    draw = random.Random(0)
    for _ in range(60):
        sequences = [[draw.randrange(2) for _ in range(draw.randint(1, 8))] for _ in range(draw.randint(1, 11))]
        rows = list(tree_rows(sequences, max_tokens=20))
        ids, positions = batch_tensors(rows, "cpu")
        mask = batch_mask(rows, "cpu")
        seen = torch.ones(len(rows), 1, *[ids.shape[1]] * 2).tril().bool() if mask is None else mask
        found = {}
        for number, row in enumerate(rows):
            for index, columns in row.paths:
                found[index] = ids[number, columns].tolist()
                assert positions[number, columns].tolist() == list(range(len(columns)))
                for place, column in enumerate(columns):
                    assert seen[number, 0, column].nonzero()[:, 0].tolist() == columns[: place + 1]
        assert found == dict(enumerate(sequences))


def test_options_of_a_question_and_questions_after_the_same_examples_share_a_row() -> None:
    examples, questions = list(range(100)), [[200 + q, 300 + q] for q in range(4)]
    sequences = [examples + question + [option] for question in questions for option in (7, 8, 9)]
    (row,) = tree_rows(sequences)
    assert len(row) == 100 + 4 * (2 + 3)
    assert row.branches


def test_equal_and_longer_sequences_need_no_mask() -> None:
    (row,) = tree_rows([[5, 6, 7], [5, 6, 7], [5, 6]])
    assert (row.ids, row.branches) == ([5, 6, 7], False)
    assert batch_mask([row], "cpu") is None


def test_a_row_ends_where_little_is_shared_or_it_would_be_too_long() -> None:
    assert len(list(tree_rows([[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 20, 30, 40, 50, 60, 70, 80, 90]]))) == 2
    same = [[1] * 30 + [n] * 10 for n in range(2, 8)]
    assert [len(row.paths) for row in tree_rows(same, max_tokens=60)] == [3, 3]
