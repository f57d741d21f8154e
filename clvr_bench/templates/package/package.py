"""plugin_name: a plugin_kind for clvr-bench."""
