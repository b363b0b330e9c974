/* unwind.h: who called what a stopped thread of another process is in. For attach.c.
 *
 * By the call frame information that compilers leave for exceptions (.eh_frame, found by .eh_frame_hdr), read from the
 * memory of the process: exact, or not at all. There is no guess from what happens to lie on a stack. Of the registers only
 * those are followed from which a frame's address is reckoned, rsp and rbp: so it is for x86-64, and gives up where others
 * are used.
 * Begin with unwind_step.
 */
#ifndef UNWIND_H
#define UNWIND_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    UNWIND_RBP = 6, /* as DWARF numbers the registers of x86-64 */
    UNWIND_RSP = 7,
    UNWIND_RETURN = 16,
    UNWIND_SAVED_RULES = 4,
    UNWIND_RELATIVE_32 = 0x1b, /* how addresses are written: signed, 4 bytes, from where they stand */
    UNWIND_TABLE_32 = 0x3b,    /* from where the table's header stands */
    UNWIND_COUNT_32 = 0x03
};

typedef struct unwind_memory {
    const void *of;
    bool (*read)(const void *of, uint64_t at, void *to, size_t size);
} unwind_memory;

/* pc: the next instruction. is_called: it is what a call returns to. */
typedef struct unwind_frame {
    uint64_t pc, sp, bp;
    bool is_called;
} unwind_frame;

/* Where a frame begins (its caller's stack pointer at the call), and what is found relative to that. */
typedef struct unwind_rules {
    uint64_t base_register;
    int64_t base_offset, bp_offset, return_offset;
    bool is_bp_saved;
} unwind_rules;

/* Bytes of the process, taken one after the other. at: where the first of them lies there. */
typedef struct unwind_bytes {
    uint8_t data[1024];
    size_t size, taken;
    uint64_t at;
    bool is_bad; /* more was taken than there is, or what is not known */
} unwind_bytes;

typedef struct unwind_common {
    unwind_bytes bytes; /* its instructions are what is left */
    uint64_t code_step;
    int64_t data_step;
} unwind_common;

static uint64_t unwind_take(unwind_bytes *bytes, size_t size) {
    uint64_t value = 0;
    if (bytes->is_bad || size > bytes->size - bytes->taken) {
        bytes->is_bad = true;
        return 0;
    }
    memcpy(&value, bytes->data + bytes->taken, size);
    bytes->taken += size;
    return value;
}

/* A number of any size (LEB128). */
static uint64_t unwind_take_number(unwind_bytes *bytes, bool is_signed) {
    uint64_t value = 0, byte = 0x80;
    unsigned shift = 0;
    for (; (byte & 0x80) != 0 && shift < 63 && !bytes->is_bad; shift += 7) {
        byte = unwind_take(bytes, 1);
        value |= (byte & 0x7f) << shift;
    }
    bytes->is_bad = bytes->is_bad || (byte & 0x80) != 0;
    return is_signed && (byte & 0x40) != 0 ? value | (~(uint64_t)0 << shift) : value;
}

static uint64_t unwind_take_unsigned(unwind_bytes *bytes) {
    return unwind_take_number(bytes, false);
}

static int64_t unwind_take_signed(unwind_bytes *bytes) {
    return (int64_t)unwind_take_number(bytes, true);
}

static int64_t unwind_take_offset(unwind_bytes *bytes, int64_t step) {
    return (int64_t)(unwind_take_unsigned(bytes) & 0xffffff) * step;
}

static void unwind_skip(unwind_bytes *bytes, uint64_t size) {
    bytes->is_bad = bytes->is_bad || size > bytes->size - bytes->taken;
    bytes->taken += bytes->is_bad ? 0 : (size_t)size;
}

/* An entry of .eh_frame: its size, and what follows that. False: it cannot be read, or is larger than any that we follow. */
static bool unwind_read_entry(const unwind_memory *memory, uint64_t at, unwind_bytes *bytes) {
    uint32_t size = 0;
    memset(bytes, 0, sizeof *bytes);
    if (!memory->read(memory->of, at, &size, sizeof size) || size < 8 || size > sizeof bytes->data) {
        return false;
    }
    bytes->size = size;
    bytes->at = at + sizeof size;
    return memory->read(memory->of, bytes->at, bytes->data, size);
}

