/* Has a process listen that was never prepared for it: see attach.h.
 *
 * Who: one process that pyprof-ctl does not know, and that must not notice: no memory of it is written but a page of our
 * own (or, from 3.14 on, what CPython has for that), no signal is sent to it, none that it gets is lost, a system call in
 * which it waits is begun again by the kernel as after any debugger's look.
 * Begin with attach_process, attach_add_call, attach_ask_debugger.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "attach.h"
#include "unwind.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* What is looked for in the process, by these names. All of CPython's that are here are exported by each build of it. */
enum {
    ATTACH_ADD_PENDING,
    ATTACH_IS_INITIALIZED,
    ATTACH_NEW_DICT, /* these six in the order of attach_code */
    ATTACH_GET_BUILTINS,
    ATTACH_SET_ITEM,
    ATTACH_COMPILE,
    ATTACH_EVAL_CODE,
    ATTACH_DEC_REF,
    ATTACH_EVALUATE,
    ATTACH_CHECK_SIGNALS,
    ATTACH_RUNTIME,
    ATTACH_LAST_NEEDED = ATTACH_RUNTIME,
    ATTACH_ACQUIRE_LOCK, /* what waits for a lock, and is told of signals while it does */
    ATTACH_PARK,         /* since 3.13, by the next */
    ATTACH_WAIT_SEMAPHORE,
    ATTACH_VERSION, /* since 3.11 */
    ATTACH_OF_3_10, /* these three tell the versions before apart */
    ATTACH_OF_3_9,
    ATTACH_OF_3_8,
    ATTACH_FREE_THREADED, /* only there */
    ATTACH_DEBUG,         /* only there */
    ATTACH_SYMBOLS
};

static const char *const attach_names[ATTACH_SYMBOLS] = {
    "Py_AddPendingCall",        "Py_IsInitialized",          "PyDict_New",       "PyEval_GetBuiltins",
    "PyDict_SetItemString",     "Py_CompileString",          "PyEval_EvalCode",  "Py_DecRef",
    "_PyEval_EvalFrameDefault", "PyErr_CheckSignals",        "_PyRuntime",       "PyThread_acquire_lock_timed",
    "_PyParkingLot_Park",       "_PySemaphore_Wait",         "Py_Version",       "PyGC_Enable",
    "PyObject_GC_IsTracked",    "PyCode_NewWithPosOnlyArgs", "_Py_DecRefShared", "_Py_NegativeRefcount"};

typedef struct attach_symbol {
    uint64_t at, size; /* in the process; 0 = there is none */
} attach_symbol;

typedef struct attach_target {
    const attach_order *order;
    char *why;
    size_t why_size;
    uint64_t deadline_ns;
    uid_t uid;
    gid_t gid;
    int memory; /* /proc/PID/mem */
    attach_symbol symbols[ATTACH_SYMBOLS];
    uint64_t loader, loader_size; /* where it is mapped */
    unsigned version;             /* 0x030b */
    char tag[16];
    char library[PATH_MAX];
    char folder[64];                  /* as the process sees it */
    int answer;                       /* a pipe that lies there */
    int script;                       /* a file that lies there, from 3.14 on */
    uint64_t gate, restore, restored; /* places in its code: see attach_find_gates */
    int32_t main_id;                  /* of CPython's main thread; 0: not known yet */
    bool is_told;                     /* its pending call is to look at the script */
    char hindrance[512];              /* why it could not be woken out of its wait */
} attach_target;

/* ---- small things ------------------------------------------------------------------------------------------- */

/* Why it cannot be. Always false. */
__attribute__((format(printf, 2, 3))) static bool attach_refuse(attach_target *target, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(target->why, target->why_size, format, values);
    va_end(values);
    return false;
}

static uint64_t attach_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool attach_is_late(const attach_target *target) {
    return attach_now() >= target->deadline_ns;
}

static void attach_pause(uint64_t ns) {
    const struct timespec pause = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    (void)nanosleep(&pause, NULL);
}

static bool attach_read(const attach_target *target, uint64_t at, void *to, size_t size) {
    return pread(target->memory, to, size, (off_t)at) == (ssize_t)size;
}

static bool attach_write(const attach_target *target, uint64_t at, const void *from, size_t size) {
    return pwrite(target->memory, from, size, (off_t)at) == (ssize_t)size;
}

/* The first bytes of a file, as a text. False: it cannot be read. */
static bool attach_read_text(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, text, size - 1) : -1;
    if (file >= 0) {
        close(file);
    }
    text[length > 0 ? length : 0] = '\0';
    return length >= 0;
}

/* ---- whether it may be -------------------------------------------------------------------------------------- */

/* The number behind a name in /proc/PID/status; 0: it is not there. */
static long attach_field(const char *status, const char *name) {
    const char *at = strstr(status, name);
    return at != NULL ? strtol(at + strlen(name), NULL, 10) : 0;
}

static bool attach_refuse_rights(attach_target *target) {
    char scope[16];
    long pid = target->order->pid;
    int level = attach_read_text("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof scope) ? atoi(scope) : 0;
    if (level == 1) {
        return attach_refuse(target,
                             "process %ld may be traced by its parents and root only, as the setting "
                             "kernel.yama.ptrace_scope is 1: call pyprof-ctl as root, or set that to 0",
                             pid);
    }
    if (level == 2) {
        return attach_refuse(
            target,
            "process %ld may be traced by root only, as the setting kernel.yama.ptrace_scope is 2: call "
            "pyprof-ctl as root (in a container, one with CAP_SYS_PTRACE)",
            pid);
    }
    if (level > 2) {
        return attach_refuse(target,
                             "process %ld may be traced by nobody, as the setting kernel.yama.ptrace_scope is %d: only "
                             "a start of the machine without it changes that",
                             pid, level);
    }
    return attach_refuse(target,
                         "process %ld may not be traced from here: it has other rights than pyprof-ctl (its user, its "
                         "capabilities, prctl PR_SET_DUMPABLE), or this is a container without CAP_SYS_PTRACE",
                         pid);
}

/* Refuses by what the kernel tells of the process. */
static bool attach_look_at_status(attach_target *target) {
    char path[64], status[8192];
    long pid = target->order->pid;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    if (!attach_read_text(path, status, sizeof status)) {
        return attach_refuse(target, "there is no process %ld", pid);
    }
    const char *state = strstr(status, "\nState:\t");
    char letter = state != NULL ? state[8] : '?';
    target->uid = (uid_t)attach_field(status, "\nUid:");
    target->gid = (gid_t)attach_field(status, "\nGid:");
    if (attach_field(status, "\nTgid:") != pid) {
        return attach_refuse(target, "%ld is a thread: name its process, %ld", pid, attach_field(status, "\nTgid:"));
    }
    if (letter == 'Z' || letter == 'X') {
        return attach_refuse(target, "process %ld has ended, only its parent has not asked for its status yet", pid);
    }
    if (attach_field(status, "\nTracerPid:") != 0) {
        return attach_refuse(target, "process %ld is traced by process %ld (a debugger, strace): only one can do that",
                             pid, attach_field(status, "\nTracerPid:"));
    }
    if (letter == 'T' || letter == 't') {
        return attach_refuse(target, "process %ld is stopped: have it go on first, by 'kill -CONT %ld'", pid, pid);
    }
    if (target->uid != geteuid() && geteuid() != 0) {
        return attach_refuse(target, "process %ld is of user %lu: only that user and root may attach to it", pid,
                             (unsigned long)target->uid);
    }
    if (attach_field(status, "\nSeccomp:") == 1) {
        return attach_refuse(target, "process %ld may call nothing but read, write and exit (seccomp's strict mode)",
                             pid);
    }
    return true;
}

/* It is there until its parent has asked for its status. */
static bool attach_has_ended(const attach_target *target) {
    char path[64], status[8192];
    snprintf(path, sizeof path, "/proc/%ld/status", target->order->pid);
    const char *state = attach_read_text(path, status, sizeof status) ? strstr(status, "\nState:\t") : NULL;
    bool is_gone = kill((pid_t)target->order->pid, 0) != 0 && errno == ESRCH;
    return is_gone || (state != NULL && (state[8] == 'Z' || state[8] == 'X'));
}

static bool attach_open_memory(attach_target *target) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/mem", target->order->pid);
    target->memory = open(path, O_RDWR | O_CLOEXEC);
    if (target->memory >= 0) {
        return true;
    }
    return errno == EACCES || errno == EPERM
               ? attach_refuse_rights(target)
               : attach_refuse(target, "process %ld: cannot open its memory: %s", target->order->pid, strerror(errno));
}

/* ---- CPython in it ------------------------------------------------------------------------------------------ */

/* A file that is mapped into the process, read from here. */
typedef struct attach_file {
    const char *data;
    size_t size;
    uint64_t bias; /* from its addresses to those in the process */
} attach_file;

typedef struct attach_mapping {
    uint64_t start, end, offset;
    bool is_code;
    char path[PATH_MAX];
} attach_mapping;

static bool attach_parse_mapping(char *line, attach_mapping *mapping) {
    int path_at = 0;
    char rights[8] = "";
    line[strcspn(line, "\n")] = '\0';
    int count = sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %n", &mapping->start, &mapping->end,
                       rights, &mapping->offset, &path_at);
    snprintf(mapping->path, sizeof mapping->path, "%s", count == 4 && path_at > 0 ? line + path_at : "");
    mapping->is_code = strchr(rights, 'x') != NULL;
    return count == 4;
}

