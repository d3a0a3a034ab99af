"""A DiT's front and engine as processes, fed and relieved over links of any shape."""
