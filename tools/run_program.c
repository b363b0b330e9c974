/* run_program.c: which program pyprof-run runs, and in which python.
 *
 * The target is a Python script, a python with a command line of its own (pyprof-run -- python3 -O x.py), the name of
 * a script on PATH (pyprof-run pytest), or an env with one of these behind it. The python is the one that a shell
 * would take: an active virtual environment's, or python3 on PATH. It is executed itself, so its packages and its
 * sys.* are what they are without us. Needed is a library that was built for its version and build: see library_for.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "pyprof-run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#if !defined(PYPROF_RUN_PYTHON) || !defined(PYPROF_RUN_TAG) || !defined(PYPROF_RUN_LIBRARIES)
#error "PYPROF_RUN_PYTHON, PYPROF_RUN_TAG and PYPROF_RUN_LIBRARIES are set by tools/meson.build"
#endif

/* ---- files ---------------------------------------------------------------------------------------------- */

bool same_file(const char *one, const char *other) {
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool is_executable_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static char *directory_of(const char *path) {
    char *directory = must(strdup(path));
    char *slash = strrchr(directory, '/');
    if (slash == NULL) {
        strcpy(directory, ".");
    } else {
        slash[slash == directory] = '\0';
    }
    return directory;
}

static char *beside(const char *path, const char *name) {
    char *directory = directory_of(path);
    char *result = text_of("%s/%s", directory, name);
    free(directory);
    return result;
}

/* In folders with colons between them; NULL = nowhere. */
static char *find_in(const char *place, const char *name) {
    while (*place != '\0') {
        size_t length = strcspn(place, ":");
        char *candidate = length > 0 ? text_of("%.*s/%s", (int)length, place, name) : text_of("./%s", name);
        if (is_executable_file(candidate)) {
            return candidate;
        }
        free(candidate);
        place += length;
        place += *place == ':';
    }
    return NULL;
}

char *find_in_path(const char *name) {
    const char *path = getenv("PATH");
    return path != NULL ? find_in(path, name) : NULL;
}

/* As env does, by execvp(3), which knows two folders where there is no PATH. */
static char *find_as_env(const char *name) {
    const char *path = getenv("PATH");
    return find_in(path != NULL ? path : "/bin:/usr/bin", name);
}

/* The beginning of a file as text, "" if it cannot be read. */
static void read_beginning(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t length = file >= 0 ? read(file, text, size - 1) : 0;
    if (file >= 0) {
        (void)close(file);
    }
    text[length > 0 ? length : 0] = '\0';
}

bool is_elf(const char *path) {
    char start[5];
    read_beginning(path, start, sizeof start);
    return strcmp(start, "\177ELF") == 0;
}

static bool has_pythons_name(const char *path) {
    const char *name = base_name(path);
    size_t length = strncmp(name, "python", 6) == 0 ? 6 : strncmp(name, "pypy", 4) == 0 ? 4 : 0;
    return length > 0 && strspn(name + length, "0123456789.td-bgu") == strlen(name + length);
}

/* python, python3, python3.11, python3.13t, pypy3, a link to one: what answers to python's command line, if only to be
   refused. */
static bool is_python(const char *path) {
    char *real = realpath(path, NULL);
    bool is_link_to_one = real != NULL && has_pythons_name(real) && is_elf(real);
    free(real);
    return has_pythons_name(path) || is_link_to_one;
}

/* ---- which python it is --------------------------------------------------------------------------------- */

typedef struct python {
    char *executable; /* what the program is: sys.executable */
    char *called;     /* argv[0] */
    char *tag;        /* version and build, as "3.11" or "3.13t" */
    char *version;    /* "CPython 3.11.7" */
    char *shim;       /* what a script that stands for it adds: options and variables, see take_shim; NULL = nothing */
    char *shim_end;
} python;

/* Not under the numbers of the standard streams, where those are closed. */
static bool make_pipe(int *ends) {
    int low[2];
    if (pipe(low) != 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    }
    (void)close(low[0]);
    (void)close(low[1]);
    return ends[0] >= 0 && ends[1] >= 0;
}

/* What a command prints, and how many bytes of it; 0 if it fails. */
static size_t ask(const char *executable, const char *code, char *answer, size_t size) {
    int ends[2];
    if (!make_pipe(ends)) {
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        int nothing = open("/dev/null", O_RDWR);
        if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(ends[1], 1) < 0 || dup2(nothing, 2) < 0) {
            _exit(127);
        }
        (void)execl(executable, executable, "-I", "-S", "-c", code, (char *)NULL);
        _exit(127);
    }
    (void)close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while (child > 0 && length < size - 1 &&
           ((got = read(ends[0], answer + length, size - 1 - length)) > 0 || (got < 0 && errno == EINTR))) {
        length += got > 0 ? (size_t)got : 0;
    }
    (void)close(ends[0]);
    answer[length] = '\0';
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && status == 0 ? length : 0;
}