/* Maps the file of a mapping: by what the kernel holds of it, where we may; else by its path, as the process sees that. */
static bool attach_map_file(const attach_target *target, const attach_mapping *mapping, attach_file *file) {
    char path[PATH_MAX + 64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%ld/map_files/%" PRIx64 "-%" PRIx64, target->order->pid, mapping->start,
             mapping->end);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        snprintf(path, sizeof path, "/proc/%ld/root%s", target->order->pid, mapping->path);
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    bool is_good = descriptor >= 0 && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
                   status.st_size >= (off_t)sizeof(Elf64_Ehdr);
    void *data = MAP_FAILED;
    if (is_good) {
        file->size = (size_t)status.st_size;
        data = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    }
    if (descriptor >= 0) {
        close(descriptor);
    }
    file->data = (const char *)data;
    return data != MAP_FAILED;
}

/* Whether so many things of a size lie in the file there, and where. */
static const void *attach_part(const attach_file *file, uint64_t offset, uint64_t count, uint64_t size) {
    bool is_inside = offset <= file->size && count <= (file->size - offset) / size && offset % 4 == 0;
    return is_inside ? file->data + offset : NULL;
}

static bool attach_find_bias(attach_file *file, const attach_mapping *mapping) {
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)file->data;
    if (memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64) {
        return false;
    }
    const Elf64_Phdr *segments = (const Elf64_Phdr *)attach_part(file, head->e_phoff, head->e_phnum, sizeof *segments);
    const uint64_t page = ~(uint64_t)0xfff;
    for (unsigned i = 0; segments != NULL && i < head->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD && (segments[i].p_offset & page) == mapping->offset) {
            file->bias = mapping->start - (segments[i].p_vaddr & page);
            return true;
        }
    }
    return false;
}

static void attach_take_symbols(attach_target *target, const attach_file *file, const Elf64_Shdr *table,
                                const Elf64_Shdr *names) {
    const Elf64_Sym *symbols =
        (const Elf64_Sym *)attach_part(file, table->sh_offset, table->sh_size / sizeof *symbols, sizeof *symbols);
    const char *text = (const char *)attach_part(file, names->sh_offset & ~(uint64_t)3, names->sh_size + 3, 1);
    size_t skipped = (size_t)(names->sh_offset & 3);
    for (uint64_t i = 0; symbols != NULL && text != NULL && i < table->sh_size / sizeof *symbols; i++) {
        uint64_t left = symbols[i].st_name < names->sh_size ? names->sh_size - symbols[i].st_name : 0;
        const char *name = text + skipped + symbols[i].st_name;
        if (symbols[i].st_shndx == SHN_UNDEF || left < 10 || (name[0] != 'P' && name[0] != '_')) {
            continue;
        }
        for (int n = 0; n < ATTACH_SYMBOLS; n++) {
            size_t length = strlen(attach_names[n]) + 1;
            if (length <= left && memcmp(name, attach_names[n], length) == 0) {
                target->symbols[n].at = file->bias + symbols[i].st_value;
                target->symbols[n].size = symbols[i].st_size;
            }
        }
    }
}

/* Whether the code of a function is in the process what it is in the file: else that is another one of its name, or the file
   was replaced since. */
static bool attach_is_same(const attach_target *target, const attach_file *file, const attach_symbol *symbol) {
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)file->data;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)attach_part(file, head->e_phoff, head->e_phnum, sizeof *segments);
    uint64_t address = symbol->at - file->bias;
    char there[32];
    for (unsigned i = 0; segments != NULL && i < head->e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && address >= segment->p_vaddr &&
            address - segment->p_vaddr + sizeof there <= segment->p_filesz) {
            uint64_t offset = segment->p_offset + address - segment->p_vaddr;
            return offset + sizeof there <= file->size && attach_read(target, symbol->at, there, sizeof there) &&
                   memcmp(there, file->data + offset, sizeof there) == 0;
        }
    }
    return false;
}

/* Whether the file has all that is needed, and is what the process runs. */
static bool attach_search_file(attach_target *target, attach_file *file, const attach_mapping *mapping) {
    if (!attach_find_bias(file, mapping)) {
        return false;
    }
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)file->data;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)attach_part(file, head->e_shoff, head->e_shnum, sizeof *sections);
    memset(target->symbols, 0, sizeof target->symbols);
    for (unsigned i = 0; sections != NULL && i < head->e_shnum; i++) {
        bool is_table = sections[i].sh_type == SHT_DYNSYM || sections[i].sh_type == SHT_SYMTAB;
        if (is_table && sections[i].sh_link < head->e_shnum) {
            attach_take_symbols(target, file, &sections[i], &sections[sections[i].sh_link]);
        }
    }
    for (int n = 0; n <= ATTACH_LAST_NEEDED; n++) {
        if (target->symbols[n].at == 0 || (n < ATTACH_RUNTIME && !attach_is_same(target, file, &target->symbols[n]))) {
            return false;
        }
    }
    return true;
}

static bool attach_has_python(attach_target *target, const attach_mapping *mapping) {
    attach_file file = {0};
    if (!attach_map_file(target, mapping, &file)) {
        return false;
    }
    bool has = attach_search_file(target, &file, mapping);
    munmap((void *)(uintptr_t)file.data, file.size);
    return has;
}

/* Where ld.so is; and the file that has CPython: the program, or a library of any name. Only code is looked at: a program may
   have mapped the same files once more, to read them (Rust's backtraces do, to find names), and nothing runs there. */
static bool attach_find_python(attach_target *target) {
    char path[64];
    attach_mapping mapping;
    snprintf(path, sizeof path, "/proc/%ld/maps", target->order->pid);
    FILE *maps = fopen(path, "re");
    char line[PATH_MAX + 128], last[PATH_MAX] = "";
    bool is_found = false;
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (!attach_parse_mapping(line, &mapping) || !mapping.is_code) {
            continue;
        }
        if (strstr(mapping.path, "/ld-") != NULL) {
            target->loader = target->loader_size == 0 ? mapping.start : target->loader;
            target->loader_size = mapping.end - target->loader;
        } else if (!is_found && mapping.path[0] == '/' && strcmp(mapping.path, last) != 0) {
            memcpy(last, mapping.path, sizeof last);
            is_found = attach_has_python(target, &mapping);
        }
    }
    if (maps == NULL || ferror(maps)) {
        (void)attach_refuse_rights(target);
    } else if (!is_found) {
        (void)attach_refuse(
            target,
            "no CPython was found in process %ld: neither its program nor its libraries have the names of "
            "its functions (there is none, or they were stripped, or its file was replaced since)",
            target->order->pid);
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return is_found;
}

static bool attach_find_version(attach_target *target) {
    const attach_symbol *symbols = target->symbols;
    unsigned long version = 0;
    if (symbols[ATTACH_VERSION].at != 0) {
        if (!attach_read(target, symbols[ATTACH_VERSION].at, &version, sizeof version)) {
            return attach_refuse(target, "process %ld: its memory cannot be read: %s", target->order->pid,
                                 strerror(errno));
        }
        target->version = (unsigned)(version >> 16) & 0xffff;
    } else {
        target->version = symbols[ATTACH_OF_3_10].at != 0  ? 0x030a
                          : symbols[ATTACH_OF_3_9].at != 0 ? 0x0309
                          : symbols[ATTACH_OF_3_8].at != 0 ? 0x0308
                                                           : 0;
    }
    if (target->version < 0x0308 || target->version > 0x030f) {
        return attach_refuse(target, "process %ld has a CPython that is not supported: 3.8 to 3.15 are",
                             target->order->pid);
    }
    snprintf(target->tag, sizeof target->tag, "3.%u%s%s", target->version & 0xff,
             symbols[ATTACH_FREE_THREADED].at != 0 ? "t" : "", symbols[ATTACH_DEBUG].at != 0 ? "d" : "");
    return true;
}

/* ---- the library -------------------------------------------------------------------------------------------- */

/* Which file is loaded: the one that was asked for, or libpyprof-TAG.so beside this program (as it was built), or where it
   is installed. */
