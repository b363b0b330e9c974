/* run_host.c: a host program for pyprof-run --host, and the libraries that are preloaded into it.
 *
 * The one for the libpython that the program names among what it needs, if it does. Else CPython is in the program itself, or
 * comes later (a plugin's, by dlopen), or the program is a script that executes the host: then all that are here, and the
 * one that finds its CPython records (libpyprof.c).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "pyprof-run.h"

#include "handover.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what a program needs -------------------------------------------------------------------------------- */

/* A file as it lies in memory. */
typedef struct image {
    const unsigned char *data;
    size_t size;
} image;

static image map_file(const char *path) {
    struct stat status;
    image file = {NULL, 0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0 && fstat(descriptor, &status) == 0 && status.st_size > 0) {
        void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        file = data != MAP_FAILED ? (image){data, (size_t)status.st_size} : file;
    }
    if (descriptor >= 0) {
        (void)close(descriptor);
    }
    return file;
}

/* Copies a part of the file; false: it has not so much. */
static bool copy_part(const image *file, uint64_t offset, void *to, size_t size) {
    if (offset > file->size || size > file->size - offset) {
        return false;
    }
    memcpy(to, file->data + offset, size);
    return true;
}

/* The first segment of a type, from number *at on, which then is the next one's. */
static bool find_segment(const image *file, const ElfW(Ehdr) * head, uint32_t type, unsigned *at, ElfW(Phdr) * found) {
    for (; *at < head->e_phnum; ++*at) {
        if (!copy_part(file, head->e_phoff + (uint64_t)*at * sizeof *found, found, sizeof *found)) {
            return false;
        }
        if (found->p_type == type) {
            ++*at;
            return true;
        }
    }
    return false;
}

static bool has_segment(const image *file, const ElfW(Ehdr) * head, uint32_t type) {
    unsigned at = 0;
    ElfW(Phdr) found;
    return find_segment(file, head, type, &at, &found);
}

/* Where in the file lies what is at this address in memory; its size if it lies nowhere. */
static uint64_t offset_of(const image *file, const ElfW(Ehdr) * head, uint64_t address) {
    ElfW(Phdr) load;
    for (unsigned at = 0; find_segment(file, head, PT_LOAD, &at, &load);) {
        if (address >= load.p_vaddr && address - load.p_vaddr < load.p_filesz) {
            return load.p_offset + (address - load.p_vaddr);
        }
    }
    return file->size;
}

/* Of "libpython3.13t.so.1.0" it is "3.13t". */
static char *tag_of_library(const image *file, uint64_t offset) {
    static const char beginning[] = "libpython";
    char name[64] = "";
    size_t left = offset < file->size ? file->size - offset : 0;
    (void)copy_part(file, offset, name, left < sizeof name - 1 ? left : sizeof name - 1);
    char *end = strstr(name, ".so");
    if (strncmp(name, beginning, sizeof beginning - 1) != 0 || end == NULL || strchr(name, '.') == end) {
        return NULL; /* also libpython3.so, which is of any version */
    }
    *end = '\0';
    return must(strdup(name + sizeof beginning - 1));
}

/* The tag of the libpython that it names among what it needs; NULL = it names none. */
static char *needed_python(const image *file, const ElfW(Ehdr) * head) {
    unsigned at = 0;
    ElfW(Phdr) dynamic;
    ElfW(Dyn) entry;
    if (!find_segment(file, head, PT_DYNAMIC, &at, &dynamic)) {
        return NULL;
    }
    uint64_t names = file->size;
    for (uint64_t i = 0; copy_part(file, dynamic.p_offset + i * sizeof entry, &entry, sizeof entry); i++) {
        if (entry.d_tag == DT_STRTAB) {
            names = offset_of(file, head, entry.d_un.d_ptr);
        }
        if (entry.d_tag == DT_NULL || entry.d_tag == DT_STRTAB) {
            break;
        }
    }
    char *tag = NULL;
    for (uint64_t i = 0; tag == NULL; i++) {
        if (!copy_part(file, dynamic.p_offset + i * sizeof entry, &entry, sizeof entry) || entry.d_tag == DT_NULL) {
            break;
        }
        tag = entry.d_tag == DT_NEEDED ? tag_of_library(file, names + entry.d_un.d_val) : NULL;
    }
    return tag;
}

