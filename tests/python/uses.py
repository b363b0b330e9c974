"""A program with types as strict as they get: what mypy and pyright say of it is what they say of the package."""
import asyncio
import io
from typing import List

import pyprof
import pyprof.heap


@pyprof.profile
def plain(a: int, b: str = "") -> str:
    return b * a


@pyprof.profile(rate_hz=1000, output_path="fetch.pb.gz", print_stats=True)
async def fetch(count: int) -> List[int]:
    await asyncio.sleep(0)
    return list(range(count))


class Thing:
    @pyprof.profile
    def method(self, x: float) -> float:
        return x

    @staticmethod
    @pyprof.profile()
    def static(x: int) -> int:
        return x

    @classmethod
    @pyprof.profile(interval_ms=1)
    def of_class(cls, x: int) -> "Thing":
        return cls()


def work(a: int, *, b: str) -> float:
    return len(b) / a


def use() -> None:
    text: str = plain(1, b="x")
    numbers: List[int] = asyncio.run(fetch(3))
    number: float = Thing().method(2.0) + Thing.static(1) + len(numbers) + len(text)
    thing: Thing = Thing.of_class(1)
    pyprof.start(interval_ms=1, output_path=b"a.txt", memory_limit_mb=8, quiet=True, max_depth=64)
    figures = pyprof.stats()
    if figures is not None and pyprof.is_active():
        number += figures.dropped_samples + figures.overhead_percent + figures.samples
    pyprof.dump(io.StringIO())
    earlier: pyprof.Profile = pyprof.snapshot()
    profile = pyprof.stop()
    part = profile - earlier
    with pyprof.Profiler(rate_hz=100) as p, pyprof.ThreadProfiler():
        print(thing, number)
    p.profile.print_stats(limit=10, sort="total", file=io.StringIO())
    p.profile.save("work.svg", metric="cpu", include_idle=True, thread="MainThread", interpreter=0)
    result, recorded = pyprof.record(work, 1, b="x", rate_hz=100)
    half: float = result / 2
    mine = [s for s in recorded.samples if any("myapp" in f.filename for f in s.frames)]
    names: List[str] = [s.thread_name for s in mine] + [t.name for t in part.threads]
    hottest: pyprof.Row = part.filter(function="work").functions(metric="gil")[0]
    print(half, names, hottest.self, recorded.start_time.isoformat(), recorded.to_speedscope()["shared"])
    pyprof.top(duration=1, file=io.StringIO())
    pyprof.name_interpreter(None)
    socket: str = pyprof.listen()
    pyprof.unlisten()
    pyprof.listen(socket)


def use_heap() -> None:
    with pyprof.heap.MemoryProfiler(sampling_rate_kb=64, memory_limit_mb=8) as p:
        plain(3)
    p.snapshot.save(b"heap.pb.gz", "pprof", metric="alloc_space", min_share=0.1)
    pyprof.heap.start(0.5, max_depth=64)
    earlier: pyprof.heap.HeapSnapshot = pyprof.heap.get_snapshot()
    growth: pyprof.heap.HeapDifference = pyprof.heap.get_snapshot() - earlier
    total: int = growth.estimated_heap_bytes + growth.error_bytes + earlier.estimated_objects + earlier.timestamp_ns
    site: pyprof.heap.AllocationSite = growth.top_allocators(1)[0]
    names: List[str] = [site["function"]] + [f.function_name for s in growth.samples for f in s.stack]
    grown: List[int] = [row.estimated_bytes + site["estimated_bytes"] for row in growth.stacks]
    stats = pyprof.heap.get_stats()
    load: float = stats.heap_map_load_percent + stats.live_samples
    pyprof.heap.stop()
    pyprof.heap.shutdown()
    print(total, names, grown, load)
