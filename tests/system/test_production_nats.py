"""NATS in production: who has certificate and nkey is served, and nobody else gets in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import bcrypt
import pytest
import trustme

from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_conf import USERS
from jarvis_mesh.config.nats_production import write_production
from jarvis_mesh.gateway.log_setup import set_up_log
from jarvis_mesh.publishers import AgentPublisher, EventPublisher, NatsCredentials
from jarvis_mesh.schema.errors import ForbiddenError, UnauthorizedError, UnavailableError
from jarvis_mesh.schema.nats_client import SecureClient
from jarvis_mesh.schema.nats_credentials import new_nkey_seed
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES
from tests.support.gateway_process import GatewayProcess
from tests.support.plain_client import connect
from tests.support.production import ProductionNats, production_nats
from tests.support.up import run_mesh
from tests.support.waiting import wait_until

AGENT = "agent-service"


@pytest.fixture
async def production(tmp_path: Path) -> AsyncIterator[ProductionNats]:
    """A running server, without a log."""
    async with production_nats(tmp_path / "nats") as running:
        yield running


async def make_log(production: ProductionNats) -> None:
    await set_up_log(production.url, LogSettings(), production.credentials("admin"))


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_gateway_serves_what_publishers_publish(
    production: ProductionNats, tmp_path: Path, workers: str
) -> None:
    settings = production.settings("gateway") | production.admin_settings()
    gateway = GatewayProcess(settings | {"WORKERS": workers}, tmp_path / "gateway.log")
    try:
        await gateway.start()
        async with connect(gateway.url) as client:
            # The worker that answered /readyz need not be the one that we came to.
            while (await client.ask("subscribe", sub="a", channels=["all"]))["op"] == "error":
                await wait_until(lambda: True)
            credentials = production.credentials(AGENT)
            async with AgentPublisher.connect(production.url, credentials=credentials) as agents:
                published = await agents.created("a1")
            assert (await client.expect("event"))["seq"] == published.seq
            variables = {f"MESH_{key}": text for key, text in production.settings(AGENT).items()}
            code, stdout, stderr = await run_mesh(
                *("pub", "agent:created", '{"agentId": "a2"}', "--source", AGENT), **variables
            )
            assert (code, stderr) == (0, "")
            assert str((await client.expect("event"))["seq"]) == stdout.split()[1]
    finally:
        await gateway.kill()
    assert "Traceback" not in (tmp_path / "gateway.log").read_text()


async def test_who_speaks_as_another_is_refused(production: ProductionNats) -> None:
    await make_log(production)
    credentials = production.credentials(AGENT)
    url = production.url.replace("//", f"//{AGENT}@")
    async with (
        EventPublisher("terminal-service", url, credentials=credentials) as publisher,
        asyncio.timeout(1),
    ):
        with pytest.raises(ForbiddenError, match=f"'{AGENT}' .* source 'terminal-service'"):
            await publisher.publish("agent:created", {"agentId": "a1"})
    with pytest.raises(ForbiddenError, match=r"_INBOX\.terminal-service"):
        async with EventPublisher("terminal-service", production.url, credentials=credentials):
            pass


def wrong_credentials(production: ProductionNats, wrong: str) -> NatsCredentials:
    """Return credentials of which one thing is wrong."""
    seed = production.seed_file(AGENT).read_text().strip()
    certificate, stranger = production.certificate, trustme.CA()
    match wrong:
        case "authority":
            other = production.folder / "tls" / "other-ca.pem"
            stranger.cert_pem.write_to_path(other)
            return NatsCredentials(other, *certificate, nkey_seed=seed)
        case "no authority":
            return NatsCredentials(None, *certificate, nkey_seed=seed)
        case "no certificate":
            return NatsCredentials(production.ca_file, nkey_seed=seed)
        case "certificate":
            foreign = production.issue("foreign", stranger)
            return NatsCredentials(production.ca_file, *foreign, nkey_seed=seed)
        case "nkey":
            return NatsCredentials(production.ca_file, *certificate, nkey_seed=new_nkey_seed())
        case _:
            return NatsCredentials(production.ca_file, *certificate)


WRONG = [
    ("authority", "NATS's certificate can't be trusted"),
    ("no authority", "NATS's certificate can't be trusted"),
    ("no certificate", "NATS refuses the client certificate, or there is none"),
    ("certificate", "NATS refuses the client certificate, or there is none"),
    ("nkey", "check its password or nkey"),
    ("no nkey", "check its password or nkey"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
async def test_what_is_wrong_is_said_to_a_publisher(
    production: ProductionNats, wrong: str, said: str
) -> None:
    credentials = wrong_credentials(production, wrong)
    with pytest.raises(UnauthorizedError, match=said):
        async with EventPublisher(AGENT, production.url, credentials=credentials):
            pass


@pytest.mark.parametrize(("wrong", "said"), WRONG)
async def test_what_is_wrong_is_said_to_a_gateway(
    production: ProductionNats, wrong: str, said: str
) -> None:
    credentials = wrong_credentials(production, wrong)
    with pytest.raises(UnavailableError, match=said):
        await set_up_log(production.url, LogSettings(), credentials)


async def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    async with production_nats(tmp_path / "nats", "elsewhere.example") as production:
        credentials = production.credentials(AGENT)
        with pytest.raises(UnauthorizedError, match=r"can't be trusted .* the host's name"):
            async with EventPublisher(AGENT, production.url, credentials=credentials):
                pass


async def test_a_user_can_have_a_bcrypt_password_instead(tmp_path: Path) -> None:
    production = ProductionNats(tmp_path / "nats")
    logins = json.loads((production.folder / "logins.json").read_text())
    logins[AGENT] = bcrypt.hashpw(b"hush-1", bcrypt.gensalt(4)).decode()
    (production.folder / "logins.json").write_text(json.dumps(logins))
    assert write_production(production.folder, BUILT_IN_FAMILIES) == []
    await production.server.start()
    try:
        await make_log(production)
        credentials = NatsCredentials(production.ca_file, *production.certificate)
        url = production.url.replace("//", f"//{AGENT}:hush-1@")
        async with EventPublisher(AGENT, url, credentials=credentials) as publisher:
            await publisher.publish("agent:created", {"agentId": "a1"})
        with pytest.raises(UnauthorizedError):
            async with EventPublisher(
                AGENT, url.replace("hush-1", "hush-2"), credentials=credentials
            ):
                pass
    finally:
        await production.server.stop()


async def test_mesh_run_is_both_its_users_by_the_folder_of_seeds(
    production: ProductionNats,
) -> None:
    await make_log(production)
    variables = {f"MESH_{key}": text for key, text in production.settings(AGENT).items()}
    del variables["MESH_NATS_NKEY_SEED_FILE"]
    variables["MESH_NATS_SEEDS"] = str(production.folder / "seeds")
    code, stdout, stderr = await run_mesh("run", "echo", "hi", **variables)
    assert (code, stdout.split(), stderr) == (0, ["hi"], "")
    credentials = production.credentials("gateway")
    client = SecureClient(credentials)
    await client.connect(
        production.url, inbox_prefix=b"_INBOX.gateway", **credentials.options(production.url)
    )
    info = await client.request("$JS.API.STREAM.INFO.EVENTS", b"")
    await client.close()
    assert json.loads(info.data)["state"]["num_subjects"] >= 4


async def test_a_renewed_nkey_counts_after_a_reload_and_others_notice_nothing(
    production: ProductionNats,
) -> None:
    await make_log(production)
    old, other = production.credentials(AGENT), production.credentials("terminal-service")
    async with (
        EventPublisher(AGENT, production.url, credentials=old) as cut,
        EventPublisher("terminal-service", production.url, credentials=other) as kept,
    ):
        write_production(production.folder, BUILT_IN_FAMILIES, [AGENT])
        os.kill(production.server.pid, signal.SIGHUP)
        await wait_until(lambda: not cut.is_connected, "the end of the old connection")
        assert kept.is_connected
        with pytest.raises(UnauthorizedError, match="nkey"):
            async with EventPublisher(AGENT, production.url, credentials=old):
                pass
        new = production.credentials(AGENT)
        async with EventPublisher(AGENT, production.url, credentials=new) as publisher:
            await publisher.publish("agent:created", {"agentId": "a1"})


async def test_renewed_certificates_are_read_when_a_gateway_connects_again(
    production: ProductionNats, tmp_path: Path
) -> None:
    settings = production.settings("gateway") | production.admin_settings()
    gateway = GatewayProcess(settings, tmp_path / "gateway.log")
    try:
        await gateway.start()
        await production.server.stop()
        production.renew_authority()  # with it nothing of before is trusted
        await production.server.start()
        await gateway.ready()
    finally:
        await gateway.kill()


async def test_a_gateway_says_what_is_wrong_and_goes_on_once_it_is_right(
    production: ProductionNats, tmp_path: Path
) -> None:
    await make_log(production)
    ca_file, log = tmp_path / "ca.pem", tmp_path / "gateway.log"
    trustme.CA().cert_pem.write_to_path(ca_file)
    gateway = GatewayProcess(production.settings("gateway") | {"NATS_CA": str(ca_file)}, log)
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(gateway.start())
        try:
            await wait_until(lambda: log.exists() and "can't be trusted" in log.read_text())
            ca_file.write_bytes(production.ca_file.read_bytes())
            await starting
        finally:
            await gateway.kill()
    assert log.read_text().count("can't be trusted") == 1


async def test_a_certificate_that_cannot_be_read_ends_a_gateway_with_one_line(
    production: ProductionNats,
) -> None:
    settings = production.settings("gateway") | {"NATS_CA": str(production.seed_file("gateway"))}
    variables = {f"MESH_{key}": text for key, text in settings.items()}
    code, _, stderr = await run_mesh("gateway", "--port", "0", **variables)
    assert code == 1
    [line] = [line for line in stderr.splitlines() if line.startswith("mesh: ")]
    assert "isn't a file of CA certificates" in line


@pytest.mark.parametrize("user", USERS)
async def test_every_user_gets_in_with_its_nkey(production: ProductionNats, user: str) -> None:
    credentials = production.credentials(user)
    async with EventPublisher(user, production.url, credentials=credentials) as publisher:
        assert publisher.is_connected
