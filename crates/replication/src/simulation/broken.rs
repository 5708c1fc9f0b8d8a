//! Each rule broken once: then the simulation fails, within the seeds of the ordinary run.
