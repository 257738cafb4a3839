"""Training small models from scratch, for what no package ships."""
