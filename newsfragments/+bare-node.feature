A node can be run without a descriptor; it then only helps others find each other.
