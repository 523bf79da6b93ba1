"""Attacks: they propose candidates. The verdict judges them; nothing an attack says about success is reported."""
