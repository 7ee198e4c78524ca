Limits set by `p2pdist limit` or on the page outlive the process: they are in `limits` in the state directory,
and hold until they are lifted or the options say something else.
