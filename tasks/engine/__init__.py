"""The only room that knows doit: steps and records, memory, reporter, commands."""
