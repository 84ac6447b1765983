"""Asset checks: what must hold of the data, judged by pure functions of `distill`."""
