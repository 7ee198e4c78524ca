`p2pdist doctor` looks at ports, folders, state directory, clock, limits and MTU of a machine and tries
the nodes of descriptors over UDP and TCP; `p2pdist completion` prints completion for bash, zsh and
fish.
