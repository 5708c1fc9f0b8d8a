//! What a status says after what was done.
