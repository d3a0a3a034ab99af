"""The `disagfusion` command."""
