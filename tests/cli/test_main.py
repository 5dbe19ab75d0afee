"""The `mesh` command as such: help, version, and how it fails."""

from __future__ import annotations

import inspect
import logging
from importlib import import_module

import pytest
import structlog

from jarvis_mesh.cli import main as cli
from jarvis_mesh.cli.failures import fail, mesh_error_in, without_secrets
from jarvis_mesh.cli.logs import set_up_logs
from jarvis_mesh.schema.errors import SetupError, UnavailableError
from tests.support.up import run_mesh

URL = "nats://admin:hush@127.0.0.1:4222"
JWT = (
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTkwMDAwMDAwMH0"
    ".c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4"
)


async def test_help_lists_every_command_and_imports_none() -> None:
    code, stdout, stderr = await run_mesh("--help", PYTHONPROFILEIMPORTTIME="1")
    assert code == 0
    for name, command in cli.COMMANDS.items():
        assert name in stdout
        assert command.help in stdout
    imported = {line.rpartition("|")[2].strip() for line in stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"nats", "pydantic_settings", "psutil", "structlog", "websockets"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_is_listed_by_the_first_line_of_its_docstring(name: str) -> None:
    function = getattr(import_module(f"jarvis_mesh.cli.{name}"), name)
    assert inspect.getdoc(function).splitlines()[0] == cli.COMMANDS[name].help


@pytest.mark.parametrize("name", cli.COMMANDS)
async def test_every_command_explains_itself(name: str) -> None:
    code, stdout, _ = await run_mesh(name, "--help")
    assert code == 0
    assert f"mesh {name}" in stdout


async def test_version_and_typing_errors() -> None:
    code, stdout, _ = await run_mesh("--version")
    assert (code, stdout.split()[0]) == (0, "mesh")
    code, _, stderr = await run_mesh("gatway")
    assert code == 2
    assert "Did you mean 'gateway'?" in stderr


def test_an_error_of_ours_is_one_line_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        fail(BaseExceptionGroup("", [SetupError(f"{URL}\nis gone")]))
    assert caught.value.code == 1
    assert capsys.readouterr().err == "mesh: nats://admin:…@127.0.0.1:4222 is gone\n"


def test_a_bug_is_one_line_too_unless_it_is_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESH_DEBUG", raising=False)
    with pytest.raises(SystemExit):
        fail(ZeroDivisionError("1 / 0"))
    assert capsys.readouterr().err == (
        "mesh: a bug: ZeroDivisionError: 1 / 0; MESH_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("MESH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())


def test_the_first_of_our_errors_is_found_unless_there_is_a_bug_among_them() -> None:
    first = SetupError("first")
    ours = BaseExceptionGroup("", [BaseExceptionGroup("", [first]), UnavailableError("second")])
    assert mesh_error_in(ours) is first
    assert mesh_error_in(BaseExceptionGroup("", [first, KeyError()])) is None


def test_passwords_are_cut_out_of_any_text() -> None:
    text = f"a {URL},nats://b:hush@c and http://x/y:z@w"
    assert without_secrets(text) == (
        "a nats://admin:…@127.0.0.1:4222,nats://b:…@c and http://x/y:z@w"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"GET /v1/events?access_token={JWT}&channel=all",
            "GET /v1/events?access_token=…&channel=all",
        ),
        ("?channel=all&access_token=opaque", "?channel=all&access_token=…"),
        ('{"access_token": "opaque"}', '{"access_token": "…"}'),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer …"),
        ("authorization: bearer opaque-1.2", "authorization: bearer …"),
        (f"token='{JWT}'", "token='…'"),
        (f"a {JWT[:60]} b", "a … b"),
        ("eyJust a word, the bearer of news", "eyJust a word, the bearer of news"),
    ],
)
def test_tokens_are_cut_out_of_any_text(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_what_others_say_cant_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(UnavailableError("the gateway says \x1b]0;hello\x07\u202e"))
    assert capsys.readouterr().err == "mesh: the gateway says \\x1b]0;hello\\x07\\u202e\n"


def test_the_example_of_a_url_stays_as_it_is() -> None:
    example = "write nats://user:password@host:4222 (or"
    assert without_secrets(example) == example
    assert without_secrets("nats://user:password@hosts") == "nats://user:…@hosts"


def test_logs_are_lines_on_stderr_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logs()
        structlog.get_logger("jarvis_mesh.tests").info("connected", url=URL)
        logging.getLogger("nats").warning("lost %s", URL)
        logging.getLogger("nats").info("not said")
        structlog.get_logger("jarvis_mesh.tests").error("failed", exc_info=ValueError(URL))
        structlog.get_logger("jarvis_mesh.tests").error("failed", exc_info=ValueError(JWT))
        structlog.get_logger("jarvis_mesh.tests").info("asked", url=f"/?access_token={JWT}")
        logging.getLogger("any").warning("Authorization: Bearer %s", JWT)
        logging.getLogger("any").warning("\x1b[2J%s", "one\n12:00:00 [info] forged")
    finally:
        structlog.reset_defaults()
        root.handlers[:], root.level = before
    out, err = capsys.readouterr()
    assert out == ""
    assert "hush" not in err
    assert JWT.split(".")[2] not in err
    assert "\x1b" not in err
    assert not any(line.startswith("12:00:00") for line in err.splitlines())
    assert "nats://admin:…@127.0.0.1:4222" in err
    assert "ValueError" in err
    assert "not said" not in err