static bool attach_choose_library(attach_target *target) {
    char self[PATH_MAX], path[2 * PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    char *name = strrchr(self, '/');
    if (name != NULL) {
        *name = '\0';
    }
    if (target->order->library != NULL) {
        snprintf(path, sizeof path, "%s", target->order->library);
    } else {
        snprintf(path, sizeof path, "%s/libpyprof-%s.so", self, target->tag);
        if (access(path, F_OK) != 0) {
            bool is_whole = ATTACH_LIBRARIES[0] == '/';
            snprintf(path, sizeof path, "%s%s%s/libpyprof-%s.so", is_whole ? "" : self, is_whole ? "" : "/",
                     ATTACH_LIBRARIES, target->tag);
        }
    }
    if (realpath(path, target->library) != NULL) {
        return true;
    }
    return target->order->library != NULL
               ? attach_refuse(target, "--library: %s: %s", path, strerror(errno))
               : attach_refuse(
                     target,
                     "process %ld has CPython %s, for which there is no library here (%s): build pyprof for that "
                     "CPython, or name the library by --library",
                     target->order->pid, target->tag, path);
}

/* A process in a container sees other files. */
static bool attach_look_at_library(attach_target *target) {
    char path[PATH_MAX + 64];
    if (!attach_choose_library(target)) {
        return false;
    }
    snprintf(path, sizeof path, "/proc/%ld/root%s", target->order->pid, target->library);
    if (access(path, F_OK) != 0) {
        return attach_refuse(
            target, "process %ld sees other files (it is in a container): %s has to be there, at the same path",
            target->order->pid, target->library);
    }
    return true;
}

/* ---- what runs in the process -------------------------------------------------------------------------------- */

/* In a namespace of its own. It finds by the pipe whether somebody waits for the answer still; if not, it does nothing. It
   reads from the pipe itself, too: so there is no SIGPIPE for the program if who waits gives up in this moment. No files of
   the standard library are imported. What it raises itself is its answer; what the program raises meanwhile (a signal
   handler) goes on to the program. The two are told apart by the code of their innermost frame. */
static const char attach_script[] =
    "def load(library):\n"
    "    import sys, _frozen_importlib as plain, _frozen_importlib_external as external\n"
    "    engine = getattr(sys.modules.get('pyprof'), '_engine', None)\n"
    "    if not hasattr(engine, 'listen'):\n"
    "        loader = external.ExtensionFileLoader('_engine', library)\n"
    "        engine = loader.create_module(plain.ModuleSpec('_engine', loader, origin=library))\n"
    "        loader.exec_module(engine)\n"
    "    return engine\n"
    "def listen(library, is_undone):\n"
    "    engine = load(library)\n"
    "    if is_undone and engine.is_active():\n"
    "        raise RuntimeError('it is being recorded: end that first, by pyprof-ctl stop')\n"
    "    if is_undone:\n"
    "        engine.unlisten()\n"
    "        return ''\n"
    "    try:\n"
    "        return engine.listen(None)\n"
    "    except engine.AlreadyActiveError as error:\n"
    "        return str(error).split(', at ', 1)[1]\n"
    "def attach(pipe, library, is_undone):\n"
    "    import posix\n"
    "    try:\n"
    "        answer = posix.open(pipe, posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)\n"
    "    except OSError:\n"
    "        return\n"
    "    try:\n"
    "        reader = posix.open(pipe, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)\n"
    "    except OSError:\n"
    "        posix.close(answer)\n"
    "        return\n"
    "    said = 'error an exception of the program came in between: attach again'\n"
    "    try:\n"
    "        said = 'ok ' + listen(library, is_undone)\n"
    "    except Exception as error:\n"
    "        trace = error.__traceback__\n"
    "        while trace.tb_next is not None:\n"
    "            trace = trace.tb_next\n"
    "        code = trace.tb_frame.f_code\n"
    "        if code not in own and not code.co_filename.startswith('<frozen importlib'):\n"
    "            raise\n"
    "        said = 'error %s: %s' % (type(error).__name__, error)\n"
    "    finally:\n"
    "        posix.write(answer, said.encode('utf-8', 'surrogateescape')[:4000])\n"
    "        posix.close(answer)\n"
    "        posix.close(reader)\n"
    "own = [function.__code__ for function in (load, listen, attach)]\n";

/* Where CPython runs the script itself (3.14), it would print a KeyboardInterrupt and forget it. */
static const char attach_plain_call[] = "attach(b'%s', bytes.fromhex('%s').decode('utf-8', 'surrogateescape'), %s)\n";
static const char attach_guarded_call[] =
    "try:\n"
    "    attach(b'%s', bytes.fromhex('%s').decode('utf-8', 'surrogateescape'), %s)\n"
    "except KeyboardInterrupt:\n"
    "    import _thread\n"
    "    _thread.interrupt_main()\n";

/* False: its path is too long. */
static bool attach_make_script(attach_target *target, bool is_guarded, char *text, size_t size) {
    char hex[2 * PATH_MAX + 1] = "", pipe[80];
    for (size_t i = 0; target->library[i] != '\0'; i++) {
        snprintf(hex + 2 * i, 3, "%02x", (unsigned)(unsigned char)target->library[i]);
    }
    snprintf(pipe, sizeof pipe, "%s/answer", target->folder);
    int length = snprintf(text, size, "%s", attach_script);
    const char *is_undone = target->order->is_undone ? "True" : "False";
    int more = is_guarded ? snprintf(text + length, size - (size_t)length, attach_guarded_call, pipe, hex, is_undone)
                          : snprintf(text + length, size - (size_t)length, attach_plain_call, pipe, hex, is_undone);
    return (size_t)length + (size_t)more < size || attach_refuse(target, "the path of the library is too long");
}

/* ---- its answer --------------------------------------------------------------------------------------------- */

/* A path in the folder of this attach, as it is reached from here; name "" = the folder's. */
static const char *attach_path(const attach_target *target, const char *name, char *path, size_t size) {
    snprintf(path, size, "/proc/%ld/root%s%s%s", target->order->pid, target->folder, name[0] != '\0' ? "/" : "", name);
    return path;
}

/* A folder that both see, and a pipe in it, for the process's user. */
static bool attach_make_folder(attach_target *target) {
    char path[PATH_MAX], prefix[64];
    snprintf(target->folder, sizeof target->folder, "/tmp/pyprof-attach-%ld-XXXXXX", target->order->pid);
    snprintf(prefix, sizeof prefix, "/proc/%ld/root", target->order->pid);
    attach_path(target, "", path, sizeof path);
    if (mkdtemp(path) == NULL) {
        target->folder[0] = '\0';
        return attach_refuse(target, "process %ld: cannot make a folder in its /tmp: %s", target->order->pid,
                             strerror(errno));
    }
    snprintf(target->folder, sizeof target->folder, "%.60s", path + strlen(prefix));
    bool is_good = geteuid() != 0 || chown(path, target->uid, target->gid) == 0;
    attach_path(target, "answer", path, sizeof path);
    is_good = is_good && mkfifo(path, 0600) == 0 && (geteuid() != 0 || chown(path, target->uid, target->gid) == 0);
    target->answer = is_good ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    return target->answer >= 0 ||
           attach_refuse(target, "cannot make a pipe in %s: %s", target->folder, strerror(errno));
}

static void attach_remove_folder(attach_target *target) {
    static const char *const names[] = {"answer", "script.py", ""};
    char path[PATH_MAX];
    if (target->answer >= 0) {
        close(target->answer);
    }
    if (target->script >= 0) {
        close(target->script);
    }
    for (size_t i = 0; target->folder[0] != '\0' && i < sizeof names / sizeof *names; i++) {
        (void)remove(attach_path(target, names[i], path, sizeof path));
        snprintf(path, sizeof path, "%s/%s", target->folder,
                 names[i]); /* the process may have ended, and its root with it */
        (void)remove(path);
    }
}

enum {
    ATTACH_WAKE_NS = 50000000 /* after which it is seen whether the main thread waits for a lock */
};

static pid_t attach_find_thread(const attach_target *target);

/* Which thread CPython's main thread is, where it is not the process's first: as ("NAME", ID). */
static void attach_describe_main(const attach_target *target, char *to, size_t size) {
    pid_t thread = attach_find_thread(target);
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%ld/task/%d/comm", target->order->pid, (int)thread);
    FILE *comm = fopen(path, "re");
    if (comm != NULL) {
        (void)!fgets(name, sizeof name, comm);
        fclose(comm);
    }
    name[strcspn(name, "\n")] = '\0';
    to[0] = '\0';
    if (thread != (pid_t)target->order->pid) {
        snprintf(to, size, " (\"%s\", %d)", name, (int)thread);
    }
}

static bool attach_refuse_late(attach_target *target) {
    char main_thread[100];
    if (target->hindrance[0] != '\0') {
        return attach_refuse(
            target, "the main thread of process %ld waits, and cannot be woken: %s (nothing comes of this later)",
            target->order->pid, target->hindrance);
    }
    attach_describe_main(target, main_thread, sizeof main_thread);
    return attach_refuse(
        target,
        "process %ld has run no Python in its main thread%s for %g s: it waits, or runs C code. It was left as "
        "it is, and nothing comes of this later: try again when it goes on, or with a longer --timeout",
        target->order->pid, main_thread, target->order->timeout_s);
}

static void attach_wake(attach_target *target);

/* Until the script has answered. False: it said why not, or said nothing in time. */
static bool attach_wait_for_answer(attach_target *target, char *path, size_t size) {
    char text[4096];
    struct pollfd answer = {target->answer, POLLIN, 0};
    uint64_t pause = ATTACH_WAKE_NS, next = attach_now() + pause;
    while (poll(&answer, 1, 20) <= 0) {
        if (attach_now() >= next) {
            attach_wake(target);
            pause = pause < 8 * ATTACH_WAKE_NS ? 2 * pause : pause;
            next = attach_now() + pause;
        }
        if (attach_has_ended(target)) {
            return attach_refuse(target, "process %ld has ended", target->order->pid);
        }
        if (attach_is_late(target)) {
            return attach_refuse_late(target);
        }
    }
    ssize_t length = read(target->answer, text, sizeof text - 1);
    if (length <= 0) {
        return attach_refuse(target, "process %ld ended before it had answered", target->order->pid);
    }
    text[length] = '\0';
    if (strncmp(text, "ok ", 3) != 0) {
        return attach_refuse(target, "process %ld: %s", target->order->pid,
                             strncmp(text, "error ", 6) == 0 ? text + 6 : text);
    }
    struct stat ours, its;
    char root[PATH_MAX];
    snprintf(root, sizeof root, "/proc/%ld/root%.4000s", target->order->pid, text + 3);
    bool is_same =
        stat(text + 3, &ours) == 0 && stat(root, &its) == 0 && ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
    snprintf(path, size, "%s", is_same || text[3] == '\0' ? text + 3 : root);
    return true;
}

/* ---- from 3.14 on: what CPython has for debuggers ------------------------------------------------------------ */

/* Where it is in _PyRuntime, which begins with the description of itself (_Py_DebugOffsets). */
enum {
    ATTACH_AT_FINALIZING = 32,
    ATTACH_AT_INTERPRETERS = 40,
    ATTACH_AT_INTERPRETER_ID = 56,
    ATTACH_AT_INTERPRETER_NEXT = 64,
    ATTACH_AT_THREADS = 72,
    ATTACH_AT_MAIN_THREAD = 80,
    ATTACH_AT_DEBUGGER_3_14 = 712,
    ATTACH_AT_DEBUGGER_3_15 = 840,
    ATTACH_AT_THREAD_NEXT = 192,
    ATTACH_AT_THREAD_ID_3_14 = 224,
    ATTACH_AT_THREAD_ID_3_15 = 248,
    ATTACH_SCRIPT_PATH_SIZE = 512,
    ATTACH_MAIN_STATE_3_14 = 840, /* behind that description, and not told of there */
    ATTACH_MAIN_STATE_3_15 = 968
};

/* Of the eval breaker's lowest byte: the look at the script; and signals, pending calls, an asynchronous exception (and
   what free-threaded builds have to merge), which may be set by others while we write the byte, and would be lost. Each may
   come without cause: CPython looks, and finds nothing to do. Not so the request to give the GIL away, which waits until
   somebody has taken it: that is never set here, and who waits for the GIL sets it again after 5 ms. */
enum {
    ATTACH_BREAKER = 1 << 5 | 1 << 1 | 1 << 2 | 1 << 3,
    ATTACH_BREAKER_FREE_THREADED = 1 << 6,
    ATTACH_BREAKER_GIL = 1 << 0
};

/* As in _Py_DebugOffsets. */
typedef struct attach_debugger {
    uint64_t eval_breaker, support, is_enabled, pending_call, script_path, script_path_size;
} attach_debugger;

typedef struct attach_place {
    attach_debugger offsets;
    uint64_t interpreter, thread; /* the main ones; 0 = there is none (yet, or any more) */
} attach_place;

static bool attach_follow(const attach_target *target, uint64_t at, uint64_t by, uint64_t *to) {
    uint64_t offset;
    return attach_read(target, target->symbols[ATTACH_RUNTIME].at + by, &offset, sizeof offset) && offset < 1 << 24 &&
           attach_read(target, at + offset, to, sizeof *to);
}

/* A program that has CPython inside need not say which its main thread is (as python3 does): then it is the one in which CPython
   was begun, if that is one of the interpreter's still. */
static bool attach_find_embedded_thread(const attach_target *target, attach_place *place) {
    uint64_t runtime = target->symbols[ATTACH_RUNTIME].at, main_state = 0, thread = 0;
    uint64_t at = target->version == 0x030e ? ATTACH_MAIN_STATE_3_14 : ATTACH_MAIN_STATE_3_15;
    bool is_read = attach_read(target, runtime + at, &main_state, sizeof main_state) &&
                   attach_follow(target, place->interpreter, ATTACH_AT_THREADS, &thread);
    for (int i = 0; i < 10000 && is_read && thread != 0 && thread != main_state; i++) {
        is_read = attach_follow(target, thread, ATTACH_AT_THREAD_NEXT, &thread);
    }
    place->thread = is_read && thread == main_state ? thread : 0;
    return is_read;
}

/* False: it cannot be read, which is so if it ends. */
static bool attach_find_main_thread(const attach_target *target, attach_place *place) {
    uint64_t runtime = target->symbols[ATTACH_RUNTIME].at, id = 1, finalizing;
    place->thread = 0;
    if (!attach_follow(target, runtime, ATTACH_AT_FINALIZING, &finalizing) ||
        !attach_follow(target, runtime, ATTACH_AT_INTERPRETERS, &place->interpreter)) {
        return false;
    }
    for (int i = 0; i < 10000 && finalizing == 0 && place->interpreter != 0 && id != 0; i++) {
        if (!attach_follow(target, place->interpreter, ATTACH_AT_INTERPRETER_ID, &id) ||
            (id != 0 && !attach_follow(target, place->interpreter, ATTACH_AT_INTERPRETER_NEXT, &place->interpreter))) {
            return false;
        }
    }
    if (finalizing != 0 || place->interpreter == 0 || id != 0) {
        return true;
    }
    return attach_follow(target, place->interpreter, ATTACH_AT_MAIN_THREAD, &place->thread) &&
           (place->thread != 0 || attach_find_embedded_thread(target, place));
}

/* Whether the description is one that we know. */
static bool attach_find_debugger(attach_target *target, attach_place *place) {
    uint64_t runtime = target->symbols[ATTACH_RUNTIME].at;
    char cookie[8] = "";
    uint64_t at = target->version == 0x030e ? ATTACH_AT_DEBUGGER_3_14 : ATTACH_AT_DEBUGGER_3_15;
    bool is_known = attach_read(target, runtime, cookie, sizeof cookie) && memcmp(cookie, "xdebugpy", 8) == 0 &&
                    attach_read(target, runtime + at, &place->offsets, sizeof place->offsets) &&
                    place->offsets.script_path_size == ATTACH_SCRIPT_PATH_SIZE && place->offsets.pending_call == 0 &&
                    place->offsets.script_path == 4;
    return is_known || attach_refuse(target, "process %ld: its CPython %s describes itself in a way that is not known",
                                     target->order->pid, target->tag);
}

/* Whether the script that it is to run is of an attach that has ended without taking it back (it was killed): nobody has it
   locked any more. */
static bool attach_is_left_behind(const attach_target *target, const attach_place *place) {
    static const char ours[] = "/tmp/pyprof-attach-";
    char script[ATTACH_SCRIPT_PATH_SIZE + 1] = "", path[PATH_MAX];
    uint64_t at = place->thread + place->offsets.support + place->offsets.script_path;
    if (!attach_read(target, at, script, ATTACH_SCRIPT_PATH_SIZE) || strncmp(script, ours, sizeof ours - 1) != 0) {
        return false;
    }
    snprintf(path, sizeof path, "/proc/%ld/root%s", target->order->pid, script);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool is_left = file >= 0 ? flock(file, LOCK_EX | LOCK_NB) == 0 : errno == ENOENT;
    if (file >= 0) {
        close(file);
    }
    return is_left;
}

/* Waits until there is a main thread that may be asked. */
static bool attach_await_main_thread(attach_target *target, attach_place *place) {
    int32_t is_enabled = 1, is_asked = 0;
    long pid = target->order->pid;
    while (!attach_find_main_thread(target, place) || place->thread == 0) {
        if (attach_is_late(target) || (kill((pid_t)pid, 0) != 0 && errno == ESRCH)) {
            return attach_refuse(target, "process %ld has no Python that runs: it did not begin, or has ended", pid);
        }
        attach_pause(2000000);
    }
    (void)attach_read(target, place->interpreter + place->offsets.is_enabled, &is_enabled, sizeof is_enabled);
    (void)attach_read(target, place->thread + place->offsets.support, &is_asked, sizeof is_asked);
    if (is_enabled == 0) {
        return attach_refuse(
            target,
            "process %ld was started with PYTHON_DISABLE_REMOTE_DEBUG or -X disable_remote_debug: start it "
            "without",
            pid);
    }
    return is_asked == 0 || attach_is_left_behind(target, place) ||
           attach_refuse(target, "process %ld is to run the script of another debugger: try again", pid);
}

/* It is locked for as long as it is to be run. */
static bool attach_write_script(attach_target *target) {
    char path[PATH_MAX], text[sizeof attach_script + 3 * PATH_MAX];
    if (!attach_make_script(target, true, text, sizeof text)) {
        return false;
    }
    int file = open(attach_path(target, "script.py", path, sizeof path), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t size = strlen(text);
    bool is_good = file >= 0 && flock(file, LOCK_EX) == 0 && write(file, text, size) == (ssize_t)size &&
                   (geteuid() != 0 || fchown(file, target->uid, target->gid) == 0);
    target->script = file;
    return is_good || attach_refuse(target, "cannot write a script into %s: %s", target->folder, strerror(errno));
}

/* Asks the main thread to run the script. Where in the eval breaker's word the version of its tracing is, is not written. */
static bool attach_ask_debugger(attach_target *target, attach_place *place) {
    char path[80];
    uint8_t breaker = 0;
    const int32_t is_asked = 1;
    if (!attach_find_debugger(target, place) || !attach_await_main_thread(target, place) ||
        !attach_write_script(target)) {
        place->thread = 0;
        return false;
    }
    uint64_t support = place->thread + place->offsets.support, at = place->thread + place->offsets.eval_breaker, id = 0;
    uint64_t at_id = target->version == 0x030e ? ATTACH_AT_THREAD_ID_3_14 : ATTACH_AT_THREAD_ID_3_15;
    bool is_read = attach_follow(target, place->thread, at_id, &id);
    target->main_id = is_read && id < INT32_MAX ? (int32_t)id : 0;
    bool is_free_threaded = target->symbols[ATTACH_FREE_THREADED].at != 0;
    snprintf(path, sizeof path, "%s/script.py", target->folder);
    bool is_good = attach_write(target, support + place->offsets.script_path, path, strlen(path) + 1) &&
                   attach_write(target, support, &is_asked, sizeof is_asked) &&
                   attach_read(target, at, &breaker, sizeof breaker);
    breaker = (uint8_t)((breaker & ~ATTACH_BREAKER_GIL) | ATTACH_BREAKER |
                        (is_free_threaded ? ATTACH_BREAKER_FREE_THREADED : 0));
    return (is_good && attach_write(target, at, &breaker, sizeof breaker)) ||
           attach_refuse(target, "process %ld: cannot write into its memory: %s", target->order->pid, strerror(errno));
}

/* So that nothing comes of it later. Who has seen the question is given the time to open the script. */
static void attach_take_back(const attach_target *target, const attach_place *place) {
    attach_place now = *place;
    const int32_t is_asked = 0;
    int32_t was_asked = 0;
    struct pollfd answer = {target->answer, POLLIN, 0};
    if (place->thread != 0 && attach_find_main_thread(target, &now) && now.thread == place->thread) {
        uint64_t at = now.thread + now.offsets.support;
        (void)attach_read(target, at, &was_asked, sizeof was_asked);
        (void)attach_write(target, at, &is_asked, sizeof is_asked);
        (void)poll(&answer, 1, was_asked != 0 ? 50 : 1000);
    }
}

/* ---- ptrace: before 3.14, and where the main thread waits for a lock ------------------------------------------ */

#if defined(__x86_64__)

enum {
    ATTACH_STOP_NS = 1000000000, /* what the kernel may take to stop a thread, and a call to return */
    ATTACH_DEPTH = 12,           /* of frames between a wait in the kernel and who waits */
    ATTACH_ERESTARTSYS = 512,    /* what the kernel has noted of a call that it will begin again */
    ATTACH_ERESTARTNOINTR = 513,
    ATTACH_ERESTARTNOHAND = 514,
    ATTACH_ERESTART_RESTARTBLOCK = 516,
    ATTACH_FRAME_NOTE = 464, /* where in a signal's frame it stands what follows there of vector registers */
    ATTACH_FRAME_MAGIC = 0x46505853,
    ATTACH_FRAME_MAGIC_OF_END = 0x46505845,
    ATTACH_RED_ZONE = 128, /* below a function's stack, which it may use all the same */
    ATTACH_REPORT = 160,   /* behind the code that is called */
    ATTACH_DATA = 192,
    ATTACH_BUILTINS = ATTACH_DATA + 48,
    ATTACH_NAME = ATTACH_DATA + 64,
    ATTACH_TEXT = ATTACH_DATA + 80
};

/* int call(struct { six functions; char builtins[16]; char name[16]; char text[]; } *data): runs the text in a new dict.
   -1: it raised. Not by PyRun_String, with which CPython takes a KeyboardInterrupt that the program catches for one that
   nobody did, and ends by SIGINT later. */
static const char attach_code[] =
    /* clang-format off */
    "\xf3\x0f\x1e\xfa"       /*       endbr64 */
    "\x53"                   /*       push rbx */
    "\x41\x54"               /*       push r12 */
    "\x41\x55"               /*       push r13 */
    "\x41\x56"               /*       push r14 */
    "\x48\x83\xec\x08"       /*       sub rsp, 8 */
    "\x48\x89\xfb"           /*       mov rbx, rdi */
    "\x45\x31\xed"           /*       xor r13d, r13d */
    "\x45\x31\xf6"           /*       xor r14d, r14d */
    "\xff\x13"               /*       call [rbx]                  PyDict_New() */
    "\x49\x89\xc4"           /*       mov r12, rax */
    "\x48\x85\xc0"           /*       test rax, rax */
    "\x74\x3b"               /*       jz done */
    "\xff\x53\x08"           /*       call [rbx + 8]              PyEval_GetBuiltins() */
    "\x4c\x89\xe7"           /*       mov rdi, r12 */
    "\x48\x8d\x73\x30"       /*       lea rsi, [rbx + 48] */
    "\x48\x89\xc2"           /*       mov rdx, rax */
    "\xff\x53\x10"           /*       call [rbx + 16]             PyDict_SetItemString(dict, "__builtins__", it) */
    "\x85\xc0"               /*       test eax, eax */
    "\x75\x27"               /*       jnz done */
    "\x48\x8d\x7b\x50"       /*       lea rdi, [rbx + 80] */
    "\x48\x8d\x73\x40"       /*       lea rsi, [rbx + 64] */
    "\xba\x01\x01\x00\x00"   /*       mov edx, Py_file_input */
    "\xff\x53\x18"           /*       call [rbx + 24]             Py_CompileString(text, name, Py_file_input) */
    "\x49\x89\xc5"           /*       mov r13, rax */
    "\x48\x85\xc0"           /*       test rax, rax */
    "\x74\x0f"               /*       jz done */
    "\x48\x89\xc7"           /*       mov rdi, rax */
    "\x4c\x89\xe6"           /*       mov rsi, r12 */
    "\x4c\x89\xe2"           /*       mov rdx, r12 */
    "\xff\x53\x20"           /*       call [rbx + 32]             PyEval_EvalCode(code, dict, dict) */
    "\x49\x89\xc6"           /*       mov r14, rax */
    "\x4c\x89\xf7"           /* done: mov rdi, r14 */
    "\xff\x53\x28"           /*       call [rbx + 40]             Py_DecRef(result or NULL) */
    "\x4c\x89\xef"           /*       mov rdi, r13 */
    "\xff\x53\x28"           /*       call [rbx + 40]             Py_DecRef(code or NULL) */
    "\x4c\x89\xe7"           /*       mov rdi, r12 */
    "\xff\x53\x28"           /*       call [rbx + 40]             Py_DecRef(dict or NULL) */
    "\x49\x83\xfe\x01"       /*       cmp r14, 1 */
    "\x19\xc0"               /*       sbb eax, eax */
    "\x48\x83\xc4\x08"       /*       add rsp, 8 */
    "\x41\x5e"               /*       pop r14 */
    "\x41\x5d"               /*       pop r13 */
    "\x41\x5c"               /*       pop r12 */
    "\x5b"                   /*       pop rbx */
    "\xc3";                  /*       ret */
/* clang-format on */

/* Where a function of the process returns to of which it is asked what it returned: getpid, with that as the first value that
   it does not look at. It is seen at its call. */
static const char attach_report[] = "\x89\xc7"             /* mov edi, eax */
                                    "\x59"                 /* pop rcx */
                                    "\xb8\x27\x00\x00\x00" /* mov eax, SYS_getpid */
                                    "\x0f\x05"             /* syscall */
                                    "\xc3";                /* ret */

enum {
    ATTACH_REPORTED = 10 /* bytes of that, up to the call's end */
};

/* Where it is in _PyRuntime; and in what the C library has of a thread, that it is that, and its id. */
enum {
    ATTACH_MAIN_THREAD_3_8 = 72, /* to 3.10 */
    ATTACH_MAIN_THREAD_3_11 = 80,
    ATTACH_MAIN_THREAD_3_12 = 64,
    ATTACH_MAIN_THREAD_3_13 = 656,
    ATTACH_TID_GLIBC = 720,
    ATTACH_TID_MUSL = 48
};

/* The id of CPython's main thread, the one that does its pending work: it may be any that a program has begun. Where that
   is not known (yet), the process's first. */
static pid_t attach_find_thread(const attach_target *target) {
    static const uint64_t offsets[] = {ATTACH_MAIN_THREAD_3_8,  ATTACH_MAIN_THREAD_3_8,  ATTACH_MAIN_THREAD_3_8,
                                       ATTACH_MAIN_THREAD_3_11, ATTACH_MAIN_THREAD_3_12, ATTACH_MAIN_THREAD_3_13};
    static const uint64_t ids[] = {ATTACH_TID_GLIBC, ATTACH_TID_MUSL};
    uint64_t thread = 0, self = 0, at = target->symbols[ATTACH_RUNTIME].at;
    char path[64];
    if (target->version > 0x030d) {
        snprintf(path, sizeof path, "/proc/%ld/task/%d", target->order->pid, target->main_id);
        return access(path, F_OK) == 0 ? target->main_id : (pid_t)target->order->pid;
    }
    if (!attach_read(target, at + offsets[target->version - 0x0308], &thread, 8) ||
        !attach_read(target, thread, &self, sizeof self) || thread == 0 || self != thread) {
        return (pid_t)target->order->pid;
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int32_t id = 0;
        bool is_read = attach_read(target, thread + ids[i], &id, sizeof id) && id > 0;
        snprintf(path, sizeof path, "/proc/%ld/task/%d", target->order->pid, id);
        if (is_read && access(path, F_OK) == 0) {
            return id;
        }
    }
    return (pid_t)target->order->pid;
}

/* The main thread while it stands still, and all that it had. */
typedef struct attach_stop {
    attach_target *target;
    pid_t thread;
    struct user_regs_struct registers;
    uint64_t mask;
    char extended[32768]; /* vector registers */
    size_t extended_size;
    uint64_t frame;  /* on its stack: by which it comes back */
    uint64_t report; /* in the block; 0: there is none */
    int kept_signal; /* one that cannot be blocked, and came meanwhile */
    bool has_moved, is_gone;
} attach_stop;

#if defined(__GLIBC__)
typedef enum __ptrace_request attach_request;
#else
typedef int attach_request;
#endif

static long attach_trace(const attach_stop *stop, attach_request request, uint64_t address, const void *data) {
    return ptrace(request, stop->thread, (void *)(uintptr_t)address, data);
}

static bool attach_get_registers(const attach_stop *stop, struct user_regs_struct *registers) {
    return attach_trace(stop, PTRACE_GETREGS, 0, registers) == 0;
}

static bool attach_set_registers(const attach_stop *stop, const struct user_regs_struct *registers) {
    return attach_trace(stop, PTRACE_SETREGS, 0, registers) == 0;
}

/* Until it stands still. False: it does not within a second, or has ended. */
static bool attach_await(attach_stop *stop, int *status) {
    uint64_t last = attach_now() + ATTACH_STOP_NS;
    while (attach_now() < last) {
        pid_t found = waitpid(stop->thread, status, __WALL | WNOHANG);
        if (found == stop->thread && WIFSTOPPED(*status)) {
            return true;
        }
        if (found == stop->thread || (found < 0 && errno != EINTR)) {
            stop->is_gone = true;
            return false;
        }
        attach_pause(20000);
    }
    return false;
}

static bool attach_is_interrupted(int status) {
    return status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) == SIGTRAP;
}

/* Stops it where the kernel looks for signals: registers that are put back there count as those of a system call that was
   interrupted, if they are that. Signals that come first are passed on, or kept if it is ours. */
static bool attach_interrupt(attach_stop *stop) {
    int status;
    if (attach_trace(stop, PTRACE_INTERRUPT, 0, NULL) != 0) {
        return false;
    }
    if (stop->has_moved && attach_trace(stop, PTRACE_CONT, 0, NULL) != 0) {
        return false;
    }
    while (attach_await(stop, &status)) {
        if (attach_is_interrupted(status)) {
            return true;
        }
        bool is_signal = status >> 16 == 0 && WSTOPSIG(status) != (SIGTRAP | 0x80);
        if (is_signal && stop->has_moved) {
            stop->kept_signal = WSTOPSIG(status);
        }
        uint64_t passed = is_signal && !stop->has_moved ? (uint64_t)WSTOPSIG(status) : 0;
        if (attach_trace(stop, PTRACE_CONT, 0, (const void *)(uintptr_t)passed) != 0) {
            return false;
        }
    }
    return false;
}

/* Lets it run to the entry or the exit of its next system call. */
static bool attach_step(attach_stop *stop) {
    int status;
    stop->has_moved = true;
    while (attach_trace(stop, PTRACE_SYSCALL, 0, NULL) == 0 && attach_await(stop, &status)) {
        if (status >> 16 == 0 && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            return true;
        }
        if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP) {
            return false; /* a fault: all other signals are blocked */
        }
        stop->kept_signal = status >> 16 == 0 ? SIGSTOP : stop->kept_signal;
    }
    return false;
}

