"""Tests of secrets: typing errors are found, nothing prints one, and files are looked at first."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import ConfigurationError, DescriptorError, StorageError
from p2pdist.ids import HashKey
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys
from p2pdist.secret import SECRET_BYTES, SECRET_PREFIX, Secret, hide
from p2pdist.secretfile import CREDENTIALS, read_secret_file, write_secret_file
from p2pdist.test.support import TestCase, given

HASH_KEY = f'hash_key = "b3:{"0" * 64}"\n'
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def secret(number: int = 1) -> Secret:
    """Return secret number so-and-so."""
    return Secret.new(random.Random(number).randbytes)


def secrets() -> st.SearchStrategy[Secret]:
    """Any secret."""
    return st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES).map(Secret)


class TextTests(TestCase):
    """The text form."""

    @given(secrets(), st.sampled_from(["{}", " {}\n", "\t{}\r\n"]), st.booleans())
    def test_round_trip(self, made: Secret, around: str, upper: bool):
        """What was written is read, with blanks around it and in either letter case."""
        text = around.format(made.text)
        self.assertEqual(made, Secret.parse(text.upper() if upper else text))
        self.assertTrue(made.text.startswith(SECRET_PREFIX))

    @given(secrets(), st.integers(0, 55), st.sampled_from(LETTERS + "0189-_ "))
    def test_wrong_letters_are_found(self, made: Secret, place: int, letter: str):
        """One letter in place of another is refused, wherever it stands."""
        at = len(SECRET_PREFIX) + place
        text = made.text[:at] + letter + made.text[at + 1 :]
        if text != made.text:
            self.assertRaises(ValueError, Secret.parse, text)

    @given(secrets(), st.integers(0, 54))
    def test_swapped_letters_are_found(self, made: Secret, place: int):
        """Two letters that changed places are refused."""
        at = len(SECRET_PREFIX) + place
        text = made.text[:at] + made.text[at + 1] + made.text[at] + made.text[at + 2 :]
        if text != made.text:
            self.assertRaises(ValueError, Secret.parse, text)

    @given(secrets(), st.integers(0, 61), st.integers(1, 3))
    def test_lost_and_doubled_letters_are_found(self, made: Secret, place: int, count: int):
        """A letter too few or too many is refused."""
        lost = made.text[:place] + made.text[place + count :]
        doubled = made.text[:place] + made.text[place] * count + made.text[place:]
        for text in (lost, doubled):
            self.assertRaises(ValueError, Secret.parse, text)

    @given(st.text(max_size=80) | st.text(LETTERS, min_size=56, max_size=56).map("p2ps1-".__add__))
    def test_any_text(self, text: str):
        """Any text gives a secret, or a reason and a remedy that repeat none of it."""
        try:
            Secret.parse(text)
        except ValueError as error:
            reason, _, remedy = str(error).rpartition("; ")
            self.assertTrue(reason and remedy)
            if len(text.strip()) > 12:
                self.assertNotIn(text.strip().lower(), str(error).lower())

    def test_size(self):
        """A secret has 32 bytes, no fewer and no more."""
        for size in (0, SECRET_BYTES - 1, SECRET_BYTES + 1):
            error = self.assertRaises(ValueError, Secret, bytes(size))
            self.assertNotIn("\\x00", str(error))

    def test_equality(self):
        """Secrets are equal when their bytes are, and to nothing else."""
        self.assertEqual(secret(1), secret(1))
        self.assertEqual(1, len({secret(1), secret(1)}))
        self.assertNotEqual(secret(1), secret(2))
        self.assertNotEqual(secret(1), secret(1).raw)


class HidingTests(TestCase):
    """No secret where people look."""

    def test_nothing_prints_one(self):
        """Neither a secret nor keys, nor what holds them, show it when printed or formatted."""
        made = secret()
        keys = NetworkKeys.from_secret(made.raw)
        holders: tuple[Any, ...] = (
            made,
            keys,
            Descriptor(hash_key=HashKey(bytes(32)), secrets=(made,)),
        )
        hidden = (made.raw, keys.prk, keys.udp, keys.sender_key(b"b" * 16))
        for holder in holders:
            for text in (repr(holder), str(holder), f"{holder}", f"{holder!a}"):
                self.assertNotIn(made.text, text)
                for raw in hidden:
                    self.assertNotIn(raw.hex(), text)
                    self.assertNotIn(repr(raw)[2:-1], text)
        self.assertNotIn(
            made.text, Descriptor(hash_key=HashKey(bytes(32)), secrets=(made,)).to_uri()
        )

    def test_hide(self):
        """Secrets are taken out of a sentence, whole or cut off, with their prefix or without."""
        text = secret().text
        for shown in (text, text.upper(), text[:30], text.removeprefix(SECRET_PREFIX)):
            hidden = hide(f"before {shown}, after")
            self.assertEqual(f"before {SECRET_PREFIX}..., after", hidden)
        for harmless in ("model.safetensors", "b3:" + "09f2" * 16, "p2pdist make"):
            self.assertEqual(harmless, hide(harmless))

    @given(secrets(), st.sampled_from(range(9)))
    def test_errors_repeat_none(self, made: Secret, place: int):
        """Wherever in a descriptor a secret stands by mistake, the error does not show it."""
        text = made.text
        wrong = (
            f'hash_key = "{text}"',
            f'{HASH_KEY}name = "{text}/"',
            f'{HASH_KEY}nodes = ["{text}:0"]',
            f'{HASH_KEY}sha256 = "{text}"',
            f"{HASH_KEY}{text} = 1",
            f'{HASH_KEY}secret = "{text[:-1]}"',
            f"{HASH_KEY}secret = {text}",
            f'{HASH_KEY}secret = ["{text}", "{text[:40]}{text[40:][::-1]}x"]',
            f'{HASH_KEY}secret_file = "{text}\\u0007"',
        )[place]
        error = self.assertRaises(DescriptorError, DescriptorParser().parse, wrong)
        for said in (str(error), error.reason, repr(error)):
            self.assertNotIn(text[8:24], said)

    def test_links_carry_none(self):
        """A secret in a one-line descriptor is refused, and not repeated: it would be in argv."""
        text = secret().text
        for link in (f"?secret={text}", f"?{text}", f"?n={text}:0", f"?name={text}%2F"):
            error = self.assertRaises(
                DescriptorError, DescriptorParser().parse_uri, f"p2pdist:b3:{'0' * 64}{link}"
            )
            self.assertNotIn(text[8:24], str(error))


class FileCase(TestCase):
    """A folder for secrets."""

    def setUp(self):
        """Make it; no service manager hands out credentials."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(os, "environ", {**os.environ})
        os.environ.pop(CREDENTIALS, None)

    def put(self, name: str, text: str, mode: int = 0o600) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def refused(self, path: str) -> str:
        """Return why a secret file is refused."""
        return str(self.assertRaises(ConfigurationError, read_secret_file, path))


