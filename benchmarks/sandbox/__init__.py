"""What a sandbox costs: its start, a call, its memory, each beside a floor measured in the same run.

measure   one benchmark from its namespace to its figures
starts    from a pod's creation to the first result, beside pods of other shapes
calls     a tool's round trip, beside bare SQLite, bare HTTPS and a bare bash
https     the bare HTTPS server
memory    what server and runner have resident
figures   what was found
report    the table, the fields, the targets
"""
