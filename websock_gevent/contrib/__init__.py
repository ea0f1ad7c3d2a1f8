"""Bridges to other people's libraries: each a module of its own, which needs what it is named after."""
