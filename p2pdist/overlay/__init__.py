"""Finding peers over UDP: envelope, messages, RPC, routing, lookup. Knows neither files nor TCP."""
