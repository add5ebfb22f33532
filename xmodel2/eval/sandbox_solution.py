"""The process that runs a solution, which is hostile: it answers what the tests' process asks, with plain data.

Nothing here is trusted once the solution has run; all it can do is to answer, and an answer is a value, never a verdict.
"""

import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from xmodel2.eval.sandbox_values import MUTABLE, decode, encode, read_frame, write_frame

_VERBS: dict[str, Callable[..., Any]] = {
    "get": getattr,
    "set": setattr,
    "iter": iter,
    "next": next,
    "len": len,
    "item": operator.getitem,
    "contains": operator.contains,
    "bool": bool,
    "str": str,
}


def serve(reader: int, writer: int) -> None:
    """Answer requests, each a list of a verb and its operands, until the other side closes."""
    objects: dict[int, Any] = {}  # by identity; kept alive, so that this stays unique
    space: dict[str, Any] = {}  # without a __name__, as the reference scorer runs programs

    def refer(value: Any) -> list[Any]:
        objects[id(value)] = value
        return ["ref", id(value)]

    def call(sent: list[Any]) -> list[Any]:
        """Return the answer, and the number and new value of each argument that was changed in place."""
        function, arguments, named = (decode(operand, find) for operand in sent)
        answer = encode(function(*arguments, **named), refer)
        changes = []
        before = [*sent[1][1:], *sent[2][2::2]]  # behind "tuple", and every second one behind "dict"
        for number, value in enumerate((*arguments, *named.values())):
            with suppress(Exception):  # what can't be sent any more stays as it was
                if isinstance(value, MUTABLE) and (after := encode(value, refer)) != before[number]:
                    changes.append([number, after])
        return [answer, changes]

    def find(parts: list[Any]) -> Any:
        return objects[parts[0]]

    while True:
        verb, *operands = read_frame(reader)
        answer: Any
        try:
            if verb == "run":
                exec(compile(operands[0], "<solution>", "exec"), space)
                answer = None
            elif verb == "names":
                answer = {name: encode(space[name], refer) for name in operands if name in space}
            elif verb == "call":
                answer = call(operands)
            else:
                answer = encode(_VERBS[verb](*(decode(operand, find) for operand in operands)), refer)
        except BaseException as error:
            write_frame(writer, ["raised", [kind.__name__ for kind in type(error).__mro__], _told(error)])
        else:
            write_frame(writer, ["answer", answer])


def _told(error: BaseException) -> Any:
    """Return the arguments of an exception, or its text where they can't be sent."""
    try:
        return encode(error.args, lambda value: str(value)[:200])
    except Exception:
        return ["tuple", str(error)[:200]]