/* ---- the libraries for it -------------------------------------------------------------------------------- */

static void check_path(const char *library) {
    if (strpbrk(library, " :\t\n") != NULL) {
        refuse("%s: LD_PRELOAD, by which the program loads it, takes no path with a blank or a colon: install it "
               "elsewhere",
               library);
    }
}

static char *library_of(const char *path, const char *tag) {
    char *folder = library_folder();
    char *library = text_of("%s/libpyprof-%s.so", folder, tag);
    if (access(library, R_OK) != 0) {
        refuse("%s needs libpython%s, for which this pyprof-run has no library: build one for it (meson setup BUILD "
               "-Dpkg_config_path=PREFIX/lib/pkgconfig)",
               path, tag);
    }
    char *real = must(realpath(library, NULL));
    check_path(real);
    free(library);
    free(folder);
    return real;
}

/* With colons between them. */
static char *all_libraries(void) {
    glob_t found;
    char *folder = library_folder();
    char *pattern = text_of("%s/libpyprof-3.*.so", folder);
    char *list = NULL;
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            char *real = must(realpath(found.gl_pathv[i], NULL));
            check_path(real);
            char *longer = list == NULL ? must(strdup(real)) : text_of("%s:%s", list, real);
            free(list);
            free(real);
            list = longer;
        }
        globfree(&found);
    }
    if (list == NULL) {
        refuse("there is no library beside pyprof-run: %s", pattern);
    }
    free(pattern);
    free(folder);
    return list;
}

static char *libraries_for(const char *path) {
    ElfW(Ehdr) head;
    image file = map_file(path);
    if (!copy_part(&file, 0, &head, sizeof head) ||
        head.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        head.e_phentsize != sizeof(ElfW(Phdr))) {
        refuse("%s is a program of another kind than pyprof-run, so nothing can be loaded into it", path);
    }
    if (!has_segment(&file, &head, PT_INTERP)) {
        refuse("%s is linked statically, so nothing can be loaded into it", path);
    }
    char *tag = needed_python(&file, &head);
    char *list = tag != NULL ? library_of(path, tag) : all_libraries();
    free(tag);
    (void)munmap((void *)(uintptr_t)file.data, file.size);
    return list;
}

program find_host(const run_options *opt) {
    program found = {.name = must(strdup(base_name(opt->target)))};
    found.executable = strchr(opt->target, '/') != NULL ? must(strdup(opt->target)) : find_in_path(opt->target);
    if (found.executable == NULL) {
        refuse("cannot run %s: there is no program of that name on PATH", opt->target);
    }
    if (!is_executable_file(found.executable)) {
        refuse("cannot run %s: %s", opt->target,
               access(found.executable, X_OK) != 0 ? strerror(errno) : "it is no file");
    }
    if (ignores_preload(found.executable)) {
        refuse("%s runs with rights of its own (setuid or capabilities), so nothing can be loaded into it: "
               "use a copy of it that has none",
               found.executable);
    }
    bool is_script = !is_elf(found.executable);
    found.target = is_script ? HANDOVER_TO_SCRIPT : HANDOVER_TO_HOST;
    found.library = is_script ? all_libraries() : libraries_for(found.executable);
    size_t count = 0;
    while (opt->arguments[count] != NULL) {
        count++;
    }
    found.arguments = must(calloc(count + 2, sizeof *found.arguments));
    found.arguments[0] = must(strdup(opt->target));
    memcpy(found.arguments + 1, opt->arguments, count * sizeof *found.arguments);
    return found;
}