static char *take_line(char **text) {
    char *line = *text;
    char *end = strchr(line, '\n');
    *text = end != NULL ? end + 1 : line + strlen(line);
    if (end != NULL) {
        *end = '\0';
    }
    return must(strdup(line));
}

/* Asks an executable, or a script that stands for one (pyenv and asdf put such "shims" on PATH), what it is, and what the
   script does before: options of python's that it adds, and its variables, each ended by a zero byte. */
static bool identify(python *self, const char *path, const char *called) {
    static const char code[] =
        "import os, sys\n"
        "v = sys.version_info\n"
        "e = sys.executable\n"
        "if not os.path.isfile(e) or open(e, 'rb').read(4) != b'\\x7fELF':\n" /* exec -a "$0" names the script */
        "    e = os.readlink('/proc/self/exe')\n"
        "os.write(1, os.fsencode('%s\\n%d.%d%s\\n%s %d.%d.%d\\n' % (e, v[0], v[1],\n"
        "    getattr(sys, 'abiflags', ''), {'cpython': 'CPython', 'pypy': 'PyPy'}.get(\n"
        "    sys.implementation.name, sys.implementation.name), v[0], v[1], v[2])))\n"
        "w = open('/proc/self/cmdline', 'rb').read().split(b'\\0')[:-1]\n"
        "assert w[-4:-1] == [b'-I', b'-S', b'-c']\n"
        "os.write(1, b'\\0'.join(w[:-4] + [b''] + [k + b'=' + x for k, x in os.environb.items()] + [b'']))\n";
    static char answer[1 << 22];
    char *at = answer;
    *self = (python){NULL, NULL, NULL, NULL, NULL, NULL};
    if (same_file(path, PYPROF_RUN_PYTHON)) {
        self->executable = must(strdup(path));
        self->called = must(strdup(called));
        self->tag = must(strdup(PYPROF_RUN_TAG));
        self->version = must(strdup("CPython " PYPROF_RUN_TAG));
        return true;
    }
    size_t size = ask(path, code, answer, sizeof answer);
    if (size == 0) {
        return false;
    }
    bool is_script = !is_elf(path);
    self->executable = take_line(&at);
    self->tag = take_line(&at);
    self->version = take_line(&at);
    self->called = must(strdup(!is_script ? called : *at != '\0' ? at : self->executable));
    if (!is_script) {
        free(self->executable);
        self->executable = must(strdup(path));
    } else if (*at != '\0') {
        at += strlen(at) + 1;
        self->shim = memcpy(must(malloc((size_t)(answer + size - at) + 1)), at, (size_t)(answer + size - at));
        self->shim_end = self->shim + (answer + size - at);
    }
    return is_executable_file(self->executable) && *self->tag != '\0';
}

static void forget(python *self) {
    free(self->executable);
    free(self->called);
    free(self->tag);
    free(self->version);
    free(self->shim);
    *self = (python){NULL, NULL, NULL, NULL, NULL, NULL};
}

/* ---- the library for it --------------------------------------------------------------------------------- */

/* Where this program lies: as built, the libraries lie beside it; as installed, in the library directory. */
char *library_folder(void) {
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    char *built = beside(self, "libpyprof-" PYPROF_RUN_TAG ".so");
    char *folder = directory_of(self);
    if (access(built, F_OK) != 0) {
        char *installed = PYPROF_RUN_LIBRARIES[0] == '/' ? must(strdup(PYPROF_RUN_LIBRARIES))
                                                         : text_of("%s/" PYPROF_RUN_LIBRARIES, folder);
        free(folder);
        folder = installed;
    }
    free(built);
    return folder;
}

