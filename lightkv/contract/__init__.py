"""What the engine and the methods agree on; neither knows more of the other than stands here."""
