"""Where secrets are kept: the lines of a descriptor, and files of their own.

Job: find, check, read and write them. A secret file has one secret a line; ``#`` begins a comment.
Several are several networks at once, which is how a secret is replaced. Does NOT derive keys.

A ``secret_file`` without folders is first looked for among the service's credentials (systemd's
``LoadCredential=``), then beside the descriptor: so one descriptor does for all machines. Any other
relative path begins at the descriptor's folder.

Threat: local users. A file with a secret that others may read is refused, as ssh does; credentials
are systemd's to guard, and their mode shows an access list there. Paths are looked at as in
``smallfile``. No error repeats what a file holds. Tests: ``test_secret``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pdist import limits
from p2pdist.errors import ConfigurationError, StorageError
from p2pdist.secret import Secret, hide
from p2pdist.smallfile import Unreadable, read_small

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The environment's name for the folder of the service's credentials; holds a path, no secret."""


class BadSecret(ValueError):
    """What a descriptor says of its secrets cannot be used.

    Attributes:
        field: ``secret`` or ``secret_file``.
        reason: what is wrong, without any of the text.
        remedy: what to do about it.
        entry: which of a list, or ``None``.
    """

    def __init__(self, field: str, problem: str, entry: int | None = None) -> None:
        self.field = field
        self.reason, _, self.remedy = problem.rpartition("; ")
        self.entry = entry
        super().__init__(problem)


def declared(
    values: Mapping[str, Any], path: str | None, credentials: str | None
) -> tuple[tuple[Secret, ...], str | None]:
    """Return the secrets a descriptor names, and its ``secret_file``.

    Args:
        values: of the descriptor, as parsed.
        path: of the descriptor; ``None`` for text alone, whose ``secret_file`` is not opened.
        credentials: folder of the service's credentials, if it has any.

    Raises:
        BadSecret: they cannot be used, or others may read them.
    """
    if "secret" in values and "secret_file" in values:
        raise BadSecret("secret_file", "stands beside secret; keep one of the two lines")
    if "secret" in values:
        try:
            if path is not None:
                _check_mode(path)
        except ValueError as error:
            raise BadSecret("secret", str(error)) from None
        return _listed(values["secret"]), None
    name = values.get("secret_file")
    if name is None:
        return (), None
    if not isinstance(name, str) or not name or not name.isprintable():
        raise BadSecret("secret_file", 'is no path; write secret_file = "swarm.secret"')
    if path is None:
        return (), name
    try:
        return _read(*_locate(name, os.path.dirname(path), credentials)), name  # noqa: PTH120 -- text
    except ValueError as error:
        raise BadSecret("secret_file", str(error)) from None


def lines_for(secrets: tuple[Secret, ...], secret_file: str | None) -> str:
    """Return what a descriptor file says of its secrets; of a file of their own, only the name."""
    if secret_file is not None:
        path = json.dumps(secret_file, ensure_ascii=False)
        return f"\n# A private swarm: only who has the secret takes part.\nsecret_file = {path}\n"
    if not secrets:
        return ""
    comment = "# A private swarm. This line opens it: keep the file as you keep the content."
    texts = [f'"{secret.text}"' for secret in secrets]
    value = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return f"\n{comment}\nsecret = {value}\n"


def _listed(value: object) -> tuple[Secret, ...]:
    """Return the secrets of a ``secret`` line: one, or a list of them."""
    entries = value if isinstance(value, list) else [value]
    if not 0 < len(entries) <= limits.SECRETS:
        raise BadSecret("secret", f"is a list of {len(entries)}; name 1 to {limits.SECRETS}")
    return tuple(dict.fromkeys(_entry(text, number) for number, text in enumerate(entries)))


def _entry(text: object, number: int) -> Secret:
    if not isinstance(text, str):
        raise BadSecret("secret", "is no text; put it in quotation marks", number)
    try:
        return Secret.parse(text)
    except ValueError as error:
        raise BadSecret("secret", str(error), number) from None


def _locate(name: str, folder: str, credentials: str | None) -> tuple[str, bool]:
    """Return the path of a ``secret_file``, and whether systemd guards it."""
    if credentials and os.path.basename(name) == name:  # noqa: PTH119 -- text
        path = os.path.join(credentials, name)  # noqa: PTH118
        if os.path.exists(path):  # noqa: PTH110
            return path, True
    return os.path.join(folder, name), False  # noqa: PTH118


def _check_mode(path: str) -> None:
    """Refuse a file with a secret that others may read or write."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- beside the rest
    except (OSError, ValueError):
        return  # reading it says more
    if mode & 0o077:
        raise ValueError("may be read by others; chmod 600 the file that holds it")


def _read(path: str, guarded: bool) -> tuple[Secret, ...]:
    """Return a file's secrets.

    Raises:
        ValueError: reason and remedy, parted by a semicolon.
    """
    shown = f"{hide(path)[:200]!a}"
    remedy = "p2pdist make --secret-file writes one"
    try:
        data = read_small(path, limits.SECRET_FILE_BYTES)
    except Unreadable as error:
        raise ValueError(f"{shown} {error}; {remedy}") from None
    if not guarded:
        try:
            _check_mode(path)
        except ValueError as error:
            raise ValueError(f"{shown} {error}") from None
    if len(data) > limits.SECRET_FILE_BYTES:
        raise ValueError(f"{shown} is larger than {limits.SECRET_FILE_BYTES} bytes; {remedy}")
    lines = [line.partition("#")[0].strip() for line in data.decode("ascii", "replace").split("\n")]
    found = dict.fromkeys(
        _line(word, f"{shown}, line {number}") for number, word in enumerate(lines, 1) if word
    )
    if not 0 < len(found) <= limits.SECRETS:
        raise ValueError(f"{shown} holds {len(found)} secrets, not 1 to {limits.SECRETS}; {remedy}")
    return tuple(found)


def _line(word: str, where: str) -> Secret:
    try:
        return Secret.parse(word)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def read_secret_file(path: str) -> tuple[Secret, ...]:
    """Return the secrets of the file that ``--secret-file`` names.

    A file below ``$CREDENTIALS_DIRECTORY`` is systemd's to guard.

    Raises:
        ConfigurationError: it cannot be read, others may read it, or it holds something else.
    """
    credentials = os.environ.get(CREDENTIALS)
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 -- text
    guarded = credentials is not None and folder == os.path.abspath(credentials)  # noqa: PTH100
    try:
        return _read(path, guarded)
    except ValueError as error:
        raise ConfigurationError(f"--secret-file {error}") from None


def write_secret_file(path: str, entropy: Callable[[int], bytes]) -> Secret:
    """Make a secret, write it to a new file with mode 0600 and return it.

    Raises:
        StorageError: something is there already, or it cannot be written.
    """
    secret = Secret.new(entropy)
    lines = (
        "# The secret of a private p2pdist network: who has it is in.",
        "# To replace it, add the new one as a line of its own on every machine, then remove the",
        "# old one everywhere.",
        secret.text,
        "",
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)  # whatever the umask
            file.write("\n".join(lines).encode())
    except OSError as error:
        raise StorageError(f"cannot write {str(Path(path))!r}: {error.strerror}") from error
    return secret
