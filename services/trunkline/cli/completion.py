"""`trunkline completion`: what a shell may offer, found without a gateway, so that a key press takes no time."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from trunkline import settings
from trunkline.cli.output import show

BASH = r"""_trunkline() {
  local line=${COMP_LINE:0:COMP_POINT} IFS=$'\n' word
  COMPREPLY=($(trunkline completion words "$line" 2>/dev/null))
  # Bash takes a colon for the end of a word, so what stands before it is not to be said again.
  word=${line##* }
  [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%:*}:"}")
}
complete -o default -F _trunkline trunkline"""

ZSH = r"""_trunkline() {
  local -a found
  found=("${(@f)$(trunkline completion words "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
  [[ -n $found ]] && compadd -a found || _files
}
compdef _trunkline trunkline"""

FISH = r"""complete -c trunkline -f -a '(trunkline completion words (commandline -cp) 2>/dev/null)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(args: argparse.Namespace) -> int:
    """Print a shell's script, or the words that may follow a line that was begun."""
    if args.shell in SCRIPTS:
        show(SCRIPTS[args.shell])
        return 0
    from trunkline.cli.parser import build_parser

    for word in completions(build_parser(), (args.line or "").split(" ")):
        show(word)
    return 0


def completions(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """What the last of these words may be, the first being the program: verbs, flags, and values of some flags."""
    *before, last = words
    previous = ""
    for word in filter(None, before[1:]):
        parser, previous = _verbs(parser).get(word, parser), word
    offered = _offered(parser, previous, last)
    return sorted(word for word in offered if word.startswith(last))


def _offered(parser: argparse.ArgumentParser, flag: str, last: str) -> Iterable[str]:
    taking = next((action for action in _actions(parser) if flag in action.option_strings and action.nargs != 0), None)
    if taking is not None:
        return _values(taking, last)
    if last.startswith("-"):
        return [option for action in _actions(parser) for option in action.option_strings if option.startswith("--")]
    return _verbs(parser)


def _values(taking: argparse.Action, last: str) -> Iterable[str]:
    """The values that a flag may have, where it isn't free."""
    if "--from-catalogue" in taking.option_strings:
        from trunkline.known import known_models

        return known_models(settings.load({}))().completions(last)
    return map(str, taking.choices or ())


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse shows what it was told nowhere else


def _verbs(parser: argparse.ArgumentParser) -> dict[str, Any]:
    groups = [action for action in _actions(parser) if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    return {name: verb for group in groups for name, verb in group.choices.items()}
