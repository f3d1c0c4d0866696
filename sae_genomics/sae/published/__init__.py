"""SAEs that somebody else trained: found (`sources`, `hub`), read (`convert`), checked (`check`) and taken over (`adopt`)."""
