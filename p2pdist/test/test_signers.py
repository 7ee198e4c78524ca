"""Who may sign: allowed-signers files, revoked keys, and descriptors held against them."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.descriptor import DescriptorParser
from p2pdist.errors import ConfigurationError, DescriptorError
from p2pdist.signatures import NAMESPACE, PrivateKey, public_key_of, sign
from p2pdist.signers import (
    Signers,
    load_signers,
    matches,
    matches_list,
    parse_revoked,
    parse_signers,
)
from p2pdist.test.support import TestCase, given
from p2pdist.test.test_docs import document
from p2pdist.test.test_signatures import ED25519, OTHER, P256, armor, on_token, private_keys

DATA = f'hash_key = "b3:{"ab" * 32}"\nnodes = []\n'.encode()
KEY = public_key_of(ED25519).text
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()
FILE = "model.desc"


def now() -> float:
    """Return the time of day at which these tests take place."""
    return NOW


def signers(*lines: str, revoked: str = "") -> Signers:
    """Return what an allowed-signers file of these lines says."""
    found = parse_signers("\n".join(lines).encode(), "allowed", now)
    if not revoked:
        return found
    return Signers(
        source=found.source,
        lines=found.lines,
        revoked=parse_revoked(revoked.encode(), "revoked"),
        now=now,
    )


def signature(private: PrivateKey = ED25519, data: bytes = DATA, namespace: str = NAMESPACE):
    """Return the text of a signature file."""
    return sign(private, data, namespace).armored()


class CheckTests(TestCase):
    """A descriptor, its signature and the file."""

    def refused(self, allowed: Signers, text: bytes | None, data: bytes = DATA) -> DescriptorError:
        """Return the error; its text begins with the descriptor and ends with a remedy."""
        error: DescriptorError = self.assertRaises(DescriptorError, allowed.check, data, text, FILE)
        self.assertTrue(str(error).startswith(f"{FILE}: "), str(error))
        self.assertNotEqual("", error.remedy)
        return error

    def test_signed(self):
        """Every kind of key that is listed may sign, and is named."""
        for private in private_keys().values():
            key = public_key_of(private)
            allowed = signers(f"a@example {public_key_of(OTHER).text}", f"me {key.text} of mine")
            signer = allowed.check(DATA, signature(private), FILE)
            self.assertEqual(f"me ({key.fingerprint})", signer.words)

    def test_unsigned(self):
        """Without a signature it is said where it should be and how it is made."""
        error = self.refused(signers(f"me {KEY}"), None)
        self.assertIn("is not signed: there is no model.desc.sig", error.reason)
        self.assertIn("p2pdist sign", error.remedy)

    def test_tampered(self):
        """A descriptor that was changed after signing is refused, whatever the change."""
        allowed = signers(f"me {KEY}")
        for data in (DATA + b"\n", DATA.replace(b"ab", b"ac"), DATA[:-1], b""):
            self.assertIn("changed or damaged", self.refused(allowed, signature(), data).reason)

    def test_other_key(self):
        """A key that is not listed is named; nothing is computed with it."""
        error = self.refused(signers(f"me {KEY}"), signature(OTHER))
        self.assertIn(f"{public_key_of(OTHER).fingerprint}, which allowed does not", error.reason)
        forged = sign(ED25519, DATA).armored()
        self.refused(signers(f"me {public_key_of(OTHER).text}"), forged)

    def test_key_put_in_place(self):
        """A listed key with another key's proof is refused."""
        made = sign(OTHER, DATA)
        listed = public_key_of(ED25519)
        forged = type(made)(listed, made.namespace, made.algorithm, made.proof).armored()
        self.assertIn("changed or damaged", self.refused(signers(f"me {KEY}"), forged).reason)

    def test_other_namespace(self):
        """A signature made for another purpose is refused with that purpose."""
        error = self.refused(signers(f"me {KEY}"), signature(namespace="git"))
        self.assertIn("signed for 'git'", error.reason)
        self.assertIn(f"-n {NAMESPACE}", error.remedy)

    def test_unreadable(self):
        """A signature that is none is refused with the name of its file."""
        for text in (b"", DATA, armor(b"SSHSIG"), bytes(limits.SIGNATURE_BYTES + 1)):
            error = self.refused(signers(f"me {KEY}"), text)
            self.assertIn("model.desc.sig cannot be used: it ", error.reason)

    def test_revoked(self):
        """A revoked key is refused though it is listed; others go on."""
        allowed = signers(f"me {KEY}", f"you {public_key_of(P256).text}", revoked=f"\n{KEY} old")
        self.assertIn("is revoked", self.refused(allowed, signature()).reason)
        self.assertEqual("you", allowed.check(DATA, signature(P256), FILE).principals)

    def test_validity(self):
        """Before its time and after it a key may not sign; both ends belong to it."""
        for options, reason in (
            ('valid-before="20260228"', "has not been valid since "),
            ("valid-before=20260228235959Z", None),
            ('valid-before="20260228235959Z"', "not been valid since 2026-02-28 23:59:59 UTC"),
            ('valid-before="20260301Z"', ""),
            ('valid-after="20260301Z",valid-before="20270101"', ""),
            ('valid-after="202603010000Z"', ""),
            ('valid-after="20260301000001Z"', "is not valid before 2026-03-01 00:00:01 UTC"),
            ('valid-after="20270101"', "is not valid before "),
        ):
            if reason is None:  # OpenSSH wants quotation marks, too
                self.assertRaises(ConfigurationError, signers, f"me {options} {KEY}")
            elif reason:
                error = self.refused(signers(f"me {options} {KEY}"), signature())
                self.assertIn(reason, error.reason)
            else:
                signers(f"me {options} {KEY}").check(DATA, signature(), FILE)

    def test_expires_meanwhile(self):
        """A key that expires while the process runs is refused from then on."""
        clock = [NOW]
        line = f'me valid-before="20260310" {KEY}'.encode()
        allowed = parse_signers(line, "allowed", lambda: clock[0])
        allowed.check(DATA, signature(), FILE)
        clock[0] += 20 * 86400
        self.assertIn("has not been valid since", self.refused(allowed, signature()).reason)

    def test_local_time(self):
        """A time without ``Z`` is this machine's."""
        local = datetime(2026, 3, 1, 12, 30).timestamp()  # noqa: DTZ001 -- that is the point
        (line,) = signers(f'me VALID-AFTER="202603011230" {KEY}').lines
        self.assertEqual(local, line.valid_after)

    def test_namespaces(self):
        """A line may narrow its key to some purposes; one that excludes ours does not count."""
        for patterns in (NAMESPACE, f"file,{NAMESPACE}", "p2pdist-*", "*", "git,*,!email"):
            signers(f'me namespaces="{patterns}" {KEY}').check(DATA, signature(), FILE)
        for patterns in ("git", "", "p2pdist", f"*,!{NAMESPACE}", f"!{NAMESPACE},*", "!git"):
            error = self.refused(signers(f'me namespaces="{patterns}" {KEY}'), signature())
            self.assertIn("may not sign for p2pdist-descriptor", error.reason)

    def test_several_lines_of_one_key(self):
        """It is enough that one of a key's lines allows it."""
        allowed = signers(
            f'old valid-before="2020" {KEY}'.replace("2020", "20200101"),
            f'git namespaces="git" {KEY}',
            f"now {KEY}",
        )
        self.assertEqual("now", allowed.check(DATA, signature(), FILE).principals)


