"""Only @triton.jit functions; one file per kernel family."""
