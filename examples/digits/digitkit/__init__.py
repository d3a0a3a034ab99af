"""What the digits example is made of: pictures, prompts, the parts of the model, and reading."""
