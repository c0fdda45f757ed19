"""ParallelBench, version 1 (arXiv 2510.04767): its files, prompts and metrics."""
