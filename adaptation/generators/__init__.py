"""Meta-trained generators: networks that look at a batch and give the parameters of another network."""
