"""Who is in a swarm and how far everybody is: signed records, and gossip about them."""
