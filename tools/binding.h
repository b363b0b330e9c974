/* binding.h: the CPython of this process, found when it begins, and its names bound. For libpyprof.c.
 *
 * The library is loaded into programs that have no CPython yet, and into ones that never have one. So all that it takes
 * from CPython is weak (tools/meson.build): where there is none, nothing is missed. Where libpython comes later, with
 * dlopen, maybe so that nobody else sees its names (RTLD_LOCAL), they are looked up in it, and put where the loader would
 * have put them, which this library's relocations say.
 */
#ifndef BINDING_H
#define BINDING_H

#include <Python.h>

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Where to look its names up, and what it says that it is. */
typedef struct python_here {
    void *scope;
    const char *version;
} python_here;

/* Where the program or library begins that has this address in it; NULL = none has. */
static void *base_of(const void *address) {
    Dl_info info;
    return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}

/* Py_GetVersion, if it is of the program or library that begins there. */
static void *version_function(void *scope, const void *base) {
    void *function = dlsym(scope, "Py_GetVersion");
    return function != NULL && base_of(function) == base ? function : NULL;
}

/* Whether this code is CPython's, be it in a library of its own or in the program. */
static bool find_python(const void *code, python_here *found) {
    Dl_info info;
    const char *(*version)(void);
    if (dladdr(code, &info) == 0) {
        return false;
    }
    found->scope = RTLD_DEFAULT;
    void *function = version_function(RTLD_DEFAULT, info.dli_fbase);
    if (function == NULL) { /* the handle is kept: what is bound to it must stay */
        found->scope = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        function = found->scope != NULL ? version_function(found->scope, info.dli_fbase) : NULL;
    }
    if (function == NULL) {
        if (found->scope != NULL) {
            (void)dlclose(found->scope);
        }
        return false;
    }
    memcpy(&version, &function, sizeof version);
    found->version = version();
    return true;
}

/* Whether it is the one that this library was compiled for: "3.11.2 (main, ...)", "3.13.0 experimental free-threading build
   (...)". What else there may be between the two is pyprof_start's to find. */
static bool is_our_version(const python_here *python) {
    char ours[16];
#if defined(Py_GIL_DISABLED)
    const bool is_free_threaded = true;
#else
    const bool is_free_threaded = false;
#endif
    int length = snprintf(ours, sizeof ours, "%d.%d.", PY_MAJOR_VERSION, PY_MINOR_VERSION);
    return strncmp(python->version, ours, (size_t)length) == 0 &&
           (strstr(python->version, "free-threading") != NULL) == is_free_threaded;
}

/* What the loader knows of this library. */
typedef struct own_elf {
    uintptr_t base;
    const ElfW(Sym) * symbols;
    const char *names;
    const ElfW(Rela) * relocations[2];
    size_t counts[2];
} own_elf;

/* glibc has added where the library lies to the addresses of its dynamic section, musl has not. */
static const void *address_in(const own_elf *self, ElfW(Addr) value) {
    uintptr_t address = value < self->base ? self->base + value : value;
    const void *pointer;
    memcpy(&pointer, &address, sizeof pointer);
    return pointer;
}

extern ElfW(Dyn) _DYNAMIC[]; /* the dynamic section itself; musl does not declare it */

static own_elf read_own_elf(void) {
    own_elf self;
    memset(&self, 0, sizeof self);
    self.base = (uintptr_t)base_of(_DYNAMIC);
    for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB:
            self.symbols = (const ElfW(Sym) *)address_in(&self, entry->d_un.d_ptr);
            break;
        case DT_STRTAB:
            self.names = (const char *)address_in(&self, entry->d_un.d_ptr);
            break;
        case DT_RELA:
            self.relocations[0] = (const ElfW(Rela) *)address_in(&self, entry->d_un.d_ptr);
            break;
        case DT_RELASZ:
            self.counts[0] = entry->d_un.d_val / sizeof(ElfW(Rela));
            break;
        case DT_JMPREL:
            self.relocations[1] = (const ElfW(Rela) *)address_in(&self, entry->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            self.counts[1] = entry->d_un.d_val / sizeof(ElfW(Rela));
            break;
        default:
            break;
        }
    }
    return self;
}

/* The name of CPython's that a relocation asks for; NULL = it asks for something else. */
static const char *python_name(const own_elf *self, const ElfW(Rela) * relocation) {
#if __ELF_NATIVE_CLASS == 64
    const ElfW(Sym) *symbol = &self->symbols[ELF64_R_SYM(relocation->r_info)];
#else
    const ElfW(Sym) *symbol = &self->symbols[ELF32_R_SYM(relocation->r_info)];
#endif
    const char *name = self->names + symbol->st_name;
    bool is_pythons = strncmp(name, "Py", 2) == 0 || strncmp(name, "_Py", 3) == 0;
    return is_pythons && symbol->st_shndx == SHN_UNDEF ? name : NULL;
}

/* Binds all names, or none. Answers the one that this CPython has not; NULL = it has them all. */
static const char *bind_names(const python_here *python) {
    own_elf self = read_own_elf();
    for (int is_binding = 0; is_binding < 2; is_binding++) {
        for (size_t i = 0; i < self.counts[0] + self.counts[1]; i++) {
            const ElfW(Rela) *relocation =
                i < self.counts[0] ? &self.relocations[0][i] : &self.relocations[1][i - self.counts[0]];
            const char *name = python_name(&self, relocation);
            void *address = name != NULL ? dlsym(python->scope, name) : NULL;
            if (name != NULL && address == NULL) {
                return name;
            }
            if (name != NULL && is_binding) {
                uintptr_t bound = (uintptr_t)address + (uintptr_t)relocation->r_addend;
                memcpy((void *)(self.base + relocation->r_offset), &bound, sizeof bound);
            }
        }
    }
    return NULL;
}

#endif
