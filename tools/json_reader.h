/* json_reader.h: JSON (RFC 8259) read from memory, value by value, without a tree of it.
 *
 * A reader is a place in the text: to copy it is to remember the place, so two lists that belong together may be read
 * side by side. Values are entered, taken or skipped in the order of the text:
 *
 *     json_reader json = json_begin(text, size);
 *     for (json_enter(&json, '{'); json_next(&json, '}');)
 *         if (json_key(&json, &key) && json_is(&key, "weights"))
 *             for (json_enter(&json, '['); json_next(&json, ']');)
 *                 json_number(&json, -9, &nanoseconds);
 *         else
 *             json_skip(&json);
 *     if (!json_end(&json)) complain(json.wrong, json.at - json.start);
 *
 * Whatever is wrong is kept in `wrong`, with `at` at the place; from then on nothing is read, and json_next answers false.
 * It is strict: what is skipped is looked at as well. The libraries that Debian packages were not taken: yyjson is not in
 * Debian 12, yajl is not kept up, and jansson and json-c make a tree: of 80 MB of stacks and weights jansson's takes 780 MB,
 * and longer than it takes here to have a whole profile of them.
 */
#ifndef JSON_READER_H
#define JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX_DEPTH 200 /* of what is skipped: lists in lists */

typedef struct json_reader {
    const char *start, *at, *end;
    const char *wrong; /* NULL = nothing so far */
    bool is_first;     /* a list or an object has just been entered: no comma comes before what follows */
} json_reader;

/* A string as it stands in the text, without its quotation marks; escapes are undone by json_decode. */
typedef struct json_text {
    const char *data;
    size_t size;
    bool has_escapes;
} json_text;

static inline json_reader json_begin(const char *text, size_t size) {
    json_reader json = {text, text, text + size, NULL, true};
    return json;
}

static inline bool json_fail(json_reader *json, const char *wrong) {
    json->wrong = json->wrong != NULL ? json->wrong : wrong;
    return false;
}

/* The next byte that is no blank, which stays there; 0 = the text has ended, or something is wrong. */
static inline char json_peek(json_reader *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\t' || *json->at == '\r')) {
        json->at++;
    }
    return json->at < json->end && json->wrong == NULL ? *json->at : '\0';
}

static inline bool json_take(json_reader *json, char byte, const char *wrong) {
    if (json_peek(json) != byte) {
        return json_fail(json, json->at == json->end ? "the text ends in the middle" : wrong);
    }
    json->at++;
    return true;
}

/* Goes into an object, '{', or a list, '['. */
static inline bool json_enter(json_reader *json, char bracket) {
    json->is_first =
        json_take(json, bracket, bracket == '{' ? "an object {...} is expected" : "a list [...] is expected");
    return json->is_first;
}

/* Whether one more item comes; if not, goes out behind the closing bracket. */
static inline bool json_next(json_reader *json, char closing) {
    bool is_first = json->is_first;
    json->is_first = false;
    if (json_peek(json) == closing) {
        json->at++;
        return false;
    }
    return json->wrong == NULL && (is_first || json_take(json, ',', "a comma or a closing bracket is expected")) &&
           (json_peek(json) != closing || json_fail(json, "a comma stands before a closing bracket"));
}

