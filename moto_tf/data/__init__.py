"""Episode files, scripted demonstrations and tools to look at them."""
