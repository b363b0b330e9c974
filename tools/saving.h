/* saving.h: a profile becomes the file that PYPROF_OUTPUT names, in any format of exports.h. For libpyprof.c.
 *
 * It is done when the process ends, in whatever state: by the supervisor's thread, without stdio, whose locks a dying thread
 * may hold; and nothing is waited for, be it the reader of a pipe.
 */
#ifndef SAVING_H
#define SAVING_H

#include "../pyprof.h"
#include "exports.h"
#include "wishes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* False: errno says why. SIGPIPE is blocked in this thread, as all signals are. */
static bool fill_and_close(const pyprof_profile *profile, exports_format format, int descriptor) {
    pyprof__file file = {descriptor, 0};
    bool is_filled = exports_write(profile, NULL, format, pyprof__write_file, &file) == PYPROF_OK;
    int error = file.error != 0 ? file.error : ENOMEM;
    bool is_closed = close(descriptor) == 0;
    errno = is_filled ? errno : error;
    return is_filled && is_closed;
}

/* A pipe, a device. */
static bool save_into(const pyprof_profile *profile, exports_format format, const char *path) {
    int descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (descriptor < 0) {
        return false;
    }
    (void)fcntl(descriptor, F_SETFL, 0);
    return fill_and_close(profile, format, descriptor);
}

/* The whole file or as it was: see >>files of pyprof.h. */
static bool save_beside(const pyprof_profile *profile, exports_format format, const char *path, mode_t mode) {
    char name[PYPROF__PATH_SIZE];
    int descriptor = pyprof__open_beside(path, name, sizeof name);
    if (descriptor < 0) {
        return false;
    }
    bool is_saved = (mode == 0 || fchmod(descriptor, mode & 07777) == 0);
    is_saved = fill_and_close(profile, format, descriptor) && is_saved && rename(name, path) == 0;
    if (!is_saved) {
        int error = errno;
        (void)unlink(name);
        errno = error;
    }
    return is_saved;
}

static bool save_at(const pyprof_profile *profile, exports_format format, const char *path) {
    struct stat status;
    char target[PYPROF__PATH_SIZE];
    bool exists = stat(path, &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        return save_into(profile, format, path);
    }
    return pyprof__follow_links(path, target, sizeof target) &&
           save_beside(profile, format, target, exists ? status.st_mode : 0);
}

static void save_profile(const pyprof_profile *profile, exports_format format, const char *path) {
    if (!save_at(profile, format, path)) {
        say("cannot write %s: %s", path, strerror(errno));
    }
}

#endif
