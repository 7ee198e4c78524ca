`p2pdist id` prints the node id and the public key of a state directory.
