The systemd units are `Type=notify`, with a watchdog that fires when the reactor or the disk hangs, a
status line ("42 %, 7/40 hosts done"), reload, credentials and, with `p2pdist.socket`, socket
activation for UDP and TCP. A container file and a Kubernetes DaemonSet are in `deploy/`.
