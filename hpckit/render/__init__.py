"""Launch lines and scripts, as pure functions: nothing here starts a process."""
