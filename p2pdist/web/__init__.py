"""The page, the API and the metrics of one node, for this machine only."""
