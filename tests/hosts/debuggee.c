/* What the debugger in tests/hosts debugs. */
int main(int argc, char **argv) {
    volatile int sum = 0;
    (void)argv;
    for (int i = 0; i < 1000; i++) {
        sum += argc;
    }
    return sum == 1000 ? 5 : 6;
}
