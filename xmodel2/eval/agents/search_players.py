"""What plays HotpotQA and FEVER without a model: the oracle, which knows the answer, a random player, and two simple rules.

The random player ends with words that it has seen. A label of FEVER is never among them: one drawn at random would be right for
a third of the claims, which says nothing about the environment.
"""

import random
import re
from collections.abc import Generator

from xmodel2.eval.agents.dialogue import Move
from xmodel2.eval.agents.made_tasks import Hop
from xmodel2.eval.agents.planned import Plan, Planned
from xmodel2.eval.agents.search_environment import SearchEnvironment, sentences

_CONCLUSIONS = {
    "SUPPORTS": "So the claim is true.",
    "REFUTES": "So the claim is false.",
    "NOT ENOUGH INFO": "I cannot tell whether the claim is true.",
}
_CAPITAL = r"[A-ZÀ-ÖØ-ÞĀŁŚŠŽ][\w'’.&-]*\w"
_NAME = re.compile(rf"{_CAPITAL}(?:,? (?:(?:of|the|for|de|von|van|la|le) ){{0,2}}(?:{_CAPITAL}|\d+))*")
_YEAR = re.compile(r"\b(?:1[0-9]|20)[0-9]{2}\b")
_NUMBER = re.compile(r"\b\d[\d,.]*\b")
_CHOICE = re.compile(r"([^,:?]+?),? or ([^,:?]+)\?")
_NO_NAME = (
    "A|Also|An|And|Are|As|At|Before|Between|Both|But|By|Did|Do|Does|During|Every|For|From|Has|Have|He|Her|His|How|In|Is|It|Its|Of|On|She"
    "|That|The|There|They|This|To|Was|Were|What|When|Where|Which|Who|Whom|Whose|With"
)
"""Words with a capital only where a sentence begins."""
_BEGINNING = re.compile(rf"(?:^|(?<=[.?!] ))(?:{_NO_NAME})\b")
_EMPTY_WORDS = frozenset(f"{_NO_NAME}|be|been|not|only|or".lower().split("|"))
_YES_OR_NO = re.compile(r"(?:Are|Were|Is|Was|Do|Does|Did|Has|Have)\b")
_ASKS_YEAR = re.compile(r"\b(?:year|when)\b")
_ASKS_NUMBER = re.compile(r"\bhow (?:many|much|long|old|tall|high)\b")
_NEGATIONS = frozenset(("not", "never", "no", "only", "isn't", "wasn't"))


def oracle(environment: SearchEnvironment, rng: random.Random) -> Planned:
    """Return who goes the known way to the answer and gives it."""
    task = environment.task

    def plan(observation: str) -> Plan:
        title, known = "", ""
        for hop in task.hops:
            if hop.title != title:
                title = hop.title
                thought = f"{known} Next I need to search {title}." if known else _first_thought(task.hops)
                observation = yield Move(thought, f"Search[{title}]")
            if keyword := hop.keyword or _missing_keyword(hop, observation, environment):
                thought = f'This does not say it. I need to look up "{keyword}".'
                observation = yield Move(thought, f"Lookup[{keyword}]")
            known = hop.fact
        conclusion = _CONCLUSIONS.get(task.target, f"So the answer is {task.target}.")
        yield Move(f"{known} {conclusion}".strip(), f"Finish[{task.target}]")

    return Planned(plan)


def _first_thought(hops: tuple[Hop, ...]) -> str:
    titles = list(dict.fromkeys(hop.title for hop in hops))
    if len(titles) == 1:
        return f"I need to search {titles[0]}, and see what it says."
    return f"I need to search {titles[0]} first, then go on from what it says."


def _missing_keyword(hop: Hop, observation: str, environment: SearchEnvironment) -> str | None:
    """Return what finds a sentence that a search did not show, None if it did, or if nothing finds it."""
    if not hop.sentence or hop.sentence.strip(" .") in observation:
        return None
    found = environment.articles.find(hop.title).article
    text = list(sentences(found.text)) if found else []
    asked = environment.task.text.lower()
    words = [word for word in re.findall(r"[\w'’-]{3,}", hop.sentence) if word.lower() not in _EMPTY_WORDS]
    for word in sorted(words, key=lambda word: word.lower() not in asked):
        first = next((sentence for sentence in text if word.lower() in sentence.lower()), "")
        if hop.sentence.strip(" .").startswith(first.strip(" .")) and first:
            return word
    return None


