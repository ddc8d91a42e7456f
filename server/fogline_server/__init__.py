"""The cloud coordinator: see docs/architecture.md for what each folder is for."""
