"""LauncherService, as the handler calls it."""
