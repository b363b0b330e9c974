/* A library with a lot of variables of a thread, for which the loader allocates when a thread first touches them. */
static __thread int numbers[20000];

int next_number(void);
int next_number(void) {
    return ++numbers[19999];
}
