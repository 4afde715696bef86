"""The list of users, as a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import BinmillError
from tasks.serve import users
from tasks.serve.users import User
from tests.kit.refused import refused

ENTRIES = {
    "anna": {"groups": ["role:java", "site:acme"], "hash": "$6$salt$hash"},
    "empty": {"groups": [], "hash": "$6$salt$hash"},
    "jill": {"groups": ["role:java"], "serial": "7F", "until": "2027-01-01"},
}


@pytest.fixture
def register(tmp_path: Path) -> Path:
    """The list of users as version 0.1 wrote it."""
    file = tmp_path / "users.json"
    file.write_text(json.dumps(ENTRIES, indent=1, sort_keys=True) + "\n")
    return file


def test_list_of_users_is_read_and_written_in_the_same_format(register: Path) -> None:
    assert users.read(register) == {
        "anna": User(("role:java", "site:acme"), hash="$6$salt$hash"),
        "empty": User((), hash="$6$salt$hash"),
        "jill": User(("role:java",), serial="7F", until="2027-01-01"),
    }
    users.remove(register, "anna")
    rest = {name: entry for name, entry in ENTRIES.items() if name != "anna"}
    assert register.read_text() == json.dumps(rest, indent=1, sort_keys=True) + "\n"
    assert register.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"anna": []}',
        '{"anna": {"hash": "x"}}',
        '{"anna": {"groups": "role:java", "hash": "x"}}',
        '{"anna": {"groups": ["role:java"]}}',
        '{"anna": {"groups": ["role:java"], "hash": 7}}',
    ],
)
def test_damaged_list_of_users_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "users.json"
    file.write_text(text)
    with refused(BinmillError, "users-file-damaged", path=file):
        users.read(file)


def test_password_file_has_members_with_a_password(register: Path) -> None:
    assert users.password_file(users.read(register), "role:java") == "anna:$6$salt$hash\n"
    assert users.password_file(users.read(register), "site:other") == ""


def test_serials_are_those_of_members_with_a_certificate(register: Path) -> None:
    entries = users.read(register)
    serials = users.serials_by_group(entries, ["role:java", "site:acme"])
    assert serials == {"role:java": ["7F"], "site:acme": []}
    del entries["jill"]
    assert users.serials_by_group(entries, ["role:java"]) == {}
