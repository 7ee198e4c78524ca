"""What a node does as a process of a machine: follow files, run a command, end, tell systemd.

Everything here is optional, and stands on the service; nothing in the service knows of it.
"""
