"""The discrete-event twin: dispatch and scheduling, unchanged, against time that does not pass."""
