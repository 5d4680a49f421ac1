"""How fast this project is, beside what a user might take instead, and beside the bound set by its matrix products."""
