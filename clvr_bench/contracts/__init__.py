"""What a plugin subclasses, receives and returns. Nothing here knows any plugin, and nothing here runs one."""
