"""Each rule removes what it is there to remove, says why, and leaves good text alone."""

from typing import Any

import pytest

from xmodel2.data.clean import Cleaner, identify_language
from xmodel2.recipe.preparation import (
    C4Rule,
    CleanSettings,
    FineWebRule,
    GopherQualityRule,
    GopherRepetitionRule,
    LanguageRule,
    PiiRule,
    UrlRule,
)

SENTENCES = [
    "The river rises in the hills to the north of the town, and flows through three counties before it reaches the sea.",
    "In summer the water is low enough to be crossed on foot at several places that have been used since Roman times.",
    "A bridge of seven arches was built by the monks, and it still carries the road that leads to the old market square.",
    "Most of the people who live in the valley have worked in the mills, of which only two are left to be seen today.",
    "Every year in May there is a fair with music and dancing, to which visitors come from all over the county.",
    "The church, with its low tower and a window that was given by a merchant, stands on a hill above the bridge.",
    "Travellers in the eighteenth century wrote of the fine trees and of the bad state of the roads with equal force.",
]
PROSE = "\n\n".join(SENTENCES)
CHINESE = "这条河发源于城北的山里，流经三个县，最后流入大海。夏天水位很低，人们可以在几个地方步行过河。"
WEB = CleanSettings(
    language=LanguageRule(allow=["en"]),
    gopher_repetition=GopherRepetitionRule(),
    gopher_quality=GopherQualityRule(),
    c4=C4Rule(),
    fineweb=FineWebRule(),
)


def removed_by(settings: CleanSettings, text: str, language: str = "en") -> dict[str, str]:
    cleaner = Cleaner(settings, language)
    kept = list(cleaner.clean([{"text": text}]))
    rules = {
        rule: next(reason for reason in counts if reason != "bytes")
        for rule, counts in cleaner.removed.items()
        if counts
    }
    assert bool(kept) != bool(rules)
    return rules


def test_good_prose_passes_every_rule_unchanged() -> None:
    cleaner = Cleaner(WEB, "en")
    [document] = cleaner.clean([{"text": PROSE}])
    assert document["text"].split() == PROSE.split()


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        (CHINESE * 5, "language", "zh"),
        (
            "Der Fluss entspringt in den Bergen und fließt durch drei Kreise, bevor er das Meer erreicht. " * 3,
            "language",
            "de",
        ),
        ((SENTENCES[0] + "\n") * 12, "gopher_repetition", "dup_line_frac"),
        (" ".join(SENTENCES[1:3]), "gopher_quality", "gopher_short_doc"),
        (PROSE + "\n# # # # # # # # # # # # # # # # # # # # # #", "gopher_quality", "gopher_too_many_hashes"),
        (PROSE + " lorem ipsum dolor.", "c4", "lorem_ipsum"),
        (PROSE + " and { code }.", "c4", "curly_bracket"),
    ],
)
def test_what_a_rule_is_there_for(text: str, rule: str, reason: str) -> None:
    assert removed_by(WEB, text) == {rule: reason}


def test_fineweb_removes_lists() -> None:
    text = "\n".join(f"item number {n} of the list of the things" for n in range(60))
    assert removed_by(CleanSettings(fineweb=FineWebRule()), text) == {"fineweb": "line_punct_ratio"}


def test_thresholds_are_the_settings() -> None:
    assert removed_by(CleanSettings(gopher_quality=GopherQualityRule(min_doc_words=5)), SENTENCES[0]) == {}
    assert removed_by(CleanSettings(gopher_quality=GopherQualityRule(min_doc_words=500)), PROSE) != {}


def test_chinese_is_told_and_measured_in_its_own_words() -> None:
    assert identify_language(CHINESE)[0] == "zh"
    rule = GopherQualityRule(
        min_doc_words=10, min_avg_word_length=1, stop_words=["的", "在", "了", "这"], min_stop_words=2
    )
    assert removed_by(CleanSettings(language=LanguageRule(), gopher_quality=rule), CHINESE, "zh") == {}
    assert removed_by(CleanSettings(gopher_quality=rule), "河。" * 3, "zh") == {"gopher_quality": "gopher_short_doc"}