/* How the addresses of the entries are written, out of what else they have in common. */
static uint64_t unwind_take_way(unwind_bytes *bytes, const char *kinds) {
    uint64_t way = 0, other;
    for (const char *kind = kinds + 1; kinds[0] == 'z' && *kind != '\0' && !bytes->is_bad; kind++) {
        switch (*kind) {
        case 'R':
            way = unwind_take(bytes, 1);
            break;
        case 'P': /* a language's function, of 4 or 8 bytes */
            other = unwind_take(bytes, 1) & 0x0f;
            unwind_skip(bytes, other == 0x0b || other == 0x03 ? 4 : 8);
            break;
        case 'L': /* its data */
            unwind_skip(bytes, 1);
            break;
        default: /* the frame of a signal, or what is not known */
            bytes->is_bad = true;
        }
    }
    return way;
}

/* What many entries have in common. */
static bool unwind_read_common(const unwind_memory *memory, uint64_t at, unwind_common *common) {
    unwind_bytes *bytes = &common->bytes;
    char kinds[8] = "";
    if (!unwind_read_entry(memory, at, bytes) || unwind_take(bytes, 4) != 0 || unwind_take(bytes, 1) != 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof kinds; i++) {
        kinds[i] = (char)unwind_take(bytes, 1);
        if (kinds[i] == '\0') {
            break;
        }
    }
    common->code_step = unwind_take_unsigned(bytes);
    common->data_step = unwind_take_signed(bytes);
    uint64_t returns = unwind_take_unsigned(bytes);
    uint64_t size = kinds[0] == 'z' ? unwind_take_unsigned(bytes) : 0;
    size_t end = bytes->taken + (size_t)(size & 0xff);
    bool is_known = kinds[0] == 'z' && kinds[sizeof kinds - 1] == '\0' && returns == UNWIND_RETURN &&
                    unwind_take_way(bytes, kinds) == UNWIND_RELATIVE_32;
    return is_known && bytes->taken == end && !bytes->is_bad;
}

static void unwind_note_saved(unwind_rules *rules, uint64_t number, int64_t offset, bool is_saved) {
    if (number == UNWIND_RBP) {
        rules->is_bp_saved = is_saved;
        rules->bp_offset = offset;
    } else if (number == UNWIND_RETURN) {
        rules->return_offset = offset;
    }
}

/* The instructions of more than one byte. first: the rules that the entries have in common. */
static void unwind_run_long(unwind_bytes *bytes, uint64_t code, int64_t step, const unwind_rules *first,
                            unwind_rules *rules) {
    uint64_t number;
    switch (code) {
    case 0x05: /* saved at an offset */
        number = unwind_take_unsigned(bytes);
        unwind_note_saved(rules, number, unwind_take_offset(bytes, step), true);
        break;
    case 0x06: /* again as in the beginning */
        unwind_note_saved(rules, unwind_take_unsigned(bytes), first->bp_offset, first->is_bp_saved);
        break;
    case 0x08: /* unchanged */
        unwind_note_saved(rules, unwind_take_unsigned(bytes), 0, false);
        break;
    case 0x0c: /* the base: register and offset */
        rules->base_register = unwind_take_unsigned(bytes);
        rules->base_offset = unwind_take_offset(bytes, 1);
        break;
    case 0x0d:
        rules->base_register = unwind_take_unsigned(bytes);
        break;
    case 0x0e:
        rules->base_offset = unwind_take_offset(bytes, 1);
        break;
    case 0x2e: /* of arguments on the stack, which are no matter here */
        (void)unwind_take_unsigned(bytes);
        break;
    default: /* expressions, other registers, other machines' */
        bytes->is_bad = true;
    }
}

/* Runs the instructions to the end, or until those for what lies behind an offset from the function's begin. */
static bool unwind_run(unwind_bytes *bytes, const unwind_common *common, uint64_t offset, const unwind_rules *first,
                       unwind_rules *rules) {
    unwind_rules saved[UNWIND_SAVED_RULES];
    size_t count = 0;
    uint64_t reached = 0;
    while (bytes->taken < bytes->size && !bytes->is_bad) {
        uint64_t code = unwind_take(bytes, 1), low = code & 0x3f;
        if (code >> 6 == 1 || (code >= 0x02 && code <= 0x04)) {
            reached += common->code_step * (code >> 6 == 1 ? low : unwind_take(bytes, (size_t)1 << (code - 2)));
            if (reached > offset) {
                return !bytes->is_bad;
            }
        } else if (code >> 6 == 2) {
            unwind_note_saved(rules, low, unwind_take_offset(bytes, common->data_step), true);
        } else if (code >> 6 == 3) {
            unwind_note_saved(rules, low, low == UNWIND_RETURN ? first->return_offset : first->bp_offset,
                              first->is_bp_saved);
        } else if (code == 0x0a && count < UNWIND_SAVED_RULES) {
            saved[count++] = *rules;
        } else if (code == 0x0b && count > 0) {
            *rules = saved[--count];
        } else if (code != 0) {
            unwind_run_long(bytes, code, common->data_step, first, rules);
        }
    }
    return !bytes->is_bad;
}