/* ---- how it comes back, whatever becomes of us ----------------------------------------------------------------- */

/* What the kernel keeps of the vector registers behind those that it always does, up to the last that a signal's frame has: not
   the matrices (AMX), which a frame has only where the process has asked for them. */
static size_t attach_extended_size(const attach_stop *stop, uint64_t *features) {
    const uint64_t matrices = (uint64_t)3 << 17;
    size_t size = 512 + 64;
    memcpy(features, stop->extended + ATTACH_FRAME_NOTE, sizeof *features);
    if ((*features & matrices) == 0) {
        return stop->extended_size;
    }
    *features &= ~matrices;
    for (unsigned n = 2, length, offset, c, d; n < 63; n++) {
        if ((*features >> n & 1) != 0 && __get_cpuid_count(13, n, &length, &offset, &c, &d) != 0) {
            size = offset + length > size ? offset + length : size;
        }
    }
    return size < stop->extended_size ? size : stop->extended_size;
}

/* The registers, where in its code it goes on, and the mask. A system call that was interrupted is begun again, as after any
   debugger's look; one whose time-out the kernel keeps elsewhere ends as at a signal's arrival. */
static void attach_fill_context(const attach_stop *stop, uint64_t extended, ucontext_t *context) {
    const struct user_regs_struct *from = &stop->registers;
    greg_t *to = context->uc_mcontext.gregs;
    int64_t rax = (int64_t)from->rax, number = (int64_t)from->orig_rax;
    bool is_again = number >= 0 && rax >= -ATTACH_ERESTARTNOHAND && rax <= -ATTACH_ERESTARTSYS;
    bool is_ended = number >= 0 && rax == -ATTACH_ERESTART_RESTARTBLOCK;
    const struct {
        int at;
        uint64_t value;
    } all[] = {{REG_R8, from->r8},
               {REG_R9, from->r9},
               {REG_R10, from->r10},
               {REG_R11, from->r11},
               {REG_R12, from->r12},
               {REG_R13, from->r13},
               {REG_R14, from->r14},
               {REG_R15, from->r15},
               {REG_RDI, from->rdi},
               {REG_RSI, from->rsi},
               {REG_RBP, from->rbp},
               {REG_RBX, from->rbx},
               {REG_RDX, from->rdx},
               {REG_RCX, from->rcx},
               {REG_RSP, from->rsp},
               {REG_EFL, from->eflags},
               {REG_RAX, is_again   ? from->orig_rax
                         : is_ended ? (uint64_t)-EINTR
                                    : from->rax},
               {REG_RIP, from->rip - (is_again ? 2 : 0)},
               {REG_CSGSFS, from->cs | from->gs << 16 | from->fs << 32 | from->ss << 48}};
    memset(context, 0, sizeof *context);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        to[all[i].at] = (greg_t)all[i].value;
    }
    context->uc_flags = 7;               /* all registers are there, ss, too */
    context->uc_stack.ss_flags = 1 << 8; /* no such: the handlers' own stack stays what it is */
    context->uc_mcontext.fpregs = (fpregset_t)(uintptr_t)extended;
    memcpy(&context->uc_sigmask, &stop->mask, sizeof stop->mask);
}

