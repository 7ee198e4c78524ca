"""Many overlay nodes in one process: the production code on simulated time and links."""