/* The entry for an address in a file that is mapped at image. */
static bool unwind_find_entry(const unwind_memory *memory, uint64_t image, uint64_t pc, uint64_t *entry) {
    Elf64_Ehdr head;
    Elf64_Phdr segment;
    uint64_t first = 0, table = 0;
    bool is_good = memory->read(memory->of, image, &head, sizeof head) && memcmp(head.e_ident, ELFMAG, SELFMAG) == 0;
    for (unsigned i = 0; is_good && i < head.e_phnum; i++) {
        is_good = memory->read(memory->of, image + head.e_phoff + i * sizeof segment, &segment, sizeof segment);
        first = is_good && segment.p_type == PT_LOAD && segment.p_offset == 0 ? segment.p_vaddr : first;
        table = is_good && segment.p_type == PT_GNU_EH_FRAME ? segment.p_vaddr : table;
    }
    struct {
        uint8_t version, frames, counts, entries;
        int32_t at;
        uint32_t count;
    } header;
    table += image - first;
    is_good = is_good && table != image - first && memory->read(memory->of, table, &header, sizeof header) &&
              header.version == 1 && header.frames == UNWIND_RELATIVE_32 && header.counts == UNWIND_COUNT_32 &&
              header.entries == UNWIND_TABLE_32;
    uint64_t low = 0, high = is_good ? header.count : 0;
    int32_t pair[2] = {0, 0}; /* where a function begins, and its entry */
    while (is_good && high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        is_good = memory->read(memory->of, table + sizeof header + middle * sizeof pair, pair, sizeof pair);
        bool is_behind = pc >= table + (uint64_t)(int64_t)pair[0];
        low = is_behind ? middle : low;
        high = is_behind ? high : middle;
    }
    is_good =
        is_good && high > low && memory->read(memory->of, table + sizeof header + low * sizeof pair, pair, sizeof pair);
    *entry = table + (uint64_t)(int64_t)pair[1];
    return is_good;
}

/* The rules for an address. */
static bool unwind_find_rules(const unwind_memory *memory, uint64_t image, uint64_t pc, unwind_rules *rules) {
    uint64_t at = 0;
    unwind_bytes bytes;
    unwind_common common;
    if (!unwind_find_entry(memory, image, pc, &at) || !unwind_read_entry(memory, at, &bytes) ||
        !unwind_read_common(memory, bytes.at - unwind_take(&bytes, 4), &common)) {
        return false;
    }
    uint64_t begin = bytes.at + bytes.taken;
    begin += (uint64_t)(int64_t)(int32_t)unwind_take(&bytes, 4);
    uint64_t size = unwind_take(&bytes, 4);
    unwind_skip(&bytes, unwind_take_unsigned(&bytes)); /* a language's data */
    if (bytes.is_bad || pc - begin >= size) {
        return false;
    }
    const unwind_rules none = {UNWIND_RETURN, 0, 0, -8, false};
    unwind_rules first = none;
    if (!unwind_run(&common.bytes, &common, UINT64_MAX, &none, &first)) {
        return false;
    }
    *rules = first;
    return unwind_run(&bytes, &common, pc - begin, &first, rules);
}

/* From a frame to its caller's. image: where the file of its code is mapped, its first byte. False: it cannot be told, and the
   frame is as it was. */
static bool unwind_step(const unwind_memory *memory, uint64_t image, unwind_frame *frame) {
    unwind_rules rules;
    if (!unwind_find_rules(memory, image, frame->pc - (frame->is_called ? 1 : 0), &rules) ||
        (rules.base_register != UNWIND_RSP && rules.base_register != UNWIND_RBP)) {
        return false;
    }
    uint64_t base = (rules.base_register == UNWIND_RSP ? frame->sp : frame->bp) + (uint64_t)rules.base_offset;
    unwind_frame caller = {0, base, frame->bp, true};
    if (!memory->read(memory->of, base + (uint64_t)rules.return_offset, &caller.pc, sizeof caller.pc) ||
        (rules.is_bp_saved &&
         !memory->read(memory->of, base + (uint64_t)rules.bp_offset, &caller.bp, sizeof caller.bp))) {
        return false;
    }
    bool is_upward = caller.sp > frame->sp;
    *frame = is_upward ? caller : *frame;
    return is_upward;
}

#endif
