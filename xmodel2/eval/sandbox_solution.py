"""The process that runs a solution, which is hostile: it answers what the tests' process asks, with plain data.

Nothing here is trusted once the solution has run; all it can do is to answer, and an answer is a value, never a verdict.
"""

import operator
from collections.abc import Callable
from typing import Any

from xmodel2.eval.sandbox_values import decode, encode, read_frame, write_frame

_VERBS: dict[str, Callable[..., Any]] = {
    "call": lambda function, arguments, named: function(*arguments, **named),
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

    while True:
        verb, *operands = read_frame(reader)
        try:
            if verb == "run":
                exec(compile(operands[0], "<solution>", "exec"), space)
                answer = None
            elif verb == "names":
                answer = {name: encode(space[name], refer) for name in operands if name in space}
            else:
                values = [decode(operand, lambda parts: objects[parts[0]]) for operand in operands]
                answer = encode(_VERBS[verb](*values), refer)
        except BaseException as error:
            write_frame(writer, ["raised", [kind.__name__ for kind in type(error).__mro__], str(error)[:200]])
        else:
            write_frame(writer, ["answer", answer])