/* NULL = none was built for it. */
static char *library_for(const python *self) {
    char *folder = library_folder();
    char *path = text_of("%s/libpyprof-%s.so", folder, self->tag);
    char *real = strncmp(self->version, "CPython ", 8) == 0 ? realpath(path, NULL) : NULL;
    if (real != NULL && strpbrk(real, " :\t\n") != NULL) {
        refuse("%s: LD_PRELOAD, by which python loads it, takes no path with a blank or a colon: install it "
               "elsewhere",
               real);
    }
    free(path);
    free(folder);
    return real;
}

bool ignores_preload(const char *executable) {
    struct stat status;
    return stat(executable, &status) != 0 || (status.st_mode & (S_ISUID | S_ISGID)) != 0 ||
           getxattr(executable, "security.capability", NULL, 0) > 0;
}

/* One line that says what to do. */
static void refuse_python(const python *self, const char *what) {
    int major = 3, minor = 8;
    if (sscanf(self->tag, "%d.%d", &major, &minor) == 2 && (major < 3 || (major == 3 && minor < 8))) {
        refuse("%s%s is %s: 3.8 is the oldest that can be recorded (to take another: pyprof-run -- " PYPROF_RUN_PYTHON
               " ...)",
               what, self->executable, self->version);
    }
    refuse("%s%s is %s (%s), this pyprof-run is for " PYPROF_RUN_TAG
           ": build one for it (meson setup BUILD -Dpkg_config_path=PREFIX/lib/pkgconfig), or name the other: "
           "pyprof-run -- " PYPROF_RUN_PYTHON " ...",
           what, self->executable, self->version, self->tag);
}

static char *need_library(const python *self, const char *what) {
    char *library = library_for(self);
    if (library == NULL) {
        refuse_python(self, what);
    }
    if (ignores_preload(self->executable)) {
        refuse("%s runs with rights of its own (setuid or capabilities), so nothing can be loaded into it: "
               "use a copy of it that has none",
               self->executable);
    }
    return library;
}

/* ---- the active python ---------------------------------------------------------------------------------- */

static python built_in_python(void) {
    python self;
    if (!identify(&self, PYPROF_RUN_PYTHON, PYPROF_RUN_PYTHON)) {
        refuse("no python3 on PATH, and " PYPROF_RUN_PYTHON ", for which pyprof-run was built, is not to be run");
    }
    return self;
}

static bool is_environment(const char *executable) {
    char *bin = directory_of(executable);
    char *mark = beside(bin, "pyvenv.cfg");
    bool found = access(mark, F_OK) == 0;
    free(mark);
    free(bin);
    return found;
}

/* VIRTUAL_ENV's python. An environment whose python cannot be used is an error: the program needs its packages. */
static bool find_environment(python *self) {
    const char *environment = getenv("VIRTUAL_ENV");
    if (environment == NULL || *environment == '\0') {
        return false;
    }
    char *executable = text_of("%s/bin/python3", environment);
    if (!is_executable_file(executable)) {
        complain("warning: VIRTUAL_ENV is %s, which has no bin/python3", environment);
        free(executable);
        return false;
    }
    char *first = find_in_path("python3");
    bool is_first = first != NULL && strcmp(first, executable) == 0;
    if (!identify(self, executable, is_first ? "python3" : executable)) {
        refuse("%s, the python of VIRTUAL_ENV, does not run: make the environment anew, or unset VIRTUAL_ENV",
               executable);
    }
    free(first);
    free(executable);
    return true;
}

/* python3 on PATH. Where that is none of ours and nothing but the habit of PATH names it, the python that this was
   built for runs the program, whole, and a line says so. */
static python find_on_path(bool quiet) {
    python self;
    char *first = find_in_path("python3");
    if (first == NULL) {
        return built_in_python();
    }
    if (!identify(&self, first, "python3")) {
        if (!quiet) {
            complain("%s does not run: taking " PYPROF_RUN_PYTHON, first);
        }
        free(first);
        forget(&self);
        return built_in_python();
    }
    free(first);
    char *library = library_for(&self);
    if (library == NULL && is_environment(self.executable)) {
        refuse_python(&self, "the active ");
    }
    if (library == NULL) {
        if (!quiet) {
            complain("python3 on PATH is %s (%s), this pyprof-run is for " PYPROF_RUN_TAG ": taking " PYPROF_RUN_PYTHON
                     " (to choose: pyprof-run -- PYTHON ...)",
                     self.version, self.executable);
        }
        forget(&self);
        return built_in_python();
    }
    free(library);
    return self;
}

