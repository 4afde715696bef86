"""Hostile strings at every place of config.toml that takes one: literally, or refused.

The places are read off the models. A string that is taken must go through to what is made of it
(/etc/portage, argument vectors, nginx's configuration, what the chroot's Portage is asked) as it
is: everything is made once with a harmless string and once with the hostile one, and the two may
differ in that string only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import tomli_w

from tasks import graph
from tasks.config import load as config_file
from tasks.errors import BinmillError, ConfigError
from tasks.layout import Layout
from tasks.portage import config_check, emerge, etc_portage
from tasks.publish import client
from tasks.serve import nginx, policy
from tasks.site import Site
from tests.kit import config_keys
from tests.kit.configs import FOUR_CHROOTS
from tests.kit.make_conf import getconfig

NAMES = {"keys": "k", "overlays": "ours", "seeds": "s", "chroots": "java"}
# Never taken anywhere: they would end a line, a string of C's, or turn the reader's eye around.
BROKEN = [
    "a\nb",
    "a\0b",
    "a\x1b[2Jb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",
    "a\u200fb",
    "\n",
    "",
]
HOSTILE = [
    "; reboot",
    "$(reboot)",
    "`reboot`",
    "${IFS}",
    "a;b",
    "a|b",
    "a&&b",
    "a>b",
    "*",
    "~",
    "%s",
    "{}",
    "-oProxyCommand=x",
    "--help",
    "-",
    "--",
    "=",
    "a=b",
    "a'b\"c",
    "\\",
    '\\\\"',
    "#x",
    "source",
    "../../etc",
    "/etc/passwd",
    "..",
    ".",
    "ext::sh -c x",
    "ext-x::y",
    "a b",
    " ",
    "a" * 5000,
    "caf\u00e9 \u4e2d",
    "caf\u00e9\u4e2d",
    "https://x/$(reboot);`id`",
    "https://x/%0a%00",
    "[::1]:80; x",
    "site:../x",
    "role:-x",
    "A" * 40 + "\n",
    "a" * 64,
    "lib+x@y",
    "-*",
    "PATH",
    "LD_PRELOAD",
]


def places() -> dict[str, config_keys.Put]:
    """Every place, by name, with how to put a string there into a whole config."""
    found: dict[str, config_keys.Put] = {}
    for table, name in NAMES.items():
        found[f"{table}{{}}"] = lambda text, table=table, name=name: {  # type: ignore[misc]
            **FOUR_CHROOTS,
            table: {**FOUR_CHROOTS[table], text: FOUR_CHROOTS[table][name]},
        }
    for key, kind in config_keys.keys().items():
        for place, put in config_keys.strings(key, kind):
            found[place] = lambda text, key=key, put=put: _with(key, put(text))  # type: ignore[misc]
    return found


def _with(key: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(FOUR_CHROOTS)
    *tables, last = key.split(".")
    table = raw
    for number, part in enumerate(tables):
        table = table.setdefault(NAMES[tables[number - 1]] if part == "*" else part, {})
    table[last] = value
    return raw


PLACES = places()
Load = Callable[[str, str], Site | ConfigError]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The site with a string at a place, or how that is refused; each is read once."""
    folder = tmp_path_factory.mktemp("hostile")
    layout = Layout(folder, folder / "state")

    @cache
    def loaded(place: str, text: str) -> Site | ConfigError:
        layout.config.write_text(tomli_w.dumps(PLACES[place](text)), encoding="utf-8")
        try:
            return Site(layout, config_file.read_config(layout))
        except ConfigError as refused:
            return refused

    return loaded


def told(value: Any) -> Iterator[str]:
    """Every string in plain data, names and values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from told(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from told(inner)
    elif isinstance(value, str):
        yield value


def test_the_places_are_there() -> None:
    assert len(PLACES) > 50
    for place in (
        "chroots{}",
        "chroots.*.env{}",
        "chroots.*.env.ENTRY",
        "overlays.*.url",
        "chroots.*.package_use.ENTRY[]",
        "network.proxy",
        "tree.manifests",
    ):
        assert place in PLACES


@pytest.mark.parametrize("place", PLACES)
def test_refused_in_words_or_taken_literally(place: str, load: Load) -> None:
    for text in (*BROKEN, *HOSTILE):
        found = load(place, text)
        if isinstance(found, Site):
            assert text not in BROKEN
            assert text in told(found.config.model_dump()), text
            continue
        message = str(found)
        assert place.split(".", 1)[0].strip("{}[]") in message, text
        assert all(sign.isprintable() or sign == "\n" for sign in message), text
        assert len(message) < 1000, text


def made_of(site: Site) -> dict[str, Any]:
    """All that is made of a config and read by somebody else, as that reader takes it apart."""
    config = site.config
    tasks = [task for task in graph.build(site) if isinstance(task, dict)]
    found: dict[str, Any] = {"tasks": [f"{t['basename']}:{t.get('name')}" for t in tasks]}
    for name in config.chroots:
        link = etc_portage.profile_link(config, name)
        for path, text in etc_portage.files(config, name).items():
            lines = sorted(text.splitlines())
            found[f"{name}/{path}"] = getconfig(text) if path == "make.conf" else lines
        found[f"{name} link"] = link
        packages = config.chroots[name].packages
        found[f"{name} emerge"] = sorted(emerge.command(config.build, packages))
        found[f"{name} client"] = sorted(client.command(packages))
        found[f"{name} check"] = json.loads(json.dumps(config_check.request(config, name)))
    found["proxies"] = site.proxies
    table = config.serve
    tls = nginx.Tls(*cast(Any, (str(table.certificate), str(table.certificate_key))))
    locations = policy.locations(config.access, list(config.chroots))
    found["nginx"] = nginx.server_block(locations, "/state", "/users", config.binhost.listen, tls)
    found["nginx.conf"] = nginx.main_config("", Path("/scratch"), f"{table.worker} x")
    return found


def swapped(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {swapped(k, old, new): swapped(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        changed = [swapped(inner, old, new) for inner in value]
        return sorted(changed) if all(isinstance(inner, str) for inner in changed) else changed
    return value.replace(old, new) if old and isinstance(value, str) else value


@pytest.mark.parametrize("place", PLACES)
def test_what_is_made_differs_in_that_string_only(place: str, load: Load) -> None:
    sites = ((text, load(place, text)) for text in HOSTILE)
    taken = {text: site for text, site in sites if isinstance(site, Site)}
    if not taken:
        return
    harmless = next((t for t in config_keys.PLAIN if isinstance(load(place, t), Site)), None)
    assert harmless is not None, f"add a harmless value for {place} to PLAIN in tests/keys.py"
    plain = load(place, harmless)
    assert isinstance(plain, Site)
    expected = made_of(plain)
    for text, site in taken.items():
        try:
            made = made_of(site)
        except BinmillError as refused:
            assert text[:50] in str(refused) or repr(text)[1:-1][:50] in str(refused)
            continue
        assert swapped(made, "", "") == swapped(expected, harmless, text), (place, text)
