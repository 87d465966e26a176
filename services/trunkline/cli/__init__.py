"""The command line: `parser` knows every flag and imports nothing of ours; a verb's module is loaded when it runs."""