static python active_python(bool quiet) {
    python self;
    return find_environment(&self) ? self : find_on_path(quiet);
}

/* ---- words ---------------------------------------------------------------------------------------------- */

typedef struct words {
    char **items;
    size_t count;
} words;

static void add(words *list, const char *word) {
    list->items = must(realloc(list->items, (list->count + 2) * sizeof *list->items));
    list->items[list->count++] = must(strdup(word));
    list->items[list->count] = NULL;
}

static void add_all(words *list, char *const *more) {
    for (; more != NULL && *more != NULL; more++) {
        add(list, *more);
    }
}

/* A text that grows. */
typedef struct letters {
    char *text;
    size_t size;
} letters;

static void put(letters *to, const char *more, size_t size) {
    to->text = must(realloc(to->text, to->size + size + 1));
    memcpy(to->text + to->size, more, size);
    to->size += size;
    to->text[to->size] = '\0';
}

/* What follows a backslash in a text for env -S: env(1). Answers how many letters; 0 = that is not to be. */
static size_t take_escape(const char *at, char quote, letters *word) {
    static const char names[] = "fnrtv\"#$'\\_", means[] = "\f\n\r\t\v\"#$'\\ ";
    const char *name = *at != '\0' ? strchr(names, *at) : NULL;
    if (name == NULL || (*at == '_' && quote != '"')) {
        return 0;
    }
    put(word, &means[name - names], 1);
    return 1;
}

/* ${NAME}; answers how many letters follow the $; 0 = it is something else. */
static size_t take_variable(const char *at, letters *word) {
    size_t length = at[0] == '{' ? strcspn(at + 1, "}") : 0;
    if (length == 0 || at[1 + length] != '}') {
        return 0;
    }
    char *name = text_of("%.*s", (int)length, at + 1);
    const char *value = getenv(name);
    free(name);
    value = value != NULL ? value : "";
    put(word, value, strlen(value));
    return length + 2;
}

/* A word of a text for env -S, up to the blank behind it. NULL = it is none that env takes. */
static const char *take_split_word(const char *at, letters *word) {
    char quote = '\0';
    put(word, "", 0);
    for (; *at != '\0' && (quote != '\0' || strchr(" \t\n\v\f\r", *at) == NULL); at++) {
        size_t taken = 1;
        if (*at == quote) {
            quote = '\0';
        } else if (quote == '\0' && (*at == '"' || *at == '\'')) {
            quote = *at;
        } else if (*at == '\\' && at[1] == '_' && quote == '\0') {
            return at + 2;
        } else if (*at == '\\' && at[1] == 'c' && quote == '\0') {
            return at + strlen(at);
        } else if (*at == '\\' && (quote != '\'' || at[1] == '\'' || at[1] == '\\')) {
            taken = take_escape(at + 1, quote, word);
            at += taken;
        } else if (*at == '$' && quote != '\'') {
            taken = take_variable(at + 1, word);
            at += taken;
        } else {
            put(word, at, 1);
        }
        if (taken == 0) {
            return NULL;
        }
    }
    return quote == '\0' ? at : NULL;
}

/* A text as env -S splits it; false = it is none that env takes. */
static bool split(const char *text, words *to) {
    for (const char *at = text + strspn(text, " \t\n\v\f\r"); *at != '\0' && *at != '#';
         at += strspn(at, " \t\n\v\f\r")) {
        letters word = {NULL, 0};
        at = take_split_word(at, &word);
        if (at != NULL) {
            add(to, word.text);
        }
        free(word.text);
        if (at == NULL) {
            return false;
        }
    }
    return true;
}

/* ---- env ------------------------------------------------------------------------------------------------ */

static bool is_env(const char *path) {
    return strcmp(base_name(path), "env") == 0 && is_elf(path);
}

/* The command line of an env, as far as it has been read. */
typedef struct env_line {
    words words;
    size_t at;
    bool is_empty; /* -i */
} env_line;

/* The value of an option: what is left of its word, or the next word. NULL = none. */
static char *take_value(env_line *line, char *rest) {
    return *rest != '\0' ? rest : line->at < line->words.count ? line->words.items[line->at++] : NULL;
}

