"""``p2pdist sign``: write the signature that ``--allowed-signers`` asks for, beside a descriptor.

Job: find out who signs, p2pdist itself or ssh-keygen; write the file; say what to do with it.
Keys that need somebody (a passphrase, ssh-agent, a touch) are used by ssh-keygen, which knows how
to ask. Whoever signed, what is written has been verified first.
Threat: what is signed must be what was looked at, so the file is read once. Tests:
``test_cli_sign``, ``test_sshkeygen``.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from p2pdist import limits
from p2pdist.descriptor import DescriptorParser, read_file
from p2pdist.errors import ConfigurationError, StorageError
from p2pdist.faces.cli.output import Output, reports_errors
from p2pdist.signatures import (
    NAMESPACE,
    PRIVATE_KEYS,
    SUFFIX,
    PrivateKey,
    Signature,
    parse_signature,
)
from p2pdist.signatures import sign as sign_bytes
from p2pdist.smallfile import Unreadable, read_small

SSH_KEYGEN = "ssh-keygen"


@click.command()
@click.argument("descriptor", metavar="FILE.desc", type=click.Path())
@click.option(
    "--key",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="OpenSSH private key, such as ~/.ssh/id_ed25519; or a .pub file whose private half "
    "ssh-agent holds.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing signature.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def sign(descriptor: str, key: str, *, force: bool, as_json: bool) -> None:
    """Sign a descriptor with an OpenSSH key; writes FILE.desc.sig.

    The same as: ssh-keygen -Y sign -n p2pdist-descriptor -f KEY FILE.desc. Nodes that run with
    --allowed-signers take only descriptors that are signed so.
    """
    output = Output(as_json)
    data = read_file(descriptor)
    DescriptorParser().parse(data, descriptor)
    target = Path(descriptor + SUFFIX)
    if target.exists() and not force:
        raise StorageError(f"{str(target)!r} exists; overwrite it with --force")
    signature = make_signature(os.path.expanduser(key), data)  # noqa: PTH111 -- text
    _write(target, signature.armored())
    line = f'NAME namespaces="{NAMESPACE}" {signature.key.text}'
    output.result(
        {
            "descriptor": str(Path(descriptor).resolve()),
            "signature": str(target.resolve()),
            "fingerprint": signature.key.fingerprint,
            "allowed_signer": line,
        }
    )
    output.line(f"signature   {target}")
    output.line(f"signed by   {signature.key.fingerprint} ({signature.key.kind})")
    output.line("")
    output.line("Hand out both files. To accept nothing else, put this line, with a name of yours")
    output.line("for NAME, into a file on every machine, here signers:")
    output.line(f"    {line}")
    output.line(f"    p2pdist get {shlex.quote(Path(descriptor).name)} --allowed-signers signers")


def make_signature(key: str, data: bytes) -> Signature:
    """Return the signature over ``data`` with the key in the file ``key``.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    try:
        content = read_small(key, limits.SIGNING_KEY_BYTES)
    except Unreadable as error:
        raise ConfigurationError(f"--key {key}: {error}") from error
    if len(content) > limits.SIGNING_KEY_BYTES:
        raise ConfigurationError(
            f"--key {key}: is larger than {limits.SIGNING_KEY_BYTES} bytes; no OpenSSH key is"
        )
    private = load_private(content)
    if private is None:
        signature = _sign_by_program(key, data)
    else:
        _check_mode(key)
        try:
            signature = sign_bytes(private, data)
        except ValueError as error:
            raise ConfigurationError(f"--key {key}: {error}") from error
    if signature.namespace != NAMESPACE or not signature.covers(data):
        raise ConfigurationError(
            f"--key {key}: its signature does not verify; is this .pub file of another key?"
        )
    return signature


def load_private(content: bytes) -> PrivateKey | None:
    """Return the key if it can be used right here, ``None`` if it is for ssh-keygen."""
    try:
        private = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # encrypted, public, PEM, on a token
        return None
    return private if isinstance(private, PRIVATE_KEYS) else None


def _check_mode(key: str) -> None:
    """Refuse, as ssh does, a key that others may read."""
    mode = stat.S_IMODE(os.stat(key).st_mode)  # noqa: PTH116 -- text
    if mode & 0o077:
        raise ConfigurationError(
            f"--key {key}: others may read it (mode {mode:04o}); chmod 600 it, and think of it "
            "as known"
        )


def _sign_by_program(key: str, data: bytes) -> Signature:
    """Let ssh-keygen sign: it asks for passphrases and touches, on the terminal or a window.

    Raises:
        ConfigurationError: it is not there, or does not sign.
    """
    with tempfile.TemporaryDirectory(prefix="p2pdist-sign-") as folder:
        subject = Path(folder) / "descriptor"
        subject.write_bytes(data)
        command = [SSH_KEYGEN, "-Y", "sign", "-n", NAMESPACE, "-f", key, str(subject)]
        try:
            # What it says goes to standard error: standard output is for the result.
            done = subprocess.run(command, stdout=2, check=False)
        except OSError as error:
            raise ConfigurationError(
                f"--key {key}: only OpenSSH can use it (it is encrypted, on a token, public, or "
                f"no key), and {SSH_KEYGEN} does not start: {error.strerror}; install it"
            ) from error
        if done.returncode:
            raise ConfigurationError(
                f"--key {key}: {SSH_KEYGEN} did not sign with it; its words stand above"
            )
        written = Path(str(subject) + SUFFIX)
        try:
            return parse_signature(read_small(str(written), limits.SIGNATURE_BYTES))
        except (Unreadable, ValueError) as error:
            raise ConfigurationError(f"--key {key}: what {SSH_KEYGEN} wrote: {error}") from error


def _write(target: Path, text: bytes) -> None:
    """Write the signature in one step: others see all of it or nothing.

    Raises:
        StorageError: it cannot be written.
    """
    draft = target.with_name(f".{os.getpid()}.p2pdist-draft")
    try:
        try:
            draft.write_bytes(text)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {str(target)!r}: {error.strerror}") from error
