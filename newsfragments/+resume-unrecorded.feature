A download that was killed finds the pieces it had written and not yet recorded, up to 5 s of work: they are not fetched again.