/* -S: what it says takes its place. */
static bool take_split(env_line *line, const char *text) {
    words all = {NULL, 0};
    if (text == NULL || !split(text, &all)) {
        return false;
    }
    add_all(&all, line->words.items + line->at);
    line->words = all;
    line->at = 0;
    return true;
}

static bool take_env_letters(env_line *line, char *letter) {
    for (; *letter != '\0'; letter++) {
        char *value = NULL;
        switch (*letter) {
        case 'i':
            line->is_empty = true;
            break;
        case 'u':
            value = take_value(line, letter + 1);
            return value != NULL && unsetenv(value) == 0;
        case 'S':
            return take_split(line, take_value(line, letter + 1));
        default:
            return false;
        }
    }
    return true;
}

/* One option; false: none that is known here. */
static bool take_env_option(env_line *line, char *word) {
    if (strncmp(word, "--", 2) != 0) {
        line->is_empty = line->is_empty || word[1] == '\0'; /* - */
        return take_env_letters(line, word + 1);
    }
    if (strcmp(word, "--ignore-environment") == 0) {
        line->is_empty = true;
        return true;
    }
    char none[] = "";
    if (strncmp(word, "--unset", 7) == 0 && (word[7] == '=' || word[7] == '\0')) {
        char *value = take_value(line, word[7] == '=' ? word + 8 : none);
        return value != NULL && unsetenv(value) == 0;
    }
    if (strncmp(word, "--split-string", 14) == 0 && (word[14] == '=' || word[14] == '\0')) {
        return take_split(line, take_value(line, word[14] == '=' ? word + 15 : none));
    }
    return false;
}

/* Does to the environment what env does, and answers what it then runs; NULL = nothing, or it does more than that. */
static char *const *take_env(char *const *arguments) {
    env_line line = {{NULL, 0}, 0, false};
    add_all(&line.words, arguments);
    while (line.at < line.words.count && line.words.items[line.at][0] == '-') {
        char *word = line.words.items[line.at++];
        if (strcmp(word, "--") == 0) {
            break;
        }
        if (!take_env_option(&line, word)) {
            return NULL;
        }
    }
    if (line.is_empty && clearenv() != 0) {
        refuse("out of memory");
    }
    while (line.at < line.words.count && strchr(line.words.items[line.at], '=') != NULL) {
        if (putenv(line.words.items[line.at++]) != 0) {
            refuse("out of memory");
        }
    }
    return line.at < line.words.count ? line.words.items + line.at : NULL;
}

/* ---- scripts that name their python --------------------------------------------------------------------- */

/* What a script's first line puts before its name: an interpreter and, as Linux reads it, one word more, whatever blanks
   are in it. Knows the shell line, too, that pip and uv write where the path of python is too long or has blanks:
   #!/bin/sh, then '''exec' "/path/python" "$0" "$@" */
static words read_first_line(const char *script) {
    char text[1024];
    words found = {NULL, 0};
    read_beginning(script, text, sizeof text);
    char *line = text + 2, *second = strchr(text, '\n');
    bool is_exec = second != NULL && strncmp(second, "\n'''exec' ", 10) == 0;
    if (strncmp(text, "#!", 2) != 0) {
        return found;
    }
    if (is_exec) {
        char *end = strstr(second + 10, " \"$0\"");
        *(end != NULL ? end : second) = '\0';
        (void)split(second + 10, &found);
        return found;
    }
    line[strcspn(line, "\n")] = '\0';
    size_t length = strlen(line);
    while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL) {
        line[--length] = '\0';
    }
    line += strspn(line, " \t");
    char *more = line + strcspn(line, " \t");
    if (more > line) {
        char *interpreter = text_of("%.*s", (int)(more - line), line);
        add(&found, interpreter);
        free(interpreter);
    }
    more += strspn(more, " \t");
    if (*more != '\0') {
        add(&found, more);
    }
    return found;
}

/* ---- the command line of the program -------------------------------------------------------------------- */

/* A script's or module's name without folders and ending. */
static char *name_of_script(const char *path) {
    char *copy = must(strdup(path));
    size_t length = strlen(copy);
    while (length > 1 && copy[length - 1] == '/') {
        copy[--length] = '\0';
    }
    char *name = must(strdup(base_name(copy)));
    char *dot = strrchr(name, '.');
    if (dot != NULL && dot != name) {
        *dot = '\0';
    }
    free(copy);
    return name;
}

