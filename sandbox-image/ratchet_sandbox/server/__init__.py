"""The sandbox's server: HTTPS for the operator, a ledger on disk, a loopback port for the runner.

It starts no user command, and after its start no thread and no process either: a fork bomb in
the shell's container must not be able to stop it. All disk work is done on the event loop; an
fsync'd insert takes about a millisecond.

    __main__   settings, signals, wiring
    api        HTTP: routes, token, validation, errors
    calls      what a call may do: reserve, hand over, wait, cancel, reconcile
    deadlines  how long the end of a call is waited for
    link       the runner's connection
    word       the one-time word that a runner proves itself with
    ledger     SQLite: what was reserved, what finished and how
"""