def test_addresses_are_replaced_in_texts_and_chats() -> None:
    cleaner = Cleaner(CleanSettings(pii=PiiRule(), urls=UrlRule(replacement="<url>")), "en")
    text = "Write to jane.doe@acme.com or 8.8.8.8, see https://acme.com/x?y=1 (www.acme.com), not 192.168.0.1."
    chat = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]}
    first, second = cleaner.clean([{"text": text}, chat])
    for result in (first["text"], second["messages"][0]["content"]):
        assert "jane.doe" not in result
        assert "8.8.8.8" not in result
        assert "see <url> (<url>), not 192.168.0.1" in result
    assert second["messages"][1]["content"] == "ok"
    assert cleaner.changed["pii"]["documents"] == 2


def test_what_ends_a_sentence_is_no_part_of_an_address() -> None:
    cleaner = Cleaner(CleanSettings(urls=UrlRule(replacement="<url>")), "en")
    text = "Visit https://a.com/b.c?d=1. Then see (www.x.org), and www.y.org/z/! 见https://b.cn/x，或www.c.cn；https://... www."
    [found] = cleaner.clean([{"text": text}])
    assert found["text"] == "Visit <url>. Then see (<url>), and <url>! 见<url>，或<url>；https://... www."


def test_a_document_counts_once_and_a_known_answer_changes_as_its_message() -> None:
    cleaner = Cleaner(CleanSettings(pii=PiiRule(), urls=UrlRule(replacement="<url>")), "en")
    turns = ["see https://a.com", "bob@acme.com says https://b.com", "https://c.com", "it is at www.d.com"]
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    (found,) = cleaner.clean([{"messages": messages, "answer": "bob@acme.com says www.d.com"}])
    assert found["answer"] == "email@example.com says <url>"
    assert [cleaner.changed[rule]["documents"] for rule in ("pii", "urls")] == [1, 1]
    assert cleaner.changed["urls"]["bytes"] == sum(len(turn.encode()) for turn in turns) + 5 - sum(
        len(message["content"].encode()) for message in found["messages"]
    )


def test_an_answer_of_which_nothing_is_left_goes_and_one_of_which_some_is_has_no_space_about_it() -> None:
    cleaner = Cleaner(CleanSettings(urls=UrlRule()), "en")

    def question(answer: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": f"There. #### {answer}"}]
        return {"messages": turns, "answer": answer}

    (found,) = cleaner.clean([question("see https://d.com"), question("https://d.com/x")])
    assert found["answer"] == "see"
    assert cleaner.removed["urls"]["nothing left"] == 1


def test_a_chat_with_a_turn_of_which_nothing_is_left_goes() -> None:
    cleaner = Cleaner(CleanSettings(urls=UrlRule()), "en")
    chat = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "https://acme.com/x"}]
    empty = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hm?"},
        {"role": "assistant", "content": "Hm."},
    ]
    assert list(cleaner.clean([{"messages": chat}, {"messages": empty}])) == [{"messages": empty}]
    assert cleaner.removed["urls"]["nothing left"] == 1
    assert cleaner.changed["urls"]["documents"] == 0


def test_nothing_left_is_nothing_kept() -> None:
    cleaner = Cleaner(CleanSettings(urls=UrlRule()), "en")
    assert list(cleaner.clean([{"text": "https://acme.com/x"}, {"text": "see https://acme.com/x"}])) == [
        {"text": "see "}
    ]
    assert cleaner.removed["urls"] == {"nothing left": 1, "bytes": 18}


def test_samples_and_bytes_of_what_was_removed() -> None:
    cleaner = Cleaner(CleanSettings(gopher_quality=GopherQualityRule()), "en")
    assert list(cleaner.clean([{"text": f"short {n}"} for n in range(10)])) == []
    assert cleaner.removed["gopher_quality"] == {"gopher_short_doc": 10, "bytes": 70}
    assert cleaner.samples["gopher_quality"][0] == {"reason": "gopher_short_doc", "text": "short 0"}
    assert len(cleaner.samples["gopher_quality"]) == 3