static inline bool json_is_hex(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

/* What stands behind a backslash, at `at`. Answers how many bytes it takes; 0 = it is no escape. */
static inline size_t json_escape_size(const char *at, const char *end) {
    if (at < end && *at == 'u') {
        size_t digits = 1;
        while (digits < 5 && at + digits < end && json_is_hex(at[digits])) {
            digits++;
        }
        return digits == 5 ? digits : 0;
    }
    return at < end && *at != '\0' && strchr("\"\\/bfnrt", *at) != NULL ? 1 : 0;
}

static inline bool json_string(json_reader *json, json_text *text) {
    memset(text, 0, sizeof *text);
    if (!json_take(json, '"', "a string is expected")) {
        return false;
    }
    text->data = json->at;
    for (; json->at < json->end && *json->at != '"'; json->at++) {
        if ((unsigned char)*json->at < 0x20) {
            return json_fail(json, "a string has a control character in it");
        }
        if (*json->at == '\\') {
            size_t size = json_escape_size(json->at + 1, json->end);
            text->has_escapes = true;
            if (size == 0) {
                return json_fail(json, "a string has an escape that JSON does not know");
            }
            json->at += size;
        }
    }
    text->size = (size_t)(json->at - text->data);
    return json_take(json, '"', "");
}

/* The name of an object's next value. */
static inline bool json_key(json_reader *json, json_text *key) {
    return json_string(json, key) && json_take(json, ':', "a colon is expected behind a name");
}

/* Names that are looked for have no escapes, and nobody writes them with any. */
static inline bool json_is(const json_text *text, const char *word) {
    return strlen(word) == text->size && memcmp(text->data, word, text->size) == 0;
}

static inline uint32_t json_hex(const char *digits) {
    char text[5] = {digits[0], digits[1], digits[2], digits[3], '\0'};
    return (uint32_t)strtoul(text, NULL, 16);
}

/* The code point of \uXXXX at `at`, with the second half of a pair; a lone surrogate stays one. */
static inline uint32_t json_code_point(const char **at, const char *end) {
    uint32_t c = json_hex(*at + 2);
    *at += 6;
    if (c >= 0xd800 && c < 0xdc00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
        uint32_t low = json_hex(*at + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            *at += 6;
            return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return c;
}

static inline size_t json_put_utf8(uint32_t c, char *out) {
    size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    for (size_t i = more; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)(lead[more] | c);
    return more + 1;
}

/* The string without its escapes, into out, which has room for text->size bytes. Answers how many it takes. */
static inline size_t json_decode(const json_text *text, char *out) {
    static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
    const char *at = text->data, *end = at + text->size;
    size_t size = 0;
    while (at < end) {
        if (*at != '\\') {
            out[size++] = *at++;
        } else if (at[1] == 'u') {
            size += json_put_utf8(json_code_point(&at, end), out + size);
        } else {
            const char *letter = strchr(letters, at[1]);
            out[size++] = letter != NULL ? meant[letter - letters] : at[1];
            at += 2;
        }
    }
    return size;
}

/* ---- numbers ---- */

/* digits * 10^exponent, to the nearest whole number; false = that does not fit. */
static inline bool json_scale(uint64_t digits, int exponent, uint64_t *value) {
    *value = digits;
    for (; exponent > 0 && *value > 0; exponent--) {
        if (__builtin_mul_overflow(*value, 10, value)) {
            return false;
        }
    }
    for (; exponent < -1 && *value > 0; exponent++) {
        *value /= 10;
    }
    if (exponent < 0 && *value > 0) {
        *value = *value / 10 + (*value % 10 >= 5);
    }
    return true;
}

/* Digits from *at on; those of a fraction that do not fit are far too small to count. */
static inline bool json_take_digits(const char **at, const char *end, bool is_fraction, uint64_t *digits,
                                    int *exponent) {
    bool fits = true;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        uint64_t digit = (uint64_t)(**at - '0');
        if (*digits <= (UINT64_MAX - digit) / 10) {
            *digits = *digits * 10 + digit;
            *exponent -= is_fraction;
        } else {
            fits = is_fraction;
        }
    }
    return fits;
}

static const char JSON_TOO_LARGE[] = "a number is too large for 64 bits";

/* The number at *at, which is not negative, times 10^exponent: as 12, 1.5 or 1e-05. Answers NULL, or what is wrong. */
static inline const char *json_decimal(const char **at, const char *end, int exponent, uint64_t *value) {
    uint64_t digits = 0;
    const char *start = *at;
    *value = 0;
    if (start < end && *start == '-') {
        return "a number that is not negative is expected";
    }
    bool fits = json_take_digits(at, end, false, &digits, &exponent);
    if (*at == start) {
        return "a number is expected";
    }
    if (*at < end && **at == '.') {
        start = ++*at;
        (void)json_take_digits(at, end, true, &digits, &exponent);
        if (*at == start) {
            return "a number ends with its point";
        }
    }
    if (*at < end && (**at == 'e' || **at == 'E')) {
        uint64_t power = 0;
        int none = 0;
        ++*at;
        bool is_minus = *at < end && **at == '-';
        *at += *at < end && (**at == '-' || **at == '+');
        start = *at;
        if (!json_take_digits(at, end, false, &power, &none) || *at == start || power > 1000) {
            return "a number has an exponent that is none";
        }
        exponent += is_minus ? -(int)power : (int)power;
    }
    return fits && json_scale(digits, exponent, value) ? NULL : JSON_TOO_LARGE;
}

/* A number that is not negative, times 10^exponent, to the nearest whole one. */
static inline bool json_number(json_reader *json, int exponent, uint64_t *value) {
    (void)json_peek(json);
    const char *wrong = json->wrong == NULL ? json_decimal(&json->at, json->end, exponent, value) : json->wrong;
    return wrong == NULL || json_fail(json, wrong);
}

/* A number of any kind, or one of the three words. */
static inline bool json_skip_word(json_reader *json) {
    static const char *const words[] = {"true", "false", "null"};
    size_t room = (size_t)(json->end - json->at);
    uint64_t value;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t size = strlen(words[i]);
        if (room >= size && memcmp(json->at, words[i], size) == 0) {
            json->at += size;
            return true;
        }
    }
    json->at += *json->at == '-';
    const char *wrong = json_decimal(&json->at, json->end, 0, &value);
    return wrong == NULL || wrong == JSON_TOO_LARGE || json_fail(json, wrong);
}

static inline bool json_skip_at(json_reader *json, int depth) {
    json_text text;
    char first = json_peek(json);
    if (first == '"') {
        return json_string(json, &text);
    }
    if (first != '{' && first != '[') {
        return first != '\0' ? json_skip_word(json) : json_fail(json, "the text ends in the middle");
    }
    if (depth == JSON_MAX_DEPTH) {
        return json_fail(json, "lists lie too deep in lists");
    }
    char closing = first == '{' ? '}' : ']';
    for (json_enter(json, first); json_next(json, closing);) {
        if ((first == '{' && !json_key(json, &text)) || !json_skip_at(json, depth + 1)) {
            return false;
        }
    }
    return json->wrong == NULL;
}

/* Passes over a value of any kind. */
static inline bool json_skip(json_reader *json) {
    return json_skip_at(json, 0);
}

/* Whether all was read, and nothing was wrong. */
static inline bool json_end(json_reader *json) {
    (void)json_peek(json);
    return json->wrong == NULL && (json->at == json->end || json_fail(json, "more text follows"));
}

#endif
