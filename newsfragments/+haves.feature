Pieces are told of eight at a time instead of every 0.2 s: a swarm on lines of 1 Gbit/s takes 0.7 of the time (simulated), and one on slow lines sends less.