class SecretFileTests(FileCase):
    """Files of secrets alone."""

    def test_lines(self):
        """A secret a line, comments and blank lines around, Windows line ends too."""
        text = (
            f"# old\r\n{secret(1).text}\r\n\r\n  {secret(2).text.upper()}  # new\n{secret(1).text}"
        )
        self.assertEqual((secret(1), secret(2)), read_secret_file(self.put("s", text)))

    def test_others_may_not_read_it(self):
        """As ssh does, a file that group or others may read or write is refused."""
        for mode in (0o640, 0o604, 0o620, 0o602, 0o777):
            reason = self.refused(self.put("s", secret().text, mode))
            self.assertIn("chmod 600", reason)
        for mode in (0o600, 0o400):
            self.assertEqual((secret(),), read_secret_file(self.put("s", secret().text, mode)))

    def test_credentials_are_guarded_already(self):
        """In systemd's folder the mode shows an access list, and is not looked at."""
        path = self.put("cred/s", secret().text, 0o440)
        self.assertIn("chmod 600", self.refused(path))
        os.environ[CREDENTIALS] = str(self.folder / "cred")
        self.assertEqual((secret(),), read_secret_file(path))
        self.assertIn("chmod 600", self.refused(self.put("s", secret().text, 0o440)))

    def test_what_is_no_secret_file(self):
        """Nothing there, folders, FIFOs, other text: each is said, and its line."""
        os.mkfifo(self.folder / "fifo", 0o600)
        (self.folder / "sub").mkdir()
        self.assertIn("No such file", self.refused(str(self.folder / "none")))
        self.assertIn("is no regular file", self.refused(str(self.folder / "fifo")))
        self.assertIn("is a folder", self.refused(str(self.folder / "sub")))
        self.assertIn("holds 0 secrets", self.refused(self.put("s", "# nothing\n")))
        self.assertIn("line 2 is mistyped", self.refused(self.put("s", f"\n{wrong(secret())}")))
        self.assertIn("line 1 does not begin", self.refused(self.put("s", "hunter2")))
        self.assertNotIn("hunter2", self.refused(self.put("s", "hunter2")))

    def test_bounds(self):
        """SECRETS secrets and SECRET_FILE_BYTES bytes, and no more."""
        many = [secret(number).text for number in range(limits.SECRETS + 1)]
        self.assertEqual(limits.SECRETS, len(read_secret_file(self.put("s", "\n".join(many[:-1])))))
        self.assertIn(f"holds {limits.SECRETS + 1}", self.refused(self.put("s", "\n".join(many))))
        padded = secret().text + "\n#" + "x" * limits.SECRET_FILE_BYTES
        exact = self.put("s", padded[: limits.SECRET_FILE_BYTES])
        self.assertEqual((secret(),), read_secret_file(exact))
        self.assertIn("larger", self.refused(self.put("s", padded[: limits.SECRET_FILE_BYTES + 1])))

    def test_a_secret_in_place_of_a_path(self):
        """Who gives the secret itself as the path does not find it in the error."""
        self.assertNotIn(secret().text[8:20], self.refused(secret().text))

    def test_write(self):
        """A new file has mode 0600 whatever the umask, and says what it is; an old one stays."""
        for umask in (0, 0o077, 0o277):
            path = str(self.folder / f"made-{umask}")
            before = os.umask(umask)
            self.addCleanup(os.umask, before)
            made = write_secret_file(path, random.Random(umask).randbytes)
            os.umask(before)
            self.assertEqual(0o600, Path(path).stat().st_mode & 0o777)
            self.assertEqual((made,), read_secret_file(path))
            self.assertRaises(StorageError, write_secret_file, path, random.Random(9).randbytes)
            self.assertEqual((made,), read_secret_file(path))


