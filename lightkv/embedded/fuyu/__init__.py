"""The encoder-free model: a stock Fuyu for the square model's pictures and questions."""
