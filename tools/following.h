/* following.h: how children of the program are recorded, too (pyprof-run --subprocesses). For libpyprof.c.
 *
 * A forked child has our memory, and begins a recording of its own in fork. What is executed gets us by its environment: the
 * variables are added where a process executes the same python, so that the program's own environment stays as it is without
 * us. Another program, or another python, is left alone, and counted. A host (--host) says by no file's name which of the
 * programs that it executes have CPython in them: each that can load us gets us, and is recorded if CPython begins in it.
 *
 * pyprof.h's own PYPROF_CHILDREN_FOLLOW begins a recording, but what hands it over would be missing.
 */
#ifndef FOLLOWING_H
#define FOLLOWING_H

#include "libc_own.h"
#include "recording.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

static struct {
    char settings[512];                  /* the variable for children, "PYPROF_RUN=..." */
    char preload[PYPROF__PATH_SIZE * 2]; /* "LD_PRELOAD=", and what of it is ours */
    struct stat python;                  /* what this process executes */
    ElfW(Half) machine;                  /* what that is made for */
    atomic_uint others;                  /* children that execute something else; also counted by those made by vfork */
    char other[64];                      /* what the first of these was called */
} following;

static bool is_following(void) {
    return run.settings.follow != HANDOVER_FOLLOW_NOT;
}

/* What is recorded ends with the program's recording: --duration is the program's. */
static void become_child(void) {
    run.settings.follow = HANDOVER_FOLLOW_CHILD;
    run.settings.duration = 0;
}

/* The beginning of a file; answers its size. Async-signal-safe. */
static size_t read_beginning(const char *path, void *to, size_t room) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t size = file >= 0 ? read(file, to, room) : 0;
    if (file >= 0) {
        (void)close(file);
    }
    return size > 0 ? (size_t)size : 0;
}

/* Keeps what children are told. preload: as it was in our environment, of which preload_length bytes are ours. Who has the
   program's id is the program yet, whatever it has executed. */
static void prepare_following(const char *preload) {
    const handover_settings *own = &run.settings;
    const unsigned target = own->target == HANDOVER_TO_PYTHON ? HANDOVER_TO_PYTHON : HANDOVER_TO_HOST;
    ElfW(Ehdr) head;
    if (own->follow == HANDOVER_FOLLOW_CHILD && getpid() != own->pid) {
        become_child();
    }
    int written =
        snprintf(following.settings, sizeof following.settings, HANDOVER_VARIABLE "=" HANDOVER_WRITTEN, own->socket,
                 own->preload_length, target, own->pid, own->interval_us, own->capture, own->signal_number, own->depth,
                 own->memory, own->duration, (unsigned)HANDOVER_FOLLOW_CHILD, own->is_timed, own->heap_bytes);
    int length = snprintf(following.preload, sizeof following.preload, "LD_PRELOAD=%.*s", (int)own->preload_length,
                          preload != NULL ? preload : "");
    if (written >= (int)sizeof following.settings || length >= (int)sizeof following.preload ||
        stat("/proc/self/exe", &following.python) != 0 ||
        read_beginning("/proc/self/exe", &head, sizeof head) < sizeof head) {
        run.settings.follow = HANDOVER_FOLLOW_NOT;
        return;
    }
    following.machine = head.e_machine;
}

static bool is_our_python(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && status.st_dev == following.python.st_dev &&
           status.st_ino == following.python.st_ino;
}

/* Whether it is worth a try to execute it. */
static bool may_be_executed(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* The path of a program as execvp finds it, in found; NULL = there is none. Async-signal-safe. */
static const char *find_executable(const char *name, char found[PATH_MAX]) {
    const char *place = getenv("PATH");
    if (name == NULL || strchr(name, '/') != NULL) {
        return name;
    }
    for (place = place != NULL ? place : "/bin:/usr/bin"; *place != '\0';) {
        size_t length = strcspn(place, ":");
        (void)snprintf(found, PATH_MAX, "%.*s/%s", (int)length, length > 0 ? place : ".", name);
        if (may_be_executed(found)) {
            return found;
        }
        place += length;
        place += *place == ':';
    }
    return NULL;
}

/* Whether a script's first line names our python: by its path, or as env looks for it. */
static bool is_script_of_ours(const char *path) {
    char text[256], found[PATH_MAX];
    text[read_beginning(path, text, sizeof text - 1)] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, "#!", 2) != 0) {
        return false;
    }
    char *word = text + 2 + strspn(text + 2, " \t"), *end = word + strcspn(word, " \t\r");
    char *next = end + strspn(end, " \t");
    *end = '\0';
    const char *slash = strrchr(word, '/');
    if (slash == NULL || strcmp(slash, "/env") != 0) {
        return is_our_python(word);
    }
    next += strncmp(next, "-S", 2) == 0 ? 2 + strspn(next + 2, " \t") : 0;
    next[strcspn(next, " \t\r")] = '\0';
    const char *python = find_executable(next, found);
    return python != NULL && is_our_python(python);
}

