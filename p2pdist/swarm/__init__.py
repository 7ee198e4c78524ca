"""Moving one content over TCP: framing, piece choice, uploading, connections, transfer."""
