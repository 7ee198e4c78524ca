`p2pdist simulate` runs lookups among up to a million simulated nodes with the overlay's own code, tells what they took, and with `--trace` one lookup's story datagram by datagram.
