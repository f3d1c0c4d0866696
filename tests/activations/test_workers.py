"""Work side by side: threads dealt out and given back, failures kept, nothing begun after one."""

import threading

import pytest
import torch

from sae_genomics.activations.extraction.workers import Workers


@pytest.fixture(autouse=True)
def six_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_one_lane_is_the_calling_thread():
    seen = []
    with Workers(1) as workers:
        assert workers.do(lambda: seen.append((threading.current_thread(), torch.get_num_threads()))) is None
    assert seen == [(threading.current_thread(), 6)]
    with pytest.raises(ZeroDivisionError), Workers(1) as workers:
        workers.do(lambda: 1 // 0)


@pytest.mark.parametrize(("count", "threads"), [(2, 3), (4, 1), (6, 1), (9, 1)])
def test_torchs_threads_are_dealt_out_and_given_back(count, threads):
    together, seen = threading.Barrier(count, timeout=60), []

    def work():
        together.wait()  # only if all workers are at work at once
        seen.append((threading.current_thread(), torch.get_num_threads()))

    with Workers(count) as workers:
        done = [workers.do(work) for _ in range(2 * count)]
        assert torch.get_num_threads() == 6
    assert all(future.done() for future in done)
    assert len({thread for thread, _ in seen}) == count
    assert {number for _, number in seen} == {threads}
    assert torch.get_num_threads() == threads_of_a_new_thread() == 6


def test_after_a_failure_nothing_is_begun():
    begun = []

    def work(number):
        begun.append(number)
        if number == 2:
            raise KeyError(number)

    with Workers(2) as workers:
        assert workers.do(lambda: work(0)).result() is None
        with pytest.raises(KeyError):
            workers.do(lambda: work(2)).result()
        for number in (3, 4):
            with pytest.raises(KeyError, match="2"):
                workers.do(lambda number=number: work(number)).result()
    assert begun == [0, 2]


def test_an_exception_drops_what_waits_and_outlasts_what_is_at_work():
    at_work, go_on, begun = threading.Barrier(3, timeout=60), threading.Event(), []

    def work(number):
        begun.append(number)
        at_work.wait()
        assert go_on.wait(60)

    done = []

    def fail_beside_them():
        with Workers(2) as workers:
            done.extend(workers.do(lambda number=number: work(number)) for number in range(5))
            at_work.wait()
            threading.Timer(0.2, go_on.set).start()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail_beside_them()
    assert begun == [0, 1]
    assert [future.cancelled() for future in done] == [False, False, True, True, True]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 6
