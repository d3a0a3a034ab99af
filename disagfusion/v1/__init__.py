"""Generated from protos/disagfusion/v1; never edited."""
