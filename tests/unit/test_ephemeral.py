"""The credentials of temporary users, and the commands that use them."""

from __future__ import annotations

from pathlib import Path

from tasks.serve.ephemeral import FETCH_COMMAND, RESUME_COMMAND, EphemeralServer
from tests.kit.files import names


def test_credentials_are_for_root_alone(tmp_path: Path) -> None:
    server = EphemeralServer("https://127.0.0.1:1", "PEM", {"java": "secret"})
    server.write_credentials("java", tmp_path / "java")
    assert names(tmp_path / "java") == [".netrc", "server.pem"]
    netrc = tmp_path / "java/.netrc"
    assert netrc.read_text() == "machine 127.0.0.1 login java password secret\n"
    assert netrc.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "java").stat().st_mode & 0o777 == 0o700
    server.write_credentials("stranger", tmp_path / "stranger")
    assert names(tmp_path / "stranger") == ["server.pem"]


def test_fetch_command_has_no_secret() -> None:
    for command in (FETCH_COMMAND, RESUME_COMMAND):
        assert command.endswith('-O "${DISTDIR}/${FILE}" "${URI}"')
        assert "password" not in command
    assert "wget -c " in RESUME_COMMAND
