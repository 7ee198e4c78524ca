Whatever sends ends with the exact command for the machines that receive: `make`, `seed`, `get --seed` and
`add`; with `--json` it is `receive`. Where the descriptor names no node it has this machine's addresses,
the public ones too, and where a secret file was given it says that receivers need it.
