"""Who runs what next: a pure state machine, events in and actions out."""