/* Lays on its stack what the kernel lays there for a signal's handler, with all that it had: when that returns, the kernel
   puts it back. What it is made to do returns there, too: so it comes back by itself if we end while it is away. False: there
   is no room for it. */
static bool attach_lay_frame(attach_stop *stop) {
    struct {
        uint32_t magic, size;
        uint64_t features;
        uint32_t extended_size;
    } note = {ATTACH_FRAME_MAGIC, 0, 0, 0};
    const uint32_t magic_of_end = ATTACH_FRAME_MAGIC_OF_END;
    char extended[sizeof stop->extended + sizeof magic_of_end];
    ucontext_t context;
    size_t size = attach_extended_size(stop, &note.features);
    note.extended_size = (uint32_t)size;
    note.size = (uint32_t)(size + sizeof magic_of_end);
    memcpy(extended, stop->extended, size);
    memcpy(extended + ATTACH_FRAME_NOTE, &note, sizeof note);
    memcpy(extended + size, &magic_of_end, sizeof magic_of_end);
    uint64_t at = (stop->registers.rsp - ATTACH_RED_ZONE - note.size) & ~(uint64_t)63;
    attach_fill_context(stop, at, &context);
    stop->frame = (at - sizeof context) & ~(uint64_t)15;
    return attach_write(stop->target, at, extended, note.size) &&
           attach_write(stop->target, stop->frame, &context, sizeof context);
}

