"""A chat without a terminal: a question a line, an answer each, for scripts."""

import json
import sys
from collections.abc import Iterable

from xmodel2.errors import XmodelError
from xmodel2.files import in_utf
from xmodel2.release.chatting.commands import is_command, run_command
from xmodel2.release.chatting.conversation import Answer, Conversation


def run_piped(chat: Conversation, lines: Iterable[bytes], as_json: bool = False) -> int:
    """Answer lines until they end; return 1 if one could not be answered, which standard error then tells.

    A question is a whole line; commands work as in the terminal, other lines with a slash are questions. Answers are
    plain text, or with ``as_json`` an object each.
    """
    failed = 0
    for line in lines:
        question = line.decode(errors="replace").strip()
        if not question:
            continue
        try:
            answer = _done(question, chat) if is_command(question) else chat.ask(question)
            if answer is not None:
                _print(chat, answer, as_json)
        except EOFError:
            break
        except XmodelError as error:
            print(f"xmodel2: {error}", file=sys.stderr)
            failed = 1
    return failed


def _done(command: str, chat: Conversation) -> Answer | None:
    try:
        return run_command(command, chat, lambda text: print(text, file=sys.stderr))
    except BrokenPipeError:
        raise
    except OSError as error:  # of the file that it names
        raise XmodelError(str(error)) from None


def _print(chat: Conversation, answer: Answer, as_json: bool) -> None:
    if not as_json:
        for text in answer:
            print(text, end="", flush=True)
        print(flush=True)
    else:
        text = "".join(answer)
        usage = chat.usage
        row = {
            "question": chat.turns[-1].question if chat.turns else "",
            "answer": text,
            "finish": usage.finish,
            "prompt_tokens": usage.prompt_tokens,
            "tokens": usage.tokens,
            "tokens_per_second": round(usage.tokens_per_second, 1) or None,  # too short to tell
            "seconds_to_first": round(usage.first_s, 3),
        }
        print(json.dumps(row, ensure_ascii=not in_utf(sys.stdout)), flush=True)
    for note in chat.usage.notes:
        print(note, file=sys.stderr)
