"""Hostile strings in every setting of config.toml that takes a string.

The settings come from the models. Each string is refused, or used literally in everything that is
generated from the config (/etc/portage, argument vectors, nginx's configuration, the request to
the chroot's Portage): that is generated with a harmless string and with the hostile one, and the
results may differ in that string only.
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
# Refused everywhere: they would end a line or a C string, or reverse the text on a screen.
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
    """Return functions that put a string into a complete config, by the name of the place."""
    puts: dict[str, config_keys.Put] = {}
    for table, name in NAMES.items():
        puts[f"{table}{{}}"] = lambda text, table=table, name=name: {  # type: ignore[misc]
            **FOUR_CHROOTS,
            table: {**FOUR_CHROOTS[table], text: FOUR_CHROOTS[table][name]},
        }
    for key, kind in config_keys.keys().items():
        for place, put in config_keys.strings(key, kind):
            puts[place] = lambda text, key=key, put=put: _with(key, put(text))  # type: ignore[misc]
    return puts


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
    """Return the site with a string at a place, or the error; each config is read once."""
    folder = tmp_path_factory.mktemp("hostile")
    layout = Layout(folder, folder / "state")

    @cache
    def load_once(place: str, text: str) -> Site | ConfigError:
        layout.config.write_text(tomli_w.dumps(PLACES[place](text)), encoding="utf-8")
        try:
            return Site(layout, config_file.read_config(layout))
        except ConfigError as error:
            return error

    return load_once


def strings(value: Any) -> Iterator[str]:
    """Yield every string in plain data, names and values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_places_include_every_kind_of_setting() -> None:
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
def test_read_config_refuses_a_string_or_keeps_it_literally(place: str, load: Load) -> None:
    for text in (*BROKEN, *HOSTILE):
        site = load(place, text)
        if isinstance(site, Site):
            assert text not in BROKEN
            assert text in strings(site.config.model_dump()), text
            continue
        message = str(site)
        assert place.split(".", 1)[0].strip("{}[]") in message, text
        assert all(char.isprintable() or char == "\n" for char in message), text
        assert len(message) < 1000, text


def generated_from(site: Site) -> dict[str, Any]:
    """Return all that is generated from a config for other programs, parsed as they parse it."""
    config = site.config
    tasks = [task for task in graph.build(site) if isinstance(task, dict)]
    generated: dict[str, Any] = {"tasks": [f"{t['basename']}:{t.get('name')}" for t in tasks]}
    for name in config.chroots:
        link = etc_portage.profile_link(config, name)
        for path, text in etc_portage.files(config, name).items():
            lines = sorted(text.splitlines())
            generated[f"{name}/{path}"] = getconfig(text) if path == "make.conf" else lines
        generated[f"{name} link"] = link
        packages = config.chroots[name].packages
        generated[f"{name} emerge"] = sorted(emerge.command(config.build, packages))
        generated[f"{name} client"] = sorted(client.command(packages))
        generated[f"{name} check"] = json.loads(json.dumps(config_check.request(config, name)))
    generated["proxies"] = site.proxies
    table = config.serve
    tls = nginx.Tls(*cast(Any, (str(table.certificate), str(table.certificate_key))))
    locations = policy.locations(config.access, list(config.chroots))
    generated["nginx"] = nginx.server_block(
        locations, "/state", "/users", config.binhost.listen, tls
    )
    generated["nginx.conf"] = nginx.main_config("", Path("/scratch"), f"{table.worker} x")
    return generated


def replace(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {replace(k, old, new): replace(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        changed = [replace(inner, old, new) for inner in value]
        return sorted(changed) if all(isinstance(inner, str) for inner in changed) else changed
    return value.replace(old, new) if old and isinstance(value, str) else value


@pytest.mark.parametrize("place", PLACES)
def test_generated_files_contain_a_hostile_string_literally(place: str, load: Load) -> None:
    sites = ((text, load(place, text)) for text in HOSTILE)
    accepted = {text: site for text, site in sites if isinstance(site, Site)}
    if not accepted:
        return
    harmless = next((t for t in config_keys.PLAIN if isinstance(load(place, t), Site)), None)
    assert harmless is not None, (
        f"add a harmless value for {place} to PLAIN in tests/kit/config_keys.py"
    )
    plain = load(place, harmless)
    assert isinstance(plain, Site)
    expected = generated_from(plain)
    for text, site in accepted.items():
        try:
            generated = generated_from(site)
        except BinmillError as error:
            assert text[:50] in str(error) or repr(text)[1:-1][:50] in str(error)
            continue
        assert replace(generated, "", "") == replace(expected, harmless, text), (place, text)