class FileTests(TestCase):
    """The format of allowed-signers files."""

    def test_lines(self):
        """Comments, blanks, tabs, quoted principals and comments after keys are understood."""
        found = signers(
            "# comment",
            "",
            " \t# another",
            f"  a@example,*@b.example\t{KEY}\tcomment with words",
            f'"two words,x" namespaces="git,mail",Valid-After="20200101" {KEY}\r',
            f'me namespaces="a \\"b\\", c"  {on_token(ED25519)[0].text}',
        ).lines
        self.assertEqual(
            [
                ("a@example,*@b.example", None, False),
                ("two words,x", "git,mail", True),
                ("me", 'a "b", c', False),
            ],
            [(line.principals, line.namespaces, line.valid_after is not None) for line in found],
        )

    def test_what_is_not_understood(self):
        """Every other line is refused with file, number and an example; none is skipped."""
        for line, reason in (
            (KEY, "no name before the key"),
            (f"{KEY} me@here", "no name before the key"),
            ("me", "no key after the first word"),
            ("me ssh-ed25519", "no public key"),
            ('"me ' + KEY, "quotation mark"),
            (f'm"e" {KEY}', "quotation mark"),
            (f'me namespaces="git {KEY}', "quotation mark"),
            (f"me cert-authority {KEY}", "certificates are not taken"),
            (f'me namespaces="x",CERT-AUTHORITY {KEY}', "certificates are not taken"),
            (f"me no-touch-required {KEY}", "neither an option"),
            (f'me namespaces="x"valid-after="20200101" {KEY}', "neither an option"),
            (f'me namespaces="x", {KEY}', "end with a comma"),
            (f"me namespaces {KEY}", "needs a value"),
            (f'me namespaces="x",namespaces="y" {KEY}', "is there twice"),
            (f'me valid-after="20200102",valid-before="20200102" {KEY}', "not later"),
            (f"me ssh-dss {KEY.split()[1]}", "neither an option nor a type"),
            (f"me ssh-rsa {KEY.split()[1]}", "of type ssh-ed25519"),
            (f"me {KEY[:-4]}", "too early"),
            (f"me {KEY}!", "base64"),
            (f"me\x00 {KEY}\x00", "base64"),
        ):
            caught = self.assertRaises(ConfigurationError, signers, f"me {KEY}", line)
            self.assertTrue(str(caught).startswith("allowed:2: "), str(caught))
            self.assertIn(reason, str(caught))
            self.assertIn("lines look like: release@example.org", str(caught))

    def test_times(self):
        """Only the written forms of a time that exists are understood."""
        for text in (
            *("", "2026", "20260229", "20261301", "20260101 1200", "2026010112", "202601012500"),
            *(
                "20260101Z0",
                "20260101z",
                "0x1",
                "00000101",
                "\uff12\uff10260101",
                "99991231235960Z",
            ),
        ):
            caught = self.assertRaises(
                ConfigurationError, signers, f'me valid-before="{text}" {KEY}'
            )
            self.assertIn("is no time; write YYYYMMDD", str(caught), text)

    def test_empty(self):
        """A file that names nobody is refused: it would refuse every descriptor."""
        for text in ("", "\n", "# me\n"):
            self.assertIn(
                "names no signer", str(self.assertRaises(ConfigurationError, signers, text))
            )

    def test_bounds(self):
        """Size, count of keys and length of a line are bounded."""
        line = f"me {KEY}"
        text = "\n".join([line] * limits.SIGNERS)
        self.assertEqual(limits.SIGNERS, len(signers(text).lines))
        for over, reason in (
            (f"{text}\n{line}", f"more than {limits.SIGNERS} keys"),
            (line + "\n#" + "x" * limits.SIGNERS_BYTES, f"than {limits.SIGNERS_BYTES} bytes"),
            (line + "x" * limits.SIGNER_LINE_BYTES, f"than {limits.SIGNER_LINE_BYTES} bytes"),
        ):
            self.assertIn(reason, str(self.assertRaises(ConfigurationError, signers, over)))
        signers(line + " " + "x" * (limits.SIGNER_LINE_BYTES - len(line) - 1))

    def test_revoked_keys(self):
        """Revoked keys are lines of ``.pub`` files; a binary list is refused with the way out."""
        text = f"# gone\n{KEY} me@here\n\n{public_key_of(OTHER).text}\n".encode()
        blobs = {public_key_of(private).blob for private in (ED25519, OTHER)}
        self.assertEqual(blobs, parse_revoked(text, "revoked"))
        self.assertEqual(frozenset(), parse_revoked(b"", "revoked"))
        for data, reason in (
            (b"SSHKRL\n\0" + bytes(40), "one a line"),
            (b"\nme " + KEY.encode(), "revoked:2: "),
            (b"SHA256:abc", "no public key"),
        ):
            caught = self.assertRaises(ConfigurationError, parse_revoked, data, "revoked")
            self.assertIn(reason, str(caught))

    @given(
        st.lists(
            st.sampled_from(
                [
                    *("me", '"', "\\", ",", "=", " ", "\t", "\n", "\r", "#", "*", "!", "\0", "é"),
                    *("namespaces=", "valid-after=", "valid-before=", '"20260101"', '"git"', KEY),
                    *("cert-authority", "ssh-ed25519", "ssh-rsa", KEY.split()[1]),
                ]
            ),
            max_size=40,
        )
    )
    def test_any_words(self, words: list[str]):
        """Any text is a list of signers or a ConfigurationError, and the same for revoked keys."""
        data = "".join(words).encode()
        self.assert_value_or_refusal(lambda: parse_signers(data, "x", now))
        self.assert_value_or_refusal(lambda: parse_revoked(data, "x"))

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes):
        """The same for any bytes, also behind a good line."""
        for text in (data, f"me {KEY}\n".encode() + data):
            self.assert_value_or_refusal(functools.partial(parse_signers, text, "x", now))

    def assert_value_or_refusal(self, parse: Callable[[], object]) -> None:
        """Fail on any other error than one that names the file."""
        try:
            parse()
        except ConfigurationError as error:
            self.assertTrue(str(error).startswith("x:"))

    def test_hard_lines(self):
        """Lines that are hard on patterns and regular expressions end at once, too."""
        size = limits.SIGNER_LINE_BYTES - len(KEY) - 30
        for middle in ('\\"' * (size // 2), '"' * size, "a=" * (size // 2), '"\\' * (size // 2)):
            self.assertRaises(ConfigurationError, signers, f"me {middle} {KEY}")
        hard = f'me namespaces="{"*p" * (size // 2)}x" {KEY}'
        self.assertIsNotNone(signers(hard).lines[0].objection(NOW))


class PatternTests(TestCase):
    """Patterns of OpenSSH."""

    @given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
    def test_as_in_the_shell(self, pattern: str, text: str):
        """Stars and question marks mean what they mean in file names."""
        self.assertEqual(fnmatch.fnmatchcase(text, pattern), matches(text, pattern))

    def test_lists(self):
        """One of a list has to fit, and nothing that is excluded."""
        for patterns, expected in (
            *(("a", True), ("b", False), ("b,a", True), ("", False), ("!a", False), ("!b", False)),
            *(("*,!a", False), ("!a,*", False), ("!b,*", True), ("[a]", False)),
        ):
            self.assertEqual(expected, matches_list("a", patterns), patterns)


class DescriptorTests(TestCase):
    """The parser of descriptors, told whose to accept."""

    def setUp(self):
        """Make a folder with a descriptor and an allowed-signers file."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "x.desc"
        self.path.write_bytes(DATA)
        self.sig = self.folder / "x.desc.sig"
        self.allowed = self.folder / "allowed"
        self.allowed.write_text(f"me {KEY}\n")

    def parser(self) -> DescriptorParser:
        """Return a parser that reads the allowed-signers file."""
        return DescriptorParser(load_signers(str(self.allowed), now))

    def test_signed_file(self):
        """A signed file is read as ever, and says who signed it."""
        self.sig.write_bytes(signature())
        found = self.parser().parse_file(str(self.path))
        self.assertEqual(DescriptorParser().parse(DATA), found)
        self.assertEqual(f"me ({public_key_of(ED25519).fingerprint})", found.signed_by)

    def test_without_signers(self):
        """Who names no signers gets the descriptor whatever lies beside it."""
        for text in (b"", b"nonsense", signature(OTHER), signature(data=b"other")):
            self.sig.write_bytes(text)
            found = DescriptorParser().parse_file(str(self.path))
            self.assertIsNone(found.signed_by)

    def test_refused_files(self):
        """Unsigned and changed files are refused, before anything in them is looked at."""
        refused = (b"not a descriptor at all", DATA + b"\n", DATA)
        for data in refused:
            self.path.write_bytes(data)
            error = self.assertRaises(DescriptorError, self.parser().parse_file, str(self.path))
            self.assertIn("is not signed", error.reason)
        self.sig.write_bytes(signature())
        for data in refused[:-1]:
            self.path.write_bytes(data)
            error = self.assertRaises(DescriptorError, self.parser().parse_file, str(self.path))
            self.assertIn("changed or damaged", error.reason)

    def test_texts_and_lines(self):
        """A text counts with its signature only; a one-line descriptor cannot have any."""
        parser = self.parser()
        self.assertRaises(DescriptorError, parser.parse, DATA)
        parser.parse(DATA, "x", signature())
        parser.parse(DATA.decode(), "x", signature())
        link = DescriptorParser().parse(DATA).to_uri()
        error = self.assertRaises(DescriptorError, parser.parse_uri, link)
        self.assertIn("one line cannot carry a signature", error.reason)
        self.assertIn("use the descriptor file", error.remedy)

    def test_signature_that_is_no_file(self):
        """A folder or FIFO in the signature's place is refused, and nobody waits."""
        os.mkfifo(self.sig)
        parser = self.parser()
        error = self.assertRaises(DescriptorError, parser.parse_file, str(self.path))
        self.assertIn("x.desc.sig: is no regular file", str(error))
        self.sig.unlink()
        self.sig.mkdir()
        error = self.assertRaises(DescriptorError, parser.parse_file, str(self.path))
        self.assertIn("x.desc.sig: is a folder", str(error))

    def test_lists_that_are_no_files(self):
        """Allowed-signers and revoked-keys files that cannot be read are named."""
        good, bad = str(self.allowed), str(self.folder)
        for paths in ((bad, None), (bad + "/none", None), (good, bad), (good, bad + "/none")):
            caught = self.assertRaises(ConfigurationError, load_signers, paths[0], now, paths[1])
            self.assertIn(f"{bad}", str(caught))

    def test_revoked_file(self):
        """Keys in the file of revoked keys do not count."""
        revoked = self.folder / "revoked"
        revoked.write_text(KEY)
        allowed = load_signers(str(self.allowed), now, str(revoked))
        error = self.assertRaises(DescriptorError, allowed.check, DATA, signature(), FILE)
        self.assertIn("revoked", error.reason)


class DocumentTests(TestCase):
    """The example in docs/protocol.md."""

    def test_example(self):
        """The document's signature is that of its descriptor, byte for byte."""
        text = document("docs/protocol.md")
        toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0].encode()
        (armored,) = re.findall(
            r"^(-+BEGIN SSH SIGNATURE-+\n.*?-+END SSH SIGNATURE-+\n)",
            text,
            re.MULTILINE | re.DOTALL,
        )
        self.assertEqual(sign(ED25519, toml).armored().decode(), armored)
        signers(f"me {KEY}").check(toml, armored.encode(), FILE)
