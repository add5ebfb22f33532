"""The line editor of a chat: Enter sends, Alt+Enter or a backslash goes on, a paste is one message."""

from typing import TYPE_CHECKING

from xmodel2.errors import XmodelError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyPressEvent

BLOCK = '"""'
"""Begins and ends a message of several lines."""


def new_session() -> "PromptSession[str]":
    """Return an editor that keeps what was typed for the arrow keys. Raises `XmodelError` if prompt_toolkit is missing."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings
    except ImportError:
        raise XmodelError("chat needs prompt_toolkit for its terminal; pip install 'xmodel2[serve]'") from None
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=InMemoryHistory(), key_bindings=keys, multiline=True, prompt_continuation="...> ", enable_suspend=True
    )


def ask_for_line(session: "PromptSession[str]") -> str:
    """Return what was typed, without white space around it. Raises `KeyboardInterrupt` and `EOFError` for Ctrl-C and -D."""
    return session.prompt("you> ", handle_sigint=False).strip()


def is_open_block(text: str) -> bool:
    '''Tell whether a text begins a block that is not ended.

    >>> is_open_block('"""one\\\\ntwo'), is_open_block('"""one"""'), is_open_block("one")
    (True, False, False)
    '''
    text = text.strip()
    return text.startswith(BLOCK) and not (text.endswith(BLOCK) and len(text) >= 2 * len(BLOCK))
