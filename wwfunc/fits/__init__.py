"""Every fit of a tail."""
