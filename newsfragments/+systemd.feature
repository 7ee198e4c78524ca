Systemd units run p2pdist as a user of its own, with nothing writable but its state and the downloads.