/* Has it go on elsewhere, from where it returns to the frame. The signals are blocked when it will come back, not before. */
static bool attach_send(attach_stop *stop, struct user_regs_struct *registers, bool is_reported) {
    const uint64_t faults = 1u << (SIGSEGV - 1) | 1u << (SIGBUS - 1) | 1u << (SIGILL - 1) | 1u << (SIGFPE - 1);
    const uint64_t mask = ~faults, returns[3] = {stop->report, 0, stop->target->restore};
    size_t skipped = is_reported ? 0 : 2;
    registers->rsp = stop->frame - (3 - skipped) * sizeof *returns;
    registers->orig_rax = (uint64_t)-1;
    registers->eflags &= ~0x400ull; /* the direction flag, which the ABI wants clear */
    return attach_write(stop->target, registers->rsp, returns + skipped, (3 - skipped) * sizeof *returns) &&
           attach_set_registers(stop, registers) && attach_trace(stop, PTRACE_SETSIGMASK, sizeof mask, &mask) == 0;
}

/* Has it call the kernel. False: it could not; else *result may be a negative error number. */
static bool attach_call_kernel(attach_stop *stop, long number, const uint64_t *arguments, int64_t *result) {
    struct user_regs_struct registers = stop->registers;
    registers.rip = stop->target->gate;
    registers.rax = (uint64_t)number;
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.r9 = arguments[5];
    bool is_good = attach_send(stop, &registers, false) && attach_step(stop) && attach_step(stop) &&
                   attach_get_registers(stop, &registers);
    *result = (int64_t)registers.rax;
    return is_good;
}

/* Has it call a function with up to two values. What that asks of the kernel meanwhile passes. result: NULL if it is no
   matter; else there has to be a block. */
static bool attach_call(attach_stop *stop, uint64_t function, uint64_t one, uint64_t other, int64_t *result) {
    struct user_regs_struct registers = stop->registers;
    uint64_t last = result != NULL ? stop->report + ATTACH_REPORTED : stop->target->restored;
    registers.rip = function;
    registers.rax = 0;
    registers.rdi = one;
    registers.rsi = other;
    bool is_good = attach_send(stop, &registers, result != NULL);
    while (is_good && attach_step(stop) && attach_get_registers(stop, &registers)) {
        if (registers.rip == last && result != NULL) {
            *result = (int32_t)registers.rdi;
            return attach_step(stop);
        }
        if (registers.rip == last) { /* it will come back, from a step before: if nobody stops it, which we do now */
            registers.rip = stop->target->restore;
            registers.orig_rax = (uint64_t)-1;
            return attach_set_registers(stop, &registers);
        }
    }
    return false;
}

