Machines on one local network find each other by multicast, with no address in the descriptor at all.
