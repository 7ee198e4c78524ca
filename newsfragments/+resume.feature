A download goes on where it was after a crash or restart, and appears under its own name only when every piece is verified.
