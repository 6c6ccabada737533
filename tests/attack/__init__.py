"""What a hostile model may try, against real sandboxes: `make attack`.

Each test is one named case, with an outcome that it asserts. `test_<category>.py` holds the cases
of a category; the whole is run once for each container runtime.

    conftest   the sandboxes, and what is noted of each case
    notes      what became of a case; the notes of a run as a file
    report     build/attack.json and the table of docs/security.md
"""
