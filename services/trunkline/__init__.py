"""Trunkline: the LLM gateway whose books always balance."""
