Machines that begin in the same moment know each other within 0.3 seconds: new peers are told of others at once instead of at the next tick of a second.