/* Whether it is a script, or a program of our machine's that the loader loads: what it preloads it only complains of, else. */
static bool can_load_us(const char *path) {
    union {
        ElfW(Ehdr) head;
        char text[2];
        char bytes[4096];
    } file;
    size_t size = read_beginning(path, &file, sizeof file);
    if (size >= 2 && memcmp(file.text, "#!", 2) == 0) {
        return true;
    }
    if (size < sizeof file.head || memcmp(file.head.e_ident, ELFMAG, SELFMAG) != 0 ||
        file.head.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        file.head.e_machine != following.machine || file.head.e_phentsize != sizeof(ElfW(Phdr))) {
        return false;
    }
    for (size_t i = 0; i < file.head.e_phnum; i++) {
        ElfW(Phdr) segment;
        size_t at = (size_t)file.head.e_phoff + i * sizeof segment;
        if (at > size || size - at < sizeof segment) {
            return false;
        }
        memcpy(&segment, file.bytes + at, sizeof segment);
        if (segment.p_type == PT_INTERP) {
            return true;
        }
    }
    return false;
}

/* Whether what is about to be executed is recorded, if it has CPython in it. Async-signal-safe. */
static bool follows(const char *path) {
    if (!is_following() || path == NULL) {
        return false;
    }
    return run.settings.target == HANDOVER_TO_PYTHON ? is_our_python(path) || is_script_of_ours(path)
                                                     : can_load_us(path);
}

/* A child executes what is not recorded. */
static void count_other(const char *path) {
    if (is_following() && atomic_fetch_add(&following.others, 1) == 0) {
        const char *slash = strrchr(path, '/');
        (void)snprintf(following.other, sizeof following.other, "%s", slash != NULL ? slash + 1 : path);
    }
}

static size_t count_variables(char *const variables[]) {
    size_t count = 0;
    while (variables != NULL && variables[count] != NULL) {
        count++;
    }
    return count;
}

/* Before an exec that is not recorded, in a child made by vfork: its parent knows. */
static void count_exec(const char *path) {
    if (path != NULL && run.state == RECORDING && getpid() != run.pid && may_be_executed(path)) {
        count_other(path);
    }
}

/* Several libraries may have been preloaded, of which the first has told it; and a pyprof-run that a host executes has told
   its own. */
static bool is_told_already(char *const variables[]) {
    const size_t length = sizeof HANDOVER_VARIABLE "=" - 1;
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++) {
        if (strncmp(variables[i], HANDOVER_VARIABLE "=", length) == 0) {
            return true;
        }
    }
    return false;
}

static const char *preload_in(char *const variables[]) {
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++) {
        if (strncmp(variables[i], "LD_PRELOAD=", 11) == 0) {
            return variables[i] + 11;
        }
    }
    return NULL;
}

/* The variables with ours into list, and into preload what LD_PRELOAD then is. */
static char *const *add_ours(char *const variables[], char **list, char *preload, size_t size) {
    size_t count = 0;
    const char *theirs = preload_in(variables);
    (void)snprintf(preload, size, "%s%s%s", following.preload, theirs != NULL ? ":" : "", theirs != NULL ? theirs : "");
    list[count++] = preload;
    list[count++] = following.settings;
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++) {
        if (strncmp(variables[i], "LD_PRELOAD=", 11) != 0) {
            list[count++] = variables[i];
        }
    }
    list[count] = NULL;
    return list;
}

static size_t room_for_preload(char *const variables[]) {
    const char *theirs = preload_in(variables);
    return sizeof following.preload + (theirs != NULL ? strlen(theirs) : 0);
}

/* The environment for what is executed, as `all`. On the stack, as a child made by vfork has no memory of its own. */
#define VARIABLES_FOR(is_followed, variables)                                                                          \
    bool is_added = (is_followed) && !is_told_already(variables);                                                      \
    size_t size_of_preload = is_added ? room_for_preload(variables) : 1;                                               \
    char *list_of_all[is_added ? count_variables(variables) + 3 : 1];                                                  \
    char preload_of_all[size_of_preload];                                                                              \
    char *const *all =                                                                                                 \
        is_added ? add_ours(variables, list_of_all, preload_of_all, size_of_preload) : (char *const *)(variables)

typedef int spawn_function(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                           char *const[], char *const[]);

static int spawn_followed(spawn_function *spawn, pid_t *pid, const char *path, const char *found,
                          const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                          char *const arguments[], char *const variables[]) {
    bool is_followed = run.state != OFF && follows(found);
    VARIABLES_FOR(is_followed, variables);
    int result = spawn(pid, path, actions, attributes, arguments, all);
    if (result == 0 && !is_followed && is_recording()) {
        count_other(path);
    }
    return result;
}

EXPORTED int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                         const posix_spawnattr_t *attributes, char *const arguments[], char *const variables[]) {
    return spawn_followed(libc()->posix_spawn, pid, path, path, actions, attributes, arguments, variables);
}

EXPORTED int posix_spawnp(pid_t *pid, const char *name, const posix_spawn_file_actions_t *actions,
                          const posix_spawnattr_t *attributes, char *const arguments[], char *const variables[]) {
    char found[PATH_MAX];
    return spawn_followed(libc()->posix_spawnp, pid, name, find_executable(name, found), actions, attributes, arguments,
                          variables);
}

#endif