static void attach_search_code(attach_target *target, const attach_mapping *mapping) {
    static const struct {
        const char *code;
        size_t size;
    } restores[] = {{"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 9}, {"\xb8\x0f\x00\x00\x00\x0f\x05", 7}};
    char code[65536];
    for (uint64_t at = mapping->start; at < mapping->end; at += sizeof code - 16) {
        size_t size = mapping->end - at < sizeof code ? (size_t)(mapping->end - at) : sizeof code;
        if (!attach_read(target, at, code, size)) {
            return;
        }
        const char *found = target->gate == 0 ? (const char *)memmem(code, size, "\x0f\x05\xc3", 3) : NULL;
        target->gate = found != NULL ? at + (uint64_t)(found - code) : target->gate;
        for (size_t i = 0; i < sizeof restores / sizeof *restores && target->restore == 0; i++) {
            found = (const char *)memmem(code, size, restores[i].code, restores[i].size);
            target->restore = found != NULL ? at + (uint64_t)(found - code) : 0;
            target->restored = target->restore + restores[i].size;
        }
    }
}

/* Where code of the process calls the kernel and returns ("syscall; ret"); and where it goes from a signal's handler ("mov
   eax, SYS_rt_sigreturn; syscall"): each C library has both. */
static bool attach_find_gates(attach_target *target) {
    char path[64], line[PATH_MAX + 128];
    attach_mapping mapping;
    snprintf(path, sizeof path, "/proc/%ld/maps", target->order->pid);
    FILE *maps = fopen(path, "re");
    while ((target->gate == 0 || target->restore == 0) && maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (attach_parse_mapping(line, &mapping) && mapping.is_code && mapping.path[0] == '/') {
            attach_search_code(target, &mapping);
        }
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return (target->gate != 0 && target->restore != 0) ||
           attach_refuse(target, "process %ld has no code by which it could be asked to call the kernel",
                         target->order->pid);
}

/* Whether it holds no lock that Py_AddPendingCall takes, and is not half through loading a library, whose functions that may
   be the first to call: in a system call, or in the function that runs bytecode. */
static bool attach_is_harmless(const attach_stop *stop) {
    const attach_target *target = stop->target;
    const attach_symbol *evaluate = &target->symbols[ATTACH_EVALUATE];
    uint64_t at = stop->registers.rip;
    bool is_loading = at - target->loader < target->loader_size;
    bool is_in_kernel = (int64_t)stop->registers.orig_rax >= 0;
    return !is_loading && (is_in_kernel || at - evaluate->at < evaluate->size);
}

/* A few system calls are not begun again after a look, but fail with EINTR. Where one waits without end it is the same to
   begin it anew; where a signal is pending, that ends it. What has a time-out is left: CPython goes on by itself. */
static void attach_renew_call(attach_stop *stop) {
    struct user_regs_struct *registers = &stop->registers;
    char path[64], status[8192];
    bool is_endless;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)stop->thread);
    switch ((int64_t)registers->orig_rax) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
        is_endless = (int32_t)registers->r10 == -1;
        break;
    case SYS_rt_sigtimedwait:
        is_endless = registers->rdx == 0;
        break;
    case SYS_semop:
    case SYS_msgrcv:
    case SYS_msgsnd:
        is_endless = true;
        break;
    default:
        is_endless = false;
    }
    if (is_endless && (int64_t)registers->rax == -EINTR && attach_read_text(path, status, sizeof status)) {
        const char *own = strstr(status, "\nSigPnd:\t"), *all = strstr(status, "\nShdPnd:\t");
        uint64_t pending = own != NULL && all != NULL ? strtoull(own + 9, NULL, 16) | strtoull(all + 9, NULL, 16) : 1;
        if ((pending & ~stop->mask) == 0) {
            registers->rip -= 2;
            registers->rax = registers->orig_rax;
            registers->orig_rax = (uint64_t)-1;
        }
    }
}

static bool attach_read_for_unwind(const void *target, uint64_t at, void *to, size_t size) {
    return attach_read((const attach_target *)target, at, to, size);
}

