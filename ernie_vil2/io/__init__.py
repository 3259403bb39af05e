"""Files, folders and messages: how they are named, read, written, locked and downloaded."""
