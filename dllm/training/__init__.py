"""Training of the embedded models on the generated tasks."""
