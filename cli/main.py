"""The `mesh` command: its parts, and how it fails.

A command's module is imported when that command is used: `mesh --help` takes 0.2 s, and would
take 1 s with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from jarvis_mesh.cli.failures import fail


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is: the function of its name, in the module of its name."""

    help: str
    """The first line of its docstring, for the list of commands; a test compares them."""
    context: dict[str, Any] = field(default_factory=dict)
    """How its arguments are read (click's context settings)."""


COMMANDS: Final = {
    "up": _Command("Start NATS, a gateway and the system monitor on this machine."),
    "sub": _Command("Watch events live."),
    "pub": _Command("Publish one event."),
    # What follows the command's name is its own: `mesh run ls -l` needs no `--`.
    "run": _Command("Run a command and publish it.", {"allow_interspersed_args": False}),
    "monitor": _Command("Publish this machine's metrics."),
    "gateway": _Command("Start a gateway alone, for a NATS that runs already."),
    "token": _Command("Make a token for development."),
    "revoke": _Command("Take tokens back before their time."),
    "doctor": _Command("Check an installation by trying what must fail."),
}


class _LazyGroup(TyperGroup):
    """Knows its commands by name and help, and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, (_load(name) if name else found), rest


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    # Its tracebacks show local variables, and among those are URLs with passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A real-time event mesh: publish what agents, terminals and machines do, watch it live.",
    epilog="`mesh up` starts everything on this machine; `mesh sub all` shows what happens.",
)


def main() -> None:
    """Run the command that the arguments name; the console script `mesh`."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - here the program ends
        fail(error)


def _show_version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # 20 ms that nothing else needs

        typer.echo(f"mesh {version('jarvis-mesh')}")
        raise typer.Exit


@app.callback()
def _mesh(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version.",
            is_eager=True,
            callback=lambda wanted: _show_version(wanted=wanted),
        ),
    ] = False,
) -> None:
    pass


def _listed_only() -> None:
    """Stand in for a command that isn't imported yet."""


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help)(_listed_only)


def _load(name: str) -> Any:
    function: Callable[..., None] = getattr(import_module(f"jarvis_mesh.cli.{name}"), name)
    alone = typer.Typer(add_completion=False)
    alone.command(name, context_settings=COMMANDS[name].context)(function)
    return get_command(alone)


if __name__ == "__main__":
    main()
