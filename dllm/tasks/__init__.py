"""Tasks: generated samples, prompts, references and exact graders."""
