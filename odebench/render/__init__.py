"""How tables are written down, a module a form."""
