"""The drivers that need no SDK. Each sees of the library what any driver sees."""