/* Where the file is mapped that has an address: its first byte. False: no file has it. */
static bool attach_find_image(const attach_target *target, uint64_t at, attach_mapping *mapping, uint64_t *image) {
    char path[64], line[PATH_MAX + 128], last[PATH_MAX] = "";
    bool is_found = false;
    snprintf(path, sizeof path, "/proc/%ld/maps", target->order->pid);
    FILE *maps = fopen(path, "re");
    while (!is_found && maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (!attach_parse_mapping(line, mapping)) {
            continue;
        }
        if (mapping->offset == 0 && mapping->path[0] == '/') {
            memcpy(last, mapping->path, sizeof last);
            *image = mapping->start;
        }
        is_found = at >= mapping->start && at < mapping->end;
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return is_found && last[0] != '\0' && strcmp(last, mapping->path) == 0;
}

/* Whether one of these functions of CPython has an address. */
static bool attach_is_in(const attach_target *target, int symbol, uint64_t at) {
    return at - target->symbols[symbol].at < target->symbols[symbol].size;
}

/* Whether it is in CPython's own wait for a lock, with nothing but what that calls (libc) on its stack above. What it waits
   for with a semaphore else (from 3.13 on) is none that may be left. */
static bool attach_is_called_by_lock(const attach_stop *stop) {
    const attach_target *target = stop->target;
    const unwind_memory memory = {target, attach_read_for_unwind};
    unwind_frame frame = {stop->registers.rip, stop->registers.rsp, stop->registers.rbp, false};
    attach_mapping mapping;
    uint64_t image = 0;
    bool is_semaphore = false;
    mapping.start = mapping.end = 0;
    for (int depth = 0; depth < ATTACH_DEPTH; depth++) {
        bool is_mapped = frame.pc >= mapping.start && frame.pc < mapping.end;
        if ((!is_mapped && !attach_find_image(target, frame.pc, &mapping, &image)) ||
            !unwind_step(&memory, image, &frame)) {
            return false;
        }
        if (attach_is_in(target, ATTACH_PARK, frame.pc) || attach_is_in(target, ATTACH_ACQUIRE_LOCK, frame.pc)) {
            return true;
        }
        if (is_semaphore) {
            return false;
        }
        is_semaphore = attach_is_in(target, ATTACH_WAIT_SEMAPHORE, frame.pc);
    }
    return false;
}

static bool attach_waits_for_lock(const attach_stop *stop) {
    const struct user_regs_struct *registers = &stop->registers;
    uint64_t operation = registers->rsi & 0x7f; /* without who shares it, and which clock */
    bool is_again =
        registers->orig_rax == SYS_restart_syscall; /* after another debugger's look; its values are the same */
    bool is_wait = (registers->orig_rax == SYS_futex || is_again) && (operation == 0 || operation == 9);
    bool is_interrupted =
        (int64_t)registers->rax == -ATTACH_ERESTARTSYS || (int64_t)registers->rax == -ATTACH_ERESTART_RESTARTBLOCK;
    return is_wait && is_interrupted && attach_is_called_by_lock(stop);
}

/* A lock for which CPython waits: that is left as at any signal's arrival (EINTR), whereupon CPython does its pending work
   and waits on, for as long as was left. Nobody else's wait is ended: whoever wrote it may not know how to go on. */
static void attach_end_wait(attach_stop *stop) {
    stop->registers.rax = (uint64_t)-EINTR;
}

/* Stops the main thread, and notes all that it has. False: it was said why not; it runs on. */
static bool attach_begin_stop(attach_stop *stop) {
    attach_target *target = stop->target;
    char byte;
    if (attach_trace(stop, PTRACE_SEIZE, 0, (const void *)(uintptr_t)PTRACE_O_TRACESYSGOOD) != 0) {
        int error = errno;
        if (!attach_look_at_status(target)) {
            return false; /* it has just ended, or somebody else traces it */
        }
        errno = error;
        return errno == EPERM
                   ? attach_refuse_rights(target)
                   : attach_refuse(target, "process %ld: cannot trace it: %s", target->order->pid, strerror(errno));
    }
    if (!attach_interrupt(stop)) {
        return attach_refuse(target,
                             stop->is_gone ? "process %ld has ended"
                                           : "process %ld does not stand still: its main thread waits in the kernel "
                                             "for what cannot be interrupted (vfork, a disk, a stopped job)",
                             target->order->pid);
    }
    struct iovec extended = {stop->extended, sizeof stop->extended};
    bool is_good = attach_get_registers(stop, &stop->registers) &&
                   attach_trace(stop, PTRACE_GETREGSET, NT_X86_XSTATE, &extended) == 0 &&
                   attach_trace(stop, PTRACE_GETSIGMASK, sizeof stop->mask, &stop->mask) == 0;
    stop->extended_size = extended.iov_len;
    if (is_good && !attach_read(target, target->symbols[ATTACH_ADD_PENDING].at, &byte, 1)) {
        (void)attach_trace(stop, PTRACE_DETACH, 0, NULL);
        return attach_refuse(target, "process %ld has begun another program (exec): attach again", target->order->pid);
    }
    if (is_good) {
        attach_renew_call(stop);
        return true;
    }
    (void)attach_trace(stop, PTRACE_DETACH, 0, NULL);
    return attach_refuse(target, "process %ld: cannot read its registers: %s", target->order->pid, strerror(errno));
}

/* Gives it all back, and lets it run on. */
static bool attach_end_stop(attach_stop *stop) {
    bool is_good = !stop->is_gone && (!stop->has_moved || attach_interrupt(stop));
    struct iovec extended = {stop->extended, stop->extended_size};
    is_good = is_good && attach_trace(stop, PTRACE_SETREGSET, NT_X86_XSTATE, &extended) == 0 &&
              attach_trace(stop, PTRACE_SETSIGMASK, sizeof stop->mask, &stop->mask) == 0 &&
              attach_set_registers(stop, &stop->registers); /* the last, as before it comes back by its frame */
    is_good = attach_trace(stop, PTRACE_DETACH, 0, NULL) == 0 && is_good;
    if (stop->kept_signal != 0) {
        (void)syscall(SYS_tgkill, (pid_t)stop->target->order->pid, stop->thread, stop->kept_signal);
    }
    return is_good || attach_refuse(stop->target, "process %ld ended while it was attached to", (long)stop->thread);
}

/* Makes a page or two that have the code and the script. */
static bool attach_make_block(attach_stop *stop, uint64_t *block) {
    attach_target *target = stop->target;
    char data[ATTACH_TEXT + sizeof attach_script + 3 * PATH_MAX] = "";
    memcpy(data, attach_code, sizeof attach_code - 1);
    memcpy(data + ATTACH_REPORT, attach_report, sizeof attach_report - 1);
    for (int n = ATTACH_NEW_DICT; n <= ATTACH_DEC_REF; n++) {
        memcpy(data + ATTACH_DATA + 8 * (n - ATTACH_NEW_DICT), &target->symbols[n].at, 8);
    }
    memcpy(data + ATTACH_BUILTINS, "__builtins__", sizeof "__builtins__");
    memcpy(data + ATTACH_NAME, "<pyprof>", sizeof "<pyprof>");
    if (!attach_make_script(target, false, data + ATTACH_TEXT, sizeof data - ATTACH_TEXT)) {
        return false;
    }
    uint64_t size = ATTACH_TEXT + strlen(data + ATTACH_TEXT) + 1;
    const uint64_t map[6] = {0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
    int64_t result = -EFAULT;
    bool is_good = attach_call_kernel(stop, SYS_mmap, map, &result) && result > 0;
    if (is_good) {
        const uint64_t protect[6] = {(uint64_t)result, size, PROT_READ | PROT_EXEC, 0, 0, 0};
        *block = (uint64_t)result;
        is_good = attach_write(target, *block, data, (size_t)size) &&
                  attach_call_kernel(stop, SYS_mprotect, protect, &result) && result == 0;
    }
    return is_good ||
           attach_refuse(target, "process %ld may not make memory that can be executed (seccomp, SELinux, a limit): %s",
                         target->order->pid, strerror((int)-result));
}

/* False, and why. */
static bool attach_refuse_return(const attach_stop *stop) {
    return attach_refuse(stop->target,
                         "process %ld did not come back from a call into CPython; its main thread goes on where it was",
                         stop->target->order->pid);
}

/* With a stopped thread: adds the call if that is harmless where it is. False: it was said why it will never be. */
static bool attach_use_stop(attach_stop *stop, uint64_t *block, bool *is_added) {
    const attach_symbol *symbols = stop->target->symbols;
    int64_t result = 0;
    if (!attach_is_harmless(stop) || !attach_lay_frame(stop)) {
        return true;
    }
    if (*block == 0 && !attach_make_block(stop, block)) {
        return false;
    }
    stop->report = *block + ATTACH_REPORT;
    bool is_good = attach_call(stop, symbols[ATTACH_IS_INITIALIZED].at, 0, 0, &result);
    if (is_good && result == 0) {
        return true; /* not yet */
    }
    is_good = is_good && attach_call(stop, symbols[ATTACH_ADD_PENDING].at, *block, *block + ATTACH_DATA, &result);
    *is_added = is_good && result == 0; /* else its queue is full */
    return is_good || attach_refuse_return(stop);
}

/* What is done with the thread while it stands still. False: it was said why not. */
typedef bool (*attach_use)(attach_stop *stop, void *of);

/* Has the main thread stand still for that long. */
static bool attach_with_stop(attach_target *target, attach_use use, void *of) {
    sigset_t all, ours;
    attach_stop *stop = (attach_stop *)calloc(1, sizeof *stop);
    if (stop == NULL) {
        return attach_refuse(target, "out of memory");
    }
    stop->target = target;
    stop->thread = attach_find_thread(target);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &ours); /* who ends us now ends the process, too */
    bool is_good = attach_begin_stop(stop);
    if (is_good) {
        is_good = use(stop, of);
        is_good = attach_end_stop(stop) && is_good;
    }
    sigprocmask(SIG_SETMASK, &ours, NULL);
    free(stop);
    return is_good;
}

typedef struct attach_addition {
    uint64_t block; /* of our own in the process; 0 = none yet */
    bool is_done;
} attach_addition;

static bool attach_add_in_stop(attach_stop *stop, void *of) {
    attach_addition *addition = (attach_addition *)of;
    bool is_good = attach_use_stop(stop, &addition->block, &addition->is_done);
    if (addition->is_done && attach_waits_for_lock(stop)) {
        attach_end_wait(stop);
    }
    return is_good;
}

/* Has the main thread add the script to what CPython does next. */
static bool attach_add_call(attach_target *target) {
    attach_addition addition = {0, false};
    bool is_good = attach_find_gates(target);
    for (uint64_t pause = 500000; is_good && !addition.is_done; pause += pause / 4) {
        is_good = attach_with_stop(target, attach_add_in_stop, &addition);
        if (is_good && !addition.is_done && attach_is_late(target)) {
            is_good = attach_refuse_late(target);
        }
        if (is_good && !addition.is_done) {
            attach_pause(pause < 20000000 ? pause : 20000000);
        }
    }
    return is_good;
}

/* From 3.14 on nothing is pending yet that is done in a wait for a lock, where CPython does not look at the script: a call of
   PyErr_CheckSignals is, which looks. If the script was run meanwhile, or taken back, that does nothing. */
static bool attach_tell_of_script(attach_stop *stop) {
    attach_target *target = stop->target;
    const attach_symbol *symbols = target->symbols;
    if (target->is_told || target->version < 0x030e || !attach_lay_frame(stop)) {
        return true;
    }
    target->is_told = attach_call(stop, symbols[ATTACH_ADD_PENDING].at, symbols[ATTACH_CHECK_SIGNALS].at, 0, NULL);
    return target->is_told || attach_refuse_return(stop);
}

static bool attach_wake_in_stop(attach_stop *stop, void *of) {
    (void)of;
    bool is_waiting = attach_waits_for_lock(stop), is_good = !is_waiting || attach_tell_of_script(stop);
    if (is_waiting && is_good) {
        attach_end_wait(stop);
    }
    return is_good;
}

/* The main thread may wait for a lock: since before it was asked for the script; or since after the call was added, and before
   CPython looked for such. */
static void attach_wake(attach_target *target) {
    char path[64], call[256];
    snprintf(path, sizeof path, "/proc/%ld/task/%ld/syscall", target->order->pid, (long)attach_find_thread(target));
    bool is_known = attach_read_text(path, call, sizeof call);
    if (is_known && atoi(call) != SYS_futex && atoi(call) != SYS_restart_syscall) {
        target->hindrance[0] = '\0';
    } else if (!attach_find_gates(target) || !attach_with_stop(target, attach_wake_in_stop, NULL)) {
        snprintf(target->hindrance, sizeof target->hindrance, "%.500s", target->why);
    }
}

#else

static bool attach_add_call(attach_target *target) {
    return attach_refuse(target, "process %ld has CPython %s: on this processor attach needs 3.14 or later",
                         target->order->pid, target->tag);
}

static void attach_wake(attach_target *target) {
    (void)target;
}

#endif

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static bool attach_prepare(attach_target *target) {
    return attach_open_memory(target) && attach_find_python(target) && attach_find_version(target) &&
           attach_look_at_library(target) && attach_make_folder(target);
}

bool attach_process(const attach_order *order, char *path, size_t path_size, char *why, size_t why_size) {
    attach_target *target = (attach_target *)calloc(1, sizeof *target);
    attach_place place = {0};
    if (target == NULL) {
        snprintf(why, why_size, "out of memory");
        return false;
    }
    target->order = order;
    target->why = why;
    target->why_size = why_size;
    target->deadline_ns = attach_now() + (uint64_t)(order->timeout_s * 1e9);
    target->memory = target->answer = target->script = -1;
    bool is_there = attach_look_at_status(target), is_good = is_there && attach_prepare(target);
    if (is_good) {
        is_good = target->version >= 0x030e ? attach_ask_debugger(target, &place) : attach_add_call(target);
        is_good = is_good && attach_wait_for_answer(target, path, path_size);
    }
    if (!is_good) {
        attach_take_back(target, &place);
    }
    if (is_there && !is_good && attach_has_ended(target)) { /* what was not found is then nothing to tell */
        (void)attach_refuse(target, "process %ld has ended", order->pid);
    }
    attach_remove_folder(target);
    if (target->memory >= 0) {
        close(target->memory);
    }
    free(target);
    return is_good;
}