def random_searcher(environment: SearchEnvironment, rng: random.Random) -> Planned:
    """Return who searches, looks up and answers whatever it has seen, at random."""

    def plan(observation: str) -> Plan:
        seen = list[str]()
        while True:
            seen += re.findall(r"[\w'’-]+", observation.partition(": ")[2] or observation)
            verb = rng.choices(("Search", "Lookup", "Finish"), (5, 3, 2))[0]
            at = rng.randrange(len(seen) or 1)
            what = " ".join(seen[at : at + rng.randint(1, 3)])
            observation = yield Move("I try something.", f"{verb}[{what}]")

    return Planned(plan)


def question_rule(environment: SearchEnvironment, rng: random.Random) -> Planned:
    """Return who searches the longest name, then a name from the sentence that is most like the question, and takes one there."""

    def plan(observation: str) -> Plan:
        question = observation.partition(": ")[2]
        name = max(_names(question), key=len, default=question)
        text = yield from _search(name)
        wanted = sorted((word for word in _words(question) if word not in name.lower()), key=len, reverse=True)
        if choice := _CHOICE.search(question):
            answer = max(_names(choice[1]), key=len, default=choice[1].strip())
        elif _YES_OR_NO.match(question):
            answer = "yes"
        else:
            text += yield from _look_up(wanted[:1], text)
            answer = _fitting(question, _closest(wanted, text)) or _fitting(question, text)
            if between := _new_name(question, _closest(wanted, text)) or _new_name(question, text):
                left = [word for word in wanted if word not in text.lower()]
                more = yield from _search(between)
                more += yield from _look_up(left[:1], more)
                answer = _fitting(question, _closest(left, more)) or answer
        yield Move(f"The answer may be {answer}.", f"Finish[{answer}]")

    return Planned(plan)


def claim_rule(environment: SearchEnvironment, rng: random.Random) -> Planned:
    """Return who searches a claim's longest name, looks up what the article has not shown of its words, and counts those."""

    def plan(observation: str) -> Plan:
        claim = observation.partition(": ")[2]
        name = max(_names(claim), key=len, default=claim)
        text = yield from _search(name)
        wanted = [word for word in _words(claim) if word not in name.lower()]
        text += yield from _look_up([word for word in wanted if word not in text.lower()][:2], text)
        missing = [word for word in wanted if word not in text.lower()]
        negated = not _NEGATIONS.isdisjoint(claim.lower().split())
        label = "REFUTES" if bool(missing) != negated else "SUPPORTS"
        if len(missing) > len(wanted) / 2:
            label = "NOT ENOUGH INFO"
        yield Move(f"{len(missing)} of {len(wanted)} words are missing.", f"Finish[{label}]")

    return Planned(plan)


def _search(name: str) -> Generator[Move, str, str]:
    """Return what a search shows, of the first similar title if there is no such article."""
    observation = yield Move(f"I need to search {name}.", f"Search[{name}]")
    if observation.startswith("Could not find") and (
        similar := re.search(r"Similar: \[['\"](.*?)['\"][],]", observation)
    ):
        observation = yield Move(f"{similar[1]} is similar.", f"Search[{similar[1]}]")
    return "" if observation.startswith("Could not find") else observation


def _look_up(words: list[str], text: str) -> Generator[Move, str, str]:
    """Return the sentences found for words that a text does not have."""
    found = ""
    for word in words:
        if word not in (text + found).lower():
            observation = yield Move(f'I need to look up "{word}".', f"Lookup[{word}]")
            found += " " + observation.partition(") ")[2]
    return found


def _names(text: str) -> list[str]:
    return _NAME.findall(_BEGINNING.sub(" ", text))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[\w'’-]{2,}", text.lower()) if word not in _EMPTY_WORDS]


def _closest(words: list[str], text: str) -> str:
    """Return the sentence with most letters of the words."""
    return max(
        sentences(text), key=lambda sentence: sum(len(word) for word in words if word in sentence.lower()), default=""
    )


def _fitting(question: str, text: str) -> str:
    """Return a year, a number or a name that is not in the question, "" if there is none."""
    asked = question.lower()
    if _ASKS_YEAR.search(asked):
        return next((year for year in _YEAR.findall(text) if year not in asked), "")
    if _ASKS_NUMBER.search(asked):
        return next((number for number in _NUMBER.findall(text) if number not in asked), "")
    return _new_name(question, text)


def _new_name(question: str, text: str) -> str:
    """Return the last name that has a word which the question does not have."""
    asked = question.lower()
    new = [name for name in _names(text) if any(word not in asked for word in _words(name))]
    return new[-1] if new else ""
