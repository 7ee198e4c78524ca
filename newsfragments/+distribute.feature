p2pdist distributes one big file or folder to any number of machines, without tracker or server: `p2pdist make` writes a descriptor, `p2pdist get`, `p2pdist seed` or `twistd -n p2pdist` do the rest.
