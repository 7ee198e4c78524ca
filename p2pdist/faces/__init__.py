"""What people and machines see: the twistd plugin and the p2pdist command."""
