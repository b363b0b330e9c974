/* What the implementing unit asks of the one that only uses the header. */
#ifdef __cplusplus
extern "C" {
#endif

const char *text_of_ok(void);

#ifdef __cplusplus
}
#endif
