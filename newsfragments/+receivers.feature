`p2pdist seed` ends with the exact command for the machines that receive, with this machine's addresses
where the descriptor names no node.
