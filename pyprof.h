/* pyprof.h - v0.1 - a sampling profiler for programs with CPython inside
   MIT licence (see LICENSE). No dependencies but CPython 3.8 to 3.15 and libc; Linux.

   DO THIS
     In one C or C++ file, before any other #include:

         #define PYPROF_IMPLEMENTATION
         #include "pyprof.h"

     Everywhere else just include it. Compile with what `python3-config --includes` says, link with what
     `python3-config --embed --ldflags` says, and -pthread.

   EXAMPLE
         pyprof_start(NULL);                                   // 100 Hz, all threads, all interpreters
         PyRun_SimpleString("import game; game.run()");
         pyprof_profile *profile;
         if (pyprof_stop(&profile) == PYPROF_OK) {
             pyprof_save(profile, NULL, "game.speedscope.json"); // drop it on https://www.speedscope.app
             pyprof_free(profile);
         }

   A PICTURE
     With this header alone: save "game.speedscope.json" and drop it on https://www.speedscope.app; or save "game.txt"
     and run `pyprof-svg game.txt game.svg` (a tool beside this header: cc -O2 tools/pyprof-svg.c -o pyprof-svg).
     To save an .svg directly, a flame graph that any browser opens, take tools/flamegraph.h along, and include it first
     in the file with the implementation:

         #define PYPROF_IMPLEMENTATION
         #include "flamegraph.h"
         #include "pyprof.h"
         ...
         pyprof_save(profile, NULL, "game.svg");

     Where it was not included that is PYPROF_ERROR_FORMAT, and says so. Its memory comes from malloc.

   WITHOUT A RECORDING
     A program that only reads, changes or writes profiles, which it makes by pyprof_make, needs no CPython: there, define
     PYPROF_NO_RECORDING before the implementation. It then has what works on a pyprof_profile, and nothing else.

   LOOKING IN FROM OUTSIDE
     After pyprof_listen(NULL), other processes of the same user can ask this one for a snapshot or for the stacks of this
     moment, and start and stop recordings: by a Unix socket, which tools/pyprof-ctl finds. Until it is called, there is
     neither a socket nor a thread. Define PYPROF_NO_LISTEN before the implementation to leave it out.

   WHERE THE MEMORY IS
         pyprof_heap_start(NULL);                              // one in 512 KiB, at random
         PyRun_SimpleString("import game; game.run()");
         pyprof_profile *heap;
         if (pyprof_heap_snapshot(&heap) == PYPROF_OK) {
             pyprof_save(heap, NULL, "game.heap.pb.gz");       // `go tool pprof game.heap.pb.gz`
             pyprof_free(heap);
         }

     What Python allocates is sampled by bytes, and each sample followed until it is freed: so a snapshot says which lines
     hold how much now, and have allocated how much since the start. Two snapshots show what grows. It is an estimate, right
     on average, and its error is known: pyprof_heap_desc. The stack is that of the thread that allocates, at that moment.
     It runs with a recording or without one, and costs nothing until it is started. Define PYPROF_NO_HEAP before the
     implementation to leave it out.
     What C code allocates is in it, too, if the program was started with libpyprof-heap.so preloaded (LD_PRELOAD;
     tools/libpyprof_heap.c): malloc and its kin under the line of Python that called, or "[native]" in a thread that is not
     in Python or has let go of the GIL, and memory from mmap under "[mmap]". What Python passes on to malloc counts once.

   WHEN SOMETHING FAILS
     Every function that can fail answers with a pyprof_result. pyprof_last_error() is the same in words, with the
     argument, signal, path or version that it is about: "interval_us is 3: it has to be 50 to 10000000, or 0 for 10000",
     "cannot write /srv/game.txt: Permission denied". pyprof_desc.logger hears it, too, and warnings besides.

   THE END OF THE PROGRAM
     What was recorded is in memory until pyprof_stop or pyprof_snapshot gives it away. A program that ends without either
     loses it, also if output_path was set. If yours ends in many places, have it stopped by exit:

         static void stop_profile(void) { pyprof_stop(NULL); } // saves to the output_path that pyprof_start was given
         ...
         pyprof_desc desc = {.output_path = "game.speedscope.json"};
         if (pyprof_start(&desc) == PYPROF_OK) {
             atexit(stop_profile); // also after Py_Finalize
         }

     That is not run by _exit (Python: os._exit), quick_exit, abort, an exec or a fatal signal: call pyprof_stop before
     those, but not in a signal handler; or have it saved from time to time, to lose no more than since:
     pyprof_desc.autosave_s.
     A plugin calls pyprof_stop before it is unloaded. Its code must not go while it records: where that happens all the
     same, dlclose stops the recording and drops it.

   CONTENTS (search for these tags)
     >>api         the public declarations, each with its contract
     >>platform    threads, signals, clocks and atomics of the system
     >>tuning      the figures that trade one thing for another
     >>base        memory within a limit, the host's log
     >>containers  an array that grows, a table found by key
     >>reads       reading this process's memory where it may vanish
     >>cpython     where things lie in CPython; with >>frames and >>objects, every #if on its version
     >>frames      CPython's thread states and frames, read by these offsets
     >>objects     CPython's texts, line tables, attributes and dicts
     >>stacks      one stack: from the leaf to the root, through all interpreters
     >>handler     what a thread does that is asked: it copies its own stack
     >>signals     which signal asks, and whose it is
     >>profile     the calling-context tree and the time line
     >>copying     a profile copied in pieces, while it grows
     >>holding     a thread kept off its core while it is read
     >>state       what the sampler keeps; code objects and call sites
     >>names       what threads are called
     >>records     a sample enters the profile, with its time
     >>asking      how a thread is asked, and what comes back
     >>reading     one look at one thread: who is asked, who is read from outside
     >>threads     which thread states and threads there are
     >>waiting     threads that wait, all looked at together
     >>sampler     the thread that does all this, tick by tick
     >>bytes       bytes on their way to who takes them, and how texts are escaped
     >>shown       what outputs show: names, paths, the tree
     >>filters     what of a profile is shown
     >>ranking     which functions and lines took most
     >>tables      that as text
     >>writers     SVG and speedscope files
     >>pprof       pprof's format
     >>making      profiles of what was recorded elsewhere
     >>files       files: beside first, then renamed
     >>estimator   which allocations are sampled, and what each stands for
     >>heap        where these were made, and which of them live
     >>census      a profile of what lives at a moment
     >>options     what a recording was asked for
     >>lifecycle   forks, start and stop
     >>control     what else is asked of a recording
     >>hooks       Python's allocators: ours put over them, and taken out
     >>native      what C code allocates and maps
     >>answers     what other processes may ask of it, and are told
     >>listen      the socket by which they ask
     >>public      what is asked of a profile

   WHAT IT DOES TO YOUR PROCESS
     One thread, "pyprof", blocks all signals and wakes once an interval, at a random moment of it. It never takes
     the GIL. It waits for a thread of yours only while pyprof_dump or pyprof_stop is called: for its last answer.
     - A thread that waits, or runs C code without the GIL, is read from outside, through system calls that answer
       a bad address with an error. What such a thread does is not disturbed, and it sees no signal.
     - Once more than a few threads have waited, and until pyprof_stop, the process has a timer of its CPU clock that
       never rings (timer_create): then one look at that clock tells that none of them has run. Where it is refused, a
       tick takes longer.
     - Where it takes microseconds to set a core's own timer, as on many virtual machines, the process has two more timers
       until pyprof_stop (timer_create), which spare the sampler that. They wake nobody: their signal stays pending for
       the sampler's thread alone, which blocks it. Where they are refused, a tick takes longer.
     - A thread that is running Python on another core right now is asked by one signal, and copies its own
       stack in the handler: no allocation, no lock, errno kept, 2 to 6 microseconds with the signal itself.
       The handler is installed with SA_RESTART | SA_ONSTACK, for one signal that nobody has a use for or that you
       chose; signals that are not ours go to the handler that was there before. All signals are masked in it but those
       that tell of faults: a crash handler of yours hears of what happens there, too.
     - Beside the frame that the kernel makes (1.4 KiB on most machines) the handler takes at most 1,400 bytes of stack where
       it was compiled with optimisation, and 2,100 without; 288 to 984 were seen
       (each build: examples/HOSTS.md). An alternate signal stack of 8 KiB does. All that it calls is bound before the
       first signal.
     - A thread that holds the GIL but is not on a core (it waits inside C code, or has to wait for a core) cannot
       change its stack, and is read from outside.
     - The signal is ours only as long as it is. Before each question its action is looked at (0.3 microseconds, below
       1 % of a tick). Where your program has given it another one, that stays, and threads are asked by another signal
       that is free; the same where a thread blocks it in particular, as who reads it by sigwait or a signalfd does.
       If none is free, threads that run Python are read as
       with PYPROF_CAPTURE_HELD, and a free signal is looked for every second. The logger hears of each change, and
       pyprof_stats.signal_number and signal_changes say it.
     - A thread that blocks most signals is read in that way, too: its mask is looked at before it is asked at first, and
       when it has run without an answer; what is pending of ours is then discarded. If it goes on, the logger hears its name;
       pyprof_stats.threads_unasked and samples_unasked count. Where masks cannot be read (no /proc, no descriptor left)
       each thread is asked, and who runs for 10 ms without an answer counts as one that blocks the signal; so does one
       to which it cannot be sent (too many are pending, or a filter). What is under way in the very microseconds in which a
       program changes an action or a mask may still come to it.
     A thread could leave Python and enter a system call in the microseconds between the look and the signal; some
     calls then end with EINTR, SA_RESTART or not (poll, nanosleep: signal(7)). sem_timedwait and its kin, which also would,
     are made to go on (x86-64, glibc). A thread to which that happens more
     than once in 4,096 ticks is asked less; pyprof_stats.calls_interrupted counts what was seen. A write of more than
     4 KiB to a full pipe may end short, as it may by any signal; Python run with -u loses the rest (cpython#86210).
     PYPROF_CAPTURE_HELD and PYPROF_CAPTURE_QUIET send no signal to any thread of yours.
     - Held is who does not run while the sampler does: both are kept on one core (sched_setaffinity) while the stack is
       read, some 20 to 100 microseconds, and the thread's own clock proves that it stood still. While they share a core
       anyway nothing is changed, and the sampler stays on that core. pyprof_stats.samples_held, holds_failed.
     - Where a thread may run is given back at once, unless the program has changed it meanwhile; and to what the
       thread made in that moment (threads, processes), too. A thread is held only after it was seen with the same cores
       eight times, and after it was seen with others not for a minute.
     - pyprof_desc.never_hold forbids it. Then, and where a thread cannot be held, it is read as with
       PYPROF_CAPTURE_QUIET.

   THREADS, GIL, FORK
     function                                    thread   GIL        before Py_Initialize   after Py_Finalize
     pyprof_start                                any      either     yes                    yes
     pyprof_stop, _snapshot, _dump, _get_stats   any      either     yes                    yes
     pyprof_write, _save, _visit*, _top, _free   any      either     yes                    yes
     pyprof_is_active, _result_string            any      either     yes                    yes
     pyprof_name_interpreter, _last_error        any      either     yes                    yes
     pyprof_name_thread                          any      either     yes                    yes
     pyprof_heap_start, _shutdown                any      with       yes                    yes
     pyprof_heap_stop, _snapshot*, _get_stats    any      either     yes                    yes
     pyprof_heap_on_alloc, _on_free              any      either     yes                    yes
     pyprof_listen, _unlisten                    any      either     yes                    yes
     None may be called from a signal handler, or from the allocator, logger and write functions of the host.
     fork waits for a sample that is being taken, and for a call of pyprof_start, _stop or _snapshot in another
     thread. A forked child has no recording unless pyprof_desc.children says so: no thread, the signal's action is the
     host's again, pyprof_is_active is false, and it may start its own. The parent's goes on. So may a child of
     a fork that CPython was not told of (PyOS_AfterFork_Child). A child that is made without fork's handlers (_Fork,
     clone) keeps the signal's action until it starts a recording or ends. What the parent's recording held is given
     back by the child's first pyprof_start. The fork handlers are all that stays after pyprof_stop: they cannot be
     taken back but by unloading what holds this, and do nothing while nothing is recorded.

   WHAT THE FIGURES MEAN
     A sample stands for the time around it: half of the time since the thread's last sample and half of the time
     until its next one, as measured. So no time is lost when the sampler comes late, and a program whose rhythm is
     that of the sampler gets true shares. Where a thread did several things between two samples, half and half is a
     guess: with more busy threads than processors, shares of wall time have been seen to be off by up to 7 percentage
     points. Every sample counts in four ways, to be chosen when writing:
     - wall: elapsed time. Time in which the thread only waited is kept apart, and left out unless include_idle.
     - cpu: CPU time by the thread's own clock.
     - gil: elapsed time while it held the GIL of its interpreter; on a free-threaded build while it was attached.
     - samples.
     A thread is idle when it does not hold the GIL and does not run; waiting for the GIL is waiting, too. A thread
     without any Python frame is not in the profile.
     An OS thread is one stack, also if it went from one interpreter to another: a frame "[interpreter 1: NAME]" stands
     before those of each, except of the main interpreter where a thread begins there. pyprof_name_interpreter.
     A thread has the name that pyprof_name_thread gave it; else the one that Python's threading knows, by then or
     later, whoever started it; greenlets give it none.
     Else it has the one that the system knows, if it is the thread's own.
     Those that nobody named have the process's, or that of the thread that made them: they are told apart by their ids,
     "game (4711)". The process's first thread is MainThread.
     A frame shows the line that its thread was at. A function that has been called but has not begun to run is
     not shown yet, unless it has callees (a trace function): its caller is the leaf.
     What could not be sampled is counted by cause in pyprof_stats, never guessed: see there. A
     thread that was never seen yet counts from the first tick in which the lists that CPython has of its threads could be
     followed up to it.

   FORMATS
     Collapsed ("folded"): a line a stack, "thread NAME;qualname (file.py:LINE);... VALUE", times in microseconds,
     frames as py-spy writes them: files from their outermost package on, and so far that no two of a profile look
     alike. Inside names, backslash, semicolon, control characters, line separators and
     lone surrogates are written as Python writes them in a string literal (\\ \x3b \n \u2028 \udc80).
     SVG: one file for any browser, to zoom and search in (see A PICTURE). It has all metrics and idle time, threads
     together and apart, and the functions that took most: who looks chooses. What is asked for is shown first; where
     there is nothing of that, wall time with what waited.
     pprof: all four metrics in one file, to the nanosecond; the one that was asked for is shown first. Samples have the
     labels thread, thread_id (where it is one thread's), interpreter (where there are several) and, with include_idle,
     state: the idle part of a stack's samples and wall time is a sample of its own, and all CPU and GIL time counts as
     running. Without include_idle, idle samples and idle wall time are left out, as elsewhere. In names, lone surrogates
     are written as above, and the rest stays; what has none is "[no name]". Comments say what was lost. A .pb.gz is a gzip
     file that is not compressed, a .pb the same without gzip.
     Speedscope: one time-ordered profile a thread, all on one time axis, nanoseconds; threads of one name that came one
     after the other share one. Time in which a thread is not
     shown is an empty stack. When the time line is full, neighbours are merged (pyprof_stats.timeline_coarsened);
     the sums of the collapsed format stay exact.
     What reads collapsed text takes each line for a stack, so there is nothing else in it: neither what was lost nor what
     LIMITS says of the JIT.
     Table: text of 80 columns, to read in a terminal or a log: how long and how often, what was lost and why, the functions
     and lines that took most (in seconds, or samples: themselves, and with what they called), and all times of each thread.
     Names are shortened ("..."), and there are no escape codes. Of long lists the first are shown; pyprof_top has all.
     Your own: pyprof_visit goes through every node of the tree and every span of time; pyprof_top adds up by function.
     Several processes: where a profile is made of what several recorded (pyprof_make), each is above its threads: in
     collapsed text and pictures a frame before that of the thread, "process 4711 (worker.py)"; in pprof the labels process
     and pid; in speedscope part of a thread's name; in the table a list of its own. Collapsed text, pictures and tables show
     those of one program as one, "process * (worker.py)", if there are more than 16 of them; but never the first process.

   FILTERS
     All outputs can be limited to a thread, an interpreter, a file or a function, and made smaller by min_share and
     only_mine: see pyprof_output. They act on the stacks as they were recorded, so times stay true: a function's callers
     are shown with it, with the time of the stacks that it is on.
     With only_mine, a frame is of a package by its path alone: the part behind the last /site-packages/ or
     /dist-packages/, else behind /lib/pythonX.Y/ or /pythonXY.zip/, or in "<frozen NAME>". So your own code
     counts as a package if it was installed as one, or frozen, and a standard library elsewhere does not.

   LIMITS
     - Linux on x86-64. The code for aarch64 has been run by an emulator only (qemu-user); where pointers have 32 bits, or the
       most significant byte comes first, it cannot work, and is not compiled.
     - CPython 3.8 to 3.15, and later ones whose description of themselves (_Py_DebugOffsets) agrees with their headers.
       Free-threaded builds; debug builds since 3.13. Anything else is refused by pyprof_start, with a reason.
     - Valgrind's memcheck takes what the sampler reads for the program's own reads, and may complain.
     - Where neither process_vm_writev nor /proc/self/mem may be used (some seccomp filters), pyprof_start refuses.
       Where only the latter may be used, a recording keeps it open, and opens it again if the program closes it. A
       program that takes both from itself while a recording runs is told by the logger, and all that follows is lost
       (lost_unreadable).
     - Where pyprof_stop is called while the machine holds a thread up between a signal and the end of the handler, it waits
       20 ms for a handler that has not begun, 100 ms for one that reads, and 20 ms for one that returns. One that comes
       later, however late, touches nothing that was given back; but what it still reads into (32 bytes times max_depth)
       is never given back, and the plugin that holds this stays loaded. dlclose while recording waits up to
       2 s for each of these.
     - A thread is not held if it has a real-time priority that the sampler's is not above; if sched_setaffinity,
       sched_getaffinity, sched_getscheduler or sched_getparam is refused, or there are more than 8,192 cores; or if neither
       /proc/sys/kernel/ns_last_pid nor /proc/loadavg can be read (the logger is told each of these once; a seccomp filter
       that kills needs never_hold); nor after eight holds in a row came to nothing, for a minute.
     - A thread with a real-time priority below the sampler's is moved to another core by Linux when the sampler wakes on its
       own, a moment before it is held: of functions of a few microseconds the longest then have up to 4 points too much.
     - Before Linux 6.12 the sampler may wait for a core that it shares with a thread that is held, and on any Linux while a
       thread with a real-time priority has that core. Then it leaves the core after each tick, for ten seconds or a minute, and
       the logger is told the first time: a real-time priority for the thread "pyprof" may end that.
     - The thread "pyprof" has the priority of the thread that called pyprof_start. Where real-time threads compute on all
       cores that it may use, it samples for the 50 ms of each second that Linux mostly leaves to ordinary threads; if it
       has the same priority as they, not until they wait. ticks_missed counts: give it a priority above theirs. A thread
       with a deadline (SCHED_DEADLINE) cannot call pyprof_start, as Linux lets it make no threads.
     - A thread that calls exec in the microsecond between being kept on a core and standing still leaves the new program
       on that core. If a program changes where a thread may run for the first time in a minute, and in just the
       microsecond in which the thread is taken or given back, or to just the core on which it is held, that is lost.
     - Frames of C functions are not shown; their time is their Python caller's.
     - On 3.14 and 3.15 with the JIT, the innermost frame's line is where it could last have called something, as compiled
       code keeps no other: time of a line that calls nothing counts for one before it. All else is right, callers' lines
       too. pyprof_stats.samples_jit counts them; pictures, speedscope's title, pprof's comments and the table say how many.
     - On 3.8 and 3.9, while an exception is thrown into a coroutine or generator (a task is cancelled), CPython does not
       link all those between it and the event loop: some are left out, or a "[truncated]" stands for them. So are those
       between, on any version, while a chain of generators is closed. On 3.10 a "[truncated]" is also above a generator
       with which a thread begins. On 3.11 a generator into which an exception is thrown may for a moment show as a root.
       On 3.12 to 3.14 one into which C code throws at the root of a thread is not seen (lost_unsettled).
     - Of threads without end not each is told apart. Who comes goes on with the track of one of its name that has ended.
       Beyond memory_limit / 64 KiB tracks (1,024 by default) those whose names or ids differ in digits only are one:
       "Thread-* (work)", "game (*)"; beyond twice as many, all others are "[several threads]".
     - A thread that gets both ids of one that has ended, within 20 ms and with as much CPU time used as that one had, is
       taken for it.
     - A thread that has long waited, and then runs without taking the GIL, may be seen up to a clock tick of its core
       (4 ms) late: at most a five-hundredth of its time.
     - A host that switches C stacks (fibers) while one thread is in several interpreters gets their order wrong; to
       3.11, a thread that runs C code on another stack than the Python that called it is read from outside.
     - Of a stack with more than 131,072 frames beyond max_depth, and of a thread that is in several interpreters and
       deeper than max_depth in one, the outermost frames are left out ("[truncated]"), and with them the thread's name.
     - Of a thread in more than 8 interpreters the outer ones are left out ("[truncated]"); of one that goes to and fro
       between more than 8 within a tick, some looks come to nothing.
     - A thread state that is used in another thread than the one that made it has its maker's name, no CPU time, and
       is read from outside only. When its maker uses it again, that stays so for up to half a minute, and its time shows
       twice: also where it called into that interpreter. With PYPROF_CAPTURE_QUIET, if both threads run Python at once, it
       may be taken for an interpreter that its maker is in, too.
     - A code object that dies within microseconds of being sampled may show as [unresolved]. Threads that are
       not asked (see above) may show [unsettled] frames: pyprof_stats.samples_partial. On some virtual machines a signal
       takes 20 microseconds: there, a thread that waits a hundred times a second is one of them for part of the time.
     - What ends while it is looked at (within 5 microseconds, 30 on such machines) counts where its thread waits next:
       bursts of a millisecond lose up to 3 % of their time to that.
     - Memory: at most memory_limit for one recording with its snapshots, and for writing them, and typically below 1 MiB.
       A recording itself takes about half of it: however full, it is saved, and one snapshot at a time can be made
       and saved. What has no room is PYPROF_ERROR_MEMORY: a second snapshot beside that of a full recording, a picture of
       very many stacks. The sampler thread's stack, paths of files and pictures are not from the allocator.

   CHANGES
     0.1  first version
*/

/* The implementation needs what lies behind this; it counts only before the first system header. */
#if defined(PYPROF_IMPLEMENTATION) && defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#ifndef PYPROF_H
#define PYPROF_H

// >>api

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(PYPROF_STATIC)
#if defined(__GNUC__)
#define PYPROF_API static __attribute__((unused))
#else
#define PYPROF_API static
#endif
#elif !defined(PYPROF_API)
#define PYPROF_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What every call answers. Zero is success, errors are negative; a call that fails has changed nothing
   unless its own text says otherwise. pyprof_last_error says it in words. */
typedef enum pyprof_result {
    PYPROF_OK = 0,
    PYPROF_ERROR_ARGUMENT = -1,        /* NULL where a value is needed, or a figure out of its range */
    PYPROF_ERROR_ALREADY_ACTIVE = -2,  /* pyprof_start while a recording runs */
    PYPROF_ERROR_NOT_ACTIVE = -3,      /* a call that needs a running recording */
    PYPROF_ERROR_MEMORY = -4,          /* the allocator gave nothing, or memory_limit is too small */
    PYPROF_ERROR_THREAD = -5,          /* the sampler thread could not be made */
    PYPROF_ERROR_SIGNAL = -6,          /* the signal that was named cannot be used */
    PYPROF_ERROR_MEMORY_READ = -7,     /* the system lets us read our own memory in no safe way */
    PYPROF_ERROR_PYTHON = -8,          /* this version of CPython is not known, or not as it describes itself */
    PYPROF_ERROR_PYTHON_MISMATCH = -9, /* compiled against one CPython (version, with a GIL or free-threaded),
                                          running in another */
    PYPROF_ERROR_IO = -10,             /* a file could not be made, written or renamed; errno says why */
    PYPROF_ERROR_WRITE = -11,          /* the write function answered false */
    PYPROF_ERROR_FORMAT = -12,         /* a format that is not known, or an .svg without tools/flamegraph.h */
    PYPROF_ERROR_PYTHON_DEBUG = -13,   /* a debug build of a CPython before 3.13, or one with Py_TRACE_REFS */
    PYPROF_ERROR_GIL = -14,            /* a call that needs the GIL, by a thread that does not hold it */
    PYPROF_ERROR_HOOKED = -15          /* another hook of Python's allocators was put over ours */
} pyprof_result;

/* How the stack of a thread that is running Python right now is read. */
typedef enum pyprof_capture {
    PYPROF_CAPTURE_DEFAULT = 0, /* the thread copies its own stack, asked by a thread-directed signal */
    PYPROF_CAPTURE_QUIET = 1,   /* no signal, ever: read from outside several times, kept as far as the reads are
                                   equal. What changes faster than it can be read is shown as "[unsettled]"
                                   below the frames that stood still, so short functions get less than their
                                   share, and their callers the rest. Fewer than one stack in 10,000 is
                                   wrong. */
    PYPROF_CAPTURE_HELD = 2     /* no signal, ever: the thread is kept off its core while it is read, see WHAT IT DOES
                                   TO YOUR PROCESS. Where that is not possible, as QUIET. */
} pyprof_capture;

typedef enum pyprof_log_level {
    PYPROF_LOG_ERROR = 1,
    PYPROF_LOG_WARNING = 2,
    PYPROF_LOG_INFO = 3
} pyprof_log_level;

/* Where memory comes from; all NULL = malloc and free. Called from the sampler thread and from the threads
   that call pyprof_*, never inside a signal handler. Must be thread-safe and must not touch Python.
   Returned memory must be aligned as malloc's is. If it has fork handlers of its own (pthread_atfork), it has to register
   them before the first call of a pyprof_ function. */
typedef struct pyprof_allocator {
    void *(*alloc_fn)(size_t size, void *user);
    void (*free_fn)(void *memory, void *user);
    void *user;
} pyprof_allocator;

/* Who hears of what happens; NULL = nobody. Called as the allocator is, with a text without newline that
   lives as long as the call; of a failing pyprof_write or pyprof_save, too, until the profile is freed. It may be slow:
   only the sampler waits for it. But pyprof_start and pyprof_stop wait for the sampler: so it must neither take the GIL
   nor a lock that your program holds while it calls these two. */
typedef struct pyprof_logger {
    void (*log_fn)(pyprof_log_level level, const char *message, void *user);
    void *user;
} pyprof_logger;

/* What becomes of a recording in a forked child. The parent's goes on. */
typedef enum pyprof_children {
    PYPROF_CHILDREN_OFF = 0,   /* the child has none; it may start its own */
    PYPROF_CHILDREN_STOP = 1,  /* what the parent recorded up to the fork is the child's, too, and has ended there:
                                  pyprof_stop gives it, and saves it; pyprof_is_active is false. For a program that goes
                                  on in its child, as daemons do. pyprof_start drops it. */
    PYPROF_CHILDREN_FOLLOW = 2 /* the child begins one of its own in fork, which takes it a millisecond, with the same
                                  description; if that fails, the logger is told. So do its own children. */
} pyprof_children;

/* How to record. All zero = good defaults. Copied by pyprof_start, output_path included. */
typedef struct pyprof_desc {
    uint32_t interval_us; /* mean time between samples of a thread, in microseconds: 50 to 10,000,000;
                                   0 = 10,000 (100 Hz) */
    pyprof_capture capture;
    int signal_number;       /* the signal that asks a thread for its stack; 0 = SIGURG or SIGWINCH: one that has no
                                action, else one that is ignored, and that no thread blocks or waits for in
                                particular; if there is none, nobody is asked. Both do nothing by default: so one
                                that is still pending harms nobody if your program resets all actions, or calls
                                exec. Any other may end it then. None is taken with PYPROF_CAPTURE_QUIET. */
    size_t memory_limit;     /* bytes that one recording may hold at most; at least 1 MiB; 0 = 64 MiB. Its
                                snapshots, its dumps and the writing of it are part of that. */
    uint32_t max_depth;      /* frames of a stack: 16 to 65,536; 0 = 1024. Of deeper ones the innermost three quarters
                                and the outermost quarter are kept, with "[truncated]" in between. */
    const char *output_path; /* pyprof_stop also saves here, with default pyprof_output; NULL = nowhere. In it, %p is
                                the process's id, %n the program's name and %t the time of the start (UTC, with
                                milliseconds), so that no process overwrites another one's file; %% is one %. */
    pyprof_allocator allocator;
    pyprof_logger logger;
    bool never_hold; /* PYPROF_CAPTURE_DEFAULT: threads that cannot be asked are not held either, but read as with
                        PYPROF_CAPTURE_QUIET: where a thread may run (sched_setaffinity) is never touched */
    pyprof_children children;
    uint32_t autosave_s; /* output_path is also saved after each so many seconds, which is what remains after _exit
                            or a fatal signal: always a whole file, by the sampler's thread, which does not sample
                            meanwhile. Not if it is a pipe or a device. At most 86,400; 0 = never */
} pyprof_desc;

/* A finished recording: immutable, independent of the interpreter that it came from. It keeps the pyprof_stats of the
   moment in which it was given away, for PYPROF_FORMAT_TABLE. */
typedef struct pyprof_profile pyprof_profile;

typedef enum pyprof_format {
    PYPROF_FORMAT_AUTO = 0,       /* pyprof_save: by the path's ending (.json: speedscope, .svg: SVG, .pb.gz and .pb:
                                     pprof, anything else: collapsed); pyprof_write: collapsed */
    PYPROF_FORMAT_COLLAPSED = 1,  /* one line a stack: "thread;root;...;leaf value" */
    PYPROF_FORMAT_SPEEDSCOPE = 2, /* speedscope.app's JSON, one time-ordered profile a thread, nanoseconds */
    PYPROF_FORMAT_SVG = 3,        /* a flame graph for any browser. Drawn by tools/flamegraph.h: PYPROF_ERROR_FORMAT
                                     where that was not included before the implementation (see A PICTURE) */
    PYPROF_FORMAT_PPROF = 4,      /* for `go tool pprof`, Pyroscope and Parca: all metrics and labels in one gzip file
                                     (see FORMATS); pyprof_save to a path that ends in .pb: PPROF_PLAIN */
    PYPROF_FORMAT_TABLE = 5,      /* for a terminal or a log, 80 columns: see FORMATS. No ending means it */
    PYPROF_FORMAT_PPROF_PLAIN = 6 /* PPROF without gzip: for who compresses it, or takes it apart */
} pyprof_format;

typedef enum pyprof_metric {
    PYPROF_METRIC_WALL = 0,    /* elapsed time */
    PYPROF_METRIC_CPU = 1,     /* CPU time of the thread itself */
    PYPROF_METRIC_GIL = 2,     /* elapsed time while the thread held its interpreter's GIL */
    PYPROF_METRIC_SAMPLES = 3, /* number of samples; collapsed text of them is drawn by pyprof-svg --unit samples */
    /* of a heap profile, whose figures have these places: */
    PYPROF_METRIC_INUSE_SPACE = PYPROF_METRIC_WALL,     /* bytes that live */
    PYPROF_METRIC_ALLOC_SPACE = PYPROF_METRIC_CPU,      /* bytes that were allocated, freed ones included */
    PYPROF_METRIC_ALLOC_OBJECTS = PYPROF_METRIC_GIL,    /* allocations, likewise */
    PYPROF_METRIC_INUSE_OBJECTS = PYPROF_METRIC_SAMPLES /* allocations that live */
} pyprof_metric;

/* What the figures of a profile are. In a pyprof_node of a heap profile wall_ns is what lives in bytes, samples that in
   objects, cpu_ns and gil_ns what was allocated in bytes and in objects; nothing in it is idle, and it has no spans. */
typedef enum pyprof_kind {
    PYPROF_KIND_TIME = 0,
    PYPROF_KIND_HEAP = 1
} pyprof_kind;

typedef enum pyprof_detail {
    PYPROF_DETAIL_LINE = 0,    /* frames differ by the line that they are at */
    PYPROF_DETAIL_FUNCTION = 1 /* one frame a function; its line is the function's first */
} pyprof_detail;

/* How to write a profile. All zero = good defaults. thread and what follows are filters: see there. Texts are the
   caller's, and are needed as long as the call. */
typedef struct pyprof_output {
    pyprof_format format;
    pyprof_metric metric;
    pyprof_detail detail;
    bool include_idle;  /* also the time in which a thread only waited */
    bool merge_threads; /* collapsed: no thread as first frame, equal stacks of all threads are one line; drawn by
                           pyprof-svg --unit us */
    /* Filters: what passes all of them is shown, by whatever writes or visits; NULL, "" or 0 = all passes. What passes
       none leaves an empty output, as of a profile without samples. In a text * stands for any text. They cost
       memory as a snapshot does. Applied in this order: */
    const char *thread;      /* its name, with or without its id: "MainThread", "Thread-*", "game (4711)" */
    const char *interpreter; /* its id or its name, "1" or "physics"; the main one is "0" or "main". A stack is in
                                the interpreter of its innermost frame */
    const char *file;        /* stacks with a frame of a file whose path, as its code object names it, begins so */
    const char *function;    /* stacks with a frame of this qualified name; of such a file, if both are given */
    bool only_mine;          /* consecutive frames of one package of the standard library or of site-packages are one
                                frame, "[json]": see FILTERS */
    double min_share;        /* nodes with a smaller part of the whole that then is left are added to their parent;
                                those right below a thread are "[other]" there. 0 to 1: 0.01 is 1 % */
    bool threads_apart;      /* pyprof_visit: each thread is a node of its own, also those of one name; they have the
                                numbers that spans have as thread, and come in that order. Nothing is merged then, so
                                pyprof_add_node and pyprof_add_span can make the same profile anew. merge_threads does
                                not count */
} pyprof_output;

/* Takes size bytes of output; false ends the writing with PYPROF_ERROR_WRITE. */
typedef bool (*pyprof_write_fn)(void *user, const void *data, size_t size);

/* What a recording did, and what it could not do. All counts are since pyprof_start. A tick is one moment at which the
   sampler looks at all threads; in each tick every thread that has a Python stack gives a sample or is lost for one of
   the reasons below. A lost sample's time is not lost: samples weigh the time that really passed between them. */
typedef struct pyprof_stats {
    uint64_t ticks;              /* moments at which the threads were looked at */
    uint64_t ticks_missed;       /* moments that passed before the sampler got the CPU */
    uint64_t samples;            /* stacks that entered the profile, idle ones included */
    uint64_t samples_idle;       /* of these, stacks of threads that waited */
    uint64_t samples_signalled;  /* of the samples, stacks that the thread copied itself, asked by a signal */
    uint64_t samples_partial;    /* of the samples, stacks that changed while they were read: the inner frames, which
                                    did, or all are shown as "[unsettled]" */
    uint64_t lost_late;          /* the thread had let the GIL go before the signal came */
    uint64_t lost_pending;       /* the thread had not answered the signal of this tick or an earlier one */
    uint64_t lost_unsettled;     /* the thread let the GIL go or took it while it was read from outside */
    uint64_t lost_unreadable;    /* the thread went away, or its memory made no sense */
    uint64_t lost_memory;        /* no room for one more thread */
    uint64_t truncated_depth;    /* samples of stacks deeper than max_depth, or in more than 8 interpreters */
    uint64_t truncated_memory;   /* samples that went to "[truncated]" because the tree was full */
    uint64_t frames_unresolved;  /* frames whose code object had died before its name could be read */
    uint64_t timeline_coarsened; /* times that the time line was full and halved its resolution */
    uint64_t signals;            /* signals sent */
    uint64_t calls_interrupted;  /* signals that were seen to end a system call with EINTR
                                    (waits on a futex not counted: they go on) */
    uint64_t threads;            /* OS threads with Python that were seen */
    uint64_t bytes;              /* memory held now */
    uint64_t bytes_peak;         /* and the most that was ever held */
    uint64_t sampler_cpu_ns;     /* CPU time that the sampler thread has used */
    uint64_t samples_unasked;    /* of the samples, stacks of threads that ran Python and could not be asked: held, or
                                    read with PYPROF_CAPTURE_QUIET's bias */
    uint64_t threads_unasked;    /* threads to which that happened */
    uint64_t signal_changes;     /* times that the signal that asks was found not to be ours any more, or to be
                                    had again */
    int32_t signal_number;       /* the signal that asks now, or did at the end; 0 = nobody is asked */
    int32_t reserved;
    uint64_t samples_held; /* of the samples, stacks of threads that ran and could not be asked, and were kept
                                    off their core while they were read */
    uint64_t holds_failed; /* times that this was tried and came to nothing: the thread was read as with
                                    PYPROF_CAPTURE_QUIET then */
    uint64_t samples_jit;  /* of the samples, stacks of threads that ran what CPython's JIT had compiled: the
                                    innermost line may be one before their own (see LIMITS) */
    uint64_t duration_ns;  /* how long it has run, or did run */
} pyprof_stats;

/* Begins to record every thread of every interpreter in the process; NULL = defaults. Starts one thread,
   named "pyprof", with all signals blocked, and returns once it has looked for the first time.
   May be called from any thread, with or without the GIL, also before Py_Initialize. A recording is stopped before the
   program ends, else it is lost, and before the plugin that holds this is unloaded: see THE END OF THE PROGRAM.
   Errors: ARGUMENT, ALREADY_ACTIVE, MEMORY, THREAD, SIGNAL, MEMORY_READ, PYTHON, PYTHON_MISMATCH, PYTHON_DEBUG. */
PYPROF_API pyprof_result pyprof_start(const pyprof_desc *desc);

/* Ends the recording, ends the sampler thread and puts the signal's action back, unless the host has changed it
   meanwhile. Of what is pending of the signal before threads that block it, ours is discarded. Where something else is, or
   may be (real-time signals queue up), the action stays, and is put back once that has come, or by the next recording.
   *profile is the caller's, to pyprof_free; NULL drops the profile (after
   output_path was saved, if one was given).
   May be called from any thread, with or without the GIL, also after Py_Finalize.
   Errors: NOT_ACTIVE (*profile = NULL); IO, FORMAT, MEMORY when output_path could not be saved: the recording has ended
   all the same and *profile is valid. */
PYPROF_API pyprof_result pyprof_stop(pyprof_profile **profile);

/* Whether a recording runs. Any thread; never waits. */
PYPROF_API bool pyprof_is_active(void);

/* A copy of what was recorded so far, while the recording goes on. Any thread, with or without the GIL; the
   sampler goes on meanwhile, as it is copied in pieces. Errors: ARGUMENT, NOT_ACTIVE, MEMORY (*profile = NULL). */
PYPROF_API pyprof_result pyprof_snapshot(pyprof_profile **profile);

/* The figures of the running recording, or of the last one. Any thread. Errors: ARGUMENT; NOT_ACTIVE when
   nothing was ever recorded. */
PYPROF_API pyprof_result pyprof_get_stats(pyprof_stats *stats);

/* The stacks of this moment as text, leaf first, one paragraph a thread: "active, holds the GIL", "active", "idle" or
   "idle, waits for the GIL". Needs a running recording and takes one extra sample of every thread; waits up to 100 ms for
   it, as pyprof_stop then does; sampling goes on, and no
   other call waits. Any thread, with or without the GIL.
   Errors: ARGUMENT, NOT_ACTIVE, MEMORY, WRITE. */
PYPROF_API pyprof_result pyprof_dump(pyprof_write_fn write, void *user);

/* Writes the profile through a function; output NULL = defaults. Needs no GIL, no interpreter, no running
   recording; several threads may write one profile at once.
   Errors: ARGUMENT, FORMAT, MEMORY, WRITE (what was passed to write before stays passed). */
PYPROF_API pyprof_result pyprof_write(const pyprof_profile *profile, const pyprof_output *output, pyprof_write_fn write,
                                      void *user);

/* Writes the profile to a file: beside it first, then renamed, so path is either whole or as it was; what
   exists and is no regular file (a pipe, a device) is written into. Through a link, the file that it leads to is
   replaced, or made. As pyprof_write otherwise.
   Errors: ARGUMENT, FORMAT, MEMORY, IO (errno says why; no partial file is left). */
PYPROF_API pyprof_result pyprof_save(const pyprof_profile *profile, const pyprof_output *output, const char *path);

/* Text of a profile, UTF-8 as CPython or the system has it; behind it is a zero byte that does not count. Lives as long as
   the profile. */
typedef struct pyprof_text {
    const char *data;
    size_t size; /* bytes */
} pyprof_text;

#define PYPROF_NO_NODE UINT32_MAX

/* A node of the calling-context tree: a thread, or below one a line of a function (or a function: pyprof_output.detail)
   called by its parent. All figures are of the node itself ("self"): its callees have theirs. */
typedef struct pyprof_node {
    uint32_t number;    /* 0, 1, 2, ... in the order of the visit */
    uint32_t parent;    /* the number of the caller or the thread, which was visited before; of a thread
                              PYPROF_NO_NODE */
    pyprof_text name;   /* of a function, qualified; of what stands for one, as "[truncated]"; of a thread. With
                              merge_threads one node without a name is all threads */
    pyprof_text path;   /* the function's file, as its code object names it; empty where there is none */
    pyprof_text file;   /* the end of path by which outputs show it */
    int32_t line;       /* as detail asks: the line, or the function's first one; 0 = none is known */
    int32_t first_line; /* the function's; 0 = none is known */
    int32_t tid;        /* of a thread that only its id tells from others of its name; with threads_apart, of each
                              that is one thread; else 0 */
    bool is_named;      /* of a thread: its name is its own. Else it is the process's, or of the thread that made it */
    uint64_t value;     /* in the metric that was asked for: nanoseconds or samples */
    uint64_t samples;   /* idle ones included */
    uint64_t samples_idle; /* of these, those of a thread that waited */
    uint64_t wall_ns;      /* idle time included */
    uint64_t wall_idle_ns; /* of this, what the thread waited */
    uint64_t cpu_ns;
    uint64_t gil_ns;     /* wall time with the GIL */
    pyprof_text process; /* of a thread: the program of the process that it is of; empty in a profile of one process */
    int32_t pid;         /* and that process's id; 0 = there is none, or several are shown as one: see FORMATS */
} pyprof_node;

/* A span of a thread's time in which it was in one node, as far as the samples tell. Those of one thread come in the
   order of time, and do not overlap; between them the thread ran no Python, or
   what a filter leaves out. The time line has a bounded size: see
   pyprof_stats.timeline_coarsened. */
typedef struct pyprof_span {
    uint32_t thread;   /* 0, 1, 2, ...: those of one number are of one thread (or of several of its name, one after the
                          other) */
    uint32_t node;     /* a number that was visited before */
    uint64_t start_ns; /* since the recording began */
    uint64_t wall_ns;
    uint64_t cpu_ns;
    uint32_t samples;
    bool is_idle;
    bool has_gil;
} pyprof_span;

/* What pyprof_visit calls; both may be NULL, and false ends the visit. What they are given lives as long as the call. */
typedef struct pyprof_visitor {
    bool (*node)(void *user, const pyprof_node *node);
    bool (*span)(void *user, const pyprof_span *span);
    void *user;
} pyprof_visitor;

/* Goes through what a profile has, in the calling thread: all nodes, each after its parent, then the spans of all
   threads, one thread after the other. output, NULL = defaults: by its metric, detail, include_idle, merge_threads and
   filters, as the text formats show it; idle spans are given in any case. As pyprof_write otherwise.
   Errors: ARGUMENT, MEMORY, WRITE (a function answered false). */
PYPROF_API pyprof_result pyprof_visit(const pyprof_profile *profile, const pyprof_output *output,
                                      const pyprof_visitor *visitor);

/* An allocation that heap sampling has taken for a sample, and that lived when pyprof_heap_snapshot_samples was called. */
typedef struct pyprof_heap_sample {
    uint64_t address;         /* where it lies; a realloc makes another one */
    uint64_t size;            /* bytes, as they were asked for */
    double weight;            /* it stands for so many allocations like it: 1 or more */
    uint64_t estimated_bytes; /* weight times size */
    uint64_t timestamp_ns;    /* when it was allocated, since heap sampling was started first */
    uint64_t lifetime_ns;     /* how long it had lived when the snapshot was taken */
    uint32_t node;            /* its stack: a pyprof_node.number */
    uint32_t reserved;
} pyprof_heap_sample;

/* Gives each sample of a heap profile to a function, in the calling thread and in no order; false ends it. node is a number
   that pyprof_visit gives with the same output, NULL = defaults; filters leave samples out. Profiles that are not from
   pyprof_heap_snapshot_samples have none. As pyprof_write otherwise. Errors: ARGUMENT, MEMORY, WRITE (the function
   answered false). */
PYPROF_API pyprof_result pyprof_visit_samples(const pyprof_profile *profile, const pyprof_output *output,
                                              bool (*take)(void *user, const pyprof_heap_sample *sample), void *user);

/* What a profile tells of the recording as a whole. Texts live as long as the profile. */
typedef struct pyprof_facts {
    pyprof_text program;  /* path of what the process executed; empty = not known */
    pyprof_text process;  /* the process's name, which threads have that nobody named */
    uint64_t start_ns;    /* when it began, since 1970 (UTC); 0 = not known */
    uint64_t duration_ns; /* how long it took */
    pyprof_text python;   /* version of CPython, "3.13.1"; empty = not known */
    uint32_t interval_us; /* mean time between samples of a thread; 0 = not known */
    pyprof_stats stats;   /* as they were when the profile was given away */
    pyprof_kind kind;     /* what the figures of its nodes are */
    uint32_t reserved;
    uint64_t sampling_bytes; /* of a heap profile: mean bytes between samples; 0 = not known */
} pyprof_facts;

/* Any thread. Errors: ARGUMENT. */
PYPROF_API pyprof_result pyprof_get_facts(const pyprof_profile *profile, pyprof_facts *facts);

/* Makes a profile that has nothing yet, to be filled by pyprof_add_node and pyprof_add_span: of what was recorded in
   another process, read from a file, or is part or difference of other profiles. It is one like all others: it can be
   written, saved, visited and filtered, and is given back by pyprof_free. Needs no CPython and no recording. facts:
   copied, with their texts; NULL = nothing is known. memory_limit: bytes that the profile may hold, and what writes it; 0
   = no limit. allocator: NULL = malloc and free. Any thread. Errors: ARGUMENT, MEMORY (*profile = NULL). */
PYPROF_API pyprof_result pyprof_make(const pyprof_facts *facts, size_t memory_limit, const pyprof_allocator *allocator,
                                     pyprof_profile **profile);

/* Adds a node, or figures to one that is there. Of node count: parent, a number that this gave before; name, path, line
   and first_line; of a thread, name, tid, is_named, process and pid; and all figures but value, which are added. Each thread
   is a node of its own; of one parent, equal lines of a function are one. What has no path is a marker, as "[truncated]" or
   "[interpreter 1: physics]", which has no line. *number: the node's. profile: from pyprof_make, and only one thread may use it
   while it is filled. Errors: ARGUMENT (a parent that is none, a profile of a recording, more idle time or samples than
   there are of both), MEMORY. */
PYPROF_API pyprof_result pyprof_add_node(pyprof_profile *profile, const pyprof_node *node, uint32_t *number);

/* Adds to the time line of a thread: that of span->node, which is a number that pyprof_add_node gave. Nothing is added to the
   node. Those of one thread come in the order of time and do not overlap. thread does not count. Errors:
   ARGUMENT (a node that is none, a profile of a recording, a span that begins before the one before it ended),
   MEMORY. */
PYPROF_API pyprof_result pyprof_add_span(pyprof_profile *profile, const pyprof_span *span);

/* A row of pyprof_top: a function, or a line of one. Texts live as long as the profile. */
typedef struct pyprof_row {
    pyprof_text name; /* as of a pyprof_node; so are path and file */
    pyprof_text path;
    pyprof_text file;
    int32_t line; /* as detail asks: the line, or the function's first one; 0 = none is known */
    int32_t reserved;
    uint64_t self;         /* of stacks that end there, in the metric: nanoseconds or samples */
    uint64_t total;        /* of stacks that it is on, each counted once, however often it is there */
    uint64_t samples_self; /* idle ones only with include_idle; so samples_total */
    uint64_t samples_total;
    double self_share; /* self, as a part of all that is shown: 0 to 1 */
    double total_share;
} pyprof_row;

/* The functions of a profile, or its lines (output.detail: lines by default), with what each took in all threads: those
   whose total is above 0. Ordered by self, then total, both downwards, then name, path and line. *count: how many rows
   there is room for, and then, how many there are; of more than have room the first are given. rows may be NULL if
   *count is 0. output as for pyprof_visit, filters included. As pyprof_write otherwise.
   Errors: ARGUMENT, MEMORY. */
PYPROF_API pyprof_result pyprof_top(const pyprof_profile *profile, const pyprof_output *output, pyprof_row *rows,
                                    size_t *count);

/* Names an interpreter for the outputs: "[interpreter 1: physics]" stands there before its frames, without a name
   "[interpreter 1]"; the main interpreter (0) is shown only where a thread comes to it from another one. Interpreters of
   one name, as a script has that is loaded anew, are one in a recording, under the id of its first. id: as
   PyInterpreterState_GetID gives it. name: UTF-8, copied, 63 bytes at most are kept; NULL takes the name away. For
   samples from then on, in this recording and later ones. Up to 64 interpreters have names at a time; of one name, the
   65th takes the place of the one that was named first.
   Any thread, with or without the GIL, also while nothing is recorded. Errors: ARGUMENT (id below 0), MEMORY. */
PYPROF_API pyprof_result pyprof_name_interpreter(int64_t id, const char *name);

/* Names the calling thread for the outputs, before whatever name Python or the system has for it. name: UTF-8, copied, 63
   bytes at most are kept; NULL takes the name away. For this recording, with all that it has of the thread, and later
   ones. Up to 1,024 living threads have such names at a time.
   Any thread, with or without the GIL, also while nothing is recorded. Errors: MEMORY. */
PYPROF_API pyprof_result pyprof_name_thread(const char *name);

#ifndef PYPROF_NO_HEAP
/* What is allocated is sampled by bytes: one in sampling_bytes on average, at random, so that an allocation is in the
   profile with the chance 1 - exp(-size / sampling_bytes), and counts for one divided by that. What the figures of a
   heap profile estimate is thus right on average; the standard error of a sum of x bytes is at most
   sqrt(x * sampling_bytes), that of all that lives is in pyprof_heap_stats. All zero = good defaults. */
typedef struct pyprof_heap_desc {
    size_t sampling_bytes; /* 1 to 1 GiB; 0 = 512 KiB. Fewer: truer and slower */
    size_t memory_limit;   /* bytes that are held for it at most, at least 1 MiB; 0 = 32 MiB. Below 120 bytes are needed
                              for each sample that lives. A snapshot is memory of its own, of up to as many bytes */
    uint32_t max_depth;    /* frames of a stack, as in pyprof_desc */
    uint32_t reserved;
    pyprof_allocator allocator; /* called within allocations of Python's and within pyprof_heap_on_alloc: it must call
                                   neither */
    pyprof_logger logger;       /* hears of calls that fail; never called within an allocation */
} pyprof_heap_desc;

/* Python's allocators that are followed: bits of pyprof_heap_stats.domains. */
enum {
    PYPROF_HEAP_RAW = 1,   /* PyMem_RawMalloc and its kin */
    PYPROF_HEAP_MEM = 2,   /* PyMem_Malloc */
    PYPROF_HEAP_OBJ = 4,   /* PyObject_Malloc */
    PYPROF_HEAP_NATIVE = 8 /* malloc and mmap of all code: libpyprof-heap.so is preloaded */
};

/* What heap sampling did, and what it could not do, since it was started first or since pyprof_heap_shutdown. Bytes and
   objects are estimates; an error is a standard error: the truth is within two of them 19 times in 20. */
typedef struct pyprof_heap_stats {
    uint64_t samples;      /* allocations that were sampled; of these, */
    uint64_t samples_live; /* those that live, */
    uint64_t samples_freed;
    uint64_t samples_replaced; /* those whose end was not seen: their address was given out again */
    uint64_t stacks;           /* different stacks, threads told apart */
    uint64_t live_bytes;
    uint64_t live_bytes_error;
    uint64_t live_objects;
    uint64_t alloc_bytes; /* all that was allocated, also what has been freed since */
    uint64_t alloc_bytes_error;
    uint64_t lost_memory;      /* samples that memory_limit had no room for: nothing shows them as living, */
    uint64_t lost_bytes;       /* for so many bytes */
    uint64_t lost_unreadable;  /* samples whose stack could not be read: shown as "[unsettled]" */
    uint64_t truncated_depth;  /* samples of stacks deeper than max_depth */
    uint64_t truncated_memory; /* samples that went to "[truncated]" because the tree was full */
    uint64_t live_capacity;    /* samples that there is room for before more memory is taken */
    uint64_t bytes;            /* memory held now */
    uint64_t bytes_peak;
    uint64_t sampling_bytes;
    uint64_t duration_ns;
    uint32_t
        domains; /* PYPROF_HEAP_...: of which allocators our hooks are in the chain now. Of Python's only told to who
                         may call pyprof_heap_start */
    bool is_sampling;
} pyprof_heap_stats;

/* Begins to sample what Python allocates; NULL = defaults. Its hooks are put over what raw, mem and obj have for
   allocators (PyMem_SetAllocator), debug hooks and tracemalloc included, and call those. What one allocator passes on to
   another counts once, as it was asked for; a realloc ends one allocation and begins another; a request for 0 bytes counts for
   none. Where libpyprof-heap.so is preloaded, what all code takes by malloc and its kin is sampled, too, and what it maps
   by mmap, under "[mmap]", if that can be written to and is of no file; the first pyprof.h of a process that asks has it.
   Starts no thread and takes no signal; a recording (pyprof_start) may run at the same time. After pyprof_heap_stop it goes
   on, with the new sampling_bytes and else as it was started first. Called with the GIL, or before Py_Initialize; CPython
   drops all hooks when it begins with an allocator that was asked for (PYTHONMALLOC, -X dev), and since 3.12 when it begins
   anew after Py_Finalize: then call it again, which puts them back. Once hooks were put in, a plugin that holds this stays
   loaded. A forked child goes on as its parent does, as what lives there is a copy.
   Errors: ARGUMENT, ALREADY_ACTIVE (it samples, and all hooks are there), GIL, MEMORY, PYTHON, PYTHON_MISMATCH,
   PYTHON_DEBUG. */
PYPROF_API pyprof_result pyprof_heap_start(const pyprof_heap_desc *desc);

/* Takes no new samples. Those that live are followed until they are freed, so a later snapshot shows no false leak. Any
   thread, with or without the GIL. Errors: NOT_ACTIVE. */
PYPROF_API pyprof_result pyprof_heap_stop(void);

/* What lives now, and what was allocated since the start, as a profile of the kind PYPROF_KIND_HEAP: written, visited and
   filtered as any other, in the metrics PYPROF_METRIC_INUSE_SPACE and so on. Any thread, with or without the GIL;
   sampling goes on meanwhile, as it is copied in pieces. Errors: ARGUMENT, NOT_ACTIVE, MEMORY (*profile = NULL). */
PYPROF_API pyprof_result pyprof_heap_snapshot(pyprof_profile **profile);

/* As pyprof_heap_snapshot, and the profile also has the samples that live, one by one, for pyprof_visit_samples: 56
   bytes each, of the profile's memory. Files have their sums only. */
PYPROF_API pyprof_result pyprof_heap_snapshot_samples(pyprof_profile **profile);

/* Any thread, with or without the GIL. Errors: ARGUMENT, NOT_ACTIVE. */
PYPROF_API pyprof_result pyprof_heap_get_stats(pyprof_heap_stats *stats);

/* Takes the hooks out, and forgets all samples. Called as pyprof_heap_start is. Errors: NOT_ACTIVE; GIL; HOOKED, and nothing
   has changed: somebody has put hooks over ours, and goes on calling them (tracemalloc: stop it first), or, while there is
   no Python, may do so. */
PYPROF_API pyprof_result pyprof_heap_shutdown(void);

/* For an allocator of the host's: what it has given out, of the size that was asked for, and what it is about to take
   back. Any thread, with or without the GIL; does nothing, in some nanoseconds, while heap sampling is off. The stack is
   the Python stack of the calling thread; of one that is not in Python, and to 3.11 of one without the GIL other than
   its own thread state's, it is "[native]". Where PYPROF_HEAP_NATIVE is among pyprof_heap_stats.domains, blocks that the
   host has from malloc are told already, and would count twice. */
PYPROF_API void pyprof_heap_on_alloc(const void *memory, size_t size);
PYPROF_API void pyprof_heap_on_free(const void *memory);

/* What libpyprof-heap.so (tools/libpyprof_heap.c) and pyprof_heap_start say to each other; a host needs none of it. That
   library, preloaded, stands before malloc and its kin and before mmap, and passes all on. It exports one
   pyprof_heap_interposer, by the name PYPROF_HEAP_INTERPOSER, whose number goes up when anything here changes. Until
   somebody listens that is all it does. Listener's functions are called in any thread, with or without the GIL, and also
   where there is none; not by the loader, nor within another one of them in the same thread. errno stays.
   thread: PYPROF_HEAP_THREAD bytes of the calling thread's own, zero at first, that last until it ends. pass_on: does what
   the program has asked for. */
#define PYPROF_HEAP_INTERPOSER "pyprof_heap_interposer_1"
#define PYPROF_HEAP_THREAD 128

/* A call of mremap. */
typedef struct pyprof_heap_remap {
    void *memory;
    size_t size;     /* bytes */
    size_t new_size; /* bytes */
    int flags;
    void *place; /* used with MREMAP_FIXED and MREMAP_DONTUNMAP */
} pyprof_heap_remap;

typedef struct pyprof_heap_listener {
    void (*on_alloc)(void *thread, const void *memory, size_t size); /* has been allocated; of the size asked for */
    void (*on_free)(void *thread, const void *memory);               /* is about to be freed; not NULL */
    void *(*on_realloc)(void *thread, void *memory, size_t size, void *(*pass_on)(void *memory, size_t size));
    void (*on_map)(void *thread, const void *memory, size_t size, bool is_memory); /* else a file, or a reservation */
    int (*on_unmap)(void *thread, void *memory, size_t size, int (*pass_on)(void *memory, size_t size));
    void *(*on_remap)(void *thread, const pyprof_heap_remap *call, void *(*pass_on)(const pyprof_heap_remap *call));
} pyprof_heap_listener;

typedef struct pyprof_heap_interposer {
    void *(*thread)(void); /* the calling thread's bytes */
    /* Whether whoever has this address may listen: who has asked first, for as long as the process lives, as no other one
       can read what it has put into threads' bytes. */
    bool (*claim)(const void *listener);
    /* Who listens from now on; NULL = nobody. Threads may yet be inside the functions of the one before, which
       must stay loaded. */
    void (*listen)(const pyprof_heap_listener *listener);
} pyprof_heap_interposer;
#endif

#ifndef PYPROF_NO_LISTEN
/* Listens on a Unix socket, so that other processes of the same user, and of root, can look at a recording, and
   start and stop one: tools/pyprof-ctl does; what is spoken is in >>answers. Starts one thread, "pyprof-listen", with
   all signals blocked, which sleeps until somebody connects, and never takes the GIL. path: of at most 107 bytes,
   made with mode 0600; NULL = pyprof-UID/PID.sock in $XDG_RUNTIME_DIR, or else in /tmp, where the folder has to be
   this user's and of mode 0700; it is made if it is not there. The socket of a process that has ended is replaced,
   one that somebody listens at never is. Up to 8 peers are served at a time; one that sends or takes nothing for 5
   seconds is closed, and so is one whose answer takes a minute. A snapshot that a peer has not taken yet is of the
   recording's memory, also when that has ended: pyprof_unlisten comes before the allocator's end. It goes on while
   recordings come and go, and after Py_Finalize. A forked child does not listen, and may do so itself. A program
   that ends without pyprof_unlisten leaves the socket's file behind. Any thread. Errors: ARGUMENT, ALREADY_ACTIVE
   (this process listens), IO (errno says why), MEMORY, THREAD. */
PYPROF_API pyprof_result pyprof_listen(const char *path);

/* Ends that: closes all connections, ends the thread, and removes the socket's file. Waits for a request that is
   being carried out. With one that stops a recording it waits for the sampler, as pyprof_stop does: see pyprof_logger.
   A recording goes on, whoever began it. Any thread. Errors: NOT_ACTIVE. */
PYPROF_API pyprof_result pyprof_unlisten(void);
#endif

/* Gives a profile's memory back; NULL is fine. Uses the allocator of the recording. Any thread. */
PYPROF_API void pyprof_free(pyprof_profile *profile);

/* Why the last call that failed in this thread did so: one English sentence, with the argument, signal, path or version
   that it is about. "" if none failed. Never NULL; lives until the next call that fails, or the thread's end. */
PYPROF_API const char *pyprof_last_error(void);

/* A short English text for a result; never NULL, static. Any thread. */
PYPROF_API const char *pyprof_result_string(pyprof_result result);

#ifdef __cplusplus
}
#endif

#endif /* PYPROF_H */

#ifdef PYPROF_IMPLEMENTATION
#ifndef PYPROF_IMPLEMENTED
#define PYPROF_IMPLEMENTED

#if !defined(__linux__)
#error "pyprof.h: only Linux is supported so far; the seams for other systems are in >>platform"
#elif UINTPTR_MAX != UINT64_MAX || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pyprof.h: only 64-bit little-endian processors are supported: x86-64 and aarch64 are tested"
#endif
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "pyprof.h: include it before all other headers where PYPROF_IMPLEMENTATION is defined"
#endif

#ifndef PYPROF_NO_RECORDING
#include <Python.h>
#include <frameobject.h>
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Then much stays unused of what recordings share with profiles. */
#if defined(PYPROF_NO_RECORDING) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

/* Whether this may be part of a library that is unloaded. */
#if defined(__GNUC__) && defined(__PIC__) && !defined(__PIE__)
#define PYPROF__UNLOADABLE 1
#else
#define PYPROF__UNLOADABLE 0
#endif

// >>platform
// What the operating system gives: atomic words, clocks, thread ids, waiting, signals, files below /proc. A port
// replaces this part, >>reads, >>signals and >>holding, and a few calls elsewhere (SYS_, prctl). In: thread ids,
// addresses, moments of the monotonic clock. Out: nanoseconds, ids, sets of signals; 0, false or an empty range where
// the system does not tell. Nothing here takes a lock of ours or allocates, and any thread may call it.
// In the signal handler run: the atomics, the clocks, pyprof__tid, pyprof__wake, pyprof__signal_bit, and what takes the
// interrupted thread's context. What opens files below /proc never does.
// Begin with: pyprof__process, pyprof__clock, pyprof__cpu_clock, pyprof__signal_thread, pyprof__call_was_interrupted.

/* A word that several threads, or a thread and its signal handler, share. Atomics have types of their own, so that no
   plain load or store touches one by mistake. The compiler's builtins serve C and C++ alike, which <stdatomic.h> does
   not before C++23; at these sizes they need no lock, so that the handler may use them. */
typedef struct pyprof__atomic32 {
    uint32_t value;
} pyprof__atomic32;

typedef struct pyprof__atomic64 {
    uint64_t value;
} pyprof__atomic64;

/* Acquire and release: a thread that sees a value also sees all that was written before the value was set. */
static inline uint32_t pyprof__get(const pyprof__atomic32 *atomic) {
    return __atomic_load_n(&atomic->value, __ATOMIC_ACQUIRE);
}

static inline void pyprof__set(pyprof__atomic32 *atomic, uint32_t value) {
    __atomic_store_n(&atomic->value, value, __ATOMIC_RELEASE);
}

/* Returns the sum, modulo 2^32: (uint32_t)-1 takes one away. */
static inline uint32_t pyprof__add(pyprof__atomic32 *atomic, uint32_t value) {
    return __atomic_add_fetch(&atomic->value, value, __ATOMIC_ACQ_REL);
}

static inline bool pyprof__swap_if(pyprof__atomic32 *atomic, uint32_t expected, uint32_t value) {
    return __atomic_compare_exchange_n(&atomic->value, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline uint64_t pyprof__get64(const pyprof__atomic64 *atomic) {
    return __atomic_load_n(&atomic->value, __ATOMIC_ACQUIRE);
}

static inline void pyprof__set64(pyprof__atomic64 *atomic, uint64_t value) {
    __atomic_store_n(&atomic->value, value, __ATOMIC_RELEASE);
}

/* A name that the host gave: pyprof_name_interpreter, pyprof_name_thread. */
typedef struct pyprof__name {
    int64_t id;          /* an interpreter's id, or a thread's */
    uintptr_t thread_id; /* the thread's pthread_t; 0 for an interpreter */
    char text[64];       /* UTF-8, ends in a zero */
} pyprof__name;

#define PYPROF__NAMES_MAX 64u
#define PYPROF__THREAD_NAMES_MAX 1024u

/* All that outlives a recording, but for three things: what the signal handler works with (pyprof__handler), the lock
   that guards the second half of this (>>lifecycle), and each thread's last error (>>base). */
static struct pyprof__process {
    /* Set when a recording starts; while it runs only the sampler changes these, and the handler reads them. */
    pid_t pid; /* asked for once, as each system call counts; in a child that was forked still its parent's */
    /* /proc/self/mem, where process_vm_writev is not allowed. Device and inode tell it from a file of the program's
       that took its place: a program may close all descriptors, and open its own. */
    bool has_memory_file;
    int memory_file;
    struct stat memory_status;
    /* The system refused to read at all, as opposed to a bad address: a program may take rights from itself. Set in the
       handler, too. */
    pyprof__atomic32 reads_refused;

    /* Guarded by the lock of >>lifecycle; names by the sampler's, too. */
    pyprof__atomic32 lock_holder;   /* thread id; 0 = nobody */
    struct pyprof__sampler *active; /* NULL = nothing is recorded */
    pyprof__atomic32 active_in;     /* the process that it records; 0 = none. May be read without the lock */
    bool was_active;                /* a recording has ended in this process, */
    pyprof_stats last_stats;        /* and these were its figures */
    bool stays_loaded;              /* what holds this is never unloaded: see pyprof__stay_loaded */
    struct {
        bool is_registered; /* fork calls us */
        bool has_lock;      /* fork holds our locks; not if a signal handler forks inside one of our functions */
        struct pyprof__sampler *inherited; /* in a child: the parent's recording, to be given back */
    } fork;
    struct {
        int32_t generation; /* goes up with each name; part of every mark, so that a new name makes new ones */
        uint32_t count;
        pyprof__name items[PYPROF__NAMES_MAX];
    } interpreter_names;
    struct {
        uint32_t generation; /* goes up with each name: threads then look theirs up anew */
        uint32_t count;
        pyprof__name items[PYPROF__THREAD_NAMES_MAX];
    } thread_names;
} pyprof__process;

#if !defined(PYPROF__CLOCK_GETTIME)
#define PYPROF__CLOCK_GETTIME clock_gettime /* a test may have clocks of its own */
#endif

/* Nanoseconds; 0 = there is no such clock, or its thread has ended. Async-signal-safe. */
static uint64_t pyprof__clock(clockid_t id) {
    struct timespec time;
    if (PYPROF__CLOCK_GETTIME(id, &time) != 0) {
        return 0;
    }
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* While some timer of the process's CPU clock is set, the kernel keeps that clock's sum up to date, which else it adds
   up over all threads at each look. This one would ring after ten years of CPU time. -1 = the system refuses it, and
   each look takes longer. */
static int pyprof__keep_process_clock(void) {
    const struct itimerspec when = {{0, 0}, {10L * 365 * 24 * 3600, 0}};
    struct sigevent event;
    int timer = -1;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGURG;
    if (syscall(SYS_timer_create, CLOCK_PROCESS_CPUTIME_ID, &event, &timer) != 0) {
        return -1;
    }
    syscall(SYS_timer_settime, timer, 0, &when, NULL);
    return timer;
}

static void pyprof__leave_process_clock(int timer) {
    if (timer >= 0) {
        syscall(SYS_timer_delete, timer);
    }
}

/* Nanoseconds of the monotonic clock. All moments in this file are of that clock, unless it says otherwise. */
static uint64_t pyprof__now(void) {
    return pyprof__clock(CLOCK_MONOTONIC);
}

/* The clock of one thread's CPU time, made from its id. Once the thread is gone to read it is an error; of
   pthread_getcpuclockid that would be undefined. Layout: Linux, include/linux/posix-timers_types.h. */
static clockid_t pyprof__cpu_clock(int32_t tid) {
    return (clockid_t)((~(uint32_t)tid << 3) | 6u);
}

static int32_t pyprof__tid(void) {
    return (int32_t)syscall(SYS_gettid);
}

/* Whether some thread of this process has the id. Signal 0 asks and sends nothing; where a filter refuses that, the
   thread's CPU clock tells, which can be read of threads of this process only. */
static bool pyprof__thread_lives(int32_t tid) {
    if (tid <= 0 || syscall(SYS_tgkill, pyprof__process.pid, tid, 0) == 0) {
        return tid > 0;
    }
    return errno != ESRCH && pyprof__clock(pyprof__cpu_clock(tid)) != 0;
}

/* Sleeps until the word differs from expected, somebody wakes it, or the monotonic clock reaches deadline. It may
   return early, so the caller looks again. A futex and no condition variable, as the handler rings, too. */
static void pyprof__wait_until(pyprof__atomic32 *word, uint32_t expected, uint64_t deadline) {
    const struct timespec time = {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)};
    syscall(SYS_futex, &word->value, FUTEX_WAIT_BITSET_PRIVATE, expected, &time, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* Changes the word, so that a thread that is about to wait does not, and wakes all that wait. Async-signal-safe. */
static void pyprof__wake(pyprof__atomic32 *word) {
    pyprof__add(word, 1);
    syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* The signal of these timers. Not one that may ask for stacks (pyprof__free_signal): whether such a one is pending anywhere
   decides when its action is put back. */
#define PYPROF__LEAD_SIGNAL SIGCHLD

/* Two timers of the kernel that take turns: see pyprof__leads_set. */
typedef struct pyprof__leads {
    uint32_t count; /* of the timers: 2, or 0 where they do not help */
    uint32_t turn;  /* the one that was set last */
    int timers[2];  /* the kernel's ids */
} pyprof__leads;

/* Makes a timer that wakes nobody: its signal is for the calling thread alone, which blocks all signals, and stays pending
   there. False: the system refuses it. */
static bool pyprof__make_timer(int *timer) {
    const size_t tid_at =
        offsetof(struct sigevent, sigev_notify) + sizeof(int); /* has a name in some C libraries only */
    const int32_t tid = pyprof__tid();
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = PYPROF__LEAD_SIGNAL;
    memcpy((char *)&event + tid_at, &tid, sizeof tid);
    return syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, timer) == 0;
}

/* To a moment of the monotonic clock; 0 = not at all. */
static void pyprof__set_timer(int timer, uint64_t moment) {
    const struct itimerspec when = {{0, 0}, {(time_t)(moment / 1000000000u), (long)(moment % 1000000000u)}};
    syscall(SYS_timer_settime, timer, TIMER_ABSTIME, &when, NULL);
}

/* Sends a signal with a value to one thread. False: errno says why (ESRCH: the thread has ended). The handler knows our
   signals by SI_QUEUE, the sender, and a tag in the value. */
static bool pyprof__signal_thread(int32_t tid, int signal_number, void *value) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = signal_number;
    info.si_code = SI_QUEUE;
    info.si_pid = pyprof__process.pid;
    info.si_value.sival_ptr = value;
    return syscall(SYS_rt_tgsigqueueinfo, pyprof__process.pid, tid, signal_number, &info) == 0;
}

/* What the handler learns of the code that it interrupted. context: its third argument, a ucontext_t. */

#if defined(__x86_64__)
enum { /* <sys/ucontext.h> names them for _GNU_SOURCE only */
    PYPROF__R8 = 0,
    PYPROF__R9 = 1,
    PYPROF__RSI = 9,
    PYPROF__RAX = 13,
    PYPROF__RSP = 15,
    PYPROF__RIP = 16
};

/* Whether the arguments of a system call on a futex are those of a wait with a deadline, or with none. */
static bool pyprof__are_of_wait(const greg_t *registers) {
    return (registers[PYPROF__RSI] & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)) == FUTEX_WAIT_BITSET &&
           (uint32_t)registers[PYPROF__R9] == (uint32_t)FUTEX_BITSET_MATCH_ANY;
}

/* Whether a signal of the program's comes as soon as the handler returns: it is pending, and the interrupted code does
   not block it. Whether the interrupted call goes on is then that signal's to say. */
static bool pyprof__another_comes(const void *context) {
    uint64_t pending = 0, blocked = 0;
    memcpy(&blocked, &((const ucontext_t *)context)->uc_sigmask, sizeof blocked);
    return syscall(SYS_rt_sigpending, &pending, sizeof pending) != 0 || (pending & ~blocked) != 0;
}
#endif

/* Whether the interrupted code had just come back from a system call with EINTR: the result register says so, and the
   instruction before is the one that enters the kernel (x86-64: syscall, 0f 05; aarch64: svc #0). Waiting on a futex
   does not count: the C library takes most of that up again by itself, and pyprof__resume_wait the rest where it can,
   so that the program does not see it. */
static bool pyprof__call_was_interrupted(const void *context) {
    const ucontext_t *user = (const ucontext_t *)context;
#if defined(__x86_64__)
    const greg_t *registers = user->uc_mcontext.gregs;
    const unsigned char *next = (const unsigned char *)(uintptr_t)registers[PYPROF__RIP];
    return registers[PYPROF__RAX] == -EINTR && next[-2] == 0x0f && next[-1] == 0x05 && !pyprof__are_of_wait(registers);
#elif defined(__aarch64__)
    if (user->uc_mcontext.regs[0] != (unsigned long long)-EINTR || user->uc_mcontext.regs[8] == SYS_futex) {
        return false;
    }
    return ((const uint32_t *)(uintptr_t)user->uc_mcontext.pc)[-1] == 0xd4000001u;
#else
    (void)user;
    return false;
#endif
}

/* Makes a wait on a futex with a deadline go on that our signal has ended: SA_RESTART does not hold for it, and
   sem_timedwait would fail with EINTR (sem_wait, which has no deadline, does not). The kernel has kept all that the
   call was made with but its number, and the deadline is a point in time. The code before shows that it was this call:
   it loads the number right there; or it is where glibc, since 2.41, makes all calls that can be cancelled, with six
   arguments each. */
static void pyprof__resume_wait(void *context) {
#if defined(__x86_64__)
    static const unsigned char numbered[] = {0xb8, SYS_futex, 0, 0, 0, 0x0f, 0x05}; /* mov $SYS_futex, %eax; syscall */
    static const unsigned char cancelled[] = {0x4c, 0x89, 0x5c, 0x24,
                                              0x08, 0x0f, 0x05}; /* mov %r11, 8(%rsp); syscall */
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (registers[PYPROF__RAX] != -EINTR || !pyprof__are_of_wait(registers)) {
        return;
    }
    const unsigned char *call = (const unsigned char *)(uintptr_t)registers[PYPROF__RIP] - sizeof numbered;
    bool is_wait = memcmp(call, numbered, sizeof numbered) == 0 ||
                   (memcmp(call, cancelled, sizeof cancelled) == 0 && registers[PYPROF__R8] == 0);
    if (is_wait && !pyprof__another_comes(context)) {
        registers[PYPROF__RIP] -= 2;
        registers[PYPROF__RAX] = SYS_futex;
    }
#else
    (void)context;
#endif
}

/* The innermost address that the interrupted code may use of its stack; 0 = it cannot be told. On processors whose
   stack pointer is not known here it is where the kernel laid the context, unless that is on an alternate stack. */
static uintptr_t pyprof__interrupted_stack(const void *context) {
#if defined(__x86_64__)
    const uintptr_t red_zone = 128;
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[PYPROF__RSP] - red_zone;
#elif defined(__aarch64__)
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.sp;
#else
    const stack_t *other = &((const ucontext_t *)context)->uc_stack;
    bool is_there = (uintptr_t)context - (uintptr_t)other->ss_sp < other->ss_size;
    return is_there && !(other->ss_flags & SS_DISABLE) ? 0 : (uintptr_t)context;
#endif
}

/* Whether a register of the interrupted code holds a word: to 3.10 the address of a frame that is evaluated may be in a
   register and nowhere on the stack. */
static bool pyprof__registers_hold(const void *context, uintptr_t word) {
    const ucontext_t *user = (const ucontext_t *)context;
    const char *registers = (const char *)&user->uc_mcontext;
    uintptr_t held = 0;
    for (size_t at = 0; at + sizeof held <= sizeof user->uc_mcontext; at += sizeof held) {
        memcpy(&held, registers + at, sizeof held);
        if (held == word) {
            return true;
        }
    }
    return false;
}

/* Reads the beginning of a file as a string, "" if it cannot be read; returns the number of bytes. */
static size_t pyprof__read_small_file(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, text, size - 1) : 0;
    if (file >= 0) {
        close(file);
    }
    length = length > 0 ? length : 0;
    text[length] = '\0';
    return (size_t)length;
}

/* The same for /proc/self/task/TID/NAME, of a thread of this process. */
static size_t pyprof__read_task_file(int32_t tid, const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, name);
    return pyprof__read_small_file(path, text, size);
}

/* Addresses from low on, below high; both 0 = none. */
typedef struct pyprof__range {
    uintptr_t low, high;
} pyprof__range;

static bool pyprof__is_within(const pyprof__range *range, uintptr_t address) {
    return address >= range->low && address < range->high;
}

/* Takes one line of /proc/self/maps: the addresses, and at its end what is mapped there. */
static void pyprof__take_mapping(const char *line, uintptr_t address, pyprof__range *holds, pyprof__range *stack) {
    unsigned long low = 0, high = 0;
    if (sscanf(line, "%lx-%lx ", &low, &high) == 2) {
        const pyprof__range range = {low, high};
        *holds = pyprof__is_within(&range, address) ? range : *holds;
        *stack = strstr(line, " [stack]") != NULL ? range : *stack;
    }
}

/* Finds the mapping of this process that holds an address, and the one that the kernel calls [stack]: that of the
   thread that the process began with. What is not found is empty. */
static void pyprof__find_mappings(uintptr_t address, pyprof__range *holds, pyprof__range *stack) {
    char line[128], part[4096]; /* of longer lines the beginning is enough */
    size_t size = 0;
    ssize_t count = 0;
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    memset(holds, 0, sizeof *holds);
    memset(stack, 0, sizeof *stack);
    while (file >= 0 && (count = read(file, part, sizeof part)) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            bool is_end = part[i] == '\n';
            line[size] = is_end ? '\0' : part[i];
            size = is_end ? 0 : size + (size < sizeof line - 1);
            if (is_end) {
                pyprof__take_mapping(line, address, holds, stack);
            }
        }
    }
    if (file >= 0) {
        close(file);
    }
}

/* Whether the thread runs, or waits for a core, at this moment. False also if that cannot be read. */
static bool pyprof__thread_is_runnable(int32_t tid) {
    char text[256];
    pyprof__read_task_file(tid, "stat", text, sizeof text);
    const char *name_end = strrchr(text, ')'); /* the name may hold anything, also ") R" */
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == 'R';
}

/* Fields of /proc/PID/stat, counted from 1 as in proc(5). */
#define PYPROF__STAT_PARENT 4
#define PYPROF__STAT_BEGIN 22
#define PYPROF__STAT_CORE 39

/* One field of a stat file as a number; 0 = it cannot be read. below is "" for a process, "self/task/" for a thread of
   this one. The name, the second field, may hold spaces and parentheses. */
static uint64_t pyprof__stat_number(const char *below, int32_t id, int place) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%s%d/stat", below, (int)id);
    pyprof__read_small_file(path, text, sizeof text);
    const char *at = strrchr(text, ')'); /* the second field ends there */
    for (int i = 2; at != NULL && i < place; i++) {
        at = strchr(at + 1, ' ');
    }
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

/* Whether the thread with this id began after a moment of the monotonic clock. The system tells its beginning in clock
   ticks (mostly of 10 ms) since boot: within one clock tick the answer is false. */
static bool pyprof__thread_began_after(int32_t tid, uint64_t moment) {
    uint64_t since_boot = pyprof__clock(CLOCK_BOOTTIME) - (pyprof__now() - moment);
    long ticks = sysconf(_SC_CLK_TCK);
    uint64_t begin = pyprof__stat_number("self/task/", tid, PYPROF__STAT_BEGIN);
    return ticks > 0 && begin > since_boot / (1000000000u / (uint64_t)ticks);
}

/* Sets of signals are as the kernel shows them: bit n - 1 for signal n; no bit for 0, which is no signal. */
static uint64_t pyprof__signal_bit(int number) {
    return number > 0 ? (uint64_t)1 << (number - 1) : 0;
}

typedef struct pyprof__signals {
    uint64_t blocked;
    uint64_t pending;         /* for this thread alone */
    uint64_t process_pending; /* for any thread of the process that takes it */
} pyprof__signals;

/* The set of signals, in hexadecimal, of one line of a status file. False: the file has no such line. */
static bool pyprof__read_set(const char *text, const char *title, uint64_t *set) {
    const char *found = strstr(text, title);
    if (found != NULL) {
        *set = strtoull(found + strlen(title), NULL, 16);
    }
    return found != NULL;
}

/* What a thread does with signals at this moment. False: it is gone, or its status cannot be read. */
static bool pyprof__read_signals(int32_t tid, pyprof__signals *signals) {
    char text[4096];
    return pyprof__read_task_file(tid, "status", text, sizeof text) > 0 &&
           pyprof__read_set(text, "\nSigPnd:", &signals->pending) &&
           pyprof__read_set(text, "\nShdPnd:", &signals->process_pending) &&
           pyprof__read_set(text, "\nSigBlk:", &signals->blocked);
}

/* Goes through the threads of this process, as getdents64 lists /proc/self/task: opendir would allocate. */
typedef struct pyprof__tasks {
    int file;  /* -1 = it could not be opened: the list is empty */
    long size; /* bytes of entries that are filled, */
    long at;   /* and where the next entry begins */
    char entries[1024];
} pyprof__tasks;

static void pyprof__tasks_open(pyprof__tasks *tasks) {
    tasks->file = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tasks->size = tasks->at = 0;
}

/* The next one's id; 0 = that was the last. */
static int32_t pyprof__tasks_next(pyprof__tasks *tasks) {
    enum {
        length_at = 16, /* struct linux_dirent64: two words, then these */
        name_at = 19
    };
    for (;;) {
        uint16_t length = 0;
        if (tasks->at >= tasks->size) {
            tasks->at = 0;
            tasks->size =
                tasks->file < 0 ? 0 : syscall(SYS_getdents64, tasks->file, tasks->entries, sizeof tasks->entries);
            if (tasks->size <= 0) {
                return 0;
            }
        }
        const char *entry = tasks->entries + tasks->at;
        memcpy(&length, entry + length_at, sizeof length);
        tasks->at += length;
        if (entry[name_at] != '.') {
            return (int32_t)strtol(entry + name_at, NULL, 10);
        }
    }
}

static void pyprof__tasks_close(pyprof__tasks *tasks) {
    if (tasks->file >= 0) {
        close(tasks->file);
    }
}

// >>tuning
// The figures that trade one thing for another, each with what it trades and what chose it. _NS are nanoseconds, _TICKS
// are ticks, COSTs and debts are looks (PYPROF__COST_OF_LATE_TICK: ticks). Used by the sampler; the first one by the
// handler alone. After a change run `tools/dev bench` and the suite.

/* Asking. An answer takes 2 to 9 us. Up to this figure the handler takes it that the thread's clock went on as time
   did, which saves it a system call. Longer would book CPU time to threads that were off their cores. */
#define PYPROF__JUST_NOW_NS UINT64_C(20000)
/* Looks that shall lie between two system calls that a signal has ended: fewer would show in programs that do not
   repeat calls, more would show [unsettled] frames in those that wait often. A late answer costs a sample and no more.
   Above the first maximum a thread is asked only if it has not left its core, above the second it is not asked. */
#define PYPROF__COST_OF_ENDED_CALL 4096
#define PYPROF__COST_OF_LATE_ANSWER 8
#define PYPROF__ASK_DEBT_MAX (2 * PYPROF__COST_OF_ENDED_CALL)
#define PYPROF__ASK_DEBT_MAX_STEADY (4 * PYPROF__COST_OF_ENDED_CALL)
/* How far the clock of a thread that never left its core may lag behind time: the two are read one after the other. */
#define PYPROF__STEADY_SLACK_NS UINT64_C(10000)
/* So few thread states and interpreters are read so fast that this serves as the last look at the thread that ran at
   the last tick, before it is asked. */
#define PYPROF__FRESH_LISTS 16u

/* Bytes of max_depth frames are kept for each thread that is asked at a time. Together they take this part of the memory
   limit at most, so that the tree has the rest: at the default depth, 5 threads at 1 MiB, and 64 from 12 MiB on. */
#define PYPROF__REQUESTS_PART 8u

/* Threads that do not answer. A thread that ran for so long since it was asked may block the signal: its mask is read
   from a file below /proc, which costs as much as several looks. */
#define PYPROF__UNANSWERED_NS UINT64_C(100000)
/* Where masks cannot be read, a thread that ran for so long without an answer counts as one that blocks the signal. */
#define PYPROF__UNANSWERED_MAX_NS UINT64_C(10000000)
/* At this look since it was asked, and later ones, a thread without an answer is read as one that cannot be asked. */
#define PYPROF__BLOCKED_AFTER_TICKS 8u
/* The mask is read again after so long, and after twice as long each time: a program that starts a thread or a process
   blocks all signals for a moment; one that blocks them for good need not be looked at often. The logger hears of those
   that block for longer. */
#define PYPROF__BLOCKED_WAIT_NS UINT64_C(10000000)
#define PYPROF__BLOCKED_WAIT_MAX_NS UINT64_C(1000000000)
#define PYPROF__BLOCKED_TOLD_NS UINT64_C(100000000)
/* Bytes of a buffer for a path: Linux takes 4,096 (PATH_MAX), and a longer one shall be told from one that is cut. */
#define PYPROF__PATH_SIZE 4200u
/* The logger hears of so many of these threads by name, and then once that there are more. */
#define PYPROF__WARNINGS_MAX 16u
/* A free signal is looked for once in this time, or less often: for no more than a fiftieth of all time. */
#define PYPROF__SEEK_SIGNAL_NS UINT64_C(1000000000)
#define PYPROF__SEEK_SIGNAL_PART 50u

/* Reading quietly. Three reads that agree take 34 us; to read on for long would show what comes after, and favour what
   moves little. Where frames come and go many reads come to nothing: then up to the second number are made, within so
   much time. */
#define PYPROF__QUIET_READS 4
#define PYPROF__QUIET_READS_MAX 8
#define PYPROF__QUIET_NS UINT64_C(150000)

/* Holding. The sampler stays on a held thread's core for so many ticks without use: a longer stay takes time from
   whatever else runs there. Where the kernel lets the sampler wait there, by a millisecond and more at every fourth
   tick, it does not stay on a core for a while. */
#define PYPROF__STAY_ON_CORE_TICKS 8u
#define PYPROF__TICK_LATE_NS UINT64_C(1000000)
#define PYPROF__COST_OF_LATE_TICK 4u
#define PYPROF__LATE_TICKS_MAX 64u
#define PYPROF__ROAM_NS UINT64_C(10000000000)
/* One tick so late is no kernel's choice among equals: a thread with a real-time priority has the core, and keeps it for
   as long as it likes (Linux gives all others 50 ms of each second there). */
#define PYPROF__TICK_STALLED_NS UINT64_C(20000000)
#define PYPROF__ROAM_STALLED_NS UINT64_C(60000000000)
/* A thread is held after its cores were the same at so many looks. If they change, or so many holds in a row come to
   nothing, it is not held for PYPROF__HANDS_OFF_NS. What the host sets in the microsecond of a hold would be lost: a
   host that sets cores a thousand times a second loses nothing with these figures. */
#define PYPROF__CORES_LOOKS 8u
#define PYPROF__HOLDS_FAILED_MAX 8u
#define PYPROF__HANDS_OFF_NS UINT64_C(60000000000)

/* Borrowed thread states. One sign is not believed: clocks of virtual machines stand still for a moment now and then.
   Enough is three, each of which so many looks without one take back: on a busy machine most looks show nothing, as
   whoever runs the thread state is off its core, too. After so long the thread state is taken for its maker's again, as
   it may have been given back. */
#define PYPROF__DOUBT 20u
#define PYPROF__DOUBTS_ENOUGH (2 * PYPROF__DOUBT + 1)
#define PYPROF__BORROWED_NS UINT64_C(30000000000)

/* Sleeping. It is tried so often at most, at the start, whether a timer takes longer to set if it is due in the first time
   rather than the second one: by more than the third, as a tick has to set one more timer for it (0.7 us with what comes
   when it rings), and the kernel may set a core's own timer in less than that. Where it calls the host of a virtual
   machine, that takes 10 us on the one where this was measured. Twice is enough: on a busy core something else is often
   due before the first time is over (seen at one tick in three). Once may be chance. */
#define PYPROF__LEAD_TRIALS 16u
#define PYPROF__LEAD_ENOUGH 2u
#define PYPROF__LEAD_SOON_NS UINT64_C(20000)
#define PYPROF__LEAD_LATE_NS UINT64_C(10000000000)
#define PYPROF__LEAD_GAIN_NS UINT64_C(1500)

/* Names. A new thread is named within a millisecond or two by the code that makes it; a change is seen in a second. */
#define PYPROF__NAME_WAIT_NS UINT64_C(1000000)
#define PYPROF__NAME_WAIT_MAX_NS UINT64_C(1000000000)
/* To look a name up takes about ten reads. Of a parked thread mostly only the word is read that leads to its name: a
   name that is set is another object there. After so many such reads in a row the name is looked up, as an object's
   attributes may have moved: that is how many seconds later such a change is seen. */
#define PYPROF__NAME_GLANCES 7u
/* The names of parked threads that are due within so long are looked up together. */
#define PYPROF__NAMES_TOGETHER_NS UINT64_C(30000000)

/* Dumps. Who waits for the GIL is awake for some microseconds of each 5 ms, or for as long as others have the cores. */
#define PYPROF__GIL_LOOKS 20u

/* Snapshots. While so many bytes are copied the sampler's lock, or the heap's, is held: some 20 us, and as much again where the kernel
   clears the pages first. At the end what has changed meanwhile is copied anew, up to the second number. The lock is let go
   twice as often as there are pieces, and the third number more, and then no more. 32,768 blocks are 4 KiB of bits; of 100,000 nodes a block has 16. */
#define PYPROF__COPY_PIECE ((size_t)64 << 10)
#define PYPROF__COPY_END ((size_t)512 << 10)
#define PYPROF__COPY_PAUSES_MORE 16u
#define PYPROF__CHANGES_BLOCKS 32768u

/* CPU time beside waiting (pyprof__claim), in half gaps of time: a longer memory is steadier where bursts are alike, a
   shorter one follows a program that changes. The stock keeps a rate that was estimated too high from running dry. */
#define PYPROF__CLAIM_MEMORY 128.0
#define PYPROF__CLAIM_STOCK 4.0

/* Parking. Fewer threads than this cost less when they are looked at one by one. A thread that is parked and then runs
   has to be woken, which costs more than a look: so it has to be calm for so many looks, and for so many times the CPU
   time that it has used. */
#define PYPROF__PARK_LEAST 8u
#define PYPROF__CALM_LOOKS 4u
#define PYPROF__RESTLESS_TIMES UINT64_C(512)
#define PYPROF__RESTLESS_MAX_NS UINT64_C(2000000000)
/* The process's clock and those of the threads that are awake are not read all at once; a thread that wakes and waits
   again uses more than this. */
#define PYPROF__BALANCE_SLACK_NS INT64_C(1000)
/* If the balance shows nothing so often in a row, as threads without Python run, it is left alone for so many ticks. */
#define PYPROF__UNBALANCED_MAX 4u
#define PYPROF__UNWEIGHED_TICKS 32u
/* While one that is not parked has the only GIL, the heads of parked thread states need not be read; once in so many
   ticks they are. */
#define PYPROF__HEADS_READ_TICKS 32u

// >>base
// Memory within a limit, the host's log, and the calling thread's last error. In: the host's allocator and logger. Out:
// blocks; NULL where the limit or the allocator says no. Any thread, never the handler: the host's functions may lock,
// or allocate.
// Invariants: a budget counts what was allocated with it and not yet released; that never exceeds the limit, not even
// while one block takes the place of another. A pyprof__memory has no lock: its owner's guards it. A budget needs none.
// Begin with: pyprof__memory, pyprof__alloc, pyprof__release, pyprof__open_reserve, pyprof__say.

/* What a recording, its snapshots, and whatever writes them hold together. They use it from several threads at once,
   and it lives until the last of them has dropped it, which may be long after the recording. */
typedef struct pyprof__budget {
    pyprof__atomic64 used; /* bytes, with its own */
    size_t limit;          /* bytes: pyprof_desc.memory_limit */
    pyprof__atomic32 holders;
} pyprof__budget;

/* What one holder has of a budget: a recording (with its profile), a snapshot, or whatever writes one. All sizes are
   bytes. */
typedef struct pyprof__memory {
    pyprof_allocator allocator;
    size_t limit; /* SIZE_MAX = the budget alone sets a limit */
    size_t used;
    size_t peak;            /* the most that was ever used */
    size_t reserve;         /* so much of the limit is left for what opens it: pyprof__open_reserve */
    pyprof__budget *budget; /* shared with others; NULL = there are none */
} pyprof__memory;

static void *pyprof__libc_alloc(size_t size, void *user) {
    (void)user;
    return malloc(size);
}

static void pyprof__libc_free(void *memory, void *user) {
    (void)user;
    free(memory);
}

#ifndef PYPROF_NO_RECORDING
/* From the one to the other what the calling thread allocates is not its host's: see >>native. */
static void *pyprof__heap_step_aside(void);
static void pyprof__heap_step_back(void *aside);
#else
static void *pyprof__heap_step_aside(void) {
    return NULL;
}
static void pyprof__heap_step_back(void *aside) {
    (void)aside;
}
#endif

/* All that is held comes by this. */
static void *pyprof__call_allocator(const pyprof_allocator *allocator, size_t size) {
    void *aside = pyprof__heap_step_aside();
    void *block = allocator->alloc_fn(size, allocator->user);
    pyprof__heap_step_back(aside);
    return block;
}

static void pyprof__budget_give(pyprof__budget *budget, size_t size) {
    if (budget != NULL) {
        __atomic_sub_fetch(&budget->used.value, size, __ATOMIC_ACQ_REL);
    }
}

/* False: that would exceed the limit, and nothing was taken. It is added first, and taken back if it is too much: of
   two threads that want the last bytes both may be refused, but never both get them. */
static bool pyprof__budget_take(pyprof__budget *budget, size_t size) {
    if (budget == NULL || __atomic_add_fetch(&budget->used.value, size, __ATOMIC_ACQ_REL) <= budget->limit) {
        return true;
    }
    pyprof__budget_give(budget, size);
    return false;
}

/* A budget with one holder; NULL = the allocator gives nothing. */
static pyprof__budget *pyprof__budget_new(const pyprof_allocator *allocator, size_t limit) {
    pyprof__budget *budget = (pyprof__budget *)pyprof__call_allocator(allocator, sizeof *budget);
    if (budget != NULL) {
        budget->used.value = sizeof *budget;
        budget->limit = limit;
        budget->holders.value = 1;
    }
    return budget;
}

/* One holder less; the last one frees the budget. */
static void pyprof__budget_drop(pyprof__budget *budget, const pyprof_allocator *allocator) {
    if (budget != NULL && pyprof__add(&budget->holders, (uint32_t)-1) == 0) {
        allocator->free_fn(budget, allocator->user);
    }
}

/* A block that is to replace another one, of replaced bytes, which the caller releases right after: until then both are
   there. That may be at the cost of the reserve, but not beyond the limit. NULL when the limit or the allocator says
   no. */
static void *pyprof__alloc_instead(pyprof__memory *memory, size_t size, size_t replaced) {
    size_t kept = memory->used - replaced;
    if (kept + memory->reserve > memory->limit || size > memory->limit - kept - memory->reserve ||
        size > memory->limit - memory->used || !pyprof__budget_take(memory->budget, size)) {
        return NULL;
    }
    void *block = pyprof__call_allocator(&memory->allocator, size);
    if (block == NULL) {
        pyprof__budget_give(memory->budget, size);
        return NULL;
    }
    memory->used += size;
    if (memory->used > memory->peak) {
        memory->peak = memory->used;
    }
    return block;
}

static void *pyprof__alloc(pyprof__memory *memory, size_t size) {
    return pyprof__alloc_instead(memory, size, 0);
}

/* Gives back a block, which may be NULL. size is what it was allocated with: the caller keeps it, as blocks have no
   header. */
static void pyprof__release(pyprof__memory *memory, void *block, size_t size) {
    if (block != NULL) {
        memory->used -= size;
        memory->allocator.free_fn(block, memory->allocator.user);
        pyprof__budget_give(memory->budget, size);
    }
}

/* Lets the caller allocate from the reserve, too: for what has to have room when all else is full, as lists of threads,
   requests, and code objects that were met. Returns what the caller puts back into memory->reserve afterwards. */
static size_t pyprof__open_reserve(pyprof__memory *memory) {
    size_t reserve = memory->reserve;
    memory->reserve = 0;
    return reserve;
}

/* Calls the host's logger, if there is one. Without a lock of ours, as it may take long, or wait for another thread. */
static void pyprof__log(const pyprof_logger *logger, pyprof_log_level level, const char *message) {
    if (logger->log_fn != NULL) {
        logger->log_fn(level, message, logger->user);
    }
}

/* Errors. The code that fails says so in words, into a text of the calling thread's own, often under a lock of ours.
   The public function then reports it to the host's logger, when it has let go of the lock. */

static __thread char pyprof__error_text[512]; /* what pyprof_last_error returns in this thread; "" = nothing failed */

/* Sets the calling thread's last error, one English sentence that names what it is about. errno stays. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static void
pyprof__say(const char *format, ...) {
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(pyprof__error_text, sizeof pyprof__error_text, format, arguments);
    va_end(arguments);
    errno = error;
}

/* Tells the host's logger the calling thread's last error, if the result is an error. Returns the result; errno
   stays. */
static pyprof_result pyprof__report(const pyprof_logger *logger, pyprof_result result) {
    int error = errno;
    if (result != PYPROF_OK && logger != NULL) {
        char text[sizeof pyprof__error_text]; /* should the log function call us all the same, the error stays */
        memcpy(text, pyprof__error_text, sizeof text);
        pyprof__log(logger, PYPROF_LOG_ERROR, text);
        memcpy(pyprof__error_text, text, sizeof text);
    }
    errno = error;
    return result;
}

// >>containers
// An array that grows, and a table: an array whose items are found again by the bytes that they begin with, their key.
// In: a pyprof__memory, from which all room is taken. Out: an item's index; PYPROF__NONE or false where there is no
// room, and then all items are as they were.
// Invariants: an item's index stays, its address only until the next item is added, which may move all of them. A table
// loses items only all at once. There are no locks: the owner's guards a container. Any thread; the handler calls
// nothing of this but pyprof__mix.
//   key --hash--> slots:  | free | hash, 3 | hash, 1 | free | hash, 2 | free | ...     an item's index + 1
//                 items:  | key, rest | key, rest | key, rest |                        in the order they came in
// Begin with: pyprof__array_add, PYPROF__ITEM, pyprof__table_intern, pyprof__table_find, pyprof__bits_first_out.

/* No index: nothing was found, or there is no room. No array grows so far that it has this index. */
#define PYPROF__NONE UINT32_MAX

/* Items of one size, one behind the other. All zero but for item_size is an array without items, and without memory. */
typedef struct pyprof__array {
    void *data; /* NULL while capacity is 0 */
    size_t item_size;
    uint32_t count;    /* items that are there */
    uint32_t capacity; /* items that there is room for */
} pyprof__array;

/* The item itself, to read or write, as the type that the array is of. The index is not checked. */
#define PYPROF__ITEM(type, array, index) (((type *)(array)->data)[index])

/* Gives the memory back: an empty array is left, that may be used anew. */
static void pyprof__array_free(pyprof__memory *memory, pyprof__array *array) {
    pyprof__release(memory, array->data, (size_t)array->capacity * array->item_size);
    array->data = NULL;
    array->count = array->capacity = 0;
}

/* Makes room for just capacity items, which must not be fewer than there are. The host's allocator has no realloc: for
   a moment the old block and the new one are both there, and count against the limit. False: no room; all is as it
   was. */
static bool pyprof__array_resize(pyprof__memory *memory, pyprof__array *array, size_t capacity) {
    if (capacity > PYPROF__NONE - 1) {
        return false;
    }
    size_t held = (size_t)array->capacity * array->item_size;
    void *data = pyprof__alloc_instead(memory, capacity * array->item_size, held);
    if (data == NULL) {
        return false;
    }
    if (array->count > 0) {
        memcpy(data, array->data, (size_t)array->count * array->item_size);
    }
    pyprof__release(memory, array->data, held);
    array->data = data;
    array->capacity = (uint32_t)capacity;
    return true;
}

/* Makes room for count items; doubles, so that items are seldom moved, or grows by a quarter or a sixteenth where the
   memory limit is near. False: no room. */
static bool pyprof__array_reserve(pyprof__memory *memory, pyprof__array *array, size_t count) {
    size_t minimum = array->capacity == 0 ? 16 : array->capacity;
    bool has_room = count <= array->capacity;
    for (size_t part = 1; !has_room && part <= 16; part *= 4) {
        size_t more = minimum + minimum / part;
        has_room = pyprof__array_resize(memory, array, more > count ? more : count);
    }
    return has_room;
}

/* The index of a new item with all bytes zero, or PYPROF__NONE. */
static uint32_t pyprof__array_add(pyprof__memory *memory, pyprof__array *array) {
    if (!pyprof__array_reserve(memory, array, (size_t)array->count + 1)) {
        return PYPROF__NONE;
    }
    memset((char *)array->data + (size_t)array->count * array->item_size, 0, array->item_size);
    return array->count++;
}

/* Fills copy, whatever it held before, with the items of array, in a block of their size. False: no room, and copy is
   empty. */
static bool pyprof__array_copy(pyprof__memory *memory, pyprof__array *copy, const pyprof__array *array) {
    const pyprof__array empty = {NULL, array->item_size, 0, 0};
    *copy = empty;
    if (array->count > 0 && pyprof__array_resize(memory, copy, array->count)) {
        memcpy(copy->data, array->data, (size_t)array->count * array->item_size);
        copy->count = array->count;
    }
    return copy->count == array->count;
}

/* Which items of an array have changed since whoever copies it in pieces took them: a bit for each block of them. The
   last block has all that are behind the others, too. */
typedef struct pyprof__changes {
    uint32_t shift; /* a block has 1 << shift items */
    uint64_t bits[PYPROF__CHANGES_BLOCKS / 64];
} pyprof__changes;

static void pyprof__note_change(pyprof__changes *changes, uint32_t index) {
    uint32_t block = index >> changes->shift;
    block = block < PYPROF__CHANGES_BLOCKS ? block : PYPROF__CHANGES_BLOCKS - 1;
    changes->bits[block / 64] |= UINT64_C(1) << block % 64;
}

static void pyprof__note_all_changed(pyprof__changes *changes) {
    memset(changes->bits, 0xff, sizeof changes->bits);
}

/* A set of numbers, a bit each, in an array of 64-bit words. Makes room for all numbers below count. False: no room. */
static bool pyprof__bits_reserve(pyprof__memory *memory, pyprof__array *bits, size_t count) {
    while ((size_t)bits->count * 64 < count) {
        if (pyprof__array_add(memory, bits) == PYPROF__NONE) {
            return false;
        }
    }
    return true;
}

/* Puts a number, for which there is room, into a set, or takes it out. */
static void pyprof__bits_put(pyprof__array *bits, uint32_t number, bool is_in) {
    uint64_t *word = &PYPROF__ITEM(uint64_t, bits, number / 64), bit = UINT64_C(1) << number % 64;
    *word = is_in ? *word | bit : *word & ~bit;
}

/* The first number from one on that is not in a set. Passes 64 at a step where all are in it. */
static uint32_t pyprof__bits_first_out(const pyprof__array *bits, uint32_t number) {
    while (number / 64 < bits->count) {
        uint64_t out = ~PYPROF__ITEM(const uint64_t, bits, number / 64) >> number % 64;
        if (out != 0) {
            return number + (uint32_t)__builtin_ctzll(out);
        }
        number = (number / 64 + 1) * 64;
    }
    return number;
}

/* Where a table looks for an item. A key's slot was the first free one from hash modulo slot_count on (linear probing),
   so a search ends at a free slot. */
typedef struct pyprof__slot {
    uint32_t hash; /* of the whole key: compared first, which spares most looks at items */
    uint32_t item; /* index + 1; 0 = free */
} pyprof__slot;

/* Items found by key. Keys are compared as bytes: those between their fields have to be zero. */
typedef struct pyprof__table {
    pyprof__array items;
    size_t key_size; /* bytes; every item begins with its key; a multiple of 4 */
    pyprof__slot *slots;
    uint32_t slot_count; /* a power of two, or 0 */
} pyprof__table;

/* Adds a word to a hash. The factor, 2^64 divided by the golden ratio, carries each bit upwards; the shift brings the
   upper bits down again. Fingerprints are made by it, too, also in the handler. */
static uint64_t pyprof__mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

/* The hash of a key of size bytes, a multiple of four. Keys are short, and hashed for most frames of each new stack:
   they are taken by words, without a call. */
static uint32_t pyprof__hash(const void *key, size_t size) {
    const unsigned char *at = (const unsigned char *)key;
    uint64_t hash = size, word;
    uint32_t rest = 0;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = pyprof__mix(hash, word);
    }
    if (size > 0) {
        memcpy(&rest, at, sizeof rest);
    }
    return (uint32_t)(pyprof__mix(hash, rest) >> 32);
}

/* Whether two keys are the same, by words of four bytes: memcmp with a size that the compiler does not know is a
   call. */
static bool pyprof__same_key(const void *a, const void *b, size_t size) {
    const unsigned char *one = (const unsigned char *)a, *other = (const unsigned char *)b;
    for (; size > 0; size -= 4, one += 4, other += 4) {
        uint32_t first, second;
        memcpy(&first, one, sizeof first);
        memcpy(&second, other, sizeof second);
        if (first != second) {
            return false;
        }
    }
    return true;
}

/* An empty table; takes no memory yet. */
static void pyprof__table_init(pyprof__table *table, size_t item_size, size_t key_size) {
    memset(table, 0, sizeof *table);
    table->items.item_size = item_size;
    table->key_size = key_size;
}

/* Gives the memory back: an empty table is left, that may be used anew. */
static void pyprof__table_free(pyprof__memory *memory, pyprof__table *table) {
    pyprof__array_free(memory, &table->items);
    pyprof__release(memory, table->slots, table->slot_count * sizeof *table->slots);
    table->slots = NULL;
    table->slot_count = 0;
}

/* Forgets the items, keeps the memory. */
static void pyprof__table_clear(pyprof__table *table) {
    table->items.count = 0;
    if (table->slots != NULL) {
        memset(table->slots, 0, table->slot_count * sizeof *table->slots);
    }
}

/* Puts a slot into its place: the first from its own on that is free. There is one, see pyprof__table_reserve. */
static void pyprof__put_slot(pyprof__slot *slots, uint32_t count, pyprof__slot slot) {
    uint32_t at = slot.hash & (count - 1);
    while (slots[at].item != 0) {
        at = (at + 1) & (count - 1);
    }
    slots[at] = slot;
}

/* Makes sure that a third of the slots at least stays free with more items, so that searches are short: doubles their
   number until that is so. The items have their room by pyprof__array_reserve. False: no room; all is as it was. */
static bool pyprof__table_reserve(pyprof__memory *memory, pyprof__table *table, size_t more) {
    if (table->items.count + more <= table->slot_count - table->slot_count / 3) {
        return true;
    }
    uint32_t count = table->slot_count == 0 ? 64 : 2 * table->slot_count;
    while (table->items.count + more > count - count / 3) {
        count *= 2;
    }
    size_t held = table->slot_count * sizeof(pyprof__slot);
    pyprof__slot *slots = (pyprof__slot *)pyprof__alloc_instead(memory, count * sizeof *slots, held);
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0, count * sizeof *slots);
    for (uint32_t i = 0; i < table->slot_count; i++) {
        if (table->slots[i].item != 0) {
            pyprof__put_slot(slots, count, table->slots[i]);
        }
    }
    pyprof__release(memory, table->slots, held);
    table->slots = slots;
    table->slot_count = count;
    return true;
}

/* The index of the item with this key, whose pyprof__hash is hash; PYPROF__NONE = there is none. */
static uint32_t pyprof__table_find(const pyprof__table *table, const void *key, uint32_t hash) {
    uint32_t mask = table->slot_count - 1;
    for (uint32_t at = hash & mask; table->slot_count > 0 && table->slots[at].item != 0; at = (at + 1) & mask) {
        uint32_t item = table->slots[at].item - 1;
        const char *known = (const char *)table->items.data + (size_t)item * table->items.item_size;
        if (table->slots[at].hash == hash && pyprof__same_key(known, key, table->key_size)) {
            return item;
        }
    }
    return PYPROF__NONE;
}

/* The index of the item with this key. If there is none yet it is added, zero but for the key, and is_new is set;
   PYPROF__NONE = no room. */
static uint32_t pyprof__table_intern(pyprof__memory *memory, pyprof__table *table, const void *key, bool *is_new) {
    uint32_t hash = pyprof__hash(key, table->key_size);
    uint32_t known = pyprof__table_find(table, key, hash);
    *is_new = false;
    if (known != PYPROF__NONE || !pyprof__table_reserve(memory, table, 1)) {
        return known;
    }
    uint32_t item = pyprof__array_add(memory, &table->items);
    if (item == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    const pyprof__slot slot = {hash, item + 1};
    memcpy((char *)table->items.data + (size_t)item * table->items.item_size, key, table->key_size);
    pyprof__put_slot(table->slots, table->slot_count, slot);
    *is_new = true;
    return item;
}

#ifndef PYPROF_NO_RECORDING

// >>reads
// Reading this process's own memory where it may vanish: a bad address is an error code, never a fault. In: addresses
// that may be stale. Out: bytes, or false. They need not be of one moment, as other threads go on writing. Three
// layers:
// - pyprof__read_places, pyprof__read (also in the handler), pyprof__read_pieces: one system call for many places.
// - pyprof__view: blocks of memory that are read once in a walk; the sampler's alone, 64 KiB.
// - pyprof__load with a pyprof__reader: what walks use. Plain loads where memory is known to live, else one of these.

/* One of several places that are read at once, and where its bytes go. */
typedef struct pyprof__piece {
    uintptr_t address;
    void *to;
    size_t size;
} pyprof__piece;

#define PYPROF__PIECES_MAX 64

/* Whether the descriptor still is the /proc/self/mem that we opened: a program may close it, and get the number for a
   file of its own. Async-signal-safe. */
static bool pyprof__memory_file_is_ours(void) {
    struct stat status;
    return pyprof__process.has_memory_file && fstat(pyprof__process.memory_file, &status) == 0 &&
           status.st_dev == pyprof__process.memory_status.st_dev &&
           status.st_ino == pyprof__process.memory_status.st_ino;
}

/* What pyprof__read_places does where only /proc/self/mem can be read: one call a place. */
static bool pyprof__pread(const struct iovec *from, size_t count, void *to) {
    char *out = (char *)to;
    if (!pyprof__memory_file_is_ours()) {
        pyprof__set(&pyprof__process.reads_refused, 1);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        ssize_t size = pread(pyprof__process.memory_file, out, from[i].iov_len, (off_t)(uintptr_t)from[i].iov_base);
        if (size < 0 || (size_t)size != from[i].iov_len) {
            return false;
        }
        out += size;
    }
    return true;
}

/* Reads total bytes from count places, at most 1,024 (UIO_MAXIOV), to one place, one behind the other; all, or nothing
   that may be used. Async-signal-safe; changes errno. The kernel is asked to write them to this process's own memory:
   of the two sides of such a copy the far one costs most, page by page, and what lies in many pieces can be the near
   one. process_vm_readv, the other way round, takes up to six times as long. Nothing reads in a forked child, where
   pyprof__process.pid would still be its parent, before pyprof_start there has set it. */
static bool pyprof__read_places(const struct iovec *from, size_t count, void *to, size_t total) {
    if (pyprof__process.has_memory_file) {
        return pyprof__pread(from, count, to);
    }
    struct iovec far = {to, total};
    /* The seventh argument travels on the stack, as a whole word. */
    long done = syscall(SYS_process_vm_writev, pyprof__process.pid, from, count, &far, (size_t)1, 0ul);
    if (done < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES)) {
        pyprof__set(&pyprof__process.reads_refused, 1);
    }
    return done >= 0 && (size_t)done == total;
}

/* Has the processor fetch the first and the last line of each place, all at the same time. Does not fault where there is
   nothing. */
static void pyprof__prefetch_places(const struct iovec *places, size_t count) {
#if defined(__GNUC__)
    for (size_t i = 0; i < count; i++) {
        __builtin_prefetch(places[i].iov_base);
        __builtin_prefetch((const char *)places[i].iov_base + places[i].iov_len - 1);
    }
#else
    (void)places;
    (void)count;
#endif
}

/* Reads one place. Async-signal-safe; changes errno. */
static bool pyprof__read(uintptr_t address, void *to, size_t size) {
    struct iovec from = {(void *)address, size};
    return pyprof__read_places(&from, 1, to, size);
}

/* Reads pieces, none larger than the copy here, each to its own place, in as few calls as fit the copy. False: one
   cannot be read, and those before it may have been. Takes 3 KiB of stack: not for the handler. */
static bool pyprof__read_pieces(const pyprof__piece *pieces, size_t count) {
    unsigned char copy[2048];
    struct iovec from[PYPROF__PIECES_MAX];
    while (count > 0) {
        size_t total = 0, taken = 0;
        for (; taken < count && taken < PYPROF__PIECES_MAX && total + pieces[taken].size <= sizeof copy; taken++) {
            from[taken].iov_base = (void *)pieces[taken].address;
            from[taken].iov_len = pieces[taken].size;
            total += pieces[taken].size;
        }
        memset(copy, 0, total); /* set, as valgrind does not see that the kernel writes to it */
        if (taken == 0 || !pyprof__read_places(from, taken, copy, total)) {
            return false;
        }
        const unsigned char *at = copy;
        for (; taken > 0; taken--, pieces++, count--) {
            memcpy(pieces->to, at, pieces->size);
            at += pieces->size;
        }
    }
    return true;
}

/* Whether the way that is in use reads a word of ours as it is. If not, errno says why. */
static bool pyprof__reads_work(void) {
    static const uint64_t probe = 0x707970726f662e68u;
    uint64_t got = 0;
    return pyprof__read((uintptr_t)&probe, &got, sizeof got) && got == probe;
}

static void pyprof__reads_stop(void) {
    if (pyprof__memory_file_is_ours()) {
        close(pyprof__process.memory_file);
    }
    pyprof__process.has_memory_file = false;
}

/* From here on reads go by /proc/self/mem. False: it cannot be opened, or not be read; errno says why. */
static bool pyprof__open_memory_file(void) {
    pyprof__reads_stop();
    pyprof__process.memory_file = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    pyprof__process.has_memory_file = pyprof__process.memory_file >= 0;
    return pyprof__process.has_memory_file && fstat(pyprof__process.memory_file, &pyprof__process.memory_status) == 0 &&
           pyprof__reads_work();
}

/* Finds the way that works here: it must read what is there and refuse what is not. Before there is a sampler. False:
   no way works, and the last error says why. */
static bool pyprof__reads_start(void) {
    uint64_t got = 0;
    pyprof__process.pid = getpid();
    pyprof__process.has_memory_file = false;
    bool works = pyprof__reads_work();
    int refused = errno;
    if (!works && !pyprof__open_memory_file()) {
        int error = errno;
        pyprof__say("this process may not read its own memory: process_vm_writev: %s; /proc/self/mem: %s",
                    strerror(refused), strerror(error));
        return false;
    }
    pyprof__set(&pyprof__process.reads_refused, 0);
    if (pyprof__read((uintptr_t)8, &got, sizeof got)) {
        pyprof__say("memory cannot be read safely here: address 8, where nothing should be, can be read");
        return false;
    }
    return true;
}

/* Whether the system has refused a read as such since the way was found: then a read that failed says nothing of
   memory. */
static bool pyprof__reads_are_refused(void) {
    return pyprof__get(&pyprof__process.reads_refused) != 0;
}

/* Finds another way if the one in use was refused since it was found; false if there is none. By the sampler, while it
   reads nothing else: a handler that reads meanwhile sees an error at worst. */
static bool pyprof__reads_mend(void) {
    if (!pyprof__reads_are_refused()) {
        return true;
    }
    if (!pyprof__reads_work() && !pyprof__open_memory_file()) {
        return false;
    }
    pyprof__set(&pyprof__process.reads_refused, 0);
    return true;
}

/* A view holds blocks of memory as they were when the walk first touched them: a walk over many small structures costs
   one system call a block instead of one a field, and sees each field once and for all. pyprof__view_reset or
   pyprof__view_renew begins a walk. There is one view, in the sampler. */
#define PYPROF__BLOCK_SIZE 1024u /* divides any page size, so a block is wholly there or wholly not */
#define PYPROF__BLOCKS 64u       /* a power of two below 256 */

typedef struct pyprof__view {
    uintptr_t subject;                 /* what the walk is over: a thread state, say; 0 = nothing that comes again */
    uint32_t count;                    /* blocks that are kept, at the first positions */
    uint32_t last;                     /* the block that was used last; PYPROF__BLOCKS = none */
    uintptr_t numbers[PYPROF__BLOCKS]; /* of each block: its address / PYPROF__BLOCK_SIZE */
    bool is_used[PYPROF__BLOCKS];      /* in this walk */
    uint8_t index[2 * PYPROF__BLOCKS]; /* by hash: position + 1; 0 = free */
    unsigned char blocks[PYPROF__BLOCKS][PYPROF__BLOCK_SIZE];
} pyprof__view;

/* Where a block's number stands in the index, or may be put. It has twice as many places as there are blocks. */
static uint8_t *pyprof__view_slot(pyprof__view *view, uintptr_t number) {
    size_t at = (size_t)(pyprof__mix(0, number) >> 32);
    for (;; at++) {
        uint8_t *slot = &view->index[at % (2 * PYPROF__BLOCKS)];
        if (*slot == 0 || view->numbers[*slot - 1] == number) {
            return slot;
        }
    }
}

/* Makes the index for the first count blocks, whose numbers and bytes are in place; any others are forgotten. */
static void pyprof__view_hold(pyprof__view *view, uint32_t count) {
    memset(view->index, 0, sizeof view->index);
    view->last = PYPROF__BLOCKS;
    for (view->count = 0; view->count < count;) {
        uint8_t *slot = pyprof__view_slot(view, view->numbers[view->count]);
        *slot = (uint8_t)++view->count;
    }
}

/* Begins a walk that shares nothing with the last one: nothing is kept. */
static void pyprof__view_reset(pyprof__view *view) {
    view->subject = 0;
    pyprof__view_hold(view, 0);
}

/* Begins a walk over a subject. What the last walk over the same subject used is likely needed again: it is read at
   once, in one system call. If one of these blocks is gone, nothing is kept. */
static void pyprof__view_renew(pyprof__view *view, uintptr_t subject) {
    struct iovec from[PYPROF__BLOCKS];
    uint32_t known = view->subject == subject ? view->count : 0, kept = 0;
    for (uint32_t i = 0; i < known; i++) {
        if (view->is_used[i]) {
            from[kept].iov_base = (void *)(view->numbers[i] * PYPROF__BLOCK_SIZE);
            from[kept].iov_len = PYPROF__BLOCK_SIZE;
            view->numbers[kept++] = view->numbers[i];
        }
    }
    memset(view->is_used, 0, sizeof view->is_used);
    view->subject = subject;
    bool is_read = kept > 0 && pyprof__read_places(from, kept, view->blocks, kept * PYPROF__BLOCK_SIZE);
    pyprof__view_hold(view, is_read ? kept : 0);
}

/* The position of a block, which is read if the view does not keep it; PYPROF__BLOCKS: it cannot be read. */
static uint32_t pyprof__view_block(pyprof__view *view, uintptr_t number) {
    if (view->last != PYPROF__BLOCKS && view->numbers[view->last] == number) {
        return view->last;
    }
    uint8_t *slot = pyprof__view_slot(view, number);
    if (*slot == 0) {
        if (view->count == PYPROF__BLOCKS) {
            pyprof__view_hold(view, PYPROF__BLOCKS / 2); /* the others are read again, should they be needed */
            slot = pyprof__view_slot(view, number);
        }
        if (!pyprof__read(number * PYPROF__BLOCK_SIZE, view->blocks[view->count], PYPROF__BLOCK_SIZE)) {
            return PYPROF__BLOCKS;
        }
        view->numbers[view->count] = number;
        *slot = (uint8_t)++view->count;
    }
    view->last = *slot - 1u;
    view->is_used[view->last] = true;
    return view->last;
}

/* Reads the blocks that hold these addresses and are not kept yet, as far as there is room, in one system call. If one
   cannot be read none is taken, and the walk reads them one by one. */
static void pyprof__view_fetch(pyprof__view *view, const uintptr_t *addresses, uint32_t count) {
    struct iovec from[PYPROF__BLOCKS];
    uint32_t first = view->count, more = 0;
    for (uint32_t i = 0; i < count && first + more < PYPROF__BLOCKS; i++) {
        uintptr_t number = addresses[i] / PYPROF__BLOCK_SIZE;
        uint8_t *slot = pyprof__view_slot(view, number);
        if (*slot == 0) {
            view->numbers[first + more] = number;
            from[more].iov_base = (void *)(number * PYPROF__BLOCK_SIZE);
            from[more++].iov_len = PYPROF__BLOCK_SIZE;
            *slot = (uint8_t)(first + more);
        }
    }
    bool is_read = more > 0 && pyprof__read_places(from, more, view->blocks[first], more * PYPROF__BLOCK_SIZE);
    pyprof__view_hold(view, is_read ? first + more : first);
}

/* Copies bytes of a block: by words, as most loads are of one or a few. For a number of bytes that is not known, memcpy
   may become what the processor has for copying strings, which takes longer than all the rest of a load. */
static void pyprof__view_copy(unsigned char *to, const unsigned char *from, size_t size) {
    const size_t word = sizeof(uintptr_t);
    for (; size >= word; size -= word, to += word, from += word) {
        memcpy(to, from, word);
    }
    for (size_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}

/* Copies bytes, of which some may be kept; false: some cannot be read. */
static bool pyprof__view_read(pyprof__view *view, uintptr_t address, void *to, size_t size) {
    unsigned char *out = (unsigned char *)to;
    while (size > 0) {
        size_t offset = address % PYPROF__BLOCK_SIZE;
        size_t part = PYPROF__BLOCK_SIZE - offset < size ? PYPROF__BLOCK_SIZE - offset : size;
        uint32_t block = pyprof__view_block(view, address / PYPROF__BLOCK_SIZE);
        if (block == PYPROF__BLOCKS) {
            return false;
        }
        pyprof__view_copy(out, view->blocks[block] + offset, part);
        address += part;
        out += part;
        size -= part;
    }
    return true;
}

/* How a walk gets at memory; lives as long as the walk. What is known to live is loaded plainly, all else is read
   through the view, or by one safe read each. No reader at all (NULL): everything lives, as for a thread that walks its
   own stack; the code for that is compiled apart, so that it is loads and nothing else. The sampler's have a view and
   nothing else. */
typedef struct pyprof__reader {
    uintptr_t low; /* from here to below high all lives */
    uintptr_t high;
    uintptr_t chunk;    /* of the thread itself: its newest data stack chunk; goes outwards with the walk. 0 = none */
    uintptr_t tstate;   /* of the thread itself: its thread state; 0 = none */
    pyprof__view *view; /* NULL = one safe read each */
} pyprof__reader;

/* Outside of [low, high): see >>frames, as it knows CPython's chunks. */
static bool pyprof__load_elsewhere(pyprof__reader *reader, uintptr_t address, void *to, size_t size);

/* Walks are inlined where they are used, so that each is compiled for its kind of reader. Not without
   optimisation: each copy would have variables of its own on the stack, and the handler has little of it. */
#if defined(__GNUC__) && defined(__OPTIMIZE__)
#define PYPROF__INLINE static inline __attribute__((always_inline))
#else
#define PYPROF__INLINE static inline
#endif
#if defined(__GNUC__)
#define PYPROF__APART static __attribute__((noinline)) /* few calls come here: what it needs is not saved in others */
#else
#define PYPROF__APART static
#endif
#if defined(__GNUC__)
#define PYPROF__ALIGNED(size) __attribute__((aligned(size)))
#else
#define PYPROF__ALIGNED(size)
#endif

/* Copies size bytes from an address, by whichever way the reader has for it. False: they cannot be read; never without
   a reader. */
PYPROF__INLINE bool pyprof__load(pyprof__reader *reader, uintptr_t address, void *to, size_t size) {
    if (reader != NULL && (address - reader->low >= reader->high - reader->low || reader->high - address < size)) {
        return pyprof__load_elsewhere(reader, address, to, size);
    }
    memcpy(to, (const void *)address, size);
    return true;
}

PYPROF__INLINE bool pyprof__load_word(pyprof__reader *reader, uintptr_t address, uintptr_t *word) {
    return pyprof__load(reader, address, word, sizeof *word);
}

// >>cpython
// Where things lie in CPython's structures: what differs between its versions is here and in the two parts that follow;
// other parts only ask whether an offset is PYPROF__ABSENT, or helper_code 0. In: the headers that this is compiled
// with, and what the CPython that runs says of itself. Out: one row of offsets, pyprof__layout. It is filled before a
// recording's sampler runs, and does not change meanwhile (but for interp_modules, in the sampler's copy).
// Invariant: a CPython that is not known is refused; nothing is guessed. Begin with: pyprof__layout,
// pyprof__layout_init.

/* What memory of CPython's is read, which thread may free it meanwhile, and what then happens. From outside it is all
   read through >>reads, so that a page that is gone is an error; a page that is there may hold something else, so:
   - interpreter states (Py_EndInterpreter, Py_Finalize): reached from a global by the lists. Every thread state has to
     name its interpreter and its predecessor; a list is believed up to the first link that does not hold.
   - thread states (their own thread, Py_EndInterpreter, Py_Finalize, a forked child): known again by address, id and
     interpreter. After a stack was read, its thread state has to bear the ids of the thread that it was read for.
   - frames: in chunks of the data stack, in generators and in frame objects (their own thread, at any return);
     3.11 also a cframe, 3.12 a cframe and the helper frames, since 3.13 the helper frames, on the thread's C stack
     (unmapped when it ends). What is read counts if the thread's CPU clock stood still from before to after, or
     as far as several reads agree. Depth is bounded; what a frame runs has to be a code object.
   - code objects (any thread that lets go of the last reference): a fingerprint of what they refer to is part of every
     frame. Name, file and lines are read once, between two looks at that fingerprint; if it is another one, or the
     object has no references, the frame is [unresolved].
   - str and bytes (with their code object): covered by that; types and lengths are checked before what follows.
   - copies of bytecode (3.14, free-threaded; with their code object, or when outgrown): index and length are checked.
   - sys.modules, threading._active and the Thread objects there, their dicts, keys and values (any thread): only for the
     name of a track. Types are checked, and that the object has the thread's ids; while no name is found the last one
     stands.
   - to 3.10, what a pthread_t points to (unmapped some time after the thread's end): the id found there has to be that
     of a thread of this process that lives.
   In the signal handler a thread reads by plain loads, and only what cannot vanish while it is interrupted: its own
   attached thread state, its frames, and the code objects that these hold. 3.11 and 3.12 publish a cframe before it
   points to a frame: there the way from it has to lead, inside the thread's own chunks or by safe reads, to the cframe
   before. A thread state names the thread that made it, and any other may use it since. So the attached one to 3.11,
   and on any version those further out, are walked only if the C stack of this thread shows that it runs them.
   Copied data (what >>profile holds) outlives all of these. */

#define PYPROF__ABSENT UINT32_MAX /* an offset of what a version does not have */
#define PYPROF__IDENTITY_WORDS 6

/* Where things lie in the running interpreter: offsets in bytes, PYPROF__ABSENT where a version has no such
   thing. Sources: thread state, code object and (to 3.10) frame from the public headers by offsetof; interpreters by
   the exported accessors; from 3.13 on the interpreter's own description as well, which has to agree. Constants are
   _PyInterpreterFrame of 3.11 and 3.12 and the owner values, which tests hold against Include/internal. */
typedef struct pyprof__layout {
    /* PyInterpreterState */
    uint32_t interp_next;
    uint32_t interp_threads;
    uint32_t interp_id;
    uint32_t interp_modules; /* sys.modules; to 3.12 it has to be searched for: pyprof__find_modules */
    uint32_t interp_gil;     /* a pointer to its GIL, since 3.13 */
    /* PyThreadState */
    uint32_t ts_prev;
    uint32_t ts_next;
    uint32_t ts_interp;
    uint32_t ts_id;
    uint32_t ts_thread_id; /* pthread_t */
    uint32_t ts_native_id;
    uint32_t ts_status;       /* absent to 3.11: the process has one holder of the GIL, which the runtime names */
    uint32_t status_mask;     /* 32 bits there, masked with this, */
    uint32_t status_attached; /* are this while the thread state is attached */
    uint32_t ts_frame;        /* the leaf frame, or the cframe that points to it */
    uint32_t ts_base;         /* the helper frame that is there when no other is: since 3.15 */
    uint32_t ts_executor;     /* what the JIT runs of the thread now, or NULL: since 3.14 */
    uint32_t ts_chunk;        /* newest data stack chunk: 3.11 and 3.12 */
    uint32_t ts_size;         /* bytes at its beginning that are copied at each look: up to its id */
    uint32_t ts_head;         /* bytes at its beginning that hold its links, its interpreter, status and leaf frame */
    /* _PyCFrame, on the C stack of the thread: 3.11 and 3.12 */
    uint32_t cframe_frame;
    uint32_t cframe_previous;
    /* frame */
    uint32_t frame_previous;
    uint32_t frame_code;
    uint32_t frame_instr;     /* where it is: f_lasti (to 3.10), prev_instr (3.11, 3.12), instr_ptr */
    uint32_t frame_owner;     /* a byte, since 3.11: what kind of frame it is */
    uint32_t frame_locals;    /* its first local variable */
    uint32_t frame_generator; /* to 3.10: the generator that the frame belongs to */
    uint32_t frame_state;     /* to 3.10: a byte that says whether it runs, itself or what it has called */
    uint32_t instr_scale;     /* bytes for each unit of f_lasti; 0: frame_instr holds a pointer into the code */
    uint32_t frame_tlbc;      /* which of the code object's bytecodes runs: free-threaded, since 3.14 */
    uint32_t owner_helper;    /* frames of this owner, or a later one, are no Python frames */
    uint32_t owner_generator;
    uintptr_t executable_tags; /* bits of frame_code that are not the pointer's */
    uintptr_t helper_code;     /* what frame_code has in frames that are no Python frames; 0 = it does not tell */
    /* code object */
    uint32_t code_name; /* the qualified one, since 3.11 */
    uint32_t code_filename;
    uint32_t code_first_line;
    uint32_t code_lines;        /* its line table, a bytes object */
    uint32_t code_instructions; /* since 3.11: they lie in the code object itself */
    uint32_t code_tlbc;         /* pointer to the array of the bytecodes, free-threaded, since 3.14 */
    uint32_t code_first_traceable;
    uint32_t code_identity[PYPROF__IDENTITY_WORDS]; /* words that together tell one code object from its
                                                       successor at the same address */
} pyprof__layout;

#define PYPROF__PY(minor) (0x03000000 + ((minor) << 16))
#define PYPROF__PY_NEWEST 15 /* the newest that was tested */
#define PYPROF__PY_SINCE(minor) (PY_VERSION_HEX >= PYPROF__PY(minor))

#if defined(Py_GIL_DISABLED)
#define PYPROF__FREE_THREADED 1
#else
#define PYPROF__FREE_THREADED 0
#endif

#define PYPROF__OFFSET(type, field) ((uint32_t)offsetof(type, field))

/* Where the last of the words ends whose change shows that a thread has run, or that a list has changed: so much of a
   waiting thread's state is read at a tick. */
static uint32_t pyprof__end_of_head(const pyprof__layout *layout) {
    const uint32_t words[] = {layout->ts_prev, layout->ts_next, layout->ts_interp, layout->ts_frame, layout->ts_status};
    uint32_t end = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (words[i] != PYPROF__ABSENT && words[i] + sizeof(uintptr_t) > end) {
            end = words[i] + (uint32_t)sizeof(uintptr_t);
        }
    }
    return end;
}

/* From the public headers alone. Attached shows in a bit of _status in 3.12, in state since 3.13. */
static void pyprof__layout_thread_state(pyprof__layout *layout) {
    layout->ts_prev = PYPROF__OFFSET(PyThreadState, prev);
    layout->ts_next = PYPROF__OFFSET(PyThreadState, next);
    layout->ts_interp = PYPROF__OFFSET(PyThreadState, interp);
    layout->ts_id = PYPROF__OFFSET(PyThreadState, id);
    layout->ts_thread_id = PYPROF__OFFSET(PyThreadState, thread_id);
    layout->ts_native_id = layout->ts_status = layout->ts_chunk = layout->ts_base = PYPROF__ABSENT;
    layout->ts_executor = layout->cframe_frame = layout->cframe_previous = PYPROF__ABSENT;
    layout->ts_size = layout->ts_id + (uint32_t)sizeof(uint64_t);
#if PYPROF__PY_SINCE(11)
    layout->ts_native_id = PYPROF__OFFSET(PyThreadState, native_thread_id);
#endif
#if PYPROF__PY_SINCE(15)
    layout->ts_base = PYPROF__OFFSET(PyThreadState, base_frame);
#endif
#if PYPROF__PY_SINCE(13)
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, current_frame);
    layout->ts_status = PYPROF__OFFSET(PyThreadState, state);
    layout->status_mask = UINT32_MAX;
    layout->status_attached = 1; /* _Py_THREAD_ATTACHED, Include/internal/pycore_pystate.h */
#elif PYPROF__PY_SINCE(11)
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, cframe);
    layout->cframe_frame = PYPROF__OFFSET(_PyCFrame, current_frame);
    layout->cframe_previous = PYPROF__OFFSET(_PyCFrame, previous);
    layout->ts_chunk = PYPROF__OFFSET(PyThreadState, datastack_chunk);
#else
    layout->ts_frame = PYPROF__OFFSET(PyThreadState, frame);
#endif
#if PYPROF__PY_SINCE(12) && !PYPROF__PY_SINCE(13)
    PyThreadState active; /* a bit field has no offset, but a value */
    memset(&active, 0, sizeof active);
    active._status.active = 1;
    layout->ts_status = PYPROF__OFFSET(PyThreadState, _status);
    memcpy(&layout->status_mask, (const char *)&active + layout->ts_status, sizeof layout->status_mask);
    layout->status_attached = layout->status_mask;
#endif
    layout->ts_head = pyprof__end_of_head(layout);
}

/* To 3.10 a frame is public. Include/internal does not compile as C++ before 3.13, and many hosts lack it: so 3.11 and
   3.12 are constants here. pyprof__layout_adopt adds the rest since 3.13. */
static void pyprof__layout_frame(pyprof__layout *layout) {
    layout->frame_owner = layout->frame_generator = layout->frame_state = layout->frame_tlbc = PYPROF__ABSENT;
    layout->owner_generator = 1;
    layout->owner_helper = PYPROF__ABSENT;
#if PYPROF__PY_SINCE(12) && !PYPROF__PY_SINCE(PYPROF__PY_NEWEST + 1)
    layout->owner_helper = 3; /* FRAME_OWNED_BY_CSTACK; since 3.14 _INTERPRETER, and then _CSTACK */
#endif
#if PYPROF__PY_SINCE(13)         /* the rest by its own description */
    layout->executable_tags = 3; /* Include/internal/pycore_stackref.h */
    layout->helper_code = (uintptr_t)&_Py_NoneStruct;
#elif PYPROF__PY_SINCE(11) /* Include/internal/pycore_frame.h */
    layout->frame_code = PYPROF__PY_SINCE(12) ? 0 : 32;
    layout->frame_previous = PYPROF__PY_SINCE(12) ? 8 : 48;
    layout->frame_instr = 56;
    layout->frame_owner = PYPROF__PY_SINCE(12) ? 70 : 69;
    layout->frame_locals = 72;
#else
    layout->frame_code = PYPROF__OFFSET(PyFrameObject, f_code);
    layout->frame_previous = PYPROF__OFFSET(PyFrameObject, f_back);
    layout->frame_instr = PYPROF__OFFSET(PyFrameObject, f_lasti);
    layout->frame_locals = PYPROF__OFFSET(PyFrameObject, f_localsplus);
    layout->frame_generator = PYPROF__OFFSET(PyFrameObject, f_gen);
#if PYPROF__PY_SINCE(10)
    layout->frame_state = PYPROF__OFFSET(PyFrameObject, f_state);
#else
    layout->frame_state = PYPROF__OFFSET(PyFrameObject, f_executing);
#endif
    layout->instr_scale = PYPROF__PY_SINCE(10) ? 2 : 1;
#endif
}

/* From the public headers alone. The words of the identity are read whole: those of smaller fields begin at a multiple
   of 8. */
static void pyprof__layout_code(pyprof__layout *layout) {
    layout->code_instructions = layout->code_first_traceable = layout->code_tlbc = PYPROF__ABSENT;
    layout->code_filename = PYPROF__OFFSET(PyCodeObject, co_filename);
    layout->code_first_line = PYPROF__OFFSET(PyCodeObject, co_firstlineno);
#if PYPROF__PY_SINCE(11)
    layout->code_name = PYPROF__OFFSET(PyCodeObject, co_qualname);
    layout->code_instructions = PYPROF__OFFSET(PyCodeObject, co_code_adaptive);
    layout->code_first_traceable = PYPROF__OFFSET(PyCodeObject, _co_firsttraceable);
#if PYPROF__PY_SINCE(14) && PYPROF__FREE_THREADED
    layout->code_tlbc = PYPROF__OFFSET(PyCodeObject, co_tlbc);
#endif
#else
    layout->code_name = PYPROF__OFFSET(PyCodeObject, co_name);
#endif
#if PYPROF__PY_SINCE(10)
    layout->code_lines = PYPROF__OFFSET(PyCodeObject, co_linetable);
#else
    layout->code_lines = PYPROF__OFFSET(PyCodeObject, co_lnotab);
#endif
    layout->code_identity[0] = layout->code_name;
    layout->code_identity[1] = layout->code_filename;
    layout->code_identity[2] = layout->code_lines;
    layout->code_identity[3] = PYPROF__OFFSET(PyCodeObject, co_consts);
    layout->code_identity[4] = layout->code_first_line & ~7u;
#if PYPROF__PY_SINCE(12)
    layout->code_identity[5] = PYPROF__OFFSET(PyCodeObject, co_version) & ~7u;
#else
    layout->code_identity[5] = PYPROF__OFFSET(PyCodeObject, co_names);
#endif
}

/* How far inside PyInterpreterState the fields lie that are looked for: far more than in any version that is known. */
#define PYPROF__INTERP_WORDS (PYPROF__PY_SINCE(13) ? 8192u : 512u)

/* The offsets inside PyInterpreterState, which is not public: each accessor is a single load, so applied to words that
   hold their own number it tells which one it loads. Needs 64 KiB for a moment (4 KiB to 3.12). ERROR_PYTHON: what came
   out cannot be offsets. */
static pyprof_result pyprof__layout_interpreter(pyprof__layout *layout, pyprof__memory *memory) {
    const size_t words = PYPROF__INTERP_WORDS;
    uintptr_t *fake = (uintptr_t *)pyprof__alloc(memory, words * sizeof *fake);
    if (fake == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    for (uintptr_t i = 0; i < words; i++) {
        fake[i] = i;
    }
    PyInterpreterState *interp = (PyInterpreterState *)(void *)fake;
    uintptr_t next = (uintptr_t)PyInterpreterState_Next(interp);
    uintptr_t threads = (uintptr_t)PyInterpreterState_ThreadHead(interp);
    uintptr_t id = (uintptr_t)PyInterpreterState_GetID(interp);
    layout->interp_next = (uint32_t)(next * sizeof *fake);
    layout->interp_threads = (uint32_t)(threads * sizeof *fake);
    layout->interp_id = (uint32_t)(id * sizeof *fake);
    layout->interp_modules = PYPROF__ABSENT;
    pyprof__release(memory, fake, words * sizeof *fake);
    bool is_told = next < words && threads < words && id < words && next != threads && threads != id;
    return is_told ? PYPROF_OK : PYPROF_ERROR_PYTHON;
}

/* Where CPython keeps what is of the whole process; since 3.13 its description comes first. NULL = not found. The address comes from the global offset table: for
   a plain reference the linker would put a copy of the whole structure into the program, of the size that it had in the
   CPython that the program was linked with. */
static const void *pyprof__runtime(void) {
    const void *runtime;
#if defined(__x86_64__)
    __asm__("movq _PyRuntime@GOTPCREL(%%rip), %0" : "=r"(runtime));
#elif defined(__aarch64__)
    __asm__("adrp %0, :got:_PyRuntime\n\tldr %0, [%0, :got_lo12:_PyRuntime]" : "=r"(runtime));
#else
    runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
#endif
    return runtime;
}

#if PYPROF__PY_SINCE(13)
/* What _PyRuntime begins with, up to the code object: _Py_DebugOffsets, offsets and sizes in bytes. Source:
   Include/internal/pycore_runtime.h (3.13), pycore_debug_offsets.h (later). */
typedef struct pyprof__description {
    char cookie[8];
    uint64_t version, free_threaded;
    struct {
        uint64_t size, finalizing, interpreters_head;
    } runtime;
    struct {
        uint64_t size, id, next, threads_head;
#if PYPROF__PY_SINCE(14)
        uint64_t threads_main;
#endif
        uint64_t gc, imports_modules, sysdict, builtins, ceval_gil;
        uint64_t gil_state, gil_enabled, gil_locked, gil_holder;
#if PYPROF__PY_SINCE(14)
        uint64_t code_object_generation, tlbc_generation;
#endif
    } interp;
    struct {
        uint64_t size, prev, next, interp, current_frame;
#if PYPROF__PY_SINCE(15)
        uint64_t base_frame, last_profiled_frame, last_profiled_frame_seq;
#endif
        uint64_t thread_id, native_thread_id, datastack_chunk, status;
#if PYPROF__PY_SINCE(15)
        uint64_t holds_gil, gil_requested, current_exception, exc_state;
#endif
    } thread;
#if PYPROF__PY_SINCE(15)
    uint64_t exc_value;
#endif
    struct {
        uint64_t size, previous, executable, instr_ptr, localsplus, owner;
#if PYPROF__PY_SINCE(14)
        uint64_t stackpointer, tlbc_index;
#endif
    } frame;
    struct {
        uint64_t size, filename, name, qualname, linetable, firstlineno, argcount, localsplusnames;
        uint64_t localspluskinds, co_code_adaptive;
#if PYPROF__PY_SINCE(14)
        uint64_t co_tlbc;
#endif
    } code;
    struct {
        uint64_t size, ob_type;
    } object;
} pyprof__description;

/* Whether a description fits what the public headers and the accessors say. Of a version that is newer than the newest
   known, whose description may look different, this is the evidence: it is believed if all of it agrees. */
static bool pyprof__description_agrees(const pyprof__layout *layout, const pyprof__description *self) {
    return self->interp.next == layout->interp_next && self->interp.threads_head == layout->interp_threads &&
           self->interp.id == layout->interp_id && self->thread.prev == layout->ts_prev &&
           self->thread.next == layout->ts_next && self->thread.interp == layout->ts_interp &&
           self->thread.current_frame == layout->ts_frame && self->thread.thread_id == layout->ts_thread_id &&
           self->thread.native_thread_id == layout->ts_native_id &&
           self->thread.status == PYPROF__OFFSET(PyThreadState, _status) && self->code.qualname == layout->code_name &&
           self->code.filename == layout->code_filename && self->code.linetable == layout->code_lines &&
           self->code.firstlineno == layout->code_first_line &&
           self->code.co_code_adaptive == layout->code_instructions &&
#if PYPROF__PY_SINCE(14) && PYPROF__FREE_THREADED
           self->code.co_tlbc == layout->code_tlbc &&
#endif
           self->object.size == sizeof(PyObject) && self->object.ob_type == PYPROF__OFFSET(PyObject, ob_type);
}

/* Whether the accessors of PyInterpreterState may be tried: see pyprof__layout_interpreter. */
static bool pyprof__interp_is_near(const pyprof__description *self) {
    const uint64_t end = PYPROF__INTERP_WORDS * sizeof(uintptr_t);
    return self->interp.next < end && self->interp.threads_head < end && self->interp.id < end;
}

/* Whether the described fields of a frame can be those of one: words that are aligned and lie apart, a byte for the
   owner beside them, and the local variables behind all. Nothing public says where they lie, so there is nothing to
   compare with. */
static bool pyprof__frame_is_sound(const pyprof__description *self) {
    const uint64_t words[] = {self->frame.previous, self->frame.executable, self->frame.instr_ptr,
                              self->frame.localsplus};
    const size_t count = sizeof words / sizeof *words;
    uint32_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = words[i] / sizeof(void *);
        if (words[i] % sizeof(void *) != 0 || word >= 32 || (taken >> word & 1) || words[i] > self->frame.localsplus) {
            return false;
        }
        taken |= 1u << word;
    }
    return self->frame.owner < self->frame.localsplus && !(taken >> self->frame.owner / sizeof(void *) & 1) &&
           self->frame.localsplus < self->frame.size;
}

/* Takes over what the interpreter says of itself, if it adds up. built_for: the version of the headers. MISMATCH: the
   version, or whether it is free-threaded, is not the headers'; ERROR_PYTHON: no description, or one that does not add
   up. */
static pyprof_result pyprof__layout_adopt(pyprof__layout *layout, const pyprof__description *self, uint32_t built_for) {
    if (memcmp(self->cookie, "xdebugpy", sizeof self->cookie) != 0) {
        return PYPROF_ERROR_PYTHON;
    }
    if (self->version >> 16 != built_for >> 16 || self->free_threaded != PYPROF__FREE_THREADED) {
        return PYPROF_ERROR_PYTHON_MISMATCH;
    }
    if (!pyprof__description_agrees(layout, self) || !pyprof__frame_is_sound(self)) {
        return PYPROF_ERROR_PYTHON;
    }
    layout->frame_previous = (uint32_t)self->frame.previous;
    layout->frame_code = (uint32_t)self->frame.executable;
    layout->frame_instr = (uint32_t)self->frame.instr_ptr;
    layout->frame_locals = (uint32_t)self->frame.localsplus;
    layout->frame_owner = (uint32_t)self->frame.owner;
    layout->interp_modules = (uint32_t)self->interp.imports_modules;
    layout->interp_gil = (uint32_t)self->interp.ceval_gil;
#if PYPROF__PY_SINCE(14)
    if (self->thread.size == sizeof(PyThreadState)) { /* else it may lie elsewhere in the one that runs */
        layout->ts_executor = PYPROF__OFFSET(PyThreadState, current_executor);
    }
#endif
#if PYPROF__PY_SINCE(14) && PYPROF__FREE_THREADED
    layout->frame_tlbc = (uint32_t)self->frame.tlbc_index;
#endif
    return PYPROF_OK;
}
#endif

/* Fills the row for the CPython that runs; refuses what it does not know. Needs no initialised Python. */
static pyprof_result pyprof__layout_init(pyprof__layout *layout, pyprof__memory *memory) {
    memset(layout, 0, sizeof *layout);
#if !PYPROF__PY_SINCE(8) || defined(Py_TRACE_REFS) || (defined(Py_DEBUG) && !PYPROF__PY_SINCE(13))
    (void)memory;
    return PYPROF__PY_SINCE(8) ? PYPROF_ERROR_PYTHON_DEBUG : PYPROF_ERROR_PYTHON;
#else
    int major = 0, minor = 0;
    if (sscanf(Py_GetVersion(), "%d.%d", &major, &minor) != 2 || major != PY_MAJOR_VERSION ||
        minor != PY_MINOR_VERSION) {
        return PYPROF_ERROR_PYTHON_MISMATCH;
    }
    pyprof__layout_thread_state(layout);
    pyprof__layout_frame(layout);
    pyprof__layout_code(layout);
#if PYPROF__PY_SINCE(13)
    const pyprof__description *self = (const pyprof__description *)pyprof__runtime();
    if (self == NULL || !pyprof__interp_is_near(self)) {
        return PYPROF_ERROR_PYTHON;
    }
    pyprof_result result = pyprof__layout_interpreter(layout, memory);
    return result == PYPROF_OK ? pyprof__layout_adopt(layout, self, PY_VERSION_HEX) : result;
#else
    return pyprof__layout_interpreter(layout, memory);
#endif
#endif
}

/* Where the GIL of an interpreter lies: who waits for that sleeps on a word in it. Up to 3.11 it is at the beginning of
   _PyRuntime, in 3.12 that of the main interpreter is in there (Include/internal/pycore_runtime.h), with nothing before
   or behind it that is waited for; a GIL of another interpreter's own is not found in 3.12. Since 3.13 a pointer leads to
   it, and its size is that of struct _gil_runtime_state with room to spare. Both 0: not found. */
static pyprof__range pyprof__gil_of(const pyprof__layout *layout, uintptr_t interp) {
    pyprof__range range = {0, 0};
#if PYPROF__PY_SINCE(13)
    if (pyprof__read(interp + layout->interp_gil, &range.low, sizeof range.low) && range.low != 0) {
        range.high = range.low + 256;
    }
#else
    (void)layout;
    (void)interp;
    range.low = (uintptr_t)pyprof__runtime();
    range.high = range.low == 0 ? 0 : range.low + (PYPROF__PY_SINCE(12) ? 0x40000 : 0x5b8); /* 3.8's is not larger */
#endif
    return range;
}

/* Sets the last error to why pyprof__layout_init refused. */
static void pyprof__say_python(pyprof_result result) {
    const char *built_as = PYPROF__FREE_THREADED ? ", free-threaded" : "";
    const char *version = Py_GetVersion(); /* "3.13.0 experimental free-threading build (...) [...]" */
    int size = (int)strcspn(version, " ");
    const char *runs_as = strstr(version, "free-threading") != NULL ? ", free-threaded" : "";
    if (result == PYPROF_ERROR_PYTHON_MISMATCH) {
        pyprof__say("compiled against CPython %s%s, but running in CPython %.*s%s: compile with the headers "
                    "of the one that runs",
                    PY_VERSION, built_as, size, version, runs_as);
    } else if (result == PYPROF_ERROR_PYTHON_DEBUG) {
        pyprof__say("compiled against a debug build of CPython %s: it is supported since 3.13, and never with "
                    "Py_TRACE_REFS",
                    PY_VERSION);
    } else {
        pyprof__say("CPython %.*s%s is not known to this pyprof.h (3.8 to 3.15 are), or not laid out as the headers of "
                    "%s say",
                    size, version, runs_as, PY_VERSION);
    }
}

// >>frames
// Thread states and frames, read by pyprof__layout. In: an address that may be stale, and a reader: none, or one
// without a view, in the handler, where a thread reads itself; the sampler's, with its view, from outside. Out: a
// frame's parts, or false where there is no frame: then the caller gives up that stack. No locks, no allocation; of
// CPython only accessors are called that load a word.
// What takes a pyprof__reader may run in the signal handler; what takes a copy of a thread state is the sampler's
// alone.
//   to 3.10        thread state -> frame -> f_back ... -> NULL
//   3.11, 3.12     thread state -> cframe (on the C stack) -> current_frame -> previous ... -> NULL
//   since 3.13     thread state -> current_frame -> previous ... -> NULL
// Since 3.12 a helper frame (CPython: entry frame), which is not shown, stands in that chain wherever C code has
// entered Python.
// Begin with: pyprof__leaf_frame, pyprof__read_frame, pyprof__found, pyprof__code_fingerprint.

/* The thread state that is attached: of the calling thread (3.12 and later), of the process (before).
   Async-signal-safe in a thread that was ever attached: its thread-local storage exists. */
static uintptr_t pyprof__current_thread_state(void) {
#if PYPROF__PY_SINCE(13)
    return (uintptr_t)PyThreadState_GetUnchecked();
#else
    return (uintptr_t)_PyThreadState_UncheckedGet();
#endif
}

#ifndef PYPROF_NO_HEAP
/* Whether Py_Finalize has begun, and not ended: Python's exit handlers have run, its modules are being cleared. */
static bool pyprof__is_finalizing(void) {
#if PYPROF__PY_SINCE(13)
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}
#endif

/* Whether the attached thread state of the process, as seen in a signal handler, names this thread. Since 3.12 always
   true: the one asked for is the calling thread's. */
static bool pyprof__is_own_thread_state(const pyprof__layout *layout, uintptr_t tstate) {
    if (layout->ts_status != PYPROF__ABSENT || tstate == (uintptr_t)PyGILState_GetThisThreadState()) {
        return true;
    }
    unsigned long thread_id = 0; /* it may be another thread's, which may be freeing it */
    return pyprof__read(tstate + layout->ts_thread_id, &thread_id, sizeof thread_id) &&
           thread_id == (unsigned long)pthread_self();
}

/* The head of the list of interpreters; 0 = Python is not initialised. */
static uintptr_t pyprof__first_interpreter(void) {
    return (uintptr_t)PyInterpreterState_Head();
}

/* Whether a copied thread state (ts_size or ts_head bytes) was attached: it held its interpreter's GIL. To 3.11 the
   copy does not show it: then whether it is attached now. */
static bool pyprof__is_attached(const pyprof__layout *layout, uintptr_t tstate, const void *copy) {
    if (layout->ts_status == PYPROF__ABSENT) {
        return pyprof__current_thread_state() == tstate;
    }
    uint32_t status;
    memcpy(&status, (const char *)copy + layout->ts_status, sizeof status);
    return (status & layout->status_mask) == layout->status_attached;
}

/* The same by a fresh look. False also if it cannot be read. Async-signal-safe. */
static bool pyprof__is_attached_now(const pyprof__layout *layout, uintptr_t tstate) {
    if (layout->ts_status == PYPROF__ABSENT) {
        return pyprof__current_thread_state() == tstate;
    }
    uint32_t status = 0;
    return pyprof__read(tstate + layout->ts_status, &status, sizeof status) &&
           (status & layout->status_mask) == layout->status_attached;
}

static bool pyprof__same_word(const void *a, const void *b, uint32_t offset) {
    return memcmp((const char *)a + offset, (const char *)b + offset, sizeof(uintptr_t)) == 0;
}

/* Whether a thread state has the neighbours and the interpreter that it had, by two copies of its head: else the lists
   have changed. */
static bool pyprof__is_linked_as(const pyprof__layout *layout, const void *then, const void *now) {
    return pyprof__same_word(then, now, layout->ts_prev) && pyprof__same_word(then, now, layout->ts_next) &&
           pyprof__same_word(then, now, layout->ts_interp);
}

/* Whether a thread state that was not attached may still not be, and have the leaf frame that it had, as far as two
   copies of its head show. Other words there are changed by other threads. */
static bool pyprof__may_stand_as(const pyprof__layout *layout, const void *then, const void *now) {
    bool is_attached = layout->ts_status != PYPROF__ABSENT && pyprof__is_attached(layout, 0, now);
    return !is_attached && pyprof__same_word(then, now, layout->ts_frame);
}

/* Whether a thread state is attached, and no other of its interpreter's can be. On a free-threaded build never. */
static bool pyprof__has_the_gil(const pyprof__layout *layout, uintptr_t tstate) {
    return !PYPROF__FREE_THREADED && tstate != 0 && pyprof__is_attached_now(layout, tstate);
}

/* Whether a thread state belongs to a thread at this moment, by its pthread_t and its id; told is what it said for an
   id before, which may be wrong after a fork. A thread state changes hands when its thread is born, one id after the
   other (3.11: Modules/_threadmodule.c, thread_run), and a dead one's memory may be another's by now. */
static bool pyprof__is_bound_to(const pyprof__layout *layout, uintptr_t tstate, uintptr_t thread_id, int32_t tid,
                                int32_t told) {
    unsigned long now = 0, native = (unsigned long)tid;
    pyprof__piece pieces[2] = {{tstate + layout->ts_thread_id, &now, sizeof now},
                               {tstate + layout->ts_native_id, &native, sizeof native}};
    size_t count = layout->ts_native_id == PYPROF__ABSENT ? 1 : 2;
    return pyprof__read_pieces(pieces, count) && now == thread_id &&
           (native == (unsigned long)tid || native == (unsigned long)told);
}

/* Whether what a thread state has for its leaf frame, and for its base, means that it has frames. 3.11 and 3.12:
   outside of Python it points to a cframe inside itself. Since 3.15 it points to its base frame then, on other versions
   to nothing. */
static bool pyprof__points_to_frames(const pyprof__layout *layout, uintptr_t tstate, uintptr_t leaf, uintptr_t base) {
    bool is_root_cframe = layout->cframe_frame != PYPROF__ABSENT && leaf - tstate < sizeof(PyThreadState);
    return leaf != base && !is_root_cframe;
}

/* The same of a copied thread state. That of an unborn thread has none: until it is born it goes under the id of the
   thread that made it. */
static bool pyprof__may_have_frames(const pyprof__layout *layout, uintptr_t tstate, const void *copy) {
    uintptr_t word, base = 0;
    memcpy(&word, (const char *)copy + layout->ts_frame, sizeof word);
    if (layout->ts_base != PYPROF__ABSENT) {
        memcpy(&base, (const char *)copy + layout->ts_base, sizeof base);
    }
    return pyprof__points_to_frames(layout, tstate, word, base);
}

/* Chunks and thread state are given only where the thread reads itself: so they live. Chunks newer than the one found
   are left behind, as a walk goes outwards, too. */
static bool pyprof__load_elsewhere(pyprof__reader *reader, uintptr_t address, void *to, size_t size) {
#if PYPROF__PY_SINCE(11) && !PYPROF__PY_SINCE(13)
    if (reader->tstate != 0 && address - reader->tstate <= sizeof(PyThreadState) - size) {
        memcpy(to, (const void *)address, size);
        return true;
    }
    for (uintptr_t chunk = reader->chunk; chunk != 0;) {
        const _PyStackChunk *live = (const _PyStackChunk *)chunk;
        if (address > chunk && address - chunk <= live->size - size) {
            reader->chunk = chunk;
            memcpy(to, (const void *)address, size);
            return true;
        }
        chunk = (uintptr_t)live->previous;
    }
#endif
    if (reader->view != NULL) {
        return pyprof__view_read(reader->view, address, to, size);
    }
    return pyprof__read(address, to, size);
}

/* Whether a cframe's leaf frame is sound. 3.11 and 3.12: a new cframe is published before its frame pointer is set, and
   in between that holds whatever was on the C stack. It is sound if the chain that begins there leads to the frame of
   the cframe before, within a million steps. */
static bool pyprof__leaf_is_linked(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t cframe,
                                   uintptr_t leaf) {
    uintptr_t before = 0, below = 0;
    if (!pyprof__load_word(reader, cframe + layout->cframe_previous, &before) ||
        (before != 0 && !pyprof__load_word(reader, before + layout->cframe_frame, &below))) {
        return false;
    }
    uintptr_t mark = leaf; /* a link that leads back to it closes a circle (Brent, 1980) */
    for (uint32_t steps = 1; leaf != below; steps++) {
        if (leaf == 0 || steps > 1u << 20 || !pyprof__load_word(reader, leaf + layout->frame_previous, &leaf) ||
            leaf == mark) {
            return false;
        }
        mark = (steps & (steps - 1)) == 0 ? leaf : mark;
    }
    return true;
}

/* Finds the leaf frame of a thread state whose ts_frame is word; 0 = it has no frames. False: it cannot be told just
   now. */
static bool pyprof__leaf_from(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t word, uintptr_t *leaf) {
    *leaf = word;
    if (layout->cframe_frame == PYPROF__ABSENT || word == 0) {
        return true;
    }
    return pyprof__load_word(reader, word + layout->cframe_frame, leaf) &&
           pyprof__leaf_is_linked(layout, reader, word, *leaf);
}

/* The same for a thread state whose ts_frame is read now. */
static bool pyprof__leaf_frame(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t tstate,
                               uintptr_t *leaf) {
    uintptr_t word = 0;
    return pyprof__load_word(reader, tstate + layout->ts_frame, &word) && pyprof__leaf_from(layout, reader, word, leaf);
}

/* Whether the thread is in what the JIT made of its innermost frames: these say only where they were when they last
   called something. False also if that cannot be read. */
PYPROF__INLINE bool pyprof__is_in_jit(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t tstate) {
    uintptr_t executor = 0;
    return layout->ts_executor != PYPROF__ABSENT &&
           pyprof__load_word(reader, tstate + layout->ts_executor, &executor) && executor != 0;
}

/* Whether the two innermost frames, as far as they are Python frames, have code objects: the last doubt that a chain of
   links leaves, as one that is not sound may end by chance. Their types are read by a system call, one for both, as
   such a link may lead anywhere. */
static bool pyprof__codes_are_real(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame) {
    enum {
        most = 2
    };
    struct iovec from[most];
    uintptr_t types[most];
    size_t count = 0;
    for (int i = 0; i < most && frame != 0; i++) {
        uintptr_t code = 0;
        unsigned char owner = 0;
        if (!pyprof__load_word(reader, frame + layout->frame_code, &code) ||
            !pyprof__load(reader, frame + layout->frame_owner, &owner, 1) ||
            !pyprof__load_word(reader, frame + layout->frame_previous, &frame)) {
            return false;
        }
        if (owner < layout->owner_helper) {
            from[count].iov_base = (void *)(code + offsetof(PyObject, ob_type));
            from[count++].iov_len = sizeof *types;
        }
    }
    if (count > 0 && !pyprof__read_places(from, count, types, count * sizeof *types)) {
        return false;
    }
    while (count > 0 && types[count - 1] == (uintptr_t)&PyCode_Type) {
        count--;
    }
    return count == 0;
}

/* What pyprof__leaf_from finds, for the calling thread's own, attached thread state, in the handler: by plain loads
   wherever they are sound. Those are near the cframe, in the thread state, and in its data stack chunks. */
static bool pyprof__own_leaf_frame(const pyprof__layout *layout, uintptr_t tstate, uintptr_t word, uintptr_t *leaf) {
    if (layout->cframe_frame == PYPROF__ABSENT) {
        *leaf = word;
        return true;
    }
    /* The helper frames of 3.12 lie beside the cframe, in the same C function. */
    const uintptr_t near_by = 1024;
    uintptr_t chunk = *(const uintptr_t *)(tstate + layout->ts_chunk);
    pyprof__reader reader = {word - near_by, word + near_by, chunk, tstate, NULL};
    *leaf = *(const uintptr_t *)(word + layout->cframe_frame);
    if (!pyprof__leaf_is_linked(layout, &reader, word, *leaf)) {
        return false;
    }
    reader.chunk = chunk;
    return pyprof__codes_are_real(layout, &reader, *leaf);
}

/* One frame as a walk meets it: copied, so that it holds also when the frame is gone. */
typedef struct pyprof__found {
    uintptr_t previous; /* the caller's frame; 0 = there is none */
    uintptr_t code;     /* the code object's address, or helper_code */
    int32_t instr;      /* byte offset of the current instruction */
    bool is_shown;      /* not a helper frame of C */
    bool has_begun;     /* if not, it is shown only as the caller of others: of a trace function, say */
    bool is_generator;
} pyprof__found;

/* Reads which kind of frame it is, where frames have an owner. False: its callers cannot be told. From 3.12 on, C code
   enters Python through a helper frame: any other frame that nothing follows is a generator's that is just being
   left. */
PYPROF__INLINE bool pyprof__read_owner(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                       pyprof__found *found) {
    unsigned char owner = 0;
    if (!pyprof__load(reader, frame + layout->frame_owner, &owner, 1)) {
        return false;
    }
    bool has_helpers = layout->owner_helper != PYPROF__ABSENT || layout->helper_code != 0;
    found->is_shown = owner < layout->owner_helper && (layout->helper_code == 0 || found->code != layout->helper_code);
    found->is_generator = owner == layout->owner_generator;
    return !has_helpers || !found->is_shown || found->previous != 0;
}

/* To 3.10: where a frame is by its f_lasti, which is -1 before the first instruction. */
PYPROF__INLINE bool pyprof__read_last_index(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                            pyprof__found *found) {
    int32_t last = 0;
    uintptr_t generator = 0;
    if (!pyprof__load(reader, frame + layout->frame_instr, &last, sizeof last) ||
        !pyprof__load_word(reader, frame + layout->frame_generator, &generator)) {
        return false;
    }
    found->instr = (int32_t)((uint32_t)last * layout->instr_scale); /* last may be garbage, and overflow */
    found->has_begun = last >= 0;
    found->is_generator = generator != 0;
    return true;
}

/* Whether the frame at which a walk from outside ended has no caller indeed, and had not just lost it: to 3.10 a frame
   loses it when it ends, and by then it does not run. Since 3.11 always true. The sampler's alone. */
static bool pyprof__is_outermost(const pyprof__layout *layout, uintptr_t frame) {
    signed char state = 0;
    uintptr_t previous = 0;
    pyprof__piece pieces[2] = {{frame + layout->frame_state, &state, 1},
                               {frame + layout->frame_previous, &previous, sizeof previous}};
    if (layout->frame_state == PYPROF__ABSENT || frame == 0) {
        return true;
    }
    bool is_read = pyprof__read_pieces(pieces, 2);
#if PYPROF__PY_SINCE(10) && !PYPROF__PY_SINCE(11)
    bool is_running = state == FRAME_EXECUTING || state == FRAME_UNWINDING;
#else
    bool is_running = state != 0;
#endif
    return is_read && is_running && previous == 0;
}

/* Finds out whether a generator that nothing follows has callers all the same, so that the stack is headless (not cut):
   on 3.8 and 3.9, while an exception is thrown into what it waits for (a task is cancelled), it stands in the chain
   without them, and is not executing, which is state 0. In 3.10 it is linked to them but for a moment at both ends
   (Objects/genobject.c, _gen_throw), and state 0 is FRAME_EXECUTING: so there any that has no caller counts as headless,
   also the one that a thread begins with. False: unreadable. */
PYPROF__INLINE bool pyprof__is_cut_off(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                       bool *is_cut_off) {
    unsigned char state = 0;
    if (layout->frame_state == PYPROF__ABSENT) {
        return true;
    }
    bool is_read = pyprof__load(reader, frame + layout->frame_state, &state, 1);
    *is_cut_off = state == 0;
    return is_read;
}

/* Finds where the instructions lie that a frame runs. A free-threaded build has copies of them since 3.14, in an array
   of the code object that begins with its length; one that is outgrown is kept until no attached thread can look at it
   (3.14: Objects/codeobject.c, create_tlbc_lock_held). */
PYPROF__INLINE bool pyprof__read_bytecode(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                          uintptr_t code, uintptr_t *bytecode) {
    *bytecode = code + layout->code_instructions;
    if (layout->frame_tlbc == PYPROF__ABSENT) {
        return true;
    }
    int32_t index = 0;
    uintptr_t copies = 0;
    Py_ssize_t count = 0;
    return pyprof__load(reader, frame + layout->frame_tlbc, &index, sizeof index) &&
           pyprof__load_word(reader, code + layout->code_tlbc, &copies) &&
           pyprof__load(reader, copies, &count, sizeof count) && index >= 0 && index < count &&
           pyprof__load_word(reader, copies + sizeof count + (uintptr_t)index * sizeof copies, bytecode);
}

/* Since 3.11: where a frame is by a pointer into the code. Before its code's first traceable instruction (counted in
   units of 2 bytes) it is incomplete, and has not begun. prev_instr (3.11, 3.12) may lie a unit before the code: offset
   -2. */
PYPROF__INLINE bool pyprof__read_instruction(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                             pyprof__found *found) {
    int32_t first = 0;
    uintptr_t pointer = 0, bytecode = 0;
    if (!pyprof__load_word(reader, frame + layout->frame_instr, &pointer) ||
        !pyprof__read_bytecode(layout, reader, frame, found->code, &bytecode) ||
        !pyprof__load(reader, found->code + layout->code_first_traceable, &first, sizeof first)) {
        return false;
    }
    intptr_t offset = (intptr_t)(pointer - bytecode);
    found->has_begun = found->is_generator || offset >= (intptr_t)first * 2;
    found->instr = (int32_t)offset;
    return !found->has_begun || (offset >= -2 && offset <= INT32_MAX);
}

/* Reads one frame. False: it does not look like a frame, as it is being changed or is gone. What a Python frame runs
   has to be a code object: that is what tells garbage. */
PYPROF__INLINE bool pyprof__read_frame(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame,
                                       pyprof__found *found) {
    uintptr_t type = 0;
    found->is_shown = found->has_begun = true;
    found->is_generator = false;
    found->instr = 0;
    if (!pyprof__load_word(reader, frame + layout->frame_previous, &found->previous) ||
        !pyprof__load_word(reader, frame + layout->frame_code, &found->code)) {
        return false;
    }
    found->code &= ~layout->executable_tags;
    if (layout->frame_owner != PYPROF__ABSENT && !pyprof__read_owner(layout, reader, frame, found)) {
        return false;
    }
    if (!found->is_shown) {
        return true;
    }
    if (!pyprof__load_word(reader, found->code + offsetof(PyObject, ob_type), &type) ||
        type != (uintptr_t)&PyCode_Type) {
        return false;
    }
    return layout->instr_scale != 0 ? pyprof__read_last_index(layout, reader, frame, found)
                                    : pyprof__read_instruction(layout, reader, frame, found);
}

#if !PYPROF__PY_SINCE(12)
/* Adds the length and the last 16 bytes of some memory to a hash. */
PYPROF__INLINE bool pyprof__mix_bytes(pyprof__reader *reader, uintptr_t data, size_t size, uint64_t *hash) {
    uint64_t end[2] = {0, 0};
    if (size >= sizeof end) { /* mostly; two moves, as the number is known */
        if (!pyprof__load(reader, data + size - sizeof end, end, sizeof end)) {
            return false;
        }
    } else if (size > 0 && !pyprof__load(reader, data, end, size)) {
        return false;
    }
    *hash = pyprof__mix(pyprof__mix(pyprof__mix(*hash, size), end[0]), end[1]);
    return true;
}

/* A str by its own hash, which those that were interned have, else by its text. */
PYPROF__INLINE bool pyprof__mix_text(pyprof__reader *reader, uintptr_t object, uint64_t *hash) {
    PyASCIIObject head;
    if (!pyprof__load(reader, object, &head, sizeof head)) {
        return false;
    }
    if (head.hash != -1) {
        *hash = pyprof__mix(*hash, (uint64_t)head.hash);
        return true;
    }
    uintptr_t data = object + (head.state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
    if (!head.state.compact && !pyprof__load_word(reader, object + offsetof(PyUnicodeObject, data), &data)) {
        return false;
    }
    return pyprof__mix_bytes(reader, data, (size_t)head.length * head.state.kind, hash);
}

/* Adds what a code object holds. Before 3.12 code objects have no version, and in a loop of exec or eval all parts of
   one tend to lie where those of the one before lay, so that their addresses do not tell the two apart. */
PYPROF__INLINE bool pyprof__mix_content(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                                        uint64_t *hash) {
    uintptr_t name = 0, filename = 0, lines = 0;
    PyVarObject head;
    return pyprof__load_word(reader, code + layout->code_name, &name) &&
           pyprof__load_word(reader, code + layout->code_filename, &filename) &&
           pyprof__load_word(reader, code + layout->code_lines, &lines) &&
           pyprof__load(reader, lines, &head, sizeof head) && pyprof__mix_text(reader, name, hash) &&
           pyprof__mix_text(reader, filename, hash) &&
           pyprof__mix_bytes(reader, lines + offsetof(PyBytesObject, ob_sval), (size_t)head.ob_size, hash);
}
#endif

/* Whether an object has references, as what is alive has. The allocators use the first word of a dead one for links of
   their own; what it refers to may be reused while it still looks the same. False also if it cannot be read. */
static bool pyprof__object_lives(pyprof__reader *reader, uintptr_t object) {
#if PYPROF__FREE_THREADED /* there the first word names a thread; the counts follow (Include/object.h) */
    PyObject head;
    return pyprof__load(reader, object, &head, sizeof head) && (head.ob_ref_local != 0 || head.ob_ref_shared >> 2 > 0);
#else
    uint64_t references = 0;
    bool is_read = pyprof__load(reader, object, &references, sizeof references);
#if PYPROF__PY_SINCE(14) /* 32 bits of count, 16 for its overflow, 16 of flags (Include/refcount.h) */
    references &= 0xffffffffffffu;
#endif
    return is_read && references != 0 && references <= UINT32_MAX;
#endif
}

/* Where pyprof__code_fingerprint will read outside of a code object that the view holds, but for the file's name: so
   that the view can fetch it in one call. Returns how many addresses, two at most. */
static uint32_t pyprof__places_of_code(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                                       uintptr_t *places) {
#if !PYPROF__PY_SINCE(12)
    return pyprof__load_word(reader, code + layout->code_name, &places[0]) &&
                   pyprof__load_word(reader, code + layout->code_lines, &places[1])
               ? 2
               : 0;
#else
    (void)layout, (void)reader, (void)code, (void)places;
    return 0;
#endif
}

/* A fingerprint that tells this code object from others that lie or lay at the same address. False: it cannot be
   read. */
PYPROF__INLINE bool pyprof__code_fingerprint(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                                             uint64_t *print) {
    uint64_t hash = 0;
    for (size_t i = 0; i < PYPROF__IDENTITY_WORDS; i++) {
        uintptr_t word = 0;
        if (!pyprof__load_word(reader, code + layout->code_identity[i], &word)) {
            return false;
        }
        hash = pyprof__mix(hash, word);
    }
#if !PYPROF__PY_SINCE(12)
    if (!pyprof__mix_content(layout, reader, code, &hash)) {
        return false;
    }
#endif
    *print = hash;
    return true;
}

// >>objects
// Python objects: code objects, line tables, texts, ints, attributes and dicts, read from outside, so that what is gone
// is an error. In: addresses that may be stale. Out: copies; false, or 0 for an address, where there is no such object.
// The sampler's alone, but for pyprof__entry_address, which the handler calls, too.
// Invariant: a type is checked before what follows from it, a length before it is used. Objects may change while they
// are read: what matters is looked at again afterwards, by the caller.
//   a frame's function and line:  code object -> name, filename, line table -> pyprof__read_text, pyprof__line_at
//   a thread's name:  interpreter -> sys.modules["threading"]._active[ident]._name -> pyprof__read_text
// Begin with: pyprof__read_code, pyprof__read_text, pyprof__line_at, pyprof__value_of.

/* Writes a code point as UTF-8, 1 to 4 bytes, and returns how many. Lone surrogates come out as generalised UTF-8
   (three bytes), which writers escape. */
static size_t pyprof__utf8_put(char *out, uint32_t c) {
    static const uint32_t first[] = {0, 0xc0, 0xe0, 0xf0};
    const size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    for (size_t i = more; i > 0; i--, c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3f));
    }
    out[0] = (char)(first[more] | c);
    return more + 1;
}

#define PYPROF__TEXT_CHARS 4096u /* names beyond that are cut and end in "..." */

/* A text as UTF-8, without a zero at its end. 16 KiB: the sampler has one, and uses it for each text anew. */
typedef struct pyprof__text {
    size_t size; /* bytes */
    char utf8[PYPROF__TEXT_CHARS * 4 + 4];
} pyprof__text;

/* Whether a type is str or derived from it. One that is derived keeps its text elsewhere (PyUnicodeObject.data): the name
   of a file may be such a str. */
static bool pyprof__is_str(pyprof__reader *reader, uintptr_t type) {
    unsigned long flags = 0;
    return type == (uintptr_t)&PyUnicode_Type ||
           (pyprof__load(reader, type + offsetof(PyTypeObject, tp_flags), &flags, sizeof flags) &&
            (flags & Py_TPFLAGS_UNICODE_SUBCLASS));
}

/* Copies a str object's text as UTF-8. False: there is no such object there (any more). */
static bool pyprof__load_text(pyprof__reader *reader, uintptr_t object, pyprof__text *text) {
    PyASCIIObject head;
    if (!pyprof__load(reader, object, &head, sizeof head) ||
        !pyprof__is_str(reader, (uintptr_t)Py_TYPE((PyObject *)&head)) || head.length < 0) {
        return false;
    }
    size_t width = head.state.kind;
    size_t count = (size_t)head.length < PYPROF__TEXT_CHARS ? (size_t)head.length : PYPROF__TEXT_CHARS;
    uintptr_t data = object + (head.state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
    if ((width != 1 && width != 2 && width != 4) ||
        (!head.state.compact && !pyprof__load_word(reader, object + offsetof(PyUnicodeObject, data), &data))) {
        return false;
    }
    /* The characters are read to the end of the room, and made UTF-8 from its beginning on. That takes one byte more
       for each at most, and four at most: so none is written over before it was taken. */
    char *raw = text->utf8 + sizeof text->utf8 - count * width;
    if (count > 0 && !pyprof__load(reader, data, raw, count * width)) {
        return false;
    }
    text->size = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t c = 0;
        memcpy(&c, raw + i * width, width); /* little-endian, as every Linux that CPython 3.8+ ships for */
        if (c > 0x10ffff) {
            return false;
        }
        text->size += pyprof__utf8_put(text->utf8 + text->size, c);
    }
    if (count < (size_t)head.length) {
        memcpy(text->utf8 + text->size, "...", 3);
        text->size += 3;
    }
    return true;
}

static bool pyprof__read_text(uintptr_t object, pyprof__text *text) {
    pyprof__reader safely = {0, 0, 0, 0, NULL};
    return pyprof__load_text(&safely, object, text);
}

/* A code object's fields as they were read: the addresses may be stale by now. */
typedef struct pyprof__code_fields {
    uintptr_t name;
    uintptr_t filename;
    uintptr_t lines; /* bytes object */
    int32_t first_line;
} pyprof__code_fields;

/* False: unreadable. Through the view by which the caller has just taken the fingerprint, these are of the same
   copy. */
static bool pyprof__read_code(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t code,
                              pyprof__code_fields *fields) {
    return pyprof__load_word(reader, code + layout->code_name, &fields->name) &&
           pyprof__load_word(reader, code + layout->code_filename, &fields->filename) &&
           pyprof__load_word(reader, code + layout->code_lines, &fields->lines) &&
           pyprof__load(reader, code + layout->code_first_line, &fields->first_line, sizeof fields->first_line);
}

/* Where a bytes object's data lies and how long it is; the data is for the caller to read. False: there is no such
   object. */
static bool pyprof__bytes_data(pyprof__reader *reader, uintptr_t object, uintptr_t *data, size_t *size) {
    PyVarObject head;
    if (!pyprof__load(reader, object, &head, sizeof head) ||
        (uintptr_t)Py_TYPE((PyObject *)&head) != (uintptr_t)&PyBytes_Type || head.ob_size < 0) {
        return false;
    }
    *data = object + offsetof(PyBytesObject, ob_sval);
    *size = (size_t)head.ob_size;
    return true;
}

/* The sum of two lines. Tables may hold anything, so it may overflow, which of signed numbers is undefined. */
static int32_t pyprof__add_line(int32_t line, int32_t delta) {
    return (int32_t)((uint32_t)line + (uint32_t)delta);
}

#if PYPROF__PY_SINCE(11)
/* Numbers of the location table: 6 bits a byte, least significant first, bit 6 = more follow. False = the
   table ends in the middle. Source: CPython, InternalDocs/code_objects.md (Objects/locations.md before). */
static bool pyprof__varint(const unsigned char **at, const unsigned char *end, uint32_t *value) {
    *value = 0;
    for (unsigned shift = 0; *at < end; shift += 6) {
        unsigned char byte = *(*at)++;
        if (shift < 32) {
            *value |= (uint32_t)(byte & 63) << shift;
        }
        if (!(byte & 64)) {
            return true;
        }
    }
    return false;
}

/* The line of the instruction at a byte offset. An entry of the table is a byte with bit 7 set, then others without.
   The first one has a kind in bits 3 to 6, and in bits 0 to 2 how many code units of 2 bytes it is for, less one. The
   line changes by a signed number in kinds 13 and 14 (lowest bit = sign), by 0 to 2 in kinds 10 to 12; else it stays as
   it was, also where there is none (15). What is no entry ends the search. */
static int32_t pyprof__line_at(const unsigned char *table, size_t size, int32_t first_line, int32_t instr) {
    const unsigned char *at = table, *end = table + size;
    int32_t line = first_line;
    int32_t next = 0;
    while (at < end) {
        unsigned char head = *at++;
        unsigned kind = (head >> 3) & 15;
        uint32_t delta = 0;
        if (!(head & 0x80)) {
            break;
        }
        next += ((head & 7) + 1) * 2;
        if (kind == 13 || kind == 14) {
            if (!pyprof__varint(&at, end, &delta)) {
                break;
            }
            line = pyprof__add_line(line, (delta & 1) ? -(int32_t)(delta >> 1) : (int32_t)(delta >> 1));
        } else if (kind >= 10 && kind <= 12) {
            line = pyprof__add_line(line, (int32_t)kind - 10);
        }
        while (at < end && !(*at & 0x80)) {
            at++; /* columns, and for the long form the end line */
        }
        if (instr < next) {
            break;
        }
    }
    return line;
}
#else
/* The line of the instruction at a byte offset. The table has pairs of (length in bytes, signed line delta). Since 3.10
   the line changes where a range begins, to 3.9 where it ends. Since 3.10 -128 is no line: such ranges keep the line
   before. Source: CPython 3.8 and 3.10, Objects/lnotab_notes.txt. */
static int32_t pyprof__line_at(const unsigned char *table, size_t size, int32_t first_line, int32_t instr) {
    int32_t line = first_line, next = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        signed char delta = (signed char)table[i + 1];
        next += table[i];
        if (!PYPROF__PY_SINCE(10) && instr < next) {
            break;
        }
        line = pyprof__add_line(line, PYPROF__PY_SINCE(10) && delta == -128 ? 0 : delta);
        if (PYPROF__PY_SINCE(10) && instr < next) {
            break;
        }
    }
    return line;
}
#endif

/* Where a dict, or the attributes of an instance, has its keys and values. */
typedef struct pyprof__attributes {
    uintptr_t keys;
    uintptr_t values; /* array of values beside the keys; 0 = they lie between the keys */
    uintptr_t place;  /* of the value that was found last */
} pyprof__attributes;

/* Where PyDictValues keeps its array: since 3.13 four bytes come before it. Source: Include/internal/pycore_dict.h. */
#define PYPROF__VALUES_OFFSET (PYPROF__PY_SINCE(13) ? 8u : 0u)

/* Finds the keys and values of a dict, whose type the caller knows. False: dict is 0, or unreadable. */
static bool pyprof__dict_attributes(pyprof__reader *reader, uintptr_t dict, pyprof__attributes *attributes) {
    uintptr_t values = 0;
    bool is_read = dict != 0 && pyprof__load_word(reader, dict + offsetof(PyDictObject, ma_keys), &attributes->keys) &&
                   pyprof__load_word(reader, dict + offsetof(PyDictObject, ma_values), &values);
    attributes->values = values != 0 ? values + PYPROF__VALUES_OFFSET : 0;
    return is_read;
}

#if PYPROF__PY_SINCE(11)
#define PYPROF__MANAGED_DICT_BEFORE ((PYPROF__FREE_THREADED ? 1 : 3) * sizeof(uintptr_t))
#define PYPROF__INLINE_VALUES_FLAG (1ul << 2) /* Py_TPFLAGS_INLINE_VALUES, since 3.13 */

/* Finds the attributes of an instance with a managed dict. As long as nobody has asked for its __dict__ it mostly has
   none, but values alone, whose keys all instances of its type share. The words lie before the object: values at -4
   words and dict at -3 (3.11); one word at -3, which is values if its lowest bit is set (3.12); dict at -3,
   free-threaded -1, and the values behind the object, with a byte that says whether they are valid (3.13). Source:
   Include/internal/pycore_object.h. False: unreadable, or there are neither. */
static bool pyprof__managed_attributes(pyprof__reader *reader, uintptr_t object, uintptr_t type, uintptr_t flags,
                                       pyprof__attributes *attributes) {
    uintptr_t dict = 0, values = 0;
    (void)flags;
    if (!pyprof__load_word(reader, object - PYPROF__MANAGED_DICT_BEFORE, &dict)) {
        return false;
    }
#if PYPROF__PY_SINCE(13)
    unsigned char head[4] = {0};
    uintptr_t size = 0;
    if (!pyprof__load_word(reader, type + offsetof(PyTypeObject, tp_basicsize), &size)) {
        return false;
    }
    bool has_inline_values = dict == 0 && (flags & PYPROF__INLINE_VALUES_FLAG);
    if (has_inline_values && pyprof__load(reader, object + size, head, sizeof head) && head[3] != 0) {
        values = object + size;
    }
#elif PYPROF__PY_SINCE(12)
    values = (dict & 1) ? dict + 1 : 0;
#else
    if (!pyprof__load_word(reader, object - 4 * sizeof values, &values)) {
        return false;
    }
#endif
    if (values == 0) {
        return pyprof__dict_attributes(reader, dict, attributes);
    }
    attributes->values = values + PYPROF__VALUES_OFFSET;
    return pyprof__load_word(reader, type + offsetof(PyHeapTypeObject, ht_cached_keys), &attributes->keys);
}
#endif

/* Finds the attributes of an instance of a heap type, as all classes are that Python code makes. False: it is none, has
   no dict, or is unreadable. */
static bool pyprof__instance_attributes(pyprof__reader *reader, uintptr_t object, pyprof__attributes *attributes) {
    uintptr_t type = 0, flags = 0, offset = 0, dict = 0;
    if (!pyprof__load_word(reader, object + offsetof(PyObject, ob_type), &type) ||
        !pyprof__load_word(reader, type + offsetof(PyTypeObject, tp_flags), &flags) ||
        !pyprof__load_word(reader, type + offsetof(PyTypeObject, tp_dictoffset), &offset) ||
        !(flags & Py_TPFLAGS_HEAPTYPE)) {
        return false;
    }
#if PYPROF__PY_SINCE(11)
    if (flags & (1ul << 4)) { /* Py_TPFLAGS_MANAGED_DICT */
        return pyprof__managed_attributes(reader, object, type, flags, attributes);
    }
#endif
    return (intptr_t)offset > 0 && pyprof__load_word(reader, object + offset, &dict) &&
           pyprof__dict_attributes(reader, dict, attributes);
}

/* What the keys of a dict begin with (PyDictKeysObject); a hash index follows, then the entries, in the order in which
   they were added. Source: Objects/dict-common.h (to 3.10), Include/internal/pycore_dict.h (from 3.11). */
typedef struct pyprof__dict_keys {
#if PYPROF__PY_SINCE(11)
    Py_ssize_t references;
    uint8_t log2_size, log2_index_bytes, kind; /* kind 0: keys of any type; else all are str objects */
#if PYPROF__FREE_THREADED
    uint8_t mutex;
#endif
    uint32_t version;
    Py_ssize_t usable, count; /* count: entries, with those that were deleted */
#else
    Py_ssize_t references, size; /* size: of the index, in places */
    void *lookup;
    Py_ssize_t usable, count; /* count: entries, with those that were deleted */
#endif
} pyprof__dict_keys;

/* Where the entries of the keys at an address begin, and of how many words each is: a key, its value, and before them
   its hash where not all keys are str objects. The hash index between is skipped: entries are searched one by one. */
static uintptr_t pyprof__dict_entries(const pyprof__dict_keys *keys, uintptr_t address, size_t *words) {
#if PYPROF__PY_SINCE(11)
    *words = keys->kind == 0 ? 3 : 2;
    return address + sizeof *keys + ((size_t)1 << (keys->log2_index_bytes & 31));
#else
    size_t width = keys->size <= 0xff ? 1 : keys->size <= 0xffff ? 2 : 4;
    *words = 3;
    return address + sizeof *keys + (size_t)keys->size * width;
#endif
}

/* The value of an int of up to 60 bits (two digits of 30). False: there is no such object, or it is larger. Of a
   negative one: to 3.11 false, since then its absolute value. */
static bool pyprof__read_int(uintptr_t object, uint64_t *value) {
    struct {
        PyObject head;
        uintptr_t size; /* how many digits follow; since 3.12 with flags below */
        uint32_t digits[2];
    } number;
    if (object == 0 || !pyprof__read(object, &number, sizeof number) ||
        (uintptr_t)Py_TYPE(&number.head) != (uintptr_t)&PyLong_Type) {
        return false;
    }
    const uintptr_t sign = 3,
                    negative = 2; /* since 3.12: Include/cpython/longintrepr.h; before, the size is negative */
    if (PYPROF__PY_SINCE(12) && (number.size & sign) == negative) {
        return false;
    }
    uintptr_t size = PYPROF__PY_SINCE(12) ? number.size >> 3 : number.size;
    *value = (size > 0 ? number.digits[0] : 0) | (size > 1 ? (uint64_t)number.digits[1] << 30 : 0);
    return size <= 2;
}

/* Which of count objects (at most 32), each step words behind the one before, are str objects of an ASCII text of at
   most 32 bytes: a bit for each, the first in the lowest. All are read in one call; if one cannot be read, each in its
   own. */
static uint32_t pyprof__are_text(const uintptr_t *objects, size_t step, uint32_t count, const char *text) {
    enum {
        most = 32,
        longest = 32
    };
    struct iovec from[most];
    char copy[most * (sizeof(PyASCIIObject) + longest)];
    const size_t size = strlen(text), bytes = sizeof(PyASCIIObject) + size;
    uint32_t bits = 0;
    memset(from, 0, sizeof from);
    for (uint32_t i = 0; i < count; i++) {
        uintptr_t object = objects[i * step];
        from[i].iov_base = (void *)(object != 0 ? object : (uintptr_t)&PyUnicode_Type); /* it is no str, but is there */
        from[i].iov_len = bytes;
    }
    if (!pyprof__read_places(from, count, copy, count * bytes)) {
        for (uint32_t i = 0; i < count && count > 1; i++) { /* one ends at the end of a page, or is none */
            bits |= pyprof__are_text(&objects[i * step], step, 1, text) << i;
        }
        return bits;
    }
    for (uint32_t i = 0; i < count; i++) {
        PyASCIIObject head;
        memcpy(&head, copy + i * bytes, sizeof head);
        bool is_same = (uintptr_t)Py_TYPE((PyObject *)&head) == (uintptr_t)&PyUnicode_Type && head.state.compact &&
                       head.state.ascii && head.length == (Py_ssize_t)size &&
                       memcmp(copy + i * bytes + sizeof head, text, size) == 0;
        bits |= (uint32_t)is_same << i;
    }
    return bits;
}

/* The value that a dict, or an instance, of no more than most keys has for one: for this text, or, if that is NULL, for
   the int that is its own hash. 0 = none, or it cannot be told. Dicts are changed by their threads meanwhile, so what
   is found has to be looked at. */
static uintptr_t pyprof__value_of(pyprof__reader *reader, pyprof__attributes *attributes, uint32_t most,
                                  const char *text, uintptr_t number) {
    enum {
        part = 32
    };
    const size_t word = sizeof(uintptr_t);
    uintptr_t entries[part * 3];
    pyprof__dict_keys keys;
    size_t words;
    if (!pyprof__load(reader, attributes->keys, &keys, sizeof keys) || keys.count < 0 || keys.count > (int32_t)most) {
        return 0;
    }
    uintptr_t first = pyprof__dict_entries(&keys, attributes->keys, &words);
    uint32_t total = text != NULL || words == 3 ? (uint32_t)keys.count : 0;
    for (uint32_t at = 0, count; at < total; at += count) {
        count = total - at < (uint32_t)part ? total - at : (uint32_t)part;
        if (!pyprof__load(reader, first + at * words * word, entries, count * words * word)) {
            return 0;
        }
        uint32_t bits = text != NULL ? pyprof__are_text(&entries[words - 2], words, count, text) : 0;
        for (uint32_t i = 0; i < count; i++) {
            uintptr_t value = entries[i * words + words - 1];
            bool is_it = text != NULL ? bits >> i & 1 : entries[i * words] == number;
            attributes->place = attributes->values != 0 ? attributes->values + (at + i) * word
                                                        : first + ((at + i + 1) * words - 1) * word;
            if (is_it && attributes->values != 0 && !pyprof__load_word(reader, attributes->place, &value)) {
                return 0;
            }
            if (is_it && value != 0) {
                return value;
            }
        }
    }
    return 0;
}

/* The value of an instance's attribute, an object's address; 0 = it cannot be found. place: of the word that leads to
   it. Through a view, as the next one likely lies near by. */
static uintptr_t pyprof__read_attribute(pyprof__view *view, uintptr_t object, const char *name, uintptr_t *place) {
    pyprof__reader reader = {0, 0, 0, 0, view};
    pyprof__attributes attributes;
    bool is_found = pyprof__instance_attributes(&reader, object, &attributes);
    uintptr_t value = is_found ? pyprof__value_of(&reader, &attributes, 1 << 20, name, 0) : 0;
    *place = value != 0 ? attributes.place : 0;
    return value;
}

/* The value that a dict has for a key: see pyprof__value_of. Without a view, as it reads each entry once. */
static uintptr_t pyprof__dict_value(uintptr_t dict, const char *text, uintptr_t number) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    pyprof__attributes attributes;
    bool is_found = pyprof__dict_attributes(&reader, dict, &attributes);
    return is_found ? pyprof__value_of(&reader, &attributes, 1 << 20, text, number) : 0;
}

/* Whether what lies at an address, which may be 0, has this type, and none derived from it. */
static bool pyprof__is_a(uintptr_t object, const void *type) {
    uintptr_t found = 0;
    return object != 0 && pyprof__read(object + offsetof(PyObject, ob_type), &found, sizeof found) &&
           found == (uintptr_t)type;
}

/* The dict of an imported module, by its name in sys.modules; 0 = none. */
static uintptr_t pyprof__module_dict(uintptr_t modules, const char *name) {
    uintptr_t module = pyprof__dict_value(modules, name, 0), dict = 0;
    const uintptr_t md_dict = sizeof(PyObject); /* Include/internal/pycore_moduleobject.h */
    bool is_read = pyprof__is_a(module, &PyModule_Type) && pyprof__read(module + md_dict, &dict, sizeof dict);
    return is_read && pyprof__is_a(dict, &PyDict_Type) ? dict : 0;
}

/* Learns where interpreters keep sys.modules, which to 3.12 no public header says: in the first word of an
   interpreter's first 8 KiB that points to a dict with `sys` and `builtins` in it. Takes about a millisecond; if there
   is none, nothing is learnt. */
static void pyprof__find_modules(pyprof__layout *layout, uintptr_t interp) {
    enum {
        part = 128,
        most = 1024
    };
    uintptr_t words[part];
    for (uint32_t at = 0; at < most && layout->interp_modules == PYPROF__ABSENT; at += part) {
        if (!pyprof__read(interp + at * sizeof *words, words, sizeof words)) {
            return;
        }
        for (uint32_t i = 0; i < part; i++) {
            if (words[i] % sizeof *words == 0 && words[i] > 65536 && words[i] >> 47 == 0 &&
                pyprof__is_a(words[i], &PyDict_Type) && pyprof__module_dict(words[i], "sys") != 0 &&
                pyprof__module_dict(words[i], "builtins") != 0) {
                layout->interp_modules = (at + i) * (uint32_t)sizeof *words;
                return;
            }
        }
    }
}

/* The address of an interpreter's sys.modules; 0 = not known. count: how many modules, so that the caller sees new
   ones. */
static uintptr_t pyprof__modules_of(pyprof__layout *layout, uintptr_t interp, uint64_t *count) {
    uintptr_t modules = 0;
    if (layout->interp_modules == PYPROF__ABSENT) {
        pyprof__find_modules(layout, interp);
    }
    bool is_read = layout->interp_modules != PYPROF__ABSENT &&
                   pyprof__read(interp + layout->interp_modules, &modules, sizeof modules) &&
                   pyprof__is_a(modules, &PyDict_Type) &&
                   pyprof__read(modules + offsetof(PyDictObject, ma_used), count, sizeof *count);
    return is_read ? modules : 0;
}

/* The address of threading._active, a dict of an interpreter's Thread objects by their idents; 0 = not imported. */
static uintptr_t pyprof__active_threads(uintptr_t modules) {
    uintptr_t active = pyprof__dict_value(pyprof__module_dict(modules, "threading"), "_active", 0);
    return pyprof__is_a(active, &PyDict_Type) ? active : 0;
}

/* Where on the C stack of its thread a thread state was last entered from C, by its ts_frame; stacks grow downwards, so
   the lower address is the later entry. That is where its cframe lies (3.11, 3.12), or the first helper frame outwards.
   0 = it cannot be told: to 3.10 nothing of it lies there. Async-signal-safe with a reader without a view. */
static uintptr_t pyprof__entry_address(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t frame) {
    uintptr_t code;
    int steps = 0;
    if (layout->cframe_frame != PYPROF__ABSENT) {
        return frame; /* the cframe lies there */
    }
    while (layout->helper_code != 0 && frame != 0 && steps++ < 1 << 16 &&
           pyprof__load_word(reader, frame + layout->frame_code, &code)) {
        if ((code & ~layout->executable_tags) == layout->helper_code) {
            return frame;
        }
        if (!pyprof__load_word(reader, frame + layout->frame_previous, &frame)) {
            return 0;
        }
    }
    return 0;
}

// >>stacks
// One stack of one thread, from its leaf frame to its root, through all levels (interpreters) that the thread is in.
// In: the layout; a leaf frame; the levels, innermost first; a reader, or NULL where the thread reads itself by loads.
// Out: frames in room that the caller gives, leaf first. False: something on the way was no frame, as it was being
// changed; then what is in the room counts for nothing.
// Who: the thread itself, in the signal handler, and the sampler from outside. All of it is async-signal-safe.
// Invariants: a stack never has more frames than its capacity; every walk ends, also where the links close a circle.
//
// How frames lie in the room, of a thread that went from the main interpreter to number 1, and of a stack too deep:
//   | leaf ... what runs in interpreter 1 | mark: 1   | ... what runs in the main one, to the root |
//   | leaf ... three quarters of the room | mark: gap | ... a quarter of the room, to the root     |
//
// Begin with pyprof__walk (one level), pyprof__walk_outer (levels further out), pyprof__follow (where it is by now).

/* A place in the program at which a thread was met; or a mark, see pyprof__mark. Frames are compared, and found in
   tables, as bytes: the whole is the key of a pyprof__call_site, the first two fields are that of a pyprof__code. The
   address alone would not do: it is used again once a code object has died. */
typedef struct pyprof__frame {
    uintptr_t code;       /* code object; 0 = a mark */
    uint64_t fingerprint; /* see pyprof__code_fingerprint; of a mark: the id of the interpreter, or PYPROF__GAP */
    int32_t instr;        /* byte offset of the current instruction; of a mark: pyprof__levels.naming */
    uint32_t unused;      /* zero: frames are compared as bytes */
} pyprof__frame;

/* A stack, and what the walk learnt of it. The frames belong to a request or are the sampler's scratch; the struct is
   copied freely, and then both copies mean the same frames. */
typedef struct pyprof__stack {
    pyprof__frame *frames;      /* leaf first */
    uint32_t count;             /* frames and marks that are there */
    uint32_t capacity;          /* room, in frames: desc.max_depth, or what is left of it */
    uintptr_t leaf;             /* address of the innermost frame */
    uintptr_t root;             /* of the outermost, of whatever level; 0 = there are no frames */
    uint32_t inner;             /* so many of them are of the innermost level; and of these, */
    uintptr_t root_first_local; /* the outermost's first local variable */
    bool root_is_generator;     /* that outermost is the frame of a generator or coroutine */
    bool is_cut;                /* there were more, further out, */
    bool is_headless; /* as CPython itself does not link the outermost to its caller: see pyprof__is_cut_off */
    bool has_gap;     /* there were more, between those that a mark parts: see pyprof__leave_gap */
    bool is_partial;  /* there were more, further in, that cannot be told: [unsettled] */
    bool is_in_jit;   /* see pyprof__is_in_jit */
} pyprof__stack;

/* A mark, among the frames of a stack: it says in which interpreter those before it run, which are further in; or that
   frames were left out there (PYPROF__GAP). naming is part of it: an interpreter with a new name gets a new mark. */
static inline pyprof__frame pyprof__mark(int64_t interpreter, int32_t naming) {
    pyprof__frame mark = {0, (uint64_t)interpreter, naming, 0};
    return mark;
}

#define PYPROF__GAP INT64_MIN /* no interpreter has this id */

static inline bool pyprof__is_mark(const pyprof__frame *frame) {
    return frame->code == 0;
}

/* Reverses the order of the addresses that pyprof__leave_gap keeps in the frames' code fields. */
static void pyprof__turn_round(pyprof__frame *frames, uint32_t count) {
    for (uint32_t i = 0; i < count / 2; i++) {
        uintptr_t code = frames[i].code;
        frames[i].code = frames[count - 1 - i].code;
        frames[count - 1 - i].code = code;
    }
}

/* Keeps both ends of a stack that is too deep for the room: the innermost frames, which tell what runs; a mark; and the
   outermost, which tell whose work it is. from is the frame whose place the mark takes. From there on nothing is read
   but the links. The addresses of the last frames met are kept in the room for the outermost ones, which serves as a
   ring; at the end they stand there innermost first, for pyprof__walk to read. If the root is too far away that is no
   error: is_cut, and only the innermost are kept. False: a link cannot be read, or closes a circle. */
static bool pyprof__leave_gap(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t from, uint32_t outer,
                              pyprof__stack *stack) {
    const uint32_t most = 1u << 17; /* links; far more than C stacks, or recursion limits, let be */
    uint32_t inner = stack->capacity - outer - 1, met = 0;
    pyprof__frame *ring = &stack->frames[inner + 1];
    uintptr_t circle = 0; /* a link that leads back to it closes one (Brent, 1980) */
    stack->count = stack->inner = inner;
    for (uintptr_t frame = from; frame != 0; met++) {
        if (met == most || frame == circle) {
            stack->is_cut = met == most;
            return stack->is_cut;
        }
        circle = (met & (met - 1)) == 0 ? frame : circle;
        ring[met % outer].code = frame;
        if (!pyprof__load_word(reader, frame + layout->frame_previous, &frame)) {
            return false;
        }
    }
    if (met < outer) {
        return false; /* the chain was longer a moment ago: it changes while it is read */
    }
    pyprof__turn_round(ring, met % outer); /* in two parts, and then as a whole: the oldest comes first */
    pyprof__turn_round(ring + met % outer, outer - met % outer);
    pyprof__turn_round(ring, outer);
    stack->frames[stack->count++] = pyprof__mark(PYPROF__GAP, 0);
    stack->has_gap = true;
    return true;
}

/* Reads the frames of one level, from its leaf frame outwards (0 = it has none). The caller has set frames and capacity
   of the stack, and the rest of it is set here. Frame by frame, as long as there is room; then, behind a gap, those
   whose addresses pyprof__leave_gap has kept. A frame that has not begun to run counts only as the caller of others. */
PYPROF__INLINE bool pyprof__walk(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t leaf,
                                 pyprof__stack *stack) {
    pyprof__found found;
    uint32_t outer = stack->capacity / 4, ends = stack->capacity, steps = 0;
    uintptr_t gap = 0;
    stack->count = stack->inner = 0;
    stack->leaf = leaf;
    stack->root = stack->root_first_local = 0;
    stack->root_is_generator = stack->is_cut = stack->is_headless = false;
    stack->has_gap = stack->is_partial = stack->is_in_jit = false;
    for (uintptr_t frame = leaf; frame != 0;) {
        /* Frames that are not shown take a step, too; so a circle of links ends here. */
        if (++steps > 4 * stack->capacity || !pyprof__read_frame(layout, reader, frame, &found)) {
            return false;
        }
        bool is_shown = found.is_shown && (found.has_begun || stack->count > 0);
        if (is_shown && stack->count == stack->capacity) {
            stack->is_cut = outer == 0; /* room for fewer than four: the innermost only */
            if (!stack->is_cut && !pyprof__leave_gap(layout, reader, gap, outer, stack)) {
                return false;
            }
            if (stack->is_cut) {
                break;
            }
            ends = stack->count;
            frame = stack->frames[ends++].code;
            continue;
        }
        if (is_shown) {
            pyprof__frame *out = &stack->frames[stack->count];
            /* Where a gap would begin, if one is needed. */
            gap = stack->count + outer + 1 == stack->capacity ? frame : gap;
            if (!pyprof__code_fingerprint(layout, reader, found.code, &out->fingerprint)) {
                return false;
            }
            out->code = found.code;
            out->instr = found.has_begun ? found.instr : 0;
            out->unused = 0;
            stack->root = frame;
            stack->inner = ++stack->count;
            stack->root_is_generator = found.is_generator;
        }
        frame = !stack->has_gap ? found.previous : ends < stack->capacity ? stack->frames[ends++].code : 0;
    }
    if (stack->root != 0 && !stack->is_cut &&
        !pyprof__load_word(reader, stack->root + layout->frame_locals, &stack->root_first_local)) {
        return false;
    }
    stack->root_first_local &= ~layout->executable_tags; /* a local has the tag bits that frame_code has */
    return stack->is_cut || !stack->root_is_generator ||
           pyprof__is_cut_off(layout, reader, stack->root, &stack->is_headless);
}

/* One of the interpreters that a thread is in, by the thread state that it has there. A thread leaves the interpreter
   that it entered last before it goes on with one further out. So the levels that have frames are nested, and all but
   the first stand still. */
typedef struct pyprof__level {
    uintptr_t tstate;
    uintptr_t interp;
    uint64_t id;       /* of the thread state: what comes to lie at its address has another one */
    int64_t interp_id; /* 0 = the main interpreter */
    uintptr_t word;    /* in the handler: its ts_frame when it was found to be this thread's */
} pyprof__level;

#define PYPROF__LEVELS_MAX 8u
/* The levels of one thread, as the lists had them (pyprof__find_levels) or as pyprof__follow has found them since. Each
   observation and each request has a copy of its own. */
typedef struct pyprof__levels {
    uint32_t count;      /* the thread is in the first of the items, and has frames in all of these */
    uint32_t known;      /* of all items: behind the first count, thread states without frames */
    bool is_cut;         /* there were more, further out */
    bool is_whole;       /* the thread has no thread state beside these */
    int32_t naming;      /* generation of the interpreters' names: see pyprof__process.interpreter_names */
    uintptr_t thread_id; /* pthread_t */
    pyprof__level items[PYPROF__LEVELS_MAX]; /* innermost first */
} pyprof__levels;

typedef enum pyprof__level_state {
    PYPROF__LEVEL_GONE, /* it is not what it was when the lists were read, or cannot be read */
    PYPROF__LEVEL_LEFT, /* it has no frames */
    PYPROF__LEVEL_STANDS
} pyprof__level_state;

/* What became of a level since the lists were read. Something else may lie there by now: a thread state is known again
   by interpreter, id and thread. Async-signal-safe. */
static pyprof__level_state pyprof__level_now(const pyprof__layout *layout, uintptr_t thread_id,
                                             const pyprof__level *level) {
    const uint32_t offsets[] = {layout->ts_interp, layout->ts_id, layout->ts_thread_id, layout->ts_frame,
                                layout->ts_base};
    uint64_t words[] = {0, 0, 0, 0, 0};
    struct iovec from[sizeof offsets / sizeof *offsets];
    size_t count = layout->ts_base == PYPROF__ABSENT ? 4 : 5;
    for (size_t i = 0; i < count; i++) {
        from[i].iov_base = (void *)(level->tstate + offsets[i]);
        from[i].iov_len = sizeof *words;
    }
    if (!pyprof__read_places(from, count, words, count * sizeof *words) || words[0] != level->interp ||
        words[1] != level->id || words[2] != thread_id) {
        return PYPROF__LEVEL_GONE;
    }
    bool stands = pyprof__points_to_frames(layout, level->tstate, words[3], words[4]);
    return stands ? PYPROF__LEVEL_STANDS : PYPROF__LEVEL_LEFT;
}

/* Moves a level further in, from one place to another; those between move outwards by one. */
static void pyprof__move_level(pyprof__levels *levels, uint32_t from, uint32_t to) {
    const pyprof__level moved = levels->items[from];
    memmove(&levels->items[to + 1], &levels->items[to], (from - to) * sizeof moved);
    levels->items[to] = moved;
}

/* Brings levels up to date: the thread may have entered and left interpreters since they were read, and tstate is where
   it is now. Levels that still have frames keep their order; one that has got frames since is further in than those;
   one that has lost them no longer counts; tstate comes first. False, and nothing is changed: a level is gone; two have
   got frames, in an order that cannot be told; or tstate is not among them, or there may be others.
   Async-signal-safe. */
static bool pyprof__follow(const pyprof__layout *layout, pyprof__levels *levels, uintptr_t tstate) {
    uint32_t stand = 0, entered = 0, place = 0, at = 0;
    while (at < levels->known && levels->items[at].tstate != tstate) {
        at++;
    }
    if (at == levels->known || (!levels->is_whole && at > 0)) {
        return false;
    }
    for (uint32_t i = 0; i < levels->known; i++) {
        pyprof__level_state now = pyprof__level_now(layout, levels->thread_id, &levels->items[i]);
        if (now == PYPROF__LEVEL_GONE && (i < levels->count || i == at)) {
            return false;
        }
        if (now == PYPROF__LEVEL_STANDS && i != at) {
            stand |= 1u << i;
            entered += i >= levels->count;
        }
    }
    if (entered > 1) {
        return false; /* nothing tells in which order */
    }
    for (uint32_t i = 0; i < levels->known; i++) {
        if (stand >> i & 1) {
            pyprof__move_level(levels, i, i < levels->count ? place : 0);
            place++;
        }
    }
    for (at = 0; levels->items[at].tstate != tstate;) {
        at++;
    }
    pyprof__move_level(levels, at, 0);
    levels->count = place + 1;
    return true;
}

/* Adds the frames of a level further out behind those that are there; without room for them the stack is_cut. In the
   handler (reader NULL) the level is known to be this thread's own, so its frames stand still; from outside it may have
   gone since, and is looked at first. False: it is gone, has no frames, or not only frames. */
PYPROF__INLINE bool pyprof__walk_level(const pyprof__layout *layout, pyprof__reader *reader,
                                       const pyprof__levels *levels, const pyprof__level *level, pyprof__stack *stack) {
    uintptr_t leaf = 0;
    pyprof__stack rest = *stack;
    rest.frames += stack->count;
    rest.capacity -= stack->count;
    bool is_found = reader == NULL ? pyprof__leaf_from(layout, NULL, level->word, &leaf)
                                   : pyprof__level_now(layout, levels->thread_id, level) == PYPROF__LEVEL_STANDS &&
                                         pyprof__leaf_frame(layout, reader, level->tstate, &leaf);
    if (!is_found) {
        return false;
    }
    stack->is_cut = rest.capacity == 0;
    if (stack->is_cut) {
        return true;
    }
    if (!pyprof__walk(layout, reader, leaf, &rest)) {
        return false;
    }
    stack->count += rest.count;
    stack->is_cut = rest.is_cut;
    stack->has_gap = stack->has_gap || rest.has_gap;
    stack->root = rest.root != 0 ? rest.root : stack->root;
    return true;
}

/* Completes a stack that pyprof__walk has read of the innermost level: adds the marks, and the frames of the levels
   further out. A thread that is in the main interpreter alone, as most are, gets neither. False: it cannot be told. */
PYPROF__INLINE bool pyprof__walk_outer(const pyprof__layout *layout, pyprof__reader *reader,
                                       const pyprof__levels *levels, pyprof__stack *stack) {
    for (uint32_t i = 0; i < levels->count && !stack->is_cut; i++) {
        const pyprof__level *level = &levels->items[i];
        if (i > 0 && !pyprof__walk_level(layout, reader, levels, level, stack)) {
            return false;
        }
        bool is_outermost = level->interp_id == 0 && i + 1 == levels->count && !levels->is_cut;
        if (stack->is_cut || is_outermost) {
            return true;
        }
        stack->is_cut = stack->count == stack->capacity;
        if (!stack->is_cut) {
            stack->frames[stack->count++] = pyprof__mark(level->interp_id, levels->naming);
        }
    }
    stack->is_cut = stack->is_cut || levels->is_cut;
    return true;
}

// >>handler
// What a thread does that is asked: in the signal handler it copies its own stack, and reads its own clock.
// In: the signal, which carries the index of a request and the number of its question.
// Out: stack, levels, clocks and verdict in that request; the bell is rung for code objects without a known name.
// Who: what is marked "In the handler" runs there only: in any thread, at any moment, also when the recording is over.
// What is marked "By the sampler" does not; the rest may run on both sides.
// Invariants: the handler allocates nothing, takes no lock, waits for nothing, and keeps errno. It reads what its own
// thread holds, which cannot vanish meanwhile, and all else by pyprof__read. It writes to pyprof__handler, and to the
// frames of the request that it has taken, and to nothing of the sampler's; where the system refuses a read it sets
// pyprof__process.reads_refused. A request belongs to one side at a time: to the handler while IN_WORK, else to the
// sampler.
//
// The states of a request, and who takes each step:
//            the sampler asks        a handler begins           it is done
//       FREE ----------------> SENT ------------------> IN_WORK ----------> ANSWERED
//        ^                     |  ^                        ^                   |
//        |         the sampler |  | the sampler            | a handler begins, |
//        |         gives it up v  | asks anew              | and its signal    |
//        |<------------------- CANCELLED ------------------+ has ended a call  |
//        |  a handler begins                                                   |
//        +---------------------------------------------------------------------+
//                                                 the sampler has taken it in
// The sampler makes SENT and CANCELLED FREE where no signal will come: it could not be sent, was discarded, its thread
// has ended, or the recording ends. Once it is sent, both sides may take a step from these two states: so each is one
// compare-and-swap, which succeeds only for the question with that very number.
//
// Begin with pyprof__on_signal, pyprof__answer, pyprof__capture_own, pyprof__find_self; pyprof__request.

/* What one look at a thread comes to: a sample (SAME, SEEN), a request whose answer will be another of these (ASKED),
   or the cause why there is none, which pyprof__lose counts (the others). A handler gives SEEN, LATE or UNSETTLED. */
typedef enum pyprof__verdict {
    PYPROF__SAME,       /* it has not run since its last sample: the stack is that one's */
    PYPROF__SEEN,       /* its stack is known */
    PYPROF__ASKED,      /* it was asked: its answer comes to one of the others */
    PYPROF__PENDING,    /* it has not answered by the next tick, or not as it was asked */
    PYPROF__LATE,       /* when the signal came it no longer ran Python */
    PYPROF__UNSETTLED,  /* it runs Python, and where cannot be told */
    PYPROF__UNREADABLE, /* it is gone, or what belongs to it */
    PYPROF__NO_ROOM     /* memory_limit */
} pyprof__verdict;

/* See the picture above. */
typedef enum pyprof__request_state {
    PYPROF__REQUEST_FREE,
    PYPROF__REQUEST_SENT,
    PYPROF__REQUEST_CANCELLED, /* sent, but no longer of interest */
    PYPROF__REQUEST_IN_WORK,
    PYPROF__REQUEST_ANSWERED /* the handler is through with it */
} pyprof__request_state;

/* A question to one thread, and its answer: a slot of pyprof__handler, used again and again. Each question has a number
   of its own, which its signal carries. So a handler may begin as late as it likes, also after the recording has ended
   and another one has begun: it finds that its question is no longer there. The frames are allocated when a recording
   first needs the slot (pyprof__free_request), and given back when it ends. */
#define PYPROF__STATE_BITS 3u /* of pyprof__request.state, for a pyprof__request_state */
typedef struct pyprof__request {
    pyprof__atomic32 state; /* pyprof__request_state; the bits above are the question's number */
    pyprof__stack stack;
    pyprof__levels levels;   /* as the sampler has seen them; then, the handler's */
    pyprof__verdict verdict; /* of the handler: SEEN (stack and clocks are there), LATE or UNSETTLED */
    int32_t tid;             /* of the thread that is asked */
    int signal_number;       /* by which it was asked */
    uintptr_t borrowed;      /* a thread state of these levels that another thread was seen to run; 0 = none */
    bool ended_call;         /* the signal was seen to end a system call with EINTR */
    bool has_new;            /* there are code objects in the stack whose names are not known */
    bool is_left;            /* the recording ended while this was answered: the frames are for ever the handler's */
    bool is_written_off;     /* and the recording that gave them no longer counts them */
    uint64_t wall;           /* when it was asked, then when the stack was read: monotonic clock, */
    uint64_t cpu;            /* and CPU clock of the thread */
} pyprof__request;

#define PYPROF__REQUESTS_MAX 64u /* threads that can be asked at a time, if there is room (pyprof__requests_most) */
/* The cache of code objects whose names the sampler knows, 64 KiB: of others the handler rings the bell. */
#define PYPROF__KNOWN_SETS 2048u /* a power of two */
#define PYPROF__KNOWN_WAYS 4u

/* What the signal handler works with. It is static and outlives recordings, as a signal may come after the recording
   that sent it, or in a forked child. */
static struct pyprof__handler {
    pyprof__request requests[PYPROF__REQUESTS_MAX];
    uint32_t requests_used;          /* slots behind these were never needed; the sampler's */
    pyprof__layout layout;           /* written before the first signal of a recording */
    pyprof__atomic32 session;        /* odd while something is recorded */
    pyprof__atomic32 running;        /* handlers that have begun and not ended */
    pyprof__atomic32 interrupted;    /* system calls seen to end early */
    pyprof__atomic32 bell;           /* changes, and wakes the sampler: see pyprof__wake */
    int signal_number;               /* the one that asks; 0 = none */
    pyprof__atomic64 taken;          /* signals whose action is ours, or was when it was last looked at */
    struct sigaction previous[NSIG]; /* of these, the host's own actions */
    pyprof__atomic32 at_large;       /* signals that were sent and have not come, when the last recording ended */
    /* fingerprints of code objects whose names are known, by hash; the newest of a set come first */
    pyprof__atomic64 known[PYPROF__KNOWN_SETS][PYPROF__KNOWN_WAYS] PYPROF__ALIGNED(32); /* a set in one cache line */
} pyprof__handler;

/* The upper 16 bits of what our signals carry ("PY"): a signal of the same number that the program queues, with a
   number or an address of its own, does not have them. */
#define PYPROF__QUESTION_TAG 0x5059u

/* A request's state, without the number of its question. */
static uint32_t pyprof__state_of(const pyprof__request *request) {
    return pyprof__get(&request->state) & ((1u << PYPROF__STATE_BITS) - 1);
}

/* Keeps the number. Only for the side that the request belongs to: a plain store would undo a swap of the other one. */
static void pyprof__set_state(pyprof__request *request, pyprof__request_state state) {
    uint32_t number = pyprof__get(&request->state) >> PYPROF__STATE_BITS;
    pyprof__set(&request->state, number << PYPROF__STATE_BITS | (uint32_t)state);
}

/* From one state to another, for the question with this number. False: state or question is another one by now. */
static bool pyprof__pass_state(pyprof__request *request, uint32_t number, pyprof__request_state from,
                               pyprof__request_state to) {
    uint32_t above = number << PYPROF__STATE_BITS;
    return pyprof__swap_if(&request->state, above | (uint32_t)from, above | (uint32_t)to);
}

/* By the sampler, which alone gives numbers: the same for the question that is there. */
static bool pyprof__swap_state(pyprof__request *request, pyprof__request_state from, pyprof__request_state to) {
    return pyprof__pass_state(request, pyprof__get(&request->state) >> PYPROF__STATE_BITS, from, to);
}

/* By the sampler: makes a free request a new question, SENT, with a number that no signal carries yet. */
static void pyprof__number_question(pyprof__request *request) {
    uint32_t number = (pyprof__get(&request->state) >> PYPROF__STATE_BITS) + 1;
    pyprof__set(&request->state, number << PYPROF__STATE_BITS | (uint32_t)PYPROF__REQUEST_SENT);
}

/* By the sampler: what the signal carries. From the top, 16 bits of tag, 16 of index, 32 of number. */
static void *pyprof__question(uint32_t index) {
    uint32_t number = pyprof__get(&pyprof__handler.requests[index].state) >> PYPROF__STATE_BITS;
    return (void *)(uintptr_t)((uint64_t)PYPROF__QUESTION_TAG << 48 | (uint64_t)index << 32 | number);
}

static pyprof__atomic64 *pyprof__known_set(const pyprof__frame *frame) {
    return pyprof__handler.known[pyprof__mix(frame->fingerprint, frame->code) >> 16 & (PYPROF__KNOWN_SETS - 1)];
}

/* Whether the name of a frame's code object is known. A mark has none to learn. What has been displaced from the cache,
   or is stored at this moment, counts as not known: then the bell is rung without need. */
static bool pyprof__knows(const pyprof__frame *frame) {
    const pyprof__atomic64 *set = pyprof__known_set(frame);
    if (pyprof__is_mark(frame)) {
        return true;
    }
    for (uint32_t way = 0; way < PYPROF__KNOWN_WAYS; way++) {
        if (pyprof__get64(&set[way]) == frame->fingerprint) {
            return true;
        }
    }
    return false;
}

static bool pyprof__knows_all(const pyprof__stack *stack) {
    for (uint32_t i = 0; i < stack->count; i++) {
        if (!pyprof__knows(&stack->frames[i])) {
            return false;
        }
    }
    return true;
}

/* By the sampler: puts the code objects of a stack into the cache; the oldest of a full set goes. */
static void pyprof__make_known(const pyprof__stack *stack) {
    for (uint32_t i = 0; i < stack->count; i++) {
        pyprof__atomic64 *set = pyprof__known_set(&stack->frames[i]);
        if (!pyprof__knows(&stack->frames[i])) {
            for (uint32_t way = PYPROF__KNOWN_WAYS - 1; way > 0; way--) {
                pyprof__set64(&set[way], pyprof__get64(&set[way - 1]));
            }
            pyprof__set64(&set[0], stack->frames[i].fingerprint);
        }
    }
}

/* By the sampler, or before it begins: what it has forgotten itself has to be told to it anew. */
static void pyprof__forget_known(void) {
    for (uint32_t set = 0; set < PYPROF__KNOWN_SETS; set++) {
        for (uint32_t way = 0; way < PYPROF__KNOWN_WAYS; way++) {
            pyprof__set64(&pyprof__handler.known[set][way], 0);
        }
    }
}

/* Which thread runs a thread state: the one that asks, another one, or it cannot be told. */
typedef enum pyprof__whose {
    PYPROF__OWN,
    PYPROF__FOREIGN,
    PYPROF__UNCLEAR
} pyprof__whose;

/* In the handler. Where the C stack from an address on ends, but no more than most bytes away. C libraries keep what
   pthread_self points to at the end of the stacks that they make; of the process's first thread it lies elsewhere. */
static uintptr_t pyprof__stack_end(uintptr_t stack, uintptr_t most) {
    uintptr_t own = (uintptr_t)pthread_self();
    return own > stack && own - stack < most ? own : stack + most;
}

/* In the handler, to 3.10. Whether the interrupted thread keeps a word in a register or on its C stack: OWN if it does,
   UNCLEAR if its innermost MiB was searched in vain and it has more. A stack may end at any page, so it is read safely,
   in pieces that lie within one page each. room is the answer's own, in which there are no frames yet. */
static pyprof__whose pyprof__search_stack(const pyprof__stack *room, const void *context, uintptr_t word) {
    const uintptr_t page = 4096, far_away = 1 << 20; /* 4096 divides any page */
    uintptr_t begin = pyprof__interrupted_stack(context) & ~(sizeof word - 1), most = sizeof word;
    uintptr_t end = pyprof__stack_end(begin, far_away);
    while (most < page && 2 * most <= room->capacity * sizeof *room->frames) {
        most *= 2;
    }
    if (pyprof__registers_hold(context, word)) {
        return PYPROF__OWN;
    }
    for (uintptr_t at = begin; at < end;) {
        size_t size = most - at % most;
        if (!pyprof__read(at, room->frames, size)) {
            return PYPROF__FOREIGN; /* here the stack ends */
        }
        for (size_t i = 0; i < size; i += sizeof word) {
            if (memcmp((const char *)room->frames + i, &word, sizeof word) == 0) {
                return PYPROF__OWN;
            }
        }
        at += size;
    }
    return end - begin < far_away ? PYPROF__FOREIGN : PYPROF__UNCLEAR;
}

/* In the handler. Who runs a thread state that has frames and bears the ids of the interrupted thread: these are of the
   thread that made it, and any other may use it since. word is its ts_frame. What runs it keeps something on its own C
   stack: since 3.11 the cframe or the helper frame lies there; before, what evaluates a frame keeps its address. */
static pyprof__whose pyprof__whose_frames(const pyprof__layout *layout, const pyprof__stack *room, const void *context,
                                          uintptr_t word) {
    pyprof__reader safely = {0, 0, 0, 0, NULL};
    uintptr_t stack = pyprof__interrupted_stack(context);
    if (stack == 0) {
        return PYPROF__UNCLEAR;
    }
    if (layout->cframe_frame == PYPROF__ABSENT && layout->helper_code == 0) {
        return pyprof__search_stack(room, context, word);
    }
    uintptr_t entry = pyprof__entry_address(layout, &safely, word);
    if (entry == 0) {
        return PYPROF__UNCLEAR;
    }
    return entry >= stack && entry < pyprof__stack_end(stack, 64 << 20) ? PYPROF__OWN : PYPROF__FOREIGN;
}

/* In the handler. Leaves out the levels further out that another thread runs, and tells of one of them in
   request->borrowed; keeps the ts_frame of the others for pyprof__walk_level. False: it cannot be told. */
static bool pyprof__leave_out_borrowed(const pyprof__layout *layout, const void *context, pyprof__request *request) {
    pyprof__levels *levels = &request->levels;
    for (uint32_t i = 1; i < levels->count;) {
        pyprof__level *level = &levels->items[i];
        if (!pyprof__read(level->tstate + layout->ts_frame, &level->word, sizeof level->word) || level->word == 0) {
            return false;
        }
        pyprof__whose whose = pyprof__whose_frames(layout, &request->stack, context, level->word);
        if (whose == PYPROF__UNCLEAR) {
            return false;
        }
        if (whose == PYPROF__OWN) {
            i++;
            continue;
        }
        request->borrowed = level->tstate;
        memmove(level, level + 1, (levels->count - i - 1) * sizeof *level);
        levels->known = --levels->count;
    }
    return true;
}

/* In the handler: where the thread that was asked is. SEEN: *tstate is its attached thread state, *word what that has
   for its ts_frame, and the levels are up to date. LATE: it runs no Python, another thread does, or its levels cannot
   be followed. UNSETTLED: whose the frames are cannot be told. request->borrowed: one that another thread was seen to
   run, or 0. */
static pyprof__verdict pyprof__find_self(pyprof__request *request, const void *context, uintptr_t *tstate,
                                         uintptr_t *word) {
    const pyprof__layout *layout = &pyprof__handler.layout;
    uintptr_t asked = request->levels.items[0].tstate;
    *tstate = pyprof__current_thread_state();
    request->borrowed = *tstate != asked && pyprof__is_attached_now(layout, asked) ? asked : 0;
    if (*tstate == 0 || !pyprof__is_own_thread_state(layout, *tstate)) {
        return PYPROF__LATE;
    }
    if (layout->ts_status != PYPROF__ABSENT) {
        /* Since 3.12 it is this thread's own, and cannot vanish; before, the process's, which may be freed now. */
        memcpy(word, (const void *)(*tstate + layout->ts_frame), sizeof *word);
    } else if (!pyprof__read(*tstate + layout->ts_frame, word, sizeof *word)) {
        return PYPROF__LATE;
    } else if (pyprof__points_to_frames(layout, *tstate, *word, 0)) {
        pyprof__whose whose = pyprof__whose_frames(layout, &request->stack, context, *word);
        if (whose == PYPROF__FOREIGN) {
            request->borrowed = *tstate;
            return PYPROF__LATE;
        }
        if (whose == PYPROF__UNCLEAR) {
            return PYPROF__UNSETTLED;
        }
    }
    bool is_alone = request->levels.count == 1 && asked == *tstate;
    bool is_found = is_alone || pyprof__follow(layout, &request->levels, *tstate);
    return is_found ? PYPROF__SEEN : PYPROF__LATE;
}

/* In the handler: the stack and the clocks of the thread itself, whose attached thread state cannot vanish, and whose
   frames stand still meanwhile. LATE: nothing was read. UNSETTLED: the clocks only. */
static pyprof__verdict pyprof__capture_own(pyprof__request *request, const void *context) {
    const pyprof__layout *layout = &pyprof__handler.layout;
    uintptr_t tstate = 0, word = 0, leaf = 0;
    pyprof__verdict found = pyprof__find_self(request, context, &tstate, &word);
    if (found == PYPROF__LATE) {
        return found;
    }
    /* The thread ran when it was asked; if that was just now, it has run all the time: no need to ask the kernel. */
    uint64_t now = pyprof__now();
    uint64_t passed = now - request->wall;
    request->cpu = passed < PYPROF__JUST_NOW_NS ? request->cpu + passed : pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    request->wall = now;
    if (found == PYPROF__UNSETTLED || !pyprof__leave_out_borrowed(layout, context, request) ||
        !pyprof__own_leaf_frame(layout, tstate, word, &leaf) || !pyprof__walk(layout, NULL, leaf, &request->stack) ||
        !pyprof__walk_outer(layout, NULL, &request->levels, &request->stack)) {
        return PYPROF__UNSETTLED;
    }
    request->stack.is_in_jit = pyprof__is_in_jit(layout, NULL, tstate);
    return PYPROF__SEEN;
}

/* In the handler: takes a question over from the sampler, which may cancel it and ask it anew at any moment; hence the
   loop. False: there is nothing to answer. Where the signal of a cancelled question has ended a system call, that alone
   is the answer (LATE), so that the ask debt of the thread counts it. */
static bool pyprof__accept(pyprof__request *request, uint32_t number, bool ended_call) {
    const pyprof__request_state if_cancelled = ended_call ? PYPROF__REQUEST_IN_WORK : PYPROF__REQUEST_FREE;
    do {
        if (pyprof__pass_state(request, number, PYPROF__REQUEST_SENT, PYPROF__REQUEST_IN_WORK)) {
            request->ended_call = ended_call;
            return true;
        }
        if (pyprof__pass_state(request, number, PYPROF__REQUEST_CANCELLED, if_cancelled)) {
            if (ended_call) {
                request->ended_call = true;
                request->verdict = PYPROF__LATE;
                pyprof__set_state(request, PYPROF__REQUEST_ANSWERED);
            }
            return false;
        }
    } while (pyprof__get(&request->state) == (number << PYPROF__STATE_BITS | PYPROF__REQUEST_SENT));
    return false;
}

/* In the handler: answers one question, if it is still asked. */
static void pyprof__answer(pyprof__request *request, uint32_t number, bool ended_call, const void *context) {
    if (!pyprof__accept(request, number, ended_call)) {
        return;
    }
    request->verdict = pyprof__capture_own(request, context);
    bool has_new = request->verdict == PYPROF__SEEN && !pyprof__knows_all(&request->stack);
    request->has_new = has_new;
    pyprof__set_state(request, PYPROF__REQUEST_ANSWERED); /* from here on it is the sampler's */
    if (has_new) {
        pyprof__wake(&pyprof__handler.bell); /* before a short-lived code object is gone, and its name with it */
    }
}

/* Whether an action does nothing with the signal; by default that is so for three. */
static bool pyprof__ignores(int number, const struct sigaction *action) {
    bool by_default = number == SIGCHLD || number == SIGURG || number == SIGWINCH;
    return action->sa_handler == SIG_IGN || (action->sa_handler == SIG_DFL && by_default);
}

/* In the handler: gives a signal that is not ours to the action that was there before we came. */
static void pyprof__pass_on(int number, siginfo_t *info, void *context) {
    const struct sigaction *previous = &pyprof__handler.previous[number];
    if (pyprof__ignores(number, previous)) {
        return;
    }
    if (previous->sa_handler == SIG_DFL) {
        sigaction(number, previous, NULL);
        syscall(SYS_tgkill, getpid(), pyprof__tid(), number); /* comes once this handler has returned */
    } else if (previous->sa_flags & SA_SIGINFO) {
        previous->sa_sigaction(number, info, context);
    } else {
        previous->sa_handler(number);
    }
}

static void pyprof__on_signal(int number, siginfo_t *info, void *context);

static bool pyprof__is_our_action(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == pyprof__on_signal;
}

#define PYPROF__ACTION_FLAGS (SA_SIGINFO | SA_RESTART | SA_ONSTACK)

static bool pyprof__has_our_action(int number) {
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && pyprof__is_our_action(&action);
}

/* Puts the host's action back; one that the host has set since stays. Async-signal-safe. */
static void pyprof__put_back(int number) {
    if (pyprof__has_our_action(number)) {
        sigaction(number, &pyprof__handler.previous[number], NULL);
    }
    pyprof__set64(&pyprof__handler.taken, pyprof__get64(&pyprof__handler.taken) & ~pyprof__signal_bit(number));
}

/* In the handler, while nothing is recorded. An action of ours was left in place when a recording ended
   (pyprof__release_signal); once none of our signals is at large any more, the host's is put back. */
static void pyprof__after_late_signal(int number, bool is_ours) {
    uint32_t before = pyprof__get(&pyprof__handler.at_large);
    while (is_ours && before > 0 && !pyprof__swap_if(&pyprof__handler.at_large, before, before - 1)) {
        before = pyprof__get(&pyprof__handler.at_large); /* another handler was quicker */
    }
    if (pyprof__get(&pyprof__handler.at_large) == 0 &&
        (pyprof__get64(&pyprof__handler.taken) & pyprof__signal_bit(number))) {
        pyprof__put_back(number);
    }
}

/* In the handler: what a signal would have carried that came without it; 0 = it is not ours. A user may have so many
   signals under way, in all processes (RLIMIT_SIGPENDING). Beyond, the kernel sends them without what they carry, and
   names nobody as the sender. Then it is the question that this thread was asked last. */
static uint64_t pyprof__question_without_word(int number) {
    int32_t tid = pyprof__tid();
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        const pyprof__request *request = &pyprof__handler.requests[i];
        uint32_t state = pyprof__get(&request->state), question = state >> PYPROF__STATE_BITS;
        uint32_t life = state & ((1u << PYPROF__STATE_BITS) - 1);
        if ((life == PYPROF__REQUEST_SENT || life == PYPROF__REQUEST_CANCELLED) && request->tid == tid &&
            request->signal_number == number) {
            return (uint64_t)PYPROF__QUESTION_TAG << 48 | (uint64_t)i << 32 | question;
        }
    }
    return pyprof__get(&pyprof__handler.at_large) != 0 ? (uint64_t)PYPROF__QUESTION_TAG << 48 : 0;
}

/* The handler. A signal is ours if this process has queued it and it bears the tag, or if it has lost what it carried.
   Ours is answered while something is recorded, else only counted off; any other one goes on to the host's action. The
   count of running handlers is what pyprof__handler_stop waits for, so it is the first thing and nearly the last. */
static void pyprof__on_signal(int number, siginfo_t *info, void *context) {
    int saved_errno = errno;
    uint64_t word = 0;
    pyprof__add(&pyprof__handler.running, 1);
    if (info->si_code == SI_QUEUE && info->si_pid == pyprof__process.pid) {
        word = (uint64_t)(uintptr_t)info->si_value.sival_ptr;
    } else if (info->si_code == SI_USER && info->si_pid == 0) {
        word = pyprof__question_without_word(number);
    }
    bool is_ours = word >> 48 == PYPROF__QUESTION_TAG;
    bool is_recording = pyprof__get(&pyprof__handler.session) & 1;
    if (is_ours) {
        bool ended_call = pyprof__call_was_interrupted(context);
        pyprof__resume_wait(context);
        uint32_t index = (uint32_t)(word >> 32 & 0xffffu), question = (uint32_t)word;
        pyprof__add(&pyprof__handler.interrupted, ended_call);
        if (is_recording && index < PYPROF__REQUESTS_MAX) {
            pyprof__answer(&pyprof__handler.requests[index], question, ended_call, context);
        }
    }
    if (!is_recording) {
        pyprof__after_late_signal(number, is_ours);
    }
    pyprof__add(&pyprof__handler.running, (uint32_t)-1);
    if (!is_ours) {
        pyprof__pass_on(number, info, context);
    }
    errno = saved_errno;
}

// >>signals
// Which signal asks, whose action it has, and how it is given back to the host.
// In: the signal that the host wants, or 0 for one that is free; actions, masks and what is pending.
// Out: pyprof__handler.signal_number, taken and previous; at the end of a recording, the host's own actions.
// Who: the sampler's thread, and who starts a recording or comes out of a fork, under the lock of >>lifecycle. Never
// the handler; much of it opens files below /proc.
// Invariants: as long as a signal of ours may come, its action is ours, unless the host has set another one, which then
// stays; and what the handler uses stays. None of the host's that is pending is discarded, unless this code is to go.
//
// Begin with pyprof__handler_start, pyprof__take_signal, pyprof__free_signal, pyprof__handler_stop.

/* The signals that a thread waits for in sigwait and its kin, which all call rt_sigtimedwait: meanwhile its mask does
   not show them. The file "syscall" has the number of the call and its arguments, of which the first points to the set.
   0 = it does not wait, or cannot be told. */
static uint64_t pyprof__waited_for(int32_t tid) {
    char text[256];
    uint64_t set = 0;
    char *end = text;
    if (pyprof__read_task_file(tid, "syscall", text, sizeof text) > 0 &&
        strtol(text, &end, 10) == SYS_rt_sigtimedwait && end > text) {
        pyprof__read((uintptr_t)strtoull(end, NULL, 16), &set, sizeof set);
    }
    return set;
}

/* Whether a set is so large that its thread blocks signals as such, rather than to have a use for each. */
static bool pyprof__are_most(uint64_t set) {
    return __builtin_popcountll(set) >= 32;
}

/* The signals that tell of a fault in what a thread does itself: they stay open in the handler. */
static uint64_t pyprof__faults(void) {
    return pyprof__signal_bit(SIGSEGV) | pyprof__signal_bit(SIGBUS) | pyprof__signal_bit(SIGILL) |
           pyprof__signal_bit(SIGFPE) | pyprof__signal_bit(SIGTRAP) | pyprof__signal_bit(SIGABRT) |
           pyprof__signal_bit(SIGSYS);
}

/* Not a signal of faults, nor one that cannot be caught, nor SIGCONT, which acts whatever its action is. */
static bool pyprof__signal_is_usable(int number) {
    uint64_t refused =
        pyprof__faults() | pyprof__signal_bit(SIGKILL) | pyprof__signal_bit(SIGSTOP) | pyprof__signal_bit(SIGCONT);
    return number > 0 && number < NSIG && !(refused & pyprof__signal_bit(number));
}

/* The signals that the program has a use for whatever their actions: those that some thread blocks or waits for in
   particular, as who reads them from sigwait or a signalfd does, and those that every thread blocks. A thread that
   blocks most signals wants none, and has a use for none. The sampler's own mask does not count (0 = none yet). */
static uint64_t pyprof__signals_in_use(int32_t sampler) {
    pyprof__tasks tasks;
    pyprof__signals signals;
    uint64_t particular = 0, everywhere = UINT64_MAX;
    pyprof__tasks_open(&tasks);
    for (int32_t tid; (tid = pyprof__tasks_next(&tasks)) != 0;) {
        if (tid != sampler && pyprof__read_signals(tid, &signals)) {
            uint64_t waited_for = tid != pyprof__tid() ? pyprof__waited_for(tid) : 0;
            everywhere &= signals.blocked;
            particular |= pyprof__are_most(signals.blocked) ? 0 : signals.blocked;
            particular |= pyprof__are_most(waited_for) ? 0 : waited_for;
        }
    }
    pyprof__tasks_close(&tasks);
    /* Nobody can block SIGKILL: with that bit, no mask could be read. */
    return everywhere != UINT64_MAX ? particular | everywhere : 0;
}

/* Whether a signal's action, or the host's that ours stands for, is SIG_DFL or SIG_IGN, whichever is wanted. */
static bool pyprof__is_action(int number, void (*wanted)(int)) {
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 &&
           (pyprof__is_our_action(&action) ? pyprof__handler.previous[number].sa_handler == wanted
                                           : action.sa_handler == wanted);
}

/* A signal that nobody has an action for, else one that is ignored; 0 = none. Only those that do nothing by default:
   one of ours that comes when the program has just taken the action away, or calls exec, then harms nobody. Not
   SIGCHLD, which most programs that make processes wait for, nor SIGCONT, which does more than its action. */
static int pyprof__free_signal(int32_t sampler) {
    static const int harmless[] = {SIGURG, SIGWINCH, SIGURG, SIGWINCH};
    uint64_t in_use = pyprof__signals_in_use(sampler);
    for (int i = 0; i < 4; i++) {
        if (!(in_use & pyprof__signal_bit(harmless[i])) && pyprof__is_action(harmless[i], i < 2 ? SIG_DFL : SIG_IGN)) {
            return harmless[i];
        }
    }
    return 0;
}

/* Calls everything that the handler calls. The loader binds a function when it is first called, which takes up to 3 KiB
   of stack: too much for a small stack for signals. The arguments are such that the compiler has to keep each call. */
static void pyprof__bind_functions(void) {
    volatile size_t one = 1;
    char from[2] = {0, 0}, to[2] = {0, 0};
    struct stat status;
    struct sigaction action;
    memcpy(to, from, one);
    memmove(to, to + 1, one);
    memset(to, 0, one);
    volatile uintptr_t id = (uintptr_t)pthread_self() ^ (uintptr_t)getpid() ^ (uintptr_t)pyprof__tid();
    id = id ^ pyprof__current_thread_state() ^ (uintptr_t)PyGILState_GetThisThreadState();
    id = id ^ (uintptr_t)memcmp(to, from, one);
    (void)fstat(-1, &status);
    (void)pread(-1, to, one, 0);
    (void)sigaction(0, NULL, &action);
    errno = 0;
    (void)pyprof__now();
}

/* All signals are masked in the handler but those of faults: a host's crash handler has to hear of one there, too. */
static struct sigaction pyprof__our_action(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = pyprof__on_signal;
    action.sa_flags = PYPROF__ACTION_FLAGS;
    sigfillset(&action.sa_mask);
    for (int number = 1; number < NSIG; number++) {
        if (pyprof__faults() & pyprof__signal_bit(number)) {
            sigdelset(&action.sa_mask, number);
        }
    }
    return action;
}

/* Gives our action its flags again. siginterrupt changes those of the action that is there, but means the program's
   own: so its wish for SA_RESTART goes to the action that is put back. */
static void pyprof__mend_flags(int number, const struct sigaction *changed) {
    struct sigaction action = pyprof__our_action(), *previous = &pyprof__handler.previous[number], now;
    if (sigaction(number, &action, &now) == 0 && !pyprof__is_our_action(&now)) {
        sigaction(number, &now, NULL); /* it has just been given another one */
    } else {
        previous->sa_flags = (previous->sa_flags & ~SA_RESTART) | (changed->sa_flags & SA_RESTART);
    }
}

/* Makes it the signal that asks, and keeps the host's action. False, with errno: it cannot be caught. */
static bool pyprof__take_signal(int number) {
    struct sigaction action = pyprof__our_action(), before;
    pyprof__bind_functions();
    if (sigaction(number, NULL, &before) != 0) {
        return false;
    }
    if (!pyprof__is_our_action(&before)) {
        pyprof__handler.previous[number] = before;
        if (sigaction(number, &action, NULL) != 0) {
            return false;
        }
    }
    pyprof__set64(&pyprof__handler.taken, pyprof__get64(&pyprof__handler.taken) | pyprof__signal_bit(number));
    pyprof__handler.signal_number = number;
    return true;
}

/* Takes the signal that is wanted, or one that is free (0). False: it cannot be had, and pyprof_last_error says why.
   That none is free is no error: then nobody is asked. */
static bool pyprof__handler_start(int wanted) {
    int number = wanted != 0 ? wanted : pyprof__free_signal(0);
    if (number == 0) {
        return true;
    }
    if (!pyprof__signal_is_usable(number)) {
        pyprof__say("signal_number is %d (%s): it has to be one of 1 to %d that can be caught and that does "
                    "not tell of faults, nor stop or continue the process",
                    number, number > 0 && number < NSIG ? strsignal(number) : "no signal", NSIG - 1);
        return false;
    }
    if (!pyprof__take_signal(number)) {
        pyprof__say("signal_number is %d: it cannot be caught: %s", number, strerror(errno));
        return false;
    }
    return true;
}

/* A set of states, a bit each: those of requests whose signal may still come. */
#define PYPROF__OUTSTANDING (1u << PYPROF__REQUEST_SENT | 1u << PYPROF__REQUEST_CANCELLED)

static bool pyprof__any_request(uint32_t states) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        if (states >> pyprof__state_of(&pyprof__handler.requests[i]) & 1) {
            return true;
        }
    }
    return false;
}

/* Whether a handler is answering, or has not returned yet. */
static bool pyprof__any_at_work(void) {
    return pyprof__any_request(1u << PYPROF__REQUEST_IN_WORK) || pyprof__get(&pyprof__handler.running) != 0;
}

static bool pyprof__is_outstanding(const pyprof__request *request) {
    return PYPROF__OUTSTANDING >> pyprof__state_of(request) & 1;
}

/* Makes an outstanding request free, whatever becomes of its signal. False: it was not outstanding any more. */
static bool pyprof__take_back(pyprof__request *request) {
    return pyprof__swap_state(request, PYPROF__REQUEST_SENT, PYPROF__REQUEST_FREE) ||
           pyprof__swap_state(request, PYPROF__REQUEST_CANCELLED, PYPROF__REQUEST_FREE);
}

/* Frees the requests to threads that have ended: no signal will come. */
static void pyprof__drop_dead_requests(void) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__is_outstanding(request) && !pyprof__thread_lives(request->tid)) {
            pyprof__take_back(request);
        }
    }
}

static void pyprof__sleep_ns(long nanoseconds) {
    struct timespec time = {0, nanoseconds};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* Whether the signal of a request is pending for a thread that blocks it: then waiting for it is in vain. */
static bool pyprof__is_held_up(const pyprof__request *request) {
    pyprof__signals signals;
    uint64_t bit = pyprof__signal_bit(request->signal_number);
    return pyprof__read_signals(request->tid, &signals) && (signals.pending & bit) && (signals.blocked & bit);
}

/* Whether the signal of some request is still on its way to a thread that lets it in. */
static bool pyprof__any_on_its_way(void) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        const pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__is_outstanding(request) && !pyprof__is_held_up(request)) {
            return true;
        }
    }
    return false;
}

/* Waits until no signal is on its way and no handler is at work, but not for ever: 20 ms and 100 ms, or 2 s each if the
   code is about to go (at_once). Threads answer within microseconds, unless they block the signal, have ended, or are
   not let on a core. */
static void pyprof__await_handlers(bool at_once) {
    const int some = 20, enough = 200, if_at_work = 1000, if_code_goes = 20000; /* of 100 us */
    int patience = at_once ? if_code_goes : enough;
    for (int i = 0; i < patience && pyprof__any_request(PYPROF__OUTSTANDING); i++) {
        pyprof__drop_dead_requests();
        if (i % some == some - 1 && !pyprof__any_on_its_way()) {
            break;
        }
        pyprof__sleep_ns(100000);
    }
    patience = at_once ? if_code_goes : if_at_work;
    for (int i = 0; i < patience && pyprof__any_at_work(); i++) {
        pyprof__sleep_ns(100000);
    }
}

/* Whether what is pending for a thread may be a signal of somebody else's: not if one of ours has not come, as of an
   ordinary signal one at most is pending. Of a real-time signal there may be several, so that cannot be told. */
static bool pyprof__is_foreign_pending(int32_t tid, int number) {
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX && number < SIGRTMIN; i++) {
        const pyprof__request *request = &pyprof__handler.requests[i];
        if (request->tid == tid && request->signal_number == number && pyprof__is_outstanding(request)) {
            return false;
        }
    }
    return true;
}

/* Whether a pending signal that may not be ours would be lost with its action: POSIX has those discarded that come to
   be ignored, and the host's action may be to ignore it. */
static bool pyprof__would_discard(int number) {
    pyprof__tasks tasks;
    pyprof__signals signals;
    uint64_t bit = pyprof__signal_bit(number);
    bool would = false;
    pyprof__tasks_open(&tasks);
    for (int32_t tid; !would && (tid = pyprof__tasks_next(&tasks)) != 0;) {
        would =
            pyprof__read_signals(tid, &signals) &&
            ((signals.process_pending & bit) || ((signals.pending & bit) && pyprof__is_foreign_pending(tid, number)));
    }
    pyprof__tasks_close(&tasks);
    return would;
}

/* Discards what is pending of a signal, in every thread, by ignoring it for a moment (POSIX), and takes back the
   questions that were held up. That none of the host's goes with it, the caller sees to. */
static void pyprof__discard(int number) {
    struct sigaction action, own;
    bool is_held_up[PYPROF__REQUESTS_MAX];
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        const pyprof__request *request = &pyprof__handler.requests[i];
        is_held_up[i] =
            pyprof__is_outstanding(request) && request->signal_number == number && pyprof__is_held_up(request);
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN;
    if (sigaction(number, &action, &own) != 0) {
        return;
    }
    sigaction(number, &own, NULL);
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        if (is_held_up[i]) {
            pyprof__take_back(&pyprof__handler.requests[i]);
        }
    }
}

/* Puts the host's action back. Unless the code is about to go, that waits while a signal is pending that would be lost,
   or that would end the process: then the handler puts it back once that has come, or the next recording takes over. */
static void pyprof__release_signal(int number, bool at_once) {
    if (pyprof__has_our_action(number)) {
        bool would_discard = pyprof__would_discard(number);
        if (would_discard && !at_once) {
            return;
        }
        if (would_discard || pyprof__any_request(PYPROF__OUTSTANDING)) {
            pyprof__discard(number);
        }
    }
    pyprof__put_back(number);
}

/* Frees a request that was IN_WORK when its recording ended, and is answered by now. The frames cannot be given back:
   the memory that they came from is gone. */
static void pyprof__release_left(pyprof__request *request) {
    request->stack.frames = NULL;
    request->is_left = request->is_written_off = false;
    pyprof__set_state(request, PYPROF__REQUEST_FREE);
}

/* Ends what the handler has to do with a recording; at_once: its code is about to go. What was asked is taken back;
   what is being answered is left to its handler, with its frames. However late one comes, it finds pyprof__handler. */
static void pyprof__handler_stop(bool at_once) {
    uint32_t at_large = 0;
    pyprof__await_handlers(at_once);
    for (int number = 1; number < NSIG; number++) {
        if (pyprof__get64(&pyprof__handler.taken) & pyprof__signal_bit(number)) {
            pyprof__release_signal(number, at_once);
        }
    }
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        at_large += pyprof__take_back(request);
        request->is_left = request->is_left || pyprof__state_of(request) == PYPROF__REQUEST_IN_WORK;
    }
    pyprof__set(&pyprof__handler.at_large, at_large);
    pyprof__handler.signal_number = 0;
}

/* Whether some handler may still begin, or has not ended: then its code has to stay loaded. */
static bool pyprof__is_handler_awaited(void) {
    return pyprof__get(&pyprof__handler.at_large) != 0 || pyprof__get64(&pyprof__handler.taken) != 0 ||
           pyprof__any_at_work();
}

#endif /* PYPROF_NO_RECORDING */

// >>profile
// The calling-context tree and the time line: what a recording has gathered, and all that an output needs.
// In: nodes below nodes, and spans of time and samples for them.
// Out: the same, to whoever walks it (>>shown, >>writers). It knows nothing of CPython, and of threads the names.
// Who: the sampler's thread, under its lock; others under that lock only to bring parked threads up to date
// (pyprof__settle_waiting), and to copy. A profile that was given to the host belongs to whoever has it, and is only
// read. Never the handler.
// Invariants: items refer to each other by index, and none is ever removed from the tree: so an index stays good. A
// node comes after its parent. The sums of a node are of stacks that end there. A track's spans leave no gap of time.
//
//   strings <-- functions <-- nodes: parent, line, sums <-- spans: node, kind, time, next
//      ^    name, file        a root has a track for its line          |
//      |                                                               |
//      +---- tracks: name, root, first and last span <-----------------+
//
// Begin with the structs; pyprof__child (the tree grows), pyprof__take_track, pyprof__add_time (both grow).

/* The kind of a span of time: with the GIL, idle, away from Python; 0 = the thread ran without the GIL. */
enum {
    PYPROF__GIL = 1,
    PYPROF__IDLE = 2,
    PYPROF__AWAY = 4
};

/* A text that was interned: the same text is the same string. Its bytes are in pyprof_profile.bytes. */
typedef struct pyprof__string {
    uint64_t hash[2]; /* the key, with size: 128 bits stand for the text, which is not compared itself */
    uint32_t size;
    uint32_t offset; /* of its first byte; behind the last one is a zero byte */
} pyprof__string;

/* A function of the program; all of it is its key, so that code objects that agree in it are one. Or a marker, which
   has a name only: [truncated], an interpreter. */
typedef struct pyprof__function {
    uint32_t name; /* string */
    uint32_t file; /* string; empty: it is a marker */
    int32_t first_line;
} pyprof__function;

/* A line of a function as called by its parent, or the root of a track. The first three fields are its key: see
   pyprof__place. Times are in nanoseconds. */
typedef struct pyprof__node {
    uint32_t parent;       /* PYPROF__NONE: the root of a track */
    uint32_t function;     /* of a root: PYPROF__NONE */
    int32_t line;          /* of a root: the track */
    uint32_t track;        /* only in profiles that were made by pyprof_make: whose node it is */
    uint64_t samples;      /* this and all below are of stacks that end here */
    uint64_t samples_idle; /* of the samples, those of kind PYPROF__IDLE */
    uint64_t wall_ns;      /* idle time included */
    uint64_t wall_idle_ns;
    uint64_t cpu_ns;
    uint64_t gil_ns; /* wall time with the GIL */
} pyprof__node;

/* A thread's time line; or that of several of one name, one after the other: who comes goes on with the track of one
   that has ended, so that threads without end need no more tracks than live at a time. */
typedef struct pyprof__track {
    uint32_t name;      /* string */
    bool is_named;      /* by the host, by Python, as the main thread, or for several; else the name is the system's */
    bool is_free;       /* its thread has ended, or has gone to another track */
    bool wants_gil;     /* of a dump: it waits for the GIL */
    bool is_shared;     /* it has or had more than one thread, or is for such: its name stays */
    int32_t tid;        /* of the first one */
    uint32_t root;      /* node */
    uint32_t truncated; /* node for what the full tree cannot take */
    uint32_t first;     /* span; PYPROF__NONE: there is none */
    uint32_t last;      /* span, likewise */
    uint64_t end_ns;    /* how far the time line reaches, since the recording began */
    uint32_t process;   /* string: the program of its process; 0 = the profile is of one process, and no other string */
    int32_t pid;        /* of that process */
} pyprof__track;

/* A stretch of the time of one track in which stack and kind stayed the same. */
typedef struct pyprof__span {
    uint64_t wall_ns;
    uint64_t cpu_ns;
    uint32_t node;
    uint32_t samples;
    uint32_t next;           /* of the same track; PYPROF__NONE: it is the last */
    uint32_t track_and_kind; /* track * 8 + PYPROF__GIL ... */
} pyprof__span;

static uint32_t pyprof__span_kind(const pyprof__span *span) {
    return span->track_and_kind & 7u;
}

/* Of a profile that is copied in pieces, while it grows: what of the pieces taken is not as it was. New items are not
   noted, as whoever copies sees by their number that they are there; and texts and functions never change. */
typedef struct pyprof__copying {
    pyprof__changes nodes, spans;
} pyprof__copying;

/* Made by pyprof_start, and filled until pyprof_stop gives it to the host; or a copy, made by pyprof_snapshot. All that
   it holds is from its own memory, within a budget that it shares with its copies. */
struct pyprof_profile {
    pyprof__memory memory;
    pyprof_logger logger;
    uint32_t process_name; /* what the system calls threads that nobody named */
    uint32_t names_limit;  /* so many threads have names and tracks of their own: see pyprof__thread_name */
    uint32_t names_count;  /* names that were added for threads, patterns included */
    pyprof__array bytes;   /* of all strings */
    pyprof__table strings;
    pyprof__table functions;
    pyprof__table nodes;
    pyprof__array tracks;
    pyprof__array timeline;      /* spans, in the order in which they began */
    uint64_t timeline_coarsened; /* how often its resolution was lowered */
    uint64_t samples_jit;
    uint64_t duration_ns;
    uint64_t epoch_ns; /* wall-clock time of the start, since 1970 */
    uint32_t interval_us;
    pyprof_stats stats; /* as they were when it was given away, or saved */
    bool is_made;       /* by pyprof_make */
    pyprof_kind kind;
    uint64_t sampling_bytes;
    pyprof__array samples; /* of pyprof_heap_sample, whose node is one of these; empty where nobody asked for them */
    uint32_t program;      /* string: path of what the process executes */
    uint32_t python;       /* string: version of CPython */
    uint32_t unresolved;   /* functions: the markers that stand for what cannot be told */
    uint32_t truncated;
    uint32_t unsettled;
    bool has_short_paths;     /* relative paths are already the ends by which others were shown: they stay */
    pyprof__copying *copying; /* NULL = nobody copies it in pieces */
    /* The last one, as all before it is copied at once while others may add to it. */
    pyprof__atomic64 kept; /* address of a pyprof__kept_text, the first of a list that only grows; 0 = there is none */
};

/* Whether the values of a metric are times: in nanoseconds, and in microseconds where a format wants short ones. */
static bool pyprof__is_time(const pyprof_profile *profile, pyprof_metric metric) {
    return profile->kind == PYPROF_KIND_TIME && metric != PYPROF_METRIC_SAMPLES;
}

/* What they count where they are no times. */
static const char *pyprof__counted(const pyprof_profile *profile, pyprof_metric metric) {
    bool is_space = metric == PYPROF_METRIC_INUSE_SPACE || metric == PYPROF_METRIC_ALLOC_SPACE;
    return profile->kind == PYPROF_KIND_TIME ? "samples" : is_space ? "bytes" : "objects";
}

static uint64_t pyprof__min64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void pyprof__profile_init(pyprof_profile *profile, const pyprof__memory *memory) {
    memset(profile, 0, sizeof *profile);
    profile->memory = *memory;
    profile->bytes.item_size = 1;
    profile->tracks.item_size = sizeof(pyprof__track);
    profile->timeline.item_size = sizeof(pyprof__span);
    profile->samples.item_size = sizeof(pyprof_heap_sample);
    profile->names_limit = (uint32_t)pyprof__min64(memory->limit / 65536, 1u << 20);
    pyprof__table_init(&profile->strings, sizeof(pyprof__string), offsetof(pyprof__string, offset));
    pyprof__table_init(&profile->functions, sizeof(pyprof__function), sizeof(pyprof__function));
    pyprof__table_init(&profile->nodes, sizeof(pyprof__node), offsetof(pyprof__node, track));
}

/* A text that was not recorded, as "[json]", which a filter makes, but that is given out with the promise to live as
   long as the profile. */
typedef struct pyprof__kept_text {
    uint64_t next; /* address of the next; 0 = it is the last */
    size_t size;   /* of the text, which follows, and a zero behind it */
} pyprof__kept_text;

static const pyprof__kept_text *pyprof__find_kept(uint64_t first, const char *text, size_t size) {
    for (uint64_t at = first; at != 0;) {
        const pyprof__kept_text *known = (const pyprof__kept_text *)(uintptr_t)at;
        if (known->size == size && memcmp(known + 1, text, size) == 0) {
            return known;
        }
        at = known->next;
    }
    return NULL;
}

/* Adds a text to a profile that is nobody's to change but in this list, which several may extend at once. That two add
   the same one does no harm. memory: an account of the caller's, within the profile's budget. False: no room. */
static bool pyprof__keep_text(const pyprof_profile *profile, pyprof__memory *memory, const char *text, size_t size) {
    pyprof__atomic64 *list = (pyprof__atomic64 *)(uintptr_t)&profile->kept;
    uint64_t first = pyprof__get64(list);
    if (pyprof__find_kept(first, text, size) != NULL) {
        return true;
    }
    pyprof__kept_text *kept = (pyprof__kept_text *)pyprof__alloc(memory, sizeof *kept + size + 1);
    if (kept == NULL) {
        return false;
    }
    kept->size = size;
    memcpy(kept + 1, text, size);
    ((char *)(kept + 1))[size] = '\0';
    do {
        kept->next = first;
    } while (!__atomic_compare_exchange_n(&list->value, &first, (uint64_t)(uintptr_t)kept, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return true;
}

/* Each has been allocated with another account, so it is freed with one that has just it. */
static void pyprof__free_kept(pyprof_profile *profile) {
    pyprof__kept_text *next;
    for (uint64_t at = pyprof__get64(&profile->kept); at != 0; at = (uint64_t)(uintptr_t)next) {
        pyprof__kept_text *kept = (pyprof__kept_text *)(uintptr_t)at;
        size_t size = sizeof *kept + kept->size + 1;
        pyprof__memory memory = {profile->memory.allocator, SIZE_MAX, size, 0, 0, profile->memory.budget};
        next = (pyprof__kept_text *)(uintptr_t)kept->next;
        pyprof__release(&memory, kept, size);
    }
    pyprof__set64(&profile->kept, 0);
}

/* Gives back what a profile holds, but not the struct. */
static void pyprof__profile_clear(pyprof_profile *profile) {
    pyprof__free_kept(profile);
    pyprof__array_free(&profile->memory, &profile->bytes);
    pyprof__table_free(&profile->memory, &profile->strings);
    pyprof__table_free(&profile->memory, &profile->functions);
    pyprof__table_free(&profile->memory, &profile->nodes);
    pyprof__array_free(&profile->memory, &profile->tracks);
    pyprof__array_free(&profile->memory, &profile->timeline);
    pyprof__array_free(&profile->memory, &profile->samples);
}

/* At the end of a recording: nothing is looked up in it any more, and that room serves better for writing it. */
static void pyprof__profile_seal(pyprof_profile *profile) {
    pyprof__table *tables[] = {&profile->strings, &profile->functions, &profile->nodes};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        pyprof__release(&profile->memory, tables[i]->slots, tables[i]->slot_count * sizeof(pyprof__slot));
        tables[i]->slots = NULL;
        tables[i]->slot_count = 0;
    }
}

static void pyprof__note_node(pyprof_profile *profile, uint32_t node) {
    if (profile->copying != NULL) {
        pyprof__note_change(&profile->copying->nodes, node);
    }
}

static void pyprof__note_span(pyprof_profile *profile, uint32_t span) {
    if (profile->copying != NULL) {
        pyprof__note_change(&profile->copying->spans, span);
    }
}

/* Two hashes of different kinds: that two texts agree in both is not reckoned with. */
static void pyprof__hash_text(const char *text, size_t size, uint64_t hash[2]) {
    hash[0] = 1;
    hash[1] = 0;
    for (size_t i = 0; i < size; i++) {
        hash[0] = pyprof__mix(hash[0], (unsigned char)text[i]);
        hash[1] = (hash[1] ^ (unsigned char)text[i]) * 0x100000001b3u;
    }
}

static pyprof__string pyprof__string_key(const char *text, size_t size) {
    pyprof__string key;
    memset(&key, 0, sizeof key);
    key.size = (uint32_t)size;
    pyprof__hash_text(text, size, key.hash);
    return key;
}

/* The string for a text; PYPROF__NONE = it was never interned. */
static uint32_t pyprof__find_text(const pyprof_profile *profile, const char *text, size_t size) {
    pyprof__string key = pyprof__string_key(text, size);
    return pyprof__table_find(&profile->strings, &key, pyprof__hash(&key, profile->strings.key_size));
}

/* The string for a text, added if it is new; PYPROF__NONE = no room. */
static uint32_t pyprof__intern_text(pyprof_profile *profile, const char *text, size_t size) {
    bool is_new;
    uint32_t known = pyprof__find_text(profile, text, size);
    if (known != PYPROF__NONE ||
        !pyprof__array_reserve(&profile->memory, &profile->bytes, profile->bytes.count + size + 1)) {
        return known;
    }
    pyprof__string key = pyprof__string_key(text, size);
    uint32_t string = pyprof__table_intern(&profile->memory, &profile->strings, &key, &is_new);
    if (is_new) {
        PYPROF__ITEM(pyprof__string, &profile->strings.items, string).offset = profile->bytes.count;
        char *end = (char *)profile->bytes.data + profile->bytes.count;
        memcpy(end, text, size);
        end[size] = '\0';
        profile->bytes.count += (uint32_t)size + 1;
    }
    return string;
}

/* A string's text, which ends in a zero byte. Good until the next one is interned, as that may move it. */
static const char *pyprof__string_text(const pyprof_profile *profile, uint32_t string, size_t *size) {
    const pyprof__string *item = &PYPROF__ITEM(const pyprof__string, &profile->strings.items, string);
    *size = item->size;
    return item->size > 0 ? (const char *)profile->bytes.data + item->offset : "";
}

/* PYPROF__NONE: no room, or there was none for the name or the file before. */
static uint32_t pyprof__intern_function(pyprof_profile *profile, uint32_t name, uint32_t file, int32_t first_line) {
    pyprof__function key = {name, file, first_line};
    bool is_new;
    bool has_both = name != PYPROF__NONE && file != PYPROF__NONE;
    return has_both ? pyprof__table_intern(&profile->memory, &profile->functions, &key, &is_new) : PYPROF__NONE;
}

static const pyprof__function *pyprof__function_at(const pyprof_profile *profile, uint32_t function) {
    return &PYPROF__ITEM(const pyprof__function, &profile->functions.items, function);
}

/* A function that stands for what is no function: [truncated], [interpreter 1]. */
static uint32_t pyprof__intern_marker(pyprof_profile *profile, const char *name) {
    uint32_t text = pyprof__intern_text(profile, name, strlen(name));
    return pyprof__intern_function(profile, text, pyprof__intern_text(profile, "", 0), 0);
}

/* The path of what the process executes, for the profile; where it cannot be read, the process's name. PYPROF__NONE: no
   room. */
static uint32_t pyprof__intern_program(pyprof_profile *profile) {
    char path[PYPROF__PATH_SIZE];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path);
    return size > 0 ? pyprof__intern_text(profile, path, (size_t)size) : profile->process_name;
}

/* The markers that every profile has. False: no room. */
static bool pyprof__intern_markers(pyprof_profile *profile) {
    profile->truncated = pyprof__intern_marker(profile, "[truncated]");
    profile->unresolved = pyprof__intern_marker(profile, "[unresolved]");
    profile->unsettled = pyprof__intern_marker(profile, "[unsettled]");
    return profile->truncated != PYPROF__NONE && profile->unresolved != PYPROF__NONE &&
           profile->unsettled != PYPROF__NONE;
}

/* The key of a node. */
typedef struct pyprof__place {
    uint32_t parent;
    uint32_t function;
    int32_t line;
} pyprof__place;

/* Room for one more node, and for so many more that are kept for what has to be there when the tree is full:
   [truncated] nodes, and roots. Where the table cannot grow any more, a part of its room is left. */
static bool pyprof__has_room_for_node(pyprof_profile *profile, size_t kept) {
    pyprof__table *nodes = &profile->nodes;
    return pyprof__table_reserve(&profile->memory, nodes, 1 + kept) &&
           pyprof__array_reserve(&profile->memory, &nodes->items, nodes->items.count + 1 + kept);
}

/* As pyprof__child, but also from the room that is kept. */
static uint32_t pyprof__vital_child(pyprof_profile *profile, uint32_t parent, uint32_t function, int32_t line) {
    pyprof__place place = {parent, function, line};
    bool is_new;
    return pyprof__table_intern(&profile->memory, &profile->nodes, &place, &is_new);
}

/* The node for a line of a function below another; PYPROF__NONE = the tree is full. */
static uint32_t pyprof__child(pyprof_profile *profile, uint32_t parent, uint32_t function, int32_t line) {
    pyprof__place place = {parent, function, line};
    uint32_t known = pyprof__table_find(&profile->nodes, &place, pyprof__hash(&place, sizeof place));
    if (known != PYPROF__NONE || !pyprof__has_room_for_node(profile, 16 + profile->nodes.items.count / 8)) {
        return known;
    }
    return pyprof__vital_child(profile, parent, function, line);
}

static pyprof__node *pyprof__node_at(const pyprof_profile *profile, uint32_t node) {
    return &PYPROF__ITEM(pyprof__node, &profile->nodes.items, node);
}

/* The node that stands for frames that the tree has no room for: [truncated] below the last frame that has a node. If
   there is no room for even that, the one below the innermost of its callers that has one; the root always does. */
static uint32_t pyprof__truncated_below(pyprof_profile *profile, uint32_t node) {
    pyprof__place place = {node, profile->truncated, 0};
    if (pyprof__node_at(profile, node)->function == profile->truncated) {
        return node;
    }
    uint32_t below = PYPROF__NONE;
    if (pyprof__has_room_for_node(profile, 8 + profile->nodes.items.count / 64)) {
        below = pyprof__vital_child(profile, node, profile->truncated, 0);
    }
    while (below == PYPROF__NONE && place.parent != PYPROF__NONE) {
        below = pyprof__table_find(&profile->nodes, &place, pyprof__hash(&place, sizeof place));
        place.parent = pyprof__node_at(profile, place.parent)->parent;
    }
    return below;
}

static pyprof__track *pyprof__track_at(const pyprof_profile *profile, uint32_t track) {
    return &PYPROF__ITEM(pyprof__track, &profile->tracks, track);
}

/* A new track, with its root and the [truncated] node below that; PYPROF__NONE = no room. */
static uint32_t pyprof__add_track(pyprof_profile *profile, int32_t tid, uint32_t name) {
    uint32_t index = name == PYPROF__NONE ? name : pyprof__array_add(&profile->memory, &profile->tracks);
    if (index == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    uint32_t root = pyprof__vital_child(profile, PYPROF__NONE, PYPROF__NONE, (int32_t)index);
    uint32_t truncated = root == PYPROF__NONE ? root : pyprof__vital_child(profile, root, profile->truncated, 0);
    if (truncated == PYPROF__NONE) {
        profile->tracks.count--;
        return PYPROF__NONE;
    }
    pyprof__track *track = pyprof__track_at(profile, index);
    track->name = name;
    track->tid = tid;
    track->root = root;
    track->truncated = truncated;
    track->first = track->last = PYPROF__NONE;
    return index;
}

/* The string for a name, which is added if fewer than most were before; else, or without room, PYPROF__NONE. */
static uint32_t pyprof__limited_name(pyprof_profile *profile, const char *text, size_t size, uint32_t most) {
    uint32_t name = pyprof__find_text(profile, text, size);
    if (name != PYPROF__NONE || profile->names_count >= most) {
        return name;
    }
    profile->names_count++;
    return pyprof__intern_text(profile, text, size);
}

/* The name that threads share whose names differ in digits only: "Thread-12 (work)" and "Thread-7 (work)" are "Thread-*
   (work)", and those that only their ids tell apart, "game (4711)", are "game (*)". PYPROF__NONE: there are too many,
   or no room. */
static uint32_t pyprof__name_pattern(pyprof_profile *profile, const char *text, size_t size, bool is_named) {
    char pattern[256];
    size_t out = 0;
    for (size_t i = 0; i < size && out + sizeof " (*)" < sizeof pattern; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        if (!is_digit || out == 0 || pattern[out - 1] != '*') {
            pattern[out++] = is_digit ? '*' : text[i];
        }
    }
    if (!is_named) {
        memcpy(pattern + out, " (*)", 4);
        out += 4;
    }
    return pyprof__limited_name(profile, pattern, out, 2 * profile->names_limit);
}

/* The string for a thread's name. Threads without end may have names without end: beyond a number of them those that
   differ in digits only are one; *is_pattern tells. PYPROF__NONE: there are too many of these, too, or no room. */
static uint32_t pyprof__thread_name(pyprof_profile *profile, const char *text, size_t size, bool is_named,
                                    bool *is_pattern) {
    bool is_full = profile->names_count >= profile->names_limit;
    uint32_t name = pyprof__limited_name(profile, text, size, profile->names_limit);
    *is_pattern = is_full && name == PYPROF__NONE;
    return *is_pattern ? pyprof__name_pattern(profile, text, size, is_named) : name;
}

/* A track of this name whose thread has ended by now_ns (since the recording began), else a new one if there are fewer
   than most; PYPROF__NONE = neither. A track with the system's name is for the same id only. */
static uint32_t pyprof__track_of_name(pyprof_profile *profile, int32_t tid, uint32_t name, bool is_named,
                                      uint64_t now_ns, uint32_t most) {
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__track *track = pyprof__track_at(profile, i);
        if (track->is_free && track->name == name && track->is_named == is_named && (is_named || track->tid == tid) &&
            track->end_ns <= now_ns) {
            track->is_free = false;
            track->is_shared = true;
            return i;
        }
    }
    uint32_t index = profile->tracks.count < most ? pyprof__add_track(profile, tid, name) : PYPROF__NONE;
    if (index != PYPROF__NONE) {
        pyprof__track_at(profile, index)->is_named = is_named;
    }
    return index;
}

/* A track for several threads; PYPROF__NONE = no room, or there is no name. */
static uint32_t pyprof__shared_track(pyprof_profile *profile, uint32_t name, uint64_t now_ns, uint32_t most) {
    uint32_t track = name == PYPROF__NONE ? name : pyprof__track_of_name(profile, 0, name, true, now_ns, most);
    if (track != PYPROF__NONE) {
        pyprof__track_at(profile, track)->is_shared = true;
    }
    return track;
}

/* The track for a thread that comes, or that has another name now: its own, as long as there are few; else one for
   those whose names differ in digits only, or for any. PYPROF__NONE = no room. */
static uint32_t pyprof__take_track(pyprof_profile *profile, int32_t tid, const char *text, size_t size, bool is_named,
                                   uint64_t now_ns) {
    static const char several[] = "[several threads]";
    bool is_pattern = false;
    uint32_t limit = profile->names_limit, track = PYPROF__NONE;
    uint32_t name = pyprof__thread_name(profile, text, size, is_named, &is_pattern);
    if (name != PYPROF__NONE && !is_pattern) {
        track = pyprof__track_of_name(profile, tid, name, is_named, now_ns, limit);
        name = track == PYPROF__NONE ? pyprof__name_pattern(profile, text, size, is_named) : name;
    }
    if (track == PYPROF__NONE) {
        track = pyprof__shared_track(profile, name, now_ns, 2 * limit);
    }
    if (track == PYPROF__NONE) {
        name = pyprof__intern_text(profile, several, sizeof several - 1);
        track = pyprof__shared_track(profile, name, now_ns, PYPROF__NONE);
    }
    return track;
}

/* Its thread has ended, or goes on with another track: who comes may take it. */
static void pyprof__leave_track(pyprof_profile *profile, uint32_t track) {
    pyprof__track_at(profile, track)->is_free = true;
}

/* Makes every track one without spans; the spans themselves stay. */
static void pyprof__unlink_timeline(pyprof_profile *profile) {
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__track_at(profile, i)->first = pyprof__track_at(profile, i)->last = PYPROF__NONE;
    }
}

/* Makes a span the last one of its track. */
static void pyprof__link_span(pyprof_profile *profile, uint32_t index) {
    pyprof__span *items = (pyprof__span *)profile->timeline.data;
    pyprof__track *track = pyprof__track_at(profile, items[index].track_and_kind / 8);
    items[index].next = PYPROF__NONE;
    uint32_t *link = track->last == PYPROF__NONE ? &track->first : &items[track->last].next;
    *link = index;
    if (track->last != PYPROF__NONE) {
        pyprof__note_span(profile, track->last);
    }
    track->last = index;
}

/* Halves the resolution: merges neighbours of a track two by two, and the longer one lends its stack. Spans of
   different kinds stay apart, so that idle time stays idle, unless any_kind. Sums of nodes are not touched, so they
   stay exact. The first loop packs the spans, with each track's last one as the first of a pair that is still open. */
static void pyprof__coarsen(pyprof_profile *profile, bool any_kind) {
    pyprof__span *items = (pyprof__span *)profile->timeline.data;
    uint32_t count = profile->timeline.count, kept = 0;
    pyprof__unlink_timeline(profile);
    for (uint32_t i = 0; i < count; i++) {
        pyprof__span item = items[i];
        pyprof__track *track = pyprof__track_at(profile, item.track_and_kind / 8);
        pyprof__span *last = track->last == PYPROF__NONE ? NULL : &items[track->last];
        if (last != NULL && (any_kind || last->track_and_kind == item.track_and_kind)) {
            if (item.wall_ns > last->wall_ns) {
                last->node = item.node;
                last->track_and_kind = item.track_and_kind;
            }
            last->wall_ns += item.wall_ns;
            last->cpu_ns += item.cpu_ns;
            last->samples += item.samples;
            track->last = PYPROF__NONE; /* the next one begins a new pair */
        } else {
            track->last = kept;
            items[kept++] = item;
        }
    }
    profile->timeline.count = kept;
    pyprof__unlink_timeline(profile);
    for (uint32_t i = 0; i < kept; i++) {
        pyprof__link_span(profile, i);
    }
    if (profile->copying != NULL) {
        pyprof__note_all_changed(&profile->copying->spans);
    }
}

/* Makes room for so many more spans, in the 3/16 of the memory limit that the time line takes at most. False: as it is,
   it may not grow so far. */
static bool pyprof__timeline_has_room(pyprof_profile *profile, size_t more) {
    pyprof__array *timeline = &profile->timeline;
    size_t most = profile->memory.limit / 16 * 3 / sizeof(pyprof__span), count = timeline->count + more;
    while (timeline->capacity < count && timeline->capacity < most) {
        size_t doubled = timeline->capacity == 0 ? 32 : 2 * (size_t)timeline->capacity;
        if (!pyprof__array_resize(&profile->memory, timeline, pyprof__min64(doubled, most))) {
            break;
        }
    }
    return count <= timeline->capacity;
}

/* Room for one more span. Where the time line is full it is made coarser, and if merging within kinds frees less than a
   quarter, across them. False: there is no room for a time line at all. */
static bool pyprof__timeline_reserve(pyprof_profile *profile) {
    if (pyprof__timeline_has_room(profile, 1)) {
        return true;
    }
    if (profile->timeline.count < 16) {
        return false;
    }
    uint32_t before = profile->timeline.count;
    profile->timeline_coarsened++;
    pyprof__coarsen(profile, false);
    if (profile->timeline.count > before - before / 4) {
        pyprof__coarsen(profile, true);
    }
    return profile->timeline.count < profile->timeline.capacity;
}

/* Adds time and samples to the end of a track: to its last span, if node and kind are the same, else to a new one.
   Without room for spans only the end of the track moves. */
static void pyprof__extend_timeline(pyprof_profile *profile, uint32_t track_index, uint32_t node, uint32_t kind,
                                    uint64_t wall, uint64_t cpu, uint32_t samples) {
    pyprof__track *track = pyprof__track_at(profile, track_index);
    pyprof__span *items = (pyprof__span *)profile->timeline.data;
    uint32_t index = track->last;
    track->end_ns += wall;
    if (index == PYPROF__NONE || items[index].node != node || pyprof__span_kind(&items[index]) != kind) {
        if (!pyprof__timeline_reserve(profile)) {
            return; /* a limit that leaves no room for a time line */
        }
        items = (pyprof__span *)profile->timeline.data;
        index = pyprof__array_add(&profile->memory, &profile->timeline);
        items[index].node = node;
        items[index].track_and_kind = track_index * 8 + kind;
        pyprof__link_span(profile, index);
    }
    items[index].wall_ns += wall;
    items[index].cpu_ns += cpu;
    items[index].samples += samples;
    pyprof__note_span(profile, index);
}

/* Adds a stretch of time to the node in which a stack ends, and to the end of its track. In ns. */
static void pyprof__add_time(pyprof_profile *profile, uint32_t track, uint32_t node, uint32_t kind, uint64_t wall,
                             uint64_t cpu) {
    pyprof__node *sums = pyprof__node_at(profile, node);
    sums->wall_ns += wall;
    sums->cpu_ns += cpu;
    sums->wall_idle_ns += (kind & PYPROF__IDLE) ? wall : 0;
    sums->gil_ns += (kind & PYPROF__GIL) ? wall : 0;
    pyprof__note_node(profile, node);
    if (wall > 0 || cpu > 0) {
        pyprof__extend_timeline(profile, track, node, kind, wall, cpu, 0);
    }
}

/* Adds samples, which have no time of their own: that is given out when the next one comes. */
static void pyprof__count_samples(pyprof_profile *profile, uint32_t track, uint32_t node, uint32_t kind,
                                  uint32_t count) {
    pyprof__node *sums = pyprof__node_at(profile, node);
    sums->samples += count;
    sums->samples_idle += (kind & PYPROF__IDLE) ? count : 0;
    pyprof__note_node(profile, node);
    pyprof__extend_timeline(profile, track, node, kind, 0, 0, count);
}

/* The thread had no Python stack since the end of its track: that is time of the root, PYPROF__AWAY. */
static void pyprof__add_absence(pyprof_profile *profile, uint32_t track, uint64_t until_ns) {
    const pyprof__track *item = pyprof__track_at(profile, track);
    if (until_ns > item->end_ns) {
        pyprof__extend_timeline(profile, track, item->root, PYPROF__AWAY, until_ns - item->end_ns, 0, 0);
    }
}

/* An empty profile, within the budget of another one; NULL = no room. The caller frees it by pyprof_free. */
static pyprof_profile *pyprof__profile_beside(const pyprof_profile *profile) {
    pyprof__memory memory = profile->memory;
    memory.used = memory.peak = memory.reserve = 0;
    pyprof_profile *copy = (pyprof_profile *)pyprof__alloc(&memory, sizeof *copy);
    if (copy != NULL) {
        pyprof__profile_init(copy, &memory);
        if (memory.budget != NULL) {
            pyprof__add(&memory.budget->holders, 1);
        }
    }
    return copy;
}

/* Copies all but what is in arrays: those of the copy stay. */
static void pyprof__copy_facts(pyprof_profile *copy, const pyprof_profile *profile) {
    pyprof_profile own;
    memcpy(&own, copy, sizeof own);
    memcpy(copy, profile, offsetof(pyprof_profile, kept));
    copy->copying = NULL;
    copy->memory = own.memory;
    copy->bytes = own.bytes;
    copy->strings = own.strings;
    copy->functions = own.functions;
    copy->nodes = own.nodes;
    copy->tracks = own.tracks;
    copy->timeline = own.timeline;
    copy->samples = own.samples;
}

/* A copy of everything but what things are looked up by, within the same budget; NULL = no room. The caller frees it by
   pyprof_free. Nobody may change the profile meanwhile. */
static pyprof_profile *pyprof__profile_copy(const pyprof_profile *profile) {
    pyprof_profile *copy = pyprof__profile_beside(profile);
    if (copy == NULL) {
        return NULL;
    }
    pyprof__copy_facts(copy, profile);
    if (pyprof__array_copy(&copy->memory, &copy->bytes, &profile->bytes) &&
        pyprof__array_copy(&copy->memory, &copy->strings.items, &profile->strings.items) &&
        pyprof__array_copy(&copy->memory, &copy->functions.items, &profile->functions.items) &&
        pyprof__array_copy(&copy->memory, &copy->nodes.items, &profile->nodes.items) &&
        pyprof__array_copy(&copy->memory, &copy->tracks, &profile->tracks) &&
        pyprof__array_copy(&copy->memory, &copy->timeline, &profile->timeline) &&
        pyprof__array_copy(&copy->memory, &copy->samples, &profile->samples)) {
        return copy;
    }
    pyprof_free(copy);
    return NULL;
}

#ifndef PYPROF_NO_RECORDING

// >>copying
// A profile is copied while it grows: in pieces, with the lock of whoever fills it, which is let go between them. In: a
// profile; who has it (>>control, >>census) takes the lock, lets it go and says when all is there. Out: a copy of one moment.
//   pause: room for what there is now  ->  piece: what is new, then what has changed  ->  pause ... until nothing is lacking
// What changes in a piece that was taken is noted by pyprof__note_node and its kin, in blocks, and copied anew. A profile
// that changes faster than it is copied is copied at once in the end.
// Any thread of the host. Begin with pyprof__copy_begin, pyprof__copy_piece, pyprof__copy_end.

/* A copy under way. */
typedef struct pyprof__copier {
    pyprof_profile *from;
    pyprof_profile *copy;
    pyprof__copying changed; /* of what the copy has already */
    size_t left;             /* bytes that may still be copied until the lock is let go */
    uint32_t pauses_left;    /* 0 = from here on it is not let go */
    /* Copies items that are of another size in the copy; NULL = there are none. */
    void (*convert)(void *to, const void *from, uint32_t count);
} pyprof__copier;

/* A block has so many items that twice what there is has room in all blocks. */
static void pyprof__changes_begin(pyprof__changes *changes, uint32_t count) {
    memset(changes, 0, sizeof *changes);
    while (((uint64_t)PYPROF__CHANGES_BLOCKS << changes->shift) < 2 * (uint64_t)count) {
        changes->shift++;
    }
}

/* Copies items from first up to end, both there and with room here, as far as left allows. The first one that was not
   copied. */
static uint32_t pyprof__copy_items(pyprof__copier *self, pyprof__array *to, const pyprof__array *from, uint32_t first,
                                   uint32_t end) {
    size_t size = to->item_size, most = self->left / size;
    end = end - first > most ? first + (uint32_t)most : end;
    if (end > first) {
        char *at = (char *)to->data + first * size;
        const char *items = (const char *)from->data + first * from->item_size;
        if (size == from->item_size) {
            memcpy(at, items, (end - first) * size);
        } else {
            self->convert(at, items, end - first);
        }
        self->left -= (end - first) * size;
    }
    return end;
}

/* Copies the items that have come since. False: some are still to come. */
static bool pyprof__copy_new(pyprof__copier *self, pyprof__array *to, const pyprof__array *from) {
    uint32_t end = to->capacity < from->count ? to->capacity : from->count;
    to->count = pyprof__copy_items(self, to, from, to->count, end);
    return to->count == from->count;
}

/* Copies a block anew. False: it did not fit into left. */
static bool pyprof__copy_block(pyprof__copier *self, pyprof__array *to, const pyprof__array *from, uint32_t shift,
                               uint32_t block) {
    uint64_t first = (uint64_t)block << shift, behind = (uint64_t)(block + 1) << shift;
    uint32_t end = block == PYPROF__CHANGES_BLOCKS - 1 || behind > to->count ? to->count : (uint32_t)behind;
    return first >= end || ((end - first) * to->item_size <= self->left &&
                            pyprof__copy_items(self, to, from, (uint32_t)first, end) == end);
}

/* Copies anew what has changed. False: some is still to come. */
static bool pyprof__copy_changed(pyprof__copier *self, pyprof__array *to, const pyprof__array *from,
                                 pyprof__changes *changes) {
    for (uint32_t i = 0; i < PYPROF__CHANGES_BLOCKS / 64; i++) {
        while (changes->bits[i] != 0) {
            if (!pyprof__copy_block(self, to, from, changes->shift,
                                    i * 64 + (uint32_t)__builtin_ctzll(changes->bits[i]))) {
                return false;
            }
            changes->bits[i] &= changes->bits[i] - 1;
        }
    }
    return true;
}

/* Copies up to so many bytes of what the copy lacks. With the lock. False: more is to come. */
static bool pyprof__copy_piece(pyprof__copier *self, size_t most) {
    const pyprof_profile *from = self->from;
    pyprof_profile *copy = self->copy;
    pyprof__array *spans = &copy->timeline;
    self->left = most;
    spans->count = spans->count < from->timeline.count ? spans->count : from->timeline.count; /* it was made coarser */
    return pyprof__copy_new(self, &copy->bytes, &from->bytes) &&
           pyprof__copy_new(self, &copy->strings.items, &from->strings.items) &&
           pyprof__copy_new(self, &copy->functions.items, &from->functions.items) &&
           pyprof__copy_new(self, &copy->nodes.items, &from->nodes.items) &&
           pyprof__copy_new(self, spans, &from->timeline) &&
           pyprof__copy_changed(self, &copy->nodes.items, &from->nodes.items, &self->changed.nodes) &&
           pyprof__copy_changed(self, spans, &from->timeline, &self->changed.spans);
}

/* Makes room for so many items, and some more, as they may become more until they are copied. False: no room. */
static bool pyprof__copy_room(pyprof_profile *copy, pyprof__array *to, uint32_t count) {
    return count <= to->capacity || pyprof__array_resize(&copy->memory, to, (size_t)count + count / 32 + 16) ||
           pyprof__array_resize(&copy->memory, to, count);
}

/* Bytes that a profile's arrays take. */
static size_t pyprof__size_of(const pyprof_profile *profile) {
    return profile->bytes.count + profile->strings.items.count * sizeof(pyprof__string) +
           profile->functions.items.count * sizeof(pyprof__function) +
           profile->nodes.items.count * sizeof(pyprof__node) + profile->timeline.count * sizeof(pyprof__span);
}

/* How many items there are. */
typedef struct pyprof__copy_counts {
    uint32_t bytes, strings, functions, nodes, spans;
} pyprof__copy_counts;

static pyprof__copy_counts pyprof__copy_count(const pyprof_profile *from) {
    pyprof__copy_counts counts = {from->bytes.count, from->strings.items.count, from->functions.items.count,
                                  from->nodes.items.count, from->timeline.count};
    return counts;
}

/* Makes room for as many. False: no room. */
static bool pyprof__copy_rooms(pyprof_profile *copy, const pyprof__copy_counts *counts) {
    return pyprof__copy_room(copy, &copy->bytes, counts->bytes) &&
           pyprof__copy_room(copy, &copy->strings.items, counts->strings) &&
           pyprof__copy_room(copy, &copy->functions.items, counts->functions) &&
           pyprof__copy_room(copy, &copy->nodes.items, counts->nodes) &&
           pyprof__copy_room(copy, &copy->timeline, counts->spans);
}

/* With the lock. From here on changes are noted, unless another copy is under way, or none is to be: then the lock has to
   stay taken. False: no room. */
static bool pyprof__copy_begin(pyprof__copier *self, pyprof_profile *from, bool may_pause) {
    self->from = from;
    self->copy = pyprof__profile_beside(from);
    self->convert = NULL;
    self->left = 0;
    self->pauses_left = 0;
    if (self->copy != NULL && may_pause && from->copying == NULL) {
        self->pauses_left = PYPROF__COPY_PAUSES_MORE + (uint32_t)(2 * (pyprof__size_of(from) / PYPROF__COPY_PIECE));
        pyprof__changes_begin(&self->changed.nodes, from->nodes.items.count);
        pyprof__changes_begin(&self->changed.spans, from->timeline.count);
        from->copying = &self->changed;
    } else {
        memset(&self->changed, 0, sizeof self->changed);
    }
    return self->copy != NULL;
}

/* With the lock: what is not in pieces is copied, and the copy is whole. False: no room. */
static bool pyprof__copy_end(pyprof__copier *self) {
    bool has_room = pyprof__array_copy(&self->copy->memory, &self->copy->tracks, &self->from->tracks);
    if (has_room) {
        pyprof__copy_facts(self->copy, self->from);
    }
    return has_room;
}

// >>holding
// A thread that runs is kept off its core while its stack is read: held, without a signal.
// In: a thread that runs and is not asked. Out: it stands still; after pyprof__let_go it may run where it might.
// How: the sampler and the thread are confined to one core, and while the sampler is on it, the thread is not. The
// thread's own clock, read before and after, proves that.
//
//                          the sampler                              the thread
//    pyprof__hold_thread   goes to core c, if it is not there yet   is moved to core c at once
//    pyprof__read_once     runs on c: clock, stack, clock           stands still
//    pyprof__let_go        stays on c, for some ticks               may run where it might before, and so may
//                                                                   what it made
//
// Who: the sampler's thread, under its lock. Never the handler.
// Invariants, of where threads may run:
// - That of a thread is the host's to say: it is changed for one read, and given back unless the host has changed it
//   since.
// - What the thread makes between its confinement and its standstill, threads and processes, is born confined, and is
//   freed.
// - That of the sampler is changed for longer: a thread that shares its core stands still whenever the sampler wakes,
//   and need not be confined.
//
// Begin with pyprof__hold_thread, pyprof__let_go, pyprof__bind_to, pyprof__give_cores, pyprof__free_the_born.

/* A set of cores as the kernel has it: a bit each, the first in the lowest of the first byte. */
typedef struct pyprof__cores {
    unsigned char bits[1024];
    size_t size; /* bytes that the kernel uses */
} pyprof__cores;

/* Where a thread may run, within its cpuset; tid 0: the calling one. False, with errno. */
static bool pyprof__get_cores(int32_t tid, pyprof__cores *cores) {
    memset(cores, 0, sizeof *cores);
    long size = syscall(SYS_sched_getaffinity, tid, sizeof cores->bits, cores->bits);
    cores->size = size > 0 ? (size_t)size : 0;
    return size > 0;
}

/* When it returns, a thread that ran elsewhere has been moved. False, with errno; EINVAL: its cpuset allows none of
   these. */
static bool pyprof__set_cores(int32_t tid, const pyprof__cores *cores) {
    return syscall(SYS_sched_setaffinity, tid, cores->size, cores->bits) == 0;
}

static bool pyprof__same_cores(const pyprof__cores *a, const pyprof__cores *b) {
    return a->size == b->size && memcmp(a->bits, b->bits, a->size) == 0;
}

static bool pyprof__has_core(const pyprof__cores *cores, uint32_t core) {
    return core / 8 < cores->size && (cores->bits[core / 8] >> core % 8 & 1);
}

/* Whether a set has all of the others. */
static bool pyprof__has_cores(const pyprof__cores *cores, const pyprof__cores *others) {
    for (size_t i = 0; i < others->size; i++) {
        if (i >= cores->size || (others->bits[i] & ~cores->bits[i]) != 0) {
            return false;
        }
    }
    return true;
}

static pyprof__cores pyprof__one_core(size_t size, uint32_t core) {
    pyprof__cores one;
    memset(&one, 0, sizeof one);
    one.size = size;
    one.bits[core / 8] = (unsigned char)(1u << core % 8);
    return one;
}

static pyprof__cores pyprof__every_core(size_t size) {
    pyprof__cores every;
    memset(&every, 0xff, sizeof every);
    every.size = size;
    return every;
}

static bool pyprof__is_one_core(const pyprof__cores *cores, uint32_t core) {
    pyprof__cores one = pyprof__one_core(cores->size, core);
    return pyprof__same_cores(cores, &one);
}

/* The id of the process or thread that was made last, as far as this process can see them; 0 = not to be told. */
static uint32_t pyprof__last_made(void) {
    char text[128];
    const char *number = text;
    if (pyprof__read_small_file("/proc/sys/kernel/ns_last_pid", text, sizeof text) == 0) {
        number = pyprof__read_small_file("/proc/loadavg", text, sizeof text) > 0 ? strrchr(text, ' ') : NULL;
    }
    return number != NULL ? (uint32_t)strtoul(number, NULL, 10) : 0;
}

/* 0: an ordinary thread. Real-time priorities count from 1; a deadline counts as above all. -1, with errno: it is not
   told. */
static int pyprof__priority(int32_t tid) {
    const long fifo = 1, round_robin = 2, deadline = 6, reset_on_fork = 0x40000000; /* <linux/sched.h> */
    const int above_all = 1000;
    int priority = 0;
    long policy = syscall(SYS_sched_getscheduler, tid);
    policy = policy < 0 ? policy : policy & ~reset_on_fork;
    if (policy != fifo && policy != round_robin) {
        return policy < 0 ? -1 : policy == deadline ? above_all : 0;
    }
    return syscall(SYS_sched_getparam, tid, &priority) == 0 ? priority : -1;
}

/* Asks for slices of 100 us for the calling thread: who asks for little at a time is let on a core at once (Linux 6.12;
   before, this does nothing). The struct is the kernel's sched_attr, which C libraries name since lately only. */
static void pyprof__ask_for_little(void) {
#if defined(SYS_sched_getattr) && defined(SYS_sched_setattr)
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes;
    memset(&attributes, 0, sizeof attributes);
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0u) == 0 && attributes.policy == 0) {
        attributes.runtime = 100000; /* ns */
        syscall(SYS_sched_setattr, 0, &attributes, 0u);
    }
#endif
}

/* Why a thread could not be held, where that is no chance of the moment. */
typedef enum pyprof__obstacle {
    PYPROF__NO_OBSTACLE,
    PYPROF__COMES_FIRST,    /* it would take the core from the sampler, and keep it */
    PYPROF__MADE_NOT_TOLD,  /* what it makes while it is confined could not be found */
    PYPROF__ORDER_REFUSED,  /* which comes first is not told */
    PYPROF__CORES_NOT_TOLD, /* nor where it may run; from here on the system refuses what all need */
    PYPROF__CORES_REFUSED,
    PYPROF__OBSTACLES
} pyprof__obstacle;

/* For the log. */
static const char *const pyprof__obstacles[PYPROF__OBSTACLES] = {
    "",
    "one has a real-time priority that is not below that of the thread \"pyprof\"",
    "neither /proc/sys/kernel/ns_last_pid nor /proc/loadavg can be read",
    "sched_getscheduler or sched_getparam is refused",
    "sched_getaffinity is refused",
    "sched_setaffinity is refused",
};

/* Where the sampler may run, and whether it may hold threads. One a recording, the sampler's. */
typedef struct pyprof__holder {
    bool is_ready;
    bool is_refused;      /* the system does not let us */
    uint32_t met;         /* obstacles, a bit each; */
    uint32_t told;        /* the logger was told of these */
    bool is_bound;        /* the sampler keeps to one core, */
    uint32_t core;        /* to this one, */
    uint64_t used_at;     /* and that served its purpose at this tick */
    uint32_t late;        /* see pyprof__note_lateness */
    uint64_t roams_until; /* until then it does not stay on a core */
    bool had_to_roam;     /* at least once */
    pyprof__cores own;    /* where it may run else */
    pyprof__cores widest; /* where any thread may that has no wish of its own */
} pyprof__holder;

/* A thread that is held, for the time of one read. */
typedef struct pyprof__hold {
    int32_t tid;
    bool is_confined;    /* it was, by us, and has to be given back */
    bool is_steady;      /* nobody else has changed where it may run */
    uint32_t last_made;  /* pyprof__last_made, before it was confined */
    pyprof__cores cores; /* where it may run else */
} pyprof__hold;

/* Notes why a thread could not be held, and returns false. */
static bool pyprof__meet(pyprof__holder *holder, pyprof__obstacle obstacle) {
    holder->met |= 1u << obstacle;
    holder->is_refused = holder->is_refused || obstacle >= PYPROF__ORDER_REFUSED;
    return false;
}

/* Whether a thread comes before the sampler, or at least not behind it: then it would not stand still. If the system
   does not tell, no thread can be held. */
static bool pyprof__comes_first(pyprof__holder *holder, int32_t tid) {
    int priority = pyprof__priority(tid), own = priority > 0 ? pyprof__priority(0) : 0;
    if (priority < 0 || own < 0) {
        return errno == ESRCH || !pyprof__meet(holder, PYPROF__ORDER_REFUSED);
    }
    return priority > 0 && priority >= own && !pyprof__meet(holder, PYPROF__COMES_FIRST);
}

/* Gives a thread back where it may run. If that was wherever its cpuset allows, it is told every core: a set that names
   these would stay when the cpuset grows. If the cpuset has shrunk to others meanwhile (EINVAL), every core, too.
   False, with errno: it is refused. */
static bool pyprof__give_cores(const pyprof__holder *holder, int32_t tid, const pyprof__cores *cores) {
    pyprof__cores now, every = pyprof__every_core(cores->size);
    if (pyprof__same_cores(cores, &holder->widest) && pyprof__set_cores(tid, &every) && pyprof__get_cores(tid, &now) &&
        (pyprof__same_cores(&now, cores) || !pyprof__has_cores(&now, cores))) {
        return true; /* or somebody has changed it right behind us */
    }
    return pyprof__set_cores(tid, cores) || (errno == EINVAL && pyprof__set_cores(tid, &every));
}

/* Lets the sampler run where it might before, unless the host has changed that since. */
static void pyprof__unbind(pyprof__holder *holder) {
    pyprof__cores now;
    if (holder->is_bound && pyprof__get_cores(0, &now) && pyprof__is_one_core(&now, holder->core)) {
        pyprof__give_cores(holder, 0, &holder->own);
    }
    holder->is_bound = false;
}

/* Keeps the sampler on one core, and learns before where it may run else, and where any thread may. False, with errno:
   it is refused, or (EINVAL) the core is one that the sampler may not use. */
static bool pyprof__bind_to(pyprof__holder *holder, uint32_t core) {
    pyprof__cores now;
    if (!pyprof__get_cores(0, &now)) {
        return false;
    }
    if (holder->is_bound && pyprof__is_one_core(&now, holder->core)) {
        if (holder->core == core) {
            return true;
        }
    } else {
        pyprof__cores every = pyprof__every_core(now.size);
        holder->own = now;
        if (!pyprof__set_cores(0, &every) || !pyprof__get_cores(0, &holder->widest)) {
            return false;
        }
    }
    pyprof__cores one = pyprof__one_core(now.size, core);
    holder->core = core;
    holder->is_bound = pyprof__set_cores(0, &one);
    if (!holder->is_bound) {
        int error = errno;
        pyprof__give_cores(holder, 0, &holder->own);
        errno = error;
    }
    return holder->is_bound;
}

/* The core to hold a thread on: the sampler's, if the thread may run there, else the one that it was on last. */
static uint32_t pyprof__choose_core(const pyprof__cores *cores, int32_t tid) {
    const uint32_t most = 8 * sizeof cores->bits;
    unsigned core = 0;
    if (syscall(SYS_getcpu, &core, NULL, NULL) == 0 && pyprof__has_core(cores, core)) {
        return core;
    }
    core = (uint32_t)pyprof__stat_number("self/task/", tid, PYPROF__STAT_CORE) % most;
    for (uint32_t tried = 0; tried < most && !pyprof__has_core(cores, core); tried++) {
        core = (core + 1) % most;
    }
    return core;
}

/* Holds a thread: true = it stands still while the sampler runs, unless somebody takes the core from the sampler.
   False: it runs on; but also then, pyprof__let_go has to follow. A thread that would preempt the sampler by its
   priority is not held; one that the program has confined to that core itself needs no confinement. */
static bool pyprof__hold_thread(pyprof__holder *holder, int32_t tid, pyprof__hold *hold) {
    pyprof__cores now;
    hold->tid = tid;
    hold->is_confined = false;
    hold->is_steady = true;
    if (pyprof__comes_first(holder, tid)) {
        return false;
    }
    if (!holder->is_ready) {
        holder->is_ready = true;
        pyprof__ask_for_little();
    }
    if (!pyprof__get_cores(tid, &hold->cores)) {
        return false;
    }
    uint32_t core = pyprof__choose_core(&hold->cores, tid);
    if (!pyprof__bind_to(holder, core)) {
        return errno != EINVAL && pyprof__meet(holder, PYPROF__CORES_REFUSED); /* EINVAL: a core that we may not use */
    }
    /* The program itself keeps it there: it does not run while the sampler does. */
    if (pyprof__is_one_core(&hold->cores, core)) {
        return true;
    }
    hold->last_made = pyprof__last_made();
    const pyprof__cores one = pyprof__one_core(hold->cores.size, core);
    if (hold->last_made == 0) {
        return pyprof__meet(holder, PYPROF__MADE_NOT_TOLD);
    }
    if (!pyprof__get_cores(tid, &now)) {
        return false;
    }
    /* Once more, right before the change: what the program sets between the two calls is lost. */
    hold->is_steady = pyprof__same_cores(&now, &hold->cores);
    hold->is_confined = hold->is_steady && pyprof__set_cores(tid, &one);
    if (hold->is_steady && !hold->is_confined && !pyprof__set_cores(0, &one)) {
        pyprof__meet(holder, PYPROF__CORES_REFUSED); /* if not even the sampler, then no thread */
    }
    return hold->is_confined;
}

/* Frees a thread or process, if it was made while its maker was confined: it is confined to that core, and is a thread
   of this process or descends from it. A process that this one has made may have made others by now. */
static void pyprof__free_one_born(const pyprof__holder *holder, const pyprof__hold *hold, uint32_t pid) {
    const int generations = 4;
    pyprof__cores now;
    uint32_t parent = pid;
    bool is_ours = pyprof__thread_lives((int32_t)pid);
    if (!pyprof__get_cores((int32_t)pid, &now) || !pyprof__is_one_core(&now, holder->core)) {
        return;
    }
    for (int i = 0; !is_ours && parent > 1 && i < generations; i++) {
        parent = (uint32_t)pyprof__stat_number("", (int32_t)parent, PYPROF__STAT_PARENT);
        is_ours = parent == (uint32_t)pyprof__process.pid;
    }
    if (is_ours) {
        pyprof__give_cores(holder, (int32_t)pid, &hold->cores);
    }
}

/* Frees what was born with ids from first to last, or the first 1,024 of these. */
static void pyprof__free_range(const pyprof__holder *holder, const pyprof__hold *hold, uint32_t first, uint32_t last) {
    const uint32_t most = 1024; /* few are made within microseconds */
    for (uint32_t pid = first; pid <= last && pid - first < most; pid++) {
        pyprof__free_one_born(holder, hold, pid);
    }
}

/* What the thread has made since has ids behind that which was made last before: ids go up, and then begin anew. */
static void pyprof__free_the_born(const pyprof__holder *holder, const pyprof__hold *hold, uint32_t last) {
    bool is_in_turn = last > hold->last_made;
    pyprof__free_range(holder, hold, hold->last_made + 1, is_in_turn ? last : UINT32_MAX);
    pyprof__free_range(holder, hold, 1, is_in_turn ? 0 : last);
}

/* Gives a thread and what it made back where they may run. False: that was refused, and it stays on one core. What the
   host has set since, stays; hold->is_steady tells. */
static bool pyprof__let_go(const pyprof__holder *holder, pyprof__hold *hold) {
    pyprof__cores now;
    bool is_given = true;
    if (!hold->is_confined) {
        return true;
    }
    if (pyprof__get_cores(hold->tid, &now)) {
        hold->is_steady = pyprof__is_one_core(&now, holder->core);
        is_given = !hold->is_steady || pyprof__give_cores(holder, hold->tid, &hold->cores) || errno == ESRCH;
    }
    uint32_t last = pyprof__last_made();
    if (last != hold->last_made) {
        pyprof__free_the_born(holder, hold, last);
    }
    return is_given;
}

/* At the beginning of each tick. A kernel that lets the sampler wait for a core that is in use makes its ticks late
   while it stays there: if that goes on, it roams for a while. Where a thread with a real-time priority has the core, one
   tick is very late: then a sampler without one roams at once, and for longer. True: it does so for the first time. */
static bool pyprof__note_lateness(pyprof__holder *holder, uint64_t now, uint64_t late_ns) {
    if (!holder->is_bound) {
        return false;
    }
    bool is_first = !holder->had_to_roam, is_stalled = late_ns > PYPROF__TICK_STALLED_NS && pyprof__priority(0) == 0;
    holder->late += late_ns > PYPROF__TICK_LATE_NS ? PYPROF__COST_OF_LATE_TICK : 0;
    holder->late -= holder->late > 0;
    if (!is_stalled && holder->late <= PYPROF__LATE_TICKS_MAX) {
        return false;
    }
    holder->late = 0;
    holder->had_to_roam = true;
    holder->roams_until = now + (is_stalled ? PYPROF__ROAM_STALLED_NS : PYPROF__ROAM_NS);
    return is_first;
}

/* At the end of each tick: the sampler leaves its core if it was of no use there for some ticks, or is to roam. */
static void pyprof__leave_core(pyprof__holder *holder, uint64_t tick, uint64_t now) {
    if (holder->is_bound && (tick - holder->used_at > PYPROF__STAY_ON_CORE_TICKS || now < holder->roams_until)) {
        pyprof__unbind(holder);
    }
}

// >>state
// What the sampler keeps (pyprof__sampler); and what code objects mean, and so which node a stack has.
// In: frames as they were read. Out: for each frame its call site, which has function and line; and the node of the
// innermost one.
// Who: the sampler's thread; others only with its lock, or by its atomics. Never the handler: that has pyprof__handler.
// Invariants: items refer to each other by index, as arrays move when they grow; so a pointer to an item is good until
// something is added to its array. Indices of thread states are good until the lists change, those of threads until a
// slot is used again. Codes and call sites are forgotten all at once only.
//
//   interps, tstates: this tick's lists                   sites: a frame -> function, line, node below a parent
//              | thread                                      | code and fingerprint
//           threads: last sample, last stack, name ...    codes: a code object -> function, line table
//              | track, node                                 | function
//           tracks, nodes and functions of the profile <-----+
//
// Begin with pyprof__sampler, pyprof__thread, pyprof__tstate; pyprof__node_of, pyprof__call_site_of.

/* A code object that was met, and what it was when it was read: it may be gone by now. Its key is code and fingerprint,
   with which a pyprof__frame begins. */
typedef struct pyprof__code {
    uintptr_t code;
    uint64_t fingerprint;
    uint32_t function; /* of the profile; PYPROF__NONE = no room; may be [unresolved] */
    int32_t first_line;
    uint32_t lines;      /* its line table: an offset in the sampler's lines, */
    uint32_t lines_size; /* and its length, in bytes */
} pyprof__code;

/* A place in the program that was met: a frame or a mark, which is the key, and what it means. */
typedef struct pyprof__call_site {
    pyprof__frame frame;
    uint32_t function; /* of the profile */
    int32_t line;
    uint32_t parent; /* the node below which it was met last, */
    uint32_t node;   /* and its own there: mostly the same again; PYPROF__NONE = none yet */
} pyprof__call_site;

/* A thread state in the interpreters' lists. When these have changed its entry is made anew: see pyprof__inherit. */
#define PYPROF__TSTATE_COPY 512u /* bytes; a recording is refused where what matters lies further back */
typedef struct pyprof__tstate {
    uintptr_t address;
    uint64_t id; /* told from a successor at the same address by this */
    uintptr_t interp;
    int64_t interp_id;
    uintptr_t thread_id;   /* pthread_t */
    int32_t native_id;     /* of its thread; 0 = not to be told */
    int32_t told_id;       /* what it says itself, from 3.11 on; see pyprof__native_id */
    uint32_t thread;       /* PYPROF__NONE: not bound to an OS thread yet */
    uint32_t sibling;      /* the next one of the same thread, further out; PYPROF__NONE = none */
    uint64_t framed_since; /* when it was first seen to have frames, in an order of our own; 0 = it has none */
    uint32_t doubts;       /* whether its thread runs it: see pyprof__doubt */
    uint32_t leaf;         /* of the last look at it, attached, while its thread stood still: a hash of its leaf, */
    uint64_t leaf_cpu;     /* and the thread's clock; 0 = none yet */
    bool is_borrowed;
    uint64_t borrowed_until;                 /* then it is looked at anew */
    unsigned char copy[PYPROF__TSTATE_COPY]; /* its first layout.ts_size bytes; of a parked one, as it was then */
} pyprof__tstate;

/* An OS thread that was seen in Python; or, if borrowed is not 0, whoever runs a borrowed thread state. Its slot is
   used again once it has ended: see pyprof__new_thread. */
typedef struct pyprof__thread {
    int32_t tid;
    int32_t told_id;     /* what its first thread state said */
    uintptr_t thread_id; /* pthread_t */
    uintptr_t borrowed;  /* 0; else this is whoever runs this thread state: see pyprof__doubt */
    clockid_t cpu_clock;
    uint32_t track;     /* PYPROF__NONE: it had no sample yet */
    uint64_t seen;      /* the last tick in which it had a thread state */
    uint32_t tstate;    /* of that tick: the innermost one, which leads to the others */
    uint64_t absent_at; /* when it was last seen to have no Python stack */
    bool is_alive;      /* it has a thread state */
    bool has_ended;     /* for good; else it may come back to Python */
    bool knows_stacks;  /* the C stacks that are its own: what holds its pthread_t, and the process's first */
    pyprof__range stacks[2];
    pyprof__array frames; /* of its last stack, root first, and the node of each: the next one likely begins the same */
    pyprof__array nodes;
    struct { /* its last sample */
        bool is_there;
        bool is_cut; /* see pyprof__stack */
        bool has_gap;
        bool is_in_jit;
        uint32_t node;    /* in which its stack ended */
        uint32_t kind;    /* PYPROF__GIL ... */
        uintptr_t tstate; /* of its innermost level */
        uint64_t wall;    /* when it was taken, on the monotonic clock; ns */
        uint64_t cpu;     /* and on the thread's own */
        double edge_wall; /* see pyprof__claim */
        double edge_cpu;
        double unassigned_cpu;
    } last;
    struct {               /* its outermost frame */
        uintptr_t address; /* 0 = not known */
        pyprof__frame frame;
        uintptr_t tstate; /* that it belongs to */
    } outermost;
    struct {                    /* what is known of asking it */
        bool was_asked;         /* ever */
        bool was_unasked;       /* it could not be, */
        bool was_told;          /* and the logger heard of it */
        int hears;              /* the signal that it is known to let in; 0 = not known */
        uint32_t request;       /* PYPROF__NONE = not asked */
        uint32_t ticks;         /* looks since it was asked */
        uint64_t cpu;           /* its clock when the signal was sent, or when its mask was last read */
        uint32_t debt;          /* see pyprof__judge */
        uint64_t blocked_until; /* it blocks the signal; its mask is looked at again then, */
        uint64_t blocked_ns;    /* after so long: at first soon, as whoever makes a thread blocks all for a moment */
    } asking;
    struct {             /* whether to hold it: see pyprof__watch_cores */
        uint64_t cores;  /* their fingerprint, odd; 0 = not looked at yet; 1 = they have just been changed */
        uint32_t looks;  /* in a row at which they were the same */
        uint32_t failed; /* holds in a row that came to nothing */
        uint64_t from;   /* not before; 0 = at once */
    } holding;
    struct {               /* see pyprof__waiting: */
        uint32_t place;    /* where it stands among those that are awake; */
        uint32_t tstate;   /* what is parked with it; */
        uint32_t calm;     /* samples in a row in which it had not run; */
        uint64_t restless; /* how long it has to be calm yet, in ns; */
        uint64_t weighed;  /* its clock, as it stands in the balance; */
        uint64_t ticks;    /* and up to which of the common ticks it has its samples */
    } parking;
    struct {                  /* what it is called */
        uintptr_t object;     /* threading.Thread, or a greenlet's; 0 = none known */
        uint64_t fingerprint; /* of the name it has its track by; lowest bit: is_named (see pyprof__choose_track) */
        uintptr_t place;      /* of the word by which threading leads to the name's object; 0 = not known */
        uintptr_t text;       /* that object */
        uint32_t glances;     /* how often in a row only that word was looked at: see pyprof__renew_names */
        char comm[16];        /* what the system calls it */
        uint64_t due;         /* when to ask anew, */
        uint64_t wait;        /* after so long */
        uint32_t generation;  /* see pyprof__process.thread_names */
    } name;
} pyprof__thread;

/* An interpreter, as the lists had it at this tick. */
typedef struct pyprof__interp {
    uintptr_t address;
    uintptr_t links[2]; /* next interpreter, first thread state */
    int64_t id;
    int64_t id_now; /* the id that is there at this tick: another one may have come to lie at the same address */
    uint32_t first; /* of its thread states, when its list was walked: an index, at which another's may begin, too */
} pyprof__interp;

/* Where an interpreter's threading module keeps its threads: a small cache, as it takes many reads to find. */
#define PYPROF__REGISTRIES_MAX 16u
typedef struct pyprof__registry {
    uintptr_t interp;
    uintptr_t threads; /* see pyprof__active_threads; 0 = not found among so many */
    uint64_t modules;  /* so many had been imported when it was looked for last */
    uint64_t due;      /* when to look anew */
} pyprof__registry;

/* The threads that are parked, looked at together: see >>waiting, and there pyprof__tend_waiting. */
#define PYPROF__RECENT 64u /* ticks whose moments are remembered: see pyprof__settle_run */
typedef struct pyprof__waiting {
    pyprof__array members;          /* indices of threads */
    pyprof__array places;           /* of each: struct iovec, where its thread state's head lies, */
    pyprof__array then;             /* and what that was when it was parked */
    pyprof__array now;              /* room to read them */
    pyprof__array threads;          /* which threads are parked, and which thread states: sets of indices, so that */
    pyprof__array tstates;          /* a tick passes them by without a look at each */
    uint64_t ticks;                 /* so many have given each of them a sample, */
    uint64_t wall;                  /* the last one at this moment, */
    uint64_t walls[PYPROF__RECENT]; /* and those before: by their number */
    uint64_t name_due;              /* the earliest of all */
    uint32_t naming;                /* see pyprof__process.thread_names */
    uintptr_t holder;               /* the thread state that was seen attached last; 0 = none */
    uint32_t candidates;            /* threads that were seen to be calm in this tick */
    uint32_t cut;                   /* members whose stack is not whole */
    bool must_wake;                 /* all of them */
    uint32_t read;                  /* the thread whose clock was read as the tick began: the runner, or PYPROF__NONE */
    uint64_t read_cpu;              /* what it said */
    bool is_balanced;               /* see pyprof__weigh */
    int64_t rest;
    uint32_t failures;
    uint64_t weigh_from; /* tick */
    bool has_timer;      /* or was refused it */
    int timer;           /* see pyprof__keep_process_clock */
    pyprof__array awake; /* indices of threads that stand in the balance */
} pyprof__waiting;

/* One recording. pyprof_start makes it, from the memory of the profile; pyprof_stop frees it once its thread has ended,
   and gives the profile away. What stands before the lock is set before the thread starts, is atomic, or the thread's
   alone. */
typedef struct pyprof__sampler {
    pyprof_desc desc;     /* with its defaults filled in */
    char *output_path;    /* NULL = none */
    char *output_pattern; /* behind it: what it was made of */
    size_t output_path_size;
    uint64_t autosave_at; /* monotonic clock */
    pyprof__layout layout;
    pthread_t thread;
    pthread_t starter; /* two threads whose ids are known teach where a pthread_t keeps its own */
    int32_t starter_tid;
    int32_t tid;
    pyprof__atomic32 ready;        /* 1: the first tick is done */
    pyprof__atomic32 must_stop;    /* set by pyprof_stop, which then rings the handler's bell */
    pyprof__atomic32 dumps_wanted; /* calls of pyprof_dump, counted; and how many of these */
    pyprof__atomic32 dumps_served; /* have what they need */
    uint32_t dump_wanted;          /* the sampler's: the one that it serves, */
    uint64_t dump_until;           /* and for how long; 0 = none */
    pyprof__atomic32 visitors;     /* calls that use the sampler without the lifecycle's lock */
    pyprof__atomic32 tick_waits;   /* 1: a tick is due, and wants the lock */
    pthread_mutex_t lock;          /* guards all below but is_unloaded (set before must_stop) and is_unreturned
                                      (read when the thread has ended) */
    pyprof_profile *profile;
    pyprof__memory *memory; /* the profile's */
    pyprof_stats stats;
    uint64_t start;          /* monotonic clock; ns */
    uint32_t warned_threads; /* warnings of threads that cannot be asked, so far */
    struct {                 /* see pyprof__warn: one behind the other, each with its zero byte */
        size_t size;
        char texts[8192];
    } warnings;
    uint64_t move_due;           /* not before may another signal be looked for */
    bool is_unloaded;            /* it is stopped because its code goes */
    bool is_unreturned;          /* at the end, a thread may still have been in the handler */
    bool is_blind;               /* memory cannot be read any more, and that was told */
    bool told_of_clocks;         /* threads' clocks cannot be read, and that was told */
    uint64_t last_tick;          /* when it was; monotonic clock */
    uint64_t random;             /* state of pyprof__random */
    pyprof__leads leads;         /* by the sampler's thread only */
    uint32_t pthread_tid_offset; /* see pyprof__learn_tid_offset; PYPROF__ABSENT = not known */
    uint32_t runner;             /* the thread that was asked at the last tick; PYPROF__NONE = none */
    pyprof__array interps;       /* of pyprof__interp */
    pyprof__array tstates;       /* of pyprof__tstate, one interpreter after the other */
    pyprof__array fresh;         /* the list being read */
    bool has_whole_lists;        /* nothing was left out of them at this tick */
    bool has_doubts;             /* see pyprof__doubt; of some thread state, ever */
    pyprof__holder holder;
    pyprof__array threads; /* of pyprof__thread */
    pyprof__waiting waiting;
    pyprof__table codes;   /* of pyprof__code */
    pyprof__table sites;   /* of pyprof__call_site */
    pyprof__array lines;   /* bytes: the line tables of all codes */
    pyprof__array scratch; /* frames of two stacks */
    uint32_t bootstrap;    /* the function that every threading.Thread begins with; PYPROF__NONE = not met */
    pyprof__registry registries[PYPROF__REGISTRIES_MAX];
    uint32_t next_registry; /* the one that makes room next */
    pyprof__view view;      /* room for what is read from outside, */
    pyprof__text text;      /* and for a text; both hold until the next use */
} pyprof__sampler;

/* By the sampler's thread: a warning for the host's logger, which hears it as soon as the sampler's lock is let go. The
   logger may be slow, or wait for a thread that waits for that lock. There is room for all that one tick can say. */
static void pyprof__warn(pyprof__sampler *sampler, const char *message) {
    size_t size = strlen(message) + 1;
    if (size <= sizeof sampler->warnings.texts - sampler->warnings.size) {
        memcpy(sampler->warnings.texts + sampler->warnings.size, message, size);
        sampler->warnings.size += size;
    }
}

/* By the sampler's thread: lets go of the sampler's lock, then tells the logger what it was warned of meanwhile. */
static void pyprof__unlock_and_tell(pyprof__sampler *sampler) {
    const char *texts = sampler->warnings.texts;
    pthread_mutex_unlock(&sampler->lock);
    for (size_t at = 0; at < sampler->warnings.size; at += strlen(texts + at) + 1) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_WARNING, texts + at);
    }
    sampler->warnings.size = 0;
}

/* Good until a thread is added. */
static pyprof__thread *pyprof__thread_at(const pyprof__sampler *sampler, uint32_t index) {
    return &PYPROF__ITEM(pyprof__thread, &sampler->threads, index);
}

static pyprof__tstate *pyprof__tstate_at(const pyprof__sampler *sampler, uint32_t index) {
    return &PYPROF__ITEM(pyprof__tstate, &sampler->tstates, index);
}

/* The first thread from an index on that is not parked, and the first such thread state; the count, or above it: there
   are no more. */
static uint32_t pyprof__next_awake(const pyprof__sampler *sampler, uint32_t index) {
    return pyprof__bits_first_out(&sampler->waiting.threads, index);
}

static uint32_t pyprof__next_awake_tstate(const pyprof__sampler *sampler, uint32_t index) {
    return pyprof__bits_first_out(&sampler->waiting.tstates, index);
}

/* A word of the copy, by its offset. */
static uintptr_t pyprof__tstate_word(const pyprof__tstate *tstate, uint32_t offset) {
    uintptr_t word;
    memcpy(&word, tstate->copy + offset, sizeof word);
    return word;
}

static bool pyprof__ends_with(const char *text, size_t size, const char *end) {
    size_t length = strlen(end);
    return size >= length && memcmp(text + size - length, end, length) == 0;
}

/* Forgets all that frames mean. Threads keep the nodes of their last stacks, which stay good; what is met again is read
   again, so the handler has to hear that nothing is known. */
static void pyprof__forget_codes(pyprof__sampler *sampler) {
    pyprof__table_clear(&sampler->codes);
    pyprof__table_clear(&sampler->sites);
    sampler->lines.count = 0;
    pyprof__forget_known();
}

/* Room for what is met, also from the reserve, when the recording is full: without it not even a stack that the tree
   has could be found again. Codes and call sites take a sixteenth of the limit at most: see pyprof__call_site_of. */
static bool pyprof__reserve_met(pyprof__sampler *sampler, pyprof__array *array, size_t count) {
    size_t reserve = pyprof__open_reserve(sampler->memory);
    bool has_room = pyprof__array_reserve(sampler->memory, array, count);
    sampler->memory->reserve = reserve;
    return has_room;
}

/* The same for an entry of codes or sites. The key of either is what a frame begins with. */
static uint32_t pyprof__intern_met(pyprof__sampler *sampler, pyprof__table *table, const pyprof__frame *frame,
                                   bool *is_new) {
    size_t reserve = pyprof__open_reserve(sampler->memory);
    uint32_t index = pyprof__table_intern(sampler->memory, table, frame, is_new);
    sampler->memory->reserve = reserve;
    return index;
}

/* Copies a line table, a bytes object, behind those that are there. False: it is gone, or there is no room. */
static bool pyprof__copy_lines(pyprof__sampler *sampler, uintptr_t object, pyprof__code *code) {
    uintptr_t data;
    size_t size;
    pyprof__reader safely = {0, 0, 0, 0, NULL};
    if (!pyprof__bytes_data(&safely, object, &data, &size) ||
        !pyprof__reserve_met(sampler, &sampler->lines, sampler->lines.count + size) ||
        (size > 0 && !pyprof__read(data, (char *)sampler->lines.data + sampler->lines.count, size))) {
        return false;
    }
    code->lines = sampler->lines.count;
    code->lines_size = (uint32_t)size;
    sampler->lines.count += (uint32_t)size;
    return true;
}

/* Whether a code object lives and is still the one that was met. Another one may lie there by now. */
static bool pyprof__is_same_code(pyprof__sampler *sampler, const pyprof__code *code) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uint64_t fingerprint = 0;
    pyprof__view_reset(&sampler->view);
    return pyprof__object_lives(&reader, code->code) &&
           pyprof__code_fingerprint(&sampler->layout, &reader, code->code, &fingerprint) &&
           fingerprint == code->fingerprint;
}

/* Reads name, file and lines of a code object, between two looks that show it to be the one that was met: so what was
   read is its own. False: it has died, or there is no room for its lines. Notes the _bootstrap of threading.py. */
static bool pyprof__read_new_code(pyprof__sampler *sampler, pyprof__code *code) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    pyprof__code_fields fields;
    if (!pyprof__is_same_code(sampler, code) || !pyprof__read_code(&sampler->layout, &reader, code->code, &fields) ||
        !pyprof__read_text(fields.name, &sampler->text)) {
        return false;
    }
    bool is_named_so = pyprof__ends_with(sampler->text.utf8, sampler->text.size, "_bootstrap");
    uint32_t name = pyprof__intern_text(sampler->profile, sampler->text.utf8, sampler->text.size);
    if (!pyprof__read_text(fields.filename, &sampler->text) || !pyprof__copy_lines(sampler, fields.lines, code)) {
        return false;
    }
    uint32_t file = pyprof__intern_text(sampler->profile, sampler->text.utf8, sampler->text.size);
    if (!pyprof__is_same_code(sampler, code)) {
        return false;
    }
    code->first_line = fields.first_line;
    code->function = pyprof__intern_function(sampler->profile, name, file, fields.first_line);
    if (is_named_so && pyprof__ends_with(sampler->text.utf8, sampler->text.size, "threading.py")) {
        sampler->bootstrap = code->function;
    }
    return true;
}

/* A name that the host gave to an interpreter (thread_id 0) or a thread; NULL = none. */
static pyprof__name *pyprof__find_name(pyprof__name *items, uint32_t count, int64_t id, uintptr_t thread_id) {
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].id == id && items[i].thread_id == thread_id) {
            return &items[i];
        }
    }
    return NULL;
}

static pyprof__name *pyprof__name_of(int64_t id) {
    return pyprof__find_name(pyprof__process.interpreter_names.items, pyprof__process.interpreter_names.count, id, 0);
}

static pyprof__name *pyprof__given_name_of(int32_t tid, uintptr_t thread_id) {
    return pyprof__find_name(pyprof__process.thread_names.items, pyprof__process.thread_names.count, tid, thread_id);
}

/* The function that stands for interpreters of this name already, which are shown as one; PYPROF__NONE = none. */
static uint32_t pyprof__mark_of_name(const pyprof_profile *profile, const char *name) {
    char end[80];
    static const char begin[] = "[interpreter ";
    const size_t digits = sizeof begin - 1;
    snprintf(end, sizeof end, ": %s]", name);
    for (uint32_t i = 0; i < profile->functions.items.count; i++) {
        const pyprof__function *function = pyprof__function_at(profile, i);
        size_t size, file_size;
        const char *text = pyprof__string_text(profile, function->name, &size);
        pyprof__string_text(profile, function->file, &file_size);
        if (file_size == 0 && strncmp(text, begin, digits) == 0 &&
            strcmp(text + digits + strspn(text + digits, "0123456789"), end) == 0) {
            return i;
        }
    }
    return PYPROF__NONE;
}

/* The function that stands for a mark; PYPROF__NONE = no room. */
static uint32_t pyprof__function_of_mark(pyprof__sampler *sampler, const pyprof__frame *mark) {
    char text[128];
    int64_t id = (int64_t)mark->fingerprint;
    if (id == PYPROF__GAP) {
        return sampler->profile->truncated;
    }
    const pyprof__name *name = pyprof__name_of(id);
    uint32_t same = name != NULL ? pyprof__mark_of_name(sampler->profile, name->text) : PYPROF__NONE;
    if (same != PYPROF__NONE) {
        return same;
    }
    snprintf(text, sizeof text, "[interpreter %lld%s%s]", (long long)id, name != NULL ? ": " : "",
             name != NULL ? name->text : "");
    return pyprof__intern_marker(sampler->profile, text);
}

/* What a frame's code object is, read when it is met first; [unresolved] if it had died by then, and for as long as it
   is kept. NULL = no room. */
static const pyprof__code *pyprof__code_of(pyprof__sampler *sampler, const pyprof__frame *frame) {
    bool is_new;
    uint32_t index = pyprof__intern_met(sampler, &sampler->codes, frame, &is_new);
    if (index == PYPROF__NONE) {
        return NULL;
    }
    pyprof__code *code = &PYPROF__ITEM(pyprof__code, &sampler->codes.items, index);
    if (is_new && !pyprof__read_new_code(sampler, code)) {
        code->function = sampler->profile->unresolved;
        code->lines_size = 0;
    }
    return code->function != PYPROF__NONE ? code : NULL;
}

/* Finds function and line of a call site that is new. False: no room. */
static bool pyprof__fill_call_site(pyprof__sampler *sampler, pyprof__call_site *site) {
    site->node = PYPROF__NONE;
    if (pyprof__is_mark(&site->frame)) {
        site->function = pyprof__function_of_mark(sampler, &site->frame);
        return site->function != PYPROF__NONE;
    }
    const pyprof__code *code = pyprof__code_of(sampler, &site->frame);
    if (code == NULL) {
        return false;
    }
    site->function = code->function;
    if (code->function != sampler->profile->unresolved) {
        const unsigned char *table = (const unsigned char *)sampler->lines.data + code->lines;
        site->line = pyprof__line_at(table, code->lines_size, code->first_line, site->frame.instr);
    }
    return true;
}

/* What a frame means: known from before, or read now. NULL = no room. Good until the next call. What is kept takes a
   sixteenth of the memory limit at most: then all is forgotten, as a program that compiles code without end does not
   meet most of it again. */
static pyprof__call_site *pyprof__call_site_of(pyprof__sampler *sampler, const pyprof__frame *frame) {
    bool is_new;
    size_t held = sampler->sites.items.count * sizeof(pyprof__call_site) +
                  sampler->codes.items.count * sizeof(pyprof__code) + sampler->lines.count;
    if (held > sampler->memory->limit / 16) {
        pyprof__forget_codes(sampler);
    }
    uint32_t index = pyprof__intern_met(sampler, &sampler->sites, frame, &is_new);
    if (index == PYPROF__NONE) {
        return NULL;
    }
    pyprof__call_site *site = &PYPROF__ITEM(pyprof__call_site, &sampler->sites.items, index);
    if (is_new && !pyprof__fill_call_site(sampler, site)) {
        pyprof__forget_codes(sampler); /* a half-made site must not be found again */
        return NULL;
    }
    return site;
}

/* The node for a call site below another node; PYPROF__NONE = the tree is full. */
static uint32_t pyprof__call_site_node(pyprof_profile *profile, pyprof__call_site *site, uint32_t parent) {
    if (site->parent != parent || site->node == PYPROF__NONE) {
        site->parent = parent;
        site->node = pyprof__child(profile, parent, site->function, site->line);
    }
    return site->node;
}

/* How many frames, from the root inwards, are those of the thread's last stack: nothing is looked up for these. */
static uint32_t pyprof__common_frames(const pyprof__thread *thread, const pyprof__stack *stack) {
    uint32_t common = 0;
    uint32_t most = thread->frames.count < stack->count ? thread->frames.count : stack->count;
    if (thread->last.is_cut != stack->is_cut) {
        return 0;
    }
    while (common < most && memcmp(&PYPROF__ITEM(pyprof__frame, &thread->frames, common),
                                   &stack->frames[stack->count - 1 - common], sizeof(pyprof__frame)) == 0) {
        common++;
    }
    return common;
}

/* The node in which a stack ends, below base; its frames and their nodes are kept with the thread, for the next one.
   What the tree or the tables have no room for ends in a [truncated] node, and is counted. */
static uint32_t pyprof__node_of(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__stack *stack,
                                uint32_t base) {
    uint32_t common = pyprof__common_frames(thread, stack);
    uint32_t node = common > 0 ? PYPROF__ITEM(uint32_t, &thread->nodes, common - 1) : base;
    if (!pyprof__reserve_met(sampler, &thread->frames, stack->count) ||
        !pyprof__reserve_met(sampler, &thread->nodes, stack->count)) {
        sampler->stats.truncated_memory++;
        thread->frames.count = thread->nodes.count = 0;
        return pyprof__track_at(sampler->profile, thread->track)->truncated;
    }
    thread->last.is_cut = stack->is_cut;
    thread->last.has_gap = stack->has_gap;
    for (uint32_t i = common; i < stack->count; i++) {
        const pyprof__frame *frame = &stack->frames[stack->count - 1 - i];
        pyprof__call_site *site = pyprof__call_site_of(sampler, frame);
        uint32_t below = site != NULL ? pyprof__call_site_node(sampler->profile, site, node) : PYPROF__NONE;
        if (below == PYPROF__NONE) {
            sampler->stats.truncated_memory++;
            thread->frames.count = thread->nodes.count = i;
            return pyprof__truncated_below(sampler->profile, node);
        }
        sampler->stats.frames_unresolved += site->function == sampler->profile->unresolved;
        node = below;
        PYPROF__ITEM(pyprof__frame, &thread->frames, i) = *frame;
        PYPROF__ITEM(uint32_t, &thread->nodes, i) = node;
    }
    thread->frames.count = thread->nodes.count = stack->count;
    return node;
}

/* The node for what is further in than a node, and cannot be told: [unsettled]. */
static uint32_t pyprof__unsettled_below(pyprof__sampler *sampler, uint32_t node) {
    uint32_t below = pyprof__child(sampler->profile, node, sampler->profile->unsettled, 0);
    sampler->stats.samples_partial++;
    return below != PYPROF__NONE ? below : pyprof__truncated_below(sampler->profile, node);
}

// >>names
// What each thread is called, and so which track its samples go to.
// In, the first that there is: the name that the host gave (pyprof_name_thread); that of its object in Python's
// threading, which lies in its outermost frame or is found by its ident; "MainThread" for the first one; the system's.
// Out: thread->track, and the name of that track. A thread whose name can no longer be found keeps the last one.
// Who: the sampler's thread, under its lock. Never the handler. Python may change its objects meanwhile: so they are
// read by system calls (>>reads), and types, idents and ids are checked.
// Invariants: a thread has a track before its first sample enters. A track of its own takes each new name; one that it
// shares with others keeps its name, and the thread goes to another. Names may change: they are looked up again.
//
// Begin with pyprof__update_name, pyprof__find_python_name, pyprof__choose_track.

/* A thread of the threading module has its Thread object as the first local variable, self, of its outermost frame. */
static void pyprof__learn_object(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__stack *stack) {
    if (thread->name.object == 0 && stack->inner > 0 && !stack->is_cut) {
        const pyprof__call_site *root = pyprof__call_site_of(sampler, &stack->frames[stack->inner - 1]);
        if (root != NULL && root->function == sampler->bootstrap) {
            thread->name.object = stack->root_first_local;
            thread->name.due = 0;
        }
    }
}

/* An interpreter's entry, a new one in the place of the oldest if it has none. */
static pyprof__registry *pyprof__registry_of(pyprof__sampler *sampler, uintptr_t interp) {
    for (uint32_t i = 0; i < PYPROF__REGISTRIES_MAX; i++) {
        if (sampler->registries[i].interp == interp) {
            return &sampler->registries[i];
        }
    }
    pyprof__registry *registry = &sampler->registries[sampler->next_registry++ % PYPROF__REGISTRIES_MAX];
    memset(registry, 0, sizeof *registry);
    registry->interp = interp;
    return registry;
}

/* threading._active of the interpreter of a thread state; 0 = not known. Looked for once a second; as long as it was
   not there, at each call, if modules were imported since and sys.modules is found without a search. */
static uintptr_t pyprof__thread_objects(pyprof__sampler *sampler, uintptr_t tstate, uint64_t now) {
    uintptr_t interp = 0;
    if (!pyprof__read(tstate + sampler->layout.ts_interp, &interp, sizeof interp)) {
        return 0;
    }
    pyprof__registry *registry = pyprof__registry_of(sampler, interp);
    bool is_known = sampler->layout.interp_modules != PYPROF__ABSENT; /* else to search for it takes a millisecond */
    if ((registry->threads == 0 && is_known) || now >= registry->due) {
        uint64_t count = 0;
        uintptr_t modules = pyprof__modules_of(&sampler->layout, interp, &count);
        if (registry->threads != 0 || count != registry->modules) {
            registry->threads = modules != 0 ? pyprof__active_threads(modules) : 0;
        }
        registry->modules = count;
        registry->due = now + 1000000000u;
    }
    return pyprof__is_a(registry->threads, &PyDict_Type) ? registry->threads : 0;
}

/* So many words that lead to names are looked at in one system call. */
#define PYPROF__NAMES_MAX 64u

/* What names are found by lies mostly where they lay last: the subject for pyprof__view_renew. */
#define PYPROF__OF_NAMES ((uintptr_t)1)

/* Reads a Thread object's name into the sampler's text, and notes where it was found. False: it cannot be found, as it
   is being changed. */
static bool pyprof__read_name(pyprof__sampler *sampler, pyprof__thread *thread, uintptr_t object) {
    pyprof__reader reader = {0, 0, 0, 0, NULL};
    pyprof__view_renew(&sampler->view, PYPROF__OF_NAMES);
    uintptr_t text = pyprof__read_attribute(&sampler->view, object, "_name", &thread->name.place);
    thread->name.text = text;
    return text != 0 && pyprof__read_text(text, &sampler->text) &&
           pyprof__object_lives(&reader, text); /* it may have died with its thread */
}

/* Whether an attribute of a Thread object is this number. */
static bool pyprof__is_number(pyprof__sampler *sampler, uintptr_t object, const char *name, uint64_t wanted) {
    uint64_t number = 0;
    uintptr_t place;
    pyprof__view_renew(&sampler->view, PYPROF__OF_NAMES);
    uintptr_t found = pyprof__read_attribute(&sampler->view, object, name, &place);
    return pyprof__read_int(found, &number) && number == wanted;
}

/* Whether the Thread object that lies in a thread's outermost frame is that of the thread: one of a greenlet is not. */
static bool pyprof__is_its_own(pyprof__sampler *sampler, const pyprof__thread *thread) {
    return thread->name.object != 0 && pyprof__is_number(sampler, thread->name.object, "_ident", thread->thread_id);
}

/* Whether the Thread object that threading has for a thread's ident is of that thread, and not of one that has ended:
   those that threading did not make are never taken out, and idents are given anew. The native id is not compared for
   the process's first thread: in a forked child the object still has the parent's. */
static bool pyprof__is_still_of(pyprof__sampler *sampler, const pyprof__thread *thread, uintptr_t object) {
    return thread->tid == pyprof__process.pid ||
           pyprof__is_number(sampler, object, "_native_id", (uint64_t)thread->tid);
}

/* Whether somebody gave this name. threading itself gives "Dummy-1" to a host thread that it met, and "MainThread" to
   the thread that it was imported in, which is not the main one where a program runs Python in another. */
static bool pyprof__is_given_name(const pyprof__text *text, bool is_main) {
    static const char dummy[] = "Dummy-", main_thread[] = "MainThread";
    bool is_dummy = text->size > sizeof dummy - 1 && memcmp(text->utf8, dummy, sizeof dummy - 1) == 0;
    bool is_main_name = text->size == sizeof main_thread - 1 && memcmp(text->utf8, main_thread, text->size) == 0;
    return !is_dummy && (is_main || !is_main_name);
}

/* Finds the name that Python's threading has for a thread, into the sampler's text. False: none. */
static bool pyprof__find_python_name(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now) {
    if (pyprof__is_its_own(sampler, thread) && pyprof__read_name(sampler, thread, thread->name.object)) {
        return true;
    }
    uintptr_t threads = pyprof__thread_objects(sampler, thread->outermost.tstate, now);
    uintptr_t object = threads != 0 ? pyprof__dict_value(threads, NULL, thread->thread_id) : 0;
    return object != 0 && pyprof__is_still_of(sampler, thread, object) && pyprof__read_name(sampler, thread, object) &&
           pyprof__is_given_name(&sampler->text, thread->tid == pyprof__process.pid) &&
           pyprof__dict_value(threads, NULL, thread->thread_id) == object;
}

/* Before a new track is needed: frees the tracks of threads that have ended for good. */
static void pyprof__bury_threads(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (!thread->is_alive && !thread->last.is_there && thread->track != PYPROF__NONE &&
            !pyprof__thread_lives(thread->tid)) {
            pyprof__leave_track(sampler->profile, thread->track);
            thread->track = PYPROF__NONE;
            thread->has_ended = true;
        }
    }
}

/* What the system calls the thread; once it has ended, what it was called last. */
static void pyprof__read_system_name(pyprof__thread *thread) {
    char comm[sizeof thread->name.comm + 1]; /* and a newline */
    size_t size = pyprof__read_task_file(thread->tid, "comm", comm, sizeof comm);
    if (size > 1) {
        memcpy(thread->name.comm, comm, size - 1);
        thread->name.comm[size - 1] = '\0';
    }
}

/* The node of another track for the stack in which a thread was seen last: what follows is time of that track. Without room,
   a [truncated] one. The thread's nodes are room for the way. */
static uint32_t pyprof__moved_node(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t track) {
    pyprof_profile *profile = sampler->profile;
    uint32_t below = pyprof__track_at(profile, track)->root;
    thread->nodes.count = 0;
    for (uint32_t at = thread->last.node; pyprof__node_at(profile, at)->parent != PYPROF__NONE;) {
        uint32_t index = pyprof__array_add(sampler->memory, &thread->nodes);
        if (index == PYPROF__NONE) {
            return pyprof__track_at(profile, track)->truncated;
        }
        PYPROF__ITEM(uint32_t, &thread->nodes, index) = at;
        at = pyprof__node_at(profile, at)->parent;
    }
    for (uint32_t i = thread->nodes.count; i-- > 0;) {
        const pyprof__node *node = pyprof__node_at(profile, PYPROF__ITEM(uint32_t, &thread->nodes, i));
        uint32_t child = pyprof__child(profile, below, node->function, node->line);
        if (child == PYPROF__NONE) {
            return pyprof__truncated_below(profile, below);
        }
        below = child;
    }
    return below;
}

/* Gives the thread the track that its name asks for: at first, and again when its name has changed. is_named: by the
   host, by Python, or as the main thread; else it is the system's name. A thread that changes tracks leaves a gap of
   time in neither: the new one has it away until now. Without room for a track it stays where it was. */
static void pyprof__choose_track(pyprof__sampler *sampler, pyprof__thread *thread, const char *text, size_t size,
                                 bool is_named, uint64_t now) {
    pyprof_profile *profile = sampler->profile;
    uint64_t fingerprint = pyprof__string_key(text, size).hash[0] << 1 | is_named;
    bool is_new = thread->track == PYPROF__NONE, is_pattern = false;
    if (!is_new && fingerprint == thread->name.fingerprint) {
        return;
    }
    thread->name.fingerprint = fingerprint;
    if (is_new) {
        pyprof__bury_threads(sampler);
    } else if (!pyprof__track_at(profile, thread->track)->is_shared) {
        uint32_t name = pyprof__thread_name(profile, text, size, is_named, &is_pattern);
        if (name != PYPROF__NONE) {
            pyprof__track_at(profile, thread->track)->name = name;
            pyprof__track_at(profile, thread->track)->is_named = is_named || is_pattern;
        }
        return;
    }
    uint64_t now_ns = now - sampler->start;
    uint32_t taken = pyprof__take_track(profile, thread->tid, text, size, is_named, now_ns);
    if (taken != PYPROF__NONE && !is_new) {
        pyprof__leave_track(profile, thread->track);
        pyprof__add_absence(profile, taken, now_ns);
        thread->last.node = thread->last.is_there ? pyprof__moved_node(sampler, thread, taken) : PYPROF__NONE;
        thread->frames.count = thread->nodes.count = 0;
    }
    thread->track = taken != PYPROF__NONE ? taken : thread->track;
}

/* A thread's name has been looked at: the next look comes later, and later each time. */
static void pyprof__put_off_name(pyprof__thread *thread, uint64_t now) {
    thread->name.wait =
        pyprof__min64(thread->name.wait == 0 ? PYPROF__NAME_WAIT_NS : 2 * thread->name.wait, PYPROF__NAME_WAIT_MAX_NS);
    thread->name.due = now + thread->name.wait;
}

/* Looks up a thread's name, if it is new, if the host has named a thread since, or if it is time: soon after it began,
   as it may not have its name yet, and at longer and longer intervals then. The system's name replaces no other. */
static void pyprof__update_name(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now) {
    static const char main_name[] = "MainThread";
    bool is_new = thread->track == PYPROF__NONE;
    if (now < thread->name.due && thread->name.generation == pyprof__process.thread_names.generation && !is_new) {
        return;
    }
    thread->name.generation = pyprof__process.thread_names.generation;
    thread->name.place = 0;
    thread->name.glances = 0;
    pyprof__put_off_name(thread, now);
    const pyprof__name *given = pyprof__given_name_of(thread->tid, thread->thread_id);
    size_t reserve = pyprof__open_reserve(sampler->memory);
    if (given != NULL) {
        pyprof__choose_track(sampler, thread, given->text, strlen(given->text), true, now);
    } else if (pyprof__find_python_name(sampler, thread, now)) {
        pyprof__choose_track(sampler, thread, sampler->text.utf8, sampler->text.size, true, now);
    } else if (is_new && thread->tid == pyprof__process.pid) {
        pyprof__choose_track(sampler, thread, main_name, sizeof main_name - 1, true, now);
    } else if (is_new || (thread->name.fingerprint & 1) == 0) {
        pyprof__read_system_name(thread);
        pyprof__choose_track(sampler, thread, thread->name.comm, strlen(thread->name.comm), false, now);
    }
    sampler->memory->reserve = reserve;
}

// >>records
// A sample enters the profile, with its time; or the cause why there is none is counted.
// In: a thread, what a look at it has found (the observation), and the verdict on that.
// Out: the node of its stack; time for that node, and for the node of the sample before; or a count in pyprof_stats.
// Who: the sampler's thread, under its lock. Never the handler.
// Invariants: the wall time of a track adds up to the time that its threads were seen, CPU time to what their clocks
// moved meanwhile. Each look ends in pyprof__book, in one sample or one cause, or in neither (no Python stack).
//
// How time is shared out. Ticks are a stratified random sample of time: one at a random moment of each interval. The
// gap of time between two samples of a thread is halved (the trapezoidal rule), so each stands for the time around it:
//
//     looks       x             A             B             C             x      x: it had no Python stack
//     wall time   | away |------A------|------B------|------C------| away |
//
// The CPU time that was used in a gap is known. Where an end was idle, it goes to a stock, and a ratio estimator
// (pyprof__claim) gives it out again, to all that ran beside idle samples:
//
//     in the gap from A to B        goes to A         goes to B
//     A ran, B ran                  one half          one half
//     A ran, B was idle             pyprof__claim     nothing
//     A was idle, B ran             nothing           pyprof__claim
//     both were idle                nothing           nothing
//
// Begin with pyprof__book, pyprof__record, pyprof__share_time, pyprof__claim, pyprof__take_in.

/* The CPU time, in ns, for a sample that ran, for the half gap between it and one that was idle. What the thread used
   in that very gap is known; but to give it just that would be a bias: of what runs for less than an interval only a
   part is ever seen, and that part has to stand for the rest, as it does by its wall time. So a half gap gets, by its
   length, the rate of the last hundred or so: edge_cpu by edge_wall, both of which fade by a 128th each time. It gets a
   little more or less as the stock is more or less than four such shares, and never more than the stock: so nothing is
   given out twice, and the stock stays small. */
static uint64_t pyprof__claim(pyprof__thread *thread, uint64_t half_gap) {
    thread->last.edge_wall += (double)half_gap;
    double due = thread->last.edge_wall > 0 ? thread->last.edge_cpu * ((double)half_gap / thread->last.edge_wall) : 0;
    due += (thread->last.unassigned_cpu - PYPROF__CLAIM_STOCK * due) / PYPROF__CLAIM_MEMORY;
    due = due < thread->last.unassigned_cpu ? due : thread->last.unassigned_cpu;
    uint64_t claimed = (uint64_t)due;
    thread->last.edge_wall -= thread->last.edge_wall / PYPROF__CLAIM_MEMORY;
    thread->last.edge_cpu -= thread->last.edge_cpu / PYPROF__CLAIM_MEMORY;
    thread->last.unassigned_cpu -= (double)claimed;
    return claimed;
}

/* A thread's CPU clock, in ns; 0 = it is gone. Of whoever runs a borrowed thread state no clock is known: 1. */
static uint64_t pyprof__cpu_time(const pyprof__thread *thread) {
    return thread->borrowed != 0 ? 1 : pyprof__clock(thread->cpu_clock);
}

/* How far a clock went on; a clock may step back, and then nothing has passed. */
static uint64_t pyprof__passed(uint64_t since, uint64_t now) {
    return now - pyprof__min64(now, since);
}

/* Gives out the gap of time since the last sample, to that one and to the new one. What was idle used no CPU time. */
static void pyprof__share_time(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t node, uint32_t kind,
                               uint64_t wall, uint64_t cpu) {
    uint64_t gap = pyprof__passed(thread->last.wall, wall), used = pyprof__passed(thread->last.cpu, cpu);
    bool was_idle = (thread->last.kind & PYPROF__IDLE) != 0, is_idle = (kind & PYPROF__IDLE) != 0;
    uint64_t before = used / 2, after = used - before;
    if (was_idle || is_idle) {
        thread->last.edge_cpu += (double)used;
        thread->last.unassigned_cpu += (double)used;
        before = was_idle ? 0 : pyprof__claim(thread, gap / 2);
        after = is_idle ? 0 : pyprof__claim(thread, gap - gap / 2);
    }
    pyprof__add_time(sampler->profile, thread->track, thread->last.node, thread->last.kind, gap / 2, before);
    pyprof__add_time(sampler->profile, thread->track, node, kind, gap - gap / 2, after);
}

/* The time before the first sample of a thread, or the first since it had no Python stack: it came, on average, half
   way since it was last missed. Before that it was away. CPU time is bounded by wall time: it may be older. */
static void pyprof__begin_time(pyprof__sampler *sampler, pyprof__thread *thread, uint32_t node, uint32_t kind,
                               uint64_t wall, uint64_t cpu) {
    uint64_t end = wall - sampler->start;
    uint64_t room = pyprof__passed(pyprof__track_at(sampler->profile, thread->track)->end_ns, end);
    uint64_t half = pyprof__min64(pyprof__passed(thread->absent_at, wall) / 2, room);
    uint64_t used = (kind & PYPROF__IDLE) ? 0 : pyprof__passed(thread->last.cpu, cpu);
    pyprof__add_absence(sampler->profile, thread->track, end - half);
    pyprof__add_time(sampler->profile, thread->track, node, kind, half, pyprof__min64(half, used));
}

/* The time after the last sample, when the thread is no longer where it was: it left, on average, half way since. At
   the end of a recording (is_whole) it is there still. It gets the rest of the stock. */
static void pyprof__end_time(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now, bool is_whole) {
    if (thread->last.is_there) {
        uint64_t gap = pyprof__passed(thread->last.wall, now) / (is_whole ? 1 : 2);
        uint64_t used = pyprof__passed(thread->last.cpu, pyprof__cpu_time(thread));
        pyprof__add_time(sampler->profile, thread->track, thread->last.node, thread->last.kind, gap,
                         pyprof__min64(gap, used) + (uint64_t)thread->last.unassigned_cpu);
        thread->last.unassigned_cpu = 0;
        thread->last.cpu += used;
        thread->last.is_there = false;
    }
}

/* Whether a thread's outermost frame is still one of the same code; and where in that it is by now. */
static bool pyprof__read_outermost(pyprof__sampler *sampler, const pyprof__thread *thread, pyprof__found *found,
                                   pyprof__frame *frame) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uint64_t fingerprint = 0;
    pyprof__view_reset(&sampler->view);
    if (thread->outermost.address == 0 ||
        !pyprof__read_frame(&sampler->layout, &reader, thread->outermost.address, found) ||
        found->code != frame->code || !pyprof__code_fingerprint(&sampler->layout, &reader, found->code, &fingerprint)) {
        return false;
    }
    frame->instr = found->instr;
    return fingerprint == frame->fingerprint;
}

/* The node of a thread's outermost frame, if that still stands; PYPROF__NONE = it does not, or no room. */
static uint32_t pyprof__standing_root(pyprof__sampler *sampler, const pyprof__thread *thread) {
    pyprof__frame frame = thread->outermost.frame;
    pyprof__found found;
    if (!pyprof__read_outermost(sampler, thread, &found, &frame) ||
        !pyprof__is_outermost(&sampler->layout, thread->outermost.address)) {
        return PYPROF__NONE;
    }
    pyprof__call_site *site = pyprof__call_site_of(sampler, &frame);
    uint32_t root = pyprof__track_at(sampler->profile, thread->track)->root;
    return site != NULL ? pyprof__call_site_node(sampler->profile, site, root) : PYPROF__NONE;
}

/* The node below which a stack begins: the root of the track, or a [truncated] node if the stack is cut or headless. A
   headless one keeps the thread's outermost frame above that, if it still stands. */
static uint32_t pyprof__base_of(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__stack *stack) {
    pyprof_profile *profile = sampler->profile;
    uint32_t root = stack->is_headless ? pyprof__standing_root(sampler, thread) : PYPROF__NONE;
    uint32_t cut = root != PYPROF__NONE ? pyprof__child(profile, root, profile->truncated, 0) : PYPROF__NONE;
    const pyprof__track *track = pyprof__track_at(profile, thread->track);
    return !stack->is_cut && !stack->is_headless ? track->root : cut != PYPROF__NONE ? cut : track->truncated;
}

/* What one look at a thread, or its answer, has found. It lives as long as the look; its frames are the sampler's
   scratch, or the request's own. */
typedef struct pyprof__observation {
    uint64_t wall;       /* when the look began; then, right before the stack was last read */
    uint64_t cpu;        /* the thread's clock, right after wall; 0 = the thread is gone */
    pyprof__stack stack; /* in the sampler's scratch, or the answer's own */
    bool attached;       /* it may run Python: its kind is PYPROF__GIL */
    bool ran;            /* its clock moved during a read, or right before one */
    bool is_fresh;       /* it was just now that it was seen to be attached */
    bool stands;         /* its clock stood still between two looks at it before the reads */
    bool held;           /* it ran, and was kept from it */
    pyprof__levels levels;
} pyprof__observation;

/* The tree's node for what was read of a thread, whose outermost frame is kept in mind for stacks that lack it. */
static uint32_t pyprof__take_in(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__observation *seen) {
    const pyprof__stack *stack = &seen->stack;
    if (!stack->is_partial && !stack->is_headless) {
        thread->outermost.address = stack->is_cut ? 0 : stack->root;
        thread->outermost.frame = stack->frames[stack->count - 1];
        thread->outermost.tstate = seen->levels.items[seen->levels.count - 1].tstate;
    }
    uint32_t base = pyprof__base_of(sampler, thread, stack);
    if (stack->is_headless) {
        thread->frames.count = thread->nodes.count = 0; /* neither this nor the next begins like the one before */
    }
    uint32_t node = pyprof__node_of(sampler, thread, stack, base);
    if (stack->is_headless) {
        thread->frames.count = thread->nodes.count = 0;
    }
    return stack->is_partial ? pyprof__unsettled_below(sampler, node) : node;
}

/* Counts towards parking: a thread may be parked once it was calm for some looks in a row, and for 512 times the CPU
   time that it had used before, or two seconds. Why: see pyprof__weigh. */
static void pyprof__note_calm(pyprof__sampler *sampler, pyprof__thread *thread, bool is_calm, uint64_t wall,
                              uint64_t cpu) {
    uint64_t gap = thread->last.is_there ? pyprof__passed(thread->last.wall, wall) : 0;
    uint64_t used = thread->last.is_there ? pyprof__passed(thread->last.cpu, cpu) : 0;
    uint64_t restless = thread->parking.restless + PYPROF__RESTLESS_TIMES * used;
    thread->parking.restless = pyprof__passed(gap, pyprof__min64(restless, PYPROF__RESTLESS_MAX_NS));
    thread->parking.calm = is_calm ? thread->parking.calm + 1 : 0;
    sampler->waiting.candidates += thread->parking.calm >= PYPROF__CALM_LOOKS && thread->parking.restless == 0;
}

/* A sample enters the profile. seen NULL: its stack is the same as last time. The clocks are those of the observation.
   False: the thread has no Python frames, which ends its time, or there is no room. */
static bool pyprof__record(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__observation *seen,
                           uint32_t kind, uint64_t wall, uint64_t cpu) {
    uint32_t node = thread->last.node;
    if (seen != NULL) {
        if (seen->stack.root == 0) {
            pyprof__end_time(sampler, thread, wall, false);
            thread->last.cpu += pyprof__passed(thread->last.cpu, cpu);
            thread->absent_at = wall;
            return false;
        }
        pyprof__learn_object(sampler, thread, &seen->stack);
        if (thread->track == PYPROF__NONE) {
            thread->outermost.tstate = seen->levels.items[seen->levels.count - 1].tstate;
            pyprof__update_name(sampler, thread, wall);
        }
        if (thread->track == PYPROF__NONE) {
            return false;
        }
        node = pyprof__take_in(sampler, thread, seen);
        thread->last.is_in_jit = seen->stack.is_in_jit;
        thread->last.tstate = seen->levels.items[0].tstate;
    }
    pyprof__note_calm(sampler, thread, seen == NULL, wall, cpu);
    if (thread->last.is_there) {
        pyprof__share_time(sampler, thread, node, kind, wall, cpu);
    } else {
        pyprof__begin_time(sampler, thread, node, kind, wall, cpu);
    }
    pyprof__count_samples(sampler->profile, thread->track, node, kind, 1);
    sampler->stats.samples++;
    sampler->stats.truncated_depth += thread->last.is_cut || thread->last.has_gap;
    sampler->stats.samples_idle += (kind & PYPROF__IDLE) != 0;
    sampler->profile->samples_jit += thread->last.is_in_jit && !(kind & PYPROF__IDLE);
    thread->last.is_there = true;
    thread->last.node = node;
    thread->last.kind = kind;
    thread->last.wall = wall;
    thread->last.cpu = cpu;
    pyprof__update_name(sampler, thread, wall);
    return true;
}

/* The one place where a tick is counted as lost for some threads. A verdict that is no cause counts nowhere. */
static void pyprof__lose(pyprof__sampler *sampler, pyprof__verdict cause, uint64_t threads) {
    pyprof_stats *stats = &sampler->stats;
    stats->lost_pending += cause == PYPROF__PENDING ? threads : 0;
    stats->lost_late += cause == PYPROF__LATE ? threads : 0;
    stats->lost_unsettled += cause == PYPROF__UNSETTLED ? threads : 0;
    stats->lost_unreadable += cause == PYPROF__UNREADABLE ? threads : 0;
    stats->lost_memory += cause == PYPROF__NO_ROOM ? threads : 0;
}

/* What a thread did when it was seen: it was attached; or its clock has moved, and it ran during the look, or /proc has
   it as runnable; else it was idle. */
static uint32_t pyprof__kind_of(const pyprof__thread *thread, const pyprof__observation *observed) {
    if (observed->attached) {
        return PYPROF__GIL;
    }
    return observed->cpu != thread->last.cpu && (observed->ran || pyprof__thread_is_runnable(thread->tid))
               ? 0
               : PYPROF__IDLE;
}

/* Ends a look: in a sample; in a cause why there is none; or in neither, where a thread has no Python stack. True: it
   was a sample. No room for one is a cause. */
static bool pyprof__book(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__verdict verdict,
                         const pyprof__observation *observed) {
    bool is_sample = false;
    if (verdict == PYPROF__SAME || verdict == PYPROF__SEEN) {
        const pyprof__observation *seen = verdict == PYPROF__SEEN ? observed : NULL;
        uint32_t kind = pyprof__kind_of(thread, observed);
        is_sample = pyprof__record(sampler, thread, seen, kind, observed->wall, observed->cpu);
        sampler->stats.samples_held += is_sample && observed->held;
        verdict = is_sample || observed->stack.root == 0 ? verdict : PYPROF__NO_ROOM;
    }
    pyprof__lose(sampler, verdict, 1);
    return is_sample;
}

/* Whether the outermost frame of a thread's last sample is known, and belongs to what is its outermost level now. */
static bool pyprof__knows_root(const pyprof__thread *thread, const pyprof__levels *levels) {
    const pyprof__frame *last = (const pyprof__frame *)thread->frames.data;
    return thread->outermost.address != 0 && thread->frames.count > 0 &&
           thread->frames.count > (uint32_t)pyprof__is_mark(&last[0]) &&
           thread->outermost.tstate == levels->items[levels->count - 1].tstate;
}

/* Of a thread that runs Python, but not where: makes its outermost frame, which stays where it is as long as it runs,
   the whole stack, with is_partial. False: not even that is known. */
static bool pyprof__keep_root(pyprof__sampler *sampler, const pyprof__thread *thread, pyprof__observation *observed) {
    pyprof__stack *stack = &observed->stack;
    pyprof__found found;
    const pyprof__frame *last = (const pyprof__frame *)thread->frames.data;
    if (!pyprof__knows_root(thread, &observed->levels)) {
        return false;
    }
    bool has_mark = pyprof__is_mark(&last[0]);
    stack->frames[0] = last[has_mark];
    if (!pyprof__read_outermost(sampler, thread, &found, &stack->frames[0]) || !found.is_shown || !found.has_begun) {
        return false;
    }
    stack->root = thread->outermost.address;
    stack->count = stack->inner = 1;
    if (has_mark) {
        stack->frames[stack->count++] = last[0];
    }
    /* The rest of the stack still says what the walk that failed, or an earlier use of it, has found. */
    stack->root_first_local = 0;
    stack->root_is_generator = stack->is_cut = stack->is_headless = stack->has_gap = stack->is_in_jit = false;
    stack->is_partial = true;
    return true;
}

// >>asking
// Sends requests to threads that run Python, and takes in their answers. >>reading decides which threads are asked.
// In: a thread that was just seen attached, and its clocks (pyprof__ask); requests that the handler has answered
// (pyprof__collect). Out: whether a request is under way; for each answer, a sample or a count of its cause
// (pyprof__book).
// Also decided here: which thread states are borrowed (pyprof__doubt), in which order a thread's levels lie
// (pyprof__is_inner, corrected by pyprof__learn_order), and whether the signal is still ours (pyprof__is_signal_ours).
// All of it runs in the sampler's thread, under the sampler's lock, never in the handler. The handler works on requests
// at the same time: once its signal is sent, a request's state is changed by a compare-and-swap only (see >>handler).
// Invariants: of each thread the answer to at most one request is waited for (thread->asking.request). The tick in
// which that was sent counts as one sample or one loss, when the answer is taken in or given up.
// Why a thread is not asked in a tick, and the function that decides it:
//   it is parked, or has no thread state                            pyprof__tick
//   it has ended, and its clock is gone; it runs no Python          pyprof__decide
//   it is off its core: its clock does not move                     pyprof__decide
//   a request to it is pending; it is in debt (pyprof__judge)       pyprof__may_ask
//   no signal is ours; its thread state is borrowed; it blocks
//     the signal, up to blocked_until (pyprof__note_blocked)        pyprof__can_hear
//   the signal has been given another action                        pyprof__is_signal_ours
//   its mask holds the signal                                       pyprof__is_heard
//   no slot is free for a request                                   pyprof__free_request
//   it has left Python at the last look; sending failed             pyprof__send_request
// A thread that was off its core, and is found to run when it is read from outside, is asked then (pyprof__observe);
// not if it seems to be in several interpreters, and entered one on another C stack (pyprof__is_spread).
// Begin with pyprof__ask, pyprof__send_request, pyprof__collect, pyprof__take_answer, pyprof__check_blocked.

/* Keeps a thread's ask debt. A thread that computes answers in time. One that runs Python in short bursts between
   system calls has often left Python when the signal comes, and the signal may end its call with EINTR. An ended call
   adds PYPROF__COST_OF_ENDED_CALL, a late answer PYPROF__COST_OF_LATE_ANSWER, each look pays off one.
     debt               the thread is asked
     to 2 ended calls   whenever it is seen to run Python
     to 4 ended calls   only if it was on a core for the whole interval: then it is hardly about to leave Python
     more               not at all: it is read quietly */
static void pyprof__judge(pyprof__thread *thread, bool was_late, bool ended_call) {
    thread->asking.debt += ended_call ? PYPROF__COST_OF_ENDED_CALL : was_late ? PYPROF__COST_OF_LATE_ANSWER : 0;
}

/* Once for each look at a thread. A parked thread is not looked at, and pays off nothing. */
static void pyprof__pay_off(pyprof__thread *thread) {
    thread->asking.debt -= thread->asking.debt > 0;
}

/* The thread that a request was put to: the one that waits for the answer, else (it has given up waiting) a living one
   with that id. NULL = none: it has ended. The runner is tried first, as it is the likeliest. */
static pyprof__thread *pyprof__asked_thread(const pyprof__sampler *sampler, uint32_t request) {
    pyprof__thread *asked = NULL;
    if (sampler->runner != PYPROF__NONE && pyprof__thread_at(sampler, sampler->runner)->asking.request == request) {
        return pyprof__thread_at(sampler, sampler->runner);
    }
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->asking.request == request) {
            return thread;
        }
        if (thread->is_alive && thread->borrowed == 0 && thread->tid == pyprof__handler.requests[request].tid) {
            asked = thread;
        }
    }
    return asked;
}

/* Counts a sign that a thread state is borrowed. A thread state names the thread that made it, but any thread may run it
   since, and nothing that can be read from outside says which one. The signs:
     its stack has changed while its thread's CPU clock stood still (pyprof__is_borrowed), or its thread has ended
     it was entered on a C stack that is not its thread's (pyprof__is_spread)
     its thread has answered a request, and another one runs it (pyprof__deny)
   Enough of them, without its thread once seen to run it (pyprof__trust), make it borrowed for PYPROF__BORROWED_NS, as
   it may be given back. pyprof__bind then gives it a thread of its own, which has the same name, no CPU clock, and
   cannot be asked. */
static void pyprof__doubt(pyprof__sampler *sampler, pyprof__tstate *tstate) {
    sampler->has_doubts = true;
    tstate->doubts += PYPROF__DOUBT;
    if (tstate->doubts >= PYPROF__DOUBTS_ENOUGH && !tstate->is_borrowed) {
        tstate->is_borrowed = true;
        sampler->waiting.must_wake = true;
        tstate->borrowed_until = pyprof__now() + PYPROF__BORROWED_NS;
        tstate->thread = PYPROF__NONE;
    }
}

/* The thread that a thread state names runs it, or is believed to run it until there are new signs. One that was
   borrowed is bound anew. */
static void pyprof__trust(pyprof__tstate *tstate) {
    tstate->doubts = 0;
    if (tstate->is_borrowed) {
        tstate->is_borrowed = false;
        tstate->thread = PYPROF__NONE;
    }
}

/* A thread that was asked has found that another one runs the thread state at this address; 0 = none. */
static void pyprof__deny(pyprof__sampler *sampler, uintptr_t address) {
    for (uint32_t i = 0; address != 0 && i < sampler->tstates.count; i++) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        if (tstate->address == address) {
            pyprof__doubt(sampler, tstate);
        }
    }
}

/* A thread that was asked has found itself in these levels: it runs their thread states. */
static void pyprof__confirm(pyprof__sampler *sampler, const pyprof__levels *levels) {
    for (uint32_t i = 0; sampler->has_doubts && i < sampler->tstates.count; i++) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        for (uint32_t level = 0; level < levels->count; level++) {
            if (tstate->address == levels->items[level].tstate) {
                pyprof__trust(tstate);
            }
        }
    }
}

/* Books an answer that is waited for. If the thread could not read its own stack, its outermost frame is kept where
   that still stands. An answer with a stack also shows that the thread lets the signal in, and makes the code objects
   of its stack known to the handler, which then does not ring the bell for them again. */
static void pyprof__take_answer(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__request *request) {
    pyprof__observation observed = {request->wall, request->cpu, request->stack, true,           true,
                                    false,         false,        false,          request->levels};
    pyprof__verdict verdict = request->verdict;
    thread->asking.request = PYPROF__NONE;
    if (verdict == PYPROF__SEEN) {
        pyprof__confirm(sampler, &request->levels);
    } else if (verdict == PYPROF__UNSETTLED && pyprof__keep_root(sampler, thread, &observed)) {
        verdict = PYPROF__SEEN;
    }
    sampler->stats.samples_signalled += pyprof__book(sampler, thread, verdict, &observed);
    if (verdict == PYPROF__SEEN) {
        thread->asking.hears = request->signal_number;
        thread->asking.blocked_ns = 0;
    }
    if (verdict == PYPROF__SEEN && request->has_new) {
        pyprof__make_known(&request->stack);
    }
}

/* Takes in all answers that have come, and frees their requests. An answer that is not waited for any more gives no
   sample, but counts in the thread's debt if it has ended a system call. One to an earlier recording's request
   (is_left) is dropped. */
static void pyprof__collect(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < pyprof__handler.requests_used; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__state_of(request) != PYPROF__REQUEST_ANSWERED) {
            continue;
        }
        if (request->is_left) {
            pyprof__release_left(request);
            continue;
        }
        pyprof__thread *thread = pyprof__asked_thread(sampler, i);
        pyprof__deny(sampler, request->borrowed);
        if (thread != NULL) {
            bool is_waited_for = thread->asking.request == i;
            pyprof__judge(thread, is_waited_for && request->verdict == PYPROF__LATE, request->ended_call);
            if (is_waited_for) {
                pyprof__take_answer(sampler, thread, request);
            }
        }
        pyprof__set_state(request, PYPROF__REQUEST_FREE);
    }
}

/* How many threads can be asked at a time: one at least, whatever room that takes. */
static uint32_t pyprof__requests_most(const pyprof__sampler *sampler) {
    size_t most =
        sampler->desc.memory_limit / PYPROF__REQUESTS_PART / (sampler->desc.max_depth * sizeof(pyprof__frame));
    return most < 1 ? 1 : most < PYPROF__REQUESTS_MAX ? (uint32_t)most : PYPROF__REQUESTS_MAX;
}

/* The index of a FREE request. Its stack gets its room, max_depth frames, at its first use, from the reserve if need
   be. PYPROF__NONE: all requests are under way, or there is no memory. */
static uint32_t pyprof__free_request(pyprof__sampler *sampler) {
    uint32_t index = 0, most = pyprof__requests_most(sampler);
    while (index < most && pyprof__state_of(&pyprof__handler.requests[index]) != PYPROF__REQUEST_FREE) {
        index++;
    }
    if (index == most) {
        return PYPROF__NONE;
    }
    pyprof__stack *stack = &pyprof__handler.requests[index].stack;
    if (stack->frames == NULL) {
        size_t reserve = pyprof__open_reserve(sampler->memory);
        stack->capacity = sampler->desc.max_depth;
        stack->frames = (pyprof__frame *)pyprof__alloc(sampler->memory, stack->capacity * sizeof *stack->frames);
        sampler->memory->reserve = reserve;
    }
    pyprof__handler.requests_used += index == pyprof__handler.requests_used;
    return stack->frames != NULL ? index : PYPROF__NONE;
}

/* Reads the moment of a look, then the thread's CPU time. Whatever was seen of the thread earlier is not fresh any
   more. */
static void pyprof__read_clocks(const pyprof__thread *thread, pyprof__observation *observed) {
    observed->wall = pyprof__now();
    observed->cpu = pyprof__cpu_time(thread);
    observed->is_fresh = false;
}

/* Fills in what the handler needs: the levels to begin with, and the clocks of this look, from which it derives its own
   (pyprof__capture_own). Only while the request is FREE or CANCELLED: then the handler reads no more of it than tid and
   signal_number of a CANCELLED one (pyprof__question_without_word), which stay the same. */
static void pyprof__put_question(pyprof__request *request, const pyprof__thread *thread,
                                 const pyprof__observation *seen) {
    request->tid = thread->tid;
    request->signal_number = pyprof__handler.signal_number;
    request->borrowed = 0;
    request->levels = seen->levels;
    request->wall = seen->wall;
    request->cpu = seen->cpu;
}

/* Puts a request anew whose signal has not come yet: the signal of a CANCELLED request to this thread still waits
   before it, so no second one is sent. The number stays, as the signal carries it. The handler may take the request up
   at this moment: then the swap fails. The request's index; PYPROF__NONE: there is no such request. */
static uint32_t pyprof__renew_request(const pyprof__thread *thread, const pyprof__observation *seen) {
    for (uint32_t i = 0; i < pyprof__handler.requests_used; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        if (pyprof__state_of(request) == PYPROF__REQUEST_CANCELLED && request->tid == thread->tid) {
            pyprof__put_question(request, thread, seen);
            if (pyprof__swap_state(request, PYPROF__REQUEST_CANCELLED, PYPROF__REQUEST_SENT)) {
                return i;
            }
        }
    }
    return PYPROF__NONE;
}

/* Whether the thread is attached at this moment in one of the levels from an index on: 0 = any of them; 1 = any but the
   one in which it was thought to be. A thread state other than that one may have ended since, and its memory be
   another's: so its ids are compared, too. */
static bool pyprof__is_attached_in(const pyprof__sampler *sampler, const pyprof__levels *levels, uint32_t from) {
    for (uint32_t i = from; i < levels->known; i++) {
        const pyprof__level *level = &levels->items[i];
        if (pyprof__is_attached_now(&sampler->layout, level->tstate) &&
            (i == 0 || pyprof__level_now(&sampler->layout, levels->thread_id, level) != PYPROF__LEVEL_GONE)) {
            return true;
        }
    }
    return false;
}

/* Reads into the view, ahead of a walk, what that needs of the innermost frames' code objects: all of them in one
   system call, and to 3.11 what their fingerprints are made of in another. The walk alone would make a call for each.
   The frames are followed twice for it, which is worth it only for a thread that stands still because the sampler has
   its core. What cannot be read is left to the walk. */
static void pyprof__fetch_codes(pyprof__sampler *sampler, uintptr_t tstate) {
    enum {
        most = PYPROF__BLOCKS / 4
    };
    const pyprof__layout *layout = &sampler->layout;
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uintptr_t frame = 0, codes[most], places[2 * most];
    uint32_t count = 0, more = 0;
    if (!pyprof__leaf_frame(layout, &reader, tstate, &frame)) {
        return;
    }
    while (frame != 0 && count < most && pyprof__load_word(&reader, frame + layout->frame_code, &codes[count]) &&
           pyprof__load_word(&reader, frame + layout->frame_previous, &frame)) {
        codes[count] &= ~layout->executable_tags;
        places[2 * count] = codes[count];
        places[2 * count + 1] = codes[count] + layout->code_lines;
        count++;
    }
    if (count == 0) {
        return;
    }
    pyprof__view_fetch(&sampler->view, places, 2 * count);
    for (uint32_t i = 0; i < count; i++) {
        more += pyprof__places_of_code(layout, &reader, codes[i], &places[more]);
    }
    pyprof__view_fetch(&sampler->view, places, more);
}

/* Reads a thread's stack once, through all its levels. What the last walk over this thread state has read is read at
   once, in one system call, so that little changes meanwhile; stands: see pyprof__fetch_codes. False: something on the
   way was no frame, or the thread is attached in another level by now. */
static bool pyprof__read_stack(pyprof__sampler *sampler, bool stands, pyprof__observation *observed) {
    const pyprof__levels *levels = &observed->levels;
    pyprof__stack *stack = &observed->stack;
    uintptr_t leaf = 0, tstate = levels->items[0].tstate;
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    pyprof__view_renew(&sampler->view, tstate);
    if (stands) {
        pyprof__fetch_codes(sampler, tstate);
    }
    if (!pyprof__leaf_frame(&sampler->layout, &reader, tstate, &leaf) ||
        !pyprof__walk(&sampler->layout, &reader, leaf, stack)) {
        return false;
    }
    stack->is_in_jit = pyprof__is_in_jit(&sampler->layout, &reader, tstate);
    return pyprof__walk_outer(&sampler->layout, &reader, levels, stack) && !pyprof__is_attached_in(sampler, levels, 1);
}

/* Where on a C stack a thread state was entered last; 0 = it has no frames, or that is not known, as to 3.10. The
   caller resets the view. */
static uintptr_t pyprof__entry_of(pyprof__sampler *sampler, const pyprof__tstate *tstate) {
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uintptr_t word = pyprof__tstate_word(tstate, sampler->layout.ts_frame);
    return tstate->framed_since != 0 ? pyprof__entry_address(&sampler->layout, &reader, word) : 0;
}

/* Whether a is further in than b, of two thread states of one thread. What is attached is where the thread is. Else
   what was entered at the lower address was entered later, as C stacks grow downwards; where addresses are not known,
   what was seen later to have frames. Those without frames come last, in any order. */
static bool pyprof__is_inner(pyprof__sampler *sampler, const pyprof__tstate *a, const pyprof__tstate *b) {
    bool is_attached = pyprof__is_attached(&sampler->layout, a->address, a->copy);
    if (is_attached || pyprof__is_attached(&sampler->layout, b->address, b->copy)) {
        return is_attached;
    }
    if (a->framed_since == 0 || b->framed_since == 0) {
        return b->framed_since == 0;
    }
    pyprof__view_reset(&sampler->view);
    uintptr_t entry_a = pyprof__entry_of(sampler, a), entry_b = pyprof__entry_of(sampler, b);
    return entry_a != 0 && entry_b != 0 ? entry_a < entry_b : a->framed_since > b->framed_since;
}

static pyprof__level pyprof__level_of(const pyprof__tstate *tstate) {
    pyprof__level level = {tstate->address, tstate->interp, tstate->id, tstate->interp_id, 0};
    return level;
}

/* The levels of a thread, from the order that pyprof__join has brought its thread states in: the first count of them
   are those it is in, the innermost first; the others, up to known, have no frames, and may be entered at any time. */
static void pyprof__find_levels(const pyprof__sampler *sampler, const pyprof__thread *thread, pyprof__levels *levels) {
    uint32_t at = thread->tstate;
    levels->count = levels->known = 0;
    levels->naming = pyprof__process.interpreter_names.generation;
    levels->thread_id = thread->thread_id;
    for (; at != PYPROF__NONE && levels->known < PYPROF__LEVELS_MAX; at = pyprof__tstate_at(sampler, at)->sibling) {
        const pyprof__tstate *tstate = pyprof__tstate_at(sampler, at);
        levels->count += at == thread->tstate || tstate->framed_since != 0;
        levels->items[levels->known++] = pyprof__level_of(tstate);
    }
    levels->is_cut = at != PYPROF__NONE && pyprof__tstate_at(sampler, at)->framed_since != 0;
    levels->is_whole = at == PYPROF__NONE && sampler->has_whole_lists;
}

/* Corrects the order in which a thread's interpreters were entered, before its levels are found. Two that were entered
   between two ticks were put in an order by guess (pyprof__join). What is attached while the other still has frames was
   entered after it. */
static void pyprof__learn_order(pyprof__sampler *sampler, const pyprof__thread *thread) {
    const pyprof__layout *layout = &sampler->layout;
    pyprof__tstate *inner = pyprof__tstate_at(sampler, thread->tstate);
    for (uint32_t at = inner->sibling; at != PYPROF__NONE; at = pyprof__tstate_at(sampler, at)->sibling) {
        const pyprof__tstate *other = pyprof__tstate_at(sampler, at);
        pyprof__level outer = pyprof__level_of(other);
        if (inner->framed_since != 0 && inner->framed_since <= other->framed_since &&
            pyprof__level_now(layout, thread->thread_id, &outer) == PYPROF__LEVEL_STANDS &&
            !pyprof__is_attached_now(layout, other->address) && pyprof__is_attached_now(layout, inner->address)) {
            inner->framed_since = other->framed_since + 1;
        }
    }
}

/* Gives up waiting for a thread's answer, and counts the tick in which it was asked as PENDING. A signal that has not
   come yet finds the request CANCELLED and copies nothing. If the handler is at work already, its answer gives no
   sample. */
static void pyprof__cancel(pyprof__sampler *sampler, pyprof__thread *thread) {
    if (thread->asking.request != PYPROF__NONE) {
        pyprof__lose(sampler, PYPROF__PENDING, 1);
        pyprof__swap_state(&pyprof__handler.requests[thread->asking.request], PYPROF__REQUEST_SENT,
                           PYPROF__REQUEST_CANCELLED);
        thread->asking.request = PYPROF__NONE;
    }
}

/* Which signal asks, and whether it is still ours. The program may give it another action at any time, and each thread
   may block it. So its action is looked at before each request (sigaction, 0.3 us). A thread's mask is looked at before
   its first request, and again when it has run without an answer: that is a file below /proc, and costs as much as
   several looks. */

/* For the log. Those with a name are the ones that pyprof__free_signal chooses from. */
static const char *pyprof__signal_name(int number, char text[32]) {
    snprintf(text, 32, "signal %d", number);
    return number == SIGURG ? "SIGURG" : number == SIGWINCH ? "SIGWINCH" : text;
}

static const char pyprof__none_is_free[] =
    "no signal is free: threads that run Python are held while they are read from now on, or, where that "
    "cannot be, short functions may show as [unsettled]";

/* Tells the host's log that another signal asks; 0 = none. why continues a sentence that begins with the old one's
   name. */
static void pyprof__tell_change(pyprof__sampler *sampler, int before, int after, const char *why) {
    char text[320], room[2][32];
    const char *old = pyprof__signal_name(before, room[0]), *new_one = pyprof__signal_name(after, room[1]);
    if (before == 0) {
        snprintf(text, sizeof text, "%s is free: threads are asked by it from now on", new_one);
    } else if (after == 0) {
        snprintf(text, sizeof text, "%s %s, and %s", old, why, pyprof__none_is_free);
    } else if (before == after) {
        snprintf(text, sizeof text, "%s %s, which does nothing: it is taken again", old, why);
    } else {
        snprintf(text, sizeof text, "%s %s: threads are asked by %s from now on", old, why, new_one);
    }
    pyprof__warn(sampler, text);
}

/* Cancels what was asked of threads that no longer exist, and gives their requests back. The thread state of such a
   thread may still be there; it must not keep a request that is another thread's from here on. */
static void pyprof__drop_dead_questions(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->asking.request != PYPROF__NONE && !pyprof__thread_lives(thread->tid)) {
            pyprof__cancel(sampler, thread);
        }
    }
    pyprof__drop_dead_requests();
}

/* Ends all requests, as their signal is given up: no answer will come, or none in time. Those that are waited for count
   as PENDING. */
static void pyprof__drop_questions(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__cancel(sampler, pyprof__thread_at(sampler, i));
    }
    for (uint32_t i = 0; i < pyprof__handler.requests_used; i++) {
        pyprof__take_back(&pyprof__handler.requests[i]);
    }
}

/* Looks for a signal that is free, and takes it; 0 = none is. It reads the mask of every thread of the process, so the
   next look comes a second later, and not so often that looking takes more than a fiftieth of the time. */
static int pyprof__look_for_signal(pyprof__sampler *sampler) {
    uint64_t begin = pyprof__now();
    int number = pyprof__free_signal(sampler->tid);
    uint64_t end = pyprof__now(), pause = PYPROF__SEEK_SIGNAL_PART * (end - begin);
    sampler->move_due = end + (pause > PYPROF__SEEK_SIGNAL_NS ? pause : PYPROF__SEEK_SIGNAL_NS);
    return number != 0 && pyprof__take_signal(number) ? number : 0;
}

/* Gives up the signal that asks, if there is one, and takes another one, if one is free and it is time to look for
   one. */
static void pyprof__change_signal(pyprof__sampler *sampler, const char *why) {
    int before = pyprof__handler.signal_number, after = 0;
    pyprof__handler.signal_number = 0;
    if (before != 0) {
        pyprof__release_signal(before, false);
        pyprof__drop_questions(sampler);
    }
    if (pyprof__now() >= sampler->move_due) {
        after = pyprof__look_for_signal(sampler);
    }
    sampler->stats.signal_number = after;
    if (before != 0 || after != 0) {
        sampler->stats.signal_changes++;
        pyprof__tell_change(sampler, before, after, why);
    }
}

/* At each tick: while there is no signal to ask by, looks for one when it is time. Not where the host wants none
   sent. */
static void pyprof__seek_signal(pyprof__sampler *sampler) {
    if (sampler->desc.capture == PYPROF_CAPTURE_DEFAULT && pyprof__handler.signal_number == 0) {
        pyprof__change_signal(sampler, "");
    }
}

/* The thread blocks the signal, by this mask; UINT64_MAX: its mask is not known, but it does not answer, or it cannot
   be sent a signal. It is not asked for a while, and each time for twice as long: a thread that makes another one
   blocks all signals for a moment only. If the mask holds few signals the thread has a use for this one, by sigwait or
   a signalfd: then another one is taken, by which this thread may be asked at once. */
static void pyprof__note_blocked(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t blocked) {
    pyprof__cancel(sampler, thread);
    thread->asking.hears = 0;
    thread->asking.blocked_ns =
        pyprof__min64(thread->asking.blocked_ns == 0 ? PYPROF__BLOCKED_WAIT_NS : 2 * thread->asking.blocked_ns,
                      PYPROF__BLOCKED_WAIT_MAX_NS);
    thread->asking.blocked_until = pyprof__now() + thread->asking.blocked_ns;
    if (!pyprof__are_most(blocked)) {
        pyprof__change_signal(sampler, "is blocked by a thread of the program, as who waits for it does");
        thread->asking.blocked_until = 0;
    }
}

/* Whether the thread lets the signal in, as far as is known: by its last answer, else by its mask. Where masks cannot
   be read (no /proc, no descriptor left) it is asked all the same, and pyprof__check_blocked sees whether it
   answers. */
static bool pyprof__is_heard(pyprof__sampler *sampler, pyprof__thread *thread) {
    pyprof__signals signals;
    int number = pyprof__handler.signal_number;
    if (thread->asking.hears == number) {
        return true;
    }
    bool is_told = pyprof__read_signals(thread->tid, &signals);
    if (is_told && (signals.blocked & pyprof__signal_bit(number))) {
        pyprof__note_blocked(sampler, thread, signals.blocked);
        return false;
    }
    thread->asking.blocked_ns = is_told ? 0 : thread->asking.blocked_ns;
    thread->asking.hears = number;
    return true;
}

/* Whether the signal's action is ours at this moment. False: the program has given it another one, and another signal
   was taken, if one was free. Where only its flags were changed (siginterrupt takes SA_RESTART from whatever action
   there is) they are set again. */
static bool pyprof__is_signal_ours(pyprof__sampler *sampler) {
    const int ones_that_count = PYPROF__ACTION_FLAGS | (int)SA_RESETHAND | SA_NODEFER;
    struct sigaction action;
    int number = pyprof__handler.signal_number;
    if (sigaction(number, NULL, &action) != 0 || !pyprof__is_our_action(&action)) {
        pyprof__change_signal(sampler, "has been given another action by the program");
        return false;
    }
    if ((action.sa_flags & ones_that_count) != PYPROF__ACTION_FLAGS) {
        pyprof__mend_flags(number, &action);
    }
    return true;
}

/* Finds out why a thread that was asked does not answer, once it has used PYPROF__UNANSWERED_NS of CPU time since; cpu:
   its clock now.
     it blocks the signal         it is not asked for a while; where nothing else is lost by that, what is pending of
                                  ours is discarded, before a thread that waits for that signal gets it
     not blocked, one pending     it will come
     not blocked, none pending    it was taken by sigwait, or merged with another one (standard signals do not queue):
                                  the request is given up
     its mask cannot be read      after PYPROF__UNANSWERED_MAX_NS it counts as one that blocks the signal */
static void pyprof__check_blocked(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t cpu) {
    pyprof__signals signals;
    if (thread->asking.request == PYPROF__NONE || pyprof__passed(thread->asking.cpu, cpu) < PYPROF__UNANSWERED_NS ||
        thread->asking.hears == 0 ||
        pyprof__state_of(&pyprof__handler.requests[thread->asking.request]) != PYPROF__REQUEST_SENT) {
        return;
    }
    pyprof__request *request = &pyprof__handler.requests[thread->asking.request];
    int number = request->signal_number;
    uint64_t bit = pyprof__signal_bit(number);
    if (!pyprof__read_signals(thread->tid, &signals)) {
        if (pyprof__passed(thread->asking.cpu, cpu) >= PYPROF__UNANSWERED_MAX_NS) {
            pyprof__note_blocked(sampler, thread, UINT64_MAX);
        }
        return;
    }
    thread->asking.cpu = cpu;
    if (!(signals.blocked & bit)) {
        if (!(signals.pending & bit)) {
            pyprof__cancel(sampler, thread);
            pyprof__take_back(request);
        }
        return;
    }
    if (pyprof__ignores(number, &pyprof__handler.previous[number]) && !pyprof__would_discard(number)) {
        pyprof__discard(number);
    }
    pyprof__note_blocked(sampler, thread, signals.blocked);
}

/* Sends a new request to a thread. The request is SENT before its signal is, as the handler may run before the system
   call returns. Its index; PYPROF__NONE: none is free, or the thread has left Python since it was seen, or it could not
   be sent a signal. */
static uint32_t pyprof__send_request(pyprof__sampler *sampler, pyprof__thread *thread,
                                     const pyprof__observation *seen) {
    uint32_t index = pyprof__free_request(sampler);
    if (index == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    pyprof__request *request = &pyprof__handler.requests[index];
    pyprof__put_question(request, thread, seen);
    pyprof__number_question(request);
    /* This last look, just before sending, spares system calls: of a thread that does little but system calls, one was
       ended at 0.085 % of the ticks, and without this look at 0.4 % (1 kHz). */
    bool is_attached = seen->is_fresh || pyprof__is_attached_in(sampler, &seen->levels, 0);
    if (!is_attached || !pyprof__signal_thread(thread->tid, pyprof__handler.signal_number, pyprof__question(index))) {
        pyprof__set_state(request, PYPROF__REQUEST_FREE);
        if (is_attached && errno != ESRCH) { /* too many real-time signals are under way, or a filter refuses it */
            pyprof__note_blocked(sampler, thread, UINT64_MAX);
        }
        return PYPROF__NONE;
    }
    sampler->stats.signals++;
    return index;
}

/* Asks the thread for its own stack. True: a request is under way, and pyprof__collect takes in its answer, at the next
   tick or when the bell rings. False: it cannot be asked now, and the caller reads it from outside. */
static bool pyprof__ask(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__observation *seen) {
    if (!pyprof__is_signal_ours(sampler) || !pyprof__is_heard(sampler, thread)) {
        return false;
    }
    thread->asking.request = pyprof__renew_request(thread, seen);
    if (thread->asking.request == PYPROF__NONE) {
        thread->asking.cpu = seen->cpu; /* not where a signal waits already: that was sent before */
        thread->asking.request = pyprof__send_request(sampler, thread, seen);
    }
    thread->asking.was_asked = thread->asking.was_asked || thread->asking.request != PYPROF__NONE;
    thread->asking.ticks = 0;
    return thread->asking.request != PYPROF__NONE;
}

// >>reading
// One look at one thread: it is asked, or its stack is read from outside, held or quietly.
// In: a thread, its thread states as this tick's lists have them, and its clocks (pyprof__begin_look). Out: one
// verdict, which pyprof__book turns into one sample or one count; a thread without Python frames gives neither.
// All of it runs in the sampler's thread, under the sampler's lock, never in the handler. It waits for no thread.
// Invariant: what is read from outside counts only if the thread's CPU clock stood still from before the read until
// after it, or as far as three reads agree.
// From an observation to a verdict, in the order in which it is tried (pyprof__decide, then pyprof__observe):
//
//  a look finds                           what is done              verdict            counted as (pyprof_stats)
//  its clock is gone: it has ended        its time ends             UNREADABLE         lost_unreadable
//  not attached, clock did not move       nothing                   SAME               samples, samples_idle; its stack
//                                                                                        is the last one's
//  attached, on a core, may be asked      a request is sent         ASKED              by the answer:
//                                           the answer              SEEN               samples_signalled
//                                                                   LATE, UNSETTLED    lost_late, lost_unsettled
//  a level entered on another C stack     a doubt                   UNSETTLED          lost_unsettled
//  asked before, no answer yet            it stands still: read     SEEN               samples, and lost_pending for
//                                                                                        the tick in which it was asked
//                                         it runs: nothing          PENDING            lost_pending
//  it stands still (waits, or has no      read once                 SEEN               samples, or samples_idle
//    core)
//  it runs Python, cannot be asked        held, read once           SEEN               samples_held
//  it runs, cannot be asked or held       read quietly              SEEN               samples, samples_partial
//  reads fail, or do not agree            attached: its outermost   SEEN               samples_partial
//                                           frame is looked at      or UNSETTLED       lost_unsettled
//                                         not attached: nothing     UNSETTLED          lost_unsettled
//  the thread state is another's by now   nothing                   UNREADABLE         lost_unreadable
//  memory_limit                           nothing                   NO_ROOM            lost_memory
//
// Begin with pyprof__look, pyprof__decide, pyprof__observe, pyprof__read_once, pyprof__read_quietly, pyprof__read_held.

/* Whether two reads found the same. The place of the leaf frame counts, too, as a function may have been left and
   called again. */
static bool pyprof__stacks_agree(const pyprof__stack *a, const pyprof__stack *b) {
    return a->leaf == b->leaf && a->count == b->count && a->is_cut == b->is_cut &&
           memcmp(a->frames, b->frames, a->count * sizeof *a->frames) == 0;
}

static bool pyprof__same_code(const pyprof__frame *a, const pyprof__frame *b) {
    return a->code == b->code && a->fingerprint == b->fingerprint;
}

/* Whether a stack that was read while it changed goes as far out as it should: its outermost frame runs the same code
   as that of the thread's last stack. True also if no such stack is known. A frame that is being left has lost its link
   outwards, and a walk ends there as at a root. */
static bool pyprof__has_known_root(const pyprof__thread *thread, const pyprof__levels *levels,
                                   const pyprof__stack *stack) {
    return !pyprof__knows_root(thread, levels) ||
           (stack->count > 0 && pyprof__same_code(&PYPROF__ITEM(const pyprof__frame, &thread->frames, 0),
                                                  &stack->frames[stack->count - 1]));
}

static bool pyprof__holds_gap(const pyprof__stack *stack) {
    for (uint32_t i = 0; i < stack->count; i++) {
        if (pyprof__is_mark(&stack->frames[i]) && (int64_t)stack->frames[i].fingerprint == PYPROF__GAP) {
            return true;
        }
    }
    return false;
}

/* Cuts a stack down to what it has in common with a second read: from the root on, the frames that are equal, and then
   one in which only the instruction differs. If that was the leaf of both the stack is whole, else partial. False: they
   have nothing in common, are cut, or do not begin as the thread's stacks do; nothing was changed. */
static bool pyprof__keep_common(const pyprof__thread *thread, const pyprof__levels *levels, pyprof__stack *stack,
                                const pyprof__stack *second) {
    uint32_t common = 0;
    uint32_t most = stack->count < second->count ? stack->count : second->count;
    const pyprof__frame *a = stack->frames + stack->count, *b = second->frames + second->count;
    if (stack->is_cut || second->is_cut || !pyprof__has_known_root(thread, levels, stack)) {
        return false;
    }
    while (common < most && memcmp(&a[-1 - (ptrdiff_t)common], &b[-1 - (ptrdiff_t)common], sizeof *a) == 0) {
        common++;
    }
    if (common < most && pyprof__same_code(&a[-1 - (ptrdiff_t)common], &b[-1 - (ptrdiff_t)common])) {
        common++;
    }
    if (common == 0) {
        return false;
    }
    memmove(stack->frames, stack->frames + (stack->count - common), common * sizeof *stack->frames);
    stack->is_partial = common < stack->count || common < second->count;
    stack->count = common;
    stack->has_gap = pyprof__holds_gap(stack);
    return true;
}

/* Whether a stack agrees with an earlier read of it, if need be after pyprof__keep_common. What was partial in the
   earlier read stays partial. */
static bool pyprof__settle(const pyprof__thread *thread, const pyprof__levels *levels, pyprof__stack *stack,
                           const pyprof__stack *earlier) {
    bool agrees = pyprof__stacks_agree(earlier, stack) || pyprof__keep_common(thread, levels, stack, earlier);
    stack->is_partial = stack->is_partial || (agrees && earlier->is_partial);
    return agrees;
}

/* Brings the levels of a thread of several interpreters up to date: it is where it is attached, else where it entered
   last. That is looked for first in those that had no frames before. Where it cannot be told, the levels stay. */
static void pyprof__catch_up(const pyprof__sampler *sampler, pyprof__levels *levels) {
    const pyprof__layout *layout = &sampler->layout;
    uint32_t at = 0, i = 0;
    if (levels->known < 2) {
        return;
    }
    while (at < levels->known && !pyprof__is_attached_now(layout, levels->items[at].tstate)) {
        at++;
    }
    for (; at == levels->known && i < levels->known; i++) {
        uint32_t next = (levels->count + i) % levels->known; /* what had no frames before comes first */
        if (pyprof__level_now(layout, levels->thread_id, &levels->items[next]) == PYPROF__LEVEL_STANDS) {
            at = next;
        }
    }
    if (at < levels->known) {
        pyprof__follow(layout, levels, levels->items[at].tstate);
    }
}

/* Whether the thread is still in the levels in which its stack was just read. */
static bool pyprof__has_stayed(const pyprof__sampler *sampler, const pyprof__levels *levels) {
    pyprof__levels now = *levels;
    pyprof__catch_up(sampler, &now);
    return now.count == levels->count && memcmp(now.items, levels->items, levels->known * sizeof *levels->items) == 0;
}

/* Some words of this process's memory: what was read, and where it lies, so that it can be read again. */
#define PYPROF__LEAF_WORDS 4u
typedef struct pyprof__words {
    uint32_t count;
    uintptr_t items[PYPROF__LEAF_WORDS];
    struct iovec places[PYPROF__LEAF_WORDS];
} pyprof__words;

static bool pyprof__add_word(pyprof__reader *reader, uintptr_t address, pyprof__words *words) {
    words->places[words->count].iov_base = (void *)address;
    words->places[words->count].iov_len = sizeof *words->items;
    return pyprof__load_word(reader, address, &words->items[words->count++]);
}

/* Finds the words that change with every step of a thread that runs this thread state: its leaf frame (3.11 and 3.12:
   by way of a cframe), the instruction that it is at, and its link outwards. They have the values that the view holds,
   so those of the last walk. */
static bool pyprof__find_leaf_words(const pyprof__layout *layout, pyprof__reader *reader, uintptr_t tstate,
                                    pyprof__words *words) {
    memset(words, 0, sizeof *words);
    bool is_read = pyprof__add_word(reader, tstate + layout->ts_frame, words);
    if (is_read && layout->cframe_frame != PYPROF__ABSENT && words->items[0] != 0) {
        is_read = pyprof__add_word(reader, words->items[0] + layout->cframe_frame, words);
    }
    uintptr_t frame = words->items[words->count - 1];
    return is_read && (frame == 0 || (pyprof__add_word(reader, frame + layout->frame_instr, words) &&
                                      pyprof__add_word(reader, frame + layout->frame_previous, words)));
}

/* Whether another thread may run what was just read of a thread that has not run meanwhile: the stack has changed, or
   there were signs before that have not been taken back. Its leaf is compared with what is there now, and with what was
   there at the last look if the thread's clock still says what it said then. A difference is a sign that the thread
   state is borrowed (pyprof__doubt), unless the thread is attached in another level. False if the thread itself runs
   again by now. */
static bool pyprof__is_borrowed(pyprof__sampler *sampler, const pyprof__thread *thread,
                                const pyprof__observation *observed) {
    const pyprof__levels *levels = &observed->levels;
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, thread->tstate);
    pyprof__reader reader = {0, 0, 0, 0, &sampler->view};
    uintptr_t now[PYPROF__LEAF_WORDS] = {0};
    pyprof__words then;
    bool agrees = pyprof__find_leaf_words(&sampler->layout, &reader, levels->items[0].tstate, &then) &&
                  pyprof__read_places(then.places, then.count, now, then.count * sizeof *now) &&
                  memcmp(then.items, now, then.count * sizeof *now) == 0;
    if (pyprof__cpu_time(thread) != observed->cpu) {
        return false; /* it runs again by now, but did not during the walk */
    }
    if (tstate->address != levels->items[0].tstate) {
        return !agrees;
    }
    uint32_t leaf = agrees ? pyprof__hash(then.items, then.count * sizeof *then.items) : 0;
    bool has_run = tstate->leaf_cpu != observed->cpu;
    agrees = agrees && (has_run || tstate->leaf == leaf);
    tstate->leaf = leaf;
    tstate->leaf_cpu = observed->cpu;
    if (agrees) { /* where nobody has run since the last look, this one says nothing */
        tstate->doubts -= has_run && tstate->doubts > 0;
    } else if (!pyprof__is_attached_in(sampler, levels, 1)) {
        pyprof__doubt(sampler, tstate);
    }
    return !agrees || tstate->doubts > 0;
}

/* Whether the stack of a thread that stood still can be whole. An attached thread may be taken off its core anywhere,
   also where CPython is just making or leaving a frame. Then a generator may lie at the root, without its link
   outwards. What is no frame has ended the walk: see pyprof__read_frame. */
static bool pyprof__is_sound(const pyprof__observation *observed) {
    return !observed->attached || observed->stack.is_cut || !observed->stack.root_is_generator;
}

/* Reads a stack once, between two looks at the thread's CPU clock. *stood: the clock did not move, so the thread has
   not run and cannot have changed its stack; never for a borrowed thread state, as it is not known whose clock that
   would be. True: the stack was read; it is the thread's if *stood, else it may be torn. observed->cpu is 0 if the
   thread has ended meanwhile. */
static bool pyprof__read_once(pyprof__sampler *sampler, const pyprof__thread *thread, bool stands,
                              pyprof__observation *observed, bool *stood) {
    pyprof__read_clocks(thread, observed);
    pyprof__catch_up(sampler, &observed->levels);
    observed->attached = pyprof__is_attached_now(&sampler->layout, observed->levels.items[0].tstate);
    bool is_read = pyprof__read_stack(sampler, stands, observed);
    /* The earlier clock belongs to this stack: if the thread ran on it may wait elsewhere by now, and the next look has
       to see that it has run. */
    uint64_t after = pyprof__cpu_time(thread);
    *stood = after == observed->cpu && thread->borrowed == 0;
    observed->cpu = after != 0 ? observed->cpu : 0;
    if (!*stood) {
        return is_read;
    }
    if (is_read && observed->attached && pyprof__is_borrowed(sampler, thread, observed)) {
        observed->attached = false;
        return false;
    }
    return is_read && observed->cpu != 0 && pyprof__is_sound(observed);
}

/* Reads a stack from outside, once if the thread stands still. If it runs, three reads one after the other, not
   counting those that fail, are kept as far as they agree, within PYPROF__QUIET_READS_MAX attempts: to read on until
   all is equal would favour what moves little. But a thread that runs is left alone if its answer is waited_for, or if
   it runs Python and can be asked (can_ask): false, with observed->ran, and attached in the second case.
   observed->stack lies in the sampler's scratch. */
static bool pyprof__read_quietly(pyprof__sampler *sampler, const pyprof__thread *thread, bool waited_for, bool can_ask,
                                 pyprof__observation *observed) {
    const pyprof__levels *levels = &observed->levels;
    uint64_t end = pyprof__now() + PYPROF__QUIET_NS;
    pyprof__stack first;
    bool was_attached = false, has_first = false;
    int agreed = 0;
    memset(&first, 0, sizeof first);
    first.frames = (pyprof__frame *)sampler->scratch.data;
    observed->stack.frames = first.frames + sampler->desc.max_depth;
    first.capacity = observed->stack.capacity = sampler->desc.max_depth;
    for (int attempt = 0; attempt < PYPROF__QUIET_READS_MAX && (attempt < PYPROF__QUIET_READS || pyprof__now() < end);
         attempt++) {
        bool stood = false, is_read = pyprof__read_once(sampler, thread, observed->stands, observed, &stood);
        if (stood) {
            return is_read;
        }
        observed->ran = true;
        if (waited_for) {
            return false;
        }
        if (can_ask && (observed->attached || pyprof__is_attached_in(sampler, levels, 1))) {
            observed->attached = true;
            return false;
        }
        /* A generator at the root of a running thread's stack has just lost its link outwards: it is being left. */
        is_read = is_read && !observed->stack.root_is_generator &&
                  (observed->stack.is_cut || pyprof__is_outermost(&sampler->layout, observed->stack.root)) &&
                  pyprof__has_stayed(sampler, levels);
        if (is_read) {
            bool agrees = has_first && observed->attached == was_attached &&
                          pyprof__settle(thread, levels, &observed->stack, &first);
            agreed = agrees ? agreed + 1 : 0;
            if (agreed == 2) {
                return true;
            }
            pyprof__stack spare = first;
            first = observed->stack;
            observed->stack = spare;
            was_attached = observed->attached;
            has_first = true;
        }
    }
    return false;
}

/* Whether the thread can be asked at present, its ask debt aside. If not, it is held, or read quietly, when it runs
   Python. */
static bool pyprof__can_hear(const pyprof__thread *thread, uint64_t now) {
    return pyprof__handler.signal_number != 0 && thread->borrowed == 0 && now >= thread->asking.blocked_until;
}

/* Whether the thread may be asked now. is_steady: it was on a core for the whole interval (see pyprof__judge). */
static bool pyprof__may_ask(const pyprof__thread *thread, uint64_t now, bool is_steady) {
    return thread->asking.request == PYPROF__NONE && pyprof__can_hear(thread, now) &&
           thread->asking.debt <= (is_steady ? PYPROF__ASK_DEBT_MAX_STEADY : PYPROF__ASK_DEBT_MAX);
}

/* Whether it is safe to change for a moment on which cores the thread may run. That is the host's to say, and Linux
   cannot be told to change it only if it still is what it was: what the host sets in the microsecond between our look
   and our change is lost. So a thread is held only after it had the same cores at PYPROF__CORES_LOOKS looks, and after
   a change not for PYPROF__HANDS_OFF_NS. False also if they cannot be read. */
static bool pyprof__watch_cores(pyprof__holder *holder, pyprof__thread *thread) {
    pyprof__cores cores;
    if (!pyprof__get_cores(thread->tid, &cores)) {
        return errno != ESRCH && pyprof__meet(holder, PYPROF__CORES_NOT_TOLD);
    }
    uint64_t fingerprint = pyprof__hash(cores.bits, cores.size) | 1u;
    if (fingerprint != thread->holding.cores) {
        thread->holding.from = thread->holding.cores != 0 ? pyprof__now() + PYPROF__HANDS_OFF_NS : 0;
        thread->holding.cores = fingerprint;
        thread->holding.looks = 0;
    }
    thread->holding.looks += thread->holding.looks < PYPROF__CORES_LOOKS;
    return thread->holding.looks == PYPROF__CORES_LOOKS &&
           (thread->holding.from == 0 || pyprof__now() >= thread->holding.from);
}

/* Tells the host's log of each obstacle to holding threads that was met, once. */
static void pyprof__tell_obstacles(pyprof__sampler *sampler) {
    char text[320];
    pyprof__holder *holder = &sampler->holder;
    for (uint32_t i = 0; holder->told != holder->met && i < PYPROF__OBSTACLES; i++) {
        if ((holder->met & ~holder->told) >> i & 1) {
            snprintf(text, sizeof text,
                     "threads that cannot be asked cannot be held either, as %s: short functions in them will show as "
                     "[unsettled]",
                     pyprof__obstacles[i]);
            pyprof__warn(sampler, text);
        }
    }
    holder->told = holder->met;
}

/* Whether a thread that cannot be asked may be held instead. Looks at its cores, so once a look at most. */
static bool pyprof__may_hold(pyprof__sampler *sampler, pyprof__thread *thread) {
    bool is_wanted = sampler->desc.capture != PYPROF_CAPTURE_QUIET && !sampler->desc.never_hold;
    bool may_hold = is_wanted && thread->borrowed == 0 && !sampler->holder.is_refused &&
                    pyprof__watch_cores(&sampler->holder, thread);
    pyprof__tell_obstacles(sampler);
    return may_hold;
}

/* After PYPROF__HOLDS_FAILED_MAX holds in a row that came to nothing a thread is not held for PYPROF__HANDS_OFF_NS: a
   hold costs several system calls. */
static void pyprof__note_hold(pyprof__sampler *sampler, pyprof__thread *thread, bool is_held) {
    thread->holding.failed = is_held ? 0 : thread->holding.failed + 1;
    sampler->stats.holds_failed += !is_held;
    if (thread->holding.failed >= PYPROF__HOLDS_FAILED_MAX) {
        thread->holding.failed = 0;
        thread->holding.from = pyprof__now() + PYPROF__HANDS_OFF_NS;
    }
}

/* Keeps a thread off its core, reads its stack once, and lets it go. observed->held: it stood still, so what was read
   is what it was doing at a random moment; else it has to be read quietly. A system that refuses is not asked again in
   this recording, and the host's log is told. */
static bool pyprof__read_held(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__observation *observed) {
    pyprof__hold hold;
    bool is_read = false;
    observed->held = false;
    observed->stack.frames = (pyprof__frame *)sampler->scratch.data;
    observed->stack.capacity = sampler->desc.max_depth;
    if (pyprof__hold_thread(&sampler->holder, thread->tid, &hold)) {
        is_read = pyprof__read_once(sampler, thread, true, observed, &observed->held);
        observed->held = observed->held && observed->cpu != 0;
    }
    if (!pyprof__let_go(&sampler->holder, &hold)) {
        sampler->holder.is_refused = true;
        pyprof__warn(sampler, "sched_setaffinity was taken away while a thread was held: it stays on one core");
    }
    pyprof__tell_obstacles(sampler);
    pyprof__note_hold(sampler, thread, observed->held);
    if (!hold.is_steady) {
        thread->holding.cores = 1; /* the host changes them right now: the next look will see others than these */
    }
    return is_read;
}

/* Reads a thread that cannot be asked and may be held. If its clock stands still between two looks it waits, or the
   sampler has its core: then it is read as it stands, which counts as held where the sampler was bound to that core and
   the thread has run since its last sample. If it runs Python it is held; if that fails, or it runs something else, it
   is read quietly. */
static bool pyprof__read_unasked(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__observation *observed) {
    bool is_read = false;
    uint64_t cpu = pyprof__cpu_time(thread);
    observed->stands = pyprof__cpu_time(thread) == cpu;
    if (observed->stands) {
        is_read = pyprof__read_quietly(sampler, thread, false, true, observed);
        observed->held = is_read && sampler->holder.is_bound && observed->attached && observed->cpu != thread->last.cpu;
        if (is_read || !observed->ran || !observed->attached) {
            return is_read;
        }
    } else if (!pyprof__is_attached_in(sampler, &observed->levels, 0)) {
        return pyprof__read_quietly(sampler, thread, false, false, observed);
    }
    observed->ran = true;
    is_read = pyprof__read_held(sampler, thread, observed);
    return observed->held ? is_read : pyprof__read_quietly(sampler, thread, false, false, observed);
}

/* Counts a sample of a thread that ran Python and could not be asked. The host's log is told of it once a thread, by
   its name, and of no more than PYPROF__WARNINGS_MAX threads; not of threads that block signals for a moment, as a
   thread does that makes another one. */
static void pyprof__count_unasked(pyprof__sampler *sampler, pyprof__thread *thread) {
    char text[320];
    size_t size = 0;
    sampler->stats.samples_unasked++;
    sampler->stats.threads_unasked += !thread->asking.was_unasked;
    thread->asking.was_unasked = true;
    if (thread->asking.was_told || thread->asking.blocked_ns < PYPROF__BLOCKED_TOLD_NS ||
        pyprof__handler.signal_number == 0 || sampler->warned_threads > PYPROF__WARNINGS_MAX) {
        return; /* that nobody can be asked was told of the whole program */
    }
    thread->asking.was_told = true;
    const pyprof__track *track = pyprof__track_at(sampler->profile, thread->track);
    const char *name = pyprof__string_text(sampler->profile, track->name, &size);
    snprintf(text, sizeof text,
             "thread \"%.*s\" (%d) blocks the signals by which it could be asked, or does not get them: it is held, "
             "or read from outside, and then short functions may show as [unsettled]",
             size < 100 ? (int)size : 100, name, (int)thread->tid);
    pyprof__warn(sampler, sampler->warned_threads++ < PYPROF__WARNINGS_MAX
                              ? text
                              : "more threads block signals: pyprof_stats.threads_unasked counts them");
}

/* Reads a thread that was not asked, and says what that comes to. It is asked all the same if the read shows that it
   does run Python and can be asked. Its answer is waited for until the PYPROF__BLOCKED_AFTER_TICKS-th look: before, it
   is read only if it stands still, afterwards as one that cannot be asked. */
static pyprof__verdict pyprof__observe(pyprof__sampler *sampler, pyprof__thread *thread,
                                       pyprof__observation *observed) {
    bool can_ask = pyprof__may_ask(thread, observed->wall, false);
    bool is_asked = thread->asking.request != PYPROF__NONE;
    bool waited_for = is_asked && ++thread->asking.ticks < PYPROF__BLOCKED_AFTER_TICKS;
    /* A thread that is only asked less, as it is in debt, is not held. */
    bool is_blocked = is_asked || !pyprof__can_hear(thread, observed->wall);
    bool can_hold = is_blocked && pyprof__may_hold(sampler, thread) && !waited_for;
    bool is_read = can_hold ? pyprof__read_unasked(sampler, thread, observed)
                            : pyprof__read_quietly(sampler, thread, waited_for, can_ask, observed);
    if (!is_read && can_ask && observed->attached) {
        pyprof__observation anew = *observed;
        pyprof__read_clocks(thread, &anew);
        if (pyprof__ask(sampler, thread, &anew)) {
            return PYPROF__ASKED; /* it did not run when it was looked at first, and now it does */
        }
    }
    if (!is_read && waited_for) {
        return PYPROF__PENDING;
    }
    if (observed->cpu == 0) {
        return PYPROF__UNREADABLE;
    }
    if (!is_read && !(observed->attached && pyprof__keep_root(sampler, thread, observed))) {
        return PYPROF__UNSETTLED;
    }
    uintptr_t tstate = observed->levels.items[0].tstate;
    if (!pyprof__is_bound_to(&sampler->layout, tstate, thread->thread_id, thread->tid, thread->told_id)) {
        return PYPROF__UNREADABLE;
    }
    if (is_asked && pyprof__state_of(&pyprof__handler.requests[thread->asking.request]) != PYPROF__REQUEST_SENT) {
        return PYPROF__PENDING; /* it answered just now: that is the sample, at the next tick */
    }
    if (waited_for) {
        pyprof__cancel(sampler, thread);
    }
    return PYPROF__SEEN;
}

/* Whether no other thread's pthread_t lies between this address and the thread's own. The C library keeps what a
   pthread_t points to at the upper end of each stack that it makes, and such stacks may lie side by side in one mapping
   (glibc 2.42). */
static bool pyprof__is_nearest_above(const pyprof__sampler *sampler, const pyprof__thread *thread, uintptr_t entry) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *other = pyprof__thread_at(sampler, i);
        if (other->is_alive && other->thread_id > entry && other->thread_id < thread->thread_id) {
            return false;
        }
    }
    return entry < thread->thread_id;
}

/* Whether an address lies on a C stack of the thread's own: the one that holds its pthread_t, or [stack] for the
   process's first thread. /proc/self/maps is read once a thread. */
static bool pyprof__is_on_own_stack(const pyprof__sampler *sampler, pyprof__thread *thread, uintptr_t entry) {
    const uintptr_t most = 64 << 20; /* [stack] grows downwards, and the kernel keeps more than this free for it */
    if (!thread->knows_stacks) {
        pyprof__find_mappings(thread->thread_id, &thread->stacks[0], &thread->stacks[1]);
        thread->knows_stacks = true;
        if (thread->tid != pyprof__process.pid) {
            memset(&thread->stacks[1], 0, sizeof thread->stacks[1]);
        } else if (thread->stacks[1].high > most) {
            thread->stacks[1].low = thread->stacks[1].high - most;
        }
    }
    return pyprof__is_within(&thread->stacks[1], entry) ||
           (pyprof__is_within(&thread->stacks[0], entry) && pyprof__is_nearest_above(sampler, thread, entry));
}

/* Whether a thread that seems to be in several interpreters has one of them entered on a C stack that is not its own:
   then another thread may run that one, and where this one is cannot be told. Counts as a doubt of that thread state.
   To 3.10 no such address is known, and the answer is false. */
static bool pyprof__is_spread(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__levels *levels) {
    bool is_spread = false;
    for (uint32_t at = thread->tstate; at != PYPROF__NONE && levels->count > 1;) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, at);
        pyprof__view_reset(&sampler->view);
        uintptr_t entry = pyprof__entry_of(sampler, tstate);
        if (entry != 0 && pyprof__is_on_own_stack(sampler, thread, entry)) {
            tstate->doubts = 0;
        } else if (entry != 0) {
            pyprof__doubt(sampler, tstate);
            is_spread = true;
        }
        at = tstate->sibling;
    }
    return is_spread;
}

/* Whether the thread, whose clocks were just read (ns), has been on a core all the time since its last sample. */
static bool pyprof__is_steady(const pyprof__thread *thread, uint64_t now, uint64_t cpu) {
    return thread->last.is_there && cpu + PYPROF__STEADY_SLACK_NS >= thread->last.cpu + (now - thread->last.wall);
}

/* A thread's clock could not be read. Where that is so of the sampler's own, no thread has ended, but the system refuses:
   the host's log is told. */
static void pyprof__check_clocks(pyprof__sampler *sampler) {
    if (!sampler->told_of_clocks && pyprof__clock(CLOCK_THREAD_CPUTIME_ID) == 0) {
        sampler->told_of_clocks = true;
        pyprof__warn(sampler, "the CPU clocks of threads cannot be read, as clock_gettime is refused: most samples are "
                              "lost, and short functions may show as [unsettled]");
    }
}

/* Decides how one thread is looked at at one tick, by its clocks and the copy of its thread state, does so, and says
   what that comes to: see the table above. It sends a request only to a thread that is on a core at this moment (its
   clock moves): one that waits for a core cannot answer, and stands still for a read. */
static pyprof__verdict pyprof__decide(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__observation *observed) {
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, thread->tstate);
    bool attached = pyprof__is_attached(&sampler->layout, tstate->address, tstate->copy);
    uint64_t now = observed->wall, cpu = observed->cpu;
    if (attached) {
        sampler->waiting.holder = tstate->address;
        pyprof__learn_order(sampler, thread);
    }
    if (cpu == 0) { /* the thread has ended and left its thread state behind */
        pyprof__check_clocks(sampler);
        if (attached) {
            pyprof__doubt(sampler, tstate);
        }
        pyprof__end_time(sampler, thread, now, false);
        return PYPROF__UNREADABLE;
    }
    /* A thread that had the GIL at its last sample has run since, whatever its clock says: that of a virtual machine
       may stand still for a while. */
    if (thread->last.is_there && cpu == thread->last.cpu && tstate->address == thread->last.tstate && !attached &&
        !(thread->last.kind & PYPROF__GIL) && thread->borrowed == 0) {
        pyprof__cancel(sampler, thread);
        return PYPROF__SAME;
    }
    pyprof__check_blocked(sampler, thread, cpu);
    pyprof__find_levels(sampler, thread, &observed->levels);
    bool is_steady = pyprof__is_steady(thread, now, cpu);
    if (attached && pyprof__may_ask(thread, now, is_steady) && (is_steady || pyprof__cpu_time(thread) != cpu) &&
        pyprof__ask(sampler, thread, observed)) {
        sampler->runner = tstate->thread;
        return PYPROF__ASKED;
    }
    return pyprof__is_spread(sampler, thread, &observed->levels) ? PYPROF__UNSETTLED
                                                                 : pyprof__observe(sampler, thread, observed);
}

/* Empties an observation, and reads the clocks of the moment for which it stands. */
static void pyprof__begin_look(const pyprof__thread *thread, pyprof__observation *observed) {
    memset(observed, 0, offsetof(pyprof__observation, levels)); /* these are found when they are needed */
    pyprof__read_clocks(thread, observed);
}

/* One look at one thread at one tick. The caller has called pyprof__begin_look, perhaps before other work. */
static void pyprof__look(pyprof__sampler *sampler, pyprof__thread *thread, pyprof__observation *observed) {
    uint64_t now = observed->wall;
    pyprof__pay_off(thread);
    pyprof__verdict verdict = pyprof__decide(sampler, thread, observed);
    pyprof__book(sampler, thread, verdict, observed);
    if (observed->held) {
        sampler->holder.used_at = sampler->stats.ticks;
    }
    if (verdict == PYPROF__SEEN && observed->attached && (observed->ran || observed->held) && thread->borrowed == 0 &&
        thread->last.is_there && sampler->desc.capture == PYPROF_CAPTURE_DEFAULT && !pyprof__can_hear(thread, now)) {
        pyprof__count_unasked(sampler, thread);
    }
}

// >>threads
// Lists the thread states and the threads that there are.
// In: CPython's linked lists of interpreters and thread states. They change while they are read: the lock that guards
// them (HEAD_LOCK, Include/internal/pycore_pystate.h) is private to CPython. Out: sampler->interps, ->tstates and
// ->threads, as of one moment or as near to it as can be; has_whole_lists: nothing is missing there.
// All of it runs in the sampler's thread, under the sampler's lock, never in the handler; what is gone is an error
// (>>reads).
// Invariants: a thread state counts only if it names its interpreter and its predecessor, and is known again by
// address, id and interpreter together. Its index holds until the lists are walked anew. A thread's index holds as long
// as the thread lives.
//  every tick             pyprof__reread_lists, pyprof__lists_unchanged: all copies anew, a few system calls
//  if they have changed   pyprof__walk_lists: link by link, a system call each, at most twice
//  then, of each          pyprof__bind: which thread it belongs to; pyprof__join: which level of that it is

/* Finds out where in what a pthread_t points to the C library (glibc, musl) keeps the thread's id. To 3.10 a thread
   state has no native id, and later it may be wrong (pyprof__native_id). An offset is certain if the known ids of two
   threads lie there: the sampler's and that of the thread that started it. Else the first one will do that holds the
   sampler's id and some other of that thread: one that went through a bare clone or fork still has its id in the parent
   there. */
static void pyprof__learn_tid_offset(pyprof__sampler *sampler) {
    for (uint32_t offset = 0; offset < 4096; offset += 4) {
        int32_t own = 0, other = 0;
        if (!pyprof__read((uintptr_t)pthread_self() + offset, &own, sizeof own)) {
            break;
        }
        if (own != sampler->tid || !pyprof__read((uintptr_t)sampler->starter + offset, &other, sizeof other)) {
            continue;
        }
        if (other == sampler->starter_tid || (sampler->pthread_tid_offset == PYPROF__ABSENT && other > 0)) {
            sampler->pthread_tid_offset = offset;
        }
        if (other == sampler->starter_tid) {
            return;
        }
    }
}

/* The id of the living thread of this process that a pthread_t stands for; 0 = none, or it cannot be told. The
   pthread_t may be stale. */
static int32_t pyprof__tid_of_pthread(const pyprof__sampler *sampler, uintptr_t thread_id) {
    int32_t tid = 0;
    bool is_read = thread_id != 0 && sampler->pthread_tid_offset != PYPROF__ABSENT &&
                   pyprof__read(thread_id + sampler->pthread_tid_offset, &tid, sizeof tid);
    if (is_read && pyprof__thread_lives(tid)) {
        return tid;
    }
    bool is_starter = thread_id != 0 && thread_id == (uintptr_t)sampler->starter;
    return is_starter && pyprof__thread_lives(sampler->starter_tid) ? sampler->starter_tid : 0;
}

/* The id of the OS thread that a thread state is bound to; 0 = none yet, or it cannot be told. What the thread state
   says is believed if such a thread lives in this process. In a child that was forked without CPython's knowledge it is
   the id in the parent: there the C library is asked instead, and believed if it names the first thread, which is the
   one that is left. */
static int32_t pyprof__native_id(const pyprof__sampler *sampler, const pyprof__tstate *tstate) {
    bool is_told = sampler->layout.ts_native_id != PYPROF__ABSENT;
    if (is_told && (tstate->told_id <= 0 || pyprof__thread_lives(tstate->told_id))) {
        return tstate->told_id;
    }
    int32_t tid = pyprof__tid_of_pthread(sampler, tstate->thread_id);
    return is_told && tid != pyprof__process.pid ? 0 : tid;
}

/* Room for one more thread, to be filled by pyprof__begin_thread: that of a thread that has ended, else more.
   PYPROF__NONE = there is none. */
static uint32_t pyprof__new_thread(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (!thread->is_alive && thread->asking.request == PYPROF__NONE && !pyprof__thread_lives(thread->tid)) {
            return i;
        }
    }
    uint32_t index = pyprof__array_add(sampler->memory, &sampler->threads);
    if (index != PYPROF__NONE) {
        pyprof__thread_at(sampler, index)->track = PYPROF__NONE;
        pyprof__thread_at(sampler, index)->frames.item_size = sizeof(pyprof__frame);
        pyprof__thread_at(sampler, index)->nodes.item_size = sizeof(uint32_t);
    }
    return index;
}

/* Makes an entry that of the thread to which a thread state is bound. Of the thread that had it before, its arrays'
   memory stays, and its track is left to the next one of its name. */
static void pyprof__begin_thread(pyprof__sampler *sampler, pyprof__thread *thread, const pyprof__tstate *tstate) {
    pyprof__array frames = thread->frames, nodes = thread->nodes;
    if (thread->track != PYPROF__NONE) {
        pyprof__leave_track(sampler->profile, thread->track);
    }
    memset(thread, 0, sizeof *thread);
    thread->frames = frames;
    thread->nodes = nodes;
    thread->frames.count = thread->nodes.count = 0;
    thread->tid = tstate->native_id;
    thread->told_id = tstate->told_id;
    thread->thread_id = tstate->thread_id;
    thread->borrowed = tstate->is_borrowed ? tstate->address : 0;
    thread->cpu_clock = pyprof__cpu_clock(tstate->native_id);
    thread->track = PYPROF__NONE;
    thread->asking.request = PYPROF__NONE;
    thread->is_alive = true;
    pyprof__read_system_name(thread);
    sampler->stats.threads++;
}

/* Whether the thread that has these two ids now is another one than the entry's, which has ended: Linux and the C
   library give ids anew. It is if its CPU clock is behind that of the entry's last sample, or if it began to run after
   that sample. */
static bool pyprof__is_another(const pyprof__sampler *sampler, const pyprof__thread *thread) {
    const uint64_t long_ago = 20000000; /* ns; the system says in hundredths of a second when a thread began */
    const uint64_t clearly = 1000000;   /* ns; a sample's CPU time may be a little ahead of the clock */
    if (thread->borrowed != 0) {
        return false;
    }
    uint64_t cpu = pyprof__clock(thread->cpu_clock);
    if (thread->has_ended || (cpu != 0 && cpu + clearly < thread->last.cpu)) {
        return true;
    }
    return !thread->is_alive && thread->last.wall != 0 && thread->last.wall + long_ago < sampler->last_tick &&
           pyprof__thread_began_after(thread->tid, thread->last.wall);
}

/* The index of the thread that a thread state belongs to, which is begun if it is not known; PYPROF__NONE = no room,
   which is counted. A host thread comes back to Python with a new thread state each time (PyGILState_Ensure), and is
   still the same thread. A borrowed thread state has a thread of its own. */
static uint32_t pyprof__find_thread(pyprof__sampler *sampler, const pyprof__tstate *tstate) {
    for (uint32_t i = sampler->threads.count; i-- > 0;) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (thread->tid == tstate->native_id && thread->thread_id == tstate->thread_id &&
            thread->borrowed == (tstate->is_borrowed ? tstate->address : 0)) {
            if (thread->asking.request == PYPROF__NONE && pyprof__is_another(sampler, thread)) {
                pyprof__end_time(sampler, thread, sampler->last_tick, false);
                pyprof__begin_thread(sampler, thread, tstate);
            }
            return i;
        }
    }
    uint32_t index = pyprof__new_thread(sampler);
    if (index != PYPROF__NONE) {
        pyprof__begin_thread(sampler, pyprof__thread_at(sampler, index), tstate);
    } else {
        pyprof__lose(sampler, PYPROF__NO_ROOM, 1);
    }
    return index;
}

/* Takes a thread state's ids out of its fresh copy. Its thread is looked up only when these have changed, or it has
   none: tstate->thread is PYPROF__NONE as long as no living thread bears its ids. A borrowed one is given back to its
   thread here, when its time is over. */
static void pyprof__bind(pyprof__sampler *sampler, pyprof__tstate *tstate) {
    if (tstate->is_borrowed && sampler->last_tick > tstate->borrowed_until) {
        pyprof__trust(tstate);
        tstate->doubts = PYPROF__DOUBTS_ENOUGH - 1; /* the next sign is believed */
    }
    const pyprof__layout *layout = &sampler->layout;
    bool is_told = layout->ts_native_id != PYPROF__ABSENT;
    uintptr_t thread_id = pyprof__tstate_word(tstate, layout->ts_thread_id);
    int32_t told_id = is_told ? (int32_t)pyprof__tstate_word(tstate, layout->ts_native_id) : 0;
    if (thread_id != tstate->thread_id || told_id != tstate->told_id) {
        pyprof__trust(tstate); /* a new thread runs its thread state while that still bears its maker's ids */
    } else if (tstate->thread != PYPROF__NONE) {
        return;
    }
    tstate->thread_id = thread_id;
    tstate->told_id = told_id;
    tstate->native_id = pyprof__native_id(sampler, tstate);
    tstate->thread = tstate->native_id > 0 ? pyprof__find_thread(sampler, tstate) : PYPROF__NONE;
}

/* What is read of an interpreter: its two links and its id. */
static void pyprof__interp_pieces(const pyprof__sampler *sampler, pyprof__interp *interp, pyprof__piece *pieces) {
    const pyprof__layout *layout = &sampler->layout;
    const pyprof__piece all[] = {
        {interp->address + layout->interp_next, &interp->links[0], sizeof interp->links[0]},
        {interp->address + layout->interp_threads, &interp->links[1], sizeof interp->links[1]},
        {interp->address + layout->interp_id, &interp->id_now, sizeof interp->id_now},
    };
    memcpy(pieces, all, sizeof all);
}

/* Reads the pieces that have been gathered, if there is no room for so many more. False: something is gone. */
static bool pyprof__read_gathered(pyprof__piece *pieces, size_t *count, size_t more) {
    bool is_read = true;
    if (*count + more > PYPROF__PIECES_MAX) {
        is_read = pyprof__read_pieces(pieces, *count);
        *count = 0;
    }
    return is_read;
}

/* Reads all interpreters and thread states that are known again, many in one system call. Those that are parked keep
   their copies: >>waiting looks at them. False: something is gone. */
static bool pyprof__reread_lists(pyprof__sampler *sampler) {
    pyprof__piece pieces[PYPROF__PIECES_MAX];
    size_t count = 0;
    bool is_read = true;
    for (uint32_t i = 0; is_read && i < sampler->interps.count; i++, count += 3) {
        is_read = pyprof__read_gathered(pieces, &count, 3);
        pyprof__interp_pieces(sampler, &PYPROF__ITEM(pyprof__interp, &sampler->interps, i), &pieces[count]);
    }
    for (uint32_t i = pyprof__next_awake_tstate(sampler, 0); is_read && i < sampler->tstates.count;
         i = pyprof__next_awake_tstate(sampler, i + 1)) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        pyprof__piece piece = {tstate->address, tstate->copy, sampler->layout.ts_size};
        is_read = pyprof__read_gathered(pieces, &count, 1);
        pieces[count++] = piece;
    }
    return is_read && pyprof__read_pieces(pieces, count);
}

/* The address of the thread state at an index if it is of this interpreter; else 0, which ends that one's list. */
static uintptr_t pyprof__listed_at(const pyprof__sampler *sampler, uint32_t index, uintptr_t interp) {
    bool is_its = index < sampler->tstates.count && pyprof__tstate_at(sampler, index)->interp == interp;
    return is_its ? pyprof__tstate_at(sampler, index)->address : 0;
}

/* Whether the lists, by the fresh copies, are those that were walked: every link leads where it led, to something with
   the same id. The links of those that are parked are known to be the same: >>waiting looks at them. */
static bool pyprof__lists_unchanged(const pyprof__sampler *sampler) {
    uintptr_t interp = pyprof__first_interpreter();
    for (uint32_t i = 0; i < sampler->interps.count; i++) {
        const pyprof__interp *item = &PYPROF__ITEM(const pyprof__interp, &sampler->interps, i);
        if (item->address != interp || item->id != item->id_now ||
            item->links[1] != pyprof__listed_at(sampler, item->first, interp)) {
            return false;
        }
        interp = item->links[0];
    }
    for (uint32_t i = pyprof__next_awake_tstate(sampler, 0); i < sampler->tstates.count;
         i = pyprof__next_awake_tstate(sampler, i + 1)) {
        const pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        if (pyprof__tstate_word(tstate, sampler->layout.ts_id) != tstate->id ||
            pyprof__tstate_word(tstate, sampler->layout.ts_next) != pyprof__listed_at(sampler, i + 1, tstate->interp)) {
            return false;
        }
    }
    return interp == 0 && sampler->has_whole_lists;
}

/* Copies a thread state. False: it is gone, or is not one of the interpreter in whose list it was. */
static bool pyprof__read_tstate(const pyprof__sampler *sampler, pyprof__tstate *tstate) {
    return pyprof__read(tstate->address, tstate->copy, sampler->layout.ts_size) &&
           pyprof__tstate_word(tstate, sampler->layout.ts_interp) == tstate->interp;
}

/* Takes over what was known of a thread state when the lists were walked last, the cursor saying where that is likely
   found: the lists keep their order, so the search is short. */
static void pyprof__inherit(const pyprof__sampler *sampler, pyprof__tstate *tstate, uint32_t *cursor) {
    for (uint32_t i = 0; i < sampler->tstates.count; i++) {
        uint32_t at = (*cursor + i) % sampler->tstates.count;
        const pyprof__tstate *old = &PYPROF__ITEM(const pyprof__tstate, &sampler->tstates, at);
        if (old->address == tstate->address && old->id == tstate->id && old->interp_id == tstate->interp_id) {
            uintptr_t interp = tstate->interp;
            memcpy(tstate, old, offsetof(pyprof__tstate, copy));
            tstate->interp = interp;
            *cursor = at + 1;
            return;
        }
    }
}

/* Whether the list that was walked still begins with the thread state that is at this index of sampler->fresh, and that
   one still has its id and its link; without any, whether it is still empty. A thread state that has ended leads nowhere
   once its memory is a new one's that is not in the list yet: its walk ends at once, and seems whole. By the time that
   it is in the list it leads on. */
static bool pyprof__begins_so(const pyprof__sampler *sampler, const pyprof__interp *interp, uint32_t index) {
    const pyprof__layout *layout = &sampler->layout;
    bool has_any = index < sampler->fresh.count;
    const pyprof__tstate *first = has_any ? &PYPROF__ITEM(const pyprof__tstate, &sampler->fresh, index) : NULL;
    uintptr_t now[3] = {0};
    const pyprof__piece pieces[] = {
        {interp->address + layout->interp_threads, &now[0], sizeof now[0]},
        {has_any ? first->address + layout->ts_id : 0, &now[1], sizeof now[1]},
        {has_any ? first->address + layout->ts_next : 0, &now[2], sizeof now[2]},
    };
    return pyprof__read_pieces(pieces, has_any ? 3 : 1) && now[0] == interp->links[1] &&
           (!has_any || (now[1] == first->id && now[2] == pyprof__tstate_word(first, layout->ts_next)));
}

/* Follows one interpreter's list of thread states, link by link, into sampler->fresh. Each has to name its predecessor:
   CPython takes a thread state out of the list before it frees it, so a link that leads astray is seen. False: the list
   changed meanwhile, or there is no room; what was met up to there is kept. */
static bool pyprof__walk_threads(pyprof__sampler *sampler, const pyprof__interp *interp, uint32_t *cursor) {
    uintptr_t previous = 0, address = interp->links[1];
    uint32_t begin = sampler->fresh.count;
    while (address != 0) {
        uint32_t index = pyprof__array_add(sampler->memory, &sampler->fresh);
        if (index == PYPROF__NONE) {
            pyprof__lose(sampler, PYPROF__NO_ROOM, 1);
            return false;
        }
        pyprof__tstate *tstate = &PYPROF__ITEM(pyprof__tstate, &sampler->fresh, index);
        tstate->address = address;
        tstate->interp = interp->address;
        tstate->interp_id = interp->id;
        tstate->thread = PYPROF__NONE;
        if (!pyprof__read_tstate(sampler, tstate) || pyprof__tstate_word(tstate, sampler->layout.ts_prev) != previous) {
            sampler->fresh.count--;
            return false;
        }
        tstate->id = pyprof__tstate_word(tstate, sampler->layout.ts_id);
        pyprof__inherit(sampler, tstate, cursor);
        previous = address;
        address = pyprof__tstate_word(tstate, sampler->layout.ts_next);
    }
    return pyprof__begins_so(sampler, interp, begin);
}

/* Adds what the last walk did not reach, as a link was just being changed. Each thread state that was known before, and
   is not among those met, is looked at where it was: if it bears the same id there, it stands behind that link. One
   that was freed just now may do so, too, but has no frames. sampler->fresh has the list of before. */
static void pyprof__keep_unmet(pyprof__sampler *sampler) {
    uint32_t met = sampler->tstates.count, cursor = 0;
    for (uint32_t i = 0; i < sampler->fresh.count; i++) {
        const pyprof__tstate *old = &PYPROF__ITEM(const pyprof__tstate, &sampler->fresh, i);
        uint32_t tried = 0;
        while (tried < met && pyprof__tstate_at(sampler, (cursor + tried) % met)->address != old->address) {
            tried++;
        }
        if (tried < met) {
            cursor = (cursor + tried) % met + 1;
            continue;
        }
        uint32_t index = pyprof__array_add(sampler->memory, &sampler->tstates);
        if (index == PYPROF__NONE) {
            pyprof__lose(sampler, PYPROF__NO_ROOM, 1);
            continue;
        }
        pyprof__tstate *kept = pyprof__tstate_at(sampler, index);
        *kept = *old;
        if (!pyprof__read_tstate(sampler, kept) || pyprof__tstate_word(kept, sampler->layout.ts_id) != kept->id) {
            sampler->tstates.count--;
        }
    }
}

/* Follows all lists anew: afterwards the indices of thread states are others, so nothing may be parked. What was met up
   to a link that does not hold is true all the same. False: a list changed meanwhile; something may be missing. */
static bool pyprof__walk_lists(pyprof__sampler *sampler) {
    const uint32_t most = 65536; /* interpreters: a list of more goes round in a circle */
    uint32_t cursor = 0;
    bool is_whole = true;
    sampler->interps.count = sampler->fresh.count = 0;
    for (uintptr_t address = pyprof__first_interpreter(); address != 0;) {
        uint32_t index =
            sampler->interps.count < most ? pyprof__array_add(sampler->memory, &sampler->interps) : PYPROF__NONE;
        if (index == PYPROF__NONE) {
            is_whole = false;
            break;
        }
        pyprof__interp *interp = &PYPROF__ITEM(pyprof__interp, &sampler->interps, index);
        pyprof__piece pieces[3];
        interp->address = address;
        pyprof__interp_pieces(sampler, interp, pieces);
        if (!pyprof__read_pieces(pieces, 3)) {
            sampler->interps.count--;
            is_whole = false;
            break;
        }
        interp->id = interp->id_now;
        interp->first = sampler->fresh.count;
        is_whole = pyprof__walk_threads(sampler, interp, &cursor) && is_whole;
        address = interp->links[0];
    }
    pyprof__array old = sampler->tstates;
    sampler->tstates = sampler->fresh;
    sampler->fresh = old;
    if (!is_whole) {
        pyprof__keep_unmet(sampler);
    }
    return is_whole;
}

/* Adds a thread state to those that its thread has at this tick: a list by sibling, from the innermost outwards, that
   begins at thread->tstate. Marks the thread as seen, and notes since when this one has frames: by tick, and within a
   tick by interpreter, as of two that are seen at once the later interpreter was likely entered later. */
static void pyprof__join(pyprof__sampler *sampler, uint32_t index) {
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, index);
    pyprof__thread *thread = pyprof__thread_at(sampler, tstate->thread);
    bool has_frames = pyprof__may_have_frames(&sampler->layout, tstate->address, tstate->copy);
    uint64_t order = sampler->stats.ticks << 16 | (uint64_t)(tstate->interp_id & 0xffff);
    tstate->framed_since = !has_frames ? 0 : tstate->framed_since > 0 ? tstate->framed_since : order;
    thread->absent_at = thread->seen + 1 < sampler->stats.ticks ? sampler->last_tick : thread->absent_at;
    thread->tstate = thread->seen == sampler->stats.ticks ? thread->tstate : PYPROF__NONE;
    thread->seen = sampler->stats.ticks;
    uint32_t *place = &thread->tstate;
    while (*place != PYPROF__NONE && !pyprof__is_inner(sampler, tstate, pyprof__tstate_at(sampler, *place))) {
        place = &pyprof__tstate_at(sampler, *place)->sibling;
    }
    tstate->sibling = *place;
    *place = index;
}

// >>waiting
// Threads that have long stood still are parked: they are not looked at one by one, and their samples are counted
// together.
// In: at each tick, what shows that one of them has run. Out: the same samples, times and figures as if each had been
// looked at.
// All of it runs in the sampler's thread, under the sampler's lock, never in the handler; pyprof__settle_waiting also
// in a thread that copies the profile, under that lock, and in a forked child, where no sampler runs.
//
//  awake    looked at one by one
//    |        pyprof__park_candidates, at the end of a tick: calm for some looks (pyprof__note_calm), not attached,
//    v        with one thread state only, no request, no doubt, and all lists whole
//  parked   pyprof__count_waiting, at every tick: one more sample for each
//    |        pyprof__tend_waiting, at the beginning of a tick, wakes
//    |          all, if a list has changed, a thread state was found to be borrowed, or the host has named a thread
//    |          one, if its CPU clock has moved: read only where the balance does not answer for all (pyprof__weigh)
//    |          one, if it is attached or has another leaf frame: the heads of all are read in one system call; where
//    |            the balance answers for all, and a thread that is awake has the only GIL, at every 32nd tick only
//    v          one, if its CPU clock has moved when its name is due: so each is looked at once a second at least
//  awake    looked at in that very tick
//
// A head is the first part of a thread state (pyprof__layout.ts_head): its links, its interpreter, its leaf frame, and
// whether it is attached.
// Invariant: the profile has a parked thread's time and samples up to the common tick parking.ticks, at last.wall; it
// is brought up to date when it is woken, and before anybody reads the profile:
//
//  common ticks   ... |    |    |    |    |
//                     ^ parking.ticks     ^ waiting->ticks, waiting->wall
//  in the profile  <--|  not yet there -->|
//
// Begin with pyprof__tend_waiting, pyprof__is_in_balance, pyprof__wake_by_heads, pyprof__settle_run, pyprof__park.

/* Brings a parked thread up to date in the profile: a sample for each common tick since that was done last, and the
   time until the last of them. It has used no CPU time. */
static void pyprof__settle_time(pyprof__sampler *sampler, pyprof__thread *thread) {
    uint64_t ticks = sampler->waiting.ticks - thread->parking.ticks, wall = sampler->waiting.wall;
    thread->parking.ticks = sampler->waiting.ticks;
    if (ticks > 0) {
        pyprof__share_time(sampler, thread, thread->last.node, thread->last.kind, wall, thread->last.cpu);
        pyprof__count_samples(sampler->profile, thread->track, thread->last.node, thread->last.kind, (uint32_t)ticks);
        thread->last.wall = wall;
    }
}

/* Brings a parked thread up to date that is found to have run: now, with this CPU clock. If it has used more CPU time
   than has passed since a common tick it ran at that tick already, though the balance did not show it: it is taken to
   have run without a break up to now. Samples at and after that moment, up to PYPROF__RECENT, were counted as idle:
   they are taken back, and booked as running without the GIL. The caller wakes it. */
static void pyprof__settle_run(pyprof__sampler *sampler, pyprof__thread *thread, uint64_t now, uint64_t cpu) {
    pyprof__waiting *waiting = &sampler->waiting;
    uint64_t ticks = waiting->ticks, wall = waiting->wall, used = pyprof__passed(thread->last.cpu, cpu);
    uint64_t most = pyprof__min64(ticks - thread->parking.ticks, PYPROF__RECENT - 1);
    while (ticks - waiting->ticks < most && waiting->wall + used > now) {
        waiting->wall = waiting->walls[--waiting->ticks % PYPROF__RECENT];
    }
    pyprof__settle_time(sampler, thread);
    uint64_t idle = waiting->ticks;
    waiting->ticks = thread->parking.ticks = ticks;
    waiting->wall = wall;
    while (idle++ < ticks) {
        uint64_t then = waiting->walls[idle % PYPROF__RECENT];
        sampler->stats.samples--; /* they were counted then */
        sampler->stats.samples_idle--;
        sampler->stats.truncated_depth -= thread->last.is_cut || thread->last.has_gap;
        pyprof__record(sampler, thread, NULL, 0, then, cpu - (now - then));
    }
}

/* place: among the members; not the thread's index. */
static pyprof__thread *pyprof__member_at(const pyprof__sampler *sampler, uint32_t place) {
    return pyprof__thread_at(sampler, PYPROF__ITEM(uint32_t, &sampler->waiting.members, place));
}

/* Before the profile is read, under the sampler's lock: brings all parked threads up to date there. */
static void pyprof__settle_waiting(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->waiting.members.count; i++) {
        pyprof__settle_time(sampler, pyprof__member_at(sampler, i));
    }
}

/* Heads have the size that the layout says, which no type has. */
static void *pyprof__head_at(const pyprof__array *heads, uint32_t index) {
    return (char *)heads->data + (size_t)index * heads->item_size;
}

/* The last member takes the place of the one that goes. */
static void pyprof__remove_member(pyprof__sampler *sampler, uint32_t place) {
    pyprof__waiting *waiting = &sampler->waiting;
    uint32_t last = --waiting->members.count;
    if (place != last) {
        PYPROF__ITEM(uint32_t, &waiting->members, place) = PYPROF__ITEM(uint32_t, &waiting->members, last);
        PYPROF__ITEM(struct iovec, &waiting->places, place) = PYPROF__ITEM(struct iovec, &waiting->places, last);
        memcpy(pyprof__head_at(&waiting->then, place), pyprof__head_at(&waiting->then, last), waiting->then.item_size);
    }
    waiting->places.count = waiting->then.count = last;
}

/* Adds a thread to those whose clocks are part of the balance. False: no room. */
static bool pyprof__add_awake(pyprof__sampler *sampler, uint32_t index) {
    pyprof__array *awake = &sampler->waiting.awake;
    uint32_t place = pyprof__array_add(sampler->memory, awake);
    if (place != PYPROF__NONE) {
        PYPROF__ITEM(uint32_t, awake, place) = index;
        pyprof__thread_at(sampler, index)->parking.place = place;
    }
    return place != PYPROF__NONE;
}

/* Makes a thread that was woken part of the balance, by its clock as it is now. If it has run since the last weighing,
   the next one shows a difference, and members' clocks are read one by one: that costs time, but nothing is missed. */
static void pyprof__weigh_in(pyprof__sampler *sampler, uint32_t index) {
    pyprof__waiting *waiting = &sampler->waiting;
    pyprof__thread *thread = pyprof__thread_at(sampler, index);
    waiting->is_balanced = waiting->is_balanced && pyprof__add_awake(sampler, index);
    if (waiting->is_balanced) {
        thread->parking.weighed = pyprof__cpu_time(thread);
        waiting->rest -= (int64_t)thread->parking.weighed;
    }
}

/* Takes a thread that is to be parked out of the balance. False: it has run between the last weighing and its last
   sample, or is not part of it; it stays awake. */
static bool pyprof__weigh_out(pyprof__sampler *sampler, uint32_t index) {
    pyprof__waiting *waiting = &sampler->waiting;
    pyprof__thread *thread = pyprof__thread_at(sampler, index);
    if (!waiting->is_balanced) {
        return true;
    }
    if (thread->parking.weighed != thread->last.cpu || thread->parking.place >= waiting->awake.count ||
        PYPROF__ITEM(uint32_t, &waiting->awake, thread->parking.place) != index) {
        return false;
    }
    uint32_t last = PYPROF__ITEM(uint32_t, &waiting->awake, --waiting->awake.count);
    PYPROF__ITEM(uint32_t, &waiting->awake, thread->parking.place) = last;
    pyprof__thread_at(sampler, last)->parking.place = thread->parking.place;
    waiting->rest += (int64_t)thread->parking.weighed;
    return true;
}

/* Wakes the member at a place. It counts as seen at the last tick, so that its time goes on without an absence
   (pyprof__join). */
static void pyprof__wake_member(pyprof__sampler *sampler, uint32_t place) {
    uint32_t index = PYPROF__ITEM(uint32_t, &sampler->waiting.members, place);
    pyprof__thread *thread = pyprof__thread_at(sampler, index);
    pyprof__settle_time(sampler, thread);
    pyprof__remove_member(sampler, place);
    pyprof__bits_put(&sampler->waiting.threads, index, false);
    pyprof__bits_put(&sampler->waiting.tstates, thread->parking.tstate, false);
    thread->seen = sampler->stats.ticks - 1;
    sampler->waiting.cut -= thread->last.is_cut || thread->last.has_gap;
    pyprof__weigh_in(sampler, index);
}

/* Wakes all members. It has to be called before the lists are walked anew, as parking.tstate is an index in the old
   ones. */
static void pyprof__wake_all(pyprof__sampler *sampler) {
    sampler->waiting.is_balanced = sampler->waiting.must_wake = false;
    sampler->waiting.holder = 0;
    while (sampler->waiting.members.count > 0) {
        pyprof__wake_member(sampler, sampler->waiting.members.count - 1);
    }
}

/* Wakes a member that has run, by its clock. */
static void pyprof__wake_if_run(pyprof__sampler *sampler, uint32_t place) {
    pyprof__thread *thread = pyprof__member_at(sampler, place);
    uint64_t cpu = pyprof__cpu_time(thread);
    if (cpu != thread->last.cpu) {
        pyprof__settle_run(sampler, thread, pyprof__now(), cpu);
        pyprof__wake_member(sampler, place);
    }
}

/* Looks at the names of some members, at these places, of which the last comes first. A member whose name was found in
   Python's threading is not looked up where the word that leads to it is the same: these words are read in one system
   call. If one cannot be read, all names are looked up. Each member's clock is read, too. */
static void pyprof__renew_names(pyprof__sampler *sampler, const uint32_t *places, uint32_t count, uint64_t now) {
    struct iovec from[PYPROF__NAMES_MAX];
    uintptr_t texts[PYPROF__NAMES_MAX], unused = 0;
    if (count == 0) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const pyprof__thread *thread = pyprof__member_at(sampler, places[i]);
        bool may_glance = thread->name.place != 0 && thread->name.glances < PYPROF__NAME_GLANCES;
        from[i].iov_base = may_glance ? (void *)thread->name.place : &unused;
        from[i].iov_len = sizeof *texts;
    }
    bool is_read = pyprof__read_places(from, count, texts, count * sizeof *texts);
    for (uint32_t i = 0; i < count; i++) {
        pyprof__thread *thread = pyprof__member_at(sampler, places[i]);
        if (is_read && from[i].iov_base != &unused && texts[i] == thread->name.text) {
            thread->name.glances++;
            pyprof__put_off_name(thread, thread->name.due > now ? thread->name.due : now);
        } else {
            pyprof__settle_time(sampler, thread);
            thread->name.due = 0;
            pyprof__update_name(sampler, thread, thread->last.wall); /* up to then the profile has its time */
        }
        sampler->waiting.name_due = pyprof__min64(sampler->waiting.name_due, thread->name.due);
        pyprof__wake_if_run(sampler, places[i]);
    }
}

/* Looks at the names of the members that are due, or nearly so, and notes when the next ones are. */
static void pyprof__tend_names(pyprof__sampler *sampler, uint64_t now) {
    uint32_t places[PYPROF__NAMES_MAX], count = 0;
    sampler->waiting.name_due = UINT64_MAX;
    for (uint32_t i = sampler->waiting.members.count; i-- > 0;) {
        uint64_t due = pyprof__member_at(sampler, i)->name.due;
        if (due > now + PYPROF__NAMES_TOGETHER_NS) {
            sampler->waiting.name_due = pyprof__min64(sampler->waiting.name_due, due);
        } else {
            places[count++] = i;
        }
        if (count == PYPROF__NAMES_MAX || (i == 0 && count > 0)) {
            pyprof__renew_names(sampler, places, count, now);
            count = 0;
        }
    }
}

/* Reads the heads of all members' thread states into waiting->now. They are fetched into the cache before, side by side:
   the kernel would wait for one after the other. A prefetch of memory that is gone does nothing. False: one cannot be
   read, so the lists have changed. */
static bool pyprof__read_heads(pyprof__sampler *sampler) {
    const uint32_t most = 1024; /* UIO_MAXIOV */
    pyprof__waiting *waiting = &sampler->waiting;
    const struct iovec *places = (const struct iovec *)waiting->places.data;
    for (uint32_t i = 0; i < waiting->members.count; i += most) {
        size_t count = pyprof__min64(most, waiting->members.count - i);
        pyprof__prefetch_places(places + i, count);
        if (!pyprof__read_places(places + i, count, pyprof__head_at(&waiting->now, i),
                                 count * waiting->now.item_size)) {
            return false;
        }
    }
    return true;
}

/* Wakes the members whose thread states are attached, or have another leaf frame than when they were parked. False: a
   link has changed, or something cannot be read: the lists are not what they were. */
static bool pyprof__wake_by_heads(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    const pyprof__layout *layout = &sampler->layout;
    uintptr_t attached = layout->ts_status == PYPROF__ABSENT ? pyprof__current_thread_state() : 0;
    if (!pyprof__read_heads(sampler)) {
        return false;
    }
    for (uint32_t i = waiting->members.count; i-- > 0;) {
        const void *then = pyprof__head_at(&waiting->then, i), *now = pyprof__head_at(&waiting->now, i);
        bool is_attached = (uintptr_t)PYPROF__ITEM(struct iovec, &waiting->places, i).iov_base == attached;
        if (!is_attached && memcmp(then, now, waiting->then.item_size) == 0) {
            continue;
        }
        if (!pyprof__is_linked_as(layout, then, now)) {
            return false;
        }
        if (is_attached || !pyprof__may_stand_as(layout, then, now)) {
            pyprof__thread *thread = pyprof__member_at(sampler, i);
            pyprof__settle_run(sampler, thread, pyprof__now(), pyprof__cpu_time(thread));
            pyprof__wake_member(sampler, i);
        }
    }
    return true;
}

/* The balance, in ns: what the process's CPU clock shows beyond the clocks of the sampler and of all threads that are
   awake. While it stays the same, no parked thread has run, and none that Python does not know.
   A thread's clock is brought up to date when it is read. In the process's clock a thread is up to date only if its own
   clock was just read, or if it does not run: of one that runs at this moment, the time since the last clock tick of
   its core is missing, up to 4 ms on most kernels. So a parked thread that runs now, and has not taken the GIL, shows
   that late; pyprof__settle_run makes up for it. One that has stopped again before it shows counts as idle: so what has
   run must have stood still for PYPROF__RESTLESS_TIMES as long before it is parked, and no more than that part of its
   time can be lost to view. */
static int64_t pyprof__weigh(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    int64_t rest = 0;
    if (!waiting->has_timer) {
        waiting->timer = pyprof__keep_process_clock();
        waiting->has_timer = true;
    }
    for (uint32_t i = 0; i < waiting->awake.count; i++) {
        uint32_t index = PYPROF__ITEM(uint32_t, &waiting->awake, i);
        pyprof__thread *thread = pyprof__thread_at(sampler, index);
        thread->parking.weighed = index == waiting->read ? waiting->read_cpu : pyprof__cpu_time(thread);
        rest -= (int64_t)thread->parking.weighed;
    }
    rest -= (int64_t)pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    return rest + (int64_t)pyprof__clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* Lists all threads that are not parked, for the balance. False: no room. */
static bool pyprof__list_awake(pyprof__sampler *sampler) {
    sampler->waiting.awake.count = 0;
    for (uint32_t i = pyprof__next_awake(sampler, 0); i < sampler->threads.count;
         i = pyprof__next_awake(sampler, i + 1)) {
        if (pyprof__thread_at(sampler, i)->is_alive && !pyprof__add_awake(sampler, i)) {
            return false;
        }
    }
    return true;
}

/* Whether the balance shows that no parked thread has run since the last tick. It is weighed only where that reads less
   than half as many clocks as there are members. If it fails to show that several times in a row, as threads without
   Python run, it is left alone for PYPROF__UNWEIGHED_TICKS. */
static bool pyprof__is_in_balance(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    bool was_balanced = waiting->is_balanced;
    waiting->is_balanced = sampler->stats.ticks >= waiting->weigh_from &&
                           (was_balanced || pyprof__list_awake(sampler)) &&
                           2 * waiting->awake.count + 4 < waiting->members.count;
    if (!waiting->is_balanced) {
        return false;
    }
    int64_t rest = pyprof__weigh(sampler);
    bool shows_none = was_balanced && rest <= waiting->rest + PYPROF__BALANCE_SLACK_NS;
    waiting->rest = shows_none && waiting->rest < rest ? waiting->rest : rest;
    waiting->failures = shows_none ? 0 : waiting->failures + was_balanced;
    if (waiting->failures >= PYPROF__UNBALANCED_MAX) {
        waiting->failures = 0;
        waiting->weigh_from = sampler->stats.ticks + PYPROF__UNWEIGHED_TICKS;
        waiting->is_balanced = false;
    }
    return shows_none;
}

/* Whether a thread that is awake has the only GIL of the process: then no parked one is attached, and their heads need
   not be read. False from time to time all the same, so that they are. */
static bool pyprof__holds_only_gil(const pyprof__sampler *sampler) {
    return sampler->interps.count == 1 && sampler->stats.ticks % PYPROF__HEADS_READ_TICKS != 0 &&
           pyprof__has_the_gil(&sampler->layout, sampler->waiting.holder);
}

/* Wakes the members that have run since the last tick, or that may have. At the beginning of a tick, before the lists
   are read: what is woken is read with them. */
static void pyprof__tend_waiting(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    if (waiting->members.count == 0) {
        return;
    }
    uint64_t now = pyprof__now();
    bool is_in_balance = pyprof__is_in_balance(sampler);
    bool is_told = is_in_balance && pyprof__holds_only_gil(sampler);
    if (waiting->must_wake || waiting->naming != pyprof__process.thread_names.generation ||
        (!is_told && !pyprof__wake_by_heads(sampler))) {
        pyprof__wake_all(sampler);
        return;
    }
    if (!is_in_balance) {
        for (uint32_t i = waiting->members.count; i-- > 0;) {
            pyprof__wake_if_run(sampler, i);
        }
    }
    if (now >= waiting->name_due) {
        pyprof__tend_names(sampler, now);
    }
}

/* Gives each member a sample at this tick: in the figures at once, in the profile when that is brought up to date. */
static void pyprof__count_waiting(pyprof__sampler *sampler, uint64_t now) {
    pyprof__waiting *waiting = &sampler->waiting;
    uint32_t others = sampler->threads.count - waiting->members.count;
    waiting->ticks++;
    waiting->wall = waiting->walls[waiting->ticks % PYPROF__RECENT] = now;
    sampler->stats.samples += waiting->members.count;
    sampler->stats.samples_idle += waiting->members.count;
    sampler->stats.truncated_depth += waiting->cut;
    if (waiting->members.count > 0 && !pyprof__timeline_has_room(sampler->profile, 4 * (size_t)others + 64)) {
        pyprof__settle_waiting(sampler); /* the time line may be made coarser, by the lengths of its spans */
    }
}

/* Whether a thread stands still, by its last looks, and nothing about it is in question. */
static bool pyprof__may_park(const pyprof__sampler *sampler, const pyprof__thread *thread) {
    if (!thread->is_alive || !thread->last.is_there || thread->parking.calm < PYPROF__CALM_LOOKS ||
        thread->parking.restless > 0 || thread->last.kind != PYPROF__IDLE || thread->borrowed != 0 ||
        thread->asking.request != PYPROF__NONE) {
        return false;
    }
    const pyprof__tstate *tstate = pyprof__tstate_at(sampler, thread->tstate);
    return tstate->sibling == PYPROF__NONE && tstate->doubts == 0 && !tstate->is_borrowed;
}

static bool pyprof__has_room_for_member(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    size_t count = (size_t)waiting->members.count + 1;
    return pyprof__array_reserve(sampler->memory, &waiting->members, count) &&
           pyprof__array_reserve(sampler->memory, &waiting->places, count) &&
           pyprof__array_reserve(sampler->memory, &waiting->then, count) &&
           pyprof__array_reserve(sampler->memory, &waiting->now, count) &&
           pyprof__bits_reserve(sampler->memory, &waiting->threads, sampler->threads.count) &&
           pyprof__bits_reserve(sampler->memory, &waiting->tstates, sampler->tstates.count);
}

/* Makes a thread a member, with its thread state's head as this tick's copy has it. If there is no room, or it has just
   run, it stays awake. */
static void pyprof__park(pyprof__sampler *sampler, uint32_t index) {
    pyprof__waiting *waiting = &sampler->waiting;
    pyprof__thread *thread = pyprof__thread_at(sampler, index);
    pyprof__tstate *tstate = pyprof__tstate_at(sampler, thread->tstate);
    if (!pyprof__has_room_for_member(sampler) || !pyprof__weigh_out(sampler, index)) {
        return;
    }
    struct iovec head = {(void *)tstate->address, sampler->layout.ts_head};
    uint32_t place = waiting->members.count++;
    waiting->places.count = waiting->then.count = waiting->members.count;
    PYPROF__ITEM(uint32_t, &waiting->members, place) = index;
    PYPROF__ITEM(struct iovec, &waiting->places, place) = head;
    memcpy(pyprof__head_at(&waiting->then, place), tstate->copy, sampler->layout.ts_head);
    pyprof__bits_put(&waiting->threads, index, true);
    pyprof__bits_put(&waiting->tstates, thread->tstate, true);
    thread->parking.tstate = thread->tstate;
    thread->parking.ticks = waiting->ticks;
    waiting->name_due = pyprof__min64(waiting->name_due, thread->name.due);
    waiting->cut += thread->last.is_cut || thread->last.has_gap;
}

/* Parks the threads that may be, at the end of a tick. Few cost less if each is looked at. */
static void pyprof__park_candidates(pyprof__sampler *sampler) {
    pyprof__waiting *waiting = &sampler->waiting;
    if (waiting->candidates == 0 || waiting->candidates + waiting->members.count < PYPROF__PARK_LEAST ||
        !sampler->has_whole_lists) {
        return;
    }
    waiting->naming = pyprof__process.thread_names.generation;
    waiting->name_due = waiting->members.count == 0 ? UINT64_MAX : waiting->name_due;
    for (uint32_t i = pyprof__next_awake(sampler, 0); i < sampler->threads.count;
         i = pyprof__next_awake(sampler, i + 1)) {
        if (pyprof__may_park(sampler, pyprof__thread_at(sampler, i))) {
            pyprof__park(sampler, i);
        }
    }
}

// >>sampler
// The sampler's thread: a tick, when the next one comes, dumps and saves between ticks, and the end.
// In: the sampler that pyprof__spawn gives to the thread; must_stop, dumps_wanted and the bell (a word that the thread
// sleeps on) from other threads. Out: the profile and the figures, which others may look at whenever sampler->lock is
// free, after pyprof__settle_waiting.
// All functions here run in the sampler's thread. It has the lock during a tick, but not while it sleeps, saves, or
// waits for handlers at the end. It never takes the GIL.
// A tick, in this order (pyprof__tick):
//  1  answers that have come are booked                              pyprof__collect             >>asking
//  2  can this process still read its own memory? else all is lost   pyprof__can_read
//  3  the clocks of the runner, the thread asked last, are read      pyprof__begin_look          >>reading
//  4  a signal is looked for while there is none                     pyprof__seek_signal         >>asking
//  5  parked threads that have run are woken                         pyprof__tend_waiting        >>waiting
//  6  thread states are read, and put to their threads               pyprof__list_threads        >>threads
//  7  each parked thread has its sample                              pyprof__count_waiting       >>waiting
//  8  the runner, then each other thread, is looked at: a sample, a  pyprof__look                >>reading
//     request, or a loss; the time of one without a thread state     pyprof__end_time            >>records
//     ends
//  9  threads that stand still are parked                            pyprof__park_candidates     >>waiting
// 10  at every 64th, requests to threads that have ended are freed   pyprof__drop_dead_questions >>asking
// 11  the sampler leaves a core that it stayed on for nothing        pyprof__leave_core          >>holding
// Begin with pyprof__sampler_main, pyprof__sample_until_stopped, pyprof__tick, pyprof__list_threads.

/* Finds out which thread states exist, what they hold now, and to which threads they belong. Only where the lists have
   changed are they walked, and once more if they change meanwhile. */
static void pyprof__list_threads(pyprof__sampler *sampler) {
    pyprof__tend_waiting(sampler);
    bool is_known = pyprof__reread_lists(sampler) && pyprof__lists_unchanged(sampler);
    if (!is_known) {
        pyprof__wake_all(sampler);
    }
    sampler->has_whole_lists = is_known || pyprof__walk_lists(sampler) || pyprof__walk_lists(sampler); /* if need be */
    for (uint32_t i = pyprof__next_awake_tstate(sampler, 0); i < sampler->tstates.count;
         i = pyprof__next_awake_tstate(sampler, i + 1)) {
        pyprof__tstate *tstate = pyprof__tstate_at(sampler, i);
        pyprof__bind(sampler, tstate);
        if (tstate->thread != PYPROF__NONE) {
            pyprof__join(sampler, i);
        }
    }
}

/* Counts a tick in which nothing could be read as lost for all threads that were there at the last one. */
static void pyprof__count_unreadable(pyprof__sampler *sampler) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__lose(sampler, PYPROF__UNREADABLE, pyprof__thread_at(sampler, i)->is_alive);
    }
}

/* Whether this process can still read its own memory. A program may take that right from itself (a seccomp filter). The
   host's log is told when it ends. */
static bool pyprof__can_read(pyprof__sampler *sampler) {
    bool can_read = pyprof__reads_mend();
    if (!can_read && !sampler->is_blind) {
        pyprof__warn(sampler, "this process may no longer read its own memory: nothing more is recorded");
    }
    sampler->is_blind = !can_read;
    return can_read;
}

/* Looks at all threads once. The thread that was asked at the last tick (the runner) likely runs Python again: its
   clocks are read first, then the lists, then it is looked at before the others. Where few thread states and interpreters
   are read (PYPROF__FRESH_LISTS) their copies are so young that they serve as the last look before a signal is sent
   (observed.is_fresh), which saves a system call. */
static void pyprof__tick(pyprof__sampler *sampler) {
    uint64_t now = pyprof__now();
    uint32_t runner = sampler->runner;
    pyprof__observation observed;
    sampler->stats.ticks++;
    pyprof__collect(sampler);
    if (!pyprof__can_read(sampler)) {
        pyprof__count_unreadable(sampler);
        return;
    }
    sampler->runner = PYPROF__NONE;
    sampler->waiting.read = runner;
    if (runner != PYPROF__NONE) {
        pyprof__begin_look(pyprof__thread_at(sampler, runner), &observed);
        sampler->waiting.read_cpu = observed.cpu;
    }
    pyprof__seek_signal(sampler);
    size_t reserve = pyprof__open_reserve(sampler->memory);
    pyprof__list_threads(sampler);
    sampler->memory->reserve = reserve;
    if (pyprof__reads_are_refused()) {
        pyprof__count_unreadable(sampler);
        return;
    }
    pyprof__count_waiting(sampler, now);
    sampler->waiting.candidates = 0;
    if (runner != PYPROF__NONE && pyprof__thread_at(sampler, runner)->seen == sampler->stats.ticks) {
        uint32_t read = sampler->tstates.count - sampler->waiting.members.count + sampler->interps.count;
        observed.is_fresh = read <= PYPROF__FRESH_LISTS;
        pyprof__look(sampler, pyprof__thread_at(sampler, runner), &observed);
    }
    for (uint32_t i = pyprof__next_awake(sampler, 0); i < sampler->threads.count;
         i = pyprof__next_awake(sampler, i + 1)) {
        pyprof__thread *thread = pyprof__thread_at(sampler, i);
        thread->is_alive = thread->seen == sampler->stats.ticks;
        if (!thread->is_alive) {
            pyprof__cancel(sampler, thread);
            pyprof__end_time(sampler, thread, now, false);
        } else if (i != runner) {
            pyprof__begin_look(thread, &observed);
            pyprof__look(sampler, thread, &observed);
        }
    }
    pyprof__park_candidates(sampler);
    if (sampler->stats.ticks % 64 == 0) {
        pyprof__drop_dead_questions(sampler);
    }
    pyprof__leave_core(&sampler->holder, sampler->stats.ticks, now);
    sampler->last_tick = now;
}

/* Ends the dump that is being served: its answers have come, or its time is over. Those who wait for it see
   dumps_served reach the number that they wanted; the last one is added by pyprof__wake. */
static void pyprof__end_dump(pyprof__sampler *sampler) {
    pthread_mutex_lock(&sampler->lock);
    pyprof__collect(sampler);
    pyprof__unlock_and_tell(sampler);
    pyprof__set(&sampler->dumps_served, sampler->dump_wanted - 1);
    pyprof__wake(&sampler->dumps_served);
    sampler->dump_until = 0;
}

static uint64_t pyprof__random(uint64_t *state) {
    *state ^= *state << 13; /* xorshift64: Marsaglia, Xorshift RNGs, 2003 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Does what cannot wait for the next tick, when the bell has rung: pyprof_dump wants a tick at once, whose answers are
   then waited for beside all else; or a handler has met code objects without a known name, which may not live until the
   next tick (pyprof__answer). */
static void pyprof__answer_bell(pyprof__sampler *sampler) {
    const uint64_t patience = 100000000;
    uint32_t wanted = pyprof__get(&sampler->dumps_wanted);
    bool begins_dump = wanted != pyprof__get(&sampler->dumps_served) && sampler->dump_until == 0;
    pthread_mutex_lock(&sampler->lock);
    if (begins_dump) {
        pyprof__tick(sampler);
        sampler->dump_wanted = wanted;
        sampler->dump_until = pyprof__now() + patience;
    }
    pyprof__collect(sampler);
    pyprof__unlock_and_tell(sampler);
}

/* The moment of the next tick, on the monotonic clock: one random moment in each interval (stratified sampling), as a
   fixed rhythm would beat with the program's own. *stratum is the number of the next interval that has none yet.
   Moments that have passed already are counted as missed; a tick that comes a little late misses none. */
static uint64_t pyprof__next_deadline(pyprof__sampler *sampler, uint64_t *stratum, uint64_t now) {
    uint64_t interval = sampler->desc.interval_us * (uint64_t)1000;
    for (;; sampler->stats.ticks_missed++) {
        uint64_t begin = sampler->start + *stratum * interval;
        uint64_t deadline = begin + pyprof__random(&sampler->random) % interval;
        if (now > begin + interval) {
            uint64_t passed = (now - begin) / interval; /* after a long stall not one by one */
            sampler->stats.ticks_missed += passed - 1;
            *stratum += passed;
            continue;
        }
        ++*stratum;
        if (deadline > now) {
            return deadline;
        }
    }
}

/* Timers that lead the sampler's sleep. A thread that sleeps to a deadline which is the next thing due on its core has
   the kernel set that core's own timer. A virtual machine has to call its host for that, which may take a third of a
   tick. It is not done where another timer is due there no later: that was seen to when the one before it rang. So two
   timers take turns. While one stands at the next deadline, the other is set to the one after that, and is not the next
   thing due; who then sleeps to the next deadline has nothing to set either. Nobody waits for these timers, so they
   change nothing but that. A sampler that goes to another core leaves one behind, which rings there. */
static void pyprof__leads_set(pyprof__leads *leads, uint64_t moment) {
    if (leads->count > 0) {
        leads->turn ^= 1;
        pyprof__set_timer(leads->timers[leads->turn], moment);
    }
}

static void pyprof__leads_stop(pyprof__leads *leads) {
    while (leads->count > 0) {
        syscall(SYS_timer_delete, leads->timers[--leads->count]);
    }
}

/* How long it takes to set a timer that is due after so many ns. */
static uint64_t pyprof__time_to_set(int timer, uint64_t after) {
    uint64_t begin = pyprof__now();
    pyprof__set_timer(timer, begin + after);
    uint64_t end = pyprof__now();
    pyprof__set_timer(timer, 0);
    return end - begin;
}

/* Makes the timers, in the thread that sleeps, if it clearly takes longer to set one that is the next thing due. */
static void pyprof__leads_start(pyprof__leads *leads) {
    uint32_t longer = 0;
    while (leads->count < 2 && pyprof__make_timer(&leads->timers[leads->count])) {
        leads->count++;
    }
    for (uint32_t i = 0; leads->count == 2 && longer < PYPROF__LEAD_ENOUGH && i < PYPROF__LEAD_TRIALS; i++) {
        uint64_t late = pyprof__time_to_set(leads->timers[0], PYPROF__LEAD_LATE_NS);
        longer += pyprof__time_to_set(leads->timers[0], PYPROF__LEAD_SOON_NS) > late + PYPROF__LEAD_GAIN_NS;
    }
    if (longer < PYPROF__LEAD_ENOUGH) {
        pyprof__leads_stop(leads);
    }
}

/* When ticks are due, on the monotonic clock. */
typedef struct pyprof__plan {
    uint64_t next;
    uint64_t then;    /* the one after that, */
    uint64_t stratum; /* and the interval behind it: see pyprof__next_deadline */
} pyprof__plan;

/* Goes on to the next deadline that has not passed. True: it is a new one, as the one that was planned has. */
static bool pyprof__advance(pyprof__sampler *sampler, pyprof__plan *plan, uint64_t now) {
    bool is_missed = plan->then <= now;
    sampler->stats.ticks_missed += is_missed;
    plan->next = is_missed ? pyprof__next_deadline(sampler, &plan->stratum, now) : plan->then;
    plan->then = pyprof__next_deadline(sampler, &plan->stratum, plan->next);
    return is_missed;
}

/* Has the timers lead to the next deadline, if it is new, and to the one after that. In this order: the other way round,
   the core's own timer would be set twice. */
static void pyprof__lead(pyprof__sampler *sampler, const pyprof__plan *plan, bool is_new) {
    if (is_new) {
        pyprof__leads_set(&sampler->leads, plan->next);
    }
    pyprof__leads_set(&sampler->leads, plan->then);
}

/* Does the tick of a deadline that has come, at now. */
static void pyprof__keep_deadline(pyprof__sampler *sampler, pyprof__plan *plan, uint64_t now) {
    pyprof__set(&sampler->tick_waits, 1); /* whoever copies in pieces would take the lock again at once */
    pthread_mutex_lock(&sampler->lock);
    pyprof__set(&sampler->tick_waits, 0);
    if (pyprof__note_lateness(&sampler->holder, now, now - plan->next)) {
        pyprof__warn(sampler,
                     "the thread \"pyprof\" had to wait for the core that it shares with a thread that is held, and so "
                     "leaves it after each tick for a while: a real-time priority for it, or Linux 6.12, may end that");
    }
    pyprof__tick(sampler);
    bool is_new = pyprof__advance(sampler, plan, now);
    pyprof__unlock_and_tell(sampler);
    pyprof__lead(sampler, plan, is_new);
}

/* The profile says how long the recording has been, and what was lost, up to now: it is about to be copied or saved, or
   it ends. With the sampler's lock, or in the only thread that has it. */
static void pyprof__note_end(pyprof__sampler *sampler, uint64_t now) {
    sampler->profile->duration_ns = now - sampler->start;
    sampler->profile->stats = sampler->stats;
}

/* Saves what was recorded so far, when it is time. Without the lock, so that none has to wait for the disk: no tick
   comes meanwhile, and what a snapshot would bring up to date has just been, so the profile does not change. Not into a
   pipe or a device, which would get one profile behind the other. */
static void pyprof__autosave(pyprof__sampler *sampler, uint64_t now) {
    struct stat status;
    if (sampler->desc.autosave_s == 0 || now < sampler->autosave_at) {
        return;
    }
    if (stat(sampler->output_path, &status) != 0 || S_ISREG(status.st_mode)) {
        pthread_mutex_lock(&sampler->lock);
        pyprof__settle_waiting(sampler);
        pyprof__note_end(sampler, now);
        pyprof__unlock_and_tell(sampler);
        (void)pyprof_save(sampler->profile, NULL, sampler->output_path); /* tells the host's log if it fails */
    }
    sampler->autosave_at = pyprof__now() + sampler->desc.autosave_s * UINT64_C(1000000000);
}

/* Sleeps, ticks, and answers the bell, until must_stop. While a dump waits for answers it sleeps a millisecond at a
   time at most. */
static void pyprof__sample_until_stopped(pyprof__sampler *sampler) {
    pyprof__plan plan = {0, 0, 0};
    plan.next = pyprof__next_deadline(sampler, &plan.stratum, sampler->start);
    plan.then = pyprof__next_deadline(sampler, &plan.stratum, plan.next);
    pyprof__lead(sampler, &plan, true);
    uint32_t heard = 0; /* the bell as it was when last looked at: it may ring while the sampler is at work */
    while (!pyprof__get(&sampler->must_stop)) {
        uint32_t bell = pyprof__get(&pyprof__handler.bell);
        if (bell != heard) {
            heard = bell;
            pyprof__answer_bell(sampler);
            continue;
        }
        uint64_t now = pyprof__now();
        if (sampler->dump_until != 0 &&
            (now >= sampler->dump_until || !pyprof__any_request(1u << PYPROF__REQUEST_SENT))) {
            pyprof__end_dump(sampler);
            heard--; /* looks again: another dump may have been wanted meanwhile */
            continue;
        }
        if (now < plan.next) {
            uint64_t soon = sampler->dump_until != 0 ? now + 1000000u : plan.next;
            pyprof__wait_until(&pyprof__handler.bell, heard, pyprof__min64(soon, plan.next));
            continue;
        }
        pyprof__keep_deadline(sampler, &plan, now);
        pyprof__autosave(sampler, now);
    }
    uint64_t end = pyprof__now();
    if (end >= plan.next) { /* one tick makes up for the moments passed since the last one; the others are missed */
        pyprof__keep_deadline(sampler, &plan, end);
    }
}

#if PYPROF__UNLOADABLE
/* Whether a thread is in our handler, even before its first or after its last statement: it has the mask of our action,
   all signals but those of faults. A thread that blocks all signals by itself blocks those of faults, too. What the C
   library keeps for itself is in neither mask. */
static bool pyprof__is_in_handler(int32_t tid) {
    pyprof__signals signals;
    const uint64_t not_told = pyprof__signal_bit(SIGKILL) | pyprof__signal_bit(SIGSTOP) | pyprof__signal_bit(32) |
                              pyprof__signal_bit(33) | pyprof__signal_bit(34); /* the C library's own */
    uint64_t faults = pyprof__faults();
    return pyprof__read_signals(tid, &signals) && (signals.blocked | not_told | faults) == UINT64_MAX &&
           (signals.blocked & faults) != faults;
}

/* Waits until the handlers have returned that have said that they are done: their last instructions must not be
   unloaded with this code. 20 ms at most, or 2 s if it is being unloaded; is_unreturned: one was still there. */
static void pyprof__await_returns(pyprof__sampler *sampler) {
    const int enough = sampler->is_unloaded ? 20000 : 200; /* of 100 us, in all */
    int waited = 0;
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        bool is_in = thread->is_alive && thread->asking.was_asked && pyprof__is_in_handler(thread->tid);
        for (; is_in && waited < enough; waited++) {
            pyprof__sleep_ns(100000);
            is_in = pyprof__is_in_handler(thread->tid);
        }
        sampler->is_unreturned = sampler->is_unreturned || is_in;
    }
}
#endif

/* The sampler's thread, from pyprof__spawn, which waits until the first tick is done (ready), to the join in
   pyprof__end_recording. At its end no more signals are sent, answers that are under way are taken in, and each
   thread's time is brought up to now. */
static void *pyprof__sampler_main(void *argument) {
    pyprof__sampler *sampler = (pyprof__sampler *)argument;
    prctl(PR_SET_NAME, "pyprof", 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* ns; by default a sleep may end 50 us late: prctl(2) */
    pthread_mutex_lock(&sampler->lock);
    sampler->tid = pyprof__tid();
    pyprof__learn_tid_offset(sampler);
    sampler->start = sampler->last_tick = pyprof__now();
    sampler->autosave_at = sampler->start + sampler->desc.autosave_s * UINT64_C(1000000000);
    sampler->stats.signal_number = pyprof__handler.signal_number;
    if (sampler->desc.capture == PYPROF_CAPTURE_DEFAULT && pyprof__handler.signal_number == 0) {
        sampler->move_due = sampler->start + 1000000000u; /* one was looked for just now */
        pyprof__warn(sampler, pyprof__none_is_free);
    }
    pyprof__tick(sampler);
    pyprof__unlock_and_tell(sampler);
    pyprof__wake(&sampler->ready);
    if (pyprof__handler.signal_number != PYPROF__LEAD_SIGNAL) {
        pyprof__leads_start(&sampler->leads);
    }
    pyprof__sample_until_stopped(sampler);
    pyprof__leads_stop(&sampler->leads);
    if (sampler->desc.capture == PYPROF_CAPTURE_DEFAULT) {
        pyprof__handler_stop(sampler->is_unloaded);
#if PYPROF__UNLOADABLE
        pyprof__await_returns(sampler);
#endif
    }
    pthread_mutex_lock(&sampler->lock);
    pyprof__collect(sampler);
    pyprof__wake_all(sampler);
    pyprof__leave_process_clock(sampler->waiting.has_timer ? sampler->waiting.timer : -1);
    uint64_t now = pyprof__now();
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__end_time(sampler, pyprof__thread_at(sampler, i), now, true);
    }
    sampler->stats.sampler_cpu_ns = pyprof__clock(CLOCK_THREAD_CPUTIME_ID);
    pyprof__note_end(sampler, now);
    pyprof__unlock_and_tell(sampler);
    return NULL;
}

#endif /* PYPROF_NO_RECORDING */

// >>bytes
// Bytes on their way out. In: texts and numbers, in pieces. Out: the same to a write function, in larger pieces, escaped
// as collapsed text or JSON wants them. Any thread, with a pyprof__out of its own; no lock; never the signal handler.
// Invariants: once a write function has answered false it is not called again, and all that is put is dropped.
// Begin with pyprof__put, pyprof__utf8_get, pyprof__put_collapsed, pyprof__put_json.

/* Bytes on their way to a write function, which gets them in pieces of up to 16 KiB. */
typedef struct pyprof__out {
    pyprof_write_fn write; /* NULL: for pyprof_visit, which puts nothing */
    void *user;
    size_t size;    /* bytes in the buffer */
    bool is_broken; /* write has answered false: it is not called again, and all that is put is dropped */
    char buffer[16384];
} pyprof__out;

static void pyprof__flush(pyprof__out *out) {
    if (!out->is_broken && out->size > 0) {
        out->is_broken = !out->write(out->user, out->buffer, out->size);
    }
    out->size = 0;
}

/* That write has failed is kept in is_broken, so that writers need not look after each piece. */
static void pyprof__put(pyprof__out *out, const char *text, size_t size) {
    while (size > 0 && !out->is_broken) {
        size_t part = (size_t)pyprof__min64(size, sizeof out->buffer - out->size);
        memcpy(out->buffer + out->size, text, part);
        out->size += part;
        text += part;
        size -= part;
        if (out->size == sizeof out->buffer) {
            pyprof__flush(out);
        }
    }
}

static void pyprof__put_text(pyprof__out *out, const char *text) {
    pyprof__put(out, text, strlen(text));
}

static void pyprof__put_number(pyprof__out *out, uint64_t number) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    pyprof__put(out, digits + at, sizeof digits - at);
}

/* A line below 1, which means that none is known, is written as 0. */
static void pyprof__put_line_number(pyprof__out *out, int32_t line) {
    pyprof__put_number(out, line > 0 ? (uint64_t)line : 0);
}

/* The code point that begins at text, which has at least one byte; *length: how many bytes it takes. Surrogates in
   three bytes are taken as they are: CPython's texts may hold lone ones. A byte that begins no code point (a name that
   the system has may hold any) counts as the lone surrogate that Python's surrogateescape makes of it: U+DC00 + byte
   (PEP 383). */
static uint32_t pyprof__utf8_get(const char *text, size_t size, size_t *length) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    size_t count = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    uint32_t c = count <= 1 ? at[0] : at[0] & (0x7fu >> count);
    bool is_valid = count > 0 && count <= size;
    for (size_t i = 1; is_valid && i < count; i++) {
        is_valid = (at[i] & 0xc0) == 0x80;
        c = c << 6 | (at[i] & 0x3fu);
    }
    is_valid = is_valid && c >= least[count] && c <= 0x10ffff && at[0] < 0xf8;
    *length = is_valid ? count : 1;
    return is_valid ? c : 0xdc00u + at[0];
}

static void pyprof__put_escape(pyprof__out *out, const char *prefix, uint32_t c, int digits) {
    char text[16];
    snprintf(text, sizeof text, "%s%0*x", prefix, digits, (unsigned)c);
    pyprof__put_text(out, text);
}

/* Part of a line of collapsed text. What would end a frame or a line, or is no character, is written as Python would
   write it in a string; U+0085, U+2028 and U+2029 end lines for Python's str.splitlines. Blanks stay: the value stands
   behind the last one. */
static void pyprof__put_collapsed(pyprof__out *out, const char *text, size_t size) {
    size_t length;
    for (; size > 0; text += length, size -= length) {
        uint32_t c = pyprof__utf8_get(text, size, &length);
        if (c == '\\') {
            pyprof__put_text(out, "\\\\");
        } else if (c == '\n' || c == '\r' || c == '\t') {
            pyprof__put_text(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (c == ';' || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            pyprof__put_escape(out, "\\x", c, 2);
        } else if (c == 0x2028 || c == 0x2029 || (c >= 0xd800 && c < 0xe000)) {
            pyprof__put_escape(out, "\\u", c, 4);
        } else {
            pyprof__put(out, text, length);
        }
    }
}

/* The inside of a JSON string (RFC 8259, section 7). Lone surrogates are escaped, as their bytes would not be UTF-8,
   which section 8.1 asks for. */
static void pyprof__put_json(pyprof__out *out, const char *text, size_t size) {
    size_t length;
    for (; size > 0; text += length, size -= length) {
        uint32_t c = pyprof__utf8_get(text, size, &length);
        if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            pyprof__put(out, escaped, 2);
        } else if (c < 0x20 || (c >= 0xd800 && c < 0xe000)) {
            pyprof__put_escape(out, "\\u", c, 4);
        } else {
            pyprof__put(out, text, length);
        }
    }
}

// >>shown
// What all outputs have in common. In: a profile that nobody changes meanwhile, and a pyprof_output. Out: paths and the names
// of threads and processes as they are shown; the tree, with nodes merged that are shown as one; from these, collapsed text
// and pyprof_visit. Runs in the thread that writes, in any number of these at once: each call has a
// pyprof__writing of its own, and takes no lock. Never in the signal handler.
// Merged: with PYPROF_DETAIL_FUNCTION all lines of a function that one parent calls; tracks that show the same process,
// name and id, and with merge_threads all tracks of a process; and below parents that were merged, equal children.
// Order: nodes as they entered the profile, so that each comes after its parent; tracks as they came; spans by time.
// Begin with pyprof__writing_new, pyprof__shown_of, pyprof__fill_shown, pyprof__each_stack, pyprof__visit_nodes.

/* Whether the folder that the first bytes of a path name is a package. That is looked up while writing: where the
   sources are not there, no folder is one. */
static bool pyprof__has_init_file(const char *path, size_t directory_size) {
    char name[PYPROF__PATH_SIZE];
    int size = snprintf(name, sizeof name, "%.*s/__init__.py", (int)directory_size, path);
    return size > 0 && (size_t)size < sizeof name && access(name, F_OK) == 0;
}

/* Where the last part of a path begins: behind its last slash; 0 = it has none. */
static size_t pyprof__last_part(const char *path, size_t size) {
    while (size > 0 && path[size - 1] != '/') {
        size--;
    }
    return size;
}

/* How many bytes of a path to leave out: as py-spy does, all up to the outermost package that the file is in. */
static size_t pyprof__short_path_offset(const char *path, size_t size) {
    size_t offset = pyprof__last_part(path, size);
    while (offset > 1 && pyprof__has_init_file(path, offset - 1)) {
        offset = pyprof__last_part(path, offset - 1);
    }
    return offset;
}

/* What one call that writes or visits works on: the profile, how to show it, and memory of its own. It lives as long as
   the call. */
typedef struct pyprof__writing {
    const pyprof_profile *profile; /* what is shown: the source, or what the filters leave of it */
    const pyprof_profile *source;  /* the caller's */
    pyprof_output output;
    pyprof__memory memory; /* an account of its own within the recording's budget: several may write one profile */
    uint32_t *short_paths; /* of each string that is a file: how many bytes of it are left out, + 1; 0 = it is none */
    int32_t *owners;       /* of each string: id of the thread whose name it is; 0 = none, PYPROF__SEVERAL */
    uint32_t *processes;   /* of each string: how many processes have it as their program */
    bool has_ids;          /* threads of one name are shown apart as far as their ids are known */
    bool has_tracks;       /* and each track is a thread of its own */
    pyprof__out out;
} pyprof__writing;

#define PYPROF__SEVERAL (-1)

/* So many processes of one program are shown apart, of more only the first process of all. */
#define PYPROF__PROCESSES_APART 16

/* Finds out which names tell a thread from all others. Threads that nobody named have the name of the process, or of
   the thread that made them. Those, and all others that share a name of the system's, are told apart by their ids. */
static void pyprof__learn_owners(pyprof__writing *writing) {
    const pyprof_profile *profile = writing->profile;
    writing->owners[profile->process_name] = PYPROF__SEVERAL;
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        const pyprof__track *track = pyprof__track_at(profile, i);
        int32_t *owner = &writing->owners[track->name];
        *owner = *owner == 0 || *owner == track->tid ? track->tid : PYPROF__SEVERAL;
    }
}

/* Counts the processes of each program. The tracks of one process come one after the other. */
static void pyprof__count_processes(pyprof__writing *writing) {
    int32_t last = 0;
    for (uint32_t i = 0; i < writing->profile->tracks.count; i++) {
        const pyprof__track *track = pyprof__track_at(writing->profile, i);
        writing->processes[track->process] += i == 0 || track->pid != last;
        last = track->pid;
    }
}

/* The id of a track's process; 0 = it is not told from others of its program. */
static int32_t pyprof__shown_pid(const pyprof__writing *writing, const pyprof__track *track) {
    bool is_first = track->pid == pyprof__track_at(writing->source, 0)->pid;
    bool are_many = writing->processes[track->process] > PYPROF__PROCESSES_APART;
    return is_first || !are_many || writing->has_ids || writing->has_tracks ? track->pid : 0;
}

/* The id to show behind the name of a thread, or in its place if it has none; 0 = the name is enough. */
static int32_t pyprof__shown_tid(const pyprof__writing *writing, const pyprof__track *track) {
    size_t size;
    pyprof__string_text(writing->profile, track->name, &size);
    bool is_told_apart = track->is_named || (size > 0 && writing->owners[track->name] != PYPROF__SEVERAL);
    return is_told_apart ? 0 : track->tid;
}

/* The id of the one thread that a track is of; 0 = it has had several, or may have: threads without a name have tracks by
   their ids, the others by their names. */
static int32_t pyprof__known_tid(const pyprof__track *track) {
    return track->is_shared && track->is_named ? 0 : track->tid;
}

/* pyprof__put_collapsed or pyprof__put_json. */
typedef void (*pyprof__put_escaped)(pyprof__out *out, const char *text, size_t size);

/* "NAME", "NAME (ID)" or "(ID)"; tid 0 = without an id. */
static void pyprof__put_thread_name(pyprof__writing *writing, pyprof__put_escaped put, uint32_t name, int32_t tid) {
    size_t size;
    const char *text = pyprof__string_text(writing->profile, name, &size);
    put(&writing->out, text, size);
    if (tid != 0) {
        pyprof__put_text(&writing->out, size > 0 ? " (" : "(");
        pyprof__put_number(&writing->out, (uint64_t)tid);
        pyprof__put_text(&writing->out, ")");
    }
}

/* "process 4711 (worker.py)", "process 4711"; of several "process * (worker.py)". */
static void pyprof__put_process_name(const pyprof__writing *writing, pyprof__out *out, pyprof__put_escaped put,
                                     uint32_t program, int32_t pid) {
    size_t size;
    const char *text = pyprof__string_text(writing->profile, program, &size);
    char id[32];
    snprintf(id, sizeof id, pid > 0 ? "process %d" : "process *", (int)pid);
    pyprof__put_text(out, id);
    if (size > 0) {
        pyprof__put_text(out, " (");
        put(out, text, size);
        pyprof__put_text(out, ")");
    }
}

/* The end of a path by which a file is shown. Only for strings that are files: the others have no offset. */
static const char *pyprof__short_path(const pyprof__writing *writing, uint32_t string, size_t *size) {
    const char *path = pyprof__string_text(writing->profile, string, size);
    size_t offset = writing->short_paths[string] - 1;
    *size -= offset;
    return path + offset;
}

/* Whether two paths lead to one file: one of them may begin where the program was started. False also if a file is
   gone. */
static bool pyprof__are_one_file(const pyprof_profile *profile, uint32_t a, uint32_t b) {
    struct stat one, other;
    size_t size;
    return stat(pyprof__string_text(profile, a, &size), &one) == 0 &&
           stat(pyprof__string_text(profile, b, &size), &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* Shows one folder more of a file's path. False: all of it is shown already. */
static bool pyprof__show_more(pyprof__writing *writing, uint32_t string) {
    size_t size;
    const char *path = pyprof__string_text(writing->profile, string, &size);
    size_t at = writing->short_paths[string] - 1;
    if (at == 0) {
        return false;
    }
    writing->short_paths[string] = (uint32_t)pyprof__last_part(path, at - 1) + 1;
    return true;
}

/* A text by which files are shown, in one round of telling them apart. */
typedef struct pyprof__shown_path {
    uint64_t hash[2]; /* stands for the text */
    uint32_t string;  /* the first file that is shown so */
    bool is_shared;   /* another file is, too */
} pyprof__shown_path;

/* The entry for how a file is shown now; NULL = no room. */
static pyprof__shown_path *pyprof__intern_path(pyprof__writing *writing, pyprof__table *paths, uint32_t string,
                                               bool *is_new) {
    pyprof__shown_path key;
    size_t size;
    const char *text = pyprof__short_path(writing, string, &size);
    memset(&key, 0, sizeof key);
    pyprof__hash_text(text, size, key.hash);
    uint32_t index = pyprof__table_intern(&writing->memory, paths, &key, is_new);
    return index == PYPROF__NONE ? NULL : &PYPROF__ITEM(pyprof__shown_path, &paths->items, index);
}

/* One round of telling files apart: those that look alike show a folder more. *has_parted: some did. False: no room. */
static bool pyprof__part_paths(pyprof__writing *writing, pyprof__table *paths, bool *has_parted) {
    const pyprof_profile *profile = writing->profile;
    bool is_new;
    *has_parted = false;
    /* Which texts do several files share? Then all of these show more, the first one, too. */
    for (uint32_t i = 0; i < profile->strings.items.count; i++) {
        if (writing->short_paths[i] == 0) {
            continue;
        }
        pyprof__shown_path *path = pyprof__intern_path(writing, paths, i, &is_new);
        if (path == NULL) {
            return false;
        }
        if (is_new) {
            path->string = i;
        } else if (!pyprof__are_one_file(profile, path->string, i)) {
            path->is_shared = true;
        }
    }
    for (uint32_t i = 0; i < profile->strings.items.count; i++) {
        if (writing->short_paths[i] != 0 && pyprof__intern_path(writing, paths, i, &is_new)->is_shared) {
            *has_parted = pyprof__show_more(writing, i) || *has_parted;
        }
    }
    return true;
}

/* Files are shown from their outermost package on, and so far that no two look alike: /a/x/util.py and /b/y/util.py are
   first util.py both, then x/util.py and y/util.py. It ends, as each round shows more of some path. False: no room. */
static bool pyprof__shorten_paths(pyprof__writing *writing) {
    const pyprof_profile *profile = writing->profile;
    bool has_parted = true, has_room = true;
    for (uint32_t i = 0; i < profile->functions.items.count; i++) {
        uint32_t file = pyprof__function_at(profile, i)->file;
        if (writing->short_paths[file] == 0) {
            size_t size;
            const char *path = pyprof__string_text(profile, file, &size);
            bool is_short = profile->has_short_paths && *path != '/';
            writing->short_paths[file] = (is_short ? 0 : (uint32_t)pyprof__short_path_offset(path, size)) + 1;
        }
    }
    while (has_parted && has_room) {
        pyprof__table paths;
        pyprof__table_init(&paths, sizeof(pyprof__shown_path), offsetof(pyprof__shown_path, string));
        has_room = pyprof__part_paths(writing, &paths, &has_parted);
        pyprof__table_free(&writing->memory, &paths);
    }
    return has_room;
}

static void pyprof__writing_free(pyprof__writing *writing) {
    pyprof__memory memory = writing->memory; /* a copy, as the account lies in what is freed */
    pyprof__release(&memory, writing->short_paths,
                    3 * ((size_t)writing->source->strings.items.count + 1) * sizeof(uint32_t));
    if (writing->profile != writing->source) {
        pyprof_free((pyprof_profile *)writing->profile); /* made by pyprof__filter */
    }
    pyprof__release(&memory, writing, sizeof *writing);
}

/* NULL = no room. It is not on the stack, as hosts' threads may have small ones. */
static pyprof__writing *pyprof__writing_new(const pyprof_profile *profile, const pyprof_output *output,
                                            pyprof_write_fn write, void *user) {
    pyprof__memory memory = {profile->memory.allocator, SIZE_MAX, 0, 0, 0, profile->memory.budget};
    size_t paths_size = ((size_t)profile->strings.items.count + 1) * sizeof(uint32_t);
    pyprof__writing *writing = (pyprof__writing *)pyprof__alloc(&memory, sizeof *writing);
    if (writing == NULL) {
        return NULL;
    }
    memset(writing, 0, sizeof *writing);
    writing->memory = memory;
    writing->profile = writing->source = profile;
    writing->out.write = write;
    writing->out.user = user;
    if (output != NULL) {
        writing->output = *output;
    }
    writing->short_paths = (uint32_t *)pyprof__alloc(&writing->memory, 3 * paths_size);
    if (writing->short_paths == NULL) {
        pyprof__release(&memory, writing, sizeof *writing);
        return NULL;
    }
    memset(writing->short_paths, 0, 3 * paths_size);
    writing->owners = (int32_t *)writing->short_paths + profile->strings.items.count + 1;
    writing->processes = writing->short_paths + 2 * ((size_t)profile->strings.items.count + 1);
    pyprof__learn_owners(writing);
    pyprof__count_processes(writing);
    if (!pyprof__shorten_paths(writing)) {
        pyprof__writing_free(writing);
        return NULL;
    }
    return writing;
}

/* As the detail asks: the line of a node, or the first one of its function; 0 = none is known. */
static int32_t pyprof__shown_line(const pyprof__writing *writing, const pyprof__node *node) {
    bool is_line = writing->output.detail != PYPROF_DETAIL_FUNCTION;
    int32_t line = is_line ? node->line : pyprof__function_at(writing->profile, node->function)->first_line;
    return line > 0 ? line : 0;
}

/* "qualname (file.py:LINE)", as py-spy writes it (src/flamegraph.rs). A marker, as [truncated], is its name alone. */
static void pyprof__put_frame(pyprof__writing *writing, uint32_t function_index, int32_t line) {
    const pyprof__function *function = pyprof__function_at(writing->profile, function_index);
    size_t size;
    const char *text = pyprof__string_text(writing->profile, function->name, &size);
    pyprof__put_collapsed(&writing->out, text, size);
    text = pyprof__short_path(writing, function->file, &size);
    if (size > 0) {
        pyprof__put_text(&writing->out, " (");
        pyprof__put_collapsed(&writing->out, text, size);
        pyprof__put_text(&writing->out, ":");
        pyprof__put_line_number(&writing->out, line);
        pyprof__put_text(&writing->out, ")");
    }
}

/* The tree as it is shown. Nodes that are shown as one go by that of them which comes first. A full tree leaves little
   room beside it, so this takes few bytes a node: 13 to 18. An example, with PYPROF_DETAIL_FUNCTION:
     node      0: a thread   1: f, line 3   2: f, line 7   3: g, called by 1   4: g, called by 2
     first_of  0             1              1              3                   3
     next_of   none          2              none           4                   none */
typedef struct pyprof__shown_tree {
    size_t size;        /* of the three arrays, which lie one behind the other */
    uint32_t *first_of; /* of each node */
    uint32_t *next_of;  /* of each node: one more that is shown as the same; PYPROF__NONE = it is the last */
    uint32_t *slots;    /* the first ones by hash: index + 1, 0 = free; once all are in, a zero for each node, to use */
    size_t slot_count;  /* a power of two, more than there are nodes */
    pyprof__array path; /* nodes of one stack, leaf first: see pyprof__find_path */
} pyprof__shown_tree;

/* What a node is shown as: nodes that are alike in all of it are one. It has no padding, as it is hashed and compared as
   bytes. */
typedef struct pyprof__shown {
    uint32_t parent;   /* the first one that is shown as its parent is; PYPROF__NONE: a thread */
    uint32_t function; /* PYPROF__NONE: a thread */
    int32_t line;      /* of a thread: its name */
    int32_t tid;       /* see pyprof__shown_tid; with has_ids, pyprof__known_tid; with has_tracks, the track */
    uint32_t process;  /* of a thread: its process's program, a string; 0 = the profile is of one process */
    int32_t pid;       /* see pyprof__shown_pid */
} pyprof__shown;

/* Needs first_of for the parent of the node. */
static pyprof__shown pyprof__shown_of(const pyprof__writing *writing, const pyprof__shown_tree *tree, uint32_t index) {
    const pyprof__node *node = pyprof__node_at(writing->profile, index);
    pyprof__shown shown = {PYPROF__NONE, PYPROF__NONE, 0, 0, 0, 0};
    if (node->parent != PYPROF__NONE) {
        shown.parent = tree->first_of[node->parent];
        shown.function = node->function;
        shown.line = pyprof__shown_line(writing, node);
        return shown;
    }
    const pyprof__track *track = pyprof__track_at(writing->profile, (uint32_t)node->line);
    shown.process = track->process;
    shown.pid = pyprof__shown_pid(writing, track);
    if (!writing->output.merge_threads) {
        shown.line = (int32_t)track->name;
        shown.tid = writing->has_tracks ? node->line
                    : writing->has_ids  ? pyprof__known_tid(track)
                                        : pyprof__shown_tid(writing, track);
    }
    return shown;
}

/* The first node that is shown as this one is; itself, if there was none. There are more slots than nodes, so the
   search for a free one ends. */
static uint32_t pyprof__first_shown(const pyprof__writing *writing, pyprof__shown_tree *tree, uint32_t index) {
    pyprof__shown shown = pyprof__shown_of(writing, tree, index);
    size_t at = pyprof__hash(&shown, sizeof shown);
    for (;; at++) {
        uint32_t *slot = &tree->slots[at & (tree->slot_count - 1)];
        if (*slot == 0) {
            *slot = index + 1;
            return index;
        }
        pyprof__shown other = pyprof__shown_of(writing, tree, *slot - 1);
        if (pyprof__same_key(&shown, &other, sizeof shown)) {
            return *slot - 1;
        }
    }
}

/* Finds what is shown as one, in one pass: parents come before their children. */
static void pyprof__fill_shown(const pyprof__writing *writing, pyprof__shown_tree *tree) {
    memset(tree->slots, 0, tree->slot_count * sizeof *tree->slots);
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        uint32_t first = tree->first_of[i] = pyprof__first_shown(writing, tree, i);
        tree->next_of[i] = PYPROF__NONE;
        if (first != i) {
            tree->next_of[i] = tree->next_of[first];
            tree->next_of[first] = i;
        }
    }
    memset(tree->slots, 0, tree->slot_count * sizeof *tree->slots); /* for use by what walks the tree */
}

/* The value that a node has of its own in the metric that was asked for: nanoseconds, or samples. Only wall time and
   samples are also counted apart for a thread that waits, so only these can leave it out. */
static uint64_t pyprof__node_value(const pyprof_output *output, const pyprof_node *node) {
    switch (output->metric) {
    case PYPROF_METRIC_CPU:
        return node->cpu_ns;
    case PYPROF_METRIC_GIL:
        return node->gil_ns;
    case PYPROF_METRIC_SAMPLES:
        return node->samples - (output->include_idle ? 0 : node->samples_idle);
    case PYPROF_METRIC_WALL:
        break;
    }
    return node->wall_ns - (output->include_idle ? 0 : node->wall_idle_ns);
}

/* The figures, and only these, of all nodes that are shown as the given one, which is the first of them. */
static pyprof_node pyprof__sum_shown(const pyprof__writing *writing, const pyprof__shown_tree *tree, uint32_t first) {
    pyprof_node sum;
    memset(&sum, 0, sizeof sum);
    for (uint32_t i = first; i != PYPROF__NONE; i = tree->next_of[i]) {
        const pyprof__node *node = pyprof__node_at(writing->profile, i);
        sum.samples += node->samples;
        sum.samples_idle += node->samples_idle;
        sum.wall_ns += node->wall_ns;
        sum.wall_idle_ns += node->wall_idle_ns;
        sum.cpu_ns += node->cpu_ns;
        sum.gil_ns += node->gil_ns;
    }
    sum.value = pyprof__node_value(&writing->output, &sum);
    return sum;
}

/* What a node is in collapsed text. Of a thread that is a frame for its process, where there are several, and one for
   itself, unless threads are merged. */
enum {
    PYPROF__CODE_FRAME = 1,
    PYPROF__PROCESS_FRAME = 2,
    PYPROF__THREAD_FRAME = 4
};

static unsigned pyprof__frames_of(const pyprof__writing *writing, const pyprof__shown *shown) {
    if (shown->function != PYPROF__NONE) {
        return PYPROF__CODE_FRAME;
    }
    return (shown->process != 0 ? (unsigned)PYPROF__PROCESS_FRAME : 0) |
           (writing->output.merge_threads ? 0 : (unsigned)PYPROF__THREAD_FRAME);
}

/* One of these frames. */
static void pyprof__put_one_frame(pyprof__writing *writing, const pyprof__shown *shown, unsigned frame) {
    if (frame == PYPROF__CODE_FRAME) {
        pyprof__put_frame(writing, shown->function, shown->line);
    } else if (frame == PYPROF__PROCESS_FRAME) {
        pyprof__put_process_name(writing, &writing->out, pyprof__put_collapsed, shown->process, shown->pid);
    } else {
        pyprof__put_text(&writing->out, "thread ");
        pyprof__put_thread_name(writing, pyprof__put_collapsed, (uint32_t)shown->line, shown->tid);
    }
}

/* The frames of a node in a line of collapsed text. */
static void pyprof__put_shown(pyprof__writing *writing, const pyprof__shown *shown) {
    unsigned frames = pyprof__frames_of(writing, shown);
    for (unsigned frame = PYPROF__CODE_FRAME; frame <= PYPROF__THREAD_FRAME; frame *= 2) {
        if (frames & frame) {
            pyprof__put_one_frame(writing, shown, frame);
            pyprof__put_text(&writing->out, frames >= 2 * frame ? ";" : "");
        }
    }
}

/* Puts into the tree's path what is shown from a node outwards; without the thread where it is no frame. False: no
   room. */
static bool pyprof__find_path(pyprof__writing *writing, pyprof__shown_tree *tree, uint32_t node) {
    tree->path.count = 0;
    for (uint32_t at = node; at != PYPROF__NONE;) {
        pyprof__shown shown = pyprof__shown_of(writing, tree, at);
        if (pyprof__frames_of(writing, &shown) != 0) {
            uint32_t index = pyprof__array_add(&writing->memory, &tree->path);
            if (index == PYPROF__NONE) {
                return false;
            }
            PYPROF__ITEM(uint32_t, &tree->path, index) = at;
        }
        at = shown.parent;
    }
    return true;
}

/* Takes the stack in the tree's path, with its value, above 0, in microseconds or samples. False: no room. */
typedef bool (*pyprof__stack_fn)(pyprof__writing *writing, pyprof__shown_tree *tree, uint64_t value, void *user);

/* One call for each stack that has a value of its own. Times are rounded to microseconds so that the sum stays right to
   half of one: what one stack lost in rounding, the next one gets. */
static bool pyprof__each_stack(pyprof__writing *writing, pyprof__shown_tree *tree, pyprof__stack_fn take, void *user) {
    uint64_t unit = pyprof__is_time(writing->profile, writing->output.metric) ? 1000 : 1;
    uint64_t carry = unit / 2; /* what was not shown yet of the stacks so far */
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        if (tree->first_of[i] != i) {
            continue;
        }
        uint64_t value = pyprof__sum_shown(writing, tree, i).value;
        value += value == 0 ? 0 : carry;
        if (value < unit) {
            carry = value == 0 ? carry : value;
            continue;
        }
        carry = value % unit;
        if (!pyprof__find_path(writing, tree, i) || !take(writing, tree, value / unit, user)) {
            return false;
        }
    }
    return true;
}

/* A line of collapsed text, "thread NAME;root;...;leaf VALUE". Source of the format: the stackcollapse scripts of
   https://github.com/brendangregg/FlameGraph. */
static bool pyprof__put_stack(pyprof__writing *writing, pyprof__shown_tree *tree, uint64_t value, void *user) {
    (void)user;
    for (uint32_t depth = tree->path.count; depth-- > 0;) {
        pyprof__shown shown = pyprof__shown_of(writing, tree, PYPROF__ITEM(uint32_t, &tree->path, depth));
        pyprof__put_shown(writing, &shown);
        pyprof__put_text(&writing->out, depth > 0 ? ";" : " ");
    }
    if (tree->path.count > 0) {
        pyprof__put_number(&writing->out, value);
        pyprof__put_text(&writing->out, "\n");
    }
    return true;
}

/* Its memory is for pyprof__shown_tree_free. False: no room, and nothing to free. */
static bool pyprof__shown_tree_init(pyprof__writing *writing, pyprof__shown_tree *tree) {
    size_t count = writing->profile->nodes.items.count;
    memset(tree, 0, sizeof *tree);
    tree->path.item_size = sizeof(uint32_t);
    tree->slot_count = 64;
    while (tree->slot_count < count + count / 4) {
        tree->slot_count *= 2;
    }
    tree->size = (2 * count + tree->slot_count) * sizeof(uint32_t);
    tree->first_of = (uint32_t *)pyprof__alloc(&writing->memory, tree->size);
    if (tree->first_of == NULL) {
        return false;
    }
    tree->next_of = tree->first_of + count;
    tree->slots = tree->next_of + count;
    pyprof__fill_shown(writing, tree);
    return true;
}

static void pyprof__shown_tree_free(pyprof__writing *writing, pyprof__shown_tree *tree) {
    pyprof__release(&writing->memory, tree->first_of, tree->size);
    pyprof__array_free(&writing->memory, &tree->path);
}

/* Goes through all stacks that are shown, in the order in which their innermost nodes came. */
static pyprof_result pyprof__take_stacks(pyprof__writing *writing, pyprof__stack_fn take, void *user) {
    pyprof__shown_tree tree;
    if (!pyprof__shown_tree_init(writing, &tree)) {
        return PYPROF_ERROR_MEMORY;
    }
    bool has_room = pyprof__each_stack(writing, &tree, take, user);
    pyprof__shown_tree_free(writing, &tree);
    return has_room ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

static pyprof_result pyprof__write_collapsed(pyprof__writing *writing) {
    return pyprof__take_stacks(writing, pyprof__put_stack, NULL);
}

static pyprof_text pyprof__text_of(const pyprof_profile *profile, uint32_t string) {
    pyprof_text text;
    text.data = pyprof__string_text(profile, string, &text.size);
    return text;
}

/* A string of what is shown, as text that lives as long as the source: that has it, or has kept it when the filters
   made it. */
static pyprof_text pyprof__lasting_text(const pyprof__writing *writing, uint32_t string) {
    if (string < writing->source->strings.items.count) {
        return pyprof__text_of(writing->source, string);
    }
    pyprof_text text = pyprof__text_of(writing->profile, string);
    text.data = (const char *)(pyprof__find_kept(pyprof__get64(&writing->source->kept), text.data, text.size) + 1);
    return text;
}

/* The end of a path by which a file is shown. */
static pyprof_text pyprof__lasting_file(const pyprof__writing *writing, uint32_t string) {
    pyprof_text text = pyprof__lasting_text(writing, string);
    size_t offset = writing->short_paths[string] - 1;
    text.data += offset;
    text.size -= offset;
    return text;
}

/* What a visitor is given of a node, but for its number and that of its parent. Texts are the source's. */
static pyprof_node pyprof__shown_node(const pyprof__writing *writing, const pyprof__shown_tree *tree, uint32_t first) {
    const pyprof_profile *profile = writing->profile;
    pyprof__shown shown = pyprof__shown_of(writing, tree, first);
    pyprof_node node = pyprof__sum_shown(writing, tree, first);
    node.name.data = node.path.data = node.file.data = node.process.data = "";
    if (shown.function != PYPROF__NONE) {
        const pyprof__function *function = pyprof__function_at(profile, shown.function);
        node.name = pyprof__lasting_text(writing, function->name);
        node.path = pyprof__lasting_text(writing, function->file);
        node.file = pyprof__lasting_file(writing, function->file);
        node.line = node.path.size > 0 && shown.line > 0 ? shown.line : 0;
        node.first_line = node.path.size > 0 && function->first_line > 0 ? function->first_line : 0;
    } else if (!writing->output.merge_threads) {
        const pyprof__track *track = pyprof__track_at(profile, (uint32_t)pyprof__node_at(profile, first)->line);
        node.name = pyprof__lasting_text(writing, (uint32_t)shown.line);
        node.tid = writing->has_tracks ? pyprof__known_tid(track) : shown.tid;
        node.is_named = track->is_named;
    }
    if (shown.process != 0) {
        node.process = pyprof__lasting_text(writing, shown.process);
        node.pid = shown.pid;
    }
    return node;
}

/* Who is given what: a visitor nodes and spans, or a function samples. */
typedef struct pyprof__visits {
    pyprof_visitor visitor;
    bool (*sample)(void *user, const pyprof_heap_sample *sample);
    void *user; /* of sample */
} pyprof__visits;

/* Numbers the nodes that are shown, in the tree's slots, and gives each to the visitor, if it takes nodes. False: it
   said so. */
static bool pyprof__visit_nodes(const pyprof__writing *writing, pyprof__shown_tree *tree,
                                const pyprof_visitor *visitor) {
    uint32_t *numbers = tree->slots, next = 0;
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        if (tree->first_of[i] != i) {
            continue;
        }
        numbers[i] = next++;
        if (visitor->node != NULL) {
            uint32_t parent = pyprof__shown_of(writing, tree, i).parent;
            pyprof_node node = pyprof__shown_node(writing, tree, i);
            node.number = numbers[i];
            node.parent = parent != PYPROF__NONE ? numbers[parent] : PYPROF_NO_NODE;
            if (!visitor->node(visitor->user, &node)) {
                return false;
            }
        }
    }
    return true;
}

/* Gives the visitor the spans of one track after the other. The first one of each begins with the recording, and each
   follows the one before, so the sum of these tells when one begins. Spans away from Python are passed over. */
static bool pyprof__visit_spans(const pyprof__writing *writing, const pyprof__shown_tree *tree,
                                const pyprof_visitor *visitor) {
    const pyprof_profile *profile = writing->profile;
    const pyprof__span *items = (const pyprof__span *)profile->timeline.data;
    for (uint32_t track = 0; track < profile->tracks.count && visitor->span != NULL; track++) {
        uint64_t now = 0; /* since the recording began */
        for (uint32_t i = pyprof__track_at(profile, track)->first; i != PYPROF__NONE; i = items[i].next) {
            uint32_t kind = pyprof__span_kind(&items[i]);
            pyprof_span span;
            memset(&span, 0, sizeof span);
            span.thread = track;
            span.node = tree->slots[tree->first_of[items[i].node]];
            span.start_ns = now;
            span.wall_ns = items[i].wall_ns;
            span.cpu_ns = items[i].cpu_ns;
            span.samples = items[i].samples;
            span.is_idle = (kind & PYPROF__IDLE) != 0;
            span.has_gil = (kind & PYPROF__GIL) != 0;
            now += items[i].wall_ns;
            if (!(kind & PYPROF__AWAY) && !visitor->span(visitor->user, &span)) {
                return false;
            }
        }
    }
    return true;
}

static bool pyprof__visit_samples(const pyprof__writing *writing, const pyprof__shown_tree *tree,
                                  const pyprof__visits *visits) {
    const pyprof__array *samples = &writing->profile->samples;
    for (uint32_t i = 0; i < samples->count && visits->sample != NULL; i++) {
        pyprof_heap_sample sample = PYPROF__ITEM(const pyprof_heap_sample, samples, i);
        sample.node = tree->slots[tree->first_of[sample.node]];
        if (!visits->sample(visits->user, &sample)) {
            return false;
        }
    }
    return true;
}

/* Errors: MEMORY; WRITE: a function of the visitor answered false. */
static pyprof_result pyprof__visit_all(pyprof__writing *writing, const pyprof__visits *visits) {
    pyprof__shown_tree tree;
    if (!pyprof__shown_tree_init(writing, &tree)) {
        return PYPROF_ERROR_MEMORY;
    }
    bool is_whole = pyprof__visit_nodes(writing, &tree, &visits->visitor) &&
                    pyprof__visit_spans(writing, &tree, &visits->visitor) &&
                    pyprof__visit_samples(writing, &tree, visits);
    pyprof__shown_tree_free(writing, &tree);
    return is_whole ? PYPROF_OK : PYPROF_ERROR_WRITE;
}

// >>filters
// What of a profile is shown. In: a profile that nobody changes meanwhile, and a pyprof_output. Out: a pyprof__writing,
// and where a filter is given, in it a profile of its own: a copy that has only what passes. So nothing that writes or
// visits need know of filters. Also what outputs say of what they show. Any thread that holds the profile; no lock;
// never the handler.
// Invariants: the copy is made within the budget of the recording, and freed with the pyprof__writing. Strings and
// functions keep their indices in it; what is new ("[json]", "[other]") comes behind. Nodes, tracks and spans only move
// forward, so all is done in place.
//   1. which stacks pass: a node's stack, if its thread, its interpreter and one of its frames are what is asked for
//   2. which nodes stay: where such stacks end, and their callers; of the others the figures are dropped
//   3. min_share: what is too small is added to its parent
// After 2 and after 3 the tracks are packed, and spans follow their nodes: those of dropped stacks are PYPROF__AWAY.
// Begin with pyprof__view_new, pyprof__filter, pyprof__keep_passing, pyprof__package_of.

/* All samples of a profile. How many of them are of threads that waited is added to *idle. */
static uint64_t pyprof__all_samples(const pyprof_profile *profile, uint64_t *idle) {
    uint64_t samples = 0;
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        samples += pyprof__node_at(profile, i)->samples;
        *idle += pyprof__node_at(profile, i)->samples_idle;
    }
    return samples;
}

static const char *pyprof__metric_text(const pyprof__writing *writing) {
    static const char *const of_heap[] = {"bytes in use", "bytes allocated", "objects allocated", "objects in use"};
    const pyprof_output *output = &writing->output;
    if (writing->source->kind == PYPROF_KIND_HEAP) {
        return of_heap[output->metric];
    }
    switch (output->metric) {
    case PYPROF_METRIC_CPU:
        return "CPU time";
    case PYPROF_METRIC_GIL:
        return "time with the GIL";
    case PYPROF_METRIC_SAMPLES:
        return output->include_idle ? "samples, waiting included" : "samples, waiting left out";
    case PYPROF_METRIC_WALL:
        break;
    }
    return output->include_idle ? "wall time, waiting included" : "wall time, waiting left out";
}

/* What a picture or a table without a stack says: why there is none, and what to do. */
static const char *pyprof__why_empty(const pyprof__writing *writing) {
    uint64_t idle = 0, samples = pyprof__all_samples(writing->profile, &idle), unused = 0;
    if (writing->source->kind == PYPROF_KIND_HEAP) {
        return "Nothing was sampled of what is to be shown: another metric, a smaller sampling_bytes or no filter "
               "shows more.";
    }
    if (samples == 0 && writing->profile != writing->source && pyprof__all_samples(writing->source, &unused) > 0) {
        return "Nothing that was recorded passes the filters: leave one out, or look at what it says.";
    }
    if (samples == 0) {
        return "No thread ran Python while it was recorded, or for less than an interval: record for longer, "
               "or with a smaller interval_us.";
    }
    return samples == idle ? "All threads only waited: include_idle shows where."
                           : "Nothing was recorded of what is to be shown: another metric shows more.";
}

/* Whether a text matches a pattern, in which * stands for any text; is_prefix: whether it begins so. Only the last star
   is gone back to, as an earlier one could match nothing better: size times the pattern's length steps at most. */
static bool pyprof__matches(const char *pattern, bool is_prefix, const char *text, size_t size) {
    const char *star = NULL;
    size_t at = 0, tried = 0;
    while (at < size && (*pattern != '\0' || !is_prefix)) {
        if (*pattern == '*') {
            star = ++pattern;
            tried = at;
        } else if (*pattern != '\0' && *pattern == text[at]) {
            pattern++;
            at++;
        } else if (star != NULL) {
            pattern = star;
            at = ++tried;
        } else {
            return false;
        }
    }
    pattern += strspn(pattern, "*");
    return *pattern == '\0';
}

static bool pyprof__is_given(const char *filter) {
    return filter != NULL && filter[0] != '\0';
}

static bool pyprof__is_filtered(const pyprof_output *output) {
    return pyprof__is_given(output->thread) || pyprof__is_given(output->interpreter) ||
           pyprof__is_given(output->file) || pyprof__is_given(output->function) || output->only_mine ||
           output->min_share > 0;
}

/* Behind the last place where a path has this folder; 0 = it has none. */
static size_t pyprof__behind_folder(const char *path, size_t size, const char *folder) {
    size_t length = strlen(folder);
    for (size_t at = size; at >= length; at--) {
        if (memcmp(path + at - length, folder, length) == 0) {
            return at;
        }
    }
    return 0;
}

/* Behind /lib/pythonX.Y/ (lib64, and X.Yt of free-threaded builds) or /pythonXY.zip/; 0 = a path has neither. */
static size_t pyprof__behind_library(const char *path, size_t size) {
    static const char python[] = "/python";
    const size_t length = sizeof python - 1;
    for (size_t at = 0; at + length < size; at++) {
        if (memcmp(path + at, python, length) != 0) {
            continue;
        }
        bool is_in_lib =
            (at >= 4 && memcmp(path + at - 4, "/lib", 4) == 0) || (at >= 6 && memcmp(path + at - 6, "/lib64", 6) == 0);
        size_t end = at + length, dots = 0;
        for (; end < size && ((path[end] >= '0' && path[end] <= '9') || path[end] == '.'); end++) {
            dots += path[end] == '.';
        }
        if (size - end >= 4 && dots == 1 && memcmp(path + end - 1, ".zip/", 5) == 0) {
            return end + 4;
        }
        end += end < size && path[end] == 't';
        if (is_in_lib && dots == 1 && end < size && path[end] == '/') {
            return end + 1;
        }
    }
    return 0;
}

/* The name of the package that a file is of, which is part of its path; without bytes: it is the program's own. */
static pyprof_text pyprof__package_of(const char *path, size_t size) {
    static const char frozen[] = "<frozen ";
    pyprof_text package = {path, 0};
    bool is_frozen = size > sizeof frozen && memcmp(path, frozen, sizeof frozen - 1) == 0;
    size_t at = is_frozen ? sizeof frozen - 1 : pyprof__behind_folder(path, size, "/site-packages/");
    at = at > 0 ? at : pyprof__behind_folder(path, size, "/dist-packages/");
    at = at > 0 ? at : pyprof__behind_library(path, size);
    if (at == 0) {
        return package;
    }
    const char *slash = (const char *)memchr(path + at, '/', size - at);
    if (slash != NULL && slash - path > 4 && memcmp(slash - 4, ".egg", 4) == 0) {
        at = (size_t)(slash - path) + 1;
        slash = (const char *)memchr(path + at, '/', size - at);
    }
    size_t end = slash != NULL ? (size_t)(slash - path) : size;
    const char *dot = slash == NULL ? (const char *)memchr(path + at, '.', end - at) : NULL;
    end = dot != NULL ? (size_t)(dot - path) : end; /* a module of one file */
    end -= dot == NULL && is_frozen && end > at;    /* "<frozen os>" */
    package.data = path + at;
    package.size = end - at;
    return package;
}

/* What is known of a function, or of a node. */
enum {
    PYPROF__WANTED = 1,   /* it is what file and function ask for; of a node: a frame of its stack is */
    PYPROF__MARK = 2,     /* it is the mark of an interpreter */
    PYPROF__CHOSEN = 4,   /* of the one that is asked for; of a node: its innermost frame is there */
    PYPROF__PACKAGED = 8, /* it stands for a package */
    PYPROF__TAKEN = 16,   /* of a node: its thread is asked for */
    PYPROF__STAYS = 32    /* of a node: it is in the copy */
};

#define PYPROF__PASSES (PYPROF__WANTED | PYPROF__CHOSEN | PYPROF__TAKEN)

static unsigned pyprof__flag_if(bool condition, unsigned flag) {
    return condition ? flag : 0;
}

typedef struct pyprof__judged {
    uint32_t shown; /* the function that is shown in its place, or itself */
    uint32_t flags;
} pyprof__judged;

/* A profile that is being filtered; it lives as long as pyprof__filter runs. */
typedef struct pyprof__filtering {
    pyprof__writing *writing;
    pyprof_profile *copy;
    pyprof__array functions; /* of pyprof__judged, for each function of the source */
    uint32_t count;          /* nodes that there were before the step that runs */
    uint32_t *places;        /* where each of these has gone to; PYPROF__NONE: nowhere */
    unsigned char *flags;    /* of each of these */
} pyprof__filtering;

/* "[interpreter 1: physics]": its id and its name; the main one is called so, too. */
static bool pyprof__is_interpreter(const char *asked, const char *mark, size_t size) {
    size_t begin = strlen("[interpreter "), digits = strspn(mark + begin, "0123456789");
    size_t name = begin + digits + 2;
    return !pyprof__is_given(asked) || pyprof__matches(asked, false, mark + begin, digits) ||
           (digits == 1 && mark[begin] == '0' && pyprof__matches(asked, false, "main", 4)) ||
           (name + 1 < size && pyprof__matches(asked, false, mark + name, size - name - 1));
}

static uint32_t pyprof__flags_of(const pyprof__filtering *filtering, const pyprof__function *function) {
    const pyprof_output *output = &filtering->writing->output;
    size_t name_size, path_size;
    const char *name = pyprof__string_text(filtering->copy, function->name, &name_size);
    const char *path = pyprof__string_text(filtering->copy, function->file, &path_size);
    bool is_named = !pyprof__is_given(output->function) || pyprof__matches(output->function, false, name, name_size);
    bool is_there =
        !pyprof__is_given(output->file) || (path_size > 0 && pyprof__matches(output->file, true, path, path_size));
    bool is_mark = path_size == 0 && strncmp(name, "[interpreter ", 13) == 0;
    bool is_chosen = is_mark && pyprof__is_interpreter(output->interpreter, name, name_size);
    return pyprof__flag_if(is_named && is_there, PYPROF__WANTED) | pyprof__flag_if(is_mark, PYPROF__MARK) |
           pyprof__flag_if(is_chosen, PYPROF__CHOSEN);
}

/* A marker that is in the copy alone; its name is kept for those that it is given to. The string without bytes is the
   file of all markers. PYPROF__NONE = no room. */
static uint32_t pyprof__new_marker(const pyprof__filtering *filtering, const char *text, size_t size) {
    pyprof_profile *copy = filtering->copy;
    uint32_t empty = pyprof__function_at(copy, copy->truncated)->file;
    bool has_room = pyprof__keep_text(filtering->writing->source, &filtering->writing->memory, text, size);
    return has_room ? pyprof__intern_function(copy, pyprof__intern_text(copy, text, size), empty, 0) : PYPROF__NONE;
}

/* The marker for a package; PYPROF__NONE = no room. What is left out of a very long name is not missed. */
static uint32_t pyprof__package_marker(const pyprof__filtering *filtering, pyprof_text package) {
    char text[256];
    size_t size = (size_t)pyprof__min64(package.size, sizeof text - 2);
    text[0] = '[';
    memcpy(text + 1, package.data, size);
    text[size + 1] = ']';
    return pyprof__new_marker(filtering, text, size + 2);
}

/* Looks at each function once. False: no room. */
static bool pyprof__judge_functions(pyprof__filtering *filtering) {
    pyprof_profile *copy = filtering->copy;
    uint32_t count = copy->functions.items.count;
    for (uint32_t i = 0; i < count; i++) {
        const pyprof__function function = *pyprof__function_at(copy, i);
        uint32_t index = pyprof__array_add(&filtering->writing->memory, &filtering->functions);
        if (index == PYPROF__NONE) {
            return false;
        }
        size_t size;
        const char *path = pyprof__string_text(copy, function.file, &size);
        pyprof_text package = pyprof__package_of(path, filtering->writing->output.only_mine ? size : 0);
        pyprof__judged judged = {i, pyprof__flags_of(filtering, &function)};
        if (package.size > 0) {
            judged.flags |= PYPROF__PACKAGED;
            judged.shown = pyprof__package_marker(filtering, package);
        }
        if (judged.shown == PYPROF__NONE) {
            return false;
        }
        PYPROF__ITEM(pyprof__judged, &filtering->functions, index) = judged;
    }
    return true;
}

/* A thread is found by its name, and by how it is shown: with its id behind, where only that tells it from others. */
static bool pyprof__is_thread(const pyprof__writing *writing, const pyprof__track *track) {
    const char *asked = writing->output.thread;
    char shown[512];
    size_t size, length = 0;
    const char *name = pyprof__string_text(writing->profile, track->name, &size);
    int32_t tid = pyprof__shown_tid(writing, track);
    if (!pyprof__is_given(asked) || pyprof__matches(asked, false, name, size)) {
        return true;
    }
    if (tid == 0 || size > sizeof shown - 32) {
        return false;
    }
    memcpy(shown, name, size);
    length = size + (size_t)snprintf(shown + size, 32, "%s(%d)", size > 0 ? " " : "", (int)tid);
    return pyprof__matches(asked, false, shown, length);
}

/* What holds of a node, by its parent's flags and its own function's. */
static unsigned pyprof__flags_of_node(const pyprof__filtering *filtering, const pyprof__node *node) {
    const pyprof_output *output = &filtering->writing->output;
    if (node->parent == PYPROF__NONE) {
        static const char main_mark[] = "[interpreter 0]"; /* where a thread begins, that one has no mark */
        bool is_taken = pyprof__is_thread(filtering->writing, pyprof__track_at(filtering->copy, (uint32_t)node->line));
        bool is_wanted = !pyprof__is_given(output->file) && !pyprof__is_given(output->function);
        bool is_chosen = pyprof__is_interpreter(output->interpreter, main_mark, sizeof main_mark - 1);
        return pyprof__flag_if(is_taken, PYPROF__TAKEN) | pyprof__flag_if(is_wanted, PYPROF__WANTED) |
               pyprof__flag_if(is_chosen, PYPROF__CHOSEN);
    }
    unsigned flags = filtering->flags[node->parent] & PYPROF__PASSES;
    unsigned own = PYPROF__ITEM(pyprof__judged, &filtering->functions, node->function).flags;
    flags = (own & PYPROF__MARK) ? (flags & ~(unsigned)PYPROF__CHOSEN) | (own & PYPROF__CHOSEN) : flags;
    return flags | (own & PYPROF__WANTED);
}

static bool pyprof__has_figures(const pyprof__node *node) {
    return (node->samples | node->wall_ns | node->cpu_ns | node->gil_ns) != 0;
}

/* Callers come before what they call: so what passes is known going forth, and who calls it going back. */
static void pyprof__judge_nodes(const pyprof__filtering *filtering) {
    for (uint32_t i = 0; i < filtering->count; i++) {
        filtering->flags[i] = (unsigned char)pyprof__flags_of_node(filtering, pyprof__node_at(filtering->copy, i));
    }
    for (uint32_t i = filtering->count; i-- > 0;) {
        const pyprof__node *node = pyprof__node_at(filtering->copy, i);
        bool passes = (filtering->flags[i] & PYPROF__PASSES) == PYPROF__PASSES;
        if (passes && pyprof__has_figures(node)) {
            filtering->flags[i] |= PYPROF__STAYS;
        }
        if (node->parent != PYPROF__NONE) {
            filtering->flags[node->parent] |= filtering->flags[i] & PYPROF__STAYS;
        }
    }
}

static void pyprof__add_figures(pyprof__node *to, const pyprof__node *from) {
    to->samples += from->samples;
    to->samples_idle += from->samples_idle;
    to->wall_ns += from->wall_ns;
    to->wall_idle_ns += from->wall_idle_ns;
    to->cpu_ns += from->cpu_ns;
    to->gil_ns += from->gil_ns;
}

/* Moves a node to the end of those that were moved before, for which there is room as none was added. Its parent was
   moved. */
static void pyprof__move_node(pyprof__filtering *filtering, uint32_t from, const pyprof__node *node) {
    pyprof__array *items = &filtering->copy->nodes.items;
    filtering->places[from] = items->count;
    PYPROF__ITEM(pyprof__node, items, items->count++) = *node;
}

/* Keeps the nodes that stay. A package's frame goes on where its caller is of the same package. */
static void pyprof__pack_nodes(pyprof__filtering *filtering) {
    filtering->copy->nodes.items.count = 0;
    for (uint32_t i = 0; i < filtering->count; i++) {
        pyprof__node node = *pyprof__node_at(filtering->copy, i);
        filtering->places[i] = PYPROF__NONE;
        if (!(filtering->flags[i] & PYPROF__STAYS)) {
            continue;
        }
        if ((filtering->flags[i] & PYPROF__PASSES) != PYPROF__PASSES) {
            node.samples = node.samples_idle = node.wall_ns = node.wall_idle_ns = node.cpu_ns = node.gil_ns = 0;
        }
        if (node.parent == PYPROF__NONE) {
            pyprof__move_node(filtering, i, &node);
            continue;
        }
        pyprof__judged judged = PYPROF__ITEM(pyprof__judged, &filtering->functions, node.function);
        node.parent = filtering->places[node.parent];
        node.function = judged.shown;
        pyprof__node *parent = pyprof__node_at(filtering->copy, node.parent);
        if (!(judged.flags & PYPROF__PACKAGED)) {
            pyprof__move_node(filtering, i, &node);
        } else if (parent->function == judged.shown) {
            filtering->places[i] = node.parent;
            pyprof__add_figures(parent, &node);
        } else {
            node.line = 0;
            pyprof__move_node(filtering, i, &node);
        }
    }
}

/* Drops the tracks whose root was dropped. Until then, a track's number among the others is where its [truncated] node
   was, of which a finished profile knows nothing. */
static void pyprof__pack_tracks(const pyprof__filtering *filtering) {
    pyprof_profile *copy = filtering->copy;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < copy->tracks.count; i++) {
        pyprof__track *track = pyprof__track_at(copy, i);
        track->root = filtering->places[track->root];
        track->truncated = track->root != PYPROF__NONE ? kept++ : PYPROF__NONE;
    }
    const pyprof__track *tracks = (const pyprof__track *)copy->tracks.data;
    pyprof__span *spans = (pyprof__span *)copy->timeline.data;
    uint32_t count = copy->timeline.count;
    copy->timeline.count = 0;
    for (uint32_t i = 0; i < count; i++) {
        pyprof__span span = spans[i];
        const pyprof__track *track = &tracks[span.track_and_kind / 8];
        uint32_t kind = pyprof__span_kind(&span);
        bool passes = (filtering->flags[span.node] & PYPROF__PASSES) == PYPROF__PASSES;
        span.node = passes ? filtering->places[span.node] : PYPROF__NONE;
        if (span.node == PYPROF__NONE) {
            span.node = track->root;
            kind = PYPROF__AWAY;
            span.cpu_ns = span.samples = 0;
        }
        span.track_and_kind = track->truncated * 8 + kind;
        if (track->root != PYPROF__NONE) {
            spans[copy->timeline.count++] = span;
        }
    }
    for (uint32_t i = 0; i < copy->tracks.count; i++) {
        pyprof__track track = *pyprof__track_at(copy, i);
        if (track.root != PYPROF__NONE) {
            pyprof__node_at(copy, track.root)->line = (int32_t)track.truncated;
            *pyprof__track_at(copy, track.truncated) = track;
        }
    }
    copy->tracks.count = kept;
    pyprof__unlink_timeline(copy);
    for (uint32_t i = 0; i < copy->timeline.count; i++) {
        pyprof__link_span(copy, i);
    }
}

/* Samples follow their nodes; those of nodes that do not pass are dropped. */
static void pyprof__pack_samples(const pyprof__filtering *filtering) {
    pyprof__array *samples = &filtering->copy->samples;
    uint32_t count = samples->count;
    samples->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        pyprof_heap_sample sample = PYPROF__ITEM(pyprof_heap_sample, samples, i);
        bool passes = (filtering->flags[sample.node] & PYPROF__PASSES) == PYPROF__PASSES;
        sample.node = passes ? filtering->places[sample.node] : PYPROF__NONE;
        if (sample.node != PYPROF__NONE) {
            PYPROF__ITEM(pyprof_heap_sample, samples, samples->count++) = sample;
        }
    }
}

/* Steps 1 and 2. False: no room. */
static bool pyprof__keep_passing(pyprof__filtering *filtering) {
    bool has_room = pyprof__judge_functions(filtering);
    if (has_room) {
        pyprof__judge_nodes(filtering);
        pyprof__pack_nodes(filtering);
        pyprof__pack_tracks(filtering);
        pyprof__pack_samples(filtering);
    }
    return has_room;
}

/* Sets PYPROF__STAYS for what is large enough, as it is shown; totals has room for a figure for each node. */
static void pyprof__judge_shares(const pyprof__filtering *filtering, const pyprof__shown_tree *tree, uint64_t *totals) {
    const pyprof__writing *writing = filtering->writing;
    double whole = 0;
    memset(totals, 0, filtering->count * sizeof *totals);
    for (uint32_t i = filtering->count; i-- > 0;) {
        if (tree->first_of[i] == i) {
            uint64_t value = pyprof__sum_shown(writing, tree, i).value;
            uint32_t parent = pyprof__shown_of(writing, tree, i).parent;
            whole += (double)value;
            totals[i] += value;
            totals[parent != PYPROF__NONE ? parent : i] += parent != PYPROF__NONE ? totals[i] : 0;
        }
    }
    for (uint32_t i = 0; i < filtering->count; i++) {
        bool stays = pyprof__node_at(filtering->copy, i)->parent == PYPROF__NONE ||
                     (double)totals[tree->first_of[i]] >= writing->output.min_share * whole;
        filtering->flags[i] = (unsigned char)(PYPROF__PASSES | pyprof__flag_if(stays, PYPROF__STAYS));
    }
}

/* Adds what does not stay to its parent; what has a thread for that becomes other. */
static void pyprof__fold_nodes(pyprof__filtering *filtering, uint32_t other) {
    filtering->copy->nodes.items.count = 0;
    for (uint32_t i = 0; i < filtering->count; i++) {
        pyprof__node node = *pyprof__node_at(filtering->copy, i);
        node.parent = node.parent != PYPROF__NONE ? filtering->places[node.parent] : PYPROF__NONE;
        bool stays = (filtering->flags[i] & PYPROF__STAYS) != 0;
        if (stays || pyprof__node_at(filtering->copy, node.parent)->parent == PYPROF__NONE) {
            node.function = stays ? node.function : other;
            node.line = stays ? node.line : 0;
            pyprof__move_node(filtering, i, &node);
        } else {
            filtering->places[i] = node.parent;
            pyprof__add_figures(pyprof__node_at(filtering->copy, node.parent), &node);
        }
    }
}

/* Step 3. False: no room. */
static bool pyprof__fold_small(pyprof__filtering *filtering) {
    static const char other_text[] = "[other]";
    pyprof__writing *writing = filtering->writing;
    pyprof__shown_tree tree;
    filtering->count = filtering->copy->nodes.items.count;
    size_t size = ((size_t)filtering->count + 1) * sizeof(uint64_t);
    uint32_t other = pyprof__new_marker(filtering, other_text, sizeof other_text - 1);
    uint64_t *totals = (uint64_t *)pyprof__alloc(&writing->memory, size);
    bool has_room = other != PYPROF__NONE && totals != NULL && pyprof__shown_tree_init(writing, &tree);
    if (has_room) {
        pyprof__judge_shares(filtering, &tree, totals);
        pyprof__shown_tree_free(writing, &tree);
        pyprof__fold_nodes(filtering, other);
        pyprof__pack_tracks(filtering);
        pyprof__pack_samples(filtering);
    }
    pyprof__release(&writing->memory, totals, size);
    return has_room;
}

/* Gives what is written a filtered copy of its profile. False: no room; what there is of it is freed with the rest. */
static bool pyprof__filter(pyprof__writing *writing) {
    pyprof__filtering filtering;
    memset(&filtering, 0, sizeof filtering);
    filtering.copy = pyprof__profile_copy(writing->source);
    if (filtering.copy == NULL) {
        return false;
    }
    writing->profile = filtering.copy;
    filtering.writing = writing;
    filtering.functions.item_size = sizeof(pyprof__judged);
    filtering.count = filtering.copy->nodes.items.count;
    size_t size = ((size_t)filtering.count + 1) * (sizeof *filtering.places + sizeof *filtering.flags);
    filtering.places = (uint32_t *)pyprof__alloc(&writing->memory, size);
    bool has_room = filtering.places != NULL;
    if (has_room) {
        filtering.flags = (unsigned char *)(filtering.places + filtering.count);
        has_room =
            pyprof__keep_passing(&filtering) && (writing->output.min_share <= 0 || pyprof__fold_small(&filtering));
    }
    pyprof__release(&writing->memory, filtering.places, size);
    pyprof__array_free(&writing->memory, &filtering.functions);
    return has_room;
}

/* For what shows no spans, and needs much room beside: gives back that of the copy. */
static void pyprof__drop_spans(const pyprof__writing *writing) {
    if (writing->profile != writing->source) {
        pyprof_profile *copy = (pyprof_profile *)writing->profile;
        pyprof__unlink_timeline(copy);
        pyprof__array_free(&copy->memory, &copy->timeline);
    }
}

/* What a call that writes or visits works on, filters applied; freed by pyprof__writing_free. NULL = no room. */
static pyprof__writing *pyprof__view_new(const pyprof_profile *profile, const pyprof_output *output,
                                         pyprof_write_fn write, void *user) {
    pyprof__writing *writing = pyprof__writing_new(profile, output, write, user);
    if (writing != NULL && pyprof__is_filtered(&writing->output) && !pyprof__filter(writing)) {
        pyprof__writing_free(writing);
        writing = NULL;
    }
    return writing;
}

// >>ranking
// What took most: functions or lines by their times. In: a pyprof__writing, filters applied. Out: a pyprof__ranking, in
// order; pyprof_top's rows, whose texts are the caller's profile's. Any thread that holds the profile; no lock; never the
// handler.
// A function is counted once in a stack, however often it is there: the tree is walked from caller to called, and what
// is met between a function's coming onto the stack and its going away is its total. So each node is looked at twice,
// however deep it lies.
// Invariants: memory is taken beside that of the tree, 4 bytes a node and some 80 a row, and given back before the call
// ends.
// Begin with pyprof__rank_all, pyprof__walk_tree, pyprof__top_rows.

/* A function, or a line of one. The first two fields are its key. */
typedef struct pyprof__rank {
    uint32_t function;
    int32_t line;
    uint32_t open; /* so often it is on the stack that the walk is at */
    uint32_t unused;
    uint64_t self;
    uint64_t total;
    uint64_t samples_self;
    uint64_t samples_total;
    uint64_t value_before; /* what the walk had met when this came onto the stack */
    uint64_t samples_before;
} pyprof__rank;

typedef struct pyprof__ranking {
    pyprof__writing *writing;
    pyprof__table ranks;
    pyprof__array order; /* uint32_t: of ranks, those with a total, the first one first */
    uint64_t whole;      /* the value of all nodes */
    uint64_t samples;
} pyprof__ranking;

/* Adds to an array of uint32_t. False: no room. */
static bool pyprof__add_index(pyprof__memory *memory, pyprof__array *array, uint32_t item) {
    uint32_t index = pyprof__array_add(memory, array);
    if (index != PYPROF__NONE) {
        PYPROF__ITEM(uint32_t, array, index) = item;
    }
    return index != PYPROF__NONE;
}

/* Puts the items of an order into it: is_before says which of two comes first. Heap sort, as qsort may call malloc. */
typedef bool (*pyprof__before_fn)(const void *user, uint32_t a, uint32_t b);

static void pyprof__sift(uint32_t *order, uint32_t count, uint32_t at, pyprof__before_fn is_before, const void *user) {
    uint32_t item = order[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_before(user, order[child], order[child + 1])) {
            child++;
        }
        if (!is_before(user, item, order[child])) {
            break;
        }
        order[at] = order[child];
    }
    order[at] = item;
}

static void pyprof__sort(const pyprof__array *array, pyprof__before_fn is_before, const void *user) {
    uint32_t *order = (uint32_t *)array->data, count = array->count;
    for (uint32_t at = count / 2; at-- > 0;) {
        pyprof__sift(order, count, at, is_before, user);
    }
    while (count > 1) {
        uint32_t last = order[--count];
        order[count] = order[0];
        order[0] = last;
        pyprof__sift(order, count, 0, is_before, user);
    }
}

static int pyprof__compare_strings(const pyprof_profile *profile, uint32_t a, uint32_t b) {
    size_t size, other_size;
    const char *text = pyprof__string_text(profile, a, &size), *other = pyprof__string_text(profile, b, &other_size);
    int order = memcmp(text, other, (size_t)pyprof__min64(size, other_size));
    return order != 0 ? order : (size > other_size) - (size < other_size);
}

static pyprof__rank *pyprof__rank_at(const pyprof__ranking *ranking, uint32_t rank) {
    return &PYPROF__ITEM(pyprof__rank, &ranking->ranks.items, rank);
}

/* A pyprof__before_fn; user is a pyprof__ranking. No two agree in all of this but such as are shown alike. */
static bool pyprof__ranks_before(const void *user, uint32_t a, uint32_t b) {
    const pyprof__ranking *ranking = (const pyprof__ranking *)user;
    const pyprof_profile *profile = ranking->writing->profile;
    const pyprof__rank *one = pyprof__rank_at(ranking, a), *other = pyprof__rank_at(ranking, b);
    if (one->self != other->self || one->total != other->total) {
        return one->self != other->self ? one->self > other->self : one->total > other->total;
    }
    const pyprof__function *function = pyprof__function_at(profile, one->function);
    const pyprof__function *other_function = pyprof__function_at(profile, other->function);
    int order = pyprof__compare_strings(profile, function->name, other_function->name);
    order = order != 0 ? order : pyprof__compare_strings(profile, function->file, other_function->file);
    if (order != 0 || one->line != other->line) {
        return order != 0 ? order < 0 : one->line < other->line;
    }
    return function->first_line < other_function->first_line;
}

/* The rank of a node, new if it is the first of its kind; NULL = no room. Not for a thread. */
static pyprof__rank *pyprof__rank_of(pyprof__ranking *ranking, const pyprof__shown *shown) {
    uint32_t key[2] = {shown->function, (uint32_t)shown->line};
    bool is_new;
    uint32_t rank = pyprof__table_intern(&ranking->writing->memory, &ranking->ranks, key, &is_new);
    return rank != PYPROF__NONE ? pyprof__rank_at(ranking, rank) : NULL;
}

/* The walk comes to a node. False: no room. */
static bool pyprof__enter_node(pyprof__ranking *ranking, const pyprof__shown_tree *tree, uint32_t index) {
    const pyprof__writing *writing = ranking->writing;
    pyprof__shown shown = pyprof__shown_of(writing, tree, index);
    pyprof_node node = pyprof__sum_shown(writing, tree, index);
    uint64_t samples = node.samples - (writing->output.include_idle ? 0 : node.samples_idle);
    if (shown.function != PYPROF__NONE) {
        pyprof__rank *rank = pyprof__rank_of(ranking, &shown);
        if (rank == NULL) {
            return false;
        }
        if (rank->open++ == 0) {
            rank->value_before = ranking->whole;
            rank->samples_before = ranking->samples;
        }
        rank->self += node.value;
        rank->samples_self += samples;
    }
    ranking->whole += node.value;
    ranking->samples += samples;
    return true;
}

/* The walk has met all that a node called. Its rank is there since it came. */
static void pyprof__leave_node(pyprof__ranking *ranking, const pyprof__shown_tree *tree, uint32_t index) {
    pyprof__shown shown = pyprof__shown_of(ranking->writing, tree, index);
    pyprof__rank *rank = shown.function != PYPROF__NONE ? pyprof__rank_of(ranking, &shown) : NULL;
    if (rank != NULL && --rank->open == 0) {
        rank->total += ranking->whole - rank->value_before;
        rank->samples_total += ranking->samples - rank->samples_before;
    }
}

/* Walks all nodes that are shown, each after its caller and before what that calls next. The tree's slots keep the
   first callee of each, siblings the next of its caller; both + 1, and 0 = there is none. False: no room. */
static bool pyprof__walk_tree(pyprof__ranking *ranking, pyprof__shown_tree *tree, uint32_t *siblings) {
    uint32_t count = ranking->writing->profile->nodes.items.count, first = 0;
    for (uint32_t i = count; i-- > 0;) {
        if (tree->first_of[i] == i) {
            uint32_t parent = pyprof__shown_of(ranking->writing, tree, i).parent;
            uint32_t *head = parent != PYPROF__NONE ? &tree->slots[parent] : &first;
            siblings[i] = *head;
            *head = i + 1;
        }
    }
    for (uint32_t at = first, next; at != 0; at = next) {
        if (!pyprof__enter_node(ranking, tree, at - 1)) {
            return false;
        }
        next = tree->slots[at - 1];
        while (next == 0 && at != 0) {
            pyprof__leave_node(ranking, tree, at - 1);
            next = siblings[at - 1];
            uint32_t parent = pyprof__shown_of(ranking->writing, tree, at - 1).parent;
            at = parent != PYPROF__NONE ? parent + 1 : 0;
        }
    }
    return true;
}

static void pyprof__ranking_free(pyprof__ranking *ranking) {
    pyprof__table_free(&ranking->writing->memory, &ranking->ranks);
    pyprof__array_free(&ranking->writing->memory, &ranking->order);
}

/* Fills a ranking, which the caller frees in any case. False: no room. */
static bool pyprof__rank_all(pyprof__writing *writing, pyprof__ranking *ranking) {
    pyprof__shown_tree tree;
    memset(ranking, 0, sizeof *ranking);
    pyprof__drop_spans(writing);
    ranking->writing = writing;
    ranking->order.item_size = sizeof(uint32_t);
    pyprof__table_init(&ranking->ranks, sizeof(pyprof__rank), 2 * sizeof(uint32_t));
    if (!pyprof__shown_tree_init(writing, &tree)) {
        return false;
    }
    size_t size = ((size_t)writing->profile->nodes.items.count + 1) * sizeof(uint32_t);
    uint32_t *siblings = (uint32_t *)pyprof__alloc(&writing->memory, size);
    bool has_room = siblings != NULL && pyprof__walk_tree(ranking, &tree, siblings);
    pyprof__release(&writing->memory, siblings, size);
    pyprof__shown_tree_free(writing, &tree);
    for (uint32_t i = 0; i < ranking->ranks.items.count && has_room; i++) {
        if (pyprof__rank_at(ranking, i)->total > 0) {
            has_room = pyprof__add_index(&writing->memory, &ranking->order, i);
        }
    }
    pyprof__sort(&ranking->order, pyprof__ranks_before, ranking);
    return has_room;
}

static double pyprof__share(uint64_t part, uint64_t whole) {
    return whole > 0 ? (double)part / (double)whole : 0;
}

static pyprof_row pyprof__row_of(const pyprof__ranking *ranking, const pyprof__rank *rank) {
    pyprof__writing *writing = ranking->writing;
    const pyprof__function *function = pyprof__function_at(writing->profile, rank->function);
    pyprof_row row;
    memset(&row, 0, sizeof row);
    row.name = pyprof__lasting_text(writing, function->name);
    row.path = pyprof__lasting_text(writing, function->file);
    row.file = pyprof__lasting_file(writing, function->file);
    row.line = row.path.size > 0 && rank->line > 0 ? rank->line : 0;
    row.self = rank->self;
    row.total = rank->total;
    row.samples_self = rank->samples_self;
    row.samples_total = rank->samples_total;
    row.self_share = pyprof__share(rank->self, ranking->whole);
    row.total_share = pyprof__share(rank->total, ranking->whole);
    return row;
}

/* Gives as many rows as have room; nothing is put into them before it is sure that there is memory. False: there is
   none. */
static bool pyprof__top_rows(pyprof__writing *writing, pyprof_row *rows, size_t *count) {
    pyprof__ranking ranking;
    bool has_room = pyprof__rank_all(writing, &ranking);
    size_t given = has_room ? (size_t)pyprof__min64(*count, ranking.order.count) : 0;
    for (size_t i = 0; i < given; i++) {
        rows[i] = pyprof__row_of(&ranking, pyprof__rank_at(&ranking, ((const uint32_t *)ranking.order.data)[i]));
    }
    *count = has_room ? ranking.order.count : *count;
    pyprof__ranking_free(&ranking);
    return has_room;
}

// >>tables
// The table: text of 80 columns. In: a pyprof__writing, filters applied. Out: bytes to the write function, in pieces. Any
// thread that holds the profile; no lock; never the handler.
// Invariants: no line has more than 80 columns but where a figure has very many digits; names are escaped as in
// collapsed text, so nothing that a name holds can move the cursor. Figures are put by digits, not by printf's %f: its
// decimal point is the locale's.
//   summary, losses, filters     of the whole recording: the caller's profile, and its pyprof_stats
//   functions, lines, threads    of what the filters leave
// Begin with pyprof__write_table, pyprof__put_list, pyprof__put_threads.

enum {
    PYPROF__COLUMNS = 80,
    PYPROF__NAME_COLUMNS = 45, /* of them for a function; before it come four figures */
    PYPROF__TIME_COLUMNS = 11, /* for each of a thread's four times */
    PYPROF__FUNCTIONS_SHOWN = 15,
    PYPROF__LINES_SHOWN = 10,
    PYPROF__THREADS_SHOWN = 20
};

/* A table in the making. */
typedef struct pyprof__sheet {
    pyprof__writing *writing;
    bool is_short;    /* times in milliseconds, not seconds */
    bool is_large;    /* bytes in KiB */
    pyprof__out cell; /* a name is gathered here, before it is known how much of it has room; never flushed */
} pyprof__sheet;

/* Columns of a terminal: East Asian characters and pictures take two, marks that join the one before none. These are the
   large ranges of Unicode's EastAsianWidth.txt; a character that is missed shifts its line by one. */
static size_t pyprof__columns_of(uint32_t c) {
    static const uint32_t wide[][2] = {{0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3}, {0xf900, 0xfaff},
                                       {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6}, {0x1f300, 0x1f64f},
                                       {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    if ((c >= 0x300 && c <= 0x36f) || (c >= 0x200b && c <= 0x200f) || (c >= 0xfe00 && c <= 0xfe0f)) {
        return 0;
    }
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        if (c >= wide[i][0] && c <= wide[i][1]) {
            return 2;
        }
    }
    return 1;
}

static size_t pyprof__columns(const char *text, size_t size) {
    size_t columns = 0, length;
    for (; size > 0; text += length, size -= length) {
        columns += pyprof__columns_of(pyprof__utf8_get(text, size, &length));
    }
    return columns;
}

/* Puts a text; if it has no room in so many columns, "..." and its end. */
static void pyprof__put_end(pyprof__out *out, const char *text, size_t size, size_t room) {
    size_t columns = pyprof__columns(text, size), length;
    if (columns > room) {
        pyprof__put(out, "...", 3);
        for (; columns > room - 3; text += length, size -= length) {
            columns -= pyprof__columns_of(pyprof__utf8_get(text, size, &length));
        }
        /* Rather a part less than a piece of one: "..._list" for "...ls>._list". */
        size_t part = 0;
        while (part < size / 2 && text[part] != '.' && text[part] != '/') {
            part++;
        }
        text += part < size / 2 ? part + 1 : 0;
        size -= part < size / 2 ? part + 1 : 0;
    }
    pyprof__put(out, text, size);
}

static void pyprof__put_blanks(pyprof__out *out, size_t columns, size_t width) {
    for (; columns < width; columns++) {
        pyprof__put(out, " ", 1);
    }
}

/* Right-aligned; what is longer takes more. */
static void pyprof__put_right(pyprof__out *out, const char *text, size_t width) {
    pyprof__put_blanks(out, strlen(text), width);
    pyprof__put_text(out, text);
}

/* Prose, in lines of the table's width. */
static void pyprof__put_wrapped(pyprof__out *out, const char *text) {
    while (strlen(text) > PYPROF__COLUMNS) {
        size_t end = PYPROF__COLUMNS;
        while (end > 1 && text[end] != ' ') {
            end--;
        }
        pyprof__put(out, text, end);
        pyprof__put_text(out, "\n");
        text += end + 1;
    }
    pyprof__put_text(out, text);
    pyprof__put_text(out, "\n");
}

/* What a value is. */
typedef enum pyprof__measure {
    PYPROF__COUNT,
    PYPROF__TIME,
    PYPROF__SPACE /* bytes */
} pyprof__measure;

static pyprof__measure pyprof__measure_of(const pyprof_profile *profile, pyprof_metric metric) {
    bool is_space = metric == PYPROF_METRIC_INUSE_SPACE || metric == PYPROF_METRIC_ALLOC_SPACE;
    return pyprof__is_time(profile, metric)                ? PYPROF__TIME
           : profile->kind == PYPROF_KIND_HEAP && is_space ? PYPROF__SPACE
                                                           : PYPROF__COUNT;
}

/* Nanoseconds as seconds or milliseconds with three decimals; bytes, many of them in KiB with one; or how many. */
static void pyprof__put_value(pyprof__sheet *sheet, pyprof__measure measure, uint64_t value, size_t width) {
    char text[32];
    uint64_t unit = sheet->is_short ? 1000 : 1000000, thousandths = value / unit + (value % unit >= unit / 2);
    if (measure == PYPROF__TIME) {
        snprintf(text, sizeof text, "%llu.%03u", (unsigned long long)(thousandths / 1000),
                 (unsigned)(thousandths % 1000));
    } else if (measure == PYPROF__SPACE && sheet->is_large) {
        uint64_t tenths = value / 1024 * 10 + (value % 1024 * 10 + 512) / 1024;
        snprintf(text, sizeof text, "%llu.%u", (unsigned long long)(tenths / 10), (unsigned)(tenths % 10));
    } else {
        snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    }
    pyprof__put_right(&sheet->writing->out, text, width);
}

static void pyprof__put_percent(pyprof__out *out, double share, size_t width) {
    char text[32];
    unsigned tenths = (unsigned)(share * 1000 + 0.5);
    snprintf(text, sizeof text, "%u.%u%%", tenths / 10, tenths % 10);
    pyprof__put_right(out, text, width);
}

/* Adds the end of a text to the cell, escaped; more than a thousand bytes have no room anyway, and a character that is
   cut goes, too. */
static void pyprof__gather_cell(pyprof__sheet *sheet, const char *text, size_t size) {
    const size_t most = 1000;
    const char *at = size > most ? text + size - most : text;
    const char *end = text + size;
    while (at > text && at < end && ((unsigned char)*at & 0xc0) == 0x80) {
        at++;
    }
    pyprof__put_collapsed(&sheet->cell, at, (size_t)(end - at));
}

/* "qualname (file.py:LINE)"; both parts are shortened where that has no room. */
static void pyprof__put_name(pyprof__sheet *sheet, const pyprof__rank *rank) {
    pyprof__writing *writing = sheet->writing;
    const pyprof__function *function = pyprof__function_at(writing->profile, rank->function);
    size_t size;
    const char *text = pyprof__string_text(writing->profile, function->name, &size);
    sheet->cell.size = 0;
    pyprof__gather_cell(sheet, text, size);
    size_t name_size = sheet->cell.size, room = PYPROF__NAME_COLUMNS;
    size_t columns = pyprof__columns(sheet->cell.buffer, name_size);
    text = pyprof__short_path(writing, function->file, &size);
    if (size > 0) {
        pyprof__gather_cell(sheet, text, size);
        pyprof__put_text(&sheet->cell, ":");
        pyprof__put_line_number(&sheet->cell, rank->line);
        pyprof__put_text(&sheet->cell, ")");
        const char *place = sheet->cell.buffer + name_size;
        size_t place_size = sheet->cell.size - name_size, place_columns = pyprof__columns(place, place_size);
        size_t place_room = columns + 2 < room / 2 ? room - columns - 2 : room / 2;
        room -= 2 + (size_t)pyprof__min64(place_columns, place_room);
        pyprof__put_end(&writing->out, sheet->cell.buffer, name_size, room);
        pyprof__put_text(&writing->out, " (");
        pyprof__put_end(&writing->out, place, place_size, place_room);
    } else {
        pyprof__put_end(&writing->out, sheet->cell.buffer, name_size, room);
    }
    pyprof__put_text(&writing->out, "\n");
}

/* "  ... and 12 more" */
static void pyprof__put_more(pyprof__sheet *sheet, uint32_t count, uint32_t shown) {
    if (count > shown) {
        pyprof__put_text(&sheet->writing->out, "... and ");
        pyprof__put_number(&sheet->writing->out, count - shown);
        pyprof__put_text(&sheet->writing->out, " more\n");
    }
}

static const char *pyprof__unit_text(const pyprof__sheet *sheet, pyprof__measure measure) {
    return measure == PYPROF__TIME                       ? (sheet->is_short ? " ms" : " s")
           : measure == PYPROF__SPACE && sheet->is_large ? " KiB"
                                                         : "";
}

/* From so many bytes on they are shown in KiB: then they have the room that times have. */
#define PYPROF__LARGE 10000000u

/* The head of a list of functions or lines: what it has, in which metric, and how much there is in all. */
static void pyprof__put_list_head(pyprof__sheet *sheet, const char *what, uint64_t whole) {
    pyprof__writing *writing = sheet->writing;
    pyprof__measure measure = pyprof__measure_of(writing->profile, writing->output.metric);
    const char *unit = pyprof__unit_text(sheet, measure);
    char text[32];
    pyprof__put_text(&writing->out, "\n");
    pyprof__put_text(&writing->out, what);
    pyprof__put_text(&writing->out, "s by ");
    pyprof__put_text(&writing->out, pyprof__metric_text(writing));
    pyprof__put_text(&writing->out, ": ");
    pyprof__put_value(sheet, measure, whole, 0);
    pyprof__put_text(&writing->out, unit);
    pyprof__put_text(&writing->out, "\n\n");
    snprintf(text, sizeof text, "self%s", unit);
    pyprof__put_right(&writing->out, text, 9);
    snprintf(text, sizeof text, "total%s", unit);
    pyprof__put_right(&writing->out, text, 17);
    pyprof__put_blanks(&writing->out, 26, 35);
    pyprof__put_text(&writing->out, what);
    pyprof__put_text(&writing->out, "\n");
}

/* The functions, or the lines, that took most. False: no room. */
static bool pyprof__put_list(pyprof__sheet *sheet, pyprof_detail detail, const char *what) {
    pyprof__writing *writing = sheet->writing;
    pyprof__ranking ranking;
    writing->output.detail = detail;
    bool has_room = pyprof__rank_all(writing, &ranking);
    pyprof__measure measure = pyprof__measure_of(writing->profile, writing->output.metric);
    uint32_t most = detail == PYPROF_DETAIL_FUNCTION ? PYPROF__FUNCTIONS_SHOWN : PYPROF__LINES_SHOWN;
    if (has_room && ranking.whole > 0) {
        sheet->is_short = measure == PYPROF__TIME && ranking.whole < 1000000000u;
        sheet->is_large = measure == PYPROF__SPACE && ranking.whole >= PYPROF__LARGE;
        pyprof__put_list_head(sheet, what, ranking.whole);
        for (uint32_t i = 0; i < ranking.order.count && i < most; i++) {
            const pyprof__rank *rank = pyprof__rank_at(&ranking, ((const uint32_t *)ranking.order.data)[i]);
            pyprof__put_value(sheet, measure, rank->self, 9);
            pyprof__put_percent(&writing->out, pyprof__share(rank->self, ranking.whole), 7);
            pyprof__put_text(&writing->out, " ");
            pyprof__put_value(sheet, measure, rank->total, 9);
            pyprof__put_percent(&writing->out, pyprof__share(rank->total, ranking.whole), 7);
            pyprof__put_text(&writing->out, "  ");
            pyprof__put_name(sheet, rank);
        }
        pyprof__put_more(sheet, ranking.order.count, most);
    } else if (has_room && detail == PYPROF_DETAIL_FUNCTION) {
        pyprof__put_text(&writing->out, "\n");
        pyprof__put_wrapped(&writing->out, pyprof__why_empty(writing));
    }
    pyprof__ranking_free(&ranking);
    return has_room;
}

/* What a thread took. The first field is the key. */
typedef struct pyprof__thread_sum {
    uint32_t root;
    uint32_t unused;
    pyprof__node sum;
} pyprof__thread_sum;

typedef struct pyprof__thread_sums {
    const pyprof_profile *profile;
    pyprof__table threads; /* of pyprof__thread_sum */
    pyprof__array order;
} pyprof__thread_sums;

static const pyprof__thread_sum *pyprof__thread_sum_at(const pyprof__thread_sums *sums, uint32_t index) {
    return &PYPROF__ITEM(const pyprof__thread_sum, &sums->threads.items, index);
}

/* A pyprof__before_fn; user is a pyprof__thread_sums. Who worked most comes first; then, who came first. */
static bool pyprof__threads_before(const void *user, uint32_t a, uint32_t b) {
    const pyprof__thread_sums *sums = (const pyprof__thread_sums *)user;
    const pyprof__node *one = &pyprof__thread_sum_at(sums, a)->sum, *other = &pyprof__thread_sum_at(sums, b)->sum;
    uint64_t busy = one->wall_ns - one->wall_idle_ns, other_busy = other->wall_ns - other->wall_idle_ns;
    if (busy != other_busy) {
        return busy > other_busy;
    }
    return one->wall_ns != other->wall_ns ? one->wall_ns > other->wall_ns : a < b;
}

/* Adds up all nodes of each thread that is shown; the tree's slots keep the root of each node. False: no room. */
static bool pyprof__sum_threads(pyprof__writing *writing, const pyprof__shown_tree *tree, pyprof__thread_sums *sums) {
    bool has_room = true, is_new;
    for (uint32_t i = 0; i < writing->profile->nodes.items.count && has_room; i++) {
        const pyprof__node *node = pyprof__node_at(writing->profile, i);
        uint32_t root = tree->slots[i] = node->parent == PYPROF__NONE ? tree->first_of[i] : tree->slots[node->parent];
        uint32_t index = pyprof__table_intern(&writing->memory, &sums->threads, &root, &is_new);
        has_room = index != PYPROF__NONE;
        if (has_room) {
            pyprof__add_figures(&PYPROF__ITEM(pyprof__thread_sum, &sums->threads.items, index).sum, node);
        }
        if (has_room && is_new) {
            has_room = pyprof__add_index(&writing->memory, &sums->order, index);
        }
    }
    pyprof__sort(&sums->order, pyprof__threads_before, sums);
    return has_room;
}

static void pyprof__put_thread_sum(pyprof__sheet *sheet, const pyprof__shown_tree *tree,
                                   const pyprof__thread_sum *thread) {
    pyprof__writing *writing = sheet->writing;
    pyprof__shown shown = pyprof__shown_of(writing, tree, thread->root);
    const size_t room = PYPROF__COLUMNS - 4 * PYPROF__TIME_COLUMNS - 2;
    size_t size = 0;
    const char *name = "all threads";
    sheet->cell.size = 0;
    if (shown.process != 0 && writing->output.merge_threads) {
        pyprof__put_process_name(writing, &sheet->cell, pyprof__put_collapsed, shown.process, shown.pid);
    } else if (!writing->output.merge_threads) {
        if (shown.process != 0) {
            char id[32];
            snprintf(id, sizeof id, shown.pid > 0 ? "%d: " : "*: ", (int)shown.pid);
            pyprof__put_text(&sheet->cell, id);
        }
        name = pyprof__string_text(writing->profile, (uint32_t)shown.line, &size);
        pyprof__gather_cell(sheet, name, size);
    } else {
        pyprof__put_text(&sheet->cell, name);
    }
    if (shown.tid != 0) {
        char id[32];
        snprintf(id, sizeof id, "%s(%d)", sheet->cell.size > 0 ? " " : "", (int)shown.tid);
        pyprof__put_text(&sheet->cell, id);
    }
    bool is_time = writing->source->kind == PYPROF_KIND_TIME;
    const pyprof__node *sum = &thread->sum;
    const uint64_t values[] = {sum->wall_ns, is_time ? sum->wall_idle_ns : sum->samples, sum->cpu_ns, sum->gil_ns};
    static const pyprof__measure of_heap[] = {PYPROF__SPACE, PYPROF__COUNT, PYPROF__SPACE, PYPROF__COUNT};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        pyprof__put_value(sheet, is_time ? PYPROF__TIME : of_heap[i], values[i], PYPROF__TIME_COLUMNS);
    }
    pyprof__put_text(&writing->out, "  ");
    pyprof__put_end(&writing->out, sheet->cell.buffer, sheet->cell.size, room);
    pyprof__put_text(&writing->out, "\n");
}

/* Of a heap profile: whether some thread has allocated so much that it is told in KiB. */
static bool pyprof__has_large(const pyprof__thread_sums *sums) {
    bool has_large = false;
    for (uint32_t i = 0; i < sums->threads.items.count; i++) {
        has_large = has_large || pyprof__thread_sum_at(sums, i)->sum.cpu_ns >= PYPROF__LARGE;
    }
    return has_large;
}

/* The threads with all their times, or the processes: what a row is, and rows are. False: no room. */
static bool pyprof__put_threads(pyprof__sheet *sheet, const char *row, const char *rows) {
    pyprof__writing *writing = sheet->writing;
    pyprof__thread_sums sums;
    pyprof__shown_tree tree;
    memset(&sums, 0, sizeof sums);
    sums.profile = writing->profile;
    sums.order.item_size = sizeof(uint32_t);
    pyprof__table_init(&sums.threads, sizeof(pyprof__thread_sum), sizeof(uint32_t));
    if (!pyprof__shown_tree_init(writing, &tree)) {
        return false;
    }
    bool has_room = pyprof__sum_threads(writing, &tree, &sums);
    if (has_room && sums.order.count > 0) {
        static const char *const heads[][4] = {{"wall", "waiting", "CPU", "GIL"},
                                               {"in use", "objects", "alloc", "objects"}};
        static const char *const orders[] = {"the time in which they did not wait", "the bytes in use"};
        pyprof_kind kind = writing->source->kind;
        sheet->is_large = kind == PYPROF_KIND_HEAP && pyprof__has_large(&sums);
        const char *unit = pyprof__unit_text(sheet, kind == PYPROF_KIND_TIME ? PYPROF__TIME : PYPROF__SPACE);
        pyprof__put_text(&writing->out, "\n");
        pyprof__put_text(&writing->out, rows);
        pyprof__put_text(&writing->out, ", by ");
        pyprof__put_text(&writing->out, orders[kind]);
        pyprof__put_text(&writing->out, "\n\n");
        for (size_t i = 0; i < sizeof heads[kind] / sizeof *heads[kind]; i++) {
            char text[32];
            snprintf(text, sizeof text, "%s%s", heads[kind][i], kind == PYPROF_KIND_HEAP && i % 2 == 1 ? "" : unit);
            pyprof__put_right(&writing->out, text, PYPROF__TIME_COLUMNS);
        }
        pyprof__put_text(&writing->out, "  ");
        pyprof__put_text(&writing->out, row);
        pyprof__put_text(&writing->out, "\n");
    }
    for (uint32_t i = 0; has_room && i < sums.order.count && i < PYPROF__THREADS_SHOWN; i++) {
        uint32_t index = ((const uint32_t *)sums.order.data)[i];
        pyprof__put_thread_sum(sheet, &tree, pyprof__thread_sum_at(&sums, index));
    }
    pyprof__put_more(sheet, has_room ? sums.order.count : 0, PYPROF__THREADS_SHOWN);
    pyprof__table_free(&writing->memory, &sums.threads);
    pyprof__array_free(&writing->memory, &sums.order);
    pyprof__shown_tree_free(writing, &tree);
    return has_room;
}

/* Where there are several processes, each with the times of all its threads. False: no room. */
static bool pyprof__put_processes(pyprof__sheet *sheet) {
    const pyprof_profile *profile = sheet->writing->profile;
    bool is_merged = sheet->writing->output.merge_threads;
    if (profile->tracks.count == 0 || pyprof__track_at(profile, 0)->process == 0) {
        return true;
    }
    sheet->writing->output.merge_threads = true;
    bool has_room = pyprof__put_threads(sheet, "process", "processes");
    sheet->writing->output.merge_threads = is_merged;
    return has_room;
}

/* What could not be seen, by cause; a line for each of which there was any. */
static void pyprof__put_losses(pyprof__sheet *sheet) {
    static const struct {
        size_t offset;
        const char *text;
    } causes[] = {
        {offsetof(pyprof_stats, ticks_missed), "ticks missed: the sampler did not get the CPU in time"},
        {offsetof(pyprof_stats, lost_late), "samples lost: the thread had let the GIL go before the signal came"},
        {offsetof(pyprof_stats, lost_pending), "samples lost: the thread had not answered an earlier signal"},
        {offsetof(pyprof_stats, lost_unsettled), "samples lost: the GIL changed hands while the stack was read"},
        {offsetof(pyprof_stats, lost_unreadable), "samples lost: the thread went away, or could not be read"},
        {offsetof(pyprof_stats, lost_memory), "samples lost: no room, for one more thread or for them"},
        {offsetof(pyprof_stats, samples_partial), "samples with [unsettled] frames, which changed meanwhile"},
        {offsetof(pyprof_stats, truncated_depth), "samples cut: deeper than max_depth, or many interpreters"},
        {offsetof(pyprof_stats, truncated_memory), "samples in [truncated], as the tree was full"},
        {offsetof(pyprof_stats, frames_unresolved), "frames [unresolved], as their code had died"},
        {offsetof(pyprof_stats, samples_jit), "samples in JIT code: innermost lines may be too early"},
    };
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
        uint64_t count;
        memcpy(&count, (const char *)&sheet->writing->source->stats + causes[i].offset, sizeof count);
        if (count > 0) {
            pyprof__put_value(sheet, PYPROF__COUNT, count, 9);
            pyprof__put_text(&sheet->writing->out, "  ");
            pyprof__put_text(&sheet->writing->out, causes[i].text);
            pyprof__put_text(&sheet->writing->out, "\n");
        }
    }
}

/* Says that not all is shown: a filter, and what it asks for. */
static void pyprof__put_filter(pyprof__sheet *sheet, const char *what, const char *asked) {
    pyprof__out *out = &sheet->writing->out;
    if (pyprof__is_given(asked)) {
        sheet->cell.size = 0;
        pyprof__gather_cell(sheet, asked, strlen(asked));
        pyprof__put_text(out, "only ");
        pyprof__put_text(out, what);
        pyprof__put_text(out, " ");
        pyprof__put_end(out, sheet->cell.buffer, sheet->cell.size, PYPROF__COLUMNS - 20);
        pyprof__put_text(out, "\n");
    }
}

static void pyprof__put_filters(pyprof__sheet *sheet) {
    const pyprof_output *output = &sheet->writing->output;
    pyprof__put_filter(sheet, "thread", output->thread);
    pyprof__put_filter(sheet, "interpreter", output->interpreter);
    pyprof__put_filter(sheet, "file", output->file);
    pyprof__put_filter(sheet, "function", output->function);
    if (output->only_mine) {
        pyprof__put_text(&sheet->writing->out, "packages as one frame each\n");
    }
    if (output->min_share > 0) {
        pyprof__put_text(&sheet->writing->out, "less than ");
        pyprof__put_percent(&sheet->writing->out, output->min_share, 0);
        pyprof__put_text(&sheet->writing->out, " added to the caller\n");
    }
}

/* "game: 12.35 s at 100 Hz, 1234 samples, 1000 of them of waiting threads" */
static void pyprof__put_summary(pyprof__sheet *sheet) {
    const pyprof_profile *source = sheet->writing->source;
    uint64_t idle = 0, samples = pyprof__all_samples(source, &idle);
    samples = source->kind == PYPROF_KIND_HEAP ? source->stats.samples : samples;
    uint64_t hundredths = source->duration_ns / 10000000u + (source->duration_ns % 10000000u >= 5000000u);
    char text[160], rate[48] = "";
    size_t size;
    const char *name = pyprof__string_text(source, source->process_name, &size);
    pyprof__gather_cell(sheet, name, size);
    pyprof__put_end(&sheet->writing->out, sheet->cell.buffer, sheet->cell.size, 20);
    if (source->interval_us > 0) {
        unsigned tenths = (10000000u + source->interval_us / 2) / source->interval_us;
        snprintf(rate, sizeof rate, tenths % 10 != 0 ? " at %u.%u Hz" : " at %u Hz", tenths / 10, tenths % 10);
    }
    snprintf(text, sizeof text, "%s%llu.%02u s%s", size > 0 ? ": " : "", (unsigned long long)(hundredths / 100),
             (unsigned)(hundredths % 100), rate);
    pyprof__put_text(&sheet->writing->out, text);
    if (samples > 0 || source->kind == PYPROF_KIND_TIME) { /* of memory that others sampled it may not be known */
        snprintf(text, sizeof text, ", %llu sample%s", (unsigned long long)samples, samples == 1 ? "" : "s");
        pyprof__put_text(&sheet->writing->out, text);
    }
    if (source->sampling_bytes > 0) {
        snprintf(text, sizeof text, ", one in %llu bytes", (unsigned long long)source->sampling_bytes);
        pyprof__put_text(&sheet->writing->out, text);
    }
    if (idle > 0) {
        snprintf(text, sizeof text, ", %llu of threads that waited", (unsigned long long)idle);
        pyprof__put_text(&sheet->writing->out, text);
    }
    pyprof__put_text(&sheet->writing->out, "\n");
}

/* Lists are made in memory one after the other, and what a list needs is freed before the next. */
static pyprof_result pyprof__write_table(pyprof__writing *writing) {
    pyprof__sheet *sheet = (pyprof__sheet *)pyprof__alloc(&writing->memory, sizeof *sheet);
    if (sheet == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    memset(sheet, 0, sizeof *sheet);
    sheet->writing = writing;
    pyprof__put_summary(sheet);
    pyprof__put_losses(sheet);
    pyprof__put_filters(sheet);
    bool has_room = pyprof__put_list(sheet, PYPROF_DETAIL_FUNCTION, "function") &&
                    pyprof__put_list(sheet, PYPROF_DETAIL_LINE, "line") && pyprof__put_processes(sheet) &&
                    pyprof__put_threads(sheet, "thread", "threads");
    pyprof__release(&writing->memory, sheet, sizeof *sheet);
    return has_room ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

// >>writers
// Pictures and speedscope's format. In: a pyprof__writing, and what >>shown makes of it. Out: bytes to the write
// function, in pieces; once that has answered false, nothing more. Any thread that holds the profile; no lock; never
// the signal handler.
// Errors: a writer itself fails only where there is no memory. That the write function failed is kept in pyprof__out,
// which then drops what is put; pyprof__write_checked, which alone calls the writers, makes PYPROF_ERROR_WRITE of it.
//   format       what comes, in this order                               source of the format
//   collapsed    a line a stack, in the order of >>shown                 see pyprof__put_stack
//   SVG          the same stacks, in the drawer's own order              see tools/flamegraph.h
//   speedscope   frames; each track: its stacks, then their weights;     speedscope's src/lib/file-format-spec.ts
//                the profile's name; which track to show first
//   pprof        samples, what they refer to, strings                    see >>pprof
// A new format needs: its value in pyprof_format (>>api); pyprof__check_output (>>public), which refuses all beyond the
// last one; a path's ending, in pyprof__resolve_output (>>files); and its writer, in pyprof__write_checked. Collapsed
// text is in >>shown, the table in >>tables. No writer need know of filters: see >>filters.
// Begin with pyprof__write_checked, pyprof__write_svg, pyprof__put_speedscope, pyprof__split_span.

/* Text gathered in memory, for what needs all of it at once, or must not call the host's function yet. The function
   that declares it frees the bytes. */
typedef struct pyprof__gathered {
    pyprof__memory *memory;
    pyprof__array bytes;
} pyprof__gathered;

/* A pyprof_write_fn; user is a pyprof__gathered. False: no room. */
static bool pyprof__gather(void *user, const void *data, size_t size) {
    pyprof__gathered *gathered = (pyprof__gathered *)user;
    if (!pyprof__array_reserve(gathered->memory, &gathered->bytes, gathered->bytes.count + size)) {
        return false;
    }
    memcpy((char *)gathered->bytes.data + gathered->bytes.count, data, size);
    gathered->bytes.count += (uint32_t)size;
    return true;
}

#define PYPROF__NOTE_MAX 128

/* What titles say of a profile whose innermost lines may not be right, as CPython's JIT keeps no others; "" = nothing.
   The share is that of the samples that did not wait. Returns note. */
static const char *pyprof__jit_note(const pyprof__writing *writing, char note[PYPROF__NOTE_MAX]) {
    uint64_t jit = writing->source->samples_jit, idle = 0;
    uint64_t busy = pyprof__all_samples(writing->source, &idle) - idle;
    note[0] = '\0';
    if (jit > 0 && writing->output.detail == PYPROF_DETAIL_LINE) {
        snprintf(note, PYPROF__NOTE_MAX, ", %.3g %% in JIT code: innermost lines may be too early there",
                 100 * (double)jit / (double)(busy > jit ? busy : jit));
    }
    return note;
}

/* The picture is drawn by tools/flamegraph.h, if that was included before. Its memory is from malloc, outside of
   memory_limit. */

#if defined(FLAMEGRAPH_H)
#define PYPROF__DRAWS true

/* A flamegraph_write_fn; user is a pyprof__out. */
static bool pyprof__put_piece(void *user, const void *data, size_t size) {
    pyprof__out *out = (pyprof__out *)user;
    pyprof__put(out, (const char *)data, size);
    return !out->is_broken;
}

/* A picture in the making; it lives as long as pyprof__write_svg runs. */
typedef struct pyprof__picture {
    flamegraph *graph;
    pyprof__gathered name; /* of the frame that is being added */
} pyprof__picture;

/* Adds a frame below another one, under the name that it has in collapsed text: the output is led into picture->name
   while that is put. Nothing else is in its buffer, as the picture is written only after all frames were added.
   FLAMEGRAPH_NONE = no room. */
static uint32_t pyprof__draw_frame(pyprof__writing *writing, pyprof__picture *picture, const pyprof__shown *shown,
                                   unsigned frame, uint32_t parent) {
    pyprof_write_fn write = writing->out.write;
    void *user = writing->out.user;
    picture->name.bytes.count = 0;
    writing->out.write = pyprof__gather;
    writing->out.user = &picture->name;
    pyprof__put_one_frame(writing, shown, frame);
    pyprof__flush(&writing->out);
    writing->out.write = write;
    writing->out.user = user;
    const char *name = picture->name.bytes.count > 0 ? (const char *)picture->name.bytes.data : "";
    return writing->out.is_broken ? FLAMEGRAPH_NONE
                                  : flamegraph_add_frame(picture->graph, parent, name, picture->name.bytes.count);
}

/* Adds what is shown of a node, below what calls it, which comes before it, and all its figures, whatever the output
   asks for: who looks at the picture can choose. The tree's slots keep which frame of the graph each node is; a thread is
   none where threads are merged, and has no figures of its own. */
static bool pyprof__draw_node(pyprof__writing *writing, pyprof__picture *picture, pyprof__shown_tree *tree,
                              uint32_t index) {
    pyprof__shown shown = pyprof__shown_of(writing, tree, index);
    pyprof_node sum = pyprof__sum_shown(writing, tree, index);
    flamegraph_figures own = {sum.wall_ns, sum.wall_idle_ns, sum.cpu_ns, sum.gil_ns, sum.samples, sum.samples_idle};
    uint32_t frame = shown.parent != PYPROF__NONE ? tree->slots[shown.parent] : FLAMEGRAPH_ROOT;
    for (unsigned which = PYPROF__CODE_FRAME; which <= PYPROF__THREAD_FRAME && frame != FLAMEGRAPH_NONE; which *= 2) {
        if (pyprof__frames_of(writing, &shown) & which) {
            frame = pyprof__draw_frame(writing, picture, &shown, which, frame);
        }
    }
    tree->slots[index] = frame;
    return frame != FLAMEGRAPH_NONE && flamegraph_add_figures(picture->graph, frame, &own) == FLAMEGRAPH_OK;
}

static pyprof_result pyprof__draw_tree(pyprof__writing *writing, pyprof__picture *picture) {
    pyprof__shown_tree tree;
    if (!pyprof__shown_tree_init(writing, &tree)) {
        return PYPROF_ERROR_MEMORY;
    }
    bool has_room = true;
    for (uint32_t i = 0; has_room && i < writing->profile->nodes.items.count; i++) {
        has_room = tree.first_of[i] != i || pyprof__draw_node(writing, picture, &tree, i);
    }
    pyprof__shown_tree_free(writing, &tree);
    return has_room ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

/* Of the whole recording, as in a table. */
static flamegraph_facts pyprof__facts_of(const pyprof_profile *profile) {
    const pyprof_stats *stats = &profile->stats;
    flamegraph_facts facts;
    size_t size;
    memset(&facts, 0, sizeof facts);
    facts.program = pyprof__string_text(profile, profile->process_name, &size);
    facts.python = pyprof__string_text(profile, profile->python, &size);
    facts.date = (int64_t)(profile->epoch_ns / 1000000000u);
    facts.seconds = (double)profile->duration_ns / 1e9;
    facts.rate = profile->interval_us > 0 ? 1e6 / profile->interval_us : 0;
    facts.samples = stats->samples;
    facts.lost =
        stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable + stats->lost_memory;
    if (profile->kind == PYPROF_KIND_HEAP) {
        facts.seconds = 0;
        facts.bytes = profile->sampling_bytes;
    }
    return facts;
}

/* Writes the finished graph. A failed write function is no error here: see the opening. */
static pyprof_result pyprof__put_picture(pyprof__writing *writing, const flamegraph *graph) {
    static const flamegraph_metric metrics[] = {FLAMEGRAPH_WALL, FLAMEGRAPH_CPU, FLAMEGRAPH_GIL, FLAMEGRAPH_SAMPLES};
    flamegraph_options options;
    char note[PYPROF__NOTE_MAX];
    const char *jit = pyprof__jit_note(writing, note);
    memset(&options, 0, sizeof options);
    options.unit = "ns";
    options.metric = metrics[writing->output.metric];
    options.idle = writing->output.include_idle;
    options.subtitle = jit[0] != '\0' ? jit + strlen(", ") : NULL;
    options.memory = writing->source->kind == PYPROF_KIND_HEAP;
    options.title = options.memory ? "Memory" : NULL;
    options.empty = pyprof__why_empty(writing);
    options.facts = pyprof__facts_of(writing->source);
    flamegraph_result result = flamegraph_write(graph, &options, pyprof__put_piece, &writing->out);
    return result == FLAMEGRAPH_OK || writing->out.is_broken ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

static pyprof_result pyprof__write_svg(pyprof__writing *writing) {
    pyprof__picture picture = {flamegraph_create(), {&writing->memory, {NULL, 1, 0, 0}}};
    pyprof_result result = PYPROF_ERROR_MEMORY;
    if (picture.graph != NULL) {
        result = pyprof__draw_tree(writing, &picture);
    }
    if (result == PYPROF_OK) {
        result = pyprof__put_picture(writing, picture.graph);
    }
    flamegraph_free(picture.graph);
    pyprof__array_free(&writing->memory, &picture.name.bytes);
    return result;
}
#else
#define PYPROF__DRAWS false

/* Not called: pyprof__check_output refuses the format before. */
static pyprof_result pyprof__write_svg(pyprof__writing *writing) {
    (void)writing;
    return PYPROF_ERROR_FORMAT;
}
#endif

/* Speedscope's frame table, in which a frame is a function at a line. It lives as long as pyprof__write_speedscope
   runs. */
typedef struct pyprof__speedscope {
    pyprof__table frames; /* of pyprof__speedscope_frame; a frame's index is its number in the file */
    uint32_t *frame_of;   /* of each node: its frame; PYPROF__NONE: a thread */
    uint32_t *path;       /* room for the frames of one stack, leaf first */
    uint32_t *track_of;   /* of each node */
} pyprof__speedscope;

typedef struct pyprof__speedscope_frame {
    uint32_t function;
    int32_t line;
} pyprof__speedscope_frame;

/* Gives each node its frame; with PYPROF_DETAIL_FUNCTION the lines of a function share one. False: no room. */
static bool pyprof__build_frames(pyprof__writing *writing, pyprof__speedscope *speedscope) {
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(writing->profile, i);
        bool is_new;
        bool is_root = node->parent == PYPROF__NONE;
        speedscope->frame_of[i] = PYPROF__NONE;
        speedscope->track_of[i] = is_root ? (uint32_t)node->line : speedscope->track_of[node->parent];
        if (!is_root) {
            pyprof__speedscope_frame key = {node->function, pyprof__shown_line(writing, node)};
            speedscope->frame_of[i] = pyprof__table_intern(&writing->memory, &speedscope->frames, &key, &is_new);
            if (speedscope->frame_of[i] == PYPROF__NONE) {
                return false;
            }
        }
    }
    return true;
}

/* key comes with all that stands before the text, its opening quotation mark included. */
static void pyprof__put_json_string(pyprof__writing *writing, const char *key, uint32_t string) {
    size_t size;
    const char *text = pyprof__string_text(writing->profile, string, &size);
    pyprof__put_text(&writing->out, key);
    pyprof__put_json(&writing->out, text, size);
    pyprof__put_text(&writing->out, "\"");
}

/* The list shared.frames. Files have their whole paths; a marker has neither file nor line. */
static void pyprof__put_frames(pyprof__writing *writing, const pyprof__speedscope *speedscope) {
    for (uint32_t i = 0; i < speedscope->frames.items.count; i++) {
        const pyprof__speedscope_frame *frame =
            &PYPROF__ITEM(const pyprof__speedscope_frame, &speedscope->frames.items, i);
        const pyprof__function *function = pyprof__function_at(writing->profile, frame->function);
        size_t file_size;
        pyprof__string_text(writing->profile, function->file, &file_size);
        pyprof__put_text(&writing->out, i == 0 ? "\n" : ",\n");
        pyprof__put_json_string(writing, "{\"name\":\"", function->name);
        if (file_size > 0) {
            pyprof__put_json_string(writing, ",\"file\":\"", function->file);
            pyprof__put_text(&writing->out, ",\"line\":");
            pyprof__put_line_number(&writing->out, frame->line);
        }
        pyprof__put_text(&writing->out, "}");
    }
}

/* The stack of a node as a list of frames, root first; for the root of a track the empty stack, []. */
static void pyprof__put_path(pyprof__writing *writing, const pyprof__speedscope *speedscope, uint32_t node) {
    uint32_t depth = 0;
    for (; speedscope->frame_of[node] != PYPROF__NONE; node = pyprof__node_at(writing->profile, node)->parent) {
        speedscope->path[depth++] = speedscope->frame_of[node];
    }
    pyprof__put_text(&writing->out, "[");
    while (depth-- > 0) {
        pyprof__put_number(&writing->out, speedscope->path[depth]);
        pyprof__put_text(&writing->out, depth > 0 ? "," : "");
    }
    pyprof__put_text(&writing->out, "]");
}

/* Shares out a span between its stack, weights[0], and the empty stack, weights[1]. Together they make its wall time,
   so that all tracks stay aligned in time:
     metric    its stack                         the empty stack
     wall      all of it, if it is shown         all of it, if not: away from Python, or idle
     CPU       its CPU time                      the rest of its wall time
     GIL       all of it, if it had the GIL      all of it, if not
     samples   its samples, if it is shown       nothing: the axis counts samples, and no tracks are aligned
   The CPU time of a span, which is partly estimated (pyprof__claim), may exceed its wall time: the sum of that is
   *excess, and empty stacks that follow are made shorter by it. */
static void pyprof__split_span(const pyprof_output *output, const pyprof__span *span, uint64_t *excess,
                               uint64_t weights[2]) {
    uint32_t kind = pyprof__span_kind(span);
    bool is_shown = !(kind & PYPROF__AWAY) && (output->include_idle || !(kind & PYPROF__IDLE));
    uint64_t wall = span->wall_ns;
    weights[0] = is_shown ? wall : 0;
    weights[1] = 0;
    switch (output->metric) {
    case PYPROF_METRIC_SAMPLES:
        weights[0] = is_shown ? span->samples : 0;
        return;
    case PYPROF_METRIC_CPU:
        weights[0] = span->cpu_ns;
        break;
    case PYPROF_METRIC_GIL:
        weights[0] = (kind & PYPROF__GIL) ? wall : 0;
        break;
    case PYPROF_METRIC_WALL:
        break;
    }
    *excess += weights[0] > wall ? weights[0] - wall : 0;
    uint64_t empty = wall > weights[0] ? wall - weights[0] : 0;
    uint64_t paid = pyprof__min64(*excess, empty);
    *excess -= paid;
    weights[1] = empty - paid;
}

/* Adds to one of a track's two parallel lists: a stack, or (speedscope is NULL) its weight. What weighs nothing is in
   neither list, so *sum is 0 only before the first item. */
static void pyprof__put_item(pyprof__writing *writing, const pyprof__speedscope *speedscope, uint32_t node,
                             uint64_t weight, uint64_t *sum) {
    if (weight > 0) {
        pyprof__put_text(&writing->out, *sum > 0 ? "," : "");
        *sum += weight;
        if (speedscope != NULL) {
            pyprof__put_path(writing, speedscope, node);
        } else {
            pyprof__put_number(&writing->out, weight);
        }
    }
}

/* One of the two lists, from the first moment of the recording to the last, where no Python ran as an empty stack: the
   root's. excess: see pyprof__split_span, what it begins with. Returns the sum of the weights. */
static uint64_t pyprof__put_track_list(pyprof__writing *writing, const pyprof__speedscope *speedscope,
                                       const pyprof__track *track, uint64_t excess) {
    const pyprof__span *items = (const pyprof__span *)writing->profile->timeline.data;
    uint64_t sum = 0, duration = writing->profile->duration_ns;
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        uint64_t weights[2];
        pyprof__split_span(&writing->output, &items[i], &excess, weights);
        pyprof__put_item(writing, speedscope, items[i].node, weights[0], &sum);
        pyprof__put_item(writing, speedscope, track->root, weights[1], &sum);
    }
    if (writing->output.metric != PYPROF_METRIC_SAMPLES && duration > sum) {
        pyprof__put_item(writing, speedscope, track->root, duration - sum, &sum);
    }
    return sum;
}

static void pyprof__put_track_head(pyprof__writing *writing, const pyprof__track *track) {
    pyprof_metric metric = writing->output.metric;
    const char *unit = pyprof__is_time(writing->profile, metric) ? "nanoseconds" : "none";
    bool is_space = strcmp(pyprof__counted(writing->profile, metric), "bytes") == 0;
    pyprof__put_text(&writing->out, "\n{\"type\":\"sampled\",\"name\":\"");
    if (track->process != 0) {
        pyprof__put_process_name(writing, &writing->out, pyprof__put_json, track->process, track->pid);
        pyprof__put_text(&writing->out, ", ");
    }
    pyprof__put_thread_name(writing, pyprof__put_json, track->name, pyprof__shown_tid(writing, track));
    pyprof__put_text(&writing->out, "\",\"unit\":\"");
    pyprof__put_text(&writing->out, is_space ? "bytes" : unit);
    pyprof__put_text(&writing->out, "\",\"startValue\":0,\"samples\":[");
}

/* One of the two lists of a track of a heap profile, which has no spans: a stack for each node. */
static uint64_t pyprof__put_heap_list(pyprof__writing *writing, const pyprof__speedscope *speedscope, uint32_t track,
                                      bool has_stacks) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < writing->profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(writing->profile, i);
        const uint64_t values[] = {node->wall_ns, node->cpu_ns, node->gil_ns, node->samples}; /* by metric */
        if (speedscope->track_of[i] == track) {
            pyprof__put_item(writing, has_stacks ? speedscope : NULL, i, values[writing->output.metric], &sum);
        }
    }
    return sum;
}

/* The same for a track of a heap profile as pyprof__put_track for one of time. */
static uint64_t pyprof__put_heap_track(pyprof__writing *writing, const pyprof__speedscope *speedscope, uint32_t track) {
    pyprof__put_track_head(writing, pyprof__track_at(writing->profile, track));
    uint64_t value = pyprof__put_heap_list(writing, speedscope, track, true);
    pyprof__put_text(&writing->out, "],\"weights\":[");
    pyprof__put_heap_list(writing, speedscope, track, false);
    pyprof__put_text(&writing->out, "],\"endValue\":");
    pyprof__put_number(&writing->out, value);
    pyprof__put_text(&writing->out, "}");
    return value;
}

/* A track as a profile of the type "sampled". Its spans are walked three times: for the CPU time that finds no empty
   stack behind it, and so is taken from the first ones; for the list of stacks; and for that of weights, which the
   format wants behind. Returns the weight of all its stacks that are not empty. */
static uint64_t pyprof__put_track(pyprof__writing *writing, const pyprof__speedscope *speedscope,
                                  const pyprof__track *track) {
    const pyprof__span *items = (const pyprof__span *)writing->profile->timeline.data;
    uint64_t value = 0, excess = 0; /* CPU time that has no room by the end: it is taken from empty spans before */
    for (uint32_t i = track->first; i != PYPROF__NONE; i = items[i].next) {
        uint64_t weights[2];
        pyprof__split_span(&writing->output, &items[i], &excess, weights);
        value += weights[0];
    }
    pyprof__put_track_head(writing, track);
    uint64_t end = pyprof__put_track_list(writing, speedscope, track, excess);
    pyprof__put_text(&writing->out, "],\"weights\":[");
    pyprof__put_track_list(writing, NULL, track, excess);
    pyprof__put_text(&writing->out, "],\"endValue\":");
    pyprof__put_number(&writing->out, end);
    pyprof__put_text(&writing->out, "}");
    return value;
}

/* The file. Source of the format: https://github.com/jlfwong/speedscope, src/lib/file-format-spec.ts. The track with
   the most weight is the one that speedscope shows first. */
static void pyprof__put_speedscope(pyprof__writing *writing, const pyprof__speedscope *speedscope) {
    const pyprof_profile *profile = writing->profile;
    char note[PYPROF__NOTE_MAX];
    uint32_t busiest = 0;
    uint64_t most = 0;
    pyprof__put_text(&writing->out,
                     "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\n\"shared\":{\"frames\":[");
    pyprof__put_frames(writing, speedscope);
    pyprof__put_text(&writing->out, "]},\n\"profiles\":[");
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__put_text(&writing->out, i == 0 ? "" : ",");
        uint64_t value = profile->kind == PYPROF_KIND_HEAP
                             ? pyprof__put_heap_track(writing, speedscope, i)
                             : pyprof__put_track(writing, speedscope, pyprof__track_at(profile, i));
        if (value > most) {
            most = value;
            busiest = i;
        }
    }
    pyprof__put_text(&writing->out, "],\n\"name\":\"pyprof");
    pyprof__put_text(&writing->out, pyprof__jit_note(writing, note));
    pyprof__put_text(&writing->out, "\",\"activeProfileIndex\":");
    pyprof__put_number(&writing->out, busiest);
    pyprof__put_text(&writing->out, ",\"exporter\":\"pyprof.h@0.1\"}\n");
}

static pyprof_result pyprof__write_speedscope(pyprof__writing *writing) {
    pyprof__speedscope speedscope;
    size_t count = (size_t)writing->profile->nodes.items.count + 1, size = 3 * count * sizeof(uint32_t);
    pyprof_result result = PYPROF_ERROR_MEMORY;
    pyprof__table_init(&speedscope.frames, sizeof(pyprof__speedscope_frame), sizeof(pyprof__speedscope_frame));
    speedscope.frame_of = (uint32_t *)pyprof__alloc(&writing->memory, size);
    speedscope.path = speedscope.frame_of != NULL ? speedscope.frame_of + count : NULL;
    speedscope.track_of = speedscope.frame_of != NULL ? speedscope.path + count : NULL;
    if (speedscope.frame_of != NULL && pyprof__build_frames(writing, &speedscope)) {
        pyprof__put_speedscope(writing, &speedscope);
        result = PYPROF_OK;
    }
    pyprof__table_free(&writing->memory, &speedscope.frames);
    pyprof__release(&writing->memory, speedscope.frame_of, size);
    return result;
}

/* what: "to write the profile", or what else there was no memory for. */
static void pyprof__say_full(const char *what, const pyprof__memory *memory) {
    pyprof__say("no memory %s: memory_limit (%zu bytes) leaves too little beside what is held already (%zu), or the "
                "allocator gave nothing",
                what, memory->limit, memory->used);
}

static bool pyprof__is_pprof(const pyprof_output *output) {
    return output->format == PYPROF_FORMAT_PPROF || output->format == PYPROF_FORMAT_PPROF_PLAIN;
}

static pyprof_result pyprof__write_pprof(pyprof__writing *writing); /* >>pprof */

/* Writes a profile by a resolved output, which pyprof__check_output has passed. Errors, each of which it says: MEMORY,
   WRITE. */
static pyprof_result pyprof__write_checked(const pyprof_profile *profile, const pyprof_output *output,
                                           pyprof_write_fn write, void *user) {
    pyprof__writing *writing = pyprof__view_new(profile, output, write, user);
    pyprof_result result = PYPROF_ERROR_MEMORY;
    if (writing != NULL) {
        result = output->format == PYPROF_FORMAT_SVG          ? pyprof__write_svg(writing)
                 : output->format == PYPROF_FORMAT_TABLE      ? pyprof__write_table(writing)
                 : output->format == PYPROF_FORMAT_SPEEDSCOPE ? pyprof__write_speedscope(writing)
                 : pyprof__is_pprof(output)                   ? pyprof__write_pprof(writing)
                                                              : pyprof__write_collapsed(writing);
        pyprof__flush(&writing->out);
        if (result == PYPROF_OK && writing->out.is_broken) {
            pyprof__say("the write function answered false");
            result = PYPROF_ERROR_WRITE;
        }
        pyprof__writing_free(writing);
    }
    if (result == PYPROF_ERROR_MEMORY) {
        pyprof__say_full("to write the profile", &profile->memory);
    }
    return result;
}

// >>pprof
// pprof's format: Google's protocol buffers, in a gzip file or plain. In: a pyprof__writing, and what >>shown makes of
// it. Out: bytes to the write function, as by >>writers, whose pyprof__write_checked alone calls this. Any thread that
// holds the profile; no lock; never the signal handler.
// Source of the format: https://github.com/google/pprof, proto/profile.proto; of gzip, RFC 1952; of stored blocks, RFC
// 1951, section 3.2.4.
//   samples --> locations: function, line --> functions: name, file --> strings        all are numbered before the
//      |                                                                  ^            first byte is written; so each
//      +---- labels: thread, thread_id, interpreter, state, process, pid --+           is written when its turn comes
// Invariants, as some reader or engine fails without each of them: numbers from 1 in the order in which the items stand
// in the file (strings from 0, which is ""); no function without a name; no sample without a stack, nor two with the
// same stack and labels; one mapping; valid UTF-8; one gzip member, and nothing behind it.
// Begin with pyprof__write_pprof, pyprof__gather_pprof, pyprof__put_pprof_sample.

/* The strings that each file begins with. flamegraph viewers take the number of default_sample_type for that of the
   sample type itself: so wall, CPU and GIL have the same number in both. */
enum {
    PYPROF__PPROF_NOTHING,
    PYPROF__PPROF_WALL,
    PYPROF__PPROF_CPU,
    PYPROF__PPROF_GIL,
    PYPROF__PPROF_SAMPLES,
    PYPROF__PPROF_COUNT,
    PYPROF__PPROF_NANOSECONDS,
    PYPROF__PPROF_THREAD,
    PYPROF__PPROF_THREAD_ID,
    PYPROF__PPROF_INTERPRETER,
    PYPROF__PPROF_MAIN,
    PYPROF__PPROF_STATE,
    PYPROF__PPROF_RUNNING,
    PYPROF__PPROF_IDLE,
    PYPROF__PPROF_SPACE = PYPROF__PPROF_IDLE, /* in a heap profile, which has no states */
    PYPROF__PPROF_NO_NAME,
    PYPROF__PPROF_VERSION,
    PYPROF__PPROF_FIXED,                         /* so many they are */
    PYPROF__PPROF_PROCESS = PYPROF__PPROF_FIXED, /* and these, where there are several processes */
    PYPROF__PPROF_PID,
    PYPROF__PPROF_FIXED_MOST
};

static const char *const pyprof__pprof_strings[PYPROF__PPROF_FIXED_MOST] = {
    "",  "wall",  "cpu",     "gil",  "samples",   "count",      "nanoseconds", "thread", "thread_id", "interpreter",
    "0", "state", "running", "idle", "[no name]", "pyprof 0.1", "process",     "pid"};

/* A heap profile's, in the places of those: by them it is known as one. Its period is of space in bytes, as Go's heap
   profiles have it: Pyroscope makes that a part of the name by which it shows a profile's type as one of memory. */
static const char *pyprof__pprof_fixed(const pyprof_profile *profile, uint32_t index) {
    static const char *const of_heap[] = {"inuse_space", "alloc_space", "alloc_objects", "inuse_objects"};
    if (profile->kind != PYPROF_KIND_HEAP) {
        return pyprof__pprof_strings[index];
    }
    if (index >= PYPROF__PPROF_WALL && index <= PYPROF__PPROF_SAMPLES) {
        return of_heap[index - PYPROF__PPROF_WALL];
    }
    if (index == PYPROF__PPROF_SPACE) {
        return "space";
    }
    return index == PYPROF__PPROF_NANOSECONDS ? "bytes" : pyprof__pprof_strings[index];
}

/* A small message in the making; the largest, a sample without its stack, has 4 values of up to 10 bytes and 6 labels
   of up to 20. */
typedef struct pyprof__message {
    size_t size;
    char bytes[240];
} pyprof__message;

/* A number in 7 bits a byte, the lowest first. Returns how many bytes it takes, at most 10. */
static size_t pyprof__encode(uint64_t number, char *bytes) {
    size_t size = 0;
    for (; number >= 0x80; number >>= 7) {
        bytes[size++] = (char)(number | 0x80);
    }
    bytes[size++] = (char)number;
    return size;
}

static size_t pyprof__varint_size(uint64_t number) {
    size_t size = 1;
    for (; number >= 0x80; number >>= 7) {
        size++;
    }
    return size;
}

static void pyprof__put_varint(pyprof__out *out, uint64_t number) {
    char bytes[10];
    pyprof__put(out, bytes, pyprof__encode(number, bytes));
}

static void pyprof__add_varint(pyprof__message *message, uint64_t number) {
    message->size += pyprof__encode(number, message->bytes + message->size);
}

/* A field that is a number; 0 is what a reader takes a missing one for. */
static void pyprof__add_field(pyprof__message *message, uint32_t field, uint64_t number) {
    if (number != 0) {
        pyprof__add_varint(message, field << 3);
        pyprof__add_varint(message, number);
    }
}

/* A field that is a message. */
static void pyprof__add_message(pyprof__message *message, uint32_t field, const pyprof__message *inner) {
    pyprof__add_varint(message, field << 3 | 2);
    pyprof__add_varint(message, inner->size);
    memcpy(message->bytes + message->size, inner->bytes, inner->size);
    message->size += inner->size;
}

static void pyprof__put_message(pyprof__out *out, uint32_t field, const pyprof__message *message) {
    pyprof__put_varint(out, field << 3 | 2);
    pyprof__put_varint(out, message->size);
    pyprof__put(out, message->bytes, message->size);
}

static void pyprof__put_field(pyprof__out *out, uint32_t field, uint64_t number) {
    pyprof__message message;
    message.size = 0;
    pyprof__add_field(&message, field, number);
    pyprof__put(out, message.bytes, message.size);
}

/* The field of which a value type, a pair of strings, is one. */
static void pyprof__put_type(pyprof__out *out, uint32_t field, uint32_t type, uint32_t unit) {
    pyprof__message message;
    message.size = 0;
    pyprof__add_field(&message, 1, type);
    pyprof__add_field(&message, 2, unit);
    pyprof__put_message(out, field, &message);
}

/* A gzip file around what is put, in blocks that are stored as they are: that needs no zlib, and what compresses it later
   finds all of it there. */
typedef struct pyprof__gzip {
    pyprof_write_fn write; /* the host's */
    void *user;
    uint32_t crc;
    uint32_t size; /* of what is in it, modulo 2^32 */
    uint32_t table[256];
} pyprof__gzip;

/* A pyprof_write_fn; user is a pyprof__gzip. A piece, of up to 16 KiB, is one block; a block has up to 65,535 bytes. */
static bool pyprof__gzip_block(void *user, const void *data, size_t size) {
    pyprof__gzip *gzip = (pyprof__gzip *)user;
    const unsigned char *bytes = (const unsigned char *)data;
    const unsigned char low = (unsigned char)size, high = (unsigned char)(size >> 8);
    const unsigned char head[5] = {0, low, high, (unsigned char)~low, (unsigned char)~high};
    for (size_t i = 0; i < size; i++) {
        gzip->crc = gzip->table[(gzip->crc ^ bytes[i]) & 0xff] ^ gzip->crc >> 8;
    }
    gzip->size += (uint32_t)size;
    return gzip->write(gzip->user, head, sizeof head) && gzip->write(gzip->user, data, size);
}

/* From here on until pyprof__gzip_end, what is put becomes part of a gzip file. No time is in its header, and no name:
   the same profile is the same file. */
static void pyprof__gzip_begin(pyprof__gzip *gzip, pyprof__out *out) {
    static const char head[10] = {0x1f, (char)0x8b, 8, 0, 0, 0, 0, 0, 0, (char)0xff};
    for (uint32_t i = 0; i < 256; i++) {
        gzip->table[i] = i;
        for (int bit = 0; bit < 8; bit++) {
            gzip->table[i] = (gzip->table[i] & 1 ? 0xedb88320u : 0) ^ gzip->table[i] >> 1;
        }
    }
    pyprof__put(out, head, sizeof head);
    pyprof__flush(out);
    gzip->write = out->write;
    gzip->user = out->user;
    gzip->crc = 0xffffffffu;
    gzip->size = 0;
    out->write = pyprof__gzip_block;
    out->user = gzip;
}

/* The last block, an empty one, and the file's end. */
static void pyprof__gzip_end(pyprof__gzip *gzip, pyprof__out *out) {
    char end[13] = {1, 0, 0, (char)0xff, (char)0xff, 0, 0, 0, 0, 0, 0, 0, 0};
    pyprof__flush(out);
    out->write = gzip->write;
    out->user = gzip->user;
    for (int i = 0; i < 4; i++) {
        end[5 + i] = (char)(~gzip->crc >> 8 * i);
        end[9 + i] = (char)(gzip->size >> 8 * i);
    }
    pyprof__put(out, end, sizeof end);
}

/* What a file is made of. It lives as long as pyprof__write_pprof runs. */
typedef struct pyprof__pprof {
    pyprof__writing *writing;
    pyprof__shown_tree tree; /* its slots: of each node the number of its location, of a thread that of the string with
                                its name; 0 = it is in no sample, or has no name */
    pyprof__table locations; /* of pyprof__pprof_location; its number is its index + 1 */
    pyprof__table marks;     /* of uint32_t: the functions that stand for interpreters */
    uint32_t *functions;     /* of each function: its number; 0 = it is in no sample */
    uint32_t *strings;       /* of each string: its number; 0 = it is in no function that has one */
    size_t numbers_size;     /* of the two arrays, which lie one behind the other */
    uint32_t first_mark;     /* number of the first interpreter's string; the others follow */
    uint32_t string_count;   /* numbers that are given */
    uint32_t fixed_count;    /* of these, PYPROF__PPROF_FIXED or _FIXED_MOST */
} pyprof__pprof;

typedef struct pyprof__pprof_location {
    uint32_t function;
    int32_t line;
} pyprof__pprof_location;

static const pyprof__pprof_location *pyprof__pprof_location_at(const pyprof__pprof *pprof, uint32_t index) {
    return &PYPROF__ITEM(const pyprof__pprof_location, &pprof->locations.items, index);
}

/* The values of a sample in the order of the sample types: samples, wall, CPU and GIL time. A node's idle part is a
   sample of its own: only samples and wall time are counted apart for a thread that waits, so the rest is the other
   part's. False: it has none. */
static bool pyprof__pprof_values(const pyprof_node *sum, bool is_idle, uint64_t values[4]) {
    values[0] = is_idle ? sum->samples_idle : sum->samples - sum->samples_idle;
    values[1] = is_idle ? sum->wall_idle_ns : sum->wall_ns - sum->wall_idle_ns;
    values[2] = is_idle ? 0 : sum->cpu_ns;
    values[3] = is_idle ? 0 : sum->gil_ns;
    return (values[0] | values[1] | values[2] | values[3]) != 0;
}

/* Whether a function stands for an interpreter, and which: "1: physics" of "[interpreter 1: physics]". */
static bool pyprof__pprof_mark(const pyprof_profile *profile, uint32_t index, pyprof_text *text) {
    static const char begin[] = "[interpreter ";
    const size_t begin_size = sizeof begin - 1;
    const pyprof__function *function = pyprof__function_at(profile, index);
    pyprof_text name = pyprof__text_of(profile, function->name);
    bool is_mark = pyprof__text_of(profile, function->file).size == 0 && name.size > begin_size + 1 &&
                   memcmp(name.data, begin, begin_size) == 0 && name.data[name.size - 1] == ']';
    text->data = is_mark ? name.data + begin_size : "";
    text->size = is_mark ? name.size - begin_size - 1 : 0;
    return is_mark;
}

/* Marks what the file will have: nodes in the tree's slots, functions and strings, each with 1 in the place of its
   number. A node whose slot is set has callers whose are. */
static void pyprof__mark_pprof(pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        uint64_t values[4];
        if (pprof->tree.first_of[i] != i) {
            continue;
        }
        pyprof_node sum = pyprof__sum_shown(pprof->writing, &pprof->tree, i);
        bool is_in = pyprof__pprof_values(&sum, false, values) ||
                     (pprof->writing->output.include_idle && pyprof__pprof_values(&sum, true, values));
        for (uint32_t at = i; is_in && at != PYPROF__NONE && pprof->tree.slots[at] == 0;) {
            pyprof__shown shown = pyprof__shown_of(pprof->writing, &pprof->tree, at);
            pprof->tree.slots[at] = 1;
            if (shown.function != PYPROF__NONE) {
                const pyprof__function *function = pyprof__function_at(profile, shown.function);
                pprof->functions[shown.function] = 1;
                pprof->strings[function->name] = pprof->strings[function->file] = 1;
            } else if (shown.process != 0) {
                pprof->fixed_count = PYPROF__PPROF_FIXED_MOST;
                pprof->strings[shown.process] = 1;
            }
            at = shown.parent;
        }
    }
    pprof->strings[profile->program] = 1;
}

/* Gives each node that is marked the number of its location. False: no room. */
static bool pyprof__number_locations(pyprof__pprof *pprof) {
    pyprof__memory *memory = &pprof->writing->memory;
    for (uint32_t i = 0; i < pprof->writing->profile->nodes.items.count; i++) {
        const pyprof__node *node = pyprof__node_at(pprof->writing->profile, i);
        bool is_new;
        if (pprof->tree.slots[i] == 0 || node->parent == PYPROF__NONE) {
            continue;
        }
        pyprof__pprof_location key = {node->function, pyprof__shown_line(pprof->writing, node)};
        uint32_t index = pyprof__table_intern(memory, &pprof->locations, &key, &is_new);
        if (index == PYPROF__NONE) {
            return false;
        }
        pprof->tree.slots[i] = index + 1;
    }
    return true;
}

/* Gives functions that are marked their numbers, and finds the interpreters among them. False: no room. */
static bool pyprof__number_functions(pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    uint32_t count = 0;
    for (uint32_t i = 0; i < profile->functions.items.count; i++) {
        pyprof_text text;
        bool is_new;
        if (pprof->functions[i] == 0) {
            continue;
        }
        pprof->functions[i] = ++count;
        if (pyprof__pprof_mark(profile, i, &text) &&
            pyprof__table_intern(&pprof->writing->memory, &pprof->marks, &i, &is_new) == PYPROF__NONE) {
            return false;
        }
    }
    return true;
}

/* The string that tells a thread, whose root is given, by its name or its id; false: nothing does, or all threads are
   one. *tid: see pyprof__put_thread_name. */
static bool pyprof__pprof_thread(const pyprof__pprof *pprof, uint32_t root, pyprof_text *name, int32_t *tid) {
    const pyprof__node *node = pyprof__node_at(pprof->writing->profile, root);
    const pyprof__track *track = pyprof__track_at(pprof->writing->profile, (uint32_t)node->line);
    *name = pyprof__text_of(pprof->writing->profile, track->name);
    *tid = pyprof__shown_tid(pprof->writing, track);
    return !pprof->writing->output.merge_threads && (name->size > 0 || *tid != 0);
}

/* Gives strings their numbers, in the order in which pyprof__put_pprof_strings puts them: the fixed ones, the profile's
   that are marked, threads' names, interpreters. */
static void pyprof__number_strings(pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    uint32_t next = pprof->fixed_count;
    for (uint32_t i = 0; i < profile->strings.items.count; i++) {
        bool is_in = pprof->strings[i] != 0 && pyprof__text_of(profile, i).size > 0;
        pprof->strings[i] = is_in ? next++ : (uint32_t)PYPROF__PPROF_NOTHING;
    }
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        pyprof_text name;
        int32_t tid;
        if (pprof->tree.slots[i] != 0 && pyprof__node_at(profile, i)->parent == PYPROF__NONE) {
            pprof->tree.slots[i] = pyprof__pprof_thread(pprof, i, &name, &tid) ? next++ : 0;
        }
    }
    pprof->first_mark = next;
    pprof->string_count = next + pprof->marks.items.count;
}

/* All numbers. Its memory is for pyprof__pprof_free, also if there was no room: false. */
static bool pyprof__gather_pprof(pyprof__pprof *pprof, pyprof__writing *writing) {
    const pyprof_profile *profile = writing->profile;
    memset(pprof, 0, sizeof *pprof);
    pprof->writing = writing;
    pprof->fixed_count = PYPROF__PPROF_FIXED;
    pyprof__table_init(&pprof->locations, sizeof(pyprof__pprof_location), sizeof(pyprof__pprof_location));
    pyprof__table_init(&pprof->marks, sizeof(uint32_t), sizeof(uint32_t));
    pprof->numbers_size =
        ((size_t)profile->functions.items.count + profile->strings.items.count + 1) * sizeof(uint32_t);
    pprof->functions = (uint32_t *)pyprof__alloc(&writing->memory, pprof->numbers_size);
    if (pprof->functions == NULL || !pyprof__shown_tree_init(writing, &pprof->tree)) {
        return false;
    }
    memset(pprof->functions, 0, pprof->numbers_size);
    pprof->strings = pprof->functions + profile->functions.items.count;
    pyprof__mark_pprof(pprof);
    if (!pyprof__number_locations(pprof) || !pyprof__number_functions(pprof)) {
        return false;
    }
    pyprof__number_strings(pprof);
    return true;
}

static void pyprof__pprof_free(pyprof__pprof *pprof) {
    pyprof__memory *memory = &pprof->writing->memory;
    pyprof__release(memory, pprof->functions, pprof->numbers_size);
    pyprof__table_free(memory, &pprof->locations);
    pyprof__table_free(memory, &pprof->marks);
    pyprof__shown_tree_free(pprof->writing, &pprof->tree);
}

/* The string for the interpreter that the stack in the tree's path ends in; 0 = it cannot be told, as what would tell it
   may have been cut off, or there is only one. */
static uint32_t pyprof__pprof_interpreter(const pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    for (uint32_t i = 0; i < pprof->tree.path.count && pprof->marks.items.count > 0; i++) {
        const pyprof__node *node = pyprof__node_at(profile, PYPROF__ITEM(uint32_t, &pprof->tree.path, i));
        uint32_t mark = pyprof__table_find(&pprof->marks, &node->function, pyprof__hash(&node->function, 4));
        if (mark != PYPROF__NONE) {
            return pprof->first_mark + mark;
        }
        if (node->function == profile->truncated) {
            return PYPROF__PPROF_NOTHING;
        }
    }
    return pprof->marks.items.count > 0 ? PYPROF__PPROF_MAIN : PYPROF__PPROF_NOTHING;
}

/* A label of a sample, with a text or a number; without either there is none. */
static void pyprof__add_label(pyprof__message *sample, uint32_t key, uint32_t text, int32_t number) {
    pyprof__message label;
    label.size = 0;
    pyprof__add_field(&label, 1, key);
    pyprof__add_field(&label, 2, text);
    pyprof__add_field(&label, 3, (uint64_t)number);
    if (text != 0 || number != 0) {
        pyprof__add_message(sample, 3, &label);
    }
}

/* The labels of the stack in the tree's path. */
static void pyprof__add_labels(const pyprof__pprof *pprof, pyprof__message *sample, uint32_t state) {
    const pyprof__array *path = &pprof->tree.path;
    uint32_t root = PYPROF__ITEM(uint32_t, path, path->count - 1);
    const pyprof__node *node = pyprof__node_at(pprof->writing->profile, root);
    const pyprof__track *track =
        node->parent == PYPROF__NONE ? pyprof__track_at(pprof->writing->profile, (uint32_t)node->line) : NULL;
    if (track != NULL && !pprof->writing->output.merge_threads) {
        pyprof__add_label(sample, PYPROF__PPROF_THREAD, pprof->tree.slots[root], 0);
        pyprof__add_label(sample, PYPROF__PPROF_THREAD_ID, 0, pyprof__known_tid(track));
    }
    if (track != NULL && track->process != 0) {
        pyprof__add_label(sample, PYPROF__PPROF_PROCESS, pprof->strings[track->process], 0);
        pyprof__add_label(sample, PYPROF__PPROF_PID, 0, track->pid);
    }
    pyprof__add_label(sample, PYPROF__PPROF_INTERPRETER, pyprof__pprof_interpreter(pprof), 0);
    pyprof__add_label(sample, PYPROF__PPROF_STATE, state, 0);
}

/* A sample of the stack in the tree's path, leaf first; state: the string for it, 0 = none is asked for. Its length
   stands before it, so its locations are walked twice: a stack may be as deep as 65,536. */
static void pyprof__put_pprof_sample(const pyprof__pprof *pprof, const uint64_t values[4], uint32_t state) {
    pyprof__out *out = &pprof->writing->out;
    const uint32_t *path = &PYPROF__ITEM(const uint32_t, &pprof->tree.path, 0);
    uint32_t depth = pprof->tree.path.count;
    depth -= pyprof__node_at(pprof->writing->profile, path[depth - 1])->parent == PYPROF__NONE ? 1 : 0;
    pyprof__message rest;
    size_t size = 0, values_size = 0;
    for (uint32_t i = 0; i < depth; i++) {
        size += pyprof__varint_size(pprof->tree.slots[path[i]]);
    }
    for (int i = 0; i < 4; i++) {
        values_size += pyprof__varint_size(values[i]);
    }
    rest.size = 0;
    pyprof__add_varint(&rest, 2 << 3 | 2);
    pyprof__add_varint(&rest, values_size);
    for (int i = 0; i < 4; i++) {
        pyprof__add_varint(&rest, values[i]);
    }
    pyprof__add_labels(pprof, &rest, state);
    pyprof__put_varint(out, 2 << 3 | 2);
    pyprof__put_varint(out, 1 + pyprof__varint_size(size) + size + rest.size);
    pyprof__put_varint(out, 1 << 3 | 2);
    pyprof__put_varint(out, size);
    for (uint32_t i = 0; i < depth; i++) {
        pyprof__put_varint(out, pprof->tree.slots[path[i]]);
    }
    pyprof__put(out, rest.bytes, rest.size);
}

/* The samples of all stacks that end in a node with figures of its own. A thread's root has none. False: no room. */
static bool pyprof__put_pprof_samples(pyprof__pprof *pprof) {
    bool has_states = pprof->writing->output.include_idle;
    for (uint32_t i = 0; i < pprof->writing->profile->nodes.items.count; i++) {
        uint64_t running[4], idle[4];
        bool is_root = pyprof__node_at(pprof->writing->profile, i)->parent == PYPROF__NONE;
        if (pprof->tree.first_of[i] != i || pprof->tree.slots[i] == 0 || is_root) {
            continue;
        }
        pyprof_node sum = pyprof__sum_shown(pprof->writing, &pprof->tree, i);
        bool is_running = pyprof__pprof_values(&sum, false, running);
        bool is_idle = pyprof__pprof_values(&sum, true, idle) && has_states;
        if ((is_running || is_idle) && !pyprof__find_path(pprof->writing, &pprof->tree, i)) {
            return false;
        }
        if (is_running) {
            pyprof__put_pprof_sample(pprof, running, has_states ? PYPROF__PPROF_RUNNING : PYPROF__PPROF_NOTHING);
        }
        if (is_idle) {
            pyprof__put_pprof_sample(pprof, idle, PYPROF__PPROF_IDLE);
        }
    }
    return true;
}

/* The program, which has all locations. Whether it has names, files and lines is said: what has them is not looked for
   in the program's file, which is C. */
static void pyprof__put_pprof_mapping(const pyprof__pprof *pprof) {
    uint32_t program = pprof->strings[pprof->writing->profile->program];
    pyprof__message mapping;
    mapping.size = 0;
    pyprof__add_field(&mapping, 1, 1);
    pyprof__add_field(&mapping, 5, program != 0 ? program : (uint32_t)PYPROF__PPROF_NO_NAME);
    for (uint32_t has = 7; has <= 10; has++) {
        pyprof__add_field(&mapping, has, 1);
    }
    pyprof__put_message(&pprof->writing->out, 3, &mapping);
}

static uint64_t pyprof__pprof_line(int32_t line) {
    return line > 0 ? (uint64_t)line : 0;
}

static void pyprof__put_pprof_locations(const pyprof__pprof *pprof) {
    for (uint32_t i = 0; i < pprof->locations.items.count; i++) {
        const pyprof__pprof_location *item = pyprof__pprof_location_at(pprof, i);
        pyprof__message location, line;
        location.size = line.size = 0;
        pyprof__add_field(&location, 1, i + 1);
        pyprof__add_field(&location, 2, 1);
        pyprof__add_field(&line, 1, pprof->functions[item->function]);
        pyprof__add_field(&line, 2, pyprof__pprof_line(item->line));
        pyprof__add_message(&location, 4, &line);
        pyprof__put_message(&pprof->writing->out, 4, &location);
    }
}

/* Functions and files by their whole names. */
static void pyprof__put_pprof_functions(const pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    for (uint32_t i = 0; i < profile->functions.items.count; i++) {
        const pyprof__function *item = pyprof__function_at(profile, i);
        uint32_t name = pprof->strings[item->name];
        pyprof__message function;
        if (pprof->functions[i] == 0) {
            continue;
        }
        function.size = 0;
        pyprof__add_field(&function, 1, pprof->functions[i]);
        pyprof__add_field(&function, 2, name != 0 ? name : (uint32_t)PYPROF__PPROF_NO_NAME);
        pyprof__add_field(&function, 4, pprof->strings[item->file]);
        pyprof__add_field(&function, 5, pyprof__pprof_line(item->first_line));
        pyprof__put_message(&pprof->writing->out, 5, &function);
    }
}

/* Puts a text as valid UTF-8: surrogates are escaped as in collapsed text. All else stays, so that a path is that of a
   file. out NULL: only counts. Returns how many bytes it takes. */
static size_t pyprof__put_utf8(pyprof__out *out, pyprof_text text) {
    size_t length, size = 0;
    for (size_t at = 0; at < text.size; at += length) {
        uint32_t c = pyprof__utf8_get(text.data + at, text.size - at, &length);
        bool is_surrogate = c >= 0xd800 && c < 0xe000;
        size += is_surrogate ? strlen("\\udc80") : length;
        if (out != NULL && is_surrogate) {
            pyprof__put_escape(out, "\\u", c, 4);
        } else if (out != NULL) {
            pyprof__put(out, text.data + at, length);
        }
    }
    return size;
}

/* The next string of the table; end: what stands behind the text. */
static void pyprof__put_pprof_string(const pyprof__pprof *pprof, pyprof_text text, const char *end) {
    pyprof__out *out = &pprof->writing->out;
    pyprof__put_varint(out, 6 << 3 | 2);
    pyprof__put_varint(out, pyprof__put_utf8(NULL, text) + strlen(end));
    pyprof__put_utf8(out, text);
    pyprof__put_text(out, end);
}

/* The strings, in the order in which they were numbered. */
static void pyprof__put_pprof_strings(const pyprof__pprof *pprof) {
    const pyprof_profile *profile = pprof->writing->profile;
    pyprof_text text = {"", 0};
    for (uint32_t i = 0; i < pprof->fixed_count; i++) {
        pyprof__put_pprof_string(pprof, text, pyprof__pprof_fixed(profile, i));
    }
    for (uint32_t i = 0; i < profile->strings.items.count; i++) {
        if (pprof->strings[i] != 0) {
            pyprof__put_pprof_string(pprof, pyprof__text_of(profile, i), "");
        }
    }
    for (uint32_t i = 0; i < profile->nodes.items.count; i++) {
        int32_t tid;
        char id[24] = "";
        if (pprof->tree.slots[i] != 0 && pyprof__node_at(profile, i)->parent == PYPROF__NONE &&
            pyprof__pprof_thread(pprof, i, &text, &tid)) {
            snprintf(id, tid != 0 ? sizeof id : 1, text.size > 0 ? " (%d)" : "(%d)", (int)tid);
            pyprof__put_pprof_string(pprof, text, id);
        }
    }
    for (uint32_t i = 0; i < pprof->marks.items.count; i++) {
        (void)pyprof__pprof_mark(profile, PYPROF__ITEM(uint32_t, &pprof->marks.items, i), &text);
        pyprof__put_pprof_string(pprof, text, "");
    }
}

/* What every report of pprof prints first: who wrote the file, and what is not in it. These strings are the table's
   last. */
static void pyprof__put_pprof_comments(const pyprof__pprof *pprof) {
    const pyprof_stats *stats = &pprof->writing->profile->stats;
    pyprof__out *out = &pprof->writing->out;
    const pyprof_text none = {"", 0};
    char lost[256], jit[PYPROF__NOTE_MAX];
    uint32_t next = pprof->string_count;
    uint64_t count =
        stats->lost_late + stats->lost_pending + stats->lost_unsettled + stats->lost_unreadable + stats->lost_memory;
    snprintf(lost, sizeof lost,
             "lost samples: %llu (late %llu, pending %llu, unsettled %llu, unreadable %llu, memory %llu); their time "
             "is with the samples beside them",
             (unsigned long long)count, (unsigned long long)stats->lost_late, (unsigned long long)stats->lost_pending,
             (unsigned long long)stats->lost_unsettled, (unsigned long long)stats->lost_unreadable,
             (unsigned long long)stats->lost_memory);
    pyprof__put_field(out, 13, PYPROF__PPROF_VERSION);
    if (count > 0) {
        pyprof__put_pprof_string(pprof, none, lost);
        pyprof__put_field(out, 13, next++);
    }
    if (pyprof__jit_note(pprof->writing, jit)[0] != '\0') {
        pyprof__put_pprof_string(pprof, none, jit + strlen(", "));
        pyprof__put_field(out, 13, next++);
    }
}

/* The file. The metric that was asked for is the one that is shown first. False: no room. */
static bool pyprof__put_pprof(pyprof__pprof *pprof) {
    static const uint32_t types[] = {PYPROF__PPROF_WALL, PYPROF__PPROF_CPU, PYPROF__PPROF_GIL, PYPROF__PPROF_SAMPLES};
    const pyprof_profile *profile = pprof->writing->profile;
    pyprof__out *out = &pprof->writing->out;
    bool is_time = profile->kind == PYPROF_KIND_TIME;
    pyprof__put_type(out, 1, PYPROF__PPROF_SAMPLES, PYPROF__PPROF_COUNT);
    pyprof__put_type(out, 1, PYPROF__PPROF_WALL, PYPROF__PPROF_NANOSECONDS);
    pyprof__put_type(out, 1, PYPROF__PPROF_CPU, PYPROF__PPROF_NANOSECONDS);
    pyprof__put_type(out, 1, PYPROF__PPROF_GIL, is_time ? PYPROF__PPROF_NANOSECONDS : PYPROF__PPROF_COUNT);
    if (!pyprof__put_pprof_samples(pprof)) {
        return false;
    }
    pyprof__put_pprof_mapping(pprof);
    pyprof__put_pprof_locations(pprof);
    pyprof__put_pprof_functions(pprof);
    pyprof__put_pprof_strings(pprof);
    pyprof__put_field(out, 9, profile->epoch_ns);
    pyprof__put_field(out, 10, profile->duration_ns);
    pyprof__put_type(out, 11, is_time ? PYPROF__PPROF_WALL : PYPROF__PPROF_SPACE, PYPROF__PPROF_NANOSECONDS);
    pyprof__put_field(out, 12, is_time ? profile->interval_us * UINT64_C(1000) : profile->sampling_bytes);
    pyprof__put_pprof_comments(pprof);
    pyprof__put_field(out, 14, types[pprof->writing->output.metric]);
    return true;
}

static pyprof_result pyprof__write_pprof(pyprof__writing *writing) {
    pyprof__pprof pprof;
    pyprof__gzip gzip;
    bool is_plain = writing->output.format == PYPROF_FORMAT_PPROF_PLAIN;
    writing->has_ids = true;
    bool has_room = pyprof__gather_pprof(&pprof, writing);
    if (has_room) {
        if (!is_plain) {
            pyprof__gzip_begin(&gzip, &writing->out);
        }
        has_room = pyprof__put_pprof(&pprof);
        if (!is_plain) {
            pyprof__gzip_end(&gzip, &writing->out);
        }
    }
    pyprof__pprof_free(&pprof);
    return has_room ? PYPROF_OK : PYPROF_ERROR_MEMORY;
}

// >>making
// Profiles of what was recorded elsewhere: in another process, in a file, or in other profiles. In: a pyprof_facts, then
// nodes and spans, as pyprof_visit gives them. Out: a pyprof_profile, in which nothing tells where it is from, but that it
// may be added to. Any thread, but one at a time for a profile; no lock; never the handler.
// Invariants: as of a recording's (>>profile): a node comes after its parent, and a track's spans leave no gap. An
// argument that is refused has changed nothing.
// Begin with pyprof_make, pyprof_add_node, pyprof_add_span.

/* A text's string; NULL is a text without bytes. PYPROF__NONE = no room. */
static uint32_t pyprof__intern_given(pyprof_profile *profile, pyprof_text text) {
    return pyprof__intern_text(profile, text.data != NULL ? text.data : "", text.data != NULL ? text.size : 0);
}

/* False: no room. */
static bool pyprof__fill_made(pyprof_profile *profile, const pyprof_facts *facts) {
    profile->is_made = true;
    profile->epoch_ns = facts->start_ns;
    profile->duration_ns = facts->duration_ns;
    profile->interval_us = facts->interval_us;
    profile->kind = facts->kind;
    profile->sampling_bytes = facts->sampling_bytes;
    profile->stats = facts->stats;
    profile->samples_jit = facts->stats.samples_jit;
    profile->timeline_coarsened = facts->stats.timeline_coarsened;
    bool has_markers =
        pyprof__intern_markers(profile); /* before all others, as in a recording: strings have an order */
    profile->process_name = pyprof__intern_given(profile, facts->process);
    profile->program = pyprof__intern_given(profile, facts->program);
    profile->python = pyprof__intern_given(profile, facts->python);
    return has_markers && profile->process_name != PYPROF__NONE && profile->program != PYPROF__NONE &&
           profile->python != PYPROF__NONE;
}

PYPROF_API pyprof_result pyprof_make(const pyprof_facts *facts, size_t memory_limit, const pyprof_allocator *allocator,
                                     pyprof_profile **profile) {
    const pyprof_allocator libc = {pyprof__libc_alloc, pyprof__libc_free, NULL};
    pyprof_facts nothing;
    memset(&nothing, 0, sizeof nothing);
    if (profile == NULL) {
        pyprof__say("pyprof_make: profile is NULL: it has to say where the address goes");
        return PYPROF_ERROR_ARGUMENT;
    }
    *profile = NULL;
    if (allocator != NULL && (allocator->alloc_fn == NULL) != (allocator->free_fn == NULL)) {
        pyprof__say("pyprof_make: of the allocator, alloc_fn and free_fn have to be given both, or neither");
        return PYPROF_ERROR_ARGUMENT;
    }
    bool has_own = allocator != NULL && allocator->alloc_fn != NULL;
    pyprof__memory memory = {has_own ? *allocator : libc, memory_limit > 0 ? memory_limit : SIZE_MAX, 0, 0, 0, NULL};
    memory.budget = pyprof__budget_new(&memory.allocator, memory.limit);
    if (memory.budget != NULL) {
        memory.used = memory.peak = sizeof *memory.budget;
        *profile = (pyprof_profile *)pyprof__alloc(&memory, sizeof **profile);
    }
    if (*profile == NULL) {
        pyprof__budget_drop(memory.budget, &memory.allocator);
    } else {
        pyprof__profile_init(*profile, &memory);
        if (pyprof__fill_made(*profile, facts != NULL ? facts : &nothing)) {
            return PYPROF_OK;
        }
        pyprof_free(*profile);
        *profile = NULL;
    }
    pyprof__say("no memory for a profile: the limit, or the allocator, leaves nothing");
    return PYPROF_ERROR_MEMORY;
}

/* Whether a profile may be added to, and has a node of this number. False: it was said why not. */
static bool pyprof__may_add(const char *caller, const pyprof_profile *profile, uint32_t node) {
    if (profile == NULL || !profile->is_made) {
        pyprof__say("%s: profile %s: it has to come from pyprof_make", caller,
                    profile == NULL ? "is NULL" : "was recorded");
        return false;
    }
    if (node != PYPROF_NO_NODE && node >= profile->nodes.items.count) {
        pyprof__say("%s: there is no node %u yet: parents come before their children, and nodes before their spans",
                    caller, (unsigned)node);
        return false;
    }
    return true;
}

/* Finds or makes the node; PYPROF__NONE = no room. */
static uint32_t pyprof__made_node(pyprof_profile *profile, const pyprof_node *node) {
    uint32_t name = pyprof__intern_given(profile, node->name);
    if (node->parent == PYPROF_NO_NODE) {
        bool has_process = node->pid > 0 || (node->process.data != NULL && node->process.size > 0);
        uint32_t process = has_process ? pyprof__intern_given(profile, node->process) : 0;
        uint32_t index = process != PYPROF__NONE ? pyprof__add_track(profile, node->tid, name) : (uint32_t)PYPROF__NONE;
        if (index == PYPROF__NONE) {
            return PYPROF__NONE;
        }
        pyprof__track *track = pyprof__track_at(profile, index);
        track->is_named = node->is_named;
        track->is_shared = node->is_named && node->tid == 0;
        track->process = process;
        track->pid = has_process && node->pid > 0 ? node->pid : 0;
        pyprof__node_at(profile, track->root)->track = pyprof__node_at(profile, track->truncated)->track = index;
        return track->root;
    }
    bool has_line = node->path.data != NULL && node->path.size > 0;
    int32_t first_line = has_line && node->first_line > 0 ? node->first_line : 0;
    uint32_t function = pyprof__intern_function(profile, name, pyprof__intern_given(profile, node->path), first_line);
    int32_t line = has_line && node->line > 0 ? node->line : 0;
    uint32_t track = pyprof__node_at(profile, node->parent)->track;
    uint32_t index =
        function != PYPROF__NONE ? pyprof__vital_child(profile, node->parent, function, line) : PYPROF__NONE;
    if (index != PYPROF__NONE) {
        pyprof__node_at(profile, index)->track = track;
    }
    return index;
}

PYPROF_API pyprof_result pyprof_add_node(pyprof_profile *profile, const pyprof_node *node, uint32_t *number) {
    const char *caller = "pyprof_add_node";
    if (node == NULL || number == NULL) {
        pyprof__say("%s: %s is NULL", caller, node == NULL ? "node" : "number");
        return PYPROF_ERROR_ARGUMENT;
    }
    if (!pyprof__may_add(caller, profile, node->parent)) {
        return PYPROF_ERROR_ARGUMENT;
    }
    if (node->samples_idle > node->samples || node->wall_idle_ns > node->wall_ns) {
        pyprof__say("%s: more %s idle than there are", caller,
                    node->samples_idle > node->samples ? "samples are" : "nanoseconds are");
        return PYPROF_ERROR_ARGUMENT;
    }
    uint32_t index = pyprof__made_node(profile, node);
    if (index == PYPROF__NONE) {
        pyprof__say_full("for one more node", &profile->memory);
        return PYPROF_ERROR_MEMORY;
    }
    pyprof__node *sums = pyprof__node_at(profile, index);
    sums->samples += node->samples;
    sums->samples_idle += node->samples_idle;
    sums->wall_ns += node->wall_ns;
    sums->wall_idle_ns += node->wall_idle_ns;
    sums->cpu_ns += node->cpu_ns;
    sums->gil_ns += node->gil_ns;
    *number = index;
    return PYPROF_OK;
}

PYPROF_API pyprof_result pyprof_add_span(pyprof_profile *profile, const pyprof_span *span) {
    const char *caller = "pyprof_add_span";
    if (span == NULL || span->node == PYPROF_NO_NODE) {
        pyprof__say("%s: %s", caller, span == NULL ? "span is NULL" : "span->node has to be a node's number");
        return PYPROF_ERROR_ARGUMENT;
    }
    if (!pyprof__may_add(caller, profile, span->node)) {
        return PYPROF_ERROR_ARGUMENT;
    }
    uint32_t index = pyprof__node_at(profile, span->node)->track;
    uint64_t end_ns = pyprof__track_at(profile, index)->end_ns;
    if (span->start_ns < end_ns || span->wall_ns > UINT64_MAX - span->start_ns) {
        pyprof__say("%s: it begins at %llu ns, before the end of the one before it in its thread, at %llu", caller,
                    (unsigned long long)span->start_ns, (unsigned long long)end_ns);
        return PYPROF_ERROR_ARGUMENT;
    }
    uint32_t kind = pyprof__flag_if(span->has_gil, PYPROF__GIL) | pyprof__flag_if(span->is_idle, PYPROF__IDLE);
    bool has_room = pyprof__timeline_reserve(profile);
    if (has_room) {
        pyprof__add_absence(profile, index, span->start_ns);
        has_room = pyprof__timeline_reserve(profile);
    }
    if (!has_room) {
        pyprof__say_full("for one more span", &profile->memory);
        return PYPROF_ERROR_MEMORY;
    }
    pyprof__extend_timeline(profile, index, span->node, kind, span->wall_ns, span->cpu_ns, span->samples);
    return PYPROF_OK;
}

// >>files
// A profile becomes a file. In: a profile, a resolved output, and a path (see pyprof__save_at). Out: a result code;
// with PYPROF_ERROR_IO errno says why. Runs in the thread that calls pyprof_save or pyprof_stop, or in the sampler's
// (autosave_s); no lock; never in the signal handler.
// Invariant: at any moment path is the whole new file or as it was, also if the process is killed:
//   open PATH.PID-0.part -> fill it, close it -> rename it to PATH          any failure: remove it
// What is no regular file is written into. There is no fsync: the machine may lose what it has not written when it
// fails.
// Begin with pyprof__save_beside, pyprof__fill_file, pyprof__resolve_output.

/* A file that is being written. */
typedef struct pyprof__file {
    int descriptor;
    int error; /* errno of what failed first; 0 = nothing did */
} pyprof__file;

/* A pyprof_write_fn; user is a pyprof__file. False: the error is in there. */
static bool pyprof__write_file(void *user, const void *data, size_t size) {
    pyprof__file *file = (pyprof__file *)user;
    const char *at = (const char *)data;
    while (size > 0) {
        ssize_t done = write(file->descriptor, at, size);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            file->error = done < 0 ? errno : EIO;
            return false;
        }
        at += done;
        size -= (size_t)done;
    }
    return true;
}

/* Writes to a file and closes it. A reader that went away must be an error code for us, not a SIGPIPE for the host:
   Linux sends that signal to the thread that writes. So this one blocks it meanwhile, and discards it unless one was
   pending before. Errors: MEMORY; IO with errno, in place of WRITE. */
static pyprof_result pyprof__fill_file(const pyprof_profile *profile, const pyprof_output *output, pyprof__file *file) {
    sigset_t pipe_only, before, pending;
    struct timespec no_time = {0, 0};
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    pyprof_result result = pyprof__write_checked(profile, output, pyprof__write_file, file);
    if (file->error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        while (sigtimedwait(&pipe_only, NULL, &no_time) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (close(file->descriptor) != 0 && file->error == 0) {
        file->error = errno;
    }
    if (file->error == 0 || (result != PYPROF_OK && result != PYPROF_ERROR_WRITE)) {
        return result;
    }
    errno = file->error;
    return PYPROF_ERROR_IO; /* pyprof_save says which file and why */
}

/* Into what exists and is no regular file: a pipe, a device. To open a pipe waits for a reader; a terminal does not
   become the one that controls the process. What was written before a failure stays written. */
static pyprof_result pyprof__save_into(const pyprof_profile *profile, const pyprof_output *output, const char *path) {
    pyprof__file file = {open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY), 0};
    return file.descriptor < 0 ? PYPROF_ERROR_IO : pyprof__fill_file(profile, output, &file);
}

/* Opens a new file beside path, "PATH.PID-N.part", N = 0 to 99; its name stays in the given buffer. A name that is too
   long for that becomes ".PID-N.part" in the same folder. -1: errno says why. */
static int pyprof__open_beside(const char *path, char *name, size_t size) {
    int kept = (int)strnlen(path, size), folder = (int)pyprof__last_part(path, strlen(path));
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        int length = snprintf(name, size, "%.*s.%ld-%u.part", kept, path, (long)getpid(), attempt);
        bool has_room = length >= 0 && (size_t)length < size;
        int descriptor = has_room ? open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
        int error = has_room ? errno : ENAMETOOLONG;
        if (descriptor < 0 && error == ENAMETOOLONG && kept != folder) {
            kept = folder;
        } else if (descriptor >= 0 || error != EEXIST) {
            errno = error;
            return descriptor;
        }
    }
    return -1;
}

/* Makes a new file beside path and renames it to path. mode: the rights of the file that it replaces; 0 = there is
   none, so the umask says them. */
static pyprof_result pyprof__save_beside(const pyprof_profile *profile, const pyprof_output *output, const char *path,
                                         mode_t mode) {
    char name[PYPROF__PATH_SIZE];
    pyprof__file file = {pyprof__open_beside(path, name, sizeof name), 0};
    if (file.descriptor < 0) {
        return PYPROF_ERROR_IO;
    }
    if (mode != 0 && fchmod(file.descriptor, mode & 07777) != 0) {
        file.error = errno;
    }
    pyprof_result result = pyprof__fill_file(profile, output, &file);
    if (result == PYPROF_OK && rename(name, path) != 0) {
        result = PYPROF_ERROR_IO;
    }
    if (result != PYPROF_OK) {
        int error = errno;
        unlink(name);
        errno = error;
    }
    return result;
}

/* An ending in capitals (X.SVG) means the same. */
static bool pyprof__path_ends_with(const char *path, const char *end) {
    size_t length = strlen(path), size = strlen(end);
    return length >= size && strcasecmp(path + length - size, end) == 0;
}

/* The output with its defaults filled in; NULL = all of them. Where no format is named, the path's ending names it:
   .json, .svg, .pb.gz and .pb, anything else is collapsed. path NULL = there is none. */
static pyprof_output pyprof__resolve_output(const pyprof_output *output, const char *path) {
    pyprof_output resolved;
    memset(&resolved, 0, sizeof resolved);
    if (output != NULL) {
        resolved = *output;
    }
    if (resolved.format == PYPROF_FORMAT_AUTO) {
        resolved.format = path == NULL                            ? PYPROF_FORMAT_COLLAPSED
                          : pyprof__path_ends_with(path, ".json") ? PYPROF_FORMAT_SPEEDSCOPE
                          : pyprof__path_ends_with(path, ".svg")  ? PYPROF_FORMAT_SVG
                          : pyprof__path_ends_with(path, ".pb.gz") || pyprof__path_ends_with(path, ".pb")
                              ? PYPROF_FORMAT_PPROF
                              : PYPROF_FORMAT_COLLAPSED;
    }
    if (resolved.format == PYPROF_FORMAT_PPROF && path != NULL && pyprof__path_ends_with(path, ".pb")) {
        resolved.format = PYPROF_FORMAT_PPROF_PLAIN;
    }
    return resolved;
}

/* Said where an .svg is asked for, and tools/flamegraph.h was not included. */
#define PYPROF__NO_PICTURE                                                                                             \
    "an .svg needs tools/flamegraph.h, included before pyprof.h in the file that defines PYPROF_IMPLEMENTATION; "      \
    "without it, save a .txt and run 'pyprof-svg x.txt x.svg', or save a .json and open it in "                        \
    "https://www.speedscope.app"

#ifndef PYPROF_NO_RECORDING

// >>estimator
// Which allocations are samples, and what each stands for. In: the sizes of a thread's allocations, one after the other.
// Out: whether one is a sample; its weight; its part of the variance. Any thread, each for itself; no lock; never the
// signal handler.
// Points lie on the axis of all bytes that a thread asks for, as a Poisson process with one point in
// sampling_bytes; an allocation on which at least one lies is a sample: with the chance p = 1 - exp(-size / sampling_bytes),
// each independently of the others. Of w = 1 / p samples' worth of objects, and w * size bytes, the sum over all samples is
// unbiased, and the sum of w * (w - 1) * size^2 is an unbiased estimate of its variance (Horvitz and Thompson, A
// Generalization of Sampling Without Replacement From a Finite Universe, 1952). As (w - 1) * size = size / (exp(size /
// sampling_bytes) - 1) <= sampling_bytes, that is at most sampling_bytes times the estimate.
// Begin with pyprof__heap_due, pyprof__heap_weight, pyprof__heap_variance.

#ifndef PYPROF_NO_HEAP

/* A thread's own part. */
typedef struct pyprof__heap_thread {
    int64_t left;       /* bytes to its next point, or to where it looks again; below 0 only until that is looked at;
                           INT64_MAX while it is inside, less what was passed on */
    int64_t rest;       /* bytes from there to its next point; 0 = left leads to that */
    uint64_t mean;      /* sampling_bytes when both were drawn; 0 = they were not drawn yet */
    uint64_t random;    /* state of its random numbers; 0 = none yet */
    int64_t aside;      /* what left was before */
    uint32_t is_inside; /* an allocator that we have called, or the lock: what is allocated there is not counted */
    bool has_lock;      /* pyprof__heap_lock, or it is about to */
    bool is_forking;    /* it has the lock until the fork is done: see pyprof__heap_before_fork */
    bool is_copying;    /* what changes is noted for it: see >>census */
    uint32_t session;   /* in which it had its track */
    uint32_t track;     /* of the tree */
    uint32_t probed;    /* see pyprof__heap_probe; 0 = nothing */
} pyprof__heap_thread;

/* Read at each allocation: in an executable that is one load. A plugin asks the loader where it lies, by the model that is
   the default: with the executable's model it would take of what the C library keeps for that, and the host's next
   plugin might not load. */
static __thread pyprof__heap_thread pyprof__heap_self;

/* Where libpyprof-heap.so has that instead; NULL = nowhere. Decided before the first hook goes in: see >>native. */
static void *(*pyprof__heap_room)(void);

/* The calling thread's own part. */
static inline pyprof__heap_thread *pyprof__heap_here(void) {
    void *(*room)(void) = __atomic_load_n(&pyprof__heap_room, __ATOMIC_RELAXED);
    return room != NULL ? (pyprof__heap_thread *)room() : &pyprof__heap_self;
}

/* From the one to the other what the calling thread allocates is not counted. */
static inline void pyprof__heap_go_in(pyprof__heap_thread *self) {
    if (self->is_inside++ == 0) {
        self->aside = self->left;
        self->left = INT64_MAX;
    }
}

static inline void pyprof__heap_come_out(pyprof__heap_thread *self) {
    if (--self->is_inside == 0) {
        self->left = self->aside;
    }
}

static pyprof__atomic64 pyprof__heap_mean;  /* sampling_bytes; 0 = no samples are taken */
static pyprof__atomic64 pyprof__heap_draws; /* threads that have begun to draw */

/* The natural logarithm of a number above 0 and up to 1. Not libm's, which a program may not be linked with. ln(x) = 2
   artanh((x - 1) / (x + 1)), for x between 0.7 and 1.4 a series of 13 terms. */
static double pyprof__logarithm(double x) {
    double halvings = 0, sum = 0;
    for (; x < 0.70710678; x *= 2) {
        halvings++;
    }
    double ratio = (x - 1) / (x + 1);
    for (int power = 25; power > 0; power -= 2) {
        sum = sum * ratio * ratio + 1.0 / power;
    }
    return 2 * ratio * sum - halvings * 0.69314718055994530942;
}

/* 1 - exp(-x), without losing digits where x is small: by the series there, and doubled by 1 - exp(-2x) = y (2 - y). */
static double pyprof__chance(double x) {
    double sum = 1;
    int doublings = 0;
    if (x > 64) {
        return 1;
    }
    for (; x > 0.0625; x /= 2) {
        doublings++;
    }
    for (int term = 9; term > 1; term--) {
        sum = 1 - x / term * sum;
    }
    double chance = x * sum;
    for (; doublings > 0; doublings--) {
        chance *= 2 - chance;
    }
    return chance;
}

/* What an allocation of this size, above 0, stands for if it is a sample. */
static double pyprof__heap_weight(uint64_t size, uint64_t mean) {
    return 1 / pyprof__chance((double)size / (double)mean);
}

/* Its part of the variance of the bytes. */
static double pyprof__heap_variance(uint64_t size, double weight) {
    return weight * (weight - 1) * (double)size * (double)size;
}

static uint64_t pyprof__heap_rounded(double value) {
    return (uint64_t)(value + 0.5);
}

/* The whole number below or above, above with the chance that the fraction is: so sums are right on average where all are of
   one size, too. lot: any number, the same for the same rounding. */
static uint64_t pyprof__heap_whole(double value, uint64_t lot) {
    uint64_t whole = (uint64_t)value;
    double fraction = value - (double)whole;
    return whole + ((double)(pyprof__mix(0, lot) >> 11) < fraction * 9007199254740992.0); /* 2^53 */
}

/* Newton's, from above; not libm's, as above. */
static double pyprof__root(double x) {
    double root = x > 1 ? x : 1;
    for (int i = 0; x > 0 && i < 600; i++) {
        double next = (root + x / root) / 2;
        if (next >= root) {
            break;
        }
        root = next;
    }
    return x > 0 ? root : 0;
}

/* The next 64 random bits (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014). */
static uint64_t pyprof__heap_random(pyprof__heap_thread *self) {
    uint64_t bits = self->random += 0x9e3779b97f4a7c15u;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    return bits ^ bits >> 31;
}

/* A thread looks so often whether sampling_bytes is another one. */
#define PYPROF__HEAP_LOOK ((int64_t)1 << 20)

/* Draws how far it is to the next point: by the exponential distribution, rounded down, as all sums of sizes are whole. */
static void pyprof__heap_draw(pyprof__heap_thread *self, uint64_t mean) {
    if (self->random == 0) {
        uint64_t number = __atomic_add_fetch(&pyprof__heap_draws.value, 1, __ATOMIC_RELAXED);
        self->random = pyprof__mix(pyprof__mix(pyprof__now(), number), (uint64_t)(uintptr_t)self) | 1;
    }
    double uniform = (double)((pyprof__heap_random(self) >> 11) + 1) / 9007199254740992.0; /* 2^53: above 0, up to 1 */
    self->rest = (int64_t)((double)mean * -pyprof__logarithm(uniform));
    self->left = self->rest < PYPROF__HEAP_LOOK ? self->rest : PYPROF__HEAP_LOOK;
    self->rest -= self->left;
    self->mean = mean;
}

/* Goes on to the next point, where left only led to a look at it: as far as has been allocated, at least. */
static void pyprof__heap_go_on(pyprof__heap_thread *self) {
    int64_t more = self->left < -PYPROF__HEAP_LOOK ? -self->left : PYPROF__HEAP_LOOK;
    more = more < self->rest ? more : self->rest;
    self->left += more;
    self->rest -= more;
}

/* Whether an allocation that has passed left is a sample, and of which mean; 0 = it is none. Where none are taken left
   is 0, so that the next one comes here, too: a thread begins to draw when it begins to count. What is left of a
   gap of an earlier mean is drawn anew, as gaps have no memory: else a thread would take no sample until it has allocated
   as much as that mean. A gap that ends before it is looked at has its sample by the mean it was drawn by. */
static uint64_t pyprof__heap_due(pyprof__heap_thread *self, uint64_t size) {
    uint64_t mean = pyprof__get64(&pyprof__heap_mean), drawn = self->mean;
    if (mean == 0) {
        self->left = self->rest = 0;
        self->mean = 0;
        return 0;
    }
    if (drawn == 0 || (drawn != mean && self->rest > 0)) {
        int64_t counted = drawn == 0 ? (int64_t)size : -self->left; /* of this allocation */
        pyprof__heap_draw(self, mean);
        drawn = mean;
        self->left -= counted;
    }
    if (self->left < 0) {
        pyprof__heap_go_on(self);
    }
    if (self->left >= 0) {
        return 0;
    }
    pyprof__heap_draw(self, mean);
    return drawn;
}

#endif /* PYPROF_NO_HEAP */

// >>heap
// What Python allocates, sampled by bytes: which allocations are samples, what each stands for, where it was made, and
// which of them live. In: addresses and sizes, from >>hooks. Out: a profile, and figures.
// Who: any thread that allocates or frees, with or without the GIL. Never the signal handler, nor the sampler's thread.
// Invariants: under pyprof__heap_lock nothing is called that may allocate by Python, or take another lock but the host's
// allocator's; has_lock and is_inside are set meanwhile, so that what it allocates all the same is passed through, and a
// signal handler that forks there is known. All here is static or of pyprof__heap.memory: never from Python's allocators.
//   an allocation:  left -= size, and only below 0:  lock -> walk -> node of the tree -> a sample that lives
//   a free:         filter[address] == 0, or:        lock -> the sample dies
// The tree is a pyprof_profile, of whose nodes wall_ns and samples are what lives in bytes and in objects, and cpu_ns and
// gil_ns what was allocated; objects times PYPROF__OBJECT_PARTS. They are kept with each sample that comes or goes.
// Begin with pyprof__heap_take, pyprof__heap_record, pyprof__heap_forget.

#ifndef PYPROF_NO_HEAP

/* Objects are estimated in fractions. */
#define PYPROF__OBJECT_PARTS 1024u

/* An allocation that was sampled and lives. */
typedef struct pyprof__live {
    uintptr_t address; /* 0 = this place is free */
    uint64_t size;     /* as it was asked for */
    double weight;     /* it stands for so many */
    uint64_t born;     /* monotonic clock */
    uint32_t node;
    uint32_t next; /* the next one of the same bucket, or the next free place; PYPROF__NONE = there is none */
} pyprof__live;

#define PYPROF__HEAP_HOST 16u      /* behind PYPROF_HEAP_NATIVE: pyprof_heap_on_alloc */
#define PYPROF__HEAP_MAP 32u       /* mmap */
#define PYPROF__HEAP_FILTER 65536u /* a power of two: bytes, each how many samples live at addresses like this */

/* All of it, but the lock. What is not atomic is guarded by that. */
static struct pyprof__heap {
    uint8_t filter[PYPROF__HEAP_FILTER];
    bool is_on;            /* between the first start and shutdown: all that follows is there */
    bool fork_has_lock;    /* see pyprof__heap_before_fork */
    uint32_t session;      /* counts those */
    pyprof__atomic32 pid;  /* a child that was made without fork's handlers must not touch the lock */
    pyprof_heap_desc desc; /* with its defaults filled in */
    pyprof__layout layout; /* of CPython */
    pyprof_profile *tree;
    pyprof__memory *memory; /* the tree's, for all of this */
    pyprof__table sites;    /* of pyprof__call_site */
    pyprof__array frames;   /* room for one stack */
    pyprof__array live;     /* of pyprof__live; where free places are, first_free leads to them */
    uint32_t first_free;
    pyprof__array mappings;      /* of pyprof__live, in the order of their addresses: see >>native */
    pyprof__atomic32 mapped_now; /* how many these are: read without the lock */
    uint32_t *buckets;           /* of each: the first sample in it */
    uint32_t bucket_count;       /* a power of two, or 0 */
    uint32_t native, mapped;     /* functions: the markers */
    uint64_t start;              /* monotonic clock */
    uint64_t live_parts;         /* objects that live, times PYPROF__OBJECT_PARTS */
    double live_variance, alloc_variance;
    pyprof__changes *census; /* notes which of live change; NULL = nobody copies them in pieces */
    pyprof_heap_stats stats; /* what is counted here; the rest is filled in when it is asked for */
    pyprof__text text;       /* room for one */
} pyprof__heap;

static pthread_mutex_t pyprof__heap_lock = PTHREAD_MUTEX_INITIALIZER;
static pyprof__atomic32
    pyprof__heap_waiting; /* threads that wait for it: who would take it again at once lets them go first */

static void pyprof__heap_take_lock(void) {
    if (pthread_mutex_trylock(&pyprof__heap_lock) != 0) {
        pyprof__add(&pyprof__heap_waiting, 1);
        pthread_mutex_lock(&pyprof__heap_lock);
        pyprof__add(&pyprof__heap_waiting, (uint32_t)-1);
    }
}

/* Called when a sample is about to end for the first time since Py_Finalize has begun: so what lives then is what the program
   has left. For who wants to keep that (tools/libpyprof.c); NULL = nobody. */
static void (*pyprof__heap_before_finalize)(void);

/* Whether it was called since Py_Finalize has begun. */
static pyprof__atomic32 pyprof__heap_is_finalized;

static void pyprof__heap_tell_finalize(void) {
    if (!pyprof__is_finalizing()) {
        pyprof__set(&pyprof__heap_is_finalized, 0);
    } else if (pyprof__swap_if(&pyprof__heap_is_finalized, 0, 1)) {
        pyprof__heap_before_finalize();
    }
}

/* Takes the lock. False: this is a child that was made without fork's handlers, in which nobody may ever give it back.
   pyprof__heap_leave follows where it is true. */
static bool pyprof__heap_enter(pyprof__heap_thread *self) {
    if (pyprof__get(&pyprof__heap.pid) != (uint32_t)getpid()) {
        return false;
    }
    pyprof__heap_go_in(self);
    if (!self->is_forking) {
        self->has_lock = true;
        pyprof__heap_take_lock();
    }
    return true;
}

static void pyprof__heap_leave(pyprof__heap_thread *self) {
    if (!self->is_forking) {
        pthread_mutex_unlock(&pyprof__heap_lock);
        self->has_lock = false;
    }
    pyprof__heap_come_out(self);
}

/* Where an address is in the filter: 64 bytes share a place, so that it takes little of the processor's cache. Large
   blocks, which begin alike, share 1,024 places: that costs those who free one a search, and saves all others the mixing
   of more bits, three of the eleven instructions that a free takes longer. */
static uint8_t *pyprof__heap_filter(uintptr_t address) {
    return &pyprof__heap.filter[address >> 6 & (PYPROF__HEAP_FILTER - 1)];
}

/* Whether a sample may live at an address. Without the lock: who frees it has it from who allocated it, whose write to
   the filter came before. */
static inline bool pyprof__heap_may_live(const void *memory) {
    return __atomic_load_n(pyprof__heap_filter((uintptr_t)memory), __ATOMIC_RELAXED) != 0;
}

/* One more or one less; a count that was once full stays so, which costs looks and no more. */
static void pyprof__heap_mark(uintptr_t address, int more) {
    uint8_t *count = pyprof__heap_filter(address), now = __atomic_load_n(count, __ATOMIC_RELAXED);
    if (now != UINT8_MAX) {
        __atomic_store_n(count, (uint8_t)(now + more), __ATOMIC_RELAXED);
    }
}

static pyprof__live *pyprof__live_at(uint32_t index) {
    return &PYPROF__ITEM(pyprof__live, &pyprof__heap.live, index);
}

static uint32_t *pyprof__heap_bucket(uintptr_t address) {
    uint64_t hash = pyprof__mix(0, address) >> 32;
    return &pyprof__heap.buckets[hash & (pyprof__heap.bucket_count - 1)];
}

static void pyprof__heap_note(uint32_t index) {
    if (pyprof__heap.census != NULL) {
        pyprof__note_change(pyprof__heap.census, index);
    }
}

static uint64_t pyprof__live_lot(const pyprof__live *sample) {
    return pyprof__mix(sample->address, sample->born);
}

/* Bytes that a sample stands for; always the same ones. */
static uint64_t pyprof__live_space(const pyprof__live *sample) {
    return pyprof__heap_whole(sample->weight * (double)sample->size, pyprof__live_lot(sample));
}

/* And objects, in parts. */
static uint64_t pyprof__live_parts(const pyprof__live *sample) {
    return pyprof__heap_whole(sample->weight * PYPROF__OBJECT_PARTS, pyprof__live_lot(sample));
}

/* A sample is among those that live, or is no more. */
static void pyprof__heap_count(const pyprof__live *sample, bool lives) {
    pyprof__node *sums = pyprof__node_at(pyprof__heap.tree, sample->node);
    uint64_t space = pyprof__live_space(sample), parts = pyprof__live_parts(sample);
    double variance = pyprof__heap_variance(sample->size, sample->weight);
    sums->wall_ns += lives ? space : 0 - space;
    sums->samples += lives ? parts : 0 - parts;
    pyprof__note_node(pyprof__heap.tree, sample->node);
    pyprof__heap.stats.live_bytes += lives ? space : 0 - space;
    pyprof__heap.live_parts += lives ? parts : 0 - parts;
    pyprof__heap.live_variance += lives ? variance : -variance;
    pyprof__heap.stats.samples_live += lives ? 1 : UINT64_MAX;
    if (pyprof__heap.stats.samples_live == 0) {
        pyprof__heap.live_variance = 0; /* but for what was rounded */
    }
}

static void pyprof__heap_lose(const pyprof__live *sample) {
    pyprof__heap.stats.lost_memory++;
    pyprof__heap.stats.lost_bytes += pyprof__live_space(sample);
}

static void pyprof__heap_link(uint32_t index) {
    uint32_t *bucket = pyprof__heap_bucket(pyprof__live_at(index)->address);
    pyprof__live_at(index)->next = *bucket;
    *bucket = index;
}

/* Makes as many buckets as there are places. False: no room. */
static bool pyprof__heap_rehash(uint32_t count) {
    size_t size = count * sizeof(uint32_t), held = pyprof__heap.bucket_count * sizeof(uint32_t);
    uint32_t *buckets = (uint32_t *)pyprof__alloc_instead(pyprof__heap.memory, size, held);
    if (buckets == NULL) {
        return false;
    }
    memset(buckets, 0xff, size); /* PYPROF__NONE */
    pyprof__release(pyprof__heap.memory, pyprof__heap.buckets, held);
    pyprof__heap.buckets = buckets;
    pyprof__heap.bucket_count = count;
    for (uint32_t i = 0; i < pyprof__heap.live.count; i++) {
        if (pyprof__live_at(i)->address != 0) {
            pyprof__heap_link(i);
        }
    }
    return true;
}

/* A place for a sample; PYPROF__NONE = no room. */
static uint32_t pyprof__heap_place(void) {
    uint32_t index = pyprof__heap.first_free;
    if (index != PYPROF__NONE) {
        pyprof__heap.first_free = pyprof__live_at(index)->next;
        return index;
    }
    if (pyprof__heap.live.count == pyprof__heap.bucket_count &&
        !pyprof__heap_rehash(pyprof__heap.bucket_count == 0 ? 1024 : 2 * pyprof__heap.bucket_count)) {
        return PYPROF__NONE;
    }
    return pyprof__array_add(pyprof__heap.memory, &pyprof__heap.live);
}

/* Takes the sample at an address out, into *was. False: there is none. */
static bool pyprof__heap_drop(uintptr_t address, pyprof__live *was) {
    if (pyprof__heap.bucket_count == 0) {
        return false;
    }
    uint32_t *link = pyprof__heap_bucket(address);
    while (*link != PYPROF__NONE && pyprof__live_at(*link)->address != address) {
        link = &pyprof__live_at(*link)->next;
    }
    uint32_t index = *link;
    if (index == PYPROF__NONE) {
        return false;
    }
    pyprof__live *live = pyprof__live_at(index);
    *was = *live;
    *link = live->next;
    live->address = 0;
    live->next = pyprof__heap.first_free;
    pyprof__heap.first_free = index;
    pyprof__heap_note(index);
    pyprof__heap_count(was, false);
    pyprof__heap_mark(address, -1);
    return true;
}

/* Adds a sample that lives. What lives there already is an allocation whose end was not seen. False: no room. */
static bool pyprof__heap_add(const pyprof__live *sample) {
    pyprof__live replaced;
    if (pyprof__heap_drop(sample->address, &replaced)) {
        pyprof__heap.stats.samples_replaced++;
    }
    uint32_t index = pyprof__heap_place();
    if (index == PYPROF__NONE) {
        pyprof__heap_lose(sample);
        return false;
    }
    *pyprof__live_at(index) = *sample;
    pyprof__heap_link(index);
    pyprof__heap_note(index);
    pyprof__heap_count(sample, true);
    pyprof__heap_mark(sample->address, 1);
    return true;
}

/* The thread's track: by the name that the system has for it. Threads of one name are one, as the tree would grow with
   each that comes and goes. PYPROF__NONE = no room. */
static uint32_t pyprof__heap_track(pyprof__heap_thread *self) {
    char name[17] = "MainThread"; /* 16: Linux, TASK_COMM_LEN */
    int32_t tid = pyprof__tid();
    if (self->session == pyprof__heap.session && self->track != PYPROF__NONE) {
        return self->track;
    }
    bool is_main = tid == (int32_t)getpid();
    if (!is_main && prctl(PR_GET_NAME, (unsigned long)(uintptr_t)name, 0, 0, 0) != 0) {
        name[0] = '\0';
    }
    uint32_t process = pyprof__heap.tree->process_name;
    bool is_named = is_main || pyprof__find_text(pyprof__heap.tree, name, strlen(name)) != process;
    self->track = pyprof__take_track(pyprof__heap.tree, tid, name, strlen(name), is_named, 0);
    self->session = pyprof__heap.session;
    if (self->track != PYPROF__NONE) {
        pyprof__leave_track(pyprof__heap.tree, self->track);
    }
    return self->track;
}

/* Function and line of a frame that is met first; its code object lives, as the stack is that of the calling thread. False:
   no room. What cannot be read is [unresolved]. */
static bool pyprof__heap_resolve(pyprof__reader *reader, pyprof__call_site *site) {
    pyprof_profile *tree = pyprof__heap.tree;
    const pyprof__layout *layout = &pyprof__heap.layout;
    pyprof__text *text = &pyprof__heap.text;
    pyprof__code_fields fields;
    uintptr_t table;
    size_t size;
    site->node = PYPROF__NONE;
    site->function = tree->unresolved;
    if (!pyprof__read_code(layout, reader, site->frame.code, &fields) ||
        !pyprof__bytes_data(reader, fields.lines, &table, &size) || !pyprof__load_text(reader, fields.name, text)) {
        return true;
    }
    uint32_t name = pyprof__intern_text(tree, text->utf8, text->size);
    if (!pyprof__load_text(reader, fields.filename, text)) {
        return true;
    }
    uint32_t file = pyprof__intern_text(tree, text->utf8, text->size);
    if (reader != NULL && (size > sizeof text->utf8 || !pyprof__load(reader, table, text->utf8, size))) {
        return true;
    }
    const unsigned char *lines = (const unsigned char *)(reader != NULL ? (uintptr_t)text->utf8 : table);
    site->function = pyprof__intern_function(tree, name, file, fields.first_line);
    site->line = pyprof__line_at(lines, size, fields.first_line, site->frame.instr);
    return site->function != PYPROF__NONE;
}

/* What a frame means. NULL = no room. All sites are forgotten where they are many, as a program may compile code without
   end. Good until the next call. */
static pyprof__call_site *pyprof__heap_site(pyprof__reader *reader, const pyprof__frame *frame) {
    bool is_new;
    if (pyprof__heap.sites.items.count * sizeof(pyprof__call_site) > pyprof__heap.memory->limit / 16) {
        pyprof__table_clear(&pyprof__heap.sites);
    }
    uint32_t index = pyprof__table_intern(pyprof__heap.memory, &pyprof__heap.sites, frame, &is_new);
    if (index == PYPROF__NONE) {
        return NULL;
    }
    pyprof__call_site *site = &PYPROF__ITEM(pyprof__call_site, &pyprof__heap.sites.items, index);
    if (is_new && pyprof__is_mark(frame)) {
        char text[48];
        snprintf(text, sizeof text, "[interpreter %lld]", (long long)frame->fingerprint);
        bool is_gap = (int64_t)frame->fingerprint == PYPROF__GAP;
        site->node = PYPROF__NONE;
        site->function = is_gap ? pyprof__heap.tree->truncated : pyprof__intern_marker(pyprof__heap.tree, text);
    } else if (is_new && !pyprof__heap_resolve(reader, site)) {
        site->function = PYPROF__NONE;
    }
    if (site->function == PYPROF__NONE) {
        pyprof__table_clear(&pyprof__heap.sites); /* a half-made site must not be found again */
        return NULL;
    }
    return site;
}

/* The calling thread's attached thread state; 0 = it runs no Python, or that cannot be told. To 3.11 the attached one is
   the process's, and names a thread: with the GIL, which should be held in mem and obj, that is the calling one. Without
   it, as may be in raw, it is only if it is the one that this thread has for its own. */
static uintptr_t pyprof__heap_thread_state(bool has_gil) {
    const pyprof__layout *layout = &pyprof__heap.layout;
    uintptr_t tstate = pyprof__current_thread_state();
    if (tstate == 0 || layout->ts_status != PYPROF__ABSENT) {
        return tstate;
    }
    bool is_own =
        has_gil ? pyprof__is_own_thread_state(layout, tstate) : tstate == (uintptr_t)PyGILState_GetThisThreadState();
    return is_own ? tstate : 0;
}

/* Walks the stack of a thread state: by loads where it is the calling thread's for certain. Adds the interpreter's mark,
   unless it is the main one. False: it could not be read. */
static bool pyprof__heap_walk(pyprof__reader *reader, uintptr_t tstate, pyprof__stack *stack) {
    const pyprof__layout *layout = &pyprof__heap.layout;
    uintptr_t word = 0, base = 0, leaf = 0;
    if (!pyprof__load_word(reader, tstate + layout->ts_frame, &word) ||
        (layout->ts_base != PYPROF__ABSENT && !pyprof__load_word(reader, tstate + layout->ts_base, &base))) {
        return false;
    }
    stack->frames = (pyprof__frame *)pyprof__heap.frames.data;
    stack->capacity = pyprof__heap.desc.max_depth;
    if (!pyprof__points_to_frames(layout, tstate, word, base) || word == 0) {
        return true;
    }
    if (!pyprof__leaf_from(layout, reader, word, &leaf) || !pyprof__walk(layout, reader, leaf, stack)) {
        return false;
    }
    const PyThreadState *attached = (const PyThreadState *)tstate;
    int64_t interpreter = attached->interp != NULL ? PyInterpreterState_GetID(attached->interp) : 0;
    if (interpreter != 0 && !stack->is_cut) {
        stack->frames[stack->count++] =
            pyprof__mark(interpreter, 0); /* there is room for one more: pyprof__heap_init */
    }
    return true;
}

/* The node of a stack below base: its innermost frame's. */
static uint32_t pyprof__heap_fold(pyprof__reader *reader, const pyprof__stack *stack, uint32_t base) {
    uint32_t node = base;
    for (uint32_t i = stack->count; i-- > 0;) {
        pyprof__call_site *site = pyprof__heap_site(reader, &stack->frames[i]);
        uint32_t below = site != NULL ? pyprof__call_site_node(pyprof__heap.tree, site, node) : PYPROF__NONE;
        if (below == PYPROF__NONE) {
            pyprof__heap.stats.truncated_memory++;
            return pyprof__truncated_below(pyprof__heap.tree, node);
        }
        node = below;
    }
    return node;
}

static uint32_t pyprof__heap_marker(uint32_t function, uint32_t base) {
    uint32_t node = pyprof__child(pyprof__heap.tree, base, function, 0);
    return node != PYPROF__NONE ? node : pyprof__truncated_below(pyprof__heap.tree, base);
}

/* The node at which the calling thread is. PYPROF__NONE = no room, not even for the thread. */
static uint32_t pyprof__heap_node(pyprof__heap_thread *self, bool has_gil) {
    pyprof__reader safely = {0, 0, 0, 0, NULL};
    pyprof__stack stack;
    uint32_t track = pyprof__heap_track(self);
    if (track == PYPROF__NONE) {
        return PYPROF__NONE;
    }
    uint32_t root = pyprof__track_at(pyprof__heap.tree, track)->root;
    uintptr_t tstate = pyprof__heap_thread_state(has_gil);
    bool is_certain = has_gil || pyprof__heap.layout.ts_status != PYPROF__ABSENT;
    pyprof__reader *reader = is_certain ? NULL : &safely;
    memset(&stack, 0, sizeof stack);
    if (tstate != 0 && !pyprof__heap_walk(reader, tstate, &stack)) {
        pyprof__heap.stats.lost_unreadable++;
        return pyprof__heap_marker(pyprof__heap.tree->unsettled, root);
    }
    if (stack.count == 0) {
        return pyprof__heap_marker(pyprof__heap.native, root);
    }
    pyprof__heap.stats.truncated_depth += stack.is_cut || stack.has_gap;
    bool is_headed = !stack.is_cut && !stack.is_headless;
    uint32_t base = is_headed ? root : pyprof__track_at(pyprof__heap.tree, track)->truncated;
    return pyprof__heap_fold(reader, &stack, base);
}

static bool pyprof__map_add(const pyprof__live *sample); /* >>native */

/* Enters a sample into the tree, and among those that live. With the lock. */
static void pyprof__heap_book(const pyprof__live *sample, bool is_mapping) {
    pyprof__heap.stats.samples++;
    pyprof__heap.stats.alloc_bytes += pyprof__live_space(sample);
    pyprof__heap.alloc_variance += pyprof__heap_variance(sample->size, sample->weight);
    if (sample->node == PYPROF__NONE) {
        pyprof__heap_lose(sample);
        return;
    }
    pyprof__node *sums = pyprof__node_at(pyprof__heap.tree, sample->node);
    pyprof__heap.stats.stacks += sums->gil_ns == 0;
    sums->cpu_ns += pyprof__live_space(sample);
    sums->gil_ns += pyprof__live_parts(sample);
    pyprof__note_node(pyprof__heap.tree, sample->node);
    (void)(is_mapping ? pyprof__map_add(sample) : pyprof__heap_add(sample));
}

/* The calling thread has allocated a sample. With the lock. Mem and obj are only called with the GIL. */
static void pyprof__heap_record(pyprof__heap_thread *self, uintptr_t address, uint64_t size, uint64_t mean,
                                uint32_t from) {
    uint32_t node = pyprof__heap_node(self, from == PYPROF_HEAP_MEM || from == PYPROF_HEAP_OBJ);
    if (from == PYPROF__HEAP_MAP && node != PYPROF__NONE) {
        node = pyprof__heap_marker(pyprof__heap.mapped, node);
    }
    pyprof__live sample = {address, size, pyprof__heap_weight(size, mean), pyprof__now(), node, PYPROF__NONE};
    pyprof__heap_book(&sample, from == PYPROF__HEAP_MAP);
}

/* An allocation after which left is below 0; memory is NULL if it has failed. Out of line, as few come here; errno stays.
   from: the allocator of Python's, or one of PYPROF__HEAP_... */
PYPROF__APART void pyprof__heap_take(pyprof__heap_thread *self, const void *memory, size_t size, uint32_t from) {
    int error = errno;
    if (self->probed != 0) {
        self->probed = self->probed == from ? 0 : self->probed;
        return;
    }
    uint64_t mean = pyprof__heap_due(self, size);
    if (mean != 0 && memory != NULL && pyprof__heap_enter(self)) {
        if (pyprof__heap.is_on) {
            pyprof__heap_record(self, (uintptr_t)memory, size, mean, from);
        }
        pyprof__heap_leave(self);
    }
    errno = error;
}

/* What may live at an address ends: *was is what it was. Before the memory is given back, as somebody else has it at once
   then. False: no sample lived there. errno stays. */
PYPROF__APART bool pyprof__heap_forget(const void *memory, pyprof__live *was) {
    pyprof__heap_thread *self = pyprof__heap_here();
    int error = errno;
    bool is_found = false;
    if (pyprof__heap_before_finalize != NULL) {
        pyprof__heap_tell_finalize();
    }
    if (pyprof__heap_enter(self)) {
        is_found = pyprof__heap.is_on && pyprof__heap_drop((uintptr_t)memory, was);
        pyprof__heap.stats.samples_freed += is_found;
        was->next = pyprof__heap.session; /* to which its node belongs: see pyprof__heap_restore */
        pyprof__heap_leave(self);
    }
    errno = error;
    return is_found;
}

/* It lives on: a realloc has failed. Not in a session that was begun since. errno stays. */
static void pyprof__heap_restore(const pyprof__live *was) {
    pyprof__heap_thread *self = pyprof__heap_here();
    int error = errno;
    if (pyprof__heap_enter(self)) {
        if (pyprof__heap.is_on && pyprof__heap.session == was->next) {
            pyprof__heap.stats.samples_freed--;
            pyprof__heap_add(was);
        }
        pyprof__heap_leave(self);
    }
    errno = error;
}

/* Gives all memory back. With the lock. The filter goes, too, so that nobody comes to look. */
static void pyprof__heap_clear(void) {
    pyprof__memory *memory = pyprof__heap.memory;
    pyprof__heap.is_on = false;
    pyprof__heap.census = NULL;
    pyprof__table_free(memory, &pyprof__heap.sites);
    pyprof__array_free(memory, &pyprof__heap.frames);
    pyprof__array_free(memory, &pyprof__heap.live);
    pyprof__array_free(memory, &pyprof__heap.mappings);
    pyprof__set(&pyprof__heap.mapped_now, 0);
    pyprof__release(memory, pyprof__heap.buckets, pyprof__heap.bucket_count * sizeof(uint32_t));
    pyprof__heap.buckets = NULL;
    pyprof__heap.bucket_count = 0;
    pyprof_free(pyprof__heap.tree);
    pyprof__heap.tree = NULL;
    pyprof__heap.memory = NULL;
    for (uint32_t i = 0; i < PYPROF__HEAP_FILTER; i++) {
        __atomic_store_n(&pyprof__heap.filter[i], (uint8_t)0, __ATOMIC_RELAXED);
    }
}

/* The tree, empty, with what every profile has; NULL = no room. */
static pyprof_profile *pyprof__heap_new_tree(const pyprof_heap_desc *desc) {
    pyprof__memory memory = {desc->allocator, desc->memory_limit, 0, 0, 0, NULL};
    pyprof_profile *tree = (pyprof_profile *)pyprof__alloc(&memory, sizeof *tree);
    char name[32];
    if (tree == NULL) {
        return NULL;
    }
    pyprof__profile_init(tree, &memory);
    tree->logger = desc->logger;
    tree->epoch_ns = pyprof__clock(CLOCK_REALTIME);
    bool has_markers = pyprof__intern_markers(tree);
    size_t size = pyprof__read_task_file((int32_t)getpid(), "comm", name, sizeof name);
    tree->process_name = pyprof__intern_text(tree, name, size - (size > 0));
    tree->program = pyprof__intern_program(tree);
    tree->python = pyprof__intern_text(tree, Py_GetVersion(), strcspn(Py_GetVersion(), " "));
    if (!has_markers || tree->process_name == PYPROF__NONE || tree->program == PYPROF__NONE ||
        tree->python == PYPROF__NONE) {
        pyprof_free(tree);
        return NULL;
    }
    return tree;
}

/* All that is needed before the first sample. With the lock. Errors, of which MEMORY is left to the caller to say: MEMORY,
   PYTHON, PYTHON_MISMATCH, PYTHON_DEBUG. */
static pyprof_result pyprof__heap_init(const pyprof_heap_desc *desc) {
    pyprof__heap.tree = pyprof__heap_new_tree(desc);
    if (pyprof__heap.tree == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    pyprof__heap.memory = &pyprof__heap.tree->memory;
    pyprof__heap.desc = *desc;
    pyprof__heap.frames.item_size = sizeof(pyprof__frame);
    pyprof__heap.live.item_size = pyprof__heap.mappings.item_size = sizeof(pyprof__live);
    pyprof__heap.first_free = PYPROF__NONE;
    pyprof__table_init(&pyprof__heap.sites, sizeof(pyprof__call_site), sizeof(pyprof__frame));
    pyprof__heap.native = pyprof__intern_marker(pyprof__heap.tree, "[native]");
    pyprof__heap.mapped = pyprof__intern_marker(pyprof__heap.tree, "[mmap]");
    memset(&pyprof__heap.stats, 0, sizeof pyprof__heap.stats);
    pyprof__heap.live_variance = pyprof__heap.alloc_variance = 0;
    pyprof__heap.live_parts = 0;
    pyprof__heap.start = pyprof__now();
    pyprof_result result = pyprof__layout_init(&pyprof__heap.layout, pyprof__heap.memory);
    if (result != PYPROF_OK) {
        pyprof__say_python(result); /* no memory: said by the caller instead */
    } else if (pyprof__heap.native == PYPROF__NONE || pyprof__heap.mapped == PYPROF__NONE ||
               !pyprof__heap_rehash(1024) ||
               !pyprof__array_reserve(pyprof__heap.memory, &pyprof__heap.frames, (size_t)desc->max_depth + 1)) {
        result = PYPROF_ERROR_MEMORY;
    }
    if (result != PYPROF_OK) {
        pyprof__heap_clear();
        return result;
    }
    pyprof__heap.session++;
    pyprof__heap.is_on = true;
    return PYPROF_OK;
}

/* In a forked child: a copy that another thread was making is nobody's. */
static void pyprof__heap_leave_census(void) {
    if (pyprof__heap.tree != NULL && !pyprof__heap_here()->is_copying) {
        pyprof__heap.tree->copying = NULL;
        pyprof__heap.census = NULL;
    }
}

/* Fork: see >>lifecycle. A signal handler of the host's that forks may have interrupted this thread with the lock: then the
   child's copy of the thread gives it back. Other fork handlers that run while it is held may allocate and free. */
static void pyprof__heap_before_fork(void) {
    if (pyprof__get(&pyprof__heap.pid) == (uint32_t)getpid() && !pyprof__heap_here()->has_lock) {
        pyprof__heap_take_lock();
        pyprof__heap.fork_has_lock = pyprof__heap_here()->is_forking = true;
    }
}

static void pyprof__heap_after_fork(bool is_child) {
    if (pyprof__get(&pyprof__heap.pid) == 0) {
        return; /* never on: a plugin's variables of a thread are not touched, for which the loader may allocate */
    }
    if (is_child && (pyprof__heap.fork_has_lock || pyprof__heap_here()->has_lock)) {
        pyprof__set(&pyprof__heap.pid, (uint32_t)getpid());
        pyprof__process.pid = getpid(); /* for what is read safely */
        pyprof__set(&pyprof__heap_waiting, 0);
        pyprof__heap_leave_census();
    }
    if (pyprof__heap.fork_has_lock) {
        pyprof__heap.fork_has_lock = pyprof__heap_here()->is_forking = false;
        pthread_mutex_unlock(&pyprof__heap_lock);
    }
}

#else
static void pyprof__heap_before_fork(void) {}
static void pyprof__heap_after_fork(bool is_child) {
    (void)is_child;
}
#endif /* PYPROF_NO_HEAP */

// >>census
// What lives at a moment, and what was allocated up to then, as a profile; and the figures of a moment. In: what >>heap
// keeps. Out: a pyprof_profile of the kind PYPROF_KIND_HEAP.
// Who: any thread, with or without the GIL; also within Py_Finalize, and in a handler of a fatal signal (tools/libpyprof.c).
// Others that sample or free a sample wait no longer than for a piece: the tree is copied as >>copying says, and so are the
// samples that live, if they are asked for. No other lock is taken, as who frees within one may be asked for a census. So the
// heap may have been shut down when the lock is taken again; and of two censuses at a time the second is taken at once.
// Begin with pyprof__heap_census, pyprof__heap_fill_stats.

#ifndef PYPROF_NO_HEAP

/* Takes the lock, if heap sampling is on in this process. False: it is not, and nothing was taken. */
static bool pyprof__heap_enter_on(void) {
    if (!pyprof__heap_enter(pyprof__heap_here())) {
        return false;
    }
    if (!pyprof__heap.is_on) {
        pyprof__heap_leave(pyprof__heap_here());
        return false;
    }
    return true;
}

typedef struct pyprof__census {
    pyprof__copier copier;  /* of the tree; and of the samples, a place of theirs is a sample of the copy's */
    pyprof__changes living; /* of these */
    bool has_samples;
    bool is_noting;   /* what changes is noted for this one */
    bool is_gone;     /* heap sampling was shut down meanwhile: the lock is not taken */
    uint32_t session; /* of which it is */
} pyprof__census;

static void pyprof__census_convert(void *to, const void *from, uint32_t count) {
    const pyprof__live *live = (const pyprof__live *)from;
    pyprof_heap_sample *samples = (pyprof_heap_sample *)to;
    for (uint32_t i = 0; i < count; i++) {
        pyprof_heap_sample sample = {live[i].address, live[i].size, live[i].weight, 0, 0, 0, live[i].node, 0};
        sample.estimated_bytes = pyprof__live_space(&live[i]);
        sample.timestamp_ns = live[i].born - pyprof__heap.start;
        samples[i] = sample;
    }
}

/* As pyprof__copy_piece. Mappings are few, and come at once behind the others. */
static bool pyprof__census_piece(pyprof__census *self, size_t most) {
    pyprof__array *samples = &self->copier.copy->samples;
    const pyprof__array *mappings = &pyprof__heap.mappings;
    if (!pyprof__copy_piece(&self->copier, most)) {
        return false;
    }
    if (!self->has_samples) {
        return true;
    }
    if (!pyprof__copy_new(&self->copier, samples, &pyprof__heap.live) ||
        !pyprof__copy_changed(&self->copier, samples, &pyprof__heap.live, &self->living) ||
        samples->capacity - samples->count < mappings->count) {
        return false;
    }
    if (mappings->count > 0) {
        self->copier.convert(&PYPROF__ITEM(pyprof_heap_sample, samples, samples->count), mappings->data,
                             mappings->count);
        samples->count += mappings->count;
    }
    return true;
}

/* Who waited for the lock has it first; those that come without end are not waited for. */
static void pyprof__census_give_way(void) {
    for (int i = 0; i < 50 && pyprof__get(&pyprof__heap_waiting) > 0; i++) {
        pyprof__sleep_ns(20000);
    }
}

/* Lets go of the lock for a moment, in which room is made for all that is there now. False: there is no room, or it is
   gone. */
static bool pyprof__census_pause(pyprof__census *self) {
    pyprof_profile *copy = self->copier.copy;
    pyprof__copy_counts counts = pyprof__copy_count(self->copier.from);
    uint32_t places = self->has_samples ? pyprof__heap.live.count + pyprof__heap.mappings.count : 0;
    bool is_last = self->copier.pauses_left == 0;
    pyprof__heap_thread *thread = pyprof__heap_here();
    if (!is_last) {
        self->copier.pauses_left--;
        pyprof__heap_leave(thread);
    }
    pyprof__heap_go_in(thread); /* it is no memory of the host's */
    bool has_room = pyprof__copy_rooms(copy, &counts) && pyprof__copy_room(copy, &copy->samples, places);
    pyprof__heap_come_out(thread);
    if (!is_last) {
        pyprof__census_give_way();
        self->is_gone = !pyprof__heap_enter_on();
        if (!self->is_gone && pyprof__heap.session != self->session) {
            self->is_gone = true;
            pyprof__heap_leave(pyprof__heap_here());
        }
    }
    return has_room && !self->is_gone;
}

/* What is told of the heap as a whole. */
static void pyprof__census_facts(pyprof_profile *copy) {
    const pyprof_heap_stats *stats = &pyprof__heap.stats;
    copy->kind = PYPROF_KIND_HEAP;
    copy->sampling_bytes = pyprof__heap.desc.sampling_bytes;
    copy->duration_ns = pyprof__now() - pyprof__heap.start;
    copy->stats.samples = stats->samples;
    copy->stats.lost_memory = stats->lost_memory;
    copy->stats.truncated_depth = stats->truncated_depth;
    copy->stats.truncated_memory = stats->truncated_memory;
}

/* With the lock, which is only kept if it is not gone. Where more changes than a piece holds, the last pieces are larger. False:
   it is gone, or there is no room. */
static bool pyprof__census_pieces(pyprof__census *self) {
    while (pyprof__census_pause(self)) {
        uint32_t left = self->copier.pauses_left;
        size_t most = left >= PYPROF__COPY_PAUSES_MORE ? PYPROF__COPY_PIECE : PYPROF__COPY_END;
        if (pyprof__census_piece(self, left == 0 ? SIZE_MAX : most)) {
            bool is_whole = pyprof__copy_end(&self->copier);
            pyprof__census_facts(self->copier.copy);
            return is_whole;
        }
    }
    return false;
}

/* Without the lock: objects become whole, and places without a sample are left out. */
static void pyprof__census_finish(pyprof_profile *copy) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < copy->nodes.items.count; i++) {
        pyprof__node *node = pyprof__node_at(copy, i);
        node->samples = (node->samples + PYPROF__OBJECT_PARTS / 2) / PYPROF__OBJECT_PARTS;
        node->gil_ns = (node->gil_ns + PYPROF__OBJECT_PARTS / 2) / PYPROF__OBJECT_PARTS;
    }
    for (uint32_t i = 0; i < copy->samples.count; i++) {
        pyprof_heap_sample sample = PYPROF__ITEM(pyprof_heap_sample, &copy->samples, i);
        if (sample.address != 0) {
            sample.lifetime_ns = copy->duration_ns - sample.timestamp_ns;
            PYPROF__ITEM(pyprof_heap_sample, &copy->samples, kept++) = sample;
        }
    }
    copy->samples.count = kept;
}

/* Begins, with the lock. False: no room. */
static bool pyprof__census_begin(pyprof__census *self, bool has_samples) {
    self->has_samples = has_samples;
    self->session = pyprof__heap.session;
    self->is_gone = false;
    if (!pyprof__copy_begin(&self->copier, pyprof__heap.tree, true)) {
        return false;
    }
    self->copier.convert = pyprof__census_convert;
    self->is_noting = self->copier.pauses_left > 0;
    memset(&self->living, 0, sizeof self->living);
    if (self->is_noting && has_samples) {
        size_t size = pyprof__heap.live.count * sizeof(pyprof_heap_sample);
        self->copier.pauses_left += (uint32_t)(2 * (size / PYPROF__COPY_PIECE));
        pyprof__changes_begin(&self->living, pyprof__heap.live.count);
        pyprof__heap.census = &self->living;
    }
    pyprof__heap_here()->is_copying = pyprof__heap_here()->is_copying || self->is_noting;
    return true;
}

/* Whether it is whole; without the lock from here on. */
static bool pyprof__census_end(pyprof__census *self, bool is_whole) {
    pyprof__heap_thread *thread = pyprof__heap_here();
    if (self->is_noting) {
        thread->is_copying = false;
    }
    if (!self->is_gone && self->is_noting) {
        self->copier.from->copying = NULL;
        pyprof__heap.census = NULL;
    }
    if (!self->is_gone) {
        pyprof__heap_leave(thread);
    }
    return is_whole;
}

/* The profile of this moment. Its memory is its own: the tree's account has no budget that both would share. Errors:
   NOT_ACTIVE, MEMORY, which are left to the caller to say. */
static pyprof_result pyprof__heap_census(bool has_samples, pyprof_profile **profile) {
    pyprof__census census;
    *profile = NULL;
    if (!pyprof__heap_enter_on()) {
        return PYPROF_ERROR_NOT_ACTIVE;
    }
    if (!pyprof__census_begin(&census, has_samples)) {
        pyprof__heap_leave(pyprof__heap_here());
        return PYPROF_ERROR_MEMORY;
    }
    if (!pyprof__census_end(&census, pyprof__census_pieces(&census))) {
        pyprof_free(census.copier.copy);
        return census.is_gone ? PYPROF_ERROR_NOT_ACTIVE : PYPROF_ERROR_MEMORY;
    }
    pyprof__census_finish(census.copier.copy);
    *profile = census.copier.copy;
    return PYPROF_OK;
}

/* The figures of this moment, but for the hooks'. With the lock. */
static void pyprof__heap_fill_stats(pyprof_heap_stats *stats) {
    *stats = pyprof__heap.stats;
    stats->live_objects = (pyprof__heap.live_parts + PYPROF__OBJECT_PARTS / 2) / PYPROF__OBJECT_PARTS;
    stats->live_bytes_error = pyprof__heap_rounded(pyprof__root(pyprof__heap.live_variance));
    stats->alloc_bytes_error = pyprof__heap_rounded(pyprof__root(pyprof__heap.alloc_variance));
    stats->live_capacity = pyprof__heap.live.capacity;
    stats->bytes = pyprof__heap.memory->used;
    stats->bytes_peak = pyprof__heap.memory->peak;
    stats->sampling_bytes = pyprof__heap.desc.sampling_bytes;
    stats->duration_ns = pyprof__now() - pyprof__heap.start;
    stats->is_sampling = pyprof__get64(&pyprof__heap_mean) != 0;
}

#endif /* PYPROF_NO_HEAP */

// >>options
// What a recording was asked for. In: a pyprof_desc. Out: the same with its defaults, or what is wrong with it; the path
// to save to, with what stands for process, program and time filled in. Runs in the thread that starts a recording, or
// comes out of a fork, under the lock of >>lifecycle; never in the signal handler.
// Begin with pyprof__desc_is_valid, pyprof__apply_defaults, pyprof__copy_output_path.

/* Of a description with its defaults filled in. False: what is wrong was said. */
static bool pyprof__desc_is_valid(const pyprof_desc *desc) {
    if (desc->interval_us < 50 || desc->interval_us > 10000000) {
        pyprof__say("interval_us is %lu: it has to be 50 to 10000000, or 0 for 10000",
                    (unsigned long)desc->interval_us);
    } else if ((unsigned)desc->capture > PYPROF_CAPTURE_HELD) {
        pyprof__say("capture is %d: it has to be PYPROF_CAPTURE_DEFAULT (0), PYPROF_CAPTURE_QUIET (1) or "
                    "PYPROF_CAPTURE_HELD (2)",
                    (int)desc->capture);
    } else if (desc->capture == PYPROF_CAPTURE_HELD && desc->never_hold) {
        pyprof__say("never_hold is true: with PYPROF_CAPTURE_HELD it has to be false");
    } else if (desc->signal_number < 0) {
        pyprof__say("signal_number is %d: it has to be a signal, or 0 for one that is free", desc->signal_number);
    } else if (desc->memory_limit < 1u << 20) {
        pyprof__say("memory_limit is %zu: it has to be at least 1048576 bytes, or 0 for 64 MiB", desc->memory_limit);
    } else if (desc->max_depth < 16 || desc->max_depth > 65536) {
        pyprof__say("max_depth is %lu: it has to be 16 to 65536, or 0 for 1024", (unsigned long)desc->max_depth);
    } else if ((desc->allocator.alloc_fn == NULL) != (desc->allocator.free_fn == NULL)) {
        pyprof__say("allocator.%s is NULL: both functions have to be set, or neither",
                    desc->allocator.alloc_fn == NULL ? "alloc_fn" : "free_fn");
    } else if ((unsigned)desc->children > PYPROF_CHILDREN_FOLLOW) {
        pyprof__say("children is %d: it has to be a PYPROF_CHILDREN_", (int)desc->children);
    } else if (desc->children == PYPROF_CHILDREN_FOLLOW && desc->output_path != NULL &&
               strstr(desc->output_path, "%p") == NULL) {
        pyprof__say("output_path is %s: for children that are followed it has to have a %%p, or each would "
                    "replace the file of another",
                    desc->output_path);
    } else if (desc->output_path != NULL && desc->output_path[0] == '\0') {
        pyprof__say("output_path is empty: it has to name a file, or be NULL for none");
    } else if (desc->autosave_s > 86400) {
        pyprof__say("autosave_s is %lu: it has to be at most 86400, or 0 for never", (unsigned long)desc->autosave_s);
    } else if (desc->autosave_s > 0 && desc->output_path == NULL) {
        pyprof__say("autosave_s is %lu, but output_path is NULL: it has to say where to save",
                    (unsigned long)desc->autosave_s);
    } else {
        return true;
    }
    return false;
}

/* 0 stands for the default of each figure. One function of the allocator without the other stays, and is refused. */
static void pyprof__apply_defaults(pyprof_desc *desc) {
    desc->interval_us = desc->interval_us == 0 ? 10000 : desc->interval_us;
    desc->memory_limit = desc->memory_limit == 0 ? (size_t)64 << 20 : desc->memory_limit;
    desc->max_depth = desc->max_depth == 0 ? 1024 : desc->max_depth;
    if (desc->allocator.alloc_fn == NULL && desc->allocator.free_fn == NULL) {
        desc->allocator.alloc_fn = pyprof__libc_alloc;
        desc->allocator.free_fn = pyprof__libc_free;
    }
}

/* "20261128-185130-042", UTC, of nanoseconds since 1970. Not by gmtime_r: libc takes a lock for that, which stays
   locked in a forked child if another thread had it at the fork. */
static void pyprof__put_time(char *text, size_t size, uint64_t epoch_ns) {
    uint64_t seconds = epoch_ns / 1000000000u, days = seconds / 86400, of_day = seconds % 86400;
    uint64_t shifted = days + 719468; /* since 0000-03-01: Howard Hinnant, chrono-Compatible Date Algorithms */
    uint64_t era = shifted / 146097, of_era = shifted % 146097;
    uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month = (5 * of_year + 2) / 153, day = of_year - (153 * month + 2) / 5 + 1;
    uint64_t year = era * 400 + year_of_era + (month >= 10);
    snprintf(text, size, "%04u%02u%02u-%02u%02u%02u-%03u", (unsigned)year,
             (unsigned)(month < 10 ? month + 3 : month - 9), (unsigned)day, (unsigned)(of_day / 3600),
             (unsigned)(of_day / 60 % 60), (unsigned)(of_day % 60), (unsigned)(epoch_ns / 1000000u % 1000));
}

/* What % and this letter stand for: in the given room, or static; NULL = nothing, both stay as they are. */
static const char *pyprof__placeholder(char letter, uint64_t epoch_ns, char *text, size_t size) {
    extern char *program_invocation_short_name; /* errno.h may have been included before _GNU_SOURCE was defined */
    switch (letter) {
    case 'p':
        snprintf(text, size, "%ld", (long)getpid());
        return text;
    case 't':
        pyprof__put_time(text, size, epoch_ns);
        return text;
    case 'n':
        return program_invocation_short_name[0] != '\0' ? program_invocation_short_name : "program";
    case '%':
        return "%";
    default:
        return NULL;
    }
}

/* Writes what a pattern means, ending in a zero, as far as size allows; returns the bytes that all of it needs, with
   the zero. */
static size_t pyprof__expand(const char *pattern, uint64_t epoch_ns, char *to, size_t size) {
    size_t needed = 0;
    for (const char *at = pattern; *at != '\0'; at++) {
        char text[64], plain[2] = {*at, '\0'};
        const char *part = *at == '%' ? pyprof__placeholder(at[1], epoch_ns, text, sizeof text) : NULL;
        at += part != NULL;
        for (part = part != NULL ? part : plain; *part != '\0'; part++, needed++) {
            if (needed + 1 < size) {
                to[needed] = *part;
            }
        }
    }
    if (size > 0) {
        to[needed < size ? needed : size - 1] = '\0';
    }
    return needed + 1;
}

/* Notes the time of the start, and makes the path to save to. One block has the path, with room to make it anew in a
   child that takes the recording over, and behind it the pattern, which desc.output_path then is. False: no room. */
static bool pyprof__copy_output_path(pyprof__sampler *sampler) {
    const char *pattern = sampler->desc.output_path;
    uint64_t epoch = pyprof__clock(CLOCK_REALTIME);
    sampler->profile->epoch_ns = epoch;
    if (pattern == NULL) {
        return true;
    }
    size_t pattern_size = strlen(pattern) + 1;
    size_t size = pyprof__expand(pattern, epoch, NULL, 0) + 5 * pattern_size; /* a child's id may be longer */
    sampler->output_path_size = size + pattern_size;
    sampler->output_path = (char *)pyprof__alloc(sampler->memory, sampler->output_path_size);
    if (sampler->output_path != NULL) {
        pyprof__expand(pattern, epoch, sampler->output_path, size);
        sampler->output_pattern = sampler->output_path + size;
        memcpy(sampler->output_pattern, pattern, pattern_size);
        sampler->desc.output_path = sampler->output_pattern;
    }
    return sampler->output_path != NULL;
}

// >>lifecycle
// A recording begins, ends, and meets a fork. In: a pyprof_desc. Out: the recording that runs, pyprof__process.active;
// when it ends, its profile and its figures. Runs in any thread of the host, with or without the GIL, which it never
// takes; never in the signal handler, nor in the sampler's thread.
//   pyprof_start   check -> memory -> layout, way to read, signal, thread, its first tick -> active
//   pyprof_stop    dumps end -> must_stop, join -> way to read given up -> figures kept -> not active -> save
//   pyprof__lifecycle     guards pyprof__process from lock_holder on. Taken while a recording begins, ends or is read;
//                         not while it is saved, or a result is told to the logger.
//   pyprof__sampler.lock  guards the sampler's state and the profile; both locks together, names that the host gave.
//                         Taken by the sampler's thread for each tick, by others for as long as they read or copy.
//   no lock               atomics: lock_holder, active_in, visitors, tick_waits, must_stop, ready, dumps_wanted, dumps_served; and
//                         pyprof__handler, see >>handler.
// Order: pyprof__lifecycle first. The sampler's thread takes only its own lock, so pyprof_stop may take
// pyprof__lifecycle and wait for that thread to end. pyprof_dump works under one at a time: pyprof__lifecycle for a
// moment, to count as a visitor, which keeps the recording from ending; later the sampler's lock.
// Under both the host's allocator is called. Its logger and its write functions are called under neither, as they may be
// slow, or wait for a thread that waits for us; but pyprof_start and pyprof_stop wait for the sampler's thread, which
// may be in the logger.
// Begin with pyprof_start, pyprof_stop, pyprof__sampler_start, pyprof__end_recording; forks: pyprof__before_fork.

static pthread_mutex_t pyprof__lifecycle = PTHREAD_MUTEX_INITIALIZER;

static void pyprof__register_for_forks(void);

/* Takes pyprof__lifecycle. The fork handlers are registered before: without them a fork by another thread would make a
   child in which the lock stays locked for ever. */
static void pyprof__lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, pyprof__register_for_forks);
    pthread_mutex_lock(&pyprof__lifecycle);
    pyprof__set(&pyprof__process.lock_holder, (uint32_t)pyprof__tid());
}

static void pyprof__unlock(void) {
    pyprof__set(&pyprof__process.lock_holder, 0);
    pthread_mutex_unlock(&pyprof__lifecycle);
}

/* The recording that runs from here on; NULL = none. */
static void pyprof__set_active(pyprof__sampler *sampler) {
    pyprof__process.active = sampler;
    pyprof__set(&pyprof__process.active_in, sampler != NULL ? (uint32_t)getpid() : 0);
}

/* The recording that runs in this process; NULL = none. A child that was made without the fork handlers has no sampler
   thread, though active is still its parent's; so is pyprof__process.pid, which shows it. */
static pyprof__sampler *pyprof__running(void) {
    return pyprof__process.active != NULL && pyprof__process.pid == getpid() ? pyprof__process.active : NULL;
}

/* Takes both locks, so that the sampler stands still between two ticks. NULL = no recording runs, and only
   pyprof__lifecycle was taken. In either case pyprof__unlock_running has to follow. */
static pyprof__sampler *pyprof__lock_running(void) {
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pthread_mutex_lock(&sampler->lock);
    }
    return sampler;
}

/* sampler: what pyprof__lock_running answered. */
static void pyprof__unlock_running(pyprof__sampler *sampler) {
    if (sampler != NULL) {
        pthread_mutex_unlock(&sampler->lock);
    }
    pyprof__unlock();
}

/* The same at the end of a public function: then tells the recording's logger the calling thread's last error, if the
   result is one. Returns the result. */
static pyprof_result pyprof__unlock_and_report(pyprof__sampler *sampler, pyprof_result result) {
    pyprof_logger logger = {NULL, NULL};
    if (sampler != NULL) {
        logger = sampler->desc.logger; /* without the lock the recording may end */
    }
    pyprof__unlock_running(sampler);
    return pyprof__report(&logger, result);
}

/* Gives back all that the sampler holds but the profile and the path to save it to. The sampler's thread has ended, or
   was never there. */
static void pyprof__sampler_clear(pyprof__sampler *sampler) {
    pyprof__memory *memory = sampler->memory;
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) {
        pyprof__request *request = &pyprof__handler.requests[i];
        size_t size = request->stack.capacity * sizeof *request->stack.frames;
        if (request->is_left) {
            memory->used -= request->is_written_off ? 0 : size; /* a handler may still write there: it is never freed */
            request->is_written_off = true;
            continue;
        }
        pyprof__release(memory, request->stack.frames, size);
        request->stack.frames = NULL;
        pyprof__set_state(request, PYPROF__REQUEST_FREE);
    }
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        pyprof__array_free(memory, &pyprof__thread_at(sampler, i)->frames);
        pyprof__array_free(memory, &pyprof__thread_at(sampler, i)->nodes);
    }
    pyprof__table_free(memory, &sampler->codes);
    pyprof__table_free(memory, &sampler->sites);
    pyprof__array *arrays[] = {&sampler->interps,         &sampler->tstates,         &sampler->fresh,
                               &sampler->threads,         &sampler->waiting.places,  &sampler->waiting.then,
                               &sampler->waiting.members, &sampler->waiting.now,     &sampler->waiting.awake,
                               &sampler->waiting.threads, &sampler->waiting.tstates, &sampler->lines,
                               &sampler->scratch};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        pyprof__array_free(memory, arrays[i]);
    }
}

/* After pyprof__sampler_clear: the rest of the sampler, but not the profile. */
static void pyprof__sampler_free(pyprof__sampler *sampler) {
    pyprof__memory *memory = sampler->memory;
    pthread_mutex_destroy(&sampler->lock);
    pyprof__release(memory, sampler->output_path, sampler->output_path_size);
    pyprof__release(memory, sampler, sizeof *sampler);
}

/* The profile goes last: the account of all this memory is in it. */
static void pyprof__recording_free(pyprof__sampler *sampler) {
    pyprof_profile *profile = sampler->profile;
    pyprof__sampler_clear(sampler);
    pyprof__sampler_free(sampler);
    pyprof_free(profile);
}

/* Fork. It copies locks and memory as they are, but no thread beside the forking one, so both locks are taken
   meanwhile. That also keeps our signals away from it: the kernel begins a fork anew whenever one comes, and with a
   large process would never end.
     parent, before   pyprof__before_fork takes both locks: it waits for a tick that is under way, and for other calls
     parent, after    pyprof__after_fork lets them go; the recording goes on
     child            pyprof__in_child_of_fork:
                      1. all requests are free, and no handler is at work: the threads that were asked are not here
                      2. the signal's action is the host's again
                      3. session is even: a signal that comes all the same finds no recording
                      4. /proc/self/mem, if it was open, is closed: it is the parent's memory
                      5. the parent's recording becomes inherited, and none is active
                      6. both locks are let go
                      7. with PYPROF_CHILDREN_FOLLOW a recording of its own begins, and frees the inherited one
     child, later     pyprof_stop gives away what is inherited (PYPROF_CHILDREN_STOP), or pyprof_start frees it
   A child that was made without these handlers (_Fork, clone) takes the steps 1 to 5 in its first pyprof_start. What
   the sampler had in memory is forgotten there, not freed: it may have been in the middle of a change. */

/* Takes no lock in two cases. A child that was made without these handlers, and forks itself, may have copies of locked
   locks. And a signal handler of the host that forks may have interrupted one of our functions, in a thread that has
   taken them. */
static void pyprof__before_fork(void) {
    uint32_t in = pyprof__get(&pyprof__process.active_in);
    bool is_strange = in != 0 && in != (uint32_t)getpid();
    if (!is_strange && pyprof__get(&pyprof__process.lock_holder) != (uint32_t)pyprof__tid()) {
        pyprof__lock_running();
        pyprof__process.fork.has_lock = true;
    }
    pyprof__heap_before_fork();
}

static void pyprof__after_fork(void) {
    pyprof__heap_after_fork(false);
    if (pyprof__process.fork.has_lock) {
        pyprof__process.fork.has_lock = false;
        pyprof__unlock_running(pyprof__process.active);
    }
}

/* Steps 1 to 5: ends what the parent's recording leaves behind in a child: a handler, and requests that nobody will
   answer. is_still: both locks were taken at the fork, so its memory is whole, and is kept as inherited. Else that is
   forgotten, with the room for answers. Does nothing where there is no recording of a parent. */
static void pyprof__forget_parent(bool is_still) {
    if (pyprof__process.active == NULL || (!is_still && pyprof__process.pid == getpid())) {
        return;
    }
    for (uint32_t i = 0; i < PYPROF__REQUESTS_MAX; i++) { /* step 1 */
        pyprof__request *request = &pyprof__handler.requests[i];
        if (request->is_left) {
            pyprof__release_left(request);
        }
        pyprof__set_state(request, PYPROF__REQUEST_FREE);
        if (!is_still) {
            memset(request, 0, sizeof *request);
        }
    }
    pyprof__set(&pyprof__handler.running, 0);
    if (pyprof__get64(&pyprof__handler.taken) != 0) { /* step 2; nothing is waited for, as all requests are free */
        pyprof__handler_stop(false);
    }
    pyprof__set(&pyprof__handler.at_large, 0);
    pyprof__add(&pyprof__handler.session, 1); /* step 3 */
    pyprof__reads_stop();                     /* step 4, then step 5 */
    pyprof__process.fork.inherited = is_still ? pyprof__process.active : NULL;
    pyprof__set_active(NULL);
    pyprof__process.was_active = false;
}

/* Step 7: begins a recording as its parent's. Its path is made anew from the pattern, which is copied before:
   pyprof_start frees the parent's recording. What fails is told to the logger by pyprof_start. */
static void pyprof__follow_child(const pyprof__sampler *parents) {
    pyprof_desc desc = parents->desc;
    char path[PYPROF__PATH_SIZE];
    if (desc.output_path != NULL) {
        if (snprintf(path, sizeof path, "%s", desc.output_path) >= (int)sizeof path) {
            return; /* longer than any path may be: the parent cannot save either */
        }
        desc.output_path = path;
    }
    (void)pyprof_start(&desc);
}

/* Without the locks (see pyprof__before_fork) it leaves all to a later pyprof_start. It frees nothing, unless the child
   goes on recording: if the host's allocator has fork handlers, and registered them later, they have not run in the
   child yet. */
static void pyprof__in_child_of_fork(void) {
    pyprof__sampler *parents = pyprof__process.active;
    pyprof__heap_after_fork(true);
    if (pyprof__process.fork.has_lock) {
        pyprof__process.fork.has_lock = false;
        pyprof__forget_parent(true);
        pyprof__unlock_running(parents);
        if (parents != NULL && parents->desc.children == PYPROF_CHILDREN_FOLLOW) {
            pyprof__follow_child(parents);
        }
    }
}

/* Once in a process: there is no call that takes such handlers back. */
static void pyprof__register_for_forks(void) {
    pyprof__process.fork.is_registered =
        pthread_atfork(pyprof__before_fork, pyprof__after_fork, pyprof__in_child_of_fork) == 0;
}

/* Before a recording begins, with pyprof__lifecycle taken: what a parent left behind is given back. A child that was
   made without fork's handlers comes here with its parent's recording. False: forks would not be noticed, as
   pthread_atfork had no memory. */
static bool pyprof__prepare_for_forks(void) {
    pyprof__forget_parent(false);
    if (pyprof__process.fork.inherited != NULL) {
        pyprof__recording_free(pyprof__process.fork.inherited);
        pyprof__process.fork.inherited = NULL;
    }
    return pyprof__process.fork.is_registered;
}

/* A recording that is full can be saved all the same, and a snapshot of it can be made and saved. For each byte of a
   tree its copy takes up to 0.84, and writing 0.32: together 2.16. So it takes at most 7 of 16 parts of what the limit
   leaves beside what it needs from its start; the other 9 are the reserve. */
static void pyprof__keep_reserve(pyprof__memory *memory) {
    memory->reserve = (memory->limit - memory->used) / 16 * 9;
}

/* The profile and the sampler, with all that a recording needs from its start; NULL = no room. The profile has the
   account on which both book their memory, as it outlives the sampler. */
static pyprof__sampler *pyprof__sampler_new(const pyprof_desc *desc) {
    pyprof__memory memory = {desc->allocator, desc->memory_limit, 0, 0, 0, NULL};
    memory.budget = pyprof__budget_new(&memory.allocator, desc->memory_limit);
    if (memory.budget == NULL) {
        return NULL;
    }
    memory.used = memory.peak = sizeof *memory.budget;
    pyprof_profile *profile = (pyprof_profile *)pyprof__alloc(&memory, sizeof *profile);
    if (profile == NULL) {
        pyprof__budget_drop(memory.budget, &memory.allocator);
        return NULL;
    }
    pyprof__profile_init(profile, &memory);
    profile->interval_us = desc->interval_us;
    pyprof__sampler *sampler = (pyprof__sampler *)pyprof__alloc(&profile->memory, sizeof *sampler);
    if (sampler == NULL) {
        pyprof_free(profile);
        return NULL;
    }
    memset(sampler, 0, sizeof *sampler);
    sampler->desc = *desc;
    sampler->profile = profile;
    profile->logger = desc->logger;
    sampler->memory = &profile->memory;
    sampler->starter = pthread_self();
    sampler->starter_tid = pyprof__tid();
    sampler->random = (pyprof__now() ^ (uint64_t)(uintptr_t)sampler) | 1; /* xorshift never leaves 0 */
    sampler->bootstrap = sampler->runner = PYPROF__NONE;
    sampler->pthread_tid_offset = PYPROF__ABSENT;
    sampler->interps.item_size = sizeof(pyprof__interp);
    sampler->tstates.item_size = sampler->fresh.item_size = sizeof(pyprof__tstate);
    sampler->threads.item_size = sizeof(pyprof__thread);
    sampler->waiting.members.item_size = sampler->waiting.awake.item_size = sizeof(uint32_t);
    sampler->waiting.places.item_size = sizeof(struct iovec);
    sampler->waiting.threads.item_size = sampler->waiting.tstates.item_size = sizeof(uint64_t);
    sampler->lines.item_size = 1;
    sampler->scratch.item_size = sizeof(pyprof__frame);
    pyprof__table_init(&sampler->codes, sizeof(pyprof__code), offsetof(pyprof__code, function));
    pyprof__table_init(&sampler->sites, sizeof(pyprof__call_site), sizeof(pyprof__frame));
    pthread_mutex_init(&sampler->lock, NULL);
    bool has_markers = pyprof__intern_markers(profile);
    char name[32];
    size_t size = pyprof__read_task_file((int32_t)getpid(), "comm", name, sizeof name);
    profile->process_name = pyprof__intern_text(profile, name, size - (size > 0));
    profile->program = pyprof__intern_program(profile);
    profile->python = pyprof__intern_text(profile, Py_GetVersion(), strcspn(Py_GetVersion(), " "));
    if (!has_markers || profile->process_name == PYPROF__NONE || profile->program == PYPROF__NONE ||
        profile->python == PYPROF__NONE || !pyprof__copy_output_path(sampler) ||
        !pyprof__array_reserve(sampler->memory, &sampler->scratch, 2 * (size_t)desc->max_depth)) {
        pyprof__recording_free(sampler);
        return NULL;
    }
    pyprof__keep_reserve(&profile->memory);
    return sampler;
}

/* Starts the sampler's thread, and waits until its first tick is done. It inherits the mask in which all signals are
   blocked, so that none of the host's is ever delivered to it. False: why was said. */
static bool pyprof__spawn(pyprof__sampler *sampler) {
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pyprof__tid() <= 0) { /* to 3.10 a thread could not be found then */
        pyprof__say("threads' ids cannot be read: gettid: %s", strerror(errno));
        return false;
    }
    sigfillset(&all);
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        pthread_attr_setstacksize(&attributes, 1 << 20);
        error = pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
        if (error == 0) {
            error = pthread_create(&sampler->thread, &attributes, pyprof__sampler_main, sampler);
            pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
        pthread_attr_destroy(&attributes);
    }
    if (error != 0) {
        pyprof__say("the sampler thread could not be started: %s", strerror(error));
        return false;
    }
    while (!pyprof__get(&sampler->ready)) {
        pyprof__wait_until(&sampler->ready, 0, pyprof__now() + 1000000000u);
    }
    return true;
}

/* Takes what belongs to the process, in this order, as each needs those before: where things lie in CPython, the way to
   read memory, the signal's action, the thread. session is odd before the first signal can come. Where one fails, those
   before are given back, and why was said; MEMORY is left to the caller to say. */
static pyprof_result pyprof__sampler_start(pyprof__sampler *sampler) {
    bool takes_signal = sampler->desc.capture == PYPROF_CAPTURE_DEFAULT;
    size_t reserve = pyprof__open_reserve(sampler->memory);
    pyprof_result result = pyprof__layout_init(&sampler->layout, sampler->memory);
    sampler->memory->reserve = reserve;
    sampler->waiting.then.item_size = sampler->waiting.now.item_size = sampler->layout.ts_head;
    if (result == PYPROF_OK && sampler->layout.ts_size > PYPROF__TSTATE_COPY) {
        result = PYPROF_ERROR_PYTHON;
    }
    if (result != PYPROF_OK) {
        pyprof__say_python(result); /* no memory: said by the caller instead */
        return result;
    }
    if (!pyprof__reads_start()) {
        pyprof__reads_stop();
        return PYPROF_ERROR_MEMORY_READ;
    }
    if (memcmp(&pyprof__handler.layout, &sampler->layout, sizeof sampler->layout) != 0) {
        pyprof__handler.layout = sampler->layout; /* a handler that was left at its work may read it */
    }
    pyprof__set(&pyprof__handler.interrupted, 0);
    pyprof__forget_codes(sampler);
    pyprof__add(&pyprof__handler.session, 1);
    if (takes_signal && !pyprof__handler_start(sampler->desc.signal_number)) {
        result = PYPROF_ERROR_SIGNAL;
    } else if (!pyprof__spawn(sampler)) {
        result = PYPROF_ERROR_THREAD;
        if (takes_signal) {
            pyprof__handler_stop(false);
        }
    }
    if (result != PYPROF_OK) {
        pyprof__add(&pyprof__handler.session, 1);
        pyprof__reads_stop();
    }
    return result;
}

/* With pyprof__lifecycle taken. Why it failed was said. */
static pyprof_result pyprof__begin_recording(const pyprof_desc *desc) {
    pyprof__sampler *sampler = pyprof__sampler_new(desc);
    pyprof_result result = sampler != NULL ? pyprof__sampler_start(sampler) : PYPROF_ERROR_MEMORY;
    if (result == PYPROF_OK) {
        pyprof__set_active(sampler);
    } else if (sampler != NULL) {
        pyprof__recording_free(sampler);
    }
    if (result == PYPROF_ERROR_MEMORY) {
        pyprof__say("a recording could not be begun: memory_limit (%zu bytes) is too small for max_depth (%lu), or "
                    "the allocator gave nothing",
                    desc->memory_limit, (unsigned long)desc->max_depth);
    }
    return result;
}

PYPROF_API pyprof_result pyprof_start(const pyprof_desc *desc) {
    pyprof_desc resolved;
    memset(&resolved, 0, sizeof resolved);
    if (desc != NULL) {
        resolved = *desc;
    }
    pyprof__apply_defaults(&resolved);
    if (!pyprof__desc_is_valid(&resolved)) {
        return pyprof__report(&resolved.logger, PYPROF_ERROR_ARGUMENT);
    }
    pyprof__lock();
    pyprof_result result = PYPROF_ERROR_ALREADY_ACTIVE;
    if (pyprof__running() != NULL) {
        pyprof__say("a recording is already running: there is one at a time, pyprof_stop ends it");
    } else if (!pyprof__prepare_for_forks()) {
        result = PYPROF_ERROR_MEMORY;
        pyprof__say("a recording could not be begun: pthread_atfork had no memory");
    } else {
        result = pyprof__begin_recording(&resolved);
    }
    pyprof__unlock();
    if (result == PYPROF_OK && !PYPROF__DRAWS && resolved.output_path != NULL &&
        pyprof__path_ends_with(resolved.output_path, ".svg")) {
        pyprof__log(&resolved.logger, PYPROF_LOG_WARNING, "output_path will not be written: " PYPROF__NO_PICTURE);
    }
    return pyprof__report(&resolved.logger, result);
}

/* The figures of a recording whose sampler stands still, or has ended. A new figure is a field at the end of
   pyprof_stats (>>api). What the sampler counts in sampler->stats comes along by itself; what is kept elsewhere is
   copied here. */
static void pyprof__fill_stats(const pyprof__sampler *sampler, pyprof_stats *stats) {
    *stats = sampler->stats;
    stats->timeline_coarsened = sampler->profile->timeline_coarsened;
    stats->samples_jit = sampler->profile->samples_jit;
    stats->duration_ns = sampler->profile->duration_ns;
    stats->calls_interrupted = pyprof__get(&pyprof__handler.interrupted);
    stats->bytes = sampler->memory->used;
    stats->bytes_peak = sampler->memory->peak;
}

/* Our code has to stay for good: dlclose would take it away where a signal is still on its way to its handler, or a hook
   may yet be called. The loader has a lock, and a thread that crashed while it loaded something never gives it back: who
   stops a recording then must know already that nothing is to be done. The sampler's thread does not do this, as a thread
   that loads something may be waiting for the sampler. */
static void pyprof__stay_loaded(void) {
#if PYPROF__UNLOADABLE
    struct { /* Dl_info, which libc declares only for _GNU_SOURCE, as it does dladdr (dladdr(3)) */
        const char *file;
        void *base;
        const char *symbol;
        void *address;
    } here;
    int (*find_file)(const void *, void *);
    void *found = pyprof__process.stays_loaded ? NULL : dlsym(RTLD_DEFAULT, "dladdr");
    memcpy(&find_file, &found, sizeof found);
    if (found != NULL && find_file(&pyprof__handler, &here) != 0) {
        pyprof__process.stays_loaded = dlopen(here.file, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) != NULL;
    }
#endif
}

/* Ends the recording that runs, with pyprof__lifecycle taken, but not the sampler's lock, which its thread needs to
   end. Calls of pyprof_dump need that thread, so they end first. That thread gives the signal back: see
   pyprof__sampler_main. Only then is session even, and the way to read memory given up. What is left of the sampler is
   the sealed profile, and the path to save it to. */
static void pyprof__end_recording(pyprof__sampler *sampler) {
    while (pyprof__get(&sampler->visitors) != 0) {
        pyprof__sleep_ns(100000); /* calls of pyprof_dump are answered within 100 ms */
    }
    pyprof__set(&sampler->must_stop, 1);
    pyprof__wake(&pyprof__handler.bell);
    pthread_join(sampler->thread, NULL);
    pyprof__add(&pyprof__handler.session, 1);
    pyprof__reads_stop();
    if (!sampler->is_unloaded && (sampler->is_unreturned || pyprof__is_handler_awaited())) {
        pyprof__stay_loaded();
    }
    pyprof__fill_stats(sampler, &pyprof__process.last_stats);
    sampler->profile->stats = pyprof__process.last_stats;
    pyprof__process.was_active = true;
    pyprof__sampler_clear(sampler);
    pyprof__profile_seal(sampler->profile);
    pyprof__set_active(NULL);
}

static void pyprof__warn_of_limits(const pyprof__sampler *sampler) {
    if (sampler->profile->timeline_coarsened > 0) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_WARNING,
                    "the time line was full: its resolution was halved, memory_limit sets its size");
    }
    if (sampler->stats.truncated_memory > 0) {
        pyprof__log(&sampler->desc.logger, PYPROF_LOG_WARNING,
                    "the tree was full: new stacks went to [truncated], memory_limit sets its size");
    }
}

/* Saves what has ended, and frees the sampler; the profile stays. Without the lock, as a reader of what is written, at
   the other end of a pipe, may be slow. */
static pyprof_result pyprof__close_recording(pyprof__sampler *sampler) {
    const char *path = sampler->output_path;
    pyprof_result result = path != NULL ? pyprof_save(sampler->profile, NULL, path) : PYPROF_OK;
    int error = errno;
    pyprof__warn_of_limits(sampler);
    pyprof__sampler_free(sampler);
    errno = error;
    return result;
}

static void pyprof__say_not_active(void) {
    pyprof__say("no recording is running in this process: pyprof_start begins one (a forked child has none of its "
                "parent's)");
}

/* In a forked child, with pyprof__lifecycle taken: what its parent had recorded up to the fork, with
   PYPROF_CHILDREN_STOP; NULL = nothing. Its path gets the child's id in the place of the parent's; its duration ends
   with the parent's last tick. */
static pyprof__sampler *pyprof__take_inherited(void) {
    pyprof__sampler *sampler = pyprof__process.fork.inherited;
    if (sampler == NULL || sampler->desc.children != PYPROF_CHILDREN_STOP) {
        return NULL;
    }
    pyprof__process.fork.inherited = NULL;
    if (sampler->output_path != NULL) {
        pyprof__expand(sampler->output_pattern, sampler->profile->epoch_ns, sampler->output_path,
                       (size_t)(sampler->output_pattern - sampler->output_path));
    }
    pyprof__settle_waiting(sampler);
    pyprof__note_end(sampler, sampler->last_tick);
    pyprof__fill_stats(sampler, &pyprof__process.last_stats);
    sampler->profile->stats = pyprof__process.last_stats;
    pyprof__process.was_active = true;
    pyprof__sampler_clear(sampler);
    pyprof__profile_seal(sampler->profile);
    return sampler;
}

/* The recording ends with the lock, and is saved without it. */
PYPROF_API pyprof_result pyprof_stop(pyprof_profile **profile) {
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pyprof__end_recording(sampler);
    } else {
        sampler = pyprof__take_inherited();
    }
    pyprof__unlock();
    pyprof_profile *recorded = sampler != NULL ? sampler->profile : NULL;
    pyprof_result result = PYPROF_ERROR_NOT_ACTIVE;
    if (sampler != NULL) {
        result = pyprof__close_recording(sampler);
    } else {
        pyprof__say_not_active();
    }
    if (profile != NULL) {
        *profile = recorded;
    } else {
        pyprof_free(recorded);
    }
    return result;
}

/* A plugin that is unloaded while it records would leave a thread and a signal's action behind, and take their code
   away. It is too late to save: what the host gave us to write and log with may be gone. The lock is only tried: a
   program that calls exit from inside one of our functions, as its allocator may, never lets it go. */
#if PYPROF__UNLOADABLE
static void pyprof__unlisten_on_unload(void); /* >>listen */

__attribute__((destructor)) static void pyprof__on_unload(void) {
    pyprof__unlisten_on_unload(); /* before, as that thread may begin a recording */
    if (pthread_mutex_trylock(&pyprof__lifecycle) != 0) {
        return;
    }
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        sampler->is_unloaded = true;
        pyprof__end_recording(sampler);
    }
    pthread_mutex_unlock(&pyprof__lifecycle);
    if (sampler != NULL) {
        pyprof_profile *profile = sampler->profile;
        pyprof__sampler_free(sampler);
        pyprof_free(profile);
    }
}
#endif

/* Never waits: active_in is an atomic beside active for this. A forked child has another id. */
PYPROF_API bool pyprof_is_active(void) {
    return pyprof__get(&pyprof__process.active_in) == (uint32_t)getpid();
}

// >>control
// What else the header declares of a recording: copies of it, its figures, the stacks of now, names. In: arguments,
// which are checked here and nowhere further in. Out: a result; why it failed was said, and is told to the recording's
// logger. Any thread of the host; never the signal handler.
// Locks, see >>lifecycle: pyprof_snapshot, _get_stats, _name_thread and _name_interpreter take both for as long as they
// run, but that pyprof_snapshot lets ticks in between; pyprof_dump takes each for a moment.
// Begin with pyprof_snapshot, pyprof__copy_pieces (see >>copying), pyprof_dump, pyprof__set_name.

/* Lets go of the sampler's lock for a moment: until a tick that waits for it has it, or does not come to that for long (a
   debugger stopped it). Meanwhile there is room made for all that is there now. False: no room. */
static bool pyprof__copy_pause(pyprof__copier *self, pyprof__sampler *sampler) {
    pyprof__copy_counts counts = pyprof__copy_count(self->from);
    bool is_last = self->pauses_left == 0;
    if (!is_last) {
        self->pauses_left--;
        pthread_mutex_unlock(&sampler->lock);
    }
    bool has_room = pyprof__copy_rooms(self->copy, &counts);
    for (int i = 0; i < 1000 && !is_last && pyprof__get(&sampler->tick_waits); i++) {
        pyprof__sleep_ns(20000);
    }
    if (!is_last) {
        pthread_mutex_lock(&sampler->lock);
    }
    return has_room;
}

/* The whole, step by step: the copy gets what it lacks, piece by piece; when it lacks nothing parked threads are brought up
   to date, which have no samples in the profile since they last were, and what that has changed is copied, too. Up to there
   the lock is held, so that the copy is of one moment. False: no room. */
static bool pyprof__copy_pieces(pyprof__copier *self, pyprof__sampler *sampler) {
    while (pyprof__copy_pause(self, sampler)) {
        bool is_last = self->pauses_left == 0;
        if (pyprof__copy_piece(self, is_last ? SIZE_MAX : PYPROF__COPY_PIECE)) {
            pyprof__settle_waiting(sampler);
            if (pyprof__copy_piece(self, is_last ? SIZE_MAX : PYPROF__COPY_END)) {
                return pyprof__copy_end(self);
            }
        }
    }
    return false;
}

/* With both locks. NULL: no room. */
static pyprof_profile *pyprof__copy_recording(pyprof__sampler *sampler) {
    pyprof__copier copier;
    if (!pyprof__copy_begin(&copier, sampler->profile, true)) {
        return NULL;
    }
    bool is_whole = pyprof__copy_pieces(&copier, sampler);
    sampler->profile->copying = NULL;
    if (!is_whole) {
        pyprof_free(copier.copy);
    }
    return is_whole ? copier.copy : NULL;
}

PYPROF_API pyprof_result pyprof_snapshot(pyprof_profile **profile) {
    pyprof_result result = PYPROF_OK;
    if (profile != NULL) {
        *profile = NULL;
    }
    pyprof__sampler *sampler = pyprof__lock_running();
    if (profile == NULL) {
        pyprof__say("pyprof_snapshot: profile is NULL: it has to say where the copy's address goes");
        result = PYPROF_ERROR_ARGUMENT;
    } else if (sampler == NULL) {
        pyprof__say_not_active();
        result = PYPROF_ERROR_NOT_ACTIVE;
    } else {
        *profile = pyprof__copy_recording(sampler);
        if (*profile != NULL) {
            pyprof__fill_stats(sampler, &(*profile)->stats);
            (*profile)->stats.sampler_cpu_ns = pyprof__clock(pyprof__cpu_clock(sampler->tid));
            (*profile)->duration_ns = pyprof__now() - sampler->start;
        } else {
            pyprof__say_full("for a copy of the profile", sampler->memory);
            result = PYPROF_ERROR_MEMORY;
        }
    }
    return pyprof__unlock_and_report(sampler, result);
}

/* What the sampler's thread has used is in its figures only at its end; before, its clock is asked. */
PYPROF_API pyprof_result pyprof_get_stats(pyprof_stats *stats) {
    pyprof_result result = PYPROF_OK;
    pyprof__sampler *sampler = pyprof__lock_running();
    if (stats == NULL) {
        pyprof__say("pyprof_get_stats: stats is NULL: it has to say where the figures go");
        result = PYPROF_ERROR_ARGUMENT;
    } else if (sampler != NULL) {
        pyprof__fill_stats(sampler, stats);
        stats->sampler_cpu_ns = pyprof__clock(pyprof__cpu_clock(sampler->tid));
        stats->duration_ns = pyprof__now() - sampler->start;
    } else if (pyprof__process.was_active) {
        *stats = pyprof__process.last_stats;
    } else {
        pyprof__say("nothing was recorded in this process yet: there are no figures");
        result = PYPROF_ERROR_NOT_ACTIVE;
    }
    return pyprof__unlock_and_report(sampler, result);
}

/* A thread's paragraph in pyprof_dump's text, leaf first. Its track has one span: see pyprof__copy_threads. */
static void pyprof__put_thread(pyprof__writing *writing, const pyprof__track *track) {
    const pyprof__span *span = &PYPROF__ITEM(const pyprof__span, &writing->profile->timeline, track->first);
    uint32_t kind = pyprof__span_kind(span);
    pyprof__put_text(&writing->out, "Thread ");
    pyprof__put_number(&writing->out, (uint64_t)track->tid);
    pyprof__put_text(&writing->out, " \"");
    pyprof__put_thread_name(writing, pyprof__put_collapsed, track->name, 0);
    pyprof__put_text(&writing->out, (kind & PYPROF__GIL)    ? "\" (active, holds the GIL)\n"
                                    : track->wants_gil      ? "\" (idle, waits for the GIL)\n"
                                    : (kind & PYPROF__IDLE) ? "\" (idle)\n"
                                                            : "\" (active)\n");
    for (uint32_t at = span->node; at != track->root; at = pyprof__node_at(writing->profile, at)->parent) {
        const pyprof__node *node = pyprof__node_at(writing->profile, at);
        pyprof__put_text(&writing->out, "    ");
        pyprof__put_frame(writing, node->function, node->line);
        pyprof__put_text(&writing->out, "\n");
    }
}

/* Three functions that copy a string, a function or a stack to another profile, which has it only once. Each returns
   its index there; PYPROF__NONE = no room. */

static uint32_t pyprof__copy_string(const pyprof_profile *from, uint32_t string, pyprof_profile *to) {
    size_t size;
    const char *text = pyprof__string_text(from, string, &size);
    return pyprof__intern_text(to, text, size);
}

static uint32_t pyprof__copy_function(const pyprof_profile *from, uint32_t index, pyprof_profile *to) {
    const pyprof__function *function = pyprof__function_at(from, index);
    uint32_t name = pyprof__copy_string(from, function->name, to);
    return pyprof__intern_function(to, name, pyprof__copy_string(from, function->file, to), function->first_line);
}

/* Copies a node and those outside of it below root. path is room for them, kept from one stack to the next. */
static uint32_t pyprof__copy_stack(const pyprof_profile *from, uint32_t node, pyprof_profile *to, pyprof__array *path,
                                   uint32_t root) {
    path->count = 0;
    for (uint32_t at = node; pyprof__node_at(from, at)->parent != PYPROF__NONE;
         at = pyprof__node_at(from, at)->parent) {
        uint32_t index = pyprof__array_add(&to->memory, path);
        if (index == PYPROF__NONE) {
            return PYPROF__NONE;
        }
        PYPROF__ITEM(uint32_t, path, index) = at;
    }
    for (uint32_t i = path->count; i-- > 0 && root != PYPROF__NONE;) {
        const pyprof__node *item = pyprof__node_at(from, PYPROF__ITEM(uint32_t, path, i));
        uint32_t function = pyprof__copy_function(from, item->function, to);
        root = function != PYPROF__NONE ? pyprof__vital_child(to, root, function, item->line) : PYPROF__NONE;
    }
    return root;
}

/* Copies where each thread was last seen to be: each gets a track of its own, with one span of one sample. Threads that
   have no Python stack are left out. False: no room. */
static bool pyprof__copy_threads(const pyprof__sampler *sampler, pyprof_profile *to, pyprof__array *path) {
    for (uint32_t i = 0; i < sampler->threads.count; i++) {
        const pyprof__thread *thread = pyprof__thread_at(sampler, i);
        if (!thread->last.is_there) {
            continue;
        }
        uint32_t name = pyprof__track_at(sampler->profile, thread->track)->name;
        uint32_t copy = pyprof__add_track(to, thread->tid, pyprof__copy_string(sampler->profile, name, to));
        if (copy == PYPROF__NONE) {
            return false;
        }
        uint32_t root = pyprof__track_at(to, copy)->root;
        uint32_t node = pyprof__copy_stack(sampler->profile, thread->last.node, to, path, root);
        if (node == PYPROF__NONE) {
            return false;
        }
        pyprof__count_samples(to, copy, node, thread->last.kind, 1);
        if (pyprof__track_at(to, copy)->first == PYPROF__NONE) { /* there was no room for its span */
            return false;
        }
    }
    return true;
}

/* The text for all threads of such a copy, into memory. The only error is MEMORY. */
static pyprof_result pyprof__write_threads(const pyprof_profile *profile, pyprof__gathered *gathered) {
    pyprof__writing *writing = pyprof__writing_new(profile, NULL, pyprof__gather, gathered);
    if (writing == NULL) {
        return PYPROF_ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < profile->tracks.count; i++) {
        pyprof__put_text(&writing->out, i == 0 ? "" : "\n");
        pyprof__put_thread(writing, pyprof__track_at(profile, i));
    }
    pyprof__flush(&writing->out);
    pyprof_result result = writing->out.is_broken ? PYPROF_ERROR_MEMORY : PYPROF_OK;
    pyprof__writing_free(writing);
    return result;
}

#define PYPROF__NO_ROOM_FOR_DUMP                                                                                       \
    "no memory for the text: memory_limit leaves too little beside the recording, or the allocator gave nothing"

/* Has the sampler take one tick more, and waits until that is done and its requests are answered, or 100 ms have
   passed. The numbers wanted and served run on and may wrap around, so only their difference counts. */
static void pyprof__look_now(pyprof__sampler *sampler) {
    uint32_t wanted = pyprof__add(&sampler->dumps_wanted, 1);
    pyprof__wake(&pyprof__handler.bell);
    for (;;) {
        uint32_t served = pyprof__get(&sampler->dumps_served);
        if ((int32_t)(served - wanted) >= 0) {
            return;
        }
        pyprof__wait_until(&sampler->dumps_served, served, pyprof__now() + 1000000000u);
    }
}

/* The recording that runs, kept from ending until pyprof__leave: pyprof__end_recording waits for that. NULL = none
   runs. No lock is taken meanwhile, so that other calls, and ticks, need not wait. */
static pyprof__sampler *pyprof__visit(void) {
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler != NULL) {
        pyprof__add(&sampler->visitors, 1);
    }
    pyprof__unlock();
    return sampler;
}

static void pyprof__leave(pyprof__sampler *sampler) {
    pyprof__add(&sampler->visitors, (uint32_t)-1);
}

/* On which word a thread sleeps, as /proc/self/task/TID/syscall tells; 0 = on none. False: it runs, and may be about to
   sleep; or it is not told. */
static bool pyprof__sleeps_on(int32_t tid, uintptr_t *word) {
    char text[256];
    long number = -1;
    unsigned long argument = 0;
    *word = 0;
    (void)pyprof__read_task_file(tid, "syscall", text, sizeof text);
    if (sscanf(text, "%ld 0x%lx", &number, &argument) != 2) {
        return false;
    }
#if defined(SYS_futex_time64)
    number = number == SYS_futex_time64 ? SYS_futex : number;
#endif
    *word = number == SYS_futex ? argument : 0;
    return true;
}

/* The places of all GILs. There are few: threads of further interpreters are said to wait, and not for what. */
typedef struct pyprof__gils {
    pyprof__range items[16];
    uint32_t count;
} pyprof__gils;

static pyprof__gils pyprof__list_gils(pyprof__sampler *sampler) {
    pyprof__gils gils;
    memset(&gils, 0, sizeof gils);
    for (uint32_t i = 0; i < sampler->interps.count && gils.count < sizeof gils.items / sizeof *gils.items; i++) {
        uintptr_t interp = PYPROF__ITEM(pyprof__interp, &sampler->interps, i).address;
        gils.items[gils.count++] = pyprof__gil_of(&sampler->layout, interp);
    }
    return gils;
}

/* Notes which threads of a dump wait for the GIL. Who does, wakes up every 5 ms to ask for it: a thread that is awake is
   looked at again, for PYPROF__GIL_LOOKS ms at most. The kernel tells, so neither lock nor memory is touched. */
static void pyprof__note_who_wants_gil(pyprof_profile *dump, const pyprof__gils *gils) {
    bool is_open = true;
    for (uint32_t look = 0; is_open && look < PYPROF__GIL_LOOKS; look++) {
        if (look > 0) {
            pyprof__sleep_ns(1000000);
        }
        is_open = false;
        for (uint32_t i = 0; i < dump->tracks.count; i++) {
            pyprof__track *track = pyprof__track_at(dump, i);
            bool has_gil = pyprof__span_kind(&PYPROF__ITEM(pyprof__span, &dump->timeline, track->first)) & PYPROF__GIL;
            uintptr_t word = 0;
            if (has_gil || track->is_free || track->wants_gil) {
                continue; /* is_free: it sleeps on something else */
            }
            track->is_free = pyprof__sleeps_on(track->tid, &word);
            is_open = is_open || !track->is_free;
            for (uint32_t gil = 0; gil < gils->count; gil++) {
                track->wants_gil = track->wants_gil || pyprof__is_within(&gils->items[gil], word);
            }
        }
    }
}

/* Where all threads are now, into a profile that is empty yet. The copy is made under the sampler's lock, and nothing
   else: paths are looked up, and text is made, without it, and after the recording was left. False: no room. */
static bool pyprof__fill_dump(pyprof__sampler *sampler, pyprof_profile *copy, pyprof__gils *gils) {
    const pyprof_profile *from = sampler->profile;
    pyprof__array path = {NULL, sizeof(uint32_t), 0, 0};
    pyprof__look_now(sampler);
    pthread_mutex_lock(&sampler->lock);
    copy->epoch_ns = from->epoch_ns + (pyprof__now() - sampler->start);
    copy->interval_us = from->interval_us;
    copy->process_name = pyprof__copy_string(from, from->process_name, copy);
    copy->program = pyprof__copy_string(from, from->program, copy);
    copy->python = pyprof__copy_string(from, from->python, copy);
    copy->truncated = pyprof__intern_marker(copy, "[truncated]");
    bool has_room = copy->process_name != PYPROF__NONE && copy->program != PYPROF__NONE &&
                    copy->python != PYPROF__NONE && copy->truncated != PYPROF__NONE &&
                    pyprof__copy_threads(sampler, copy, &path);
    *gils = pyprof__list_gils(sampler);
    pthread_mutex_unlock(&sampler->lock);
    pyprof__array_free(&copy->memory, &path);
    return has_room;
}

/* Step by step:
     1. pyprof__visit      pyprof__lifecycle for a moment: from here on the recording cannot end
     2. pyprof__look_now   no lock: the sampler takes a tick, and collects the answers to its requests
     3. copy               the sampler's lock: where each thread is, into a small profile of its own
     4. pyprof__leave      no lock: the recording may end
     5. note who wants it  no lock: which of the threads wait for the GIL, as the kernel tells
   The copy is within the recording's budget, which is kept until it is freed. Errors, each said: NOT_ACTIVE, MEMORY. */
static pyprof_result pyprof__dump_profile(pyprof_profile **profile) {
    pyprof__sampler *sampler = pyprof__visit();
    *profile = NULL;
    if (sampler == NULL) {
        pyprof__say_not_active();
        return PYPROF_ERROR_NOT_ACTIVE;
    }
    pyprof_logger logger = sampler->desc.logger; /* it may outlive the recording, as the budget may */
    pyprof__memory memory = {sampler->desc.allocator, SIZE_MAX, 0, 0, 0, sampler->memory->budget};
    pyprof_profile *copy = (pyprof_profile *)pyprof__alloc(&memory, sizeof *copy);
    pyprof__gils gils;
    memset(&gils, 0, sizeof gils);
    bool has_room = copy != NULL;
    if (copy != NULL) {
        pyprof__add(&memory.budget->holders, 1);
        pyprof__profile_init(copy, &memory);
        copy->logger = logger;
        has_room = pyprof__fill_dump(sampler, copy, &gils);
    }
    pyprof__leave(sampler);
    if (has_room) {
        pyprof__note_who_wants_gil(copy, &gils);
        *profile = copy;
        return PYPROF_OK;
    }
    pyprof_free(copy);
    pyprof__say(PYPROF__NO_ROOM_FOR_DUMP);
    return pyprof__report(&logger, PYPROF_ERROR_MEMORY);
}

/* The text is made of such a profile, in memory, within the same budget; the host's function gets all of it at once,
   when no lock of ours is held. */
PYPROF_API pyprof_result pyprof_dump(pyprof_write_fn write, void *user) {
    if (write == NULL) {
        pyprof__say("pyprof_dump: write is NULL: it has to be the function that takes the text");
        return pyprof__unlock_and_report(pyprof__lock_running(), PYPROF_ERROR_ARGUMENT);
    }
    pyprof_profile *copy;
    pyprof_result result = pyprof__dump_profile(&copy);
    if (result != PYPROF_OK) {
        return result;
    }
    pyprof_logger logger = copy->logger;
    pyprof__memory memory = {copy->memory.allocator, SIZE_MAX, 0, 0, 0, copy->memory.budget};
    pyprof__gathered gathered = {&memory, {NULL, 1, 0, 0}};
    result = pyprof__write_threads(copy, &gathered);
    if (result == PYPROF_ERROR_MEMORY) {
        pyprof__say(PYPROF__NO_ROOM_FOR_DUMP);
    } else if (gathered.bytes.count > 0 && !write(user, gathered.bytes.data, gathered.bytes.count)) {
        pyprof__say("the write function answered false");
        result = PYPROF_ERROR_WRITE;
    }
    pyprof__array_free(&memory, &gathered.bytes);
    pyprof_free(copy);
    return pyprof__report(&logger, result);
}

/* Copies what has room of a text, and a zero; a UTF-8 character that has room in part only is left out. */
static void pyprof__copy_name(char *to, size_t room, const char *text) {
    size_t size = strnlen(text, room - 1);
    while (size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80) {
        size--;
    }
    memcpy(to, text, size);
    to[size] = '\0';
}

/* Of the interpreters that bear a name, the one that got it first; NULL = none does. What was not kept of a longer text
   does not count. */
static pyprof__name *pyprof__first_of_name(const char *text) {
    for (uint32_t i = 0; i < pyprof__process.interpreter_names.count; i++) {
        if (strncmp(pyprof__process.interpreter_names.items[i].text, text,
                    sizeof pyprof__process.interpreter_names.items[i].text - 1) == 0) {
            return &pyprof__process.interpreter_names.items[i];
        }
    }
    return NULL;
}

/* Those behind move up: they stand in the order in which they were named first. */
static void pyprof__drop_name(pyprof__name *name) {
    pyprof__process.interpreter_names.count--;
    memmove(name, name + 1,
            (size_t)(&pyprof__process.interpreter_names.items[pyprof__process.interpreter_names.count] - name) *
                sizeof *name);
}

/* Names an interpreter; text NULL = takes its name away. With the locks of pyprof__lock_running. The only error is
   MEMORY: too many have names. */
static pyprof_result pyprof__set_name(int64_t id, const char *text) {
    pyprof__name *name = pyprof__name_of(id);
    if (text == NULL) {
        if (name != NULL) {
            pyprof__drop_name(name);
        }
        return PYPROF_OK;
    }
    if (name == NULL && pyprof__process.interpreter_names.count == PYPROF__NAMES_MAX) {
        pyprof__name *first = pyprof__first_of_name(text);
        if (first == NULL) {
            pyprof__say("%d interpreters have names: pyprof_name_interpreter(id, NULL) takes one away",
                        (int)PYPROF__NAMES_MAX);
            return PYPROF_ERROR_MEMORY;
        }
        pyprof__drop_name(first);
    }
    if (name == NULL) {
        name = &pyprof__process.interpreter_names.items[pyprof__process.interpreter_names.count++];
        name->id = id;
    }
    pyprof__copy_name(name->text, sizeof name->text, text);
    return PYPROF_OK;
}

/* Makes room: takes away the names of threads that have ended, as signal 0 shows, and in a forked child those of its
   parent's. One whose id is borne by a later thread stays. */
static void pyprof__drop_names_of_the_dead(void) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pyprof__process.thread_names.count; i++) {
        const pyprof__name item = pyprof__process.thread_names.items[i];
        if (syscall(SYS_tgkill, getpid(), (int32_t)item.id, 0) == 0) {
            pyprof__process.thread_names.items[kept++] = item;
        }
    }
    pyprof__process.thread_names.count = kept;
}

/* Names a thread; text NULL = takes its name away, and the last one takes its place, as their order does not matter.
   With the locks of pyprof__lock_running. The only error is MEMORY: too many have names. */
static pyprof_result pyprof__give_name(int32_t tid, uintptr_t thread_id, const char *text) {
    pyprof__name *name = pyprof__given_name_of(tid, thread_id);
    if (text == NULL) {
        if (name != NULL) {
            *name = pyprof__process.thread_names.items[--pyprof__process.thread_names.count];
        }
        return PYPROF_OK;
    }
    if (name == NULL && pyprof__process.thread_names.count == PYPROF__THREAD_NAMES_MAX) {
        pyprof__drop_names_of_the_dead();
    }
    if (name == NULL && pyprof__process.thread_names.count == PYPROF__THREAD_NAMES_MAX) {
        pyprof__say("%d threads have names: pyprof_name_thread(NULL) takes the calling thread's away",
                    (int)PYPROF__THREAD_NAMES_MAX);
        return PYPROF_ERROR_MEMORY;
    }
    if (name == NULL) {
        name = &pyprof__process.thread_names.items[pyprof__process.thread_names.count++];
        name->id = tid;
        name->thread_id = thread_id;
    }
    pyprof__copy_name(name->text, sizeof name->text, text);
    return PYPROF_OK;
}

/* By generation the sampler sees that it has to look for the names of all threads anew. */
PYPROF_API pyprof_result pyprof_name_thread(const char *name) {
    pyprof__sampler *sampler = pyprof__lock_running();
    pyprof_result result = pyprof__give_name(pyprof__tid(), (uintptr_t)pthread_self(), name);
    pyprof__process.thread_names.generation++;
    return pyprof__unlock_and_report(sampler, result);
}

/* generation is part of each mark, so that frames from here on get a mark with the new name. */
PYPROF_API pyprof_result pyprof_name_interpreter(int64_t id, const char *name) {
    pyprof_result result = PYPROF_ERROR_ARGUMENT;
    pyprof__sampler *sampler = pyprof__lock_running();
    if (id < 0) {
        pyprof__say("pyprof_name_interpreter: id is %lld: it has to be 0 or more", (long long)id);
    } else {
        result = pyprof__set_name(id, name);
        pyprof__process.interpreter_names.generation++;
    }
    return pyprof__unlock_and_report(sampler, result);
}

// >>hooks
// Python's allocators: ours are put over them, and taken out. In: what Python and the host allocate and free; a
// pyprof_heap_desc. Out: to >>heap, what passes its thread's next point and what may be a sample that ends; else only
// what the allocator below answers.
// Who: hooks run in any thread, raw's also without the GIL. They are put in and taken out with the GIL, or while there is
// no Python; under pyprof__lifecycle. pyprof__heap_lock is taken within that, never the other way round.
// Invariants: a block is what the allocator below made of it: so who allocated it with our hook may free it without, and
// the other way round. A hook has the context of the one below in its own place, and uses nothing but static memory, that
// context too: who took it out and puts it back later, when it lies over another one, does no harm. So where a
// thread reads an allocator while another one changes it (raw can be called without the GIL, mem and obj by threads with
// a GIL of their own, and all of them where there is none), it has either function with the context that is right for
// both: there is no moment at which nobody may be inside. It costs that this code stays loaded.
// Begin with pyprof_heap_start, pyprof__hook_in, pyprof__hook_malloc.

#ifndef PYPROF_NO_HEAP

enum {
    PYPROF__DOMAINS = 3,
    PYPROF__WERE_BELOW = 8
};

/* The domains by their index; 1 << index is PYPROF_HEAP_RAW, ... */
static const PyMemAllocatorDomain pyprof__domains[PYPROF__DOMAINS] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                                      PYMEM_DOMAIN_OBJ};

/* >>native */
static void pyprof__native_claim(void);
static void pyprof__native_listen(void);
static void pyprof__native_end(void);
static uint32_t pyprof__native_domain(void);

/* What lay below our hooks at any time, by domain; and what they call, one of these. A thread may be in a hook when another
   one changes that, so it takes all it needs from one of these, which does not change until so many others have been there. */
static PyMemAllocatorEx pyprof__were_below[PYPROF__DOMAINS][PYPROF__WERE_BELOW];
static uint32_t pyprof__were_below_count[PYPROF__DOMAINS];
static PyMemAllocatorEx *pyprof__next[PYPROF__DOMAINS];

PYPROF__INLINE const PyMemAllocatorEx *pyprof__below(uint32_t index) {
    return __atomic_load_n(&pyprof__next[index], __ATOMIC_ACQUIRE);
}

PYPROF__INLINE void pyprof__hook_count(pyprof__heap_thread *self, const void *memory, size_t size, uint32_t from) {
    self->left = (int64_t)((uint64_t)self->left - size);
    if (self->left < 0) {
        pyprof__heap_take(self, memory, size, from);
    }
}

/* Whether no samples are taken. A thread that has a gap goes on once more, in which it forgets that. */
PYPROF__INLINE bool pyprof__hook_is_off(const pyprof__heap_thread *self) {
    return self->mean == 0 && pyprof__get64(&pyprof__heap_mean) == 0;
}

/* Whether the calling thread's part may be looked at before it is known that it is there: see >>native. An executable's
   is always there, and empty if it is not in use. */
#if defined(__PIC__) && !defined(__PIE__)
#define PYPROF__HOOK_MAY_LOOK (__atomic_load_n(&pyprof__heap_room, __ATOMIC_RELAXED) == NULL)
#else
#define PYPROF__HOOK_MAY_LOOK true
#endif

/* Nearly all allocations end before their thread's next point, which is known before they are made: a jump over a few
   instructions, with as little as can be kept over the call. Within that no point is near, so that what the allocator
   passes on to another one is counted where it was asked for: once. One that fails was counted, too, on either way: it uses
   up what it would have taken of the axis, and no other one's chance depends on it. */
PYPROF__INLINE bool pyprof__hook_is_short(size_t size) {
    return PYPROF__HOOK_MAY_LOOK && __builtin_expect(size < (uint64_t)pyprof__heap_self.left, 1);
}

/* Whether one that is not short means nothing to us at all. */
PYPROF__INLINE bool pyprof__hook_is_idle(void) {
    return PYPROF__HOOK_MAY_LOOK && __atomic_load_n(&pyprof__heap_room, __ATOMIC_RELAXED) == NULL &&
           pyprof__hook_is_off(&pyprof__heap_self);
}

/* After the call of an allocator, in which nothing was counted; memory: what it gave. */
PYPROF__INLINE void *pyprof__hook_made(pyprof__heap_thread *self, void *memory, size_t size, uint32_t index) {
    if (!pyprof__hook_is_off(self) && (memory != NULL || size <= PTRDIFF_MAX)) {
        pyprof__hook_count(self, memory, size, 1u << index);
    }
    return memory;
}

PYPROF__APART void *pyprof__hook_long_malloc(uint32_t index, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    pyprof__heap_thread *self = pyprof__heap_here();
    if (self->is_inside > 0) {
        return below->malloc(below->ctx, size);
    }
    pyprof__heap_go_in(self);
    void *memory = below->malloc(below->ctx, size);
    pyprof__heap_come_out(self);
    return pyprof__hook_made(self, memory, size, index);
}

PYPROF__INLINE void *pyprof__hook_malloc(uint32_t index, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    if (pyprof__hook_is_short(size)) {
        int64_t left = pyprof__heap_self.left - (int64_t)size;
        pyprof__heap_self.left = INT64_MAX;
        void *memory = below->malloc(below->ctx, size);
        pyprof__heap_self.left = left;
        return memory;
    }
    return pyprof__hook_is_idle() ? below->malloc(below->ctx, size) : pyprof__hook_long_malloc(index, size);
}

PYPROF__APART void *pyprof__hook_long_calloc(uint32_t index, size_t count, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    pyprof__heap_thread *self = pyprof__heap_here();
    if (self->is_inside > 0) {
        return below->calloc(below->ctx, count, size);
    }
    pyprof__heap_go_in(self);
    void *memory = below->calloc(below->ctx, count, size);
    pyprof__heap_come_out(self);
    return pyprof__hook_made(self, memory, count * size, index); /* that did not overflow, if there is memory */
}

PYPROF__INLINE void *pyprof__hook_calloc(uint32_t index, size_t count, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    if (pyprof__hook_is_short(count * size)) {
        int64_t left = pyprof__heap_self.left - (int64_t)(count * size);
        pyprof__heap_self.left = INT64_MAX;
        void *memory = below->calloc(below->ctx, count, size);
        pyprof__heap_self.left = left;
        return memory;
    }
    return pyprof__hook_is_idle() ? below->calloc(below->ctx, count, size)
                                  : pyprof__hook_long_calloc(index, count, size);
}

/* Whether a sample lived there, which ends: *was. */
PYPROF__INLINE bool pyprof__hook_forget(const void *memory, pyprof__live *was) {
    return pyprof__heap_may_live(memory) && !pyprof__heap_here()->has_lock && pyprof__heap_forget(memory, was);
}

/* One allocation ends and another begins, wherever that lies. The old one ends first, as its address is free for others
   within the call; if that fails, it has lived on. */
PYPROF__APART void *pyprof__hook_long_realloc(uint32_t index, void *memory, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    pyprof__heap_thread *self = pyprof__heap_here();
    pyprof__live was;
    if (self->is_inside > 0) {
        return below->realloc(below->ctx, memory, size);
    }
    bool has_ended = memory != NULL && pyprof__hook_forget(memory, &was);
    pyprof__heap_go_in(self);
    void *now = below->realloc(below->ctx, memory, size);
    pyprof__heap_come_out(self);
    if (now == NULL && has_ended) {
        pyprof__heap_restore(&was);
    }
    return pyprof__hook_made(self, now, size, index);
}

PYPROF__INLINE void *pyprof__hook_realloc(uint32_t index, void *memory, size_t size) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    if (pyprof__heap_may_live(memory)) {
        return pyprof__hook_long_realloc(index, memory, size);
    }
    if (pyprof__hook_is_short(size)) {
        int64_t left = pyprof__heap_self.left - (int64_t)size;
        pyprof__heap_self.left = INT64_MAX;
        void *now = below->realloc(below->ctx, memory, size);
        pyprof__heap_self.left = left;
        return now;
    }
    return pyprof__hook_is_idle() ? below->realloc(below->ctx, memory, size)
                                  : pyprof__hook_long_realloc(index, memory, size);
}

PYPROF__APART void pyprof__hook_long_free(uint32_t index, void *memory) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    pyprof__live was;
    (void)pyprof__hook_forget(memory, &was);
    below->free(below->ctx, memory);
}

PYPROF__INLINE void pyprof__hook_free(uint32_t index, void *memory) {
    const PyMemAllocatorEx *below = pyprof__below(index);
    if (pyprof__heap_may_live(memory)) {
        pyprof__hook_long_free(index, memory);
    } else {
        below->free(below->ctx, memory);
    }
}

/* The four functions of a domain. */
#define PYPROF__HOOKS(name, index)                                                                                     \
    static void *pyprof__##name##_malloc(void *context, size_t size) {                                                 \
        (void)context;                                                                                                 \
        return pyprof__hook_malloc(index, size);                                                                       \
    }                                                                                                                  \
    static void *pyprof__##name##_calloc(void *context, size_t count, size_t size) {                                   \
        (void)context;                                                                                                 \
        return pyprof__hook_calloc(index, count, size);                                                                \
    }                                                                                                                  \
    static void *pyprof__##name##_realloc(void *context, void *memory, size_t size) {                                  \
        (void)context;                                                                                                 \
        return pyprof__hook_realloc(index, memory, size);                                                              \
    }                                                                                                                  \
    static void pyprof__##name##_free(void *context, void *memory) {                                                   \
        (void)context;                                                                                                 \
        pyprof__hook_free(index, memory);                                                                              \
    }
PYPROF__HOOKS(raw, 0)
PYPROF__HOOKS(mem, 1)
PYPROF__HOOKS(obj, 2)
#undef PYPROF__HOOKS

static const PyMemAllocatorEx pyprof__hooks[PYPROF__DOMAINS] = {
    {NULL, pyprof__raw_malloc, pyprof__raw_calloc, pyprof__raw_realloc, pyprof__raw_free},
    {NULL, pyprof__mem_malloc, pyprof__mem_calloc, pyprof__mem_realloc, pyprof__mem_free},
    {NULL, pyprof__obj_malloc, pyprof__obj_calloc, pyprof__obj_realloc, pyprof__obj_free},
};

static bool pyprof__is_outermost_hook(uint32_t index) {
    PyMemAllocatorEx now;
    PyMem_GetAllocator(pyprof__domains[index], &now);
    return now.malloc == pyprof__hooks[index].malloc;
}

/* Where an allocator is kept that our hook is put over. */
static PyMemAllocatorEx *pyprof__keep_below(uint32_t index, const PyMemAllocatorEx *now) {
    PyMemAllocatorEx *kept = pyprof__were_below[index];
    for (uint32_t i = 0; i < PYPROF__WERE_BELOW; i++) {
        if (memcmp(&kept[i], now, sizeof *now) == 0) {
            return &kept[i];
        }
    }
    PyMemAllocatorEx *place = &kept[pyprof__were_below_count[index]++ % PYPROF__WERE_BELOW];
    *place = *now;
    return place;
}

static void pyprof__hook_in(uint32_t index) {
    PyMemAllocatorEx hook = pyprof__hooks[index], now;
    PyMem_GetAllocator(pyprof__domains[index], &now);
    __atomic_store_n(&pyprof__next[index], pyprof__keep_below(index, &now), __ATOMIC_RELEASE);
    hook.ctx = now.ctx;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    PyMem_SetAllocator(pyprof__domains[index], &hook);
}

/* Allocates in a domain, or, behind the last one, by malloc, and frees that. */
static void pyprof__touch_domain(uint32_t index, size_t size) {
    if (index == PYPROF__DOMAINS) {
        void *volatile memory = malloc(size); /* else a compiler leaves both out */
        free(memory);
    } else if (index == 0) {
        PyMem_RawFree(PyMem_RawMalloc(size));
    } else if (index == 1) {
        PyMem_Free(PyMem_Malloc(size));
    } else {
        PyObject_Free(PyObject_Malloc(size));
    }
}

/* Whether an allocation as pyprof__touch_domain makes it comes to our hook. */
static bool pyprof__heap_probe(uint32_t index, size_t size) {
    pyprof__heap_thread *self = pyprof__heap_here();
    int64_t left = self->left;
    uint64_t mean = self->mean;
    self->probed = 1u << index;
    self->left = 0;                          /* any size passes it */
    self->mean = 1;                          /* so that it is counted also where no samples are taken */
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* compilers know malloc, and that it does not look at our memory */
    pyprof__touch_domain(index, size);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    bool is_called = self->probed == 0;
    self->probed = 0;
    self->left = left;
    self->mean = mean;
    return is_called;
}

/* Whether our hook is called in a domain, if something else is there: put over it, or in its place, as when CPython begins
   anew. A pool may serve some sizes itself, and pass the others on: several are tried. Since 3.12 mem and obj cannot be called
   without a thread state: then it counts as called, as a hook that was put in twice would call itself for ever. */
static bool pyprof__is_hooked(uint32_t index) {
    PyMemAllocatorEx now;
    PyMem_GetAllocator(pyprof__domains[index], &now);
    if (now.malloc == pyprof__hooks[index].malloc) {
        return true;
    }
    if (pyprof__next[index] == NULL || memcmp(&now, pyprof__next[index], sizeof now) == 0) {
        return false;
    }
    bool can_probe = index == 0 || (pyprof__current_thread_state() != 0 && PyGILState_Check());
    static const size_t sizes[] = {1, 600, 1 << 15, 1 << 21};
    bool is_called = !can_probe;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !is_called; i++) {
        is_called = pyprof__heap_probe(index, sizes[i]);
    }
    return is_called;
}

/* The domains in which our hooks are called, as bits. */
static uint32_t pyprof__heap_domains(void) {
    uint32_t domains = 0;
    for (uint32_t i = 0; i < PYPROF__DOMAINS; i++) {
        domains |= pyprof__is_hooked(i) ? 1u << i : 0;
    }
    return domains;
}

/* Whether the calling thread may look at Python's allocators, and change them. */
static bool pyprof__may_hook(void) {
    return !Py_IsInitialized() || (pyprof__current_thread_state() != 0 && PyGILState_Check());
}

static pyprof_result pyprof__say_gil(const char *caller) {
    pyprof__say("%s: the calling thread does not hold the GIL, and Python is initialised", caller);
    return PYPROF_ERROR_GIL;
}

static pyprof_result pyprof__say_no_heap(const char *caller) {
    pyprof__say("%s: heap sampling is not on: pyprof_heap_start begins it", caller);
    return PYPROF_ERROR_NOT_ACTIVE;
}

/* In a child that was made without fork's handlers: all that its parent had is forgotten, as it may have been in the
   middle of a change. */
static void pyprof__heap_forget_parent(void) {
    if (pyprof__heap.is_on && pyprof__get(&pyprof__heap.pid) != (uint32_t)getpid()) {
        uint32_t session = pyprof__heap.session;
        pthread_mutex_init(&pyprof__heap_lock, NULL);
        pyprof__set64(&pyprof__heap_mean, 0);
        memset(&pyprof__heap, 0, sizeof pyprof__heap);
        pyprof__heap.session = session;
    }
}

static pyprof_heap_desc pyprof__heap_defaults(const pyprof_heap_desc *desc) {
    pyprof_heap_desc resolved;
    memset(&resolved, 0, sizeof resolved);
    if (desc != NULL) {
        resolved = *desc;
    }
    resolved.sampling_bytes = resolved.sampling_bytes == 0 ? (size_t)512 << 10 : resolved.sampling_bytes;
    resolved.memory_limit = resolved.memory_limit == 0 ? (size_t)32 << 20 : resolved.memory_limit;
    resolved.max_depth = resolved.max_depth == 0 ? 1024 : resolved.max_depth;
    if (resolved.allocator.alloc_fn == NULL && resolved.allocator.free_fn == NULL) {
        resolved.allocator.alloc_fn = pyprof__libc_alloc;
        resolved.allocator.free_fn = pyprof__libc_free;
    }
    return resolved;
}

/* Of a description with its defaults filled in. False: what is wrong was said. */
static bool pyprof__heap_desc_is_valid(const pyprof_heap_desc *desc) {
    if (desc->sampling_bytes > (size_t)1 << 30) {
        pyprof__say("sampling_bytes is %zu: it has to be 1 to 1073741824, or 0 for 524288", desc->sampling_bytes);
    } else if (desc->memory_limit < 1u << 20) {
        pyprof__say("memory_limit is %zu: it has to be at least 1048576 bytes, or 0 for 32 MiB", desc->memory_limit);
    } else if (desc->max_depth < 16 || desc->max_depth > 65536) {
        pyprof__say("max_depth is %lu: it has to be 16 to 65536, or 0 for 1024", (unsigned long)desc->max_depth);
    } else if ((desc->allocator.alloc_fn == NULL) != (desc->allocator.free_fn == NULL)) {
        pyprof__say("allocator.%s is NULL: both functions have to be set, or neither",
                    desc->allocator.alloc_fn == NULL ? "alloc_fn" : "free_fn");
    } else {
        return true;
    }
    return false;
}

/* Begins, or goes on, with all hooks in place. With pyprof__lifecycle. */
static pyprof_result pyprof__heap_begin(const pyprof_heap_desc *desc) {
    pyprof__native_claim();
    pyprof__heap_thread *self = pyprof__heap_here();
    uint32_t domains = pyprof__heap_domains();
    if (pyprof__get64(&pyprof__heap_mean) != 0 && domains == (1u << PYPROF__DOMAINS) - 1) {
        pyprof__say("heap sampling is already on: pyprof_heap_stop ends it");
        return PYPROF_ERROR_ALREADY_ACTIVE;
    }
    pyprof__set(&pyprof__heap.pid, (uint32_t)getpid());
    if (pyprof__running() == NULL) {
        pyprof__process.pid = getpid(); /* for what is read safely */
    }
    (void)pyprof__heap_enter(self);
    pyprof_result result = pyprof__heap.is_on ? PYPROF_OK : pyprof__heap_init(desc);
    if (result == PYPROF_OK) {
        pyprof__heap.desc.sampling_bytes = desc->sampling_bytes;
    }
    pyprof__heap_leave(self);
    if (result != PYPROF_OK) {
        return result;
    }
    pyprof__stay_loaded(); /* our hooks may be called until the process ends: by a thread that was about to */
    self->mean = 0;        /* this thread draws at once, others soon: pyprof__heap_due */
    self->left = self->rest = 0;
    pyprof__set64(&pyprof__heap_mean, desc->sampling_bytes);
    pyprof__native_listen();
    for (uint32_t i = 0; i < PYPROF__DOMAINS; i++) {
        if (!(domains >> i & 1)) {
            pyprof__hook_in(i);
        }
    }
    return PYPROF_OK;
}

/* may_hook: see pyprof__may_hook, and pyprof__obey_heap_start. */
static pyprof_result pyprof__heap_start(const pyprof_heap_desc *desc, bool may_hook) {
    pyprof_heap_desc resolved = pyprof__heap_defaults(desc);
    pyprof_result result = PYPROF_ERROR_ARGUMENT;
    if (pyprof__heap_desc_is_valid(&resolved)) {
        pyprof__lock();
        pyprof__heap_forget_parent();
        if (!may_hook) {
            result = pyprof__say_gil("pyprof_heap_start");
        } else if (!pyprof__prepare_for_forks()) {
            result = PYPROF_ERROR_MEMORY;
            pyprof__say("heap sampling could not be begun: pthread_atfork had no memory");
        } else {
            result = pyprof__heap_begin(&resolved);
            if (result == PYPROF_ERROR_MEMORY) {
                pyprof__say("heap sampling could not be begun: memory_limit (%zu bytes) is too small, or the allocator "
                            "gave nothing",
                            resolved.memory_limit);
            }
        }
        pyprof__unlock();
    }
    return pyprof__report(&resolved.logger, result);
}

PYPROF_API pyprof_result pyprof_heap_start(const pyprof_heap_desc *desc) {
    return pyprof__heap_start(desc, pyprof__may_hook());
}

PYPROF_API pyprof_result pyprof_heap_stop(void) {
    if (!pyprof__heap_enter_on()) {
        return pyprof__say_no_heap("pyprof_heap_stop");
    }
    pyprof_logger logger = pyprof__heap.desc.logger;
    bool was_on = pyprof__get64(&pyprof__heap_mean) != 0;
    pyprof__set64(&pyprof__heap_mean, 0);
    pyprof__heap_leave(pyprof__heap_here());
    return pyprof__report(&logger, was_on ? PYPROF_OK : pyprof__say_no_heap("pyprof_heap_stop"));
}

static pyprof_result pyprof__heap_give(const char *caller, bool has_samples, pyprof_profile **profile) {
    if (profile == NULL) {
        pyprof__say("%s: profile is NULL: it has to say where the address goes", caller);
        return PYPROF_ERROR_ARGUMENT;
    }
    *profile = NULL;
    if (!pyprof__heap_enter_on()) {
        return pyprof__say_no_heap(caller);
    }
    pyprof_logger logger = pyprof__heap.desc.logger;
    pyprof__heap_leave(pyprof__heap_here());
    pyprof_result result = pyprof__heap_census(has_samples, profile);
    if (result == PYPROF_ERROR_NOT_ACTIVE) {
        return pyprof__say_no_heap(caller);
    }
    if (result == PYPROF_ERROR_MEMORY) {
        pyprof__say("%s: the allocator gave no memory for a copy", caller);
    }
    return pyprof__report(&logger, result);
}

PYPROF_API pyprof_result pyprof_heap_snapshot(pyprof_profile **profile) {
    return pyprof__heap_give("pyprof_heap_snapshot", false, profile);
}

PYPROF_API pyprof_result pyprof_heap_snapshot_samples(pyprof_profile **profile) {
    return pyprof__heap_give("pyprof_heap_snapshot_samples", true, profile);
}

/* All figures but Python's hooks, which only some may look at. False: heap sampling is not on. */
static bool pyprof__heap_figures(pyprof_heap_stats *stats) {
    bool is_on = pyprof__heap_enter_on();
    if (is_on) {
        pyprof__heap_fill_stats(stats);
        stats->domains = pyprof__native_domain();
        pyprof__heap_leave(pyprof__heap_here());
    }
    return is_on;
}

PYPROF_API pyprof_result pyprof_heap_get_stats(pyprof_heap_stats *stats) {
    const char *caller = "pyprof_heap_get_stats";
    if (stats == NULL) {
        pyprof__say("%s: stats is NULL", caller);
        return PYPROF_ERROR_ARGUMENT;
    }
    if (!pyprof__heap_figures(stats)) {
        return pyprof__say_no_heap(caller);
    }
    stats->domains |= pyprof__may_hook() ? pyprof__heap_domains() : 0;
    return PYPROF_OK;
}

/* Whether all our hooks can be taken out: each is outermost, or no longer called. False: why was said. */
static bool pyprof__can_unhook(void) {
    static const char *const names[PYPROF__DOMAINS] = {"raw", "mem", "obj"};
    bool is_certain = pyprof__current_thread_state() != 0;
    for (uint32_t i = 0; i < PYPROF__DOMAINS; i++) {
        if (!pyprof__is_outermost_hook(i) && pyprof__is_hooked(i)) {
            pyprof__say("pyprof_heap_shutdown: something else was put over our hook in the domain %s, and %s", names[i],
                        is_certain || i == 0 ? "calls it: take that out first (tracemalloc.stop())"
                                             : "whether it calls ours can be told only while Python is initialised");
            return false;
        }
    }
    return true;
}

PYPROF_API pyprof_result pyprof_heap_shutdown(void) {
    const char *caller = "pyprof_heap_shutdown";
    pyprof_logger logger = {NULL, NULL};
    pyprof_result result = PYPROF_OK;
    pyprof__lock();
    if (!pyprof__heap_enter_on()) {
        result = pyprof__say_no_heap(caller);
    } else {
        logger = pyprof__heap.desc.logger;
        pyprof__heap_leave(pyprof__heap_here());
        if (!pyprof__may_hook()) {
            result = pyprof__say_gil(caller);
        } else if (!pyprof__can_unhook()) {
            result = PYPROF_ERROR_HOOKED;
        }
    }
    if (result == PYPROF_OK) {
        pyprof__set64(&pyprof__heap_mean, 0);
        for (uint32_t i = 0; i < PYPROF__DOMAINS; i++) {
            if (pyprof__is_outermost_hook(i)) {
                PyMem_SetAllocator(pyprof__domains[i], pyprof__next[i]);
            }
        }
        pyprof__native_end();
        (void)pyprof__heap_enter(pyprof__heap_here());
        pyprof__heap_clear();
        pyprof__heap_leave(pyprof__heap_here());
    }
    pyprof__unlock();
    return pyprof__report(&logger, result);
}

PYPROF_API void pyprof_heap_on_alloc(const void *memory, size_t size) {
    if (memory != NULL && size <= PTRDIFF_MAX && pyprof__get64(&pyprof__heap_mean) != 0) { /* no block is larger */
        pyprof__heap_thread *self = pyprof__heap_here();
        if (self->is_inside == 0) {
            pyprof__hook_count(self, memory, size, PYPROF__HEAP_HOST);
        }
    }
}

PYPROF_API void pyprof_heap_on_free(const void *memory) {
    pyprof__live was;
    (void)pyprof__hook_forget(memory, &was);
}
#endif /* PYPROF_NO_HEAP */

// >>native
// What C code allocates by malloc and maps by mmap, where libpyprof-heap.so (tools/libpyprof_heap.c) is preloaded. In: what that
// library tells, see pyprof_heap_listener. Out: as by >>hooks; and the mappings that are samples and live.
// Who: any thread, with or without the GIL, never within itself: what the profiler allocates is passed through by that library
// while it is here, and by is_inside elsewhere (pyprof__heap_step_aside). The mappings are guarded by pyprof__heap_lock.
// Invariants: a thread's own part lies in the bytes that the library has for it, from before the first hook goes in until
// the process ends, also when nobody listens: so the hooks' is_inside is seen here, and what a hook has passed on to
// malloc, as an arena to mmap, counts once. And no variable of a thread of ours is touched within malloc, for which the
// loader may allocate, nor when a thread has given those back already.
// A mapping is whole pages, and may end in parts: what is left of a sample stands for what is left of all that it stood
// for. One that mremap moves or resizes goes on being the sample that it was: with the chance that it had, it stands for
// the new size as it did for the old one. So it is not asked whether it was memory, which mremap does not say.
// Begin with pyprof__native_listen, pyprof__native_alloc, pyprof__map_cut.

#ifndef PYPROF_NO_HEAP

typedef char pyprof__heap_thread_fits[sizeof(pyprof__heap_thread) <= PYPROF_HEAP_THREAD ? 1 : -1];

static struct {
    const pyprof_heap_interposer *interposer; /* NULL = none, or it is not ours */
    bool is_decided;
    pyprof__atomic32 is_on;
} pyprof__native;

static void *pyprof__heap_step_aside(void) {
    if (__atomic_load_n(&pyprof__heap_room, __ATOMIC_RELAXED) == NULL) {
        return NULL;
    }
    pyprof__heap_thread *self = pyprof__heap_here();
    pyprof__heap_go_in(self);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* as in pyprof__heap_probe */
    return self;
}

static void pyprof__heap_step_back(void *aside) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (aside != NULL) {
        pyprof__heap_come_out((pyprof__heap_thread *)aside);
    }
}

static void pyprof__native_alloc(void *thread, const void *memory, size_t size) {
    pyprof__heap_thread *self = (pyprof__heap_thread *)thread;
    if (self->is_inside == 0 && !pyprof__hook_is_off(self)) {
        pyprof__hook_count(self, memory, size, PYPROF_HEAP_NATIVE);
    }
}

static void pyprof__native_free(void *thread, const void *memory) {
    pyprof__live was;
    (void)thread;
    (void)pyprof__hook_forget(memory, &was);
}

/* As pyprof__hook_realloc. A size of 0 frees, in some C libraries, and answers with NULL; that is no failure. */
static void *pyprof__native_realloc(void *thread, void *memory, size_t size,
                                    void *(*pass_on)(void *memory, size_t size)) {
    pyprof__live was;
    bool has_ended = memory != NULL && pyprof__hook_forget(memory, &was);
    int error = errno;
    errno = 0;
    void *now = pass_on(memory, size);
    if (now == NULL && has_ended && (size != 0 || errno == ENOMEM)) {
        pyprof__heap_restore(&was);
    }
    errno = errno != 0 ? errno : error;
    if (now != NULL) {
        pyprof__native_alloc(thread, now, size);
    }
    return now;
}

static size_t pyprof__map_pages(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

static pyprof__live *pyprof__map_at(uint32_t index) {
    return &PYPROF__ITEM(pyprof__live, &pyprof__heap.mappings, index);
}

/* The first mapping that ends behind an address; their number if there is none. */
static uint32_t pyprof__map_find(uintptr_t address) {
    uint32_t low = 0, high = pyprof__heap.mappings.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const pyprof__live *mapping = pyprof__map_at(middle);
        if (mapping->address + mapping->size <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Adds a mapping where none is. False: no room. */
static bool pyprof__map_add(const pyprof__live *sample) {
    uint32_t at = pyprof__map_find(sample->address);
    if (pyprof__array_add(pyprof__heap.memory, &pyprof__heap.mappings) == PYPROF__NONE) {
        pyprof__heap_lose(sample);
        return false;
    }
    memmove(pyprof__map_at(at) + 1, pyprof__map_at(at), (pyprof__heap.mappings.count - 1 - at) * sizeof *sample);
    *pyprof__map_at(at) = *sample;
    pyprof__heap_count(sample, true);
    pyprof__add(&pyprof__heap.mapped_now, 1);
    return true;
}

static void pyprof__map_remove(uint32_t at) {
    pyprof__live *mapping = pyprof__map_at(at);
    pyprof__heap_count(mapping, false);
    memmove(mapping, mapping + 1, (pyprof__heap.mappings.count - 1 - at) * sizeof *mapping);
    pyprof__heap.mappings.count--;
    pyprof__add(&pyprof__heap.mapped_now, (uint32_t)-1);
}

/* Takes out the first part of a mapping between two addresses, into *part; what lies before it and behind stays. False: there
   is none. */
static bool pyprof__map_cut(uintptr_t begin, uintptr_t end, pyprof__live *part) {
    uint32_t at = pyprof__map_find(begin);
    if (at == pyprof__heap.mappings.count || pyprof__map_at(at)->address >= end) {
        return false;
    }
    pyprof__live whole = *pyprof__map_at(at), before = whole, behind = whole;
    uintptr_t whole_end = whole.address + whole.size;
    *part = whole;
    part->address = whole.address > begin ? whole.address : begin;
    part->size = (whole_end < end ? whole_end : end) - part->address;
    before.size = part->address - whole.address;
    behind.address = part->address + part->size;
    behind.size = whole_end - behind.address;
    pyprof__map_remove(at);
    if (before.size > 0) {
        pyprof__map_add(&before);
    }
    if (behind.size > 0) {
        pyprof__map_add(&behind);
    }
    return true;
}

/* Takes the lock, if a mapping that is a sample may be concerned. False: none is, and nothing was taken. */
static bool pyprof__map_enter(pyprof__heap_thread *self) {
    return pyprof__get(&pyprof__heap.mapped_now) != 0 && !self->has_lock && pyprof__heap_enter(self);
}

static void pyprof__map_forget(uintptr_t begin, uintptr_t end) {
    pyprof__live part;
    while (pyprof__map_cut(begin, end, &part)) {
        pyprof__heap.stats.samples_freed++;
    }
}

/* What was mapped there before is gone: MAP_FIXED. */
static void pyprof__native_map(void *thread, const void *memory, size_t size, bool is_memory) {
    pyprof__heap_thread *self = (pyprof__heap_thread *)thread;
    int error = errno;
    size_t whole = pyprof__map_pages(size);
    if (pyprof__map_enter(self)) {
        pyprof__map_forget((uintptr_t)memory, (uintptr_t)memory + whole);
        pyprof__heap_leave(self);
    }
    if (is_memory && self->is_inside == 0 && !pyprof__hook_is_off(self)) {
        pyprof__hook_count(self, memory, whole, PYPROF__HEAP_MAP);
    }
    errno = error;
}

/* With the lock throughout, as the addresses may be mapped again by another thread at once. */
static int pyprof__native_unmap(void *thread, void *memory, size_t size, int (*pass_on)(void *memory, size_t size)) {
    pyprof__heap_thread *self = (pyprof__heap_thread *)thread;
    if (!pyprof__map_enter(self)) {
        return pass_on(memory, size);
    }
    int result = pass_on(memory, size);
    int error = errno;
    if (result == 0) {
        pyprof__map_forget((uintptr_t)memory, (uintptr_t)memory + pyprof__map_pages(size));
    }
    pyprof__heap_leave(self);
    errno = error;
    return result;
}

/* What a sample has grown by was allocated, too. */
static void pyprof__map_grow(pyprof__live *part, size_t size) {
    uint64_t space = pyprof__heap_whole(part->weight * (double)size, pyprof__live_lot(part));
    pyprof__node_at(pyprof__heap.tree, part->node)->cpu_ns += space;
    pyprof__note_node(pyprof__heap.tree, part->node);
    pyprof__heap.stats.alloc_bytes += space;
    pyprof__heap.alloc_variance -= pyprof__heap_variance(part->size, part->weight);
    part->size += size;
    pyprof__heap.alloc_variance += pyprof__heap_variance(part->size, part->weight);
}

/* Where the pages have gone. Two addresses of the same pages (size 0) are one mapping. */
static void pyprof__map_move(const pyprof_heap_remap *call, uintptr_t now) {
    uintptr_t begin = (uintptr_t)call->memory, end = begin + pyprof__map_pages(call->size), from = begin;
    size_t size = pyprof__map_pages(call->new_size);
    pyprof__live part;
    if (now != begin || now + size > end) { /* what was there is gone, or its end was not seen */
        pyprof__map_forget(now == begin ? end : now, now + size);
    }
    while (from < end && pyprof__map_cut(from, end, &part)) {
        uintptr_t at = part.address - begin;
        from = part.address + part.size;
        if (at >= size) {
            pyprof__heap.stats.samples_freed++;
            continue;
        }
        if (part.size > size - at) {
            part.size = size - at;
        } else if (from == end && size > end - begin) {
            pyprof__map_grow(&part, size - (size_t)(end - begin));
        }
        part.address = now + at;
        pyprof__map_add(&part);
    }
}

static void *pyprof__native_remap(void *thread, const pyprof_heap_remap *call,
                                  void *(*pass_on)(const pyprof_heap_remap *call)) {
    pyprof__heap_thread *self = (pyprof__heap_thread *)thread;
    if (call->size == 0 || !pyprof__map_enter(self)) {
        return pass_on(call);
    }
    void *now = pass_on(call);
    int error = errno;
    if ((intptr_t)now != -1) { /* MAP_FAILED */
        pyprof__map_move(call, (uintptr_t)now);
    }
    pyprof__heap_leave(self);
    errno = error;
    return now;
}

/* Looks for the library, once, and from then on has threads' parts there. With pyprof__lifecycle, before any hook is in. */
static void pyprof__native_claim(void) {
    if (pyprof__native.is_decided) {
        return;
    }
    pyprof__native.is_decided = true;
    const pyprof_heap_interposer *interposer =
        (const pyprof_heap_interposer *)dlsym(RTLD_DEFAULT, PYPROF_HEAP_INTERPOSER);
    if (interposer != NULL && interposer->claim(&pyprof__heap)) {
        pyprof__native.interposer = interposer;
        __atomic_store_n(&pyprof__heap_room, interposer->thread, __ATOMIC_RELAXED);
    }
}

/* Begins to listen, if malloc is the library's. It is not in a program that has one of its own. */
static void pyprof__native_listen(void) {
    static const pyprof_heap_listener listener = {pyprof__native_alloc, pyprof__native_free,  pyprof__native_realloc,
                                                  pyprof__native_map,   pyprof__native_unmap, pyprof__native_remap};
    if (pyprof__native.interposer == NULL || pyprof__get(&pyprof__native.is_on) != 0) {
        return;
    }
    pyprof__native.interposer->listen(&listener);
    if (pyprof__heap_probe(PYPROF__DOMAINS, 1)) {
        pyprof__set(&pyprof__native.is_on, 1);
    } else {
        pyprof__native.interposer->listen(NULL);
    }
}

static void pyprof__native_end(void) {
    if (pyprof__native.interposer != NULL) {
        pyprof__native.interposer->listen(NULL);
        pyprof__set(&pyprof__native.is_on, 0);
    }
}

static uint32_t pyprof__native_domain(void) {
    return pyprof__get(&pyprof__native.is_on) != 0 ? PYPROF_HEAP_NATIVE : 0;
}

#else
static void *pyprof__heap_step_aside(void) {
    return NULL;
}
static void pyprof__heap_step_back(void *aside) {
    (void)aside;
}
#endif /* PYPROF_NO_HEAP */

// >>answers
// What another process is told that asks for it through a socket (>>listen): what may be asked, and what comes of it.
//   request  "pyprof 1 COMMAND KEY=NUMBER ...\n": 1 is the version of all this. Keys that a command does not know count
//            for nothing, so that a later tool may send them to an older host. At most 1,024 bytes.
//   answer   "ok\n", then pieces, each "SIZE\n" and so many bytes, and "0\n" as the last one
//            "error CODE TEXT\n": CODE is a pyprof_result. FORMAT: a version or command that is not known here. It may
//            also come in the place of a piece, which ends the answer. An answer that just ends was cut
//   status   one line of JSON: protocol, pid, program, python, is_recording; of a recording that runs also start_ns,
//            duration_ns, interval_us, memory_limit, max_depth; stats, all else of pyprof_stats, once there are any
//   start    interval_us, memory_limit, max_depth: as in pyprof_desc. There are no pieces
//   stop     the profile, as by snapshot; drop=1: there are no pieces. If nobody takes all of it, it is lost
//   snapshot the profile as the lines of JSON that tools/exports.h describes (jsonl): text, so that any program can read
//            it, with all that pyprof_make needs, and made from what is there line by line. Its functions have no "file":
//            whoever reads it finds that out by path
//   dump     pyprof_dump's text; json=1: the same as a profile, in which each thread has one span of one sample, and
//            "wants_gil":true if it waits for the GIL
//   heap_start     sampling_bytes, memory_limit, max_depth: as in pyprof_heap_desc. There are no pieces. The hooks are put
//                  in without the GIL, see >>hooks: whoever sets Python's allocators in that very moment (tracemalloc
//                  begins or ends) may take them out again, or be taken out
//   heap_stop      there are no pieces; what lives is followed on
//   heap_snapshot  the profile, as by snapshot: "kind" is "heap"
//   heap_stats     one line of JSON: all of pyprof_heap_stats but domains
// In: a line. Out: text into a pyprof__out, or a profile to be put line by line; a result, and why it failed was said.
// Runs in the thread of >>listen, and takes the locks of >>lifecycle as any caller of pyprof_snapshot does. It does not
// touch the dynamic loader, which a thread that unloads this code has locked while it waits for this one.
// Begin with pyprof__obey, pyprof__put_line.

#ifndef PYPROF_NO_LISTEN

typedef enum pyprof__part {
    PYPROF__AT_FACTS,
    PYPROF__AT_FUNCTIONS,
    PYPROF__AT_NODES,
    PYPROF__AT_SPANS,
    PYPROF__AT_END,
    PYPROF__BEHIND_END
} pyprof__part;

/* Where the lines of a profile stand. */
typedef struct pyprof__cursor {
    pyprof__part part;
    uint32_t index; /* of a function or node; of a span: PYPROF__NONE = the track has no more */
    uint32_t track; /* the one behind that of the span */
    uint64_t now_ns, spans;
} pyprof__cursor;

#define PYPROF__STAT(field)                                                                                            \
    { #field, offsetof(pyprof_stats, field) }

static void pyprof__put_stats(pyprof__out *out, const pyprof_stats *stats) {
    static const struct {
        const char *name;
        size_t offset;
    } all[] = {PYPROF__STAT(ticks),
               PYPROF__STAT(ticks_missed),
               PYPROF__STAT(samples),
               PYPROF__STAT(samples_idle),
               PYPROF__STAT(samples_signalled),
               PYPROF__STAT(samples_partial),
               PYPROF__STAT(lost_late),
               PYPROF__STAT(lost_pending),
               PYPROF__STAT(lost_unsettled),
               PYPROF__STAT(lost_unreadable),
               PYPROF__STAT(lost_memory),
               PYPROF__STAT(truncated_depth),
               PYPROF__STAT(truncated_memory),
               PYPROF__STAT(frames_unresolved),
               PYPROF__STAT(timeline_coarsened),
               PYPROF__STAT(signals),
               PYPROF__STAT(calls_interrupted),
               PYPROF__STAT(threads),
               PYPROF__STAT(bytes),
               PYPROF__STAT(bytes_peak),
               PYPROF__STAT(sampler_cpu_ns),
               PYPROF__STAT(samples_unasked),
               PYPROF__STAT(threads_unasked),
               PYPROF__STAT(signal_changes),
               PYPROF__STAT(samples_held),
               PYPROF__STAT(holds_failed),
               PYPROF__STAT(samples_jit)};
    pyprof__put_text(out, ",\"stats\":{");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t value;
        memcpy(&value, (const char *)stats + all[i].offset, sizeof value);
        pyprof__put_text(out, "\"");
        pyprof__put_text(out, all[i].name);
        pyprof__put_text(out, "\":");
        pyprof__put_number(out, value);
        pyprof__put_text(out, ",");
    }
    pyprof__put_text(out, "\"signal_number\":");
    pyprof__put_line_number(out, stats->signal_number);
    pyprof__put_text(out, "}");
}

static void pyprof__put_named(pyprof__out *out, const char *before, uint64_t number) {
    pyprof__put_text(out, before);
    pyprof__put_number(out, number);
}

static void pyprof__put_quoted(pyprof__out *out, const char *before, pyprof_text text) {
    pyprof__put_text(out, before);
    pyprof__put_text(out, "\"");
    pyprof__put_json(out, text.data, text.size);
    pyprof__put_text(out, "\"");
}

static void pyprof__put_facts_line(pyprof__out *out, const pyprof_profile *profile) {
    pyprof_facts facts;
    memset(&facts, 0, sizeof facts);
    (void)pyprof_get_facts(profile, &facts);
    bool is_heap = facts.kind == PYPROF_KIND_HEAP;
    pyprof__put_text(out, "{\"type\":\"facts\",\"format\":\"pyprof-jsonl\",\"version\":");
    pyprof__put_text(out, is_heap ? "2,\"kind\":\"heap\"" : "1");
    if (is_heap) {
        pyprof__put_named(out, ",\"sampling_bytes\":", facts.sampling_bytes);
    }
    pyprof__put_quoted(out, ",\"program\":", facts.program);
    pyprof__put_quoted(out, ",\"process\":", facts.process);
    pyprof__put_quoted(out, ",\"python\":", facts.python);
    pyprof__put_named(out, ",\"start_ns\":", facts.start_ns);
    pyprof__put_named(out, ",\"duration_ns\":", facts.duration_ns);
    pyprof__put_named(out, ",\"interval_us\":", facts.interval_us);
    pyprof__put_stats(out, &facts.stats);
    pyprof__put_text(out, "}\n");
}

/* What has no path is a marker, which has no line: as pyprof_visit gives it. */
static bool pyprof__has_path(const pyprof_profile *profile, uint32_t function) {
    return pyprof__text_of(profile, pyprof__function_at(profile, function)->file).size > 0;
}

static void pyprof__put_function_line(pyprof__out *out, const pyprof_profile *profile, uint32_t index) {
    const pyprof__function *function = pyprof__function_at(profile, index);
    pyprof__put_named(out, "{\"type\":\"function\",\"id\":", index);
    pyprof__put_quoted(out, ",\"name\":", pyprof__text_of(profile, function->name));
    pyprof__put_quoted(out, ",\"path\":", pyprof__text_of(profile, function->file));
    pyprof__put_text(out, ",\"first_line\":");
    pyprof__put_line_number(out, pyprof__has_path(profile, index) ? function->first_line : 0);
    pyprof__put_text(out, "}\n");
}

static void pyprof__put_node_line(pyprof__out *out, const pyprof_profile *profile, uint32_t index) {
    const pyprof__node *node = pyprof__node_at(profile, index);
    if (node->parent == PYPROF__NONE) {
        const pyprof__track *track = pyprof__track_at(profile, (uint32_t)node->line);
        pyprof__put_named(out, "{\"type\":\"thread\",\"id\":", index);
        pyprof__put_quoted(out, ",\"name\":", pyprof__text_of(profile, track->name));
        pyprof__put_text(out, ",\"tid\":");
        pyprof__put_line_number(out, pyprof__known_tid(track));
        pyprof__put_text(out, track->is_named ? ",\"is_named\":true" : ",\"is_named\":false");
        pyprof__put_text(out, track->wants_gil ? ",\"wants_gil\":true" : "");
    } else {
        pyprof__put_named(out, "{\"type\":\"node\",\"id\":", index);
        pyprof__put_named(out, ",\"parent\":", node->parent);
        pyprof__put_named(out, ",\"function\":", node->function);
        pyprof__put_text(out, ",\"line\":");
        pyprof__put_line_number(out, pyprof__has_path(profile, node->function) ? node->line : 0);
    }
    pyprof__put_named(out, ",\"samples\":", node->samples);
    pyprof__put_named(out, ",\"samples_idle\":", node->samples_idle);
    pyprof__put_named(out, ",\"wall_ns\":", node->wall_ns);
    pyprof__put_named(out, ",\"wall_idle_ns\":", node->wall_idle_ns);
    pyprof__put_named(out, ",\"cpu_ns\":", node->cpu_ns);
    pyprof__put_named(out, ",\"gil_ns\":", node->gil_ns);
    pyprof__put_text(out, "}\n");
}

static void pyprof__put_span_line(pyprof__out *out, const pyprof__span *span, uint32_t track, uint64_t start_ns) {
    uint32_t kind = pyprof__span_kind(span);
    pyprof__put_named(out, "{\"type\":\"span\",\"thread\":", track);
    pyprof__put_named(out, ",\"node\":", span->node);
    pyprof__put_named(out, ",\"start_ns\":", start_ns);
    pyprof__put_named(out, ",\"wall_ns\":", span->wall_ns);
    pyprof__put_named(out, ",\"cpu_ns\":", span->cpu_ns);
    pyprof__put_named(out, ",\"samples\":", span->samples);
    pyprof__put_text(out, (kind & PYPROF__IDLE) ? ",\"is_idle\":true" : ",\"is_idle\":false");
    pyprof__put_text(out, (kind & PYPROF__GIL) ? ",\"has_gil\":true}\n" : ",\"has_gil\":false}\n");
}

/* Puts the next span, or goes on to the next track, or finds that there is none. As pyprof__visit_spans goes. */
static void pyprof__put_next_span(pyprof__out *out, const pyprof_profile *profile, pyprof__cursor *at) {
    if (at->index != PYPROF__NONE) {
        const pyprof__span *span = &PYPROF__ITEM(const pyprof__span, &profile->timeline, at->index);
        if (!(pyprof__span_kind(span) & PYPROF__AWAY)) {
            pyprof__put_span_line(out, span, at->track - 1, at->now_ns);
            at->spans++;
        }
        at->now_ns += span->wall_ns;
        at->index = span->next;
    } else if (at->track < profile->tracks.count) {
        at->index = pyprof__track_at(profile, at->track++)->first;
        at->now_ns = 0;
    } else {
        at->part = PYPROF__AT_END;
    }
}

/* Puts one line, or none while it goes from one part to the next. */
static void pyprof__put_line(pyprof__out *out, const pyprof_profile *profile, pyprof__cursor *at) {
    switch (at->part) {
    case PYPROF__AT_FACTS:
        pyprof__put_facts_line(out, profile);
        at->part = PYPROF__AT_FUNCTIONS;
        break;
    case PYPROF__AT_FUNCTIONS:
        if (at->index < profile->functions.items.count) {
            pyprof__put_function_line(out, profile, at->index++);
        } else {
            at->index = 0;
            at->part = PYPROF__AT_NODES;
        }
        break;
    case PYPROF__AT_NODES:
        if (at->index < profile->nodes.items.count) {
            pyprof__put_node_line(out, profile, at->index++);
        } else {
            at->index = PYPROF__NONE;
            at->part = PYPROF__AT_SPANS;
        }
        break;
    case PYPROF__AT_SPANS:
        pyprof__put_next_span(out, profile, at);
        break;
    case PYPROF__AT_END:
        pyprof__put_named(out, "{\"type\":\"end\",\"nodes\":", profile->nodes.items.count);
        pyprof__put_named(out, ",\"spans\":", at->spans);
        pyprof__put_text(out, "}\n");
        at->part = PYPROF__BEHIND_END;
        break;
    case PYPROF__BEHIND_END:
        break;
    }
}

/* A request, taken apart. */
typedef struct pyprof__command {
    const char *name;
    uint64_t interval_us, memory_limit, max_depth, json, drop, sampling_bytes; /* 0 = not said */
} pyprof__command;

/* "KEY=NUMBER". Errors, each said: ARGUMENT. */
static pyprof_result pyprof__parse_key(const char *word, pyprof__command *command) {
    static const struct {
        const char *name;
        size_t offset;
    } keys[] = {{"interval_us", offsetof(pyprof__command, interval_us)},
                {"memory_limit", offsetof(pyprof__command, memory_limit)},
                {"max_depth", offsetof(pyprof__command, max_depth)},
                {"json", offsetof(pyprof__command, json)},
                {"drop", offsetof(pyprof__command, drop)},
                {"sampling_bytes", offsetof(pyprof__command, sampling_bytes)}};
    size_t size = strcspn(word, "=");
    if (word[size] == '\0') {
        pyprof__say("'%s' is no KEY=VALUE", word);
        return PYPROF_ERROR_ARGUMENT;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *digits = word + size + 1;
        size_t count = strspn(digits, "0123456789");
        if (strlen(keys[i].name) != size || memcmp(keys[i].name, word, size) != 0) {
            continue;
        }
        if (count == 0 || count > 18 || digits[count] != '\0') {
            pyprof__say("'%s' has to be a number of at most 18 digits", word);
            return PYPROF_ERROR_ARGUMENT;
        }
        uint64_t value = strtoull(digits, NULL, 10);
        memcpy((char *)command + keys[i].offset, &value, sizeof value);
    }
    return PYPROF_OK;
}

/* Takes a line apart, in its place. Errors, each said: ARGUMENT, FORMAT. */
static pyprof_result pyprof__parse_request(char *line, size_t size, pyprof__command *command) {
    char *rest = NULL;
    memset(command, 0, sizeof *command);
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)line[i] < ' ' || (unsigned char)line[i] >= 0x7f) {
            line[i] = '\0'; /* what it says is shown up to here */
            pyprof__say("a request is one line of ASCII, as \"pyprof 1 status\"");
            return PYPROF_ERROR_ARGUMENT;
        }
    }
    const char *name = strtok_r(line, " ", &rest), *version = strtok_r(NULL, " ", &rest);
    command->name = strtok_r(NULL, " ", &rest);
    if (name == NULL || strcmp(name, "pyprof") != 0 || command->name == NULL) {
        pyprof__say("a request is \"pyprof 1 COMMAND KEY=VALUE ...\"");
        return PYPROF_ERROR_ARGUMENT;
    }
    if (strcmp(version, "1") != 0) {
        pyprof__say("version %.20s of the protocol is not known in this process, which has version 1", version);
        return PYPROF_ERROR_FORMAT;
    }
    for (char *word = strtok_r(NULL, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (pyprof__parse_key(word, command) != PYPROF_OK) {
            return PYPROF_ERROR_ARGUMENT;
        }
    }
    return PYPROF_OK;
}

/* The figures of a recording that runs. */
typedef struct pyprof__standing {
    bool is_recording, has_stats;
    uint64_t start_ns, duration_ns, interval_us, memory_limit, max_depth;
    pyprof_stats stats;
} pyprof__standing;

static pyprof__standing pyprof__take_standing(void) {
    pyprof__standing standing;
    memset(&standing, 0, sizeof standing);
    pyprof__sampler *sampler = pyprof__lock_running();
    standing.is_recording = sampler != NULL;
    standing.has_stats = sampler != NULL || pyprof__process.was_active;
    standing.stats = pyprof__process.last_stats;
    if (sampler != NULL) {
        standing.start_ns = sampler->profile->epoch_ns;
        standing.duration_ns = pyprof__now() - sampler->start;
        standing.interval_us = sampler->desc.interval_us;
        standing.memory_limit = sampler->desc.memory_limit;
        standing.max_depth = sampler->desc.max_depth;
        pyprof__fill_stats(sampler, &standing.stats);
        standing.stats.sampler_cpu_ns = pyprof__clock(pyprof__cpu_clock(sampler->tid));
    }
    pyprof__unlock_running(sampler);
    return standing;
}

/* CPython's version. Up to 3.11 it is made anew by each call that asks, in one place for all threads: so it is asked for
   by who calls pyprof_listen. */
static char pyprof__python_here[32];

static void pyprof__put_status(pyprof__out *out) {
    pyprof__standing standing = pyprof__take_standing();
    char path[PYPROF__PATH_SIZE];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path);
    pyprof_text program = {path, size > 0 ? (size_t)size : 0};
    pyprof_text python = {pyprof__python_here, strlen(pyprof__python_here)};
    pyprof__put_named(out, "{\"protocol\":1,\"pid\":", (uint64_t)getpid());
    pyprof__put_quoted(out, ",\"program\":", program);
    pyprof__put_quoted(out, ",\"python\":", python);
    pyprof__put_text(out, standing.is_recording ? ",\"is_recording\":true" : ",\"is_recording\":false");
    if (standing.is_recording) {
        pyprof__put_named(out, ",\"start_ns\":", standing.start_ns);
        pyprof__put_named(out, ",\"duration_ns\":", standing.duration_ns);
        pyprof__put_named(out, ",\"interval_us\":", standing.interval_us);
        pyprof__put_named(out, ",\"memory_limit\":", standing.memory_limit);
        pyprof__put_named(out, ",\"max_depth\":", standing.max_depth);
    }
    if (standing.has_stats) {
        pyprof__put_stats(out, &standing.stats);
    }
    pyprof__put_text(out, "}\n");
}

static pyprof_result pyprof__obey_start(const pyprof__command *command) {
    pyprof_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.interval_us = (uint32_t)pyprof__min64(command->interval_us, UINT32_MAX);
    desc.memory_limit = (size_t)command->memory_limit;
    desc.max_depth = (uint32_t)pyprof__min64(command->max_depth, UINT32_MAX);
    return pyprof_start(&desc);
}

/* As pyprof_stop, but that it waits as long for handlers as if this code were unloaded, since it cannot have it stay
   loaded. A file that cannot be saved does not keep the peer from its profile: the logger hears of it. What may wait for
   a reader would keep all other peers, and pyprof_unlisten, waiting. */
static pyprof_result pyprof__obey_stop(pyprof_profile **profile) {
    struct stat status;
    pyprof_result result = PYPROF_OK;
    pyprof__lock();
    pyprof__sampler *sampler = pyprof__running();
    if (sampler == NULL) {
        pyprof__say_not_active();
        result = PYPROF_ERROR_NOT_ACTIVE;
    } else if (sampler->output_path != NULL && stat(sampler->output_path, &status) == 0 && !S_ISREG(status.st_mode)) {
        pyprof__say(
            "its output_path is no regular file, and may wait for a reader: it has to be stopped by the program");
        result = PYPROF_ERROR_IO;
    } else {
        sampler->is_unloaded = true;
        pyprof__end_recording(sampler);
    }
    pyprof__unlock();
    if (result == PYPROF_OK) {
        *profile = sampler->profile;
        (void)pyprof__close_recording(sampler);
    }
    return result;
}

#ifndef PYPROF_NO_HEAP
#define PYPROF__HEAP_STAT(field)                                                                                       \
    { #field, offsetof(pyprof_heap_stats, field) }

static pyprof_result pyprof__put_heap_stats(pyprof__out *out) {
    static const struct {
        const char *name;
        size_t offset;
    } all[] = {
        PYPROF__HEAP_STAT(samples),           PYPROF__HEAP_STAT(samples_live),    PYPROF__HEAP_STAT(samples_freed),
        PYPROF__HEAP_STAT(samples_replaced),  PYPROF__HEAP_STAT(stacks),          PYPROF__HEAP_STAT(live_bytes),
        PYPROF__HEAP_STAT(live_bytes_error),  PYPROF__HEAP_STAT(live_objects),    PYPROF__HEAP_STAT(alloc_bytes),
        PYPROF__HEAP_STAT(alloc_bytes_error), PYPROF__HEAP_STAT(lost_memory),     PYPROF__HEAP_STAT(lost_bytes),
        PYPROF__HEAP_STAT(lost_unreadable),   PYPROF__HEAP_STAT(truncated_depth), PYPROF__HEAP_STAT(truncated_memory),
        PYPROF__HEAP_STAT(live_capacity),     PYPROF__HEAP_STAT(bytes),           PYPROF__HEAP_STAT(bytes_peak),
        PYPROF__HEAP_STAT(sampling_bytes),    PYPROF__HEAP_STAT(duration_ns)};
    pyprof_heap_stats stats;
    if (!pyprof__heap_figures(&stats)) {
        return pyprof__say_no_heap("heap_stats");
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&stats + all[i].offset, sizeof value);
        pyprof__put_text(out, i == 0 ? "{\"" : ",\"");
        pyprof__put_text(out, all[i].name);
        pyprof__put_named(out, "\":", value);
    }
    pyprof__put_text(out, stats.is_sampling ? ",\"is_sampling\":true}\n" : ",\"is_sampling\":false}\n");
    return PYPROF_OK;
}

/* Without the GIL: to wait for it could take for ever, and keep pyprof_unlisten waiting. Hooks bear it: see >>hooks. */
static pyprof_result pyprof__obey_heap_start(const pyprof__command *command) {
    pyprof_heap_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.sampling_bytes = (size_t)command->sampling_bytes;
    desc.memory_limit = (size_t)command->memory_limit;
    desc.max_depth = (uint32_t)pyprof__min64(command->max_depth, UINT32_MAX);
    return pyprof__heap_start(&desc, true);
}

/* As pyprof__obey, for commands about the heap. *is_known: it was one. */
static pyprof_result pyprof__obey_heap(const pyprof__command *command, pyprof__out *out, pyprof_profile **profile,
                                       bool *is_known) {
    *is_known = true;
    if (strcmp(command->name, "heap_start") == 0) {
        return pyprof__obey_heap_start(command);
    }
    if (strcmp(command->name, "heap_stop") == 0) {
        return pyprof_heap_stop();
    }
    if (strcmp(command->name, "heap_snapshot") == 0) {
        return pyprof_heap_snapshot(profile);
    }
    if (strcmp(command->name, "heap_stats") == 0) {
        return pyprof__put_heap_stats(out);
    }
    *is_known = false;
    return PYPROF_OK;
}
#else
static pyprof_result pyprof__obey_heap(const pyprof__command *command, pyprof__out *out, pyprof_profile **profile,
                                       bool *is_known) {
    (void)command;
    (void)out;
    (void)profile;
    *is_known = false;
    return PYPROF_OK;
}
#endif

/* Carries out a request: the answer, or what it begins with, goes to write; or *profile is to be put line by line. Errors,
   each said. */
static pyprof_result pyprof__obey(char *line, size_t size, pyprof__out *out, pyprof_profile **profile) {
    pyprof__command command;
    bool is_of_heap = false;
    pyprof_result result = pyprof__parse_request(line, size, &command);
    if (result == PYPROF_OK) {
        result = pyprof__obey_heap(&command, out, profile, &is_of_heap);
    }
    if (result != PYPROF_OK || is_of_heap) {
        return result;
    }
    if (strcmp(command.name, "status") == 0) {
        pyprof__put_status(out);
    } else if (strcmp(command.name, "start") == 0) {
        result = pyprof__obey_start(&command);
    } else if (strcmp(command.name, "stop") == 0) {
        result = pyprof__obey_stop(profile);
    } else if (strcmp(command.name, "snapshot") == 0) {
        result = pyprof_snapshot(profile);
    } else if (strcmp(command.name, "dump") == 0) {
        result = command.json != 0 ? pyprof__dump_profile(profile) : pyprof_dump(out->write, out->user);
    } else {
        pyprof__say("there is no command %.40s in this process", command.name);
        result = PYPROF_ERROR_FORMAT;
    }
    if (command.drop != 0) {
        pyprof_free(*profile);
        *profile = NULL;
    }
    return result;
}

#endif /* PYPROF_NO_LISTEN */

// >>listen
// A socket by which other processes of the same user look at a recording, and start and stop one. In: connections, each
// with one line that says what is wanted (>>answers). Out: one answer, and the connection is closed.
// Who: one thread, "pyprof-listen", and whoever calls pyprof_listen and pyprof_unlisten. That thread holds no lock while it
// waits for a peer: it reads and writes what there is room for, for all peers in turn. pyprof__listening is for those who
// listen and unlisten, pyprof__door is held while a descriptor of a peer comes or goes, or its profile is freed. fork takes
// both. Order: these two, then those of >>lifecycle.
// Invariants: a descriptor is used only while it leads to the file that we opened: a program may close all of them, and
// get the same numbers for its own. A peer has memory only from its connection to its end, PYPROF__PEER_MEMORY at most
// beside a snapshot, which is within the recording's budget.
// Begin with pyprof_listen, pyprof__serve, pyprof__next_piece.

#ifndef PYPROF_NO_LISTEN

/* A peer is closed that has not sent its line, or takes nothing, for so long; or has not all of its answer by then. */
#if !defined(PYPROF__SILENCE_NS)
#define PYPROF__SILENCE_NS UINT64_C(5000000000)
#define PYPROF__ANSWER_NS UINT64_C(60000000000)
#endif
#define PYPROF__PEERS_MAX 8u                   /* served at a time; others wait in the kernel */
#define PYPROF__PEER_MEMORY ((size_t)16 << 20) /* a line of JSON, or pyprof_dump's text, has room in that */
#define PYPROF__PIECE_SIZE 32768u              /* about so many bytes at a time: other peers are served in between */
#define PYPROF__REQUEST_SIZE 1024u
#define PYPROF__LISTEN_AGAIN_MS 5000 /* a descriptor that the program has closed does not wake who waits for it */

/* A socket, and what tells it from another file that has got its number. */
typedef struct pyprof__socket {
    int descriptor; /* -1 = none */
    dev_t device;
    ino_t inode;
} pyprof__socket;

/* Who has connected. */
typedef struct pyprof__peer {
    pyprof__socket socket;
    uint64_t deadline, end; /* of patience with it: for now, and at all */
    uint32_t request_size;
    char request[PYPROF__REQUEST_SIZE + 1];
    bool is_answered;        /* the request was carried out, and what follows is on its way */
    bool is_last;            /* nothing comes behind head and text */
    uint32_t head_size;      /* what is to be sent next: the head, */
    pyprof__gathered text;   /* then this; both are sent up to */
    size_t sent;             /* here */
    pyprof_profile *profile; /* whose lines are still to come; NULL = none */
    pyprof__cursor cursor;
    pyprof__memory memory;
    pyprof__out out; /* into text */
    char head[640];
} pyprof__peer;

static pthread_mutex_t pyprof__listening = PTHREAD_MUTEX_INITIALIZER, pyprof__door = PTHREAD_MUTEX_INITIALIZER;

static struct pyprof__listener {
    pyprof__atomic32 lock_holder;  /* of pyprof__listening: thread id; 0 = nobody */
    pyprof__atomic32 active_in;    /* the process that listens; 0 = none. Of another one: it was forked from that */
    bool is_registered, has_locks; /* fork calls us; fork holds both locks */
    char path[PYPROF__PATH_SIZE];  /* absolute, with what tells our file from another there */
    struct stat file;
    pthread_t thread;
    pyprof__socket socket; /* from here on: set before the thread begins, and then its own */
    pyprof__atomic32 is_ready, must_end;
    pyprof__peer *peers[PYPROF__PEERS_MAX]; /* NULL = free; changed with the door held */
} pyprof__listener;

static bool pyprof__is_ours(const pyprof__socket *socket) {
    struct stat status;
    return socket->descriptor >= 0 && fstat(socket->descriptor, &status) == 0 && status.st_dev == socket->device &&
           status.st_ino == socket->inode;
}

static pyprof__socket pyprof__note_socket(int descriptor) {
    pyprof__socket noted = {-1, 0, 0};
    struct stat status;
    if (descriptor >= 0 && fstat(descriptor, &status) == 0) {
        noted.descriptor = descriptor;
        noted.device = status.st_dev;
        noted.inode = status.st_ino;
    }
    return noted;
}

static void pyprof__close_socket(pyprof__socket *socket) {
    if (pyprof__is_ours(socket)) {
        close(socket->descriptor);
    }
    socket->descriptor = -1;
}

/* What the peer is told in place of an answer, or of a piece: the calling thread's last error, as one line. */
static void pyprof__refuse_peer(pyprof__peer *peer, pyprof_result result) {
    int size = snprintf(peer->head, sizeof peer->head, "error %d %s", (int)result, pyprof__error_text);
    for (char *at = peer->head; *at != '\0'; at++) {
        *at = (unsigned char)*at < ' ' ? '?' : *at;
    }
    peer->head[size] = '\n';
    peer->head_size = (uint32_t)size + 1;
    peer->text.bytes.count = 0;
    peer->is_last = true;
}

/* With the door, which fork waits for: a lock of the host's allocator would stay locked in the child. */
static void pyprof__free_profile(pyprof__peer *peer) {
    pthread_mutex_lock(&pyprof__door);
    pyprof_free(peer->profile);
    peer->profile = NULL;
    pthread_mutex_unlock(&pyprof__door);
}

/* Makes the next piece: what text has already, or lines of the profile, or the end. before: what stands before it. */
static void pyprof__next_piece(pyprof__peer *peer, const char *before) {
    while (peer->profile != NULL && peer->text.bytes.count + peer->out.size < PYPROF__PIECE_SIZE) {
        pyprof__put_line(&peer->out, peer->profile, &peer->cursor);
        if (peer->cursor.part == PYPROF__BEHIND_END) {
            pyprof__free_profile(peer);
        }
    }
    pyprof__flush(&peer->out);
    peer->sent = 0;
    peer->is_last = peer->text.bytes.count == 0;
    peer->head_size =
        (uint32_t)snprintf(peer->head, sizeof peer->head, "%s%u\n", before, (unsigned)peer->text.bytes.count);
    if (peer->out.is_broken) {
        pyprof__say("no memory for the answer: it is too long, or there is none");
        pyprof__refuse_peer(peer, PYPROF_ERROR_MEMORY);
    }
}

/* It has taken something, or may begin to. */
static void pyprof__extend_peer(pyprof__peer *peer) {
    peer->deadline = pyprof__min64(peer->end, pyprof__now() + PYPROF__SILENCE_NS);
}

static void pyprof__answer_peer(pyprof__peer *peer) {
    pyprof_result result = pyprof__obey(peer->request, peer->request_size, &peer->out, &peer->profile);
    pyprof__flush(&peer->out);
    peer->is_answered = true;
    peer->end = pyprof__now() + PYPROF__ANSWER_NS;
    pyprof__extend_peer(peer);
    if (result == PYPROF_OK) {
        pyprof__next_piece(peer, "ok\n");
    } else {
        pyprof__refuse_peer(peer, result);
    }
}

/* Takes what has come of a request; carries it out when that is all. False: the peer has gone. */
static bool pyprof__hear_peer(pyprof__peer *peer) {
    size_t room = PYPROF__REQUEST_SIZE - peer->request_size;
    char *to = peer->request + peer->request_size;
    ssize_t size = recv(peer->socket.descriptor, to, room, MSG_DONTWAIT);
    if (size <= 0) {
        return size < 0 && (errno == EAGAIN || errno == EINTR);
    }
    char *end = (char *)memchr(to, '\n', (size_t)size);
    peer->request_size += (uint32_t)size;
    if (end != NULL || peer->request_size == PYPROF__REQUEST_SIZE) {
        end = end != NULL ? end : peer->request + PYPROF__REQUEST_SIZE;
        *end = '\0';
        peer->request_size = (uint32_t)(end - peer->request);
        pyprof__answer_peer(peer);
    }
    return true;
}

/* Sends what it takes now. False: it has all, or has gone. */
static bool pyprof__tell_peer(pyprof__peer *peer) {
    size_t from_head = peer->sent < peer->head_size ? peer->head_size - peer->sent : 0;
    size_t from_text = peer->sent > peer->head_size ? peer->sent - peer->head_size : 0;
    struct iovec parts[2] = {{peer->head + peer->head_size - from_head, from_head}, {NULL, 0}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 1;
    if (peer->text.bytes.count > from_text) {
        parts[1].iov_base = (char *)peer->text.bytes.data + from_text;
        parts[1].iov_len = peer->text.bytes.count - from_text;
        message.msg_iovlen = 2;
    }
    ssize_t size = sendmsg(peer->socket.descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    peer->sent += (size_t)size;
    pyprof__extend_peer(peer);
    if (peer->sent < peer->head_size + (size_t)peer->text.bytes.count) {
        return true;
    }
    if (!peer->is_last) {
        peer->text.bytes.count = 0;
        pyprof__next_piece(peer, "");
        return true;
    }
    return false;
}

static void pyprof__drop_peer(pyprof__peer **place) {
    pyprof__peer *peer = *place;
    pthread_mutex_lock(&pyprof__door);
    *place = NULL;
    pyprof__close_socket(&peer->socket);
    pthread_mutex_unlock(&pyprof__door);
    pyprof__free_profile(peer);
    pyprof__array_free(&peer->memory, &peer->text.bytes);
    free(peer);
}

/* What SO_PEERCRED answers: struct ucred, which libc declares only for _GNU_SOURCE (unix(7)). */
typedef struct pyprof__credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
} pyprof__credentials;

/* Whether a peer may ask: it is of this process's user, or of root. */
static bool pyprof__is_allowed(int descriptor) {
    pyprof__credentials who;
    socklen_t size = sizeof who;
    return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && (who.uid == 0 || who.uid == geteuid());
}

/* Takes in whoever waits to be. A peer in vain is told so, or is closed if there is no memory. False: nobody could be, as
   there are too many open files, or no memory. */
static bool pyprof__let_in(pyprof__peer **place) {
    pyprof__peer *peer = (pyprof__peer *)malloc(sizeof *peer);
    pthread_mutex_lock(&pyprof__door);
    int descriptor = (int)syscall(SYS_accept4, pyprof__listener.socket.descriptor, NULL, NULL,
                                  SOCK_NONBLOCK | SOCK_CLOEXEC); /* accept4, without _GNU_SOURCE */
    int error = errno;
    if (descriptor >= 0 && peer == NULL) {
        close(descriptor);
    } else if (descriptor >= 0) {
        memset(peer, 0, sizeof *peer);
        peer->socket = pyprof__note_socket(descriptor);
        *place = peer;
    }
    pthread_mutex_unlock(&pyprof__door);
    if (descriptor < 0 || peer == NULL) {
        free(peer);
        return descriptor >= 0 || error == EAGAIN || error == EINTR || error == ECONNABORTED;
    }
    const pyprof__memory memory = {{pyprof__libc_alloc, pyprof__libc_free, NULL}, PYPROF__PEER_MEMORY, 0, 0, 0, NULL};
    peer->memory = memory;
    peer->text.memory = &peer->memory;
    peer->text.bytes.item_size = 1;
    peer->out.write = pyprof__gather;
    peer->out.user = &peer->text;
    peer->end = pyprof__now() + PYPROF__SILENCE_NS;
    peer->deadline = peer->end;
    if (!pyprof__is_allowed(descriptor)) {
        pyprof__say("this process answers its own user and root only");
        peer->is_answered = true;
        pyprof__refuse_peer(peer, PYPROF_ERROR_IO);
    }
    return true;
}

/* Where a new peer has room: a free place, else that of the one who has been silent for longest. NULL = none. */
static pyprof__peer **pyprof__place_for_peer(void) {
    pyprof__peer **found = NULL;
    for (uint32_t i = 0; i < PYPROF__PEERS_MAX; i++) {
        pyprof__peer **place = &pyprof__listener.peers[i];
        if (*place == NULL) {
            return place;
        }
        if (!(*place)->is_answered && (found == NULL || (*place)->deadline < (*found)->deadline)) {
            found = place;
        }
    }
    return found;
}

/* Fills in what is waited for; answers for how many milliseconds at most. The last one is whoever wants to be let in. */
static int pyprof__watch(struct pollfd *watched) {
    uint64_t now = pyprof__now(), wait_ms = PYPROF__LISTEN_AGAIN_MS;
    for (uint32_t i = 0; i <= PYPROF__PEERS_MAX; i++) {
        const pyprof__peer *peer = i < PYPROF__PEERS_MAX ? pyprof__listener.peers[i] : NULL;
        watched[i].fd = peer != NULL ? peer->socket.descriptor : -1;
        watched[i].events = peer != NULL && peer->is_answered ? POLLOUT : POLLIN;
        watched[i].revents = 0;
        if (peer != NULL) {
            wait_ms = pyprof__min64(wait_ms, peer->deadline > now ? (peer->deadline - now) / 1000000u + 1 : 0);
        }
    }
    watched[PYPROF__PEERS_MAX].fd = pyprof__listener.socket.descriptor;
    watched[PYPROF__PEERS_MAX].events = pyprof__place_for_peer() != NULL ? POLLIN : 0;
    return (int)wait_ms;
}

/* Hears it, or tells it more. False: it has all, has gone, or was silent for too long. It was not if something came while
   this thread itself could not look. */
static bool pyprof__tend_peer(pyprof__peer *peer, bool is_ready, uint64_t now) {
    bool is_late = now >= peer->deadline;
    if (!pyprof__is_ours(&peer->socket) || (is_late && (!is_ready || (peer->is_answered && now >= peer->end)))) {
        return false;
    }
    if (peer->is_answered) {
        return !is_ready || pyprof__tell_peer(peer);
    }
    return !is_ready || (pyprof__hear_peer(peer) && (!is_late || peer->is_answered));
}

/* Waits until something comes, and tends to it. False: the socket is shut, or is not ours any more. */
static bool pyprof__serve(void) {
    struct pollfd watched[PYPROF__PEERS_MAX + 1];
    (void)poll(watched, PYPROF__PEERS_MAX + 1, pyprof__watch(watched));
    uint64_t now = pyprof__now();
    for (uint32_t i = 0; i < PYPROF__PEERS_MAX && !pyprof__get(&pyprof__listener.must_end); i++) {
        pyprof__peer *peer = pyprof__listener.peers[i];
        if (peer != NULL && !pyprof__tend_peer(peer, watched[i].revents != 0, now)) {
            pyprof__drop_peer(&pyprof__listener.peers[i]);
        }
    }
    if (!pyprof__is_ours(&pyprof__listener.socket) || (watched[PYPROF__PEERS_MAX].revents & (POLLHUP | POLLERR))) {
        return false;
    }
    pyprof__peer **place = pyprof__place_for_peer();
    if ((watched[PYPROF__PEERS_MAX].revents & POLLIN) && place != NULL && !pyprof__get(&pyprof__listener.must_end)) {
        if (*place != NULL) {
            pyprof__drop_peer(place);
        }
        if (!pyprof__let_in(place)) {
            pyprof__sleep_ns(100000000); /* who waits still waits, and the next look would find the same */
        }
    }
    return true;
}

/* The thread, from pyprof_listen to the join in pyprof__end_listening. What is thread-local here is made before anybody
   can unload this code: to make it may take a lock of the dynamic loader. */
static void *pyprof__listen_main(void *unused) {
    prctl(PR_SET_NAME, "pyprof-listen", 0, 0, 0);
    pyprof__error_text[0] = '\0';
    pyprof__wake(&pyprof__listener.is_ready);
    while (!pyprof__get(&pyprof__listener.must_end) && pyprof__serve()) {
    }
    for (uint32_t i = 0; i < PYPROF__PEERS_MAX; i++) {
        if (pyprof__listener.peers[i] != NULL) {
            pyprof__drop_peer(&pyprof__listener.peers[i]);
        }
    }
    return unused;
}

/* The folder of the sockets of this user, which nobody else may enter. Errors, each said: ARGUMENT, IO. */
static pyprof_result pyprof__default_path(char *path, size_t size) {
    struct stat status;
    const char *base = getenv("XDG_RUNTIME_DIR");
    base = base != NULL && base[0] == '/' ? base : "/tmp";
    int length = snprintf(path, size, "%s/pyprof-%lu", base, (unsigned long)geteuid());
    if (length < 0 || (size_t)length + 24 > size) {
        pyprof__say("XDG_RUNTIME_DIR is too long for a socket in it: %.80s...", base);
        return PYPROF_ERROR_ARGUMENT;
    }
    if ((mkdir(path, 0700) != 0 && errno != EEXIST) || lstat(path, &status) != 0) {
        pyprof__say("cannot make the folder %s: %s", path, strerror(errno));
        return PYPROF_ERROR_IO;
    }
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
        pyprof__say("%s %s: it has to be a folder of this user's that nobody else may enter (mode 700); remove it, or "
                    "name another path",
                    path,
                    !S_ISDIR(status.st_mode)     ? "is no folder"
                    : status.st_uid != geteuid() ? "is another user's"
                                                 : "is open to others");
        errno = EACCES;
        return PYPROF_ERROR_IO;
    }
    snprintf(path + length, size - (size_t)length, "/%ld.sock", (long)getpid());
    return PYPROF_OK;
}

/* The address to listen at. Errors, each said: ARGUMENT, IO. */
static pyprof_result pyprof__address_of(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (path == NULL) {
        return pyprof__default_path(address->sun_path, sizeof address->sun_path);
    }
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof address->sun_path) {
        pyprof__say("pyprof_listen: path has %zu bytes: it has to have 1 to %zu, as Linux has no room for more", size,
                    sizeof address->sun_path - 1);
        return PYPROF_ERROR_ARGUMENT;
    }
    memcpy(address->sun_path, path, size);
    return PYPROF_OK;
}

/* Whether what is at an address is the socket of a process that has ended, or listens no more. False: it was said what it
   is. */
static bool pyprof__is_stale(const struct sockaddr_un *address) {
    struct stat status;
    pyprof__credentials who;
    socklen_t size = sizeof who;
    if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) {
        pyprof__say("%s is there, and is no socket: remove it, or name another path", address->sun_path);
        errno = EEXIST;
        return false;
    }
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_live = descriptor >= 0 && connect(descriptor, (const struct sockaddr *)address, sizeof *address) == 0;
    int error = is_live ? EADDRINUSE : errno;
    if (is_live && getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0) {
        pyprof__say("process %ld listens at %s: name another path", (long)who.pid, address->sun_path);
    } else if (error != ECONNREFUSED) {
        pyprof__say("%s is there, and it cannot be told whose it is: %s", address->sun_path, strerror(error));
    }
    if (descriptor >= 0) {
        close(descriptor);
    }
    errno = error;
    return error == ECONNREFUSED;
}

/* Of several processes that find the same stale socket one shall replace it, and no other remove what that has put in
   its place: a socket that is there and does not listen yet looks stale. So its folder is locked until it does. -1: it could
   not be, in half a second; then what is there stays. */
static int pyprof__lock_folder(const char *path) {
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 2];
    snprintf(folder, sizeof folder, "%.*s.", (int)pyprof__last_part(path, strlen(path)), path);
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (tries == 50) {
            close(descriptor);
            return -1;
        }
        pyprof__sleep_ns(10000000);
    }
    return descriptor;
}

/* False: why was said, and errno says it. */
static bool pyprof__bind_socket(int descriptor, const struct sockaddr_un *address, bool is_locked) {
    bool is_bound = bind(descriptor, (const struct sockaddr *)address, sizeof *address) == 0;
    if (!is_bound && errno == EADDRINUSE) {
        if (!pyprof__is_stale(address)) {
            return false;
        }
        if (is_locked) {
            unlink(address->sun_path);
        }
        is_bound = bind(descriptor, (const struct sockaddr *)address, sizeof *address) == 0;
    }
    if (!is_bound) {
        pyprof__say("cannot make the socket %s: %s", address->sun_path, strerror(errno));
    }
    return is_bound;
}

/* Makes the socket. Until it listens nobody can connect, so its mode is right in time. False: why was said, and nothing is
   left. */
static bool pyprof__open_socket(const struct sockaddr_un *address) {
    struct pyprof__listener *self = &pyprof__listener;
    self->socket = pyprof__note_socket(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (self->socket.descriptor < 0) {
        pyprof__say("a socket could not be made: %s", strerror(errno));
        return false;
    }
    int folder = pyprof__lock_folder(address->sun_path);
    bool is_bound = pyprof__bind_socket(self->socket.descriptor, address, folder >= 0);
    bool is_listening = is_bound && chmod(address->sun_path, 0600) == 0 && lstat(address->sun_path, &self->file) == 0 &&
                        listen(self->socket.descriptor, 64) == 0;
    int error = errno;
    if (is_bound && !is_listening) {
        pyprof__say("cannot listen at %s: %s", address->sun_path, strerror(error));
        unlink(address->sun_path);
    }
    if (!is_listening) {
        pyprof__close_socket(&self->socket);
    }
    if (folder >= 0) {
        close(folder);
    }
    errno = error;
    return is_listening;
}

/* Where our file will be found, though the program may change its folder. */
static void pyprof__note_path(const char *path) {
    char *to = pyprof__listener.path;
    size_t size = 0;
    if (path[0] != '/' && getcwd(to, PYPROF__PATH_SIZE - 120) != NULL) {
        size = strlen(to);
        to[size++] = '/';
    }
    snprintf(to + size, PYPROF__PATH_SIZE - size, "%s", path);
}

/* Closes the socket and removes its file, unless another one has taken the place. */
static void pyprof__remove_socket(void) {
    struct stat status;
    pyprof__close_socket(&pyprof__listener.socket);
    if (lstat(pyprof__listener.path, &status) == 0 && status.st_dev == pyprof__listener.file.st_dev &&
        status.st_ino == pyprof__listener.file.st_ino) {
        unlink(pyprof__listener.path);
    }
}

/* Starts the thread, as pyprof__spawn does the sampler's. False: why was said. */
static bool pyprof__start_listening(void) {
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        pthread_attr_setstacksize(&attributes, 1 << 20);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
        error = pthread_create(&pyprof__listener.thread, &attributes, pyprof__listen_main, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (error != 0) {
        pyprof__say("the thread that listens could not be started: %s", strerror(error));
        return false;
    }
    while (!pyprof__get(&pyprof__listener.is_ready)) {
        pyprof__wait_until(&pyprof__listener.is_ready, 0, pyprof__now() + 1000000000u);
    }
    return true;
}

/* With the lock. shutdown wakes who waits for the socket. */
static void pyprof__end_listening(void) {
    pyprof__set(&pyprof__listener.must_end, 1);
    if (pyprof__is_ours(&pyprof__listener.socket)) {
        shutdown(pyprof__listener.socket.descriptor, SHUT_RDWR);
    }
    pthread_join(pyprof__listener.thread, NULL);
    pyprof__remove_socket();
    pyprof__set(&pyprof__listener.active_in, 0);
}

/* In a forked child: the sockets are its parent's, and the file is. What peers had in memory is forgotten, not freed: the
   thread may have been in the middle of a change. */
static void pyprof__forget_listening(void) {
    for (uint32_t i = 0; i < PYPROF__PEERS_MAX; i++) {
        if (pyprof__listener.peers[i] != NULL) {
            pyprof__close_socket(&pyprof__listener.peers[i]->socket);
            pyprof__listener.peers[i] = NULL;
        }
    }
    pyprof__close_socket(&pyprof__listener.socket);
    pyprof__set(&pyprof__listener.active_in, 0);
}

/* As pyprof__before_fork, and why it takes no lock in two cases. */
static void pyprof__stop_at_door(void) {
    uint32_t in = pyprof__get(&pyprof__listener.active_in);
    bool is_strange = in != 0 && in != (uint32_t)getpid();
    if (!is_strange && pyprof__get(&pyprof__listener.lock_holder) != (uint32_t)pyprof__tid()) {
        pthread_mutex_lock(&pyprof__listening);
        pthread_mutex_lock(&pyprof__door);
        pyprof__listener.has_locks = true;
    }
}

static void pyprof__pass_door(void) {
    if (pyprof__listener.has_locks) {
        pyprof__listener.has_locks = false;
        pthread_mutex_unlock(&pyprof__door);
        pthread_mutex_unlock(&pyprof__listening);
    }
}

static void pyprof__pass_door_in_child(void) {
    if (pyprof__listener.has_locks && pyprof__get(&pyprof__listener.active_in) != 0) {
        pyprof__forget_listening();
    }
    pyprof__pass_door();
}

static void pyprof__register_listener(void) {
    pyprof__listener.is_registered =
        pthread_atfork(pyprof__stop_at_door, pyprof__pass_door, pyprof__pass_door_in_child) == 0;
}

/* fork calls what is registered last first, so the locks of >>lifecycle are registered before. */
static void pyprof__lock_listener(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pyprof__lock();
    pyprof__unlock();
    pthread_once(&once, pyprof__register_listener);
    pthread_mutex_lock(&pyprof__listening);
    pyprof__set(&pyprof__listener.lock_holder, (uint32_t)pyprof__tid());
}

static void pyprof__unlock_listener(void) {
    pyprof__set(&pyprof__listener.lock_holder, 0);
    pthread_mutex_unlock(&pyprof__listening);
}

/* With the lock. A child that was made without the fork handlers comes here with its parent's socket. */
static pyprof_result pyprof__listen_at(const char *path) {
    struct sockaddr_un address;
    uint32_t in = pyprof__get(&pyprof__listener.active_in);
    if (in == (uint32_t)getpid()) {
        pyprof__say("this process listens already, at %.300s", pyprof__listener.path);
        return PYPROF_ERROR_ALREADY_ACTIVE;
    }
    if (in != 0) {
        pyprof__forget_listening();
    }
    if (!pyprof__listener.is_registered || !pyprof__process.fork.is_registered) {
        pyprof__say("pyprof_listen: pthread_atfork had no memory");
        return PYPROF_ERROR_MEMORY;
    }
    pyprof_result result = pyprof__address_of(path, &address);
    if (result == PYPROF_OK && !pyprof__open_socket(&address)) {
        result = PYPROF_ERROR_IO;
    }
    if (result != PYPROF_OK) {
        return result;
    }
    pyprof__note_path(address.sun_path);
    snprintf(pyprof__python_here, sizeof pyprof__python_here, "%.*s", (int)strcspn(Py_GetVersion(), " "),
             Py_GetVersion());
    pyprof__set(&pyprof__listener.is_ready, 0);
    pyprof__set(&pyprof__listener.must_end, 0);
    if (!pyprof__start_listening()) {
        pyprof__remove_socket();
        return PYPROF_ERROR_THREAD;
    }
    pyprof__set(&pyprof__listener.active_in, (uint32_t)getpid());
    return PYPROF_OK;
}

PYPROF_API pyprof_result pyprof_listen(const char *path) {
    pyprof__lock_listener();
    pyprof_result result = pyprof__listen_at(path);
    pyprof__unlock_listener();
    return result;
}

PYPROF_API pyprof_result pyprof_unlisten(void) {
    pyprof_result result = PYPROF_OK;
    pyprof__lock_listener();
    if (pyprof__get(&pyprof__listener.active_in) == (uint32_t)getpid()) {
        pyprof__end_listening();
    } else {
        pyprof__say("this process does not listen: pyprof_listen begins it (a forked child has none of its parent's)");
        result = PYPROF_ERROR_NOT_ACTIVE;
    }
    pyprof__unlock_listener();
    return result;
}

/* A plugin that is unloaded while it listens; called by pyprof__on_unload, as the order of destructors is the compiler's.
   The lock is only tried, for the same reason as there. */
#if PYPROF__UNLOADABLE
static void pyprof__unlisten_on_unload(void) {
    if (pthread_mutex_trylock(&pyprof__listening) == 0) {
        if (pyprof__get(&pyprof__listener.active_in) == (uint32_t)getpid()) {
            pyprof__end_listening();
        }
        pthread_mutex_unlock(&pyprof__listening);
    }
}
#endif

#elif PYPROF__UNLOADABLE
static void pyprof__unlisten_on_unload(void) {}
#endif /* PYPROF_NO_LISTEN */

#endif /* PYPROF_NO_RECORDING */

// >>public
// What the header declares of profiles, however they were made. In: arguments, which are checked here and nowhere
// further in. Out: a result; why it failed was said, and is told to the profile's logger. Any thread of the host, and no
// lock; never the signal handler. pyprof_save is also called by the sampler's thread.
// Begin with pyprof_write, pyprof_visit, pyprof_save.

PYPROF_API pyprof_result pyprof_get_facts(const pyprof_profile *profile, pyprof_facts *facts) {
    if (profile == NULL || facts == NULL) {
        pyprof__say("pyprof_get_facts: %s is NULL", profile == NULL ? "profile" : "facts");
        return PYPROF_ERROR_ARGUMENT;
    }
    memset(facts, 0, sizeof *facts);
    facts->program = pyprof__text_of(profile, profile->program);
    facts->process = pyprof__text_of(profile, profile->process_name);
    facts->python = pyprof__text_of(profile, profile->python);
    facts->start_ns = profile->epoch_ns;
    facts->duration_ns = profile->duration_ns;
    facts->interval_us = profile->interval_us;
    facts->kind = profile->kind;
    facts->sampling_bytes = profile->sampling_bytes;
    facts->stats = profile->stats;
    facts->stats.samples_jit = profile->samples_jit;
    facts->stats.timeline_coarsened = profile->timeline_coarsened;
    facts->stats.duration_ns = profile->duration_ns;
    return PYPROF_OK;
}

/* Whether a profile can be written by a resolved output. Errors, each said: ARGUMENT, FORMAT. */
static pyprof_result pyprof__check_output(const pyprof_profile *profile, const pyprof_output *output) {
    pyprof_result result = PYPROF_ERROR_ARGUMENT;
    if (profile == NULL) {
        pyprof__say("profile is NULL: it has to come from pyprof_stop or pyprof_snapshot");
    } else if ((unsigned)output->metric > PYPROF_METRIC_SAMPLES) {
        pyprof__say("output.metric is %d: it has to be a PYPROF_METRIC_", (int)output->metric);
    } else if ((unsigned)output->detail > PYPROF_DETAIL_FUNCTION) {
        pyprof__say("output.detail is %d: it has to be a PYPROF_DETAIL_", (int)output->detail);
    } else if (!(output->min_share >= 0 && output->min_share <= 1)) {
        pyprof__say("output.min_share is %g: it has to be 0 to 1 (0.01 is 1 %%)", output->min_share);
    } else if ((unsigned)output->format > PYPROF_FORMAT_PPROF_PLAIN) {
        pyprof__say("output.format is %d: it has to be a PYPROF_FORMAT_", (int)output->format);
        result = PYPROF_ERROR_FORMAT;
    } else if (output->format == PYPROF_FORMAT_SVG && !PYPROF__DRAWS) {
        pyprof__say(PYPROF__NO_PICTURE);
        result = PYPROF_ERROR_FORMAT;
    } else {
        result = PYPROF_OK;
    }
    return result;
}

PYPROF_API pyprof_result pyprof_write(const pyprof_profile *profile, const pyprof_output *output, pyprof_write_fn write,
                                      void *user) {
    pyprof_output resolved = pyprof__resolve_output(output, NULL);
    pyprof_result result = pyprof__check_output(profile, &resolved);
    if (result == PYPROF_OK && write == NULL) {
        pyprof__say("pyprof_write: write is NULL: it has to be the function that takes the output");
        result = PYPROF_ERROR_ARGUMENT;
    } else if (result == PYPROF_OK) {
        result = pyprof__write_checked(profile, &resolved, write, user);
    }
    return pyprof__report(profile != NULL ? &profile->logger : NULL, result);
}

/* missing: what of the arguments is; NULL = nothing. */
static pyprof_result pyprof__visit_checked(const pyprof_profile *profile, const pyprof_output *output,
                                           const pyprof__visits *visits, const char *missing) {
    pyprof_output resolved = pyprof__resolve_output(output, NULL);
    resolved.format = PYPROF_FORMAT_COLLAPSED; /* the caller's does not matter, even one that cannot be written */
    resolved.merge_threads = resolved.merge_threads && !resolved.threads_apart;
    pyprof_result result = pyprof__check_output(profile, &resolved);
    if (result == PYPROF_OK && missing != NULL) {
        pyprof__say("%s", missing);
        result = PYPROF_ERROR_ARGUMENT;
    } else if (result == PYPROF_OK) {
        pyprof__writing *writing = pyprof__view_new(profile, &resolved, NULL, NULL);
        result = PYPROF_ERROR_MEMORY;
        if (writing != NULL) {
            writing->has_tracks = resolved.threads_apart;
            result = pyprof__visit_all(writing, visits);
            pyprof__writing_free(writing);
        }
        if (result == PYPROF_ERROR_WRITE) {
            pyprof__say("a function of the visitor answered false");
        } else if (result == PYPROF_ERROR_MEMORY) {
            pyprof__say_full("to write the profile", &profile->memory);
        }
    }
    return pyprof__report(profile != NULL ? &profile->logger : NULL, result);
}

PYPROF_API pyprof_result pyprof_visit(const pyprof_profile *profile, const pyprof_output *output,
                                      const pyprof_visitor *visitor) {
    const char *missing = "pyprof_visit: visitor is NULL: it has to name the functions to call";
    pyprof__visits visits;
    memset(&visits, 0, sizeof visits);
    if (visitor != NULL) {
        visits.visitor = *visitor;
    }
    return pyprof__visit_checked(profile, output, &visits, visitor == NULL ? missing : NULL);
}

PYPROF_API pyprof_result pyprof_visit_samples(const pyprof_profile *profile, const pyprof_output *output,
                                              bool (*take)(void *user, const pyprof_heap_sample *sample), void *user) {
    const char *missing = "pyprof_visit_samples: take is NULL: it has to be the function that takes them";
    pyprof__visits visits;
    memset(&visits, 0, sizeof visits);
    visits.sample = take;
    visits.user = user;
    return pyprof__visit_checked(profile, output, &visits, take == NULL ? missing : NULL);
}

PYPROF_API pyprof_result pyprof_top(const pyprof_profile *profile, const pyprof_output *output, pyprof_row *rows,
                                    size_t *count) {
    pyprof_output resolved = pyprof__resolve_output(output, NULL);
    resolved.format = PYPROF_FORMAT_COLLAPSED; /* as for pyprof_visit */
    pyprof_result result = pyprof__check_output(profile, &resolved);
    if (result == PYPROF_OK && (count == NULL || (rows == NULL && *count > 0))) {
        pyprof__say("pyprof_top: %s", count == NULL ? "count is NULL: it has to say how many rows have room"
                                                    : "rows is NULL: *count has to be 0 then");
        result = PYPROF_ERROR_ARGUMENT;
    } else if (result == PYPROF_OK) {
        pyprof__writing *writing = pyprof__view_new(profile, &resolved, NULL, NULL);
        bool has_room = writing != NULL && pyprof__top_rows(writing, rows, count);
        if (writing != NULL) {
            pyprof__writing_free(writing);
        }
        if (!has_room) {
            pyprof__say_full("for the rows", &profile->memory);
            result = PYPROF_ERROR_MEMORY;
        }
    }
    return pyprof__report(profile != NULL ? &profile->logger : NULL, result);
}

/* Says that a file could not be written, and why by errno, which stays; of a long path the end. */
static void pyprof__say_file(const char *path) {
    size_t size = strlen(path), most = 300;
    pyprof__say("cannot write %s%s: %s", size > most ? "..." : "", size > most ? path + size - most : path,
                strerror(errno));
}

/* Where a path leads to through links, into target: rename replaces a link, not the file that it leads to. 40 in a row
   are followed, as by Linux (include/linux/namei.h: MAXSYMLINKS). False: errno says why. */
static bool pyprof__follow_links(const char *path, char *target, size_t size) {
    char next[PYPROF__PATH_SIZE];
    size_t length = strlen(path);
    if (length >= size) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(target, path, length + 1);
    for (int links = 0; links < 40; links++) {
        ssize_t found = readlink(target, next, sizeof next);
        if (found < 0) {
            return errno == EINVAL || errno == ENOENT; /* no link, or nothing there yet */
        }
        size_t folder = next[0] == '/' ? 0 : pyprof__last_part(target, strlen(target));
        if (folder + (size_t)found >= size || (size_t)found == sizeof next) {
            errno = ENAMETOOLONG;
            return false;
        }
        memcpy(target + folder, next, (size_t)found);
        target[folder + (size_t)found] = '\0';
    }
    errno = ELOOP;
    return false;
}

/* Chooses how to write to a path: into what is there, or beside it. With PYPROF_ERROR_IO errno says why. What cannot be
   looked at counts as not there: to make it then fails, and errno says why. */
static pyprof_result pyprof__save_at(const pyprof_profile *profile, const pyprof_output *output, const char *path) {
    struct stat status;
    bool exists = stat(path, &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        return pyprof__save_into(profile, output, path);
    }
    char target[PYPROF__PATH_SIZE];
    if (!pyprof__follow_links(path, target, sizeof target)) {
        return PYPROF_ERROR_IO;
    }
    return pyprof__save_beside(profile, output, target, exists ? status.st_mode : 0);
}

PYPROF_API pyprof_result pyprof_save(const pyprof_profile *profile, const pyprof_output *output, const char *path) {
    pyprof_output resolved = pyprof__resolve_output(output, path);
    pyprof_result result = pyprof__check_output(profile, &resolved);
    if (result == PYPROF_OK && (path == NULL || path[0] == '\0')) {
        pyprof__say("pyprof_save: path is %s: it has to name the file to write", path == NULL ? "NULL" : "empty");
        result = PYPROF_ERROR_ARGUMENT;
    } else if (result == PYPROF_OK) {
        result = pyprof__save_at(profile, &resolved, path);
        if (result == PYPROF_ERROR_IO) {
            pyprof__say_file(path);
        }
    }
    return pyprof__report(profile != NULL ? &profile->logger : NULL, result);
}

/* The account lies in the profile, so a copy of it books that the profile itself is freed. */
PYPROF_API void pyprof_free(pyprof_profile *profile) {
    if (profile != NULL) {
        pyprof__profile_clear(profile);
        pyprof__memory memory = profile->memory;
        pyprof__release(&memory, profile, sizeof *profile);
        pyprof__budget_drop(memory.budget, &memory.allocator);
    }
}

PYPROF_API const char *pyprof_last_error(void) {
    return pyprof__error_text;
}

PYPROF_API const char *pyprof_result_string(pyprof_result result) {
    static const char *const texts[] = {
        "success",
        "an argument is missing or out of its range",
        "a recording is already running",
        "no recording is running",
        "out of memory, or memory_limit is too small",
        "the sampler thread could not be started",
        "the signal cannot be used",
        "neither process_vm_writev nor /proc/self/mem can be used here",
        "this version of CPython is not known, or not as it describes itself",
        "compiled against another CPython than the one that runs",
        "the file could not be written",
        "the write function gave up",
        "unknown output format",
        "this debug build of CPython is not supported",
        "the calling thread does not hold the GIL",
        "another hook of Python's allocators was put over ours",
    }; /* in the order of their numbers, 0, -1, ... */
    unsigned number = 0u - (unsigned)result;
    return number < sizeof texts / sizeof *texts ? texts[number] : "unknown result";
}

#ifdef __cplusplus
}
#endif

#if defined(PYPROF_NO_RECORDING) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif /* PYPROF_IMPLEMENTED */
#endif /* PYPROF_IMPLEMENTATION */
