"""Near-duplicates: estimates, tables that miss nothing they promise, and who stays."""

import random

import numpy as np
import pytest

from xmodel2.data.deduplicate import copies, hamming_check, jaccard_check, minhash_keys, pairs, simhash_tables
from xmodel2.data.ngrams import shingles
from xmodel2.data.signatures import UNSIGNED, content_digest, hamming, hash_functions, minhash, simhash


def words(count: int, seed: int) -> list[str]:
    choose = random.Random(seed)
    return [str(choose.randrange(10_000)) for _ in range(count)]


def test_minhash_estimates_jaccard() -> None:
    functions = hash_functions(256)
    text = words(2000, 1)
    a = np.unique(shingles(" ".join(text), 1))
    for cut in (200, 600, 1500):
        b = np.unique(shingles(" ".join(text[cut:] + words(cut, cut)), 1))
        exact = len(np.intersect1d(a, b)) / len(np.union1d(a, b))
        estimate = float((minhash(a, functions) == minhash(b, functions)).mean())
        assert estimate == pytest.approx(exact, abs=0.1)
    assert (minhash(a, functions) == minhash(shingles(" ".join(text), 1), functions)).all()


def test_simhash_is_near_for_near_texts_and_far_for_others() -> None:
    text = words(1000, 2)
    near = [*text[:500], "changed", *text[501:]]
    same, close, other = (simhash(shingles(" ".join(t), 1)) for t in (text, near, words(1000, 3)))
    distance = hamming(np.array([close, other], dtype=np.uint64), np.array([same, same], dtype=np.uint64))
    assert distance[0] <= 3
    assert distance[1] > 15


@pytest.mark.parametrize("bits", [0, 1, 3, 5])
def test_some_simhash_table_holds_every_pair_within_the_distance(bits: int) -> None:
    choose = random.Random(bits)
    for _ in range(200):
        a = choose.getrandbits(64)
        b = a
        for bit in choose.sample(range(64), bits):
            b ^= 1 << bit
        assert any(np.uint64(a) & mask == np.uint64(b) & mask for mask in simhash_tables(bits))


def test_pairs_compare_everything_in_a_bucket_until_it_is_settled() -> None:
    values = np.array([0, 100, 1, 101, 2, 500], dtype=np.int64)
    found = pairs(np.zeros(6, dtype=np.uint64), lambda a, b: abs(values[a] - values[b]) <= 2)
    assert sorted(map(tuple, found.tolist())) == [(0, 2), (0, 4), (1, 3)]
    assert pairs(np.arange(5, dtype=np.uint64)).shape == (0, 2)


def test_the_first_of_a_connected_group_stays() -> None:
    assert copies(6, np.array([[1, 3], [3, 5], [0, 4]])).tolist() == [0, 1, 2, 1, 0, 1]
    assert copies(3, np.empty((0, 2), dtype=np.int64)).tolist() == [0, 1, 2]
    assert copies(0, np.empty((0, 2), dtype=np.int64)).tolist() == []


def test_minhash_tables_find_an_edited_copy_and_nothing_else() -> None:
    functions = hash_functions(28 * 4)
    texts = [words(300, seed) for seed in range(40)]
    texts.append([*texts[7][:150], "edited", *texts[7][151:]])
    signatures = np.array([minhash(shingles(" ".join(t), 5), functions) for t in texts])
    check = jaccard_check(signatures, 0.7)
    found = {tuple(pair) for band in range(28) for pair in pairs(minhash_keys(signatures, band, 4), check).tolist()}
    assert found == {(7, 40)}


def test_texts_without_a_word_have_no_signature() -> None:
    assert (minhash(shingles("→ ← !!", 5), hash_functions(8)) == UNSIGNED).all()
    assert simhash(shingles("🙂🙃", 2)) == 0


def test_hamming_check_counts_bits() -> None:
    check = hamming_check(np.array([0b1111, 0b1000, 0], dtype=np.uint64), 3)
    assert check(np.array([0, 0]), np.array([1, 2])).tolist() == [True, False]


def test_digests_tell_text_roles_and_contents_apart() -> None:
    def chat(*turns: tuple[str, str]) -> dict[str, object]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    one = chat(("user", "a"), ("assistant", "b"))
    others = [{"text": "a\nb"}, chat(("user", "a\nb")), chat(("assistant", "a"), ("user", "b")), {"text": "a\nb "}]
    digests = {content_digest(document) for document in [one, *others]}
    assert len(digests) == 5
    assert content_digest({**one, "answer": "b"}) == content_digest(one)
