The page's graph of connections says what its colours mean, and shows at a glance which peers have everything.
