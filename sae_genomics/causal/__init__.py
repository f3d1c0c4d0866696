"""What features do: edits of a layer's activations, and what they change in the model's predictions."""