static char *name_of(const char *mode, const char *target) {
    if (mode != NULL && strcmp(mode, "-c") == 0) {
        return must(strdup("command"));
    }
    if (mode == NULL && strcmp(target, "-") == 0) {
        return must(strdup("stdin"));
    }
    return mode != NULL ? must(strdup(target)) : name_of_script(target);
}

/* What a python's own command line runs, https://docs.python.org/3/using/cmdline.html. *mode: as of run_options. NULL:
   nothing that has a name. */
static const char *target_of_command_line(char *const *arguments, const char **mode) {
    *mode = NULL;
    for (; *arguments != NULL; arguments++) {
        const char *word = *arguments;
        if (word[0] != '-' || word[1] == '\0') {
            return word;
        }
        if (strcmp(word, "--") == 0) {
            return arguments[1] != NULL ? arguments[1] : "-";
        }
        if (strcmp(word, "--check-hash-based-pycs") == 0 && arguments[1] != NULL) {
            arguments++;
            continue;
        }
        for (const char *letter = word + 1; word[1] != '-' && *letter != '\0'; letter++) {
            const char *value = letter[1] != '\0' ? letter + 1 : arguments[1];
            if (*letter == 'c' || *letter == 'm') {
                *mode = *letter == 'c' ? "-c" : "-m";
                return value != NULL ? value : "";
            }
            if (*letter == 'W' || *letter == 'X') {
                arguments += letter[1] == '\0' && value != NULL;
                break;
            }
        }
    }
    return NULL;
}

static char *name_of_command_line(char *const *arguments) {
    const char *mode, *target = target_of_command_line(arguments, &mode);
    return target != NULL ? name_of(mode, target) : must(strdup("python"));
}

/* The processes of multiprocessing's own are code of the form "from multiprocessing.spawn import ...". */
char *name_of_process(char *const *arguments) {
    static const char import[] = "from multiprocessing.";
    const char *mode, *target = *arguments != NULL ? target_of_command_line(arguments + 1, &mode) : NULL;
    if (target == NULL) { /* of a host the name is all that is told */
        const char *called = *arguments != NULL ? base_name(*arguments) : "python";
        return must(strdup(strncmp(called, "python", 6) == 0 ? "python" : called));
    }
    if (mode != NULL && strcmp(mode, "-c") == 0) {
        bool is_its = strncmp(target, import, sizeof import - 1) == 0;
        const char *module = target + strlen("from ");
        return is_its ? text_of("%.*s", (int)strcspn(module, " "), module) : must(strdup("-c"));
    }
    return must(strdup(mode == NULL ? base_name(target) : target));
}

/* What the script that stands for a python does before it: see identify. */
static void take_shim(const python *self, words *arguments) {
    const char *at = self->shim;
    for (; at < self->shim_end && *at != '\0'; at += strlen(at) + 1) {
        add(arguments, at);
    }
    if (at < self->shim_end && clearenv() != 0) {
        refuse("out of memory");
    }
    for (at++; at < self->shim_end && *at != '\0'; at += strlen(at) + 1) {
        if (putenv(must(strdup(at))) != 0) {
            refuse("out of memory");
        }
    }
}

/* A python, python's own options, and what they are to run. */
static program compose(const run_options *opt, python *self, const char *what, const words *rest, char *name) {
    program made = {.name = name};
    words arguments = {NULL, 0};
    made.library = need_library(self, what);
    made.executable = must(strdup(self->executable));
    add(&arguments, self->called);
    if (self->shim != NULL) {
        take_shim(self, &arguments);
    }
    for (int i = 0; i < opt->python_option_count; i++) {
        add(&arguments, opt->python_options[i]);
    }
    add_all(&arguments, rest->items);
    made.arguments = arguments.items;
    forget(self);
    return made;
}

static program run_mode(const run_options *opt) {
    python self = active_python(opt->quiet);
    words rest = {NULL, 0};
    char *word = text_of("-%s%c%s", opt->flags, opt->mode[1], opt->joined ? opt->target : "");
    add(&rest, word);
    free(word);
    if (!opt->joined) {
        add(&rest, opt->target);
    }
    add_all(&rest, opt->arguments);
    return compose(opt, &self, "", &rest, name_of(opt->mode, opt->target));
}

