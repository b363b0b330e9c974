import datetime
import os
from types import TracebackType
from typing import (
    Any, Callable, Dict, Literal, NamedTuple, NoReturn, Optional, Protocol, Sequence, Tuple, Type, TypeVar, Union, overload,
)

from ._engine import AlreadyActiveError as AlreadyActiveError

__all__ = [
    "AlreadyActiveError", "Frame", "Profile", "Profiler", "Row", "Sample", "Stats", "Thread", "ThreadProfiler", "dump",
    "is_active", "name_interpreter", "native_unwinding_available", "profile", "record", "register_thread",
    "set_native_unwinding", "snapshot", "start", "stats", "stop", "top", "unregister_thread",
]

_Result = TypeVar("_Result")
_Decorated = TypeVar("_Decorated", bound=Union[Callable[..., Any], "staticmethod[..., Any]", "classmethod[Any, ..., Any]"])
_Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
_Metric = Literal["wall", "cpu", "gil", "samples"]
_Format = Literal["collapsed", "speedscope", "svg", "pprof", "table", "pprof-plain", "pstats", "firefox", "perfetto", "jsonl"]

class _Writer(Protocol):
    def write(self, text: str, /) -> object: ...

class _FlushedWriter(_Writer, Protocol):
    def flush(self) -> object: ...

def start(interval_ms: float = ..., output_path: Optional[_Path] = None, memory_limit_mb: float = 64, *,
          rate_hz: Optional[float] = None, quiet: bool = False, max_depth: int = 1024) -> None: ...
def stop() -> Profile: ...
def is_active() -> bool: ...
def snapshot() -> Profile: ...
def stats() -> Optional[Stats]: ...
def dump(file: Union[_Writer, int, None] = None) -> str: ...
def top(duration: float = 10, rate_hz: float = 100, limit: Optional[int] = 20, file: Optional[_FlushedWriter] = None) -> None: ...
def record(function: Callable[..., _Result], *args: Any, rate_hz: float = 100, output_path: Optional[_Path] = None,
           **kwargs: Any) -> Tuple[_Result, Profile]: ...
@overload
def profile(function: _Decorated, *, print_stats: bool = False, interval_ms: float = ..., output_path: Optional[_Path] = None,
            memory_limit_mb: float = 64, rate_hz: Optional[float] = None, quiet: bool = False,
            max_depth: int = 1024) -> _Decorated: ...
@overload
def profile(function: None = None, *, print_stats: bool = False, interval_ms: float = ...,
            output_path: Optional[_Path] = None, memory_limit_mb: float = 64, rate_hz: Optional[float] = None,
            quiet: bool = False, max_depth: int = 1024) -> Callable[[_Decorated], _Decorated]: ...
def register_thread() -> None: ...
def unregister_thread() -> None: ...
def name_interpreter(name: Optional[str]) -> None: ...
def native_unwinding_available() -> bool: ...
def set_native_unwinding(flag: bool) -> None: ...

class Profiler:
    def __init__(self, interval_ms: float = ..., output_path: Optional[_Path] = None, memory_limit_mb: float = 64, *,
                 rate_hz: Optional[float] = None, quiet: bool = False, max_depth: int = 1024) -> None: ...
    @property
    def profile(self) -> Profile: ...
    def __enter__(self) -> Profiler: ...
    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None: ...

class ThreadProfiler:
    def __enter__(self) -> ThreadProfiler: ...
    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None: ...

class Stats(NamedTuple):
    ticks: int
    ticks_missed: int
    samples: int
    samples_idle: int
    samples_signalled: int
    samples_partial: int
    lost_late: int
    lost_pending: int
    lost_unsettled: int
    lost_unreadable: int
    lost_memory: int
    truncated_depth: int
    truncated_memory: int
    frames_unresolved: int
    timeline_coarsened: int
    signals: int
    calls_interrupted: int
    threads: int
    bytes: int
    bytes_peak: int
    sampler_cpu_ns: int
    samples_unasked: int
    threads_unasked: int
    signal_changes: int
    signal_number: int
    samples_held: int
    holds_failed: int
    samples_jit: int
    duration_ns: int
    @property
    def collected_samples(self) -> int: ...
    @property
    def dropped_samples(self) -> int: ...
    @property
    def overhead_percent(self) -> float: ...

class Frame(NamedTuple):
    function_name: str
    filename: str
    lineno: int
    is_native: bool = ...

class Sample(NamedTuple):
    timestamp_ns: int
    duration_ns: int
    thread_id: int
    thread_name: str
    interpreter: int
    is_idle: bool
    frames: Tuple[Frame, ...]
    sample_count: int = ...

class Thread(NamedTuple):
    name: str
    thread_id: int
    wall: float
    waiting: float
    cpu: float
    gil: float
    samples: int

class Row(NamedTuple):
    name: str
    filename: str
    lineno: int
    self: float
    total: float
    samples: int
    self_percent: float
    total_percent: float

class Profile:
    def __new__(cls, *args: object, **kwargs: object) -> NoReturn: ...
    def __setattr__(self, name: str, value: object) -> NoReturn: ...
    def __delattr__(self, name: str) -> NoReturn: ...
    def __reduce__(self) -> Tuple[Callable[[bytes, str], Profile], Tuple[bytes, str]]: ...
    def __copy__(self) -> Profile: ...
    def __deepcopy__(self, memo: Dict[int, Any]) -> Profile: ...
    def __sub__(self, earlier: Profile) -> Profile: ...
    @property
    def start_time(self) -> datetime.datetime: ...
    @property
    def end_time(self) -> datetime.datetime: ...
    @property
    def duration(self) -> float: ...
    @property
    def interval_ms(self) -> float: ...
    @property
    def python_version(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def dropped_count(self) -> int: ...
    @property
    def samples(self) -> Sequence[Sample]: ...
    @property
    def threads(self) -> Tuple[Thread, ...]: ...
    def functions(self, metric: _Metric = "wall", include_idle: bool = False) -> list[Row]: ...
    def lines(self, metric: _Metric = "wall", include_idle: bool = False) -> list[Row]: ...
    def print_stats(self, limit: Optional[int] = 20, sort: Literal["self", "total", "samples", "name"] = "self",
                    file: Optional[_Writer] = None) -> None: ...
    def filter(self, thread: Optional[str] = None, file: Optional[_Path] = None, function: Optional[str] = None,
               interpreter: Union[str, int, None] = None) -> Profile: ...
    def save(self, path: _Path, format: Optional[_Format] = None, *, metric: _Metric = "wall",
             detail: Literal["line", "function"] = "line", include_idle: bool = False, merge_threads: bool = False,
             thread: Optional[str] = None, interpreter: Union[str, int, None] = None, file: Optional[_Path] = None,
             function: Optional[str] = None, only_mine: bool = False, min_share: float = 0.0) -> None: ...
    def to_speedscope(self) -> Dict[str, Any]: ...
    def to_collapsed(self) -> str: ...
    def to_pprof(self) -> bytes: ...
