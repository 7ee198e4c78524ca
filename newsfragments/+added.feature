What ``p2pdist add`` or the page brought to a running node is there again after a restart, until ``remove``.
