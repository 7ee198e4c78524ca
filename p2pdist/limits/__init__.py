"""Every bound and timeout, with unit, reason and source.

Nothing in p2pdist grows without a name here. Units stand in the name (``_S`` seconds, ``_BYTES``)
or in the comment. Sources: BEPs, RFCs, papers, or the table in ``docs/protocol.md`` that the
simulations and measurements behind the design gave. Each name is reached by a test
(``test_tidy`` looks for it).

Three rooms, ``overlay``, ``swarm`` and ``node``; all names are used from here, as ``limits.NAME``.
"""

from p2pdist.limits.node import *  # noqa: F403
from p2pdist.limits.overlay import *  # noqa: F403
from p2pdist.limits.swarm import *  # noqa: F403
from p2pdist.limits.units import *  # noqa: F403
