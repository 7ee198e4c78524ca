`p2pdist push FILE -H hosts.txt[:DIR]` brings a file onto many machines over ssh: temporary, encrypted
nodes, nothing installed, nothing left behind.
