/* LD_PRELOAD=heap_preload.so: samples the heap of each Python that is started, from before its first allocation. This part
   is loaded into everything, also what has no Python in it, so it needs nothing but the C library; the part with pyprof.h,
   heap_sampled.so, lies beside it and is loaded only where there is a CPython. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static char path[4096];

__attribute__((constructor)) static void begin(void) {
    Dl_info here;
    void (*sample)(void) = NULL;
    if (dlsym(RTLD_DEFAULT, "Py_IsInitialized") == NULL || dladdr(path, &here) == 0) {
        return;
    }
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash != NULL ? (int)(slash - here.dli_fname) + 1 : 0;
    snprintf(path, sizeof path, "%.*sheap_sampled.so", folder, here.dli_fname);
    void *sampled = dlopen(path, RTLD_LAZY);
    if (sampled != NULL) { /* else it was built for another CPython */
        *(void **)&sample = dlsym(sampled, "heap_sampled_begin");
    }
    if (sample != NULL) {
        sample();
    }
}
