A seeder sends pieces with sendfile, a downloader reads them straight into their place and uses the same memory again; private (TLS) connections go the way they did.
