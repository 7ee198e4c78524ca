"""p2pdist: one big file on N machines, without tracker or server.

The rooms, top to bottom (a module imports only from its own floor or below):

``faces``    the twistd plugin and the ``p2pdist`` command
``service``  what starts, in which order, and how it stops; ``config``, ``machine``
``session``  one descriptor's life: resolving, finding, joining, leeching, seeding
``swarm``    the file itself over TCP: framing, piece choice, uploading, transfer
``overlay``  finding peers over UDP: envelope, messages, RPC, routing, lookup
``storage``  pieces on disk: geometry, state file, store
the words    ``descriptor``, ``content``, ``keys``, ``ids``, ``addresses``, ``limits``, ``errors``
"""

__version__ = "0.1.0"
