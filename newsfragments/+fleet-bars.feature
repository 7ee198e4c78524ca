``p2pdist status --fleet`` shows a bar for each machine.
