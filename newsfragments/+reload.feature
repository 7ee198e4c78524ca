`SIGHUP` reads the lists of signers, secret files and the configuration file again, besides descriptors: new
limits, descriptors, signers and private networks hold at once, what needs a restart is named in the log.
A content whose secret file changed used to be refused at a reload; now it moves to the new network.
