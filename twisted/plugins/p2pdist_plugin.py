"""Makes ``twistd p2pdist`` known; everything else lives in :mod:`p2pdist.faces.tap`."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "p2pdist",
    "p2pdist.faces.tap",
    "Tracker-less peer-to-peer distribution of one file or folder.",
    "p2pdist",
)
