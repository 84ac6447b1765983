"""How datasets lie on disk, one module a layout; `listing` asks them by name.

A layout module has `SPLITS` (names of its splits), `BY_GROUP` (whether groups can be split as well), `EXPECTED` (clip
counts that are published, by split), `class_names(spec)`, `list_class(spec, class_name)` and `why_none(spec)`. It reads
publishers' lists through `lists` and folder entries through `tree`, which never leaves the dataset's root, and opens no
video. What must hold for every layout is checked in `listing`.
"""