class DescriptorTests(FileCase):
    """What a descriptor says of secrets."""

    def parsed(self, line: str, **settings: Any) -> Descriptor:
        """Return what a descriptor file with one more line says."""
        return DescriptorParser(**settings).parse_file(self.put("x.desc", HASH_KEY + line))

    def assert_refused(self, line: str, reason: str) -> None:
        """Fail unless the file is refused for this reason, in its second line."""
        path = self.put("x.desc", HASH_KEY + line)
        error = self.assertRaises(DescriptorError, DescriptorParser().parse_file, path)
        self.assertIn(reason, str(error))
        self.assertEqual(2, error.line)

    def test_public(self):
        """Without a secret it is in the public network."""
        public = self.parsed("")
        self.assertFalse(public.private)
        self.assertEqual((PUBLIC_NETWORK,), public.networks())

    def test_secret(self):
        """One secret, or a list: so many private networks, in this order, each once."""
        one = self.parsed(f'secret = "{secret(1).text}"')
        self.assertTrue(one.private)
        self.assertEqual((NetworkKeys.from_secret(secret(1).raw),), one.networks())
        texts = ", ".join(f'"{secret(number).text}"' for number in (2, 1, 2))
        both = self.parsed(f"secret = [{texts}]")
        self.assertEqual((secret(2), secret(1)), both.secrets)
        self.assertEqual(2, len(both.networks()))

    def test_written_and_read(self):
        """What to_toml writes is read; secrets of a file stay in the file."""
        for secrets_of in ((secret(1),), (secret(1), secret(2))):
            written = Descriptor(hash_key=HashKey(bytes(32)), secrets=secrets_of)
            self.assertEqual(written, DescriptorParser().parse(written.to_toml()))
        self.put("s", secret(1).text)
        read = self.parsed('secret_file = "s"')
        self.assertNotIn(secret(1).text, read.to_toml())
        self.assertEqual(
            Descriptor(hash_key=HashKey(bytes(32)), secret_file="s"),
            DescriptorParser().parse(read.to_toml()),
        )

    def test_secret_file(self):
        """A path begins at the descriptor's folder, and may be absolute."""
        self.put("s", secret(1).text)
        self.put("sub/s", secret(2).text)
        self.assertEqual((secret(1),), self.parsed('secret_file = "s"').secrets)
        self.assertEqual((secret(2),), self.parsed('secret_file = "sub/s"').secrets)
        self.assertEqual((secret(2),), self.parsed(f'secret_file = "{self.folder}/sub/s"').secrets)

    def test_credentials_come_first(self):
        """A plain name is a credential of the service if there is one, else beside the file."""
        self.put("s", secret(1).text)
        self.put("cred/s", secret(2).text, 0o440)
        there = str(self.folder / "cred")
        self.assertEqual((secret(2),), self.parsed('secret_file = "s"', credentials=there).secrets)
        self.assertEqual(
            (secret(1),), self.parsed('secret_file = "./s"', credentials=there).secrets
        )
        self.put("t", secret(3).text)
        self.assertEqual((secret(3),), self.parsed('secret_file = "t"', credentials=there).secrets)
        os.environ[CREDENTIALS] = there
        self.assertEqual((secret(2),), self.parsed('secret_file = "s"').secrets)

    def test_text_alone_opens_no_file(self):
        """Without a path no file is opened, and nothing takes the content for a public one."""
        unread = DescriptorParser().parse(HASH_KEY + 'secret_file = "/dev/zero"')
        self.assertTrue(unread.private)
        self.assertEqual((), unread.secrets)
        error = self.assertRaises(DescriptorError, unread.networks)
        self.assertIn("was not read", str(error))

    def test_others_may_not_read_it(self):
        """A descriptor with the secret in it is a secret file; one that only names it is not."""
        line = f'secret = "{secret().text}"'
        path = self.put("open.desc", HASH_KEY + line, 0o644)
        error = self.assertRaises(DescriptorError, DescriptorParser().parse_file, path)
        self.assertIn("chmod 600", str(error))
        self.put("s", secret().text)
        path = self.put("open.desc", HASH_KEY + 'secret_file = "s"', 0o644)
        self.assertEqual((secret(),), DescriptorParser().parse_file(path).secrets)

    def test_refusals(self):
        """Everything else is refused, in the line where it stands."""
        text = secret().text
        many = ", ".join(f'"{secret(number).text}"' for number in range(limits.SECRETS + 1))
        self.assert_refused("secret = 7", "is no text")
        self.assert_refused("secret = []", "is a list of 0")
        self.assert_refused(f"secret = [{many}]", f"is a list of {limits.SECRETS + 1}")
        self.assert_refused(f'secret = "{wrong(secret())}"', "is mistyped")
        self.assert_refused(f'secret = ["{text}", "x"]', "does not begin")
        self.assert_refused("secret_file = 7", "is no path")
        self.assert_refused('secret_file = ""', "is no path")
        self.assert_refused('secret_file = "none"', "No such file")
        self.put("s", text, 0o644)
        self.assert_refused('secret_file = "s"', "chmod 600")
        path = self.put("x.desc", f'{HASH_KEY}secret = "{text}"\nsecret_file = "s"')
        error = self.assertRaises(DescriptorError, DescriptorParser().parse_file, path)
        self.assertIn("keep one", str(error))


def wrong(made: Secret) -> str:
    """Return a secret's text with one letter changed."""
    last = made.text[-1]
    return made.text[:-1] + ("a" if last != "a" else "b")
