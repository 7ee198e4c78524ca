"""Contents that were added while the node ran, kept over its restarts (decision 22).

A file each in ``added/`` of the state directory, named by the hash key's digits, JSON::

    {"source": "/srv/model.desc", "text": "hash_key = ...", "signature": null, "path": null}

What was given stands there word for word (``text`` is ``null`` for a link) and is read at each
start as it was at first: its signature, and a secret file it names, are looked at again. The
descriptor's own file may be gone by then.

Job: remember, and read again. It does NOT serve. Threat: a damaged file, which is named in the log
and passed over; at most ``limits.DESCRIPTORS``. Tests: ``test_keptcontents``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import asdict, define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.python.failure import Failure

from p2pdist.contents import TransferService
from p2pdist.descriptor import URI_SCHEME, Descriptor, DescriptorParser, read_file, read_signature
from p2pdist.errors import DescriptorError, P2PDistError, UntrustedDescriptor
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.storage.statedir import StateDirectory
from p2pdist.workers import IWorkers


@frozen
class Given:
    """What a node was told to take, word for word.

    Attributes:
        source: path of the descriptor's file, or the link.
        text: what the file said; ``None`` for a link.
        signature: what stood beside it, if anything.
        path: where the content is, if that was said.
    """

    source: str
    text: str | None = None
    signature: str | None = None
    path: str | None = None

    @classmethod
    def read(cls, source: str, path: str | None) -> Given:
        """Return what a link or a descriptor's file says. Never waits.

        Raises:
            DescriptorError: the file cannot be read.
        """
        if source.startswith(URI_SCHEME):
            return cls(source, path=path)
        signature = None
        with suppress(DescriptorError):  # whoever asks for one says what is wrong with it
            signature = read_signature(source)
        # what is no text is refused where it is parsed
        text = read_file(source).decode("utf-8", "surrogateescape")
        return cls(source, text, None if signature is None else signature.decode("latin-1"), path)

    def descriptor(self, parser: DescriptorParser) -> Descriptor:
        """Return the descriptor.

        Raises:
            DescriptorError: it cannot be used, or is not signed as demanded.
        """
        if self.text is None:
            return parser.parse_uri(self.source)
        data = self.text.encode("utf-8", "surrogateescape")
        signature = None if self.signature is None else self.signature.encode("latin-1")
        return parser.parse(data, self.source, signature, self.source)

    @classmethod
    def decode(cls, data: bytes) -> Given | None:
        """Return what a file of ``added/`` says, ``None`` for anything else."""
        try:
            values: Any = json.loads(data)
            given = cls(**values)
        except (ValueError, TypeError, RecursionError):
            return None
        optional = (values.get(name) for name in ("text", "signature", "path"))
        texts = all(isinstance(value, str | None) for value in optional)
        return given if texts and isinstance(values["source"], str) else None


@frozen
class Kept:
    """What one file of ``added/`` holds.

    Attributes:
        key: of the content.
        file: that one.
        found: its descriptor, or why it cannot be used now.
        path: where the content is, if that was said.
    """

    key: HashKey
    file: str
    found: Descriptor | P2PDistError
    path: str | None = None


@define(eq=False)
class KeptContents:
    """What was added.

    Args:
        workers: where files are written.
        state: keeps it; ``None`` forgets it at the end.
    """

    workers: IWorkers
    state: StateDirectory | None = None
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    _log = new_logger()

    def keep(self, key: HashKey, given: Given) -> Deferred[None]:
        """Remember a content.

        Returns:
            Fires when it is saved, or cannot be, which is logged; never fails.
        """
        data = json.dumps(asdict(given)).encode()
        return self._work(lambda state: partial(state.save_added, key, data))

    def forget(self, key: HashKey) -> Deferred[None]:
        """Remember a content no more. Fires as :meth:`keep` does."""
        return self._work(lambda state: partial(state.drop_added, key))

    def read(self, parser: DescriptorParser) -> list[Kept]:
        """Return what is remembered, each read as it was at first. Blocks."""
        if self.state is None:
            return []
        kept = []
        for key, data in self.state.load_added():
            file = f"{self.state.added_path}/{key.hex()}"
            given = Given.decode(data)
            if given is None:
                self._log.warn("{file} is damaged; add that content again", file=file)
                continue
            try:
                found: Descriptor | P2PDistError = given.descriptor(parser)
            except P2PDistError as error:
                found = error
            if isinstance(found, P2PDistError) or found.hash_key == key:
                kept.append(Kept(key, file, found, given.path))
        return kept

    def take(
        self,
        kept: Iterable[Kept],
        contents: TransferService,
        elsewhere: Callable[[HashKey], bool] = lambda _key: False,
    ) -> None:
        """Serve what can be used; say of the others why not, and serve no more what nobody signs.

        Args:
            kept: as :meth:`read` returned it.
            contents: what is told.
            elsewhere: tells whether a descriptor file that is followed names a content.
        """
        for one in kept:
            if one.key in contents.paused:
                continue
            try:
                if isinstance(one.found, P2PDistError):
                    raise one.found
                contents.add(one.found, path=one.path)
            except P2PDistError as error:
                self._log.error(
                    "{reason}. It was added while the node ran, and is tried again at the next "
                    "start; remove {file} to forget it.",
                    reason=str(error),
                    file=one.file,
                )
                if isinstance(error, UntrustedDescriptor) and not elsewhere(one.key):
                    contents.remove(one.key)

    def _work(self, what: Callable[[StateDirectory], Callable[[], None]]) -> Deferred[None]:
        if self.state is None:
            return succeed(None)
        return self._turn.run(self.workers.run, what(self.state)).addErrback(self._eb_saved)

    def _eb_saved(self, failure: Failure) -> None:
        failure.trap(P2PDistError)
        self._log.warn(
            "what is added and removed is not saved and ends with this process: {reason}",
            reason=str(failure.value),
        )
