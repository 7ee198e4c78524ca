"""Tests of addresses: forms, scopes, and what limits count by."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist import addresses, limits
from p2pdist.addresses import Address, HostPort, Scope
from p2pdist.errors import MalformedMessage
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

UNUSABLE = (
    *("0.0.0.0", "0.1.2.3", "224.0.0.1", "239.192.76.67", "240.0.0.1", "255.255.255.255"),
    *("::", "ff02::1", "fe80::1", "::ffff:10.0.0.1"),
)


class FactTests(TestCase):
    """What kind of address it is."""

    def test_scopes(self):
        """Loopback, private and global addresses of both families are told apart."""
        for scope, hosts in (
            (Scope.LOOPBACK, ("127.0.0.1", "127.9.9.9", "::1")),
            (Scope.PRIVATE, ("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "fd00::1")),
            (Scope.PRIVATE, ("100.64.0.1",)),
            (Scope.GLOBAL, ("8.8.8.8", "2a00::1")),
        ):
            for host in hosts:
                self.assertEqual(scope, addresses.scope(Address(host, 1)))
        self.assertTrue(Scope.LOOPBACK < Scope.PRIVATE < Scope.GLOBAL)

    def test_families(self):
        """IPv6 is told from IPv4, and shown in brackets."""
        self.assertTrue(addresses.is_ipv6(Address("2a00::1", 1)))
        self.assertFalse(addresses.is_ipv6(Address("8.8.8.8", 1)))
        self.assertEqual("[2a00::1]:1", str(Address("2a00::1", 1)))
        self.assertEqual("8.8.8.8:1", str(Address("8.8.8.8", 1)))

    def test_usable(self):
        """Neither port 0 nor an address of many machines, of none, or in disguise is usable."""
        for host in ("8.8.8.8", "10.0.0.1", "127.0.0.1", "2a00::1", "::1", "fd00::1"):
            self.assertTrue(addresses.usable(Address(host, 1)))
            self.assertTrue(addresses.usable(Address(host, 65535)))
            for port in (-1, 0, 65536):
                self.assertFalse(addresses.usable(Address(host, port)))
        for host in UNUSABLE:
            self.assertFalse(addresses.usable(Address(host, 1)))

    def test_cache_is_no_bound(self):
        """More addresses than the cache keeps are still told apart."""
        for number in range(limits.ADDRESS_CACHE + 10):
            self.assertTrue(addresses.usable(Address(f"10.{number >> 8}.{number & 255}.1", 1)))
        self.assertEqual(Scope.PRIVATE, addresses.scope(Address("10.0.0.1", 1)))


class KeyTests(TestCase):
    """What limits and caps count by (decisions 10, 13 and 15)."""

    def key(self, host: str, port: int = 1) -> bytes:
        """Return the limit key."""
        return addresses.limit_key(Address(host, port))

    def test_limit_key(self):
        """Local addresses are counted by port, global hosts whole, IPv6 ones by /64."""
        for host in ("127.0.0.1", "10.0.0.1", "::1", "fd00::1"):
            self.assertNotEqual(self.key(host), self.key(host, 2))
        self.assertEqual(self.key("8.8.8.8"), self.key("8.8.8.8", 2))
        self.assertNotEqual(self.key("8.8.8.8"), self.key("8.8.8.9"))
        self.assertEqual(self.key("2a00:0:0:1::1"), self.key("2a00:0:0:1:ffff::2", 2))
        self.assertNotEqual(self.key("2a00:0:0:1::1"), self.key("2a00:0:0:2::1"))

    def test_subnet_key(self):
        """Global addresses share a /24 or /48; local ones are under no cap."""
        key = addresses.subnet_key
        self.assertEqual(key(Address("8.8.8.1", 1)), key(Address("8.8.8.255", 9)))
        self.assertNotEqual(key(Address("8.8.8.1", 1)), key(Address("8.8.9.1", 1)))
        self.assertEqual(key(Address("2a00:1:2:3::", 1)), key(Address("2a00:1:2:4::", 1)))
        self.assertNotEqual(key(Address("2a00:1:2::", 1)), key(Address("2a00:1:3::", 1)))
        self.assertIsNone(key(Address("10.0.0.1", 1)))
        self.assertIsNone(key(Address("::1", 1)))

    def test_eviction_key(self):
        """Every address belongs to a /24 or /64, local ones too."""
        key = addresses.eviction_key
        self.assertEqual(key(Address("10.0.0.1", 1)), key(Address("10.0.0.2", 2)))
        self.assertEqual(key(Address("2a00::1", 1)), key(Address("2a00::2", 2)))
        self.assertNotEqual(key(Address("2a00::1", 1)), key(Address("2a00:0:0:1::1", 1)))


class PackedTests(TestCase):
    """The wire form (BEP 5, BEP 32)."""

    def test_bytes(self):
        """IP then port, both big-endian."""
        self.assertEqual(b"\x01\x02\x03\x04\x1d\xf3", addresses.pack(Address("1.2.3.4", 7667)))
        expected = bytes.fromhex("20010db8" + "00" * 11 + "05" + "0001")
        self.assertEqual(expected, addresses.pack(Address("2001:db8::5", 1)))

    @given(strategies.addresses())
    def test_round_trip(self, address: Address):
        """What was packed unpacks to the same."""
        self.assertEqual(address, addresses.unpack(addresses.pack(address)))

    @given(st.binary(max_size=20) | st.binary(min_size=6, max_size=6))
    def test_hostile_bytes(self, data: bytes):
        """Any bytes give a usable address or MalformedMessage."""
        try:
            address = addresses.unpack(data)
        except MalformedMessage:
            return
        self.assertTrue(addresses.usable(address))
        self.assertEqual(data, addresses.pack(address))

    def test_unusable_addresses_are_refused(self):
        """No stranger can make us send to a broadcast or mapped address, or to port 0."""
        for host in UNUSABLE:
            data = addresses.pack(Address(host, 1))
            error = self.assertRaises(MalformedMessage, addresses.unpack, data)
            self.assertEqual("address-unusable", error.rule)
        self.assertRaises(MalformedMessage, addresses.unpack, b"\x08\x08\x08\x08\0\0")

    @given(st.lists(strategies.ip4_addresses(), max_size=5))
    def test_lists(self, items: list[Address]):
        """A list is its addresses end to end; a remainder is refused."""
        data = b"".join(map(addresses.pack, items))
        self.assertEqual(tuple(items), addresses.unpack_list(data, 6))
        self.assertRaises(MalformedMessage, addresses.unpack_list, data + b"x", 6)


class SocketTests(TestCase):
    """Addresses at the socket's edge (decision 16)."""

    def test_mapped_addresses_become_ipv4(self):
        """A dual-stack socket shows IPv4 as mapped; zones are cut off."""
        self.assertEqual(Address("1.2.3.4", 5), addresses.from_socket("::ffff:1.2.3.4", 5))
        self.assertEqual(Address("fe80::1", 5), addresses.from_socket("fe80::1%eth0", 5))
        self.assertEqual(Address("2a00::1", 5), addresses.from_socket("2a00::1", 5))
        self.assertEqual(Address("1.2.3.4", 5), addresses.from_socket("1.2.3.4", 5))

    @given(strategies.addresses())
    def test_to_and_from(self, address: Address):
        """What goes out through an IPv6 socket is recognised when it comes back."""
        host = addresses.to_ipv6_socket(address.host)
        self.assertIn(":", host)
        self.assertEqual(address, addresses.from_socket(host, address.port))

    def test_canonical_ip(self):
        """One text per address; names and zones are no addresses."""
        for text, expected in (
            ("10.0.0.1", "10.0.0.1"),
            ("2001:DB8:0:0::5", "2001:db8::5"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fe80::1%eth0", None),
            ("010.0.0.1", None),
            ("10.0.0", None),
            ("a.example", None),
            ("", None),
        ):
            self.assertEqual(expected, addresses.canonical_ip(text))


class HostPortTests(TestCase):
    """What users write."""

    def test_forms(self):
        """Addresses and names of each form, with and without port."""
        for text, host, port in (
            ("10.0.0.5", "10.0.0.5", limits.DEFAULT_PORT),
            ("10.0.0.5:1", "10.0.0.5", 1),
            ("2001:DB8::5", "2001:db8::5", limits.DEFAULT_PORT),
            ("[2001:db8::5]", "2001:db8::5", limits.DEFAULT_PORT),
            ("[2001:db8::5]:65535", "2001:db8::5", 65535),
            ("Node-1.Example.ORG:80", "node-1.example.org", 80),
            ("my_host", "my_host", limits.DEFAULT_PORT),
            ("localhost:7667", "localhost", 7667),
            ("::ffff:10.0.0.5", "10.0.0.5", limits.DEFAULT_PORT),
        ):
            self.assertEqual(HostPort(host, port), addresses.parse_host_port(text))
        self.assertEqual(HostPort("a", 5), addresses.parse_host_port("a", 5))

    @given(strategies.host_ports())
    def test_round_trip(self, node: HostPort):
        """What is written can be read."""
        self.assertEqual(node, addresses.parse_host_port(str(node)))

    def test_slips_are_refused(self):
        """Each slip is refused with a sentence that says what is expected."""
        for text in (
            *("", ":", ":1", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a: 1", "a:1x", "a:123456"),
            *("a:٣", "[", "[]", "[::1", "::1]", "[::1]1", "[::1]:", "1.2.3", "1.2.3.4.5"),
            *("999.1.1.1", "http://a", "a b", "a/b", "-a", "a-", "a..b", ".a", "é", "fe80::1"),
            *("0.0.0.0", "224.0.0.1:5", "255.255.255.255", "x" * 64, "a." * 130, "a\n", "12345"),
        ):
            error = self.assertRaises(ValueError, addresses.parse_host_port, text)
            self.assertIn("; expected host:port", str(error))
            self.assertTrue(str(error).isprintable())

    @given(st.text(max_size=40) | st.text("[]:.0123456789abc", max_size=30))
    def test_any_text(self, text: str):
        """Any text gives a node that can be written and read again, or ValueError."""
        try:
            node = addresses.parse_host_port(text)
        except ValueError:
            return
        self.assertEqual(node, addresses.parse_host_port(str(node)))
