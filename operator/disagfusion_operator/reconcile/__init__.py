"""From what there is to what there should be, one pipeline at a time."""
