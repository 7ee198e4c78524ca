A node behind a NAT notices it, logs it, gets its peers with its first question instead of a delay, keeps a way in open to a few others, and is no longer recommended to those who cannot call it.
