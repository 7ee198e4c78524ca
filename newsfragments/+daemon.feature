`twistd p2pdist` follows folders of descriptors (`--watch`), reads descriptors again at SIGHUP, runs a
command once for each complete content (`--on-complete`), ends by itself at a goal (`--exit-when`) and
takes its options from a TOML file (`--config`). A second SIGTERM ends it at once.