static program run_script(const run_options *opt) {
    python self = active_python(opt->quiet);
    words rest = {NULL, 0};
    if (opt->target[0] == '-' && opt->target[1] != '\0') {
        add(&rest, "--");
    }
    add(&rest, opt->target);
    add_all(&rest, opt->arguments);
    return compose(opt, &self, "", &rest, name_of(NULL, opt->target));
}

static program run_python(const run_options *opt, const char *path) {
    python self;
    words rest = {NULL, 0};
    if (!identify(&self, path, opt->target)) {
        refuse("%s is no Python 3: it does not answer", path);
    }
    add_all(&rest, opt->arguments);
    return compose(opt, &self, "", &rest, name_of_command_line(opt->arguments));
}

/* A program on PATH that is no Python script may stand for one: pyenv's pytest is a shell script that looks for the
   real one. That lies beside the python that is active. */
static char *beside_active_python(const run_options *opt) {
    python self = active_python(true);
    char *path = beside(self.executable, opt->target);
    forget(&self);
    if (is_executable_file(path)) {
        return path;
    }
    free(path);
    return NULL;
}

enum {
    MOST_STEPS = 8 /* from an env or a script to the next */
};

static bool try_program(const run_options *opt, const char *path, int step, program *found);

/* A command line as env or the kernel would execute it; false: it is none of python's. */
static bool try_command(const run_options *opt, char *const *command, int step, program *found) {
    run_options inner = *opt;
    char *path = strchr(command[0], '/') != NULL ? must(strdup(command[0])) : find_as_env(command[0]);
    if (path == NULL || step == MOST_STEPS) {
        return false;
    }
    inner.target = command[0];
    inner.arguments = (char **)(uintptr_t)(command + 1);
    bool is_found = is_executable_file(path) && try_program(&inner, path, step + 1, found);
    free(path);
    return is_found;
}

/* Several words that env gets as one, and is not told to split. */
static bool needs_split(const char *word) {
    size_t first = strcspn(word, " \t");
    bool is_split = strncmp(word, "--split-string=", 15) == 0 ||
                    (word[0] == '-' && word[1] != '-' && memchr(word, 'S', first) != NULL);
    return word[first] != '\0' && !is_split;
}

/* A script, by the command that its first line names. */
static bool try_first_line(const run_options *opt, const char *script, int step, program *found) {
    words command = read_first_line(script);
    if (command.count == 0) {
        return false;
    }
    const char *interpreter = command.items[0];
    bool by_env = is_env(interpreter);
    if (!by_env && !is_python(interpreter)) {
        return false;
    }
    if (by_env && command.count > 1 && needs_split(command.items[1])) {
        refuse("%s: its first line gives env more than one word, which needs -S: #!%s -S %s", script, interpreter,
               command.items[1]);
    }
    add(&command, script);
    add_all(&command, opt->arguments);
    if (!try_command(opt, command.items, step, found)) {
        if (!by_env) {
            refuse("%s names %s as its python, which does not run", script, interpreter);
        }
        return false;
    }
    found->name = name_of_script(opt->target);
    return true;
}

static bool try_program(const run_options *opt, const char *path, int step, program *found) {
    if (is_python(path)) {
        *found = run_python(opt, path);
        return true;
    }
    if (is_env(path)) {
        char *const *command = take_env(opt->arguments);
        return command != NULL && try_command(opt, command, step, found);
    }
    return !is_elf(path) && try_first_line(opt, path, step, found);
}

/* Where pyprof-run belongs in the command line of a program that starts others: before a python, a script, or what
   follows `run` (uv, poetry, hatch). -1 = unknown. */
static int place_of_python(char *const *arguments) {
    for (int i = 0; arguments[i] != NULL; i++) {
        const char *ending = strrchr(arguments[i], '.');
        if (strchr(arguments[i], ' ') != NULL) {
            continue; /* several words, for a shell: they are its own to take apart */
        }
        if (has_pythons_name(arguments[i]) || (ending != NULL && strcmp(ending, ".py") == 0)) {
            return i;
        }
    }
    for (int i = 0; arguments[i] != NULL; i++) {
        if (strcmp(arguments[i], "run") == 0 && arguments[i + 1] != NULL && arguments[i + 1][0] != '-') {
            return i + 1;
        }
    }
    return -1;
}

