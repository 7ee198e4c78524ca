"""``--config FILE``: the options of ``twistd p2pdist``, written down.

    directory = "/srv/p2pdist"          # as --directory /srv/p2pdist
    descriptor = ["a.desc", "b.desc"]   # an option that may be repeated takes a list
    upload-limit = ["10MB", "a.desc=500KB"]
    no-lan = true

TOML, because descriptors are: one syntax, one scanner that names lines, no new dependency; and it
has lists, which INI files lack and half of the options need. A key is the option's name. What is
read becomes the option's text and goes the same way: there is one validation. Options of the
command line come after those of the file: single ones replace, repeated ones add.

Job: file to options. It does NOT know what they mean. Tests: ``test_configfile``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from p2pdist import limits
from p2pdist.errors import ConfigurationError, DescriptorError
from p2pdist.outline import Outline, outline
from p2pdist.smallfile import Unreadable, read_small

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATHS: Final = frozenset(
    (
        *("directory", "state-dir", "descriptor", "watch"),
        *("secret-file", "allowed-signers", "revoked-keys"),
    )
)
"""Options whose value is a path: one that is not absolute begins at the file's folder."""


def config_option(options: list[str]) -> str | None:
    """Return the file that ``--config`` names among ``options``, the last if there are several."""
    found = None
    for number, option in enumerate(options):
        if option.startswith("--config="):
            found = option.partition("=")[2]
        elif option == "--config" and number + 1 < len(options):
            found = options[number + 1]
    return found


def read_config(path: str, options: Mapping[str, bool], repeated: Collection[str]) -> list[str]:
    """Return what the file says, as options of the command line.

    Args:
        path: of the file.
        options: that may stand there, by name; whether they take a value.
        repeated: those that may be given more than once.

    Raises:
        ConfigurationError: it cannot be read, or a key or the kind of a value is wrong; names
            file and line.
    """
    text = _read(path)
    try:
        lines = outline(text, known=tuple(options), is_json=False, source=path)
        values = tomllib.loads(text)
    except DescriptorError as error:
        raise ConfigurationError(str(error)) from error
    except (ValueError, RecursionError) as error:  # tomllib names the line itself
        raise ConfigurationError(f"{path}: {error}") from error
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 -- text
    found = []
    for key, value in values.items():
        for one in _words(path, lines, key, value, options[key], key in repeated):
            if not options[key]:
                found.append(f"--{key}")
            elif key in PATHS:
                found.append(f"--{key}={os.path.join(folder, one)}")  # noqa: PTH118 -- text
            else:
                found.append(f"--{key}={one}")
    return found


def _read(path: str) -> str:
    try:
        text = read_small(path, limits.CONFIG_BYTES).decode()
    except (Unreadable, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path!a}: {error}") from error
    if len(text) > limits.CONFIG_BYTES:
        raise ConfigurationError(f"--config {path!a}: has more than {limits.CONFIG_BYTES} bytes")
    return text


def _words(
    path: str, lines: Outline, key: str, value: Any, takes_value: bool, repeated: bool
) -> list[str]:
    """Return the texts of one key's value; of a flag, one text if it is set."""
    where = f"{path}:{lines.keys[key]}: {key}"
    if not takes_value:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where}: expected true or false")
        return [""] if value else []
    if isinstance(value, list) and not repeated:
        raise ConfigurationError(f"{where}: expected one value, not a list")
    found = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str | int) or isinstance(one, bool):
            raise ConfigurationError(f'{where}: expected text in "quotation marks", or a number')
        found.append(str(one))
    return found
