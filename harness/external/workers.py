"""Several requests at the same time, their answers in the order in which they come."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from harness.external.answers import Answer
from harness.external.prompts import Prompt


class _Ended(NamedTuple):
    """What became of a request."""

    prompt: Prompt
    answer: Answer | None
    error: BaseException | None = None


def asked(prompts: Sequence[Prompt], ask: Callable[[Prompt], Answer], parallel: int) -> Iterator[tuple[Prompt, Answer]]:
    """Every window with its answer, as it comes; what a request raises is raised here, when others have ended.

    Threads of `parallel` requests. They are daemons: an interrupted program does not wait for a slow server.
    """
    todo: queue.SimpleQueue[Prompt] = queue.SimpleQueue()
    ended: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
    stop = threading.Event()
    for prompt in prompts:
        todo.put(prompt)

    def work() -> None:
        while not stop.is_set():
            try:
                prompt = todo.get_nowait()
            except queue.Empty:
                return
            try:
                ended.put(_Ended(prompt, ask(prompt)))
            except BaseException as error:
                stop.set()
                ended.put(_Ended(prompt, None, error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(parallel, len(prompts)))]
    for thread in threads:
        thread.start()
    failures: list[BaseException] = []
    try:
        while any(thread.is_alive() for thread in threads) or not ended.empty():
            try:
                one = ended.get(timeout=0.1)
            except queue.Empty:
                continue
            if one.answer is not None:
                yield one.prompt, one.answer
            elif one.error is not None:
                failures.append(one.error)
    finally:
        stop.set()
    if failures:
        raise failures[0]
