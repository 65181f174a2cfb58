"""Commands about tokens, and commands that show one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli import embedded
from tests.service.certificates import Authority
from tests.service.cli.command import Ask, Done, environment, shoal_here
from tests.service.server_process import ServerProcess


@pytest.fixture
def tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs `shoal tokens ...` on a state folder."""
    return lambda *arguments: shoal_here(capsys, "tokens", *arguments, "--state-dir", tmp_path / "state")


def test_a_token_is_printed_once_and_listed_without_it(tokens: Ask) -> None:
    made = tokens("add", "alice", "--scope", "jobs:read", "--expires", "90d")
    token = made.stdout.strip()
    listed = tokens("list")
    found = json.loads(tokens("list", "--json").stdout)

    assert (made.returncode, token.startswith("shoal-token-")) == (0, True)
    assert token not in made.stderr + listed.stdout + str(found)
    assert "alice  alice      jobs:read  20" in listed.stdout
    assert [(one["name"], one["scopes"], one["expired"]) for one in found] == [("alice", ["jobs:read"], False)]


def test_what_cannot_be_is_refused(tokens: Ask) -> None:
    tokens("add", "alice")
    cases: dict[tuple[str, ...], tuple[int, str]] = {
        ("add", "alice"): (1, "there is a token 'alice' already"),
        ("add", "a b"): (2, "name: must be 1 to 63"),
        ("add", "bob", "--scope", "everything"): (2, "'everything' is not one of"),
        ("add", "bob", "--expires", "soon"): (2, "is no duration"),
        ("add", "bob", "--expires", "99999d"): (2, "expires: must be"),
        ("remove", "bob"): (1, "there is no token 'bob'"),
    }
    for arguments, (status, told) in cases.items():
        done: Done = tokens(*arguments)
        assert done.returncode == status
        assert told in done.stderr


def test_removing_the_last_one_says_what_that_means(tokens: Ask) -> None:
    tokens("add", "alice")
    assert "takes every call now" in tokens("remove", "alice").stderr
    assert "there are no tokens" in tokens("list").stderr


@contextmanager
def server(state: Path, **settings: object) -> Iterator[ServerProcess]:
    with ServerProcess(state, **settings) as found:
        yield found


def test_commands_show_a_token_from_a_file_or_the_environment(
    tokens: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server")
    token = tokens("add", "alice").stdout.strip()
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "empty").write_text("\n")
    with server(tmp_path / "state", tls_cert=str(files.cert), tls_key=str(files.key)) as running:
        ask = ("jobs", "list", "--json", "--server", running.address)
        assert shoal_here(capsys, *ask, "--tls-ca", authority.pem, "--token-file", tmp_path / "token").stdout == "[]\n"

        nobody = shoal_here(capsys, *ask, "--tls-ca", authority.pem)
        assert (nobody.returncode, "SHOAL_TOKEN or --token-file" in nobody.stderr) == (1, True)
        empty = shoal_here(capsys, *ask, "--tls-ca", authority.pem, "--token-file", tmp_path / "empty")
        assert (empty.returncode, "is empty" in empty.stderr) == (2, True)

        monkeypatch.setenv("SHOAL_TOKEN", token)
        monkeypatch.setenv("SHOAL_TLS_CA", str(authority.pem))
        assert shoal_here(capsys, *ask).stdout == "[]\n"
        assert embedded.operator_token(tmp_path / "state")


def test_a_token_is_not_sent_elsewhere_in_plain_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_TOKEN", "shoal-token-secret")
    done = shoal_here(capsys, "jobs", "list", "--server", "shoal.invalid:1")

    assert (done.returncode, done.stdout) == (2, "")
    assert "could be read on its way to shoal.invalid:1" in done.stderr
    assert "secret" not in done.stderr


def test_files_that_are_no_certificates_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for file, told in (("ca.pem", "holds no certificates"), ("absent.pem", "No such file")):
        done = shoal_here(capsys, "jobs", "list", "--server", "127.0.0.1:1", "--tls-ca", tmp_path / file)
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_server_says_what_is_wrong_with_its_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [Authority(tmp_path, name).issue(f"server-{name}") for name in ("one", "two")]
    serve = ("serve", "--address", "127.0.0.1:0", "--state-dir", tmp_path / "state", "--tls-cert", files[0].cert)
    half = shoal_here(capsys, *serve)
    assert (half.returncode, "belong together" in half.stderr) == (2, True)
    wrong = shoal_here(capsys, *serve, "--tls-key", files[1].key)
    assert (wrong.returncode, "does not belong to the certificate" in wrong.stderr) == (1, True)
    open_ = shoal_here(capsys, "serve", "--address", "0.0.0.0:0", "--state-dir", tmp_path / "state")
    assert (open_.returncode, "set insecure_remote if the network is trusted" in open_.stderr) == (2, True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("principal_uploads=0", "--set principal_uploads: Input should be greater than or equal to 1"),
        ("typo=1", "--set typo: Extra inputs are not permitted"),
        ("address=127.0.0.1:1", "--set address: has an option of its own"),
        ("principal_uploads", "is no option; write KEY=VALUE"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    said: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = shoal_here(capsys, "serve", "--state-dir", tmp_path / "state", "--set", said)
    assert (done.returncode, told in done.stderr) == (2, True)


def test_commands_on_the_servers_machine_need_no_token(tokens: Ask, tmp_path: Path) -> None:
    """They are the operator's: whoever reads the state folder could make a token anyway."""
    token = tokens("add", "alice").stdout.strip()
    state = tmp_path / "state"
    command = [sys.executable, "-m", "service.cli", "jobs", "list", "--json", "--state-dir", str(state)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=environment(SHOAL_TOKEN=token)
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert token not in (state / "server.log").read_text()


def test_a_server_that_a_command_starts_does_not_learn_who_the_user_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SHOAL_TOKEN", "SHOAL_TOKEN_FILE", "SHOAL_TLS_KEY", "SHOAL_SERVE_TLS_CERT", "SHOAL_DEBUG"):
        monkeypatch.setenv(name, "x")
    passed = {name for name in embedded._environment() if name.startswith("SHOAL_")}
    assert passed & {"SHOAL_TOKEN", "SHOAL_TOKEN_FILE", "SHOAL_TLS_KEY", "SHOAL_SERVE_TLS_CERT"} == set()
    assert "SHOAL_DEBUG" in passed
