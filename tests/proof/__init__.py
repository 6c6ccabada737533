"""The proof that nothing runs twice and nothing is lost: `make prove`.

Each level is a module with rows as its outcome (`rows.py`), judged by one pure
function (`judging.py`) from what an outside ledger and the journal say.
"""
