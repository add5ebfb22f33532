"""Arguments as people write them, before the command line is parsed and after; their types that several commands share."""

from collections.abc import Container, Iterable, Sequence
from typing import Annotated, TypeVar

import tyro

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.model_options import ModelOptions

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value, and without a --no- form."""
Overrides = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction]
"""``--set KEY=VALUE``, any number of times."""
Model = Annotated[ModelOptions, tyro.conf.arg(name="model"), tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff]
"""Options of every command that evaluates a model."""
Agents = Annotated[AgentOptions, tyro.conf.arg(name="agents"), tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff]
"""Worlds of the agent benchmarks."""

_GROUPS = ("tokenizer", "data")
"""First words that are no command of their own."""


def normalise(arguments: list[str], commands: Container[str] = ()) -> list[str]:
    """Join two-word commands, and let one --set take several key=value."""
    if " ".join(arguments[:2]) in commands:
        arguments = [" ".join(arguments[:2]), *arguments[2:]]
    if len(arguments) > 1 and arguments[0] in _GROUPS and not arguments[1].startswith("-"):
        arguments = [f"{arguments[0]} {arguments[1]}", *arguments[2:]]
    result: list[str] = []
    in_set = False
    for argument in arguments:
        if in_set and not argument.startswith("-") and "=" in argument and result[-1] != "--set":
            result.append("--set")
        in_set = argument == "--set" or (in_set and not argument.startswith("-") and "=" in argument)
        result.append(argument)
    return result


def command_fault(arguments: Sequence[str], commands: Iterable[str]) -> str:
    """Return what is wrong with the first word of normalised arguments; nothing if it is a command, an option, or not there.

    >>> command_fault(["trian", "nano.toml"], ["train", "data inspect"])
    "no command 'trian'. Did you mean 'train'? `xmodel2 --help` lists them"
    >>> command_fault(["data"], ["train", "data inspect", "data verify"])
    'data is no command by itself: data inspect, data verify (each explained by --help)'
    """
    word, commands = (arguments or ["-"])[0], list(commands)
    if word.startswith("-") or word in commands:
        return ""
    if found := [name for name in commands if name.startswith(f"{word} ")]:
        return f"{word} is no command by itself: {', '.join(found)} (each explained by --help)"
    return f"no command {word!r}.{nearest(word, commands)} `xmodel2 --help` lists them"


def key_values(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """Return ``key=value`` arguments as a dictionary. Raises `XmodelError` for one without an equals sign."""
    for pair in pairs:
        if "=" not in pair:
            raise XmodelError(f"--{option} {pair!r}: write it as key=value")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


Number = TypeVar("Number", int, float)


def numbers(option: str, text: str, kind: type[Number], signed: bool = False) -> list[Number]:
    """Return the numbers of a comma-separated option, all above 0 unless ``signed``. Raises `XmodelError` for anything else."""
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        how = "write whole numbers with commas between, such as 64,128,256"
        raise XmodelError(
            f"--{option} {text!r}: {how if kind is int else 'give numbers with commas between them'}"
        ) from None
    if not signed and any(number <= 0 for number in found):
        raise XmodelError(f"--{option} {text!r}: numbers must be above 0")
    return found