/* What is neither python nor a Python script. */
static void refuse_program(const run_options *opt, const char *path) {
    int place = place_of_python(opt->arguments);
    char *command = must(strdup(place >= 0 ? opt->target : "nice"));
    for (int i = 0; i < place; i++) {
        command = text_of("%s %s", command, opt->arguments[i]);
    }
    refuse("%s is neither a python nor a Python script: pyprof-run goes in front of those "
           "(as in: %s pyprof-run %s ...); a host that embeds Python: pyprof-run --host %s ...",
           path, command, place >= 0 ? opt->arguments[place] : "-- python3 script.py", opt->target);
}

/* An environment that is named, but not on PATH, gives the python: so it gives the programs that came with it. */
static char *find_in_environment(const char *name) {
    const char *environment = getenv("VIRTUAL_ENV");
    if (environment == NULL || *environment == '\0' || *name == '\0') {
        return NULL;
    }
    char *path = text_of("%s/bin/%s", environment, name);
    if (is_executable_file(path)) {
        return path;
    }
    free(path);
    return NULL;
}

/* NAME=VALUE, as a shell takes it before a command. */
static bool is_variable(const char *word) {
    size_t length = strcspn(word, "=/");
    return length > 0 && word[length] == '=';
}

static program run_from_path(const run_options *opt) {
    struct stat status;
    program found;
    char *path = find_in_path(opt->target);
    path = path != NULL ? path : find_in_environment(opt->target);
    if (opt->target[0] == '-' && path == NULL) {
        refuse("cannot open %s: behind -- stands a program: pyprof-run %s ..., or pyprof-run -- python3 %s ...",
               opt->target, opt->target, opt->target);
    }
    if (strcmp(opt->target, "top") == 0 || strcmp(opt->target, "dump") == 0 || strcmp(opt->target, "attach") == 0) {
        refuse("there is no %s yet: pyprof-run records a program from its start to its end", opt->target);
    }
    if (path == NULL && is_variable(opt->target)) {
        refuse("cannot open %s: variables stand in front of pyprof-run, or behind env: pyprof-run env %s ...",
               opt->target, opt->target);
    }
    if (path == NULL) {
        refuse(stat(opt->target, &status) == 0
                   ? "%s is a folder without a __main__.py, and there is no program of that name on PATH"
                   : "cannot open %s: there is no such file, and no program of that name on PATH",
               opt->target);
    }
    if (!try_program(opt, path, 0, &found)) {
        char *other = beside_active_python(opt);
        if (other == NULL || !try_program(opt, other, 0, &found)) {
            refuse_program(opt, path);
        }
        free(other);
    }
    free(path);
    return found;
}

/* The scripts that pip installs beside a python are that python's, whatever is active. Others run in the active one. */
static bool belongs_to_other_python(const char *script) {
    words command = {NULL, 0};
    if (!is_elf(script)) {
        command = read_first_line(script);
    }
    if (command.count == 0 || !is_python(command.items[0]) || command.items[0][0] != '/') {
        return false;
    }
    char *one = directory_of(script), *other = directory_of(command.items[0]);
    bool together = same_file(one, other);
    free(one);
    free(other);
    return together;
}

/* Whether python would run it: a folder needs a __main__.py. A folder that has the name of a program is no script. */
static bool is_there(const char *target, struct stat *status) {
    char *begin = text_of("%s/__main__.py", target);
    bool there = stat(target, status) == 0 &&
                 (!S_ISDIR(status->st_mode) || strchr(target, '/') != NULL || access(begin, F_OK) == 0);
    free(begin);
    return there;
}

program find_program(const run_options *opt) {
    struct stat status;
    program found;
    if (opt->host) {
        return find_host(opt);
    }
    if (opt->mode != NULL) {
        return run_mode(opt);
    }
    if (strcmp(opt->target, "-") == 0) {
        return run_script(opt);
    }
    if (!is_there(opt->target, &status)) {
        if (strchr(opt->target, '/') == NULL) {
            return run_from_path(opt);
        }
        refuse("cannot open %s: %s", opt->target, strerror(errno));
    }
    if (S_ISREG(status.st_mode) && is_elf(opt->target)) {
        if (!try_program(opt, opt->target, 0, &found)) {
            refuse_program(opt, opt->target);
        }
        return found;
    }
    if (S_ISREG(status.st_mode) && is_executable_file(opt->target) &&
        (is_python(opt->target) || belongs_to_other_python(opt->target)) && try_program(opt, opt->target, 0, &found)) {
        return found;
    }
    return run_script(opt);
}
