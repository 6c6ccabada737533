"""Whose turn it is: the order as it is written down, and that nobody starves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from ratchet.core.facts import Ticket
from ratchet.core.queue import AGED_S, OLDEST_EVERY, Queue

from tests.unit.gate.tickets import ticket


def taken(queue: Queue, now: float) -> list[int]:
    order = []
    while (key := queue.head(now)) is not None:
        queue.take(key)
        order.append(key)
    return order


def test_who_does_not_wait_so_long_leaves_and_the_others_keep_their_order() -> None:
    queue = Queue()
    for key, patience_s in enumerate([None, 30, 5, 60, 30]):
        queue.add(key, ticket(key, patience_s=patience_s), 0)
    queue.drop(4)
    assert queue.drop_impatient(5) == ()
    assert queue.drop_impatient(31) == (2, 1)
    assert queue.drop_impatient(31) == ()
    assert taken(queue, 0) == [0, 3]


def test_those_who_left_are_forgotten() -> None:
    queue = Queue()
    for key in range(1000):
        queue.add(key, ticket(key, patience_s=30), 0)
        queue.take(key)
    assert len(queue._impatient) < 100


def test_running_tasks_come_before_new_ones_and_then_priority_and_age_decide() -> None:
    queue = Queue()
    tickets = {
        1: ticket(1, priority=5),
        2: ticket(2),
        3: ticket(3, running=True),
        4: ticket(4, running=True, priority=1),
        5: ticket(5, running=True, began_s=0),
        6: ticket(6),
    }
    for key, each in tickets.items():
        queue.add(key, each, 0)
    assert queue.order(0) == [4, 5, 3, 1, 2, 6]
    assert taken(queue, 0) == [4, 5, 3, 1, 2, 6]


def test_tasks_of_the_same_age_are_told_apart_by_their_uids() -> None:
    queue = Queue()
    queue.add(1, ticket(2, began_s=0), 0)
    queue.add(2, ticket(1, began_s=0), 0)
    assert taken(queue, 0) == [2, 1]


def test_five_minutes_of_waiting_are_worth_as_much_as_being_a_running_task() -> None:
    queue = Queue()
    queue.add(1, ticket(1), 0)
    queue.add(2, ticket(2, running=True), AGED_S - 1)
    assert queue.head(AGED_S - 1) == 2
    assert queue.head(AGED_S) == 1


def test_each_tenth_place_goes_to_the_task_that_began_first_of_those_that_waited_long() -> None:
    queue = Queue()
    queue.add(0, ticket(0, priority=-1000), 0)
    for key in range(1, 2 * OLDEST_EVERY):
        queue.add(key, ticket(key, priority=1000, running=True), AGED_S)
    order = taken(queue, AGED_S)
    assert order.index(0) == OLDEST_EVERY - 1


def test_a_ticket_that_leaves_is_never_next() -> None:
    queue = Queue()
    for key in range(200):
        queue.add(key, ticket(key), 0)
    for key in range(0, 200, 2):
        queue.drop(key)
    assert taken(queue, 2 * AGED_S) == list(range(1, 200, 2))
    assert len(queue) == 0 and queue.head(2 * AGED_S) is None


# --- for all histories -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Enters:
    ticket: Ticket


@dataclass(frozen=True)
class Leaves:
    which: int


@dataclass(frozen=True)
class Passes:
    seconds: float


class Takes:
    pass


tickets = st.builds(
    lambda uid, priority, running, began: ticket(
        uid, priority=priority, running=running, began_s=began
    ),
    st.integers(0, 99), st.integers(-2, 2), st.booleans(), st.integers(0, 3),
)  # fmt: skip
histories = st.lists(
    st.one_of(
        st.builds(Enters, tickets),
        st.builds(Leaves, st.integers(0, 1000)),
        st.builds(Passes, st.sampled_from([1.0, 149.0, 150.0, 300.0])),
        st.builds(Takes),
    ),
    max_size=120,
)


class Naive:
    """The rule again, as slow and plain as it can be written."""

    def __init__(self) -> None:
        self.waiting: dict[int, tuple[Ticket, float]] = {}
        self.taken = 0

    def order(self, now: float) -> list[int]:
        def rank(key: int) -> tuple[object, ...]:
            one, since = self.waiting[key]
            first_class = one.running or now - since >= AGED_S
            return not first_class, -one.priority, one.created, one.task.uid, key

        return sorted(self.waiting, key=rank)

    def head(self, now: float) -> int | None:
        aged = [key for key, (_, since) in self.waiting.items() if now - since >= AGED_S]
        if aged and (self.taken + 1) % OLDEST_EVERY == 0:
            return min(
                aged, key=lambda k: (self.waiting[k][0].created, self.waiting[k][0].task.uid, k)
            )
        order = self.order(now)
        return order[0] if order else None


@settings(max_examples=300, deadline=None)
@given(histories)
def test_the_order_is_as_it_is_written(history: list[object]) -> None:
    queue, naive, now = Queue(), Naive(), 0.0
    for key, step in enumerate(history):
        match step:
            case Enters(one):
                queue.add(key, one, now)
                naive.waiting[key] = one, now
            case Leaves(which) if naive.waiting:
                gone = sorted(naive.waiting)[which % len(naive.waiting)]
                queue.drop(gone)
                del naive.waiting[gone]
            case Passes(seconds):
                now += seconds
            case Takes() if (head := naive.head(now)) is not None:
                assert queue.head(now) == head
                queue.take(head)
                del naive.waiting[head]
                naive.taken += 1
        assert queue.head(now) == naive.head(now)
        assert queue.order(now) == naive.order(now)
        assert len(queue) == len(naive.waiting)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(1, 3), st.floats(0.5, 20))
def test_nobody_starves_however_many_better_ones_keep_coming(
    priorities: list[int], turns: int, pace_s: float
) -> None:
    """One place, which a crowd of running tasks of the highest priority always wants too."""
    queue, now, keys = Queue(), 0.0, iter(range(10**6))
    left = dict.fromkeys(range(len(priorities)), turns)
    owner: dict[int, int] = {}

    def comes(number: int) -> None:
        key = next(keys)
        owner[key] = number
        one = ticket(number, priority=priorities[number], running=left[number] < turns)
        queue.add(key, one, now)

    def crowd() -> None:
        queue.add(next(keys), replace(ticket(9999, priority=1000, running=True)), now)

    for number in left:
        comes(number)
    for _ in range(5):
        crowd()
    admissions = 0
    while any(left.values()):
        now += pace_s
        head = queue.head(now)
        assert head is not None
        queue.take(head)
        admissions += 1
        if head not in owner:
            crowd()
        else:
            number = owner.pop(head)
            left[number] -= 1
            if left[number]:
                comes(number)
        each_turn = OLDEST_EVERY + AGED_S / pace_s
        assert admissions <= (len(priorities) + 6) * turns * each_turn + OLDEST_EVERY
